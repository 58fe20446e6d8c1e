//! Many sessions, one after another and at once: none fails, and none leaves anything behind.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use qemu_controller::{Address, Endpoint, QemuConfig, Session, StartError, StartPhase, StoppedBy};
use qemu_launch::Monitor;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, copy, duplex};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::support::{Held, config};

/// Fifty machines on two cores that others use as well take their time.
const STORM: Duration = Duration::from_secs(60);

/// The default board with this image, and a second monitor at this path.
fn with_second_monitor(name: &str, path: PathBuf) -> QemuConfig {
    config(name).with_spec(|spec| spec.monitor(Monitor::Qmp(Endpoint::Socket(path))))
}

/// A stale reply, an event before the greeting or before the capabilities: each hits one connect in
/// a few, or in a hundred.
#[tokio::test]
async fn two_hundred_connects_during_an_event_flood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("second.sock");
    let owner =
        Session::start(with_second_monitor("reset-request", path.clone()).wait_for_gdb(true))
            .await
            .unwrap();
    owner.resume().await.unwrap();
    for number in 0..200 {
        if number % 20 == 0 {
            let flood = owner.wait_for_event("RESET", |event| event.name == "RESET");
            flood.await.unwrap();
        }
        let guest = Session::attach(Address::Socket(path.clone()), STORM)
            .await
            .unwrap_or_else(|error| panic!("connect {number}: {error:?}"));
        assert!(
            guest.query_status().await.unwrap().running,
            "connect {number}"
        );
    }
    assert_eq!(owner.stop().await.unwrap().by, StoppedBy::Quit);
}

/// A monitor reads later what a second client wrote too early, and runs it then. Nothing may be
/// written before the greeting.
#[tokio::test]
async fn of_a_second_session_on_one_socket_nothing_runs_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("second.sock");
    let owner = Session::start(with_second_monitor("tick", path.clone()))
        .await
        .unwrap();
    let mut events = owner.events();
    let first = Session::attach(Address::Socket(path.clone()), STORM)
        .await
        .unwrap();

    // A relay between the second session and the socket counts what it writes, and stays when it
    // has gone.
    let mut socket = UnixStream::connect(&path).await.unwrap();
    let (client, relay) = duplex(64 * 1024);
    let wish = async {
        let second = Session::attach_stream(client, Duration::from_millis(500)).await?;
        second.reset().await.unwrap();
        Ok(())
    };
    let (error, written): (Result<(), StartError>, _) =
        tokio::join!(wish, pass_on(relay, &mut socket));
    let error = error.unwrap_err();
    let told = matches!(
        error,
        StartError::Deadline {
            phase: StartPhase::Greeting,
            ..
        }
    );
    assert!(told, "{error:?}");
    assert_eq!(written, 0, "bytes were written before the greeting");

    assert!(first.query_status().await.unwrap().running);
    drop(first);
    // Now the monitor turns to the relay. Had anything been written, it would be run now, and
    // answered before this.
    let mut socket = BufReader::new(socket);
    assert!(line(&mut socket).await.contains("QMP"));
    socket
        .write_all(br#"{"execute": "qmp_capabilities", "id": "of the relay"}"#)
        .await
        .unwrap();
    let answer = line(&mut socket).await;
    assert!(
        answer.contains("return") && answer.contains("of the relay"),
        "{answer}"
    );
    drop(socket);
    let third = Session::attach(Address::Socket(path), STORM).await.unwrap();
    assert!(third.query_status().await.unwrap().running);
    owner.stop().await.unwrap();
    while let Some(event) = events.next().await {
        assert_eq!(
            event.unwrap().name,
            "SHUTDOWN",
            "somebody did something to the guest"
        );
    }
}

/// Passes bytes on in both directions until the session has gone; returns how many it sent.
async fn pass_on(relay: DuplexStream, socket: &mut UnixStream) -> u64 {
    let (mut from_session, mut to_session) = tokio::io::split(relay);
    let (mut from_qemu, mut to_qemu) = socket.split();
    tokio::select! {
        written = copy(&mut from_session, &mut to_qemu) => written.unwrap(),
        ended = copy(&mut from_qemu, &mut to_session) => panic!("QEMU hung up: {ended:?}"),
    }
}

async fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    line
}

