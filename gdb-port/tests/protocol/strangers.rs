//! What is no stub: each is distinguished by what it sent, and the guest's state is not guessed.

use gdb_port::{GuestEffect, GuestState, Leave, ProbeOptions, Reachability, WrongAnswer};

use crate::timed::Timed;

fn run_on() -> ProbeOptions {
    ProbeOptions::default().leave(Leave::RunOn)
}

/// What the probe says of a peer that sends this and then, with `eof`, closes.
fn answer_to(input: &[u8], eof: bool) -> WrongAnswer {
    let mut probe = Timed::new(&run_on());
    probe.handle_input(input);
    if eof {
        probe.handle_eof();
    } else {
        probe.reach_deadline();
    }
    assert!(probe.is_done());
    let outcome = probe.outcome();
    assert_eq!(outcome.effect, GuestEffect::Untouched);
    match outcome.reachability {
        Reachability::NotAGdbStub(seen) => seen,
        other => panic!("{}: {other:?}", input.escape_ascii()),
    }
}

#[test]
fn banners_broken_packets_and_silence() {
    let seen = answer_to;
    assert_eq!(seen(b"", true), WrongAnswer::Closed);
    assert_eq!(seen(b"+", true), WrongAnswer::Closed);
    assert_eq!(
        seen(b"HTTP/1.0 400", false),
        WrongAnswer::OtherProtocol(b"HTTP/1.0 400".to_vec())
    );
    assert_eq!(
        seen(b"HTTP/1.0 400", true),
        WrongAnswer::OtherProtocol(b"HTTP/1.0 400".to_vec())
    );
    assert_eq!(
        seen(&b"$bad#00".repeat(4), false),
        WrongAnswer::BrokenPackets
    );
    assert_eq!(seen(&b"-".repeat(4), false), WrongAnswer::BrokenPackets);
    assert_eq!(
        seen(&b"$hello#14".repeat(65), false),
        WrongAnswer::BrokenPackets
    );
    assert_eq!(
        seen(&b"%hello#14".repeat(65), false),
        WrongAnswer::BrokenPackets
    );
    // Both at once is dialogue the same however much came at once.
    let mixed = b"x$bad#00".repeat(300);
    assert_eq!(
        seen(&mixed, false),
        WrongAnswer::OtherProtocol(mixed[..64].to_vec())
    );
    assert_eq!(
        seen(&mixed[..40], false),
        WrongAnswer::OtherProtocol(mixed[..40].to_vec())
    );
}

/// A server that answers with something made of what it was sent.
type Reflect = fn(&[u8]) -> Vec<u8>;

/// Each is sent the question, and after half of the time the empty lines that make a server of
/// lines speak. None is a stub, and none is detached from, though the guest is said to run.
#[test]
fn echoes_and_quotes() {
    let servers: &[(&str, Reflect)] = &[
        ("echo", <[u8]>::to_vec),
        ("echo of packets without their acknowledgment", |sent| {
            sent.strip_prefix(b"+").unwrap_or(sent).to_vec()
        }),
        ("echo, twice", |sent| sent.repeat(2)),
        ("echo of whole lines", |sent| match sent.ends_with(b"\n") {
            true => sent.to_vec(),
            false => Vec::new(),
        }),
        ("echo in capitals", <[u8]>::to_ascii_uppercase),
        ("echo backwards", |sent| {
            sent.iter().rev().copied().collect()
        }),
        ("echo after a prompt", |sent| [b"> ", sent].concat()),
        ("echo after an acknowledgment", |sent| [b"+", sent].concat()),
        ("echo of a terminal", |sent| {
            [b"\xff\xfd\x03", sent, b"\r\n$ "].concat()
        }),
        ("echo with a packet of its own", |sent| {
            [sent, b"$#00"].concat()
        }),
        ("a page that quotes the request", |sent| {
            [b"HTTP/1.1 400 Bad Request\r\n\r\n<pre>", sent, b"</pre>"].concat()
        }),
        (
            "a page that quotes the request, its marks escaped",
            |sent| {
                let quoted = String::from_utf8_lossy(sent).replace('$', "&#36;");
                format!("HTTP/1.1 400 Bad Request\r\n\r\n{quoted}").into_bytes()
            },
        ),
        ("an error in JSON", |sent| {
            format!("{{\"error\":\"{}\"}}", sent.escape_ascii()).into_bytes()
        }),
        ("an FTP server", |sent| {
            [b"500 '", sent, b"': command not understood.\r\n"].concat()
        }),
        ("a packet around the question", |sent| {
            let mut frame = Vec::new();
            gdb_remote::packet::encode(&[b"E.", sent].concat(), &mut frame);
            frame
        }),
        ("a banner that holds an empty packet", |_| {
            b"220 ready $#00\r\n".to_vec()
        }),
        ("a banner that holds an error", |_| {
            b"login: $E01#a6".to_vec()
        }),
    ];
    for (name, reflect) in servers {
        let mut probe = Timed::new(&run_on().guest(GuestState::Running));
        let mut sent = Vec::new();
        for step in 0..3 {
            for _ in 0..10 {
                sent.extend_from_slice(probe.output());
                let reply = reflect(&std::mem::take(&mut sent));
                probe.advance_output(usize::MAX);
                probe.handle_input(&reply);
            }
            match step {
                0 => probe.reach_silence(),
                1 => probe.reach_deadline(),
                _ => {}
            }
        }
        let outcome = probe.outcome();
        assert!(probe.is_done(), "{name}");
        let Reachability::NotAGdbStub(seen) = &outcome.reachability else {
            panic!("{name}: {}", outcome.reachability)
        };
        assert_ne!(*seen, WrongAnswer::Closed, "{name}");
        assert_eq!(outcome.effect, GuestEffect::Untouched, "{name}");
    }
}
