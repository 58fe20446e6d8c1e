//! QEMU killed, crashed or stopped at each command of a state's save, and of a start from one.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use qemu_controller::{Session, SnapshotError, StartError, StateError};
use rustix::process::{Pid, Signal, kill_process};

use super::Named;
use crate::snapshots::check_put_back;
use crate::support::{Held, counts, processes_with, until};

/// What a save sends: the phase is the moment of the last command with this text.
const SAVE: [&str; 9] = [
    "query-commands",
    "query-block\"",
    "blockdev-create",
    "blockdev-add",
    "\"realized\",\"value\":false",
    "snapshot-save",
    "job-dismiss",
    "\"realized\",\"value\":true",
    "blockdev-del",
];

/// What a start from a state sends.
const START: [&str; 7] = [
    "qmp_capabilities",
    "query-chardev",
    "query-cpus-fast",
    "query-memory-size-summary",
    "migrate-incoming",
    "query-migrate",
    "\"cont\"",
];

/// A transcript that sees a command and gives a signal right there: once, to the QEMU with this word in its command line
/// that is not the other one.
#[derive(Clone)]
struct Trap {
    said: &'static str,
    signal: Signal,
    word: String,
    not: u32,
    sprung: Arc<Mutex<bool>>,
}

impl Write for Trap {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let mut sprung = self.sprung.lock().unwrap();
        let text = String::from_utf8_lossy(entry);
        if !*sprung && text.contains("\"execute\"") && text.contains(self.said) {
            let pids = processes_with(&self.word);
            let pid = pids.into_iter().find(|&pid| pid != self.not).unwrap();
            kill_process(Pid::from_raw(pid as i32).unwrap(), self.signal)?;
            *sprung = true;
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn in_each_phase_of_a_state_s_save() {
    for (number, said) in SAVE.into_iter().enumerate() {
        for signal in [[Signal::KILL, Signal::ABORT][number % 2], Signal::STOP] {
            let mut sprung = Arc::default();
            let parent = Named::start_with(|config, firmware| {
                let word = firmware.to_str().unwrap().to_owned();
                let trap = Trap { said, signal, word, not: 0, sprung: Arc::default() };
                sprung = Arc::clone(&trap.sprung);
                config.qmp_transcript_to(trap)
            })
            .await;
            let session = &parent.session;
            let qemu = Held::of(session.pid().unwrap());
            let what = format!("{said}, {signal:?}");
            let stopped = until(&what, || (signal == Signal::STOP && *sprung.lock().unwrap()).then_some(()));
            tokio::select! {
                biased;
                saved = session.save_state() => {
                    assert!(*sprung.lock().unwrap(), "{what}: it never came so far");
                    let Err(StateError::Save(SnapshotError::Command(error))) = saved else { panic!("{what}: {saved:?}") };
                    assert!(error.ended().is_some(), "{what}: {error:?}");
                    let exit = session.stop().await.unwrap().exit.unwrap();
                    assert_eq!(exit.signal(), Some(signal.as_raw()), "{what}");
                    qemu.reaped().await;
                }
                () = stopped => {
                    qemu.signal(Signal::CONT).await;
                    // What was begun is finished first.
                    session.save_state().await.unwrap();
                    check_put_back(session).await;
                    assert!(counts(session).await, "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn in_each_phase_of_a_start_from_a_state() {
    let parent = Named::start(|config| config).await;
    let state = parent.session.save_state().await.unwrap();
    for said in START {
        for signal in [Signal::KILL, Signal::SEGV] {
            let word = parent.firmware.to_str().unwrap().to_owned();
            let not = parent.session.pid().unwrap();
            let trap = Trap { said, signal, word, not, sprung: Arc::default() };
            let sprung = Arc::clone(&trap.sprung);
            let started = Session::start_from(parent.config().qmp_transcript_to(trap), &state).await;
            assert!(*sprung.lock().unwrap(), "{said}: it never came so far");
            let exit = match started {
                Err(StartError::Exited { exit, .. }) => exit,
                // It was let run, and then it ended.
                Ok(session) if said == "\"cont\"" => session.stop().await.unwrap().exit.unwrap(),
                other => panic!("{said}, {signal:?}: {other:?}"),
            };
            assert_eq!(exit.signal(), Some(signal.as_raw()), "{said}");
            parent.check_alone().await;
        }
    }
    let fork = Session::start_from(parent.config(), &state).await.unwrap();
    assert!(counts(&fork).await && counts(&parent.session).await);
}
