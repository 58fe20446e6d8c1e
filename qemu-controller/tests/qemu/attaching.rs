//! Sessions with a QEMU that runs already.

use std::time::Duration;

use qemu_controller::{
    Address, DetachError, Endpoint, MemoryError, Session, SessionEnd, StartError, StartPhase,
    StoppedBy,
};
use qemu_launch::Monitor;

use crate::support::{DEADLINE, chain, config, gone, start};

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
        let error = guest.write_u32(0x2000_0000, 0).await.unwrap_err();
        assert!(matches!(error, MemoryError::NotWritable), "{error}");
        drop(guest);
    }

    // One monitor, one client: the second one gets an error, and has sent nothing.
    let first = Session::attach(Address::Socket(path.clone()), DEADLINE)
        .await
        .unwrap();
    let error = Session::attach(Address::Socket(path.clone()), Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            StartError::Deadline {
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
    assert_eq!(
        (stopped.by, stopped.exit.is_none()),
        (StoppedBy::Quit, true)
    );
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
    assert!(matches!(error, StartError::Connect { .. }));
}

#[tokio::test]
async fn a_kept_qemu_is_left_behind_on_purpose_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.sock");
    let config = config("tick")
        .qmp(Endpoint::Socket(path.clone()))
        .keep_running(true);
    let session = Session::start(config).await.unwrap();
    let pid = session.pid().unwrap();
    session.detach().unwrap();
    assert!(matches!(session.ended().await, SessionEnd::Released));
    assert!(session.query_status().await.is_err());
    drop(session);

    let found = Session::attach(Address::Socket(path.clone()), DEADLINE)
        .await
        .unwrap();
    assert!(found.query_status().await.unwrap().running);
    found.detach().unwrap();
    let found = Session::attach(Address::Socket(path), DEADLINE)
        .await
        .unwrap();
    found.stop().await.unwrap();
    assert!(gone(pid).await);
}

#[tokio::test]
async fn a_qemu_that_is_not_kept_is_not_left_behind() {
    let session = start("tick").await;
    assert_eq!(session.detach(), Err(DetachError));
    session.query_status().await.unwrap();
}
