//! A state that is persisted, and a session that starts from it later; what does not fit is refused
//! with the reason.

use qemu_controller::qemu_launch::Device;
use qemu_controller::{MachineState, RunState, Session, StartError, StartPhase};

use super::{next_tick, serial};
use crate::support::{DEADLINE, chain, config, counts, start};

#[tokio::test]
async fn a_later_session_starts_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("booted");
    let session = start("tick").await;
    serial(&session)
        .expect_within("tick 3\n", DEADLINE)
        .await
        .unwrap();
    session.save_state().await.unwrap().persist(&path).unwrap();
    session.stop().await.unwrap();
    drop(session);
    let state = MachineState::open(&path).unwrap();
    assert_eq!(state.taken_with().machine, "lm3s6965evb");
    assert!(state.was_running());
    let mut ticks = Vec::new();
    for _ in 0..3 {
        let session = Session::start_from(config("tick"), &state).await.unwrap();
        ticks.push(next_tick(&session).await);
        assert!(counts(&session).await);
    }
    assert!(
        ticks[0] > 3 && ticks.iter().all(|tick| *tick == ticks[0]),
        "{ticks:?}"
    );
    let held = Session::start_from(config("tick").wait_for_gdb(true), &state)
        .await
        .unwrap();
    assert_eq!(held.query_status().await.unwrap().status, RunState::Paused);
    held.resume().await.unwrap();
    assert!(next_tick(&held).await >= 4);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn another_machine_is_refused_with_the_difference() {
    let state = start("tick").await.save_state().await.unwrap();
    let rows = [
        (
            config("tick").machine("lm3s811evb"),
            "machine lm3s6965evb and not lm3s811evb",
        ),
        (
            config("tick").cpu("cortex-m4"),
            "CPU cortex-m3 and not cortex-m4",
        ),
        (config("wfi"), "firmware "),
    ];
    for (config, difference) in rows {
        let error = Session::start_from(config, &state).await.unwrap_err();
        assert!(
            matches!(error, StartError::OtherMachine { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(difference), "{error}");
    }
}

/// What only QEMU can notice, it tells in its own words.
#[tokio::test]
async fn a_state_that_qemu_cannot_take_in() {
    let with_sensor = || {
        let sensor = Device::new("tmp105").property("address", "0x48");
        config("tick").with_spec(|spec| spec.device(sensor))
    };
    let state = Session::start(with_sensor())
        .await
        .unwrap()
        .save_state()
        .await
        .unwrap();
    assert!(counts(&Session::start_from(with_sensor(), &state).await.unwrap()).await);
    let error = Session::start_from(config("tick"), &state)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            StartError::Exited {
                phase: StartPhase::State,
                ..
            }
        ),
        "{error:?}"
    );
    let text = chain(&error);
    assert!(
        text.contains("TMP105") && text.contains("taken in the saved state"),
        "{text}"
    );
}
