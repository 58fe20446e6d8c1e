//! QEMU killed, crashed, aborted or stopped in each phase of a save and of a load.
//!
//! The phases are the commands of which they are made: the session's transcript has each one at the moment in
//! which it is sent, and the signal is given right there.

use std::future::IntoFuture;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use qemu_controller::{QemuConfig, Session, SnapshotError};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::check_put_back;
use crate::support::{Held, config, counts, until};

const SIGNALS: [Signal; 4] = [Signal::KILL, Signal::SEGV, Signal::ABORT, Signal::STOP];

/// What a save sends, the first one in a file: the phase is the moment of the last command of this name.
const SAVE: [&str; 9] = [
    "query-block\"",
    "query-commands",
    "blockdev-create",
    "blockdev-del",
    "query-named-block-nodes",
    "\"realized\",\"value\":false",
    "snapshot-save",
    "job-dismiss",
    "\"realized\",\"value\":true",
];

/// What a load sends that has to ask.
const LOAD: [&str; 4] = ["query-block\"", "query-named-block-nodes", "snapshot-load", "job-dismiss"];

/// Gives the signal when it sees the client say something.
#[derive(Default)]
struct Trap {
    armed: Option<(&'static str, Signal, Pid)>,
    sprung: bool,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Trap>>);

impl Write for Shared {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let mut trap = self.0.lock().unwrap();
        let text = String::from_utf8_lossy(entry);
        if let Some((said, signal, pid)) = trap.armed
            && text.contains("\"execute\"")
            && text.contains(said)
        {
            kill_process(pid, signal)?;
            (trap.armed, trap.sprung) = (None, true);
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Scene {
    session: Session,
    qemu: Held,
    trap: Shared,
    config: QemuConfig,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (trap, path) = (Shared::default(), folder.path().join("snapshots.qcow2"));
        let config = config("tick").snapshot_file(&path);
        let session = Session::start(config.clone().qmp_transcript_to(trap.clone())).await.unwrap();
        let qemu = Held::of(session.pid().unwrap());
        Self { session, qemu, trap, config, folder }
    }

    fn arm(&self, said: &'static str, signal: Signal) {
        let pid = Pid::from_raw(self.session.pid().unwrap() as i32).unwrap();
        self.trap.0.lock().unwrap().armed = Some((said, signal, pid));
    }

    /// The verb's end; none with SIGSTOP, after which its future is dropped: what its deadline says is another
    /// test's.
    async fn struck<V>(&self, signal: Signal, verb: V) -> Option<V::Output>
    where
        V: IntoFuture,
    {
        let stopped = until("the phase", || (signal == Signal::STOP && self.sprung()).then_some(()));
        tokio::select! {
            biased;
            result = verb.into_future() => Some(result),
            () = stopped => None,
        }
    }

    fn sprung(&self) -> bool {
        self.trap.0.lock().unwrap().sprung
    }

    /// Everybody is told; after SIGSTOP, what was begun is finished when QEMU goes on.
    async fn check(
        self,
        phase: &str,
        signal: Signal,
        result: Option<Result<(), SnapshotError>>,
        earlier: Option<&str>,
    ) {
        let what = format!("{phase}, {signal:?}: {result:?}");
        assert!(self.sprung(), "{what}: it never came so far");
        if signal == Signal::STOP {
            assert!(result.is_none(), "{what}");
            self.qemu.signal(Signal::CONT).await;
            let session = &self.session;
            session.list_snapshots().await.unwrap();
            check_put_back(session).await;
            assert!(counts(session).await, "{what}");
            session.stop().await.unwrap();
        } else {
            assert!(result.as_ref().unwrap().as_ref().unwrap_err().ended().is_some(), "{what}");
            let exit = self.session.stop().await.unwrap().exit.unwrap();
            assert_eq!(exit.signal(), Some(signal.as_raw()), "{what}");
            self.qemu.reaped().await;
        }
        drop(self.session);
        // No half image, and what was saved before can be loaded.
        for file in self.folder.path().read_dir().unwrap() {
            assert_eq!(file.unwrap().file_name(), "snapshots.qcow2", "{what}");
        }
        let session = Session::start(self.config).await.unwrap();
        if let Some(name) = earlier {
            session.load_snapshot(name).await.unwrap();
        }
        session.save_snapshot("afterwards").await.unwrap();
        session.load_snapshot("afterwards").await.unwrap();
        assert!(counts(&session).await, "{what}");
    }
}

#[tokio::test]
async fn in_each_phase_of_the_first_save() {
    for (number, phase) in SAVE.into_iter().enumerate() {
        let signal = SIGNALS[number % SIGNALS.len()];
        let scene = Scene::new().await;
        scene.arm(phase, signal);
        let result = scene.struck(signal, scene.session.save_snapshot("boot")).await;
        scene.check(phase, signal, result, None).await;
    }
}

#[tokio::test]
async fn in_each_phase_of_a_save_over_another() {
    for phase in ["\"realized\",\"value\":false", "snapshot-save", "job-dismiss", "snapshot-delete"] {
        for signal in SIGNALS {
            let scene = Scene::new().await;
            scene.session.save_snapshot("boot").await.unwrap();
            scene.arm(phase, signal);
            let mut result = scene.struck(signal, scene.session.save_snapshot("boot").overwrite()).await;
            if phase == "snapshot-delete" && matches!(result, Some(Ok(()))) {
                // With the new one whole, that the old one is still there is no failure; the next call says more.
                result = Some(scene.session.save_snapshot("next").await);
            }
            scene.check(phase, signal, result, Some("boot")).await;
        }
    }
}

#[tokio::test]
async fn in_each_phase_of_a_load() {
    for phase in LOAD {
        for signal in SIGNALS {
            let scene = Scene::new().await;
            scene.session.save_snapshot("boot").await.unwrap();
            // Whatever this may do: what is remembered is of no use then.
            scene.session.human_monitor_command("help").await.unwrap();
            scene.arm(phase, signal);
            let result = scene.struck(signal, scene.session.load_snapshot("boot")).await;
            scene.check(phase, signal, result, Some("boot")).await;
        }
    }
}
