//! Sessions with a QEMU that runs already.

use std::time::Duration;

use qemu_controller::{Address, AttachError, Endpoint, Session, StartPhase, StoppedBy};
use qemu_launch::Monitor;

use crate::support::{DEADLINE, chain, config};

#[tokio::test]
async fn joins_and_leaves_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("second.sock");
    let with_second =
        config("tick").with_spec(|spec| spec.monitor(Monitor::Qmp(Endpoint::Socket(path.clone()))));
    let owner = Session::start(with_second).await.unwrap();

    for _ in 0..3 {
        let guest = Session::attach(Address::Socket(path.clone()), DEADLINE)
            .await
            .unwrap();
        assert!(guest.query_status().await.unwrap().running);
        assert!(guest.pid().is_none());
        drop(guest);
    }

    // One monitor, one client: the second one is told, and has sent nothing.
    let first = Session::attach(Address::Socket(path.clone()), DEADLINE)
        .await
        .unwrap();
    let error = Session::attach(Address::Socket(path.clone()), Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            AttachError::Deadline {
                phase: StartPhase::Greeting,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("another client may hold it"),
        "{error}"
    );
    first.query_status().await.unwrap();

    let stopped = first.stop().await.unwrap();
    assert_eq!((stopped.by, stopped.exit.is_none()), (StoppedBy::Quit, true));
    owner.ended().await;
    assert!(owner.stop().await.unwrap().exit.unwrap().success());
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let error = Session::attach(Address::Socket(folder.path().join("none.sock")), DEADLINE)
        .await
        .unwrap_err();
    assert!(chain(&error).contains("none.sock"), "{}", chain(&error));
    assert!(matches!(error, AttachError::Connect { .. }));
}
