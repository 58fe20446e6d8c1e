//! A real debugger's turn, played by a client that says a few packets.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use qemu_controller::debug::{DebugError, HandOver};
use qemu_controller::gdb_port::StubAddress;
use qemu_controller::qmp_proto::commands::QueryChardev;
use qemu_controller::{Endpoint, Session};
use rustix::process::Signal;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{assert_runs, config, run_to, start};
use crate::support::{DEADLINE, Held, symbol};

/// A debugger of a few packets.
struct Gdb(UnixStream);

impl Gdb {
    fn attach(hand_over: &HandOver) -> Self {
        let StubAddress::Unix(path) = hand_over.address() else {
            panic!("{}", hand_over.address())
        };
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap();
    }

    /// Sends a packet and reads until this has been answered.
    fn ask(&mut self, packet: &str, answer: &str) {
        self.send(packet);
        let mut read = String::new();
        let is_whole = |read: &str| {
            let rest = read.split_once(answer).map(|(_, rest)| rest);
            rest.and_then(|rest| rest.split_once('#'))
                .is_some_and(|(_, sum)| sum.len() >= 2)
        };
        while !is_whole(&read) {
            let mut chunk = [0; 512];
            let length = self.0.read(&mut chunk).unwrap();
            assert_ne!(length, 0, "no {answer:?} in {read}");
            read += &String::from_utf8_lossy(&chunk[..length]);
        }
        self.0.write_all(b"+").unwrap();
    }
}

/// Plays a debugger off the runtime's thread.
async fn play(hand_over: &HandOver, script: impl FnOnce(Gdb) + Send + 'static) {
    let gdb = Gdb::attach(hand_over);
    spawn_blocking(move || script(gdb)).await.unwrap();
}

async fn hand_over(session: &Session) -> HandOver {
    let debugger = session.debugger().await.unwrap();
    debugger.hand_over(Endpoint::PrivateSocket).await.unwrap()
}

async fn runs(session: &Session) -> bool {
    session.query_status().await.unwrap().running
}

/// The stubs that QEMU has.
async fn stubs(session: &Session) -> usize {
    let chardevs = session.command(&QueryChardev).await.unwrap();
    chardevs
        .iter()
        .filter(|chardev| chardev.label.contains("gdb"))
        .count()
}

#[tokio::test]
async fn a_debugger_comes_and_goes_and_ours_goes_on() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    run_to(&mut debugger, "uart_get").await;
    let mut hand_over = debugger.hand_over(Endpoint::PrivateSocket).await.unwrap();
    let StubAddress::Unix(path) = hand_over.address().clone() else {
        panic!("{hand_over:?}")
    };
    let line = hand_over.command();
    assert!(line.starts_with("gdb-multiarch -q /"), "{line}");
    let target = format!("tick.elf -ex 'target remote {}'", path.display());
    assert!(line.ends_with(&target), "{line}");
    let folder = path.parent().unwrap();
    let mode = folder.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // Nothing in QEMU listens, and a second one of ours is refused.
    assert_eq!(stubs(&session).await, 0);
    let refused = session.debugger().await.unwrap_err();
    assert!(matches!(refused, DebugError::Busy), "{refused}");
    // A look at the socket is nobody.
    drop(UnixStream::connect(&path).unwrap());
    assert!(!runs(&session).await);

    let tick = symbol("tick", "tick") & !1;
    play(&hand_over, move |mut gdb| {
        gdb.ask("qSupported:multiprocess+", "PacketSize");
        gdb.ask("?", "T0");
        gdb.ask(&format!("Z0,{tick:x},2"), "OK");
        gdb.ask("vCont;c", "T05");
        gdb.ask("D;1", "OK");
    })
    .await;
    timeout(DEADLINE, hand_over.attached())
        .await
        .unwrap()
        .unwrap();
    assert!(timeout(DEADLINE, hand_over.left()).await.unwrap().unwrap());
    assert_runs(&session).await;
    let mut debugger = hand_over.take_back().await.unwrap();
    assert!(!path.exists() && !folder.exists());
    run_to(&mut debugger, "uart_get").await;
    drop(debugger);
    drop(session.debugger().await.unwrap());
    assert!(!runs(&session).await);
}