#[test]
fn fifty_sessions_at_once() {
    alone("storm::fifty_sessions_at_once", async {
        let mut starting = JoinSet::new();
        for number in 0..50 {
            starting.spawn(async move {
                let endpoint = if number % 2 == 0 {
                    Endpoint::Inherited
                } else {
                    Endpoint::PrivateSocket
                };
                Session::start(patient("wfi").qmp(endpoint)).await.unwrap()
            });
        }
        // All are there before the first one ends.
        let sessions = starting.join_all().await;
        assert_eq!(sessions.len(), 50);
        let mut working = JoinSet::new();
        for session in sessions.clone() {
            working.spawn(async move {
                assert!(session.query_status().await.unwrap().running);
                assert_eq!(session.query_cpus().await.unwrap().len(), 1);
                session
                    .serial(0)
                    .unwrap()
                    .expect_within("boot", STORM)
                    .await
                    .unwrap();
                session.pause().await.unwrap();
            });
        }
        working.join_all().await;
        let mut stopping = JoinSet::new();
        for session in sessions {
            stopping.spawn(async move { session.stop().await.unwrap() });
        }
        for stopped in stopping.join_all().await {
            assert_eq!(stopped.by, StoppedBy::Quit);
            assert!(stopped.exit.unwrap().success());
        }
    });
}

/// Each way in and each way out, again and again.
#[test]
fn thirty_starts_and_ends() {
    alone("storm::thirty_starts_and_ends", async {
        for round in 0..5 {
            let endpoint = if round % 2 == 0 {
                Endpoint::Inherited
            } else {
                Endpoint::PrivateSocket
            };
            let config = || patient("tick").qmp(endpoint.clone());
            // Stopped, dropped, killed.
            let session = Session::start(config()).await.unwrap();
            assert!(session.stop().await.unwrap().exit.unwrap().success());
            drop(Session::start(config()).await.unwrap());
            let session = Session::start(config()).await.unwrap();
            Held::of(session.pid().unwrap()).signal(Signal::KILL).await;
            session.ended().await;
            // Stopped by a guest at a second monitor.
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("second.sock");
            let second = Monitor::Qmp(Endpoint::Socket(path.clone()));
            let session = Session::start(config().with_spec(|spec| spec.monitor(second)))
                .await
                .unwrap();
            let guest = Session::attach(Address::Socket(path), STORM).await.unwrap();
            guest.stop().await.unwrap();
            session.ended().await;
            // Refused by QEMU, given up half way.
            Session::start(config().cpu("no-such-cpu"))
                .await
                .unwrap_err();
            let given_up =
                tokio::time::timeout(Duration::from_millis(5 * round), Session::start(config()));
            drop(given_up.await);
        }
    });
}

/// A session whose deadlines are out of reach.
fn patient(name: &str) -> QemuConfig {
    config(name)
        .start_deadline(STORM)
        .command_deadline(STORM)
        .stop_policy(STORM, STORM, STORM)
}

/// What this process has of what must not be left behind.
#[derive(Debug)]
struct Belongings {
    descriptors: usize,
    /// Zombies included.
    children: usize,
    temporary_files: usize,
    threads: usize,
}

impl Belongings {
    fn count() -> Self {
        let entries = |path: PathBuf| std::fs::read_dir(path).unwrap().count();
        Self {
            descriptors: entries("/proc/self/fd".into()),
            children: children(),
            temporary_files: entries(std::env::temp_dir()),
            threads: entries("/proc/self/task".into()),
        }
    }

    fn is_within(&self, other: &Self) -> bool {
        self.children == 0
            && self.descriptors <= other.descriptors
            && self.temporary_files <= other.temporary_files
            && self.threads <= other.threads
    }
}

fn children() -> usize {
    let me = format!("PPid:\t{}", std::process::id());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| {
            let status = std::fs::read_to_string(entry.path().join("status"));
            status.is_ok_and(|status| status.lines().any(|line| line == me))
        })
        .count()
}

/// Runs a test's body in a process of its own, where nobody else opens files, with a temporary
/// folder of its own; afterwards all must be as before.
fn alone(name: &str, body: impl Future<Output = ()>) {
    const ALONE: &str = "QEMU_CONTROLLER_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let folder = tempfile::tempdir().unwrap();
        let ran = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(ALONE, "1")
            .env("TMPDIR", folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        let passed = ran.status.success() && said.contains("1 passed");
        assert!(passed, "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // What is made once and kept, for example the runtime's own descriptors.
        Session::start(patient("tick"))
            .await
            .unwrap()
            .stop()
            .await
            .unwrap();
        let before = Belongings::count();
        body.await;
        // Threads and descriptors go a moment after their process, and `before` may have some of
        // those still.
        let since = Instant::now();
        let mut after = Belongings::count();
        while !after.is_within(&before) {
            assert!(
                since.elapsed() < STORM,
                "before: {before:?}, after: {after:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
            after = Belongings::count();
        }
    });
}
