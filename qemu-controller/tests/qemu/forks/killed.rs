//! QEMU killed or stopped at each command of a state's save, and of a start from one: the
//! signal is given right before the command is sent.

use qemu_controller::{Session, SnapshotError, StartError, StateError};
use rustix::process::Signal;

use super::Named;
use crate::snapshots::check_put_back;
use crate::support::{Held, counts, processes_with, until};
use crate::trap::Trap;

#[tokio::test]
async fn in_each_phase_of_a_state_s_save() {
    let mut all = Vec::new();
    'commands: for number in 0.. {
        for given in [Signal::KILL, Signal::STOP] {
            let trap = Trap::default();
            let parent = Named::start(|config| config.qmp_transcript_to(trap.transcript())).await;
            let session = &parent.session;
            let pid = session.pid().unwrap();
            let qemu = Held::of(pid);
            trap.set(number, move || Held::of(pid).strike(given));
            let what = format!("{number}, {given:?}");
            let stopped = until(&what, || {
                (given == Signal::STOP).then(|| trap.sprung()).flatten()
            });
            tokio::select! {
                biased;
                saved = session.save_state() => {
                    let Some(told) = trap.sprung() else {
                        saved.unwrap();
                        break 'commands;
                    };
                    let Err(StateError::Save(SnapshotError::Command(error))) = saved else {
                        panic!("{told:?}, {what}: {saved:?}")
                    };
                    assert!(error.ended().is_some(), "{told:?}, {what}: {error:?}");
                    let exit = session.stop().await.unwrap().exit.unwrap();
                    assert_eq!(exit.signal(), Some(given.as_raw()), "{told:?}, {what}");
                    qemu.reaped().await;
                }
                told = stopped => {
                    qemu.signal(Signal::CONT).await;
                    // What was begun is finished first.
                    session.save_state().await.unwrap();
                    check_put_back(session).await;
                    assert!(counts(session).await, "{told:?}, {what}");
                    all = told;
                }
            }
        }
    }
    let times = |name: &str| all.iter().filter(|told| *told == name).count();
    let made = [
        "blockdev-add",
        "snapshot-save",
        "job-dismiss",
        "blockdev-del",
    ]
    .map(times);
    assert_eq!(made, [1, 1, 1, 1], "{all:?}");
}

#[tokio::test]
async fn in_each_phase_of_a_start_from_a_state() {
    let parent = Named::start(|config| config).await;
    let state = parent.session.save_state().await.unwrap();
    let mut all = Vec::new();
    for number in 0.. {
        let (word, not) = (
            parent.firmware.to_str().unwrap().to_owned(),
            parent.session.pid().unwrap(),
        );
        let trap = Trap::default();
        trap.set(number, move || {
            let mut pids = processes_with(&word).into_iter().filter(|&pid| pid != not);
            Held::of(pids.next().unwrap()).strike(Signal::KILL);
        });
        let config = parent.config().qmp_transcript_to(trap.transcript());
        let started = Session::start_from(config, &state).await;
        let Some(told) = trap.sprung() else {
            started.unwrap();
            break;
        };
        let exit = match started {
            Err(StartError::Exited { exit, .. }) => exit,
            // It was let run, and then it ended.
            Ok(session) if told.iter().any(|name| name == "cont") => {
                session.stop().await.unwrap().exit.unwrap()
            }
            other => panic!("{told:?}: {other:?}"),
        };
        assert_eq!(exit.signal(), Some(Signal::KILL.as_raw()), "{told:?}");
        parent.check_alone().await;
        all = told;
    }
    assert!(
        all.iter().any(|name| name == "migrate-incoming") && all.ends_with(&["cont".to_owned()]),
        "{all:?}"
    );
    let fork = Session::start_from(parent.config(), &state).await.unwrap();
    assert!(counts(&fork).await && counts(&parent.session).await);
}