#[tokio::test]
async fn one_that_is_killed_leaves_nothing_and_one_of_a_moment_is_not_missed() {
    let session = start("tick").await;
    let mut hand_over = hand_over(&session).await;
    let tick = symbol("tick", "tick") & !1;
    for stopped in [false, true] {
        play(&hand_over, move |mut gdb| {
            gdb.ask("?", "T0");
            gdb.ask(&format!("Z0,{tick:x},2"), "OK");
            if !stopped {
                // Killed while the guest runs, towards its breakpoint.
                gdb.send("vCont;c");
                gdb.0.read_exact(&mut [0]).unwrap();
            }
        })
        .await;
        // Nobody was asking meanwhile.
        timeout(DEADLINE, hand_over.attached())
            .await
            .unwrap()
            .unwrap();
        let left = timeout(DEADLINE, hand_over.left()).await.unwrap().unwrap();
        // It may have met its breakpoint before.
        assert!(!(left && stopped));
        assert_eq!(runs(&session).await, left);
        assert_eq!(stubs(&session).await, 0);
        session.resume().await.unwrap();
        assert_runs(&session).await;
    }
    // While one is there, a second is turned away.
    let mut first = Gdb::attach(&hand_over);
    first.send("?");
    timeout(DEADLINE, hand_over.attached())
        .await
        .unwrap()
        .unwrap();
    play(&hand_over, |mut second| {
        second.0.set_read_timeout(Some(DEADLINE)).unwrap();
        assert_eq!(second.0.read(&mut [0]).unwrap(), 0);
    })
    .await;
    // The session's own verbs go on beside it.
    session.pause().await.unwrap();
    // It is still there when the stub is taken back.
    let mut debugger = timeout(DEADLINE, hand_over.take_back())
        .await
        .unwrap()
        .unwrap();
    let mut rest = Vec::new();
    first.0.read_to_end(&mut rest).unwrap();
    run_to(&mut debugger, "uart_get").await;
}

#[tokio::test]
async fn the_run_state_that_was_asked_for_stays_when_nobody_comes() {
    let session = start("tick").await;
    // It ran, and was stopped for a debugger that never came.
    drop(hand_over(&session).await);
    drop(session.debugger().await.unwrap());
    assert_runs(&session).await;
    let debugger = hand_over(&session).await.take_back().await.unwrap();
    assert!(!runs(&session).await);
    drop(debugger);
    drop(session.debugger().await.unwrap());
    assert_runs(&session).await;
    session.pause().await.unwrap();
    drop(hand_over(&session).await);
    drop(session.debugger().await.unwrap());
    assert!(!runs(&session).await);
}

#[tokio::test]
async fn where_nobody_can_listen_is_told() {
    let session = start("tick").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let debugger = session.debugger().await.unwrap();
    let error = debugger
        .hand_over(Endpoint::loopback(port))
        .await
        .unwrap_err();
    let words = error.to_string();
    assert!(words.starts_with(&format!(
        "a debugger cannot be waited for at 127.0.0.1:{port}: "
    )));
    let DebugError::Listen { error, .. } = error else {
        panic!("{words}")
    };
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    // Whoever has the path keeps it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gdb.sock");
    std::fs::write(&path, "mine").unwrap();
    let debugger = session.debugger().await.unwrap();
    let refused = debugger.hand_over(Endpoint::Socket(path.clone())).await;
    assert!(matches!(refused, Err(DebugError::Listen { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[tokio::test]
async fn a_qemu_that_ends_or_is_held_up_in_any_phase_is_told_within_the_deadline() {
    for (attached, signal) in [
        (false, Signal::KILL),
        (true, Signal::KILL),
        (false, Signal::STOP),
        (true, Signal::STOP),
    ] {
        let session = Session::start(config("tick")).await.unwrap();
        let session = session.with_deadline(Duration::from_secs(2));
        let mut hand_over = hand_over(&session).await;
        let mut gdb = Gdb::attach(&hand_over);
        if attached {
            gdb.send("?");
            hand_over.attached().await.unwrap();
        }
        let held = Held::of(session.pid().unwrap());
        held.signal(signal).await;
        let began = Instant::now();
        if signal == Signal::KILL {
            let error = timeout(DEADLINE, hand_over.left())
                .await
                .unwrap()
                .unwrap_err();
            assert!(matches!(error, DebugError::Command(_)), "{error}");
            let mut rest = Vec::new();
            let _ = gdb.0.read_to_end(&mut rest);
        } else if attached {
            let error = hand_over.take_back().await.unwrap_err();
            assert!(
                matches!(error, DebugError::Deadline { .. } | DebugError::Command(_)),
                "{error}"
            );
            held.signal(Signal::CONT).await;
            // What was put off has been done.
            drop(session.with_deadline(DEADLINE).debugger().await.unwrap());
        } else {
            let error = hand_over.take_back().await.unwrap_err();
            assert!(matches!(error, DebugError::Command(_)), "{error}");
            held.signal(Signal::CONT).await;
        }
        assert!(began.elapsed() < DEADLINE);
    }
}
