//! The GDB stub: found, and checked without harm to the guest.

use gdb_port::{GuestEffect, Reachability};
use qemu_controller::{Endpoint, GdbError, QemuConfig, RunState, Semihosting, Session};
use test_support::procfs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{config, counts, image, start};

#[tokio::test]
async fn checks_leave_the_run_state_as_it_was() {
    let session = Session::start(config("tick").wait_for_gdb(true))
        .await
        .unwrap();
    for (round, state) in [RunState::Prelaunch, RunState::Running, RunState::Paused]
        .into_iter()
        .enumerate()
    {
        match round {
            0 => {}
            1 => session.resume().await.unwrap(),
            _ => session.pause().await.unwrap(),
        }
        for check in [
            session.check_gdb().await.unwrap(),
            session.probe_gdb().await.unwrap(),
        ] {
            assert!(check.reachability.can_attach(), "{}", check.reachability);
            assert_eq!(
                (&check.before.status, &check.after.status),
                (&state, &state)
            );
        }
        assert_eq!(session.query_status().await.unwrap().status, state);
    }
    session.resume().await.unwrap();
    assert!(counts(&session).await);
}

#[tokio::test]
async fn a_look_touches_nothing_and_a_probe_asks_who_it_is() {
    let session = start("tick").await;
    let mut events = session.events();
    let look = session.check_gdb().await.unwrap();
    assert_eq!(
        (look.reachability, look.effect),
        (Reachability::Listens, GuestEffect::Untouched)
    );
    session.pause().await.unwrap();
    assert_eq!(
        events.next().await.unwrap().unwrap().name,
        "STOP",
        "no event came before the one of this pause"
    );
    session.resume().await.unwrap();

    let probe = session.probe_gdb().await.unwrap();
    let Reachability::Answers(identity) = &probe.reachability else {
        panic!("{}", probe.reachability)
    };
    assert_eq!(
        identity.target.as_ref().unwrap().architecture.as_deref(),
        Some("arm")
    );
    assert_eq!(probe.effect, GuestEffect::PausedThenResumed);
}

#[tokio::test]
async fn a_stub_that_is_held_is_left_alone() {
    let session = start("tick").await;
    let gdb_port::StubAddress::Tcp(address) = session.gdb().unwrap() else {
        panic!("not TCP")
    };
    let stopped = session.wait_for_event("STOP", |event| event.name == "STOP");
    let debugger = TcpStream::connect(address).await.unwrap();
    stopped.await.unwrap();
    for check in [
        session.check_gdb().await.unwrap(),
        session.probe_gdb().await.unwrap(),
    ] {
        assert_eq!(check.reachability, Reachability::HeldByAnotherClient);
        assert_eq!(check.effect, GuestEffect::Untouched);
    }
    drop(debugger);
    session.resume().await.unwrap();
    assert!(counts(&session).await);
}

#[tokio::test]
async fn over_a_socket_and_without_a_stub() {
    let session = Session::start(config("tick").gdb(Endpoint::PrivateSocket))
        .await
        .unwrap();
    assert!(session.check_gdb().await.unwrap().reachability.can_attach());
    assert!(matches!(
        session.probe_gdb().await.unwrap().reachability,
        Reachability::Answers(_)
    ));
}

#[tokio::test]
async fn nothing_listens_unless_it_is_asked_for() {
    let quiet = QemuConfig::default()
        .firmware(image("tick"))
        .semihosting(Semihosting::full());
    let session = Session::start(quiet.clone()).await.unwrap();
    assert!(session.gdb().is_none());
    assert!(matches!(session.check_gdb().await, Err(GdbError::NoStub)));
    assert_eq!(listeners(session.pid().unwrap()), 0);

    // Nor in what is made from one that has a stub.
    let parent = start("tick").await;
    assert_eq!(listeners(parent.pid().unwrap()), 1);
    let fork = parent.fork(1).await.unwrap().remove(0);
    assert_eq!(listeners(fork.pid().unwrap()), 0);
    let state = parent.save_state().await.unwrap();
    let continued = Session::start_from(quiet, &state).await.unwrap();
    assert_eq!(listeners(continued.pid().unwrap()), 0);
}

/// What any web page can send to a port of this machine: a POST whose body has a packet for the
/// stub, here `monitor migrate "exec:touch FILE"`. QEMU's sandbox keeps it from running that.
#[tokio::test]
async fn a_web_page_runs_no_command_through_the_stub() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("was-here");
    let command = format!("migrate \"exec:touch {}\"", file.display());
    let digits: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
    let packet = format!("qRcmd,{digits}");
    let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
    let body = format!("+${packet}#{sum:02x}");
    let request = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let session = start("tick").await;
    let Some(gdb_port::StubAddress::Tcp(address)) = session.gdb() else {
        panic!("no port")
    };
    let mut page = TcpStream::connect(address).await.unwrap();
    page.write_all(request.as_bytes()).await.unwrap();
    // 7.2 is ended by its sandbox, 10.0 refuses; either has taken the packet by then.
    let mut answer = Vec::new();
    let mut chunk = [0; 512];
    while !answer.ends_with(b"#9a") {
        match page.read(&mut chunk).await {
            Ok(length @ 1..) => answer.extend_from_slice(&chunk[..length]),
            _ => break,
        }
    }
    drop(page);
    session.stop().await.unwrap();
    assert!(!file.exists(), "{}", answer.escape_ascii());
}

/// How many sockets of a process take connections, TCP and unix.
fn listeners(pid: u32) -> usize {
    let sockets: Vec<_> = procfs::descriptors(pid)
        .into_values()
        .filter_map(|name| Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!sockets.is_empty(), "the monitor is one");
    // The fields that say that a socket listens, and its inode.
    let tables = [
        ("tcp", 3, "0A", 9),
        ("tcp6", 3, "0A", 9),
        ("unix", 3, "00010000", 6),
    ];
    let listening = |(table, state, listens, inode): (&str, usize, &str, usize)| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields.get(state) == Some(&listens))
            .filter(|fields| {
                sockets
                    .iter()
                    .any(|socket| fields.get(inode) == Some(&&**socket))
            })
            .count()
    };
    tables.into_iter().map(listening).sum()
}
