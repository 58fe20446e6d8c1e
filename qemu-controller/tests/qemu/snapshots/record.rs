//! What a session saves and loads by its own record, without asking QEMU what there is; and what
//! others do to its image meanwhile.

use qemu_controller::{RunState, Session, SnapshotError};

use super::check_put_back;
use crate::support::{config, counts, start};
use crate::trap::Trap;

/// Each command costs a round trip: these are the ones that are needed.
#[tokio::test]
async fn a_save_and_a_load_of_one_s_own_ask_hardly_anything() {
    let trap = Trap::default();
    let config = config("tick").qmp_transcript_to(trap.transcript());
    let session = Session::start(config).await.unwrap();
    for name in ["first", "second"] {
        session.save_snapshot(name).await.unwrap();
    }
    trap.listen();
    session.save_snapshot("third").await.unwrap();
    // A disk may have been added since the last save.
    let expected = [
        "query-block",
        "qom-set",
        "snapshot-save",
        "job-dismiss",
        "qom-set",
    ];
    assert_eq!(trap.told(), expected);
    for name in ["third", "first"] {
        trap.listen();
        session.load_snapshot(name).await.unwrap();
        assert_eq!(trap.told(), ["snapshot-load", "job-dismiss"]);
    }
    session.pause().await.unwrap();
    trap.listen();
    session.load_snapshot("second").await.unwrap();
    // No event says why the guest is paused; whether the board has flash memory is asked once.
    let expected = [
        "query-status",
        "qom-list",
        "qom-list",
        "snapshot-load",
        "job-dismiss",
    ];
    assert_eq!(trap.told(), expected);
    check_put_back(&session).await;
}

#[tokio::test]
async fn what_others_do_to_the_image_is_found_when_it_matters() {
    let session = start("tick").await;
    for name in ["boot", "other"] {
        session.save_snapshot(name).await.unwrap();
    }
    session
        .human_monitor_command("delvm boot;1;running")
        .await
        .unwrap();
    session.pause().await.unwrap();
    let error = session.load_snapshot("boot").await.unwrap_err();
    assert!(
        matches!(&error, SnapshotError::Missing { available, .. } if available == &["other"]),
        "{error:?}"
    );
    assert_eq!(
        session.query_status().await.unwrap().status,
        RunState::Paused,
        "as before"
    );

    // QEMU has this tag: the save fails, and what was there is left as it is.
    session
        .human_monitor_command("savevm boot;1;paused")
        .await
        .unwrap();
    let error = session.save_snapshot("boot").await.unwrap_err();
    assert!(matches!(error, SnapshotError::Exists { .. }), "{error:?}");
    session.save_snapshot("boot").overwrite().await.unwrap();

    // One that nobody here has saved is loaded all the same, as far as QEMU can.
    session.human_monitor_command("savevm more").await.unwrap();
    let names: Vec<_> = session
        .list_snapshots()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["other", "boot", "more"]);
    let error = session.load_snapshot("more").await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::Job { .. }),
        "it has the SD card in it: {error:?}"
    );
    session.load_snapshot("other").await.unwrap();
    session.resume().await.unwrap();
    assert!(counts(&session).await);
    check_put_back(&session).await;
}
