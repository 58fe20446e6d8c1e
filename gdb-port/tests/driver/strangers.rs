//! What listens and is no GDB stub: each is distinguished, within its deadline.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use gdb_port::{
    GuestEffect, Leave, ProbeOptions, Reachability, Report, StubAddress, WrongAnswer, inspect,
    probe,
};

use crate::unused::unused;

/// A server that does one thing with its one client.
struct Server {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(serve: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        Self {
            address,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Until the client has closed.
fn read_to_end(mut stream: &TcpStream) {
    let mut buffer = [0; 1024];
    while matches!(stream.read(&mut buffer), Ok(count) if count > 0) {}
}

/// Time for what a server does at once, also on a loaded machine. Only what waits for the deadline
/// takes this long.
const UNTIL_DEADLINE: Duration = Duration::from_secs(4);
/// What ends by itself, and is not to be taken for silence however loaded the machine is.
const AMPLE: Duration = Duration::from_secs(60);

/// Probes a server whose doings end the probe.
async fn ask(server: &Server) -> Report {
    ask_until(server, AMPLE).await
}

/// Probes, and sees that the deadline is kept.
async fn ask_until(server: &Server, deadline: Duration) -> Report {
    let mut options = ProbeOptions::default()
        .leave(Leave::RunOn)
        .deadline(deadline);
    options.leave_within = Duration::from_millis(200);
    let endpoint = StubAddress::Tcp(server.address);
    // Generous towards a loaded machine; a hang would take for ever.
    let report = tokio::time::timeout(deadline + AMPLE, probe(&endpoint, &options)).await;
    report.expect("the deadline is kept").unwrap()
}

fn seen(report: &Report) -> &WrongAnswer {
    assert_eq!(report.effect, GuestEffect::Untouched);
    match &report.reachability {
        Reachability::NotAGdbStub(seen) => seen,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_http_server_that_waits_for_a_whole_request() {
    let server = Server::start(|mut stream| {
        // As real ones do: nothing is said before the request line has ended.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap() == 0 {
                return;
            }
            request.push(byte[0]);
        }
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    let report = ask_until(&server, 2 * UNTIL_DEADLINE).await;
    let WrongAnswer::OtherProtocol(first) = seen(&report) else {
        panic!("{report:?}")
    };
    assert!(
        first.starts_with(b"HTTP/1.1 400"),
        "{}",
        first.escape_ascii()
    );
}

#[tokio::test]
async fn a_server_that_speaks_first() {
    let server = Server::start(|mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        read_to_end(&stream);
    });
    let report = ask_until(&server, UNTIL_DEADLINE).await;
    let WrongAnswer::OtherProtocol(first) = seen(&report) else {
        panic!("{report:?}")
    };
    assert_eq!(first, b"SSH-2.0-OpenSSH_9.2\r\n");
}

#[tokio::test]
async fn a_silent_server() {
    let server = Server::start(|stream| read_to_end(&stream));
    let report = ask_until(&server, UNTIL_DEADLINE).await;
    assert_eq!(
        report.reachability,
        Reachability::Silent {
            accepted: Some(true)
        }
    );
    assert_eq!(report.effect, GuestEffect::Unknown);
    assert!(report.queued.is_none());
}

#[tokio::test]
async fn a_listener_that_never_accepts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = StubAddress::Tcp(listener.local_addr().unwrap());
    let options = ProbeOptions::default().deadline(Duration::from_millis(100));
    let report = probe(&endpoint, &options).await.unwrap();
    assert_eq!(
        report.reachability,
        Reachability::Silent {
            accepted: Some(false)
        }
    );
    assert_eq!(report.effect, GuestEffect::Pending);
    // The connection waits; whoever looks or probes now sees that, and adds none.
    assert_eq!(
        inspect(&endpoint, None).reachability(),
        Reachability::HeldByAnotherClient
    );
    let second = probe(&endpoint, &options).await.unwrap();
    assert_eq!(second.reachability, Reachability::HeldByAnotherClient);
    assert_eq!(second.effect, GuestEffect::Untouched);
    assert!(report.queued.is_some() && second.queued.is_none());
}

const SEED: u64 = 0x2545_f491_4f6c_dd1d;

/// xorshift: the same bytes each time.
fn random_bytes(state: &mut u64) -> [u8; 512] {
    let mut chunk = [0; 512];
    for byte in &mut chunk {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *byte = *state as u8;
    }
    chunk
}

#[tokio::test]
async fn a_server_that_sends_random_bytes_without_end() {
    let server = Server::start(|mut stream| {
        let mut state = SEED;
        while stream.write_all(&random_bytes(&mut state)).is_ok() {}
    });
    let report = ask(&server).await;
    let WrongAnswer::OtherProtocol(first) = seen(&report) else {
        panic!("{report:?}")
    };
    assert!(!first.is_empty() && random_bytes(&mut SEED.clone()).starts_with(first));
}

#[tokio::test]
async fn a_server_that_closes_at_once() {
    let server = Server::start(drop);
    assert_eq!(seen(&ask(&server).await), &WrongAnswer::Closed);
}

#[tokio::test]
async fn a_server_that_acknowledges_and_closes() {
    let server = Server::start(|mut stream| stream.write_all(b"+").unwrap());
    assert_eq!(seen(&ask(&server).await), &WrongAnswer::Closed);
}

#[tokio::test]
async fn a_server_whose_packet_never_ends() {
    let server = Server::start(|mut stream| {
        stream.write_all(b"$").unwrap();
        while stream.write_all(&[b'a'; 4000]).is_ok() {}
    });
    // Bytes of a packet that has not ended are no noise: only the deadline ends it.
    assert_broken(&ask_until(&server, UNTIL_DEADLINE).await);
}

#[tokio::test]
async fn a_server_whose_packets_are_cut_short_or_no_answers() {
    for said in [&b"+$PacketSize=1"[..], b"$hello#14"] {
        let server = Server::start(|mut stream| {
            stream.write_all(said).unwrap();
            read_to_end(&stream);
        });
        assert_broken(&ask_until(&server, UNTIL_DEADLINE).await);
    }
}

/// It talked until the deadline: what that did to a guest, should it be a stub after all, is not
/// known.
fn assert_broken(report: &Report) {
    assert_eq!(
        report.reachability,
        Reachability::NotAGdbStub(WrongAnswer::BrokenPackets)
    );
    assert_eq!(report.effect, GuestEffect::Unknown);
}

#[tokio::test]
async fn nobody() {
    let (_held, endpoint) = unused();
    let endpoint = StubAddress::Tcp(endpoint);
    let report = probe(&endpoint, &ProbeOptions::default()).await.unwrap();
    assert_eq!(report.reachability, Reachability::NobodyListens);
    // Where looks see nothing, the refused connection says it.
    let report = probe(&endpoint, &ProbeOptions::default().nobody_attached())
        .await
        .unwrap();
    assert_eq!(report.reachability, Reachability::NobodyListens);
    assert_eq!(report.effect, GuestEffect::Untouched);
}

#[tokio::test]
async fn a_socket_file_without_a_listener_and_a_file_that_is_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [socket, file, folder.path().join("absent")] {
        for options in [
            ProbeOptions::default(),
            ProbeOptions::default().nobody_attached(),
        ] {
            let report = probe(&StubAddress::Unix(path.clone()), &options)
                .await
                .unwrap();
            assert_eq!(
                report.reachability,
                Reachability::NobodyListens,
                "{}",
                path.display()
            );
        }
    }
}

#[tokio::test]
async fn another_hosts_stub_is_not_connected_to_unasked() {
    // TEST-NET-1: nobody has it, and nothing is sent there.
    let endpoint = "192.0.2.1:1234".parse().unwrap();
    let report = probe(&endpoint, &ProbeOptions::default()).await.unwrap();
    assert!(matches!(report.reachability, Reachability::Unknown(_)));
    assert_eq!(report.effect, GuestEffect::Untouched);
}

#[tokio::test]
async fn a_deadline_without_end_is_no_overflow() {
    let server = Server::start(drop);
    let options = ProbeOptions::default()
        .deadline(Duration::MAX)
        .leave_within(Duration::MAX);
    let report = probe(&StubAddress::Tcp(server.address), &options)
        .await
        .unwrap();
    assert_eq!(seen(&report), &WrongAnswer::Closed);
}
