//! What stubs reply: features, stop replies, thread ids.

use gdb_remote::reply::{Feature, Features, Id, StopReply, ThreadId};

#[test]
fn features_of_qemu_and_others() {
    let qemu =
        Features::parse(b"PacketSize=1000;qXfer:features:read+;vContSupported+;multiprocess+")
            .unwrap();
    assert_eq!(qemu.packet_size(), Some(4096));
    assert!(qemu.supports("multiprocess") && !qemu.supports("QStartNoAckMode"));
    assert_eq!(qemu.iter().count(), 4);
    let other = Features::parse(b"PacketSize=zz;a-;b?;qXfer:memory-map:read+;c=;;").unwrap();
    assert_eq!(other.packet_size(), None);
    assert_eq!(other.find("a"), Some(&Feature::Unsupported));
    assert_eq!(other.find("b"), Some(&Feature::Maybe));
    assert_eq!(other.find("c"), Some(&Feature::Value(String::new())));
    assert_eq!(other.find("d"), None);
    assert_eq!(Features::parse(b""), Some(Features::default()));
    for bad in [
        &b"OK"[..],
        b"+",
        "é".as_bytes(),
        b"\xff+",
        b"=x",
        b"E01",
        b"a+;b",
    ] {
        assert_eq!(Features::parse(bad), None, "{}", bad.escape_ascii());
    }
}

#[test]
fn thread_ids() {
    let check = |text: &str, process: Option<Id>, thread: Id| {
        let id = ThreadId::parse(text).unwrap();
        assert_eq!((id.process, id.thread), (process, thread), "{text}");
    };
    check("01", None, Id::One(1));
    check("-1", None, Id::All);
    check("0", None, Id::Any);
    check("p01.01", Some(Id::One(1)), Id::One(1));
    check("pa.-1", Some(Id::One(10)), Id::All);
    check("p2", Some(Id::One(2)), Id::All);
    check("ffffffffffffffff", None, Id::One(u64::MAX));
    for bad in [
        "",
        "p",
        "p.",
        "p1.",
        "p.1",
        "x",
        "-2",
        "+1",
        "10000000000000000",
        "1.1",
    ] {
        assert_eq!(ThreadId::parse(bad), None, "{bad}");
    }
}

#[test]
fn stop_replies() {
    let signal = |payload: &[u8]| match StopReply::parse(payload) {
        Some(StopReply::Signal {
            signal,
            thread,
            details,
        }) => (signal, thread.map(|id| id.thread), details),
        other => panic!("{}: {other:?}", payload.escape_ascii()),
    };
    assert_eq!(signal(b"S05"), (5, None, vec![]));
    assert_eq!(signal(b"T02thread:01;"), (2, Some(Id::One(1)), vec![]));
    assert_eq!(signal(b"T05"), (5, None, vec![]));
    let (number, thread, details) = signal(b"T05thread:p01.02;watch:20000000;0f:78563412;");
    assert_eq!((number, thread), (5, Some(Id::One(2))));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(details, [pair("watch", "20000000"), pair("0f", "78563412")]);
    assert_eq!(StopReply::parse(b"W00"), Some(StopReply::Exited(0)));
    assert_eq!(
        StopReply::parse(b"W2a;process:1"),
        Some(StopReply::Exited(42))
    );
    assert_eq!(StopReply::parse(b"X0b"), Some(StopReply::Terminated(11)));
    assert_eq!(StopReply::parse(b"N"), Some(StopReply::NoResumed));
    for bad in [
        &b""[..],
        b"T",
        b"T5",
        b"Tzz",
        b"T+5",
        b"S05x",
        b"W00x",
        b"O41",
        b"OK",
        b"E01",
        b"T05thread:;",
        b"T05x",
        b"\xff",
        b"NN",
    ] {
        assert_eq!(StopReply::parse(bad), None, "{}", bad.escape_ascii());
    }
}
