//! QEMU killed or stopped at each command of a save and of a load: the signal is
//! given right before the command is sent.

use std::future::IntoFuture;

use qemu_controller::{QemuConfig, Session, SnapshotError};
use rustix::process::Signal;
use tempfile::TempDir;

use super::check_put_back;
use crate::support::{Held, config, counts, until};
use crate::trap::Trap;

const SIGNALS: [Signal; 2] = [Signal::KILL, Signal::STOP];

struct Scene {
    session: Session,
    qemu: Held,
    trap: Trap,
    config: QemuConfig,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (trap, path) = (Trap::default(), folder.path().join("snapshots.qcow2"));
        let config = config("tick").snapshot_file(&path);
        let session = Session::start(config.clone().qmp_transcript_to(trap.transcript()))
            .await
            .unwrap();
        let qemu = Held::of(session.pid().unwrap());
        Self {
            session,
            qemu,
            trap,
            config,
            folder,
        }
    }

    /// Gives the signal at the command of this number.
    fn arm(&self, number: usize, signal: Signal) {
        let qemu = Held::of(self.session.pid().unwrap());
        self.trap.set(number, move || qemu.strike(signal));
    }

    /// The verb's end; none with SIGSTOP, after which its future is dropped: what its deadline says
    /// is another test's.
    async fn struck<V>(&self, signal: Signal, verb: V) -> Option<V::Output>
    where
        V: IntoFuture,
    {
        let stopped = until("the phase", || {
            (signal == Signal::STOP)
                .then(|| self.trap.sprung())
                .flatten()
        });
        tokio::select! {
            biased;
            result = verb.into_future() => Some(result),
            _ = stopped => None,
        }
    }

    /// Everybody learns of it; after SIGSTOP, what was begun is finished when QEMU goes on.
    async fn check(
        self,
        told: &[String],
        signal: Signal,
        mut result: Option<Result<(), SnapshotError>>,
        earlier: Option<&str>,
    ) {
        let what = format!("{signal:?} after {told:?}: {result:?}");
        if told.iter().any(|name| name == "snapshot-delete") && matches!(result, Some(Ok(()))) {
            // With the new one whole, that the old one is still there is no failure; the next call
            // says more.
            result = Some(self.session.save_snapshot("next").await.map(drop));
        }
        if signal == Signal::STOP {
            assert!(result.is_none(), "{what}");
            self.qemu.signal(Signal::CONT).await;
            let session = &self.session;
            session.list_snapshots().await.unwrap();
            check_put_back(session).await;
            assert!(counts(session).await, "{what}");
            session.stop().await.unwrap();
        } else {
            assert!(
                result
                    .as_ref()
                    .unwrap()
                    .as_ref()
                    .unwrap_err()
                    .ended()
                    .is_some(),
                "{what}"
            );
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

/// Strikes at each command in turn until the verb is through, and tells which they are.
async fn at_each_command(
    earlier: Option<&str>,
    prepare: impl AsyncFn(&Session),
    verb: impl AsyncFn(&Session) -> Result<(), SnapshotError>,
) -> Vec<String> {
    let mut all = Vec::<String>::new();
    for number in 0.. {
        for signal in SIGNALS {
            let scene = Scene::new().await;
            prepare(&scene.session).await;
            scene.arm(number, signal);
            let result = scene.struck(signal, verb(&scene.session)).await;
            let Some(told) = scene.trap.sprung() else {
                result.unwrap().unwrap();
                // A job that takes long on a busy disk is asked after.
                all.retain(|told| told != "query-jobs");
                return all;
            };
            scene.check(&told, signal, result, earlier).await;
            all = told;
        }
    }
    unreachable!("it had no end")
}

async fn save(session: &Session) {
    session.save_snapshot("boot").await.unwrap();
}

#[tokio::test]
async fn in_each_phase_of_the_first_save() {
    let nothing = async |_: &Session| ();
    let all = at_each_command(None, nothing, async |session| {
        session.save_snapshot("boot").await.map(drop)
    })
    .await;
    let times = |name: &str| all.iter().filter(|told| *told == name).count();
    let made = ["blockdev-add", "snapshot-save", "job-dismiss", "qom-set"].map(times);
    assert_eq!(made, [1, 1, 1, 2], "{all:?}");
}

#[tokio::test]
async fn in_each_phase_of_a_save_over_another() {
    let over = async |session: &Session| session.save_snapshot("boot").overwrite().await.map(drop);
    let all = at_each_command(Some("boot"), save, over).await;
    let from = all.iter().position(|name| name == "qom-set").unwrap();
    let expected = [
        "qom-set",
        "snapshot-save",
        "job-dismiss",
        "qom-set",
        "snapshot-delete",
        "job-dismiss",
    ];
    assert_eq!(all[from..], expected);
}

#[tokio::test]
async fn in_each_phase_of_a_load() {
    let load = async |session: &Session| session.load_snapshot("boot").await.map(drop);
    let all = at_each_command(Some("boot"), save, load).await;
    assert_eq!(all[all.len() - 2..], ["snapshot-load", "job-dismiss"]);
    assert!(all.iter().any(|name| name == "query-block"), "{all:?}");
}
