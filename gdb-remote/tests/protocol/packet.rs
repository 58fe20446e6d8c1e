//! Framing: what bytes become, row by row.

use gdb_remote::packet::{Damage, Decoder, Item, encode};

fn decode(bytes: &[u8], limit: usize) -> Vec<Item> {
    let mut decoder = Decoder::new(limit);
    bytes
        .iter()
        .filter_map(|byte| decoder.push(*byte))
        .collect()
}

/// A frame around a body as it stands, its sum right.
fn frame(mark: char, body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [
        mark.to_string().as_bytes(),
        body,
        format!("#{sum:02x}").as_bytes(),
    ]
    .concat()
}

fn packet(payload: &[u8]) -> Item {
    Item::Packet(payload.to_vec())
}

#[test]
fn whole_packets() {
    let check = |bytes: &[u8], expected: &[Item]| {
        assert_eq!(decode(bytes, 64), expected, "{}", bytes.escape_ascii());
    };
    check(b"", &[]);
    check(b"$#00", &[packet(b"")]);
    check(b"$OK#9a", &[packet(b"OK")]);
    check(b"$OK#9A", &[packet(b"OK")]);
    check(b"+$OK#9a+", &[Item::Ack, packet(b"OK"), Item::Ack]);
    check(b"-\x03+", &[Item::Nack, Item::Interrupt, Item::Ack]);
    check(b"$OK#9a$E22#a9", &[packet(b"OK"), packet(b"E22")]);
    check(
        &frame('%', b"Stop:T05"),
        &[Item::Notification(b"Stop:T05".to_vec())],
    );
    // Inside a packet, all but `#`, `$`, `}` and `*` are ordinary bytes.
    check(
        &frame('$', b"a+b-c\x03d%e\0\xff"),
        &[packet(b"a+b-c\x03d%e\0\xff")],
    );
}

#[test]
fn escapes_and_runs() {
    let check = |body: &[u8], expected: &[u8]| {
        assert_eq!(
            decode(&frame('$', body), 200),
            [packet(expected)],
            "{}",
            body.escape_ascii()
        );
    };
    check(b"}\x03}\x04}]}\x0a", b"#$}*");
    check(b"}a", b"A");
    // The manual's example: `0* ` is `0000`.
    check(b"0* ", b"0000");
    check(b"x0*\"y", b"x000000y");
    check(b"a*~", &[b'a'; 98]);
    // A run repeats the byte before it as it was sent: of an escaped one, the second byte, which is
    // then no escape.
    check(b"}]* ", b"}]]]");
    check(b"0* 1* ", b"00001111");
    // A run after a run repeats the same byte.
    check(b"0* * ", b"0000000");
}

#[test]
fn damaged_packets() {
    let check = |bytes: &[u8], expected: &[Item]| {
        assert_eq!(decode(bytes, 8), expected, "{}", bytes.escape_ascii());
    };
    let damaged = Item::Damaged;
    check(b"$OK#9b", &[damaged(Damage::Checksum)]);
    check(b"$OK#zz", &[damaged(Damage::Checksum)]);
    check(b"$OK#  $OK#9a", &[damaged(Damage::Checksum), packet(b"OK")]);
    check(&frame('$', b"* "), &[damaged(Damage::Run)]);
    check(&frame('$', b"0*"), &[damaged(Damage::Run)]);
    check(&frame('$', b"0*\x1f"), &[damaged(Damage::Run)]);
    check(&frame('$', b"0*\x7f"), &[damaged(Damage::Run)]);
    check(&frame('$', b"a}"), &[damaged(Damage::Escape)]);
    check(b"$O$OK#9a", &[damaged(Damage::Interrupted), packet(b"OK")]);
    check(
        &frame('%', b"* "),
        &[Item::DamagedNotification(Damage::Run)],
    );
    check(
        b"%x#00+",
        &[Item::DamagedNotification(Damage::Checksum), Item::Ack],
    );
}

#[test]
fn the_limit_is_of_the_payload_with_its_runs_expanded() {
    assert_eq!(decode(&frame('$', b"12345678"), 8), [packet(b"12345678")]);
    assert_eq!(
        decode(&frame('$', b"123456789"), 8),
        [Item::Damaged(Damage::TooLong)]
    );
    assert_eq!(
        decode(&frame('$', b"0*$"[..2].as_ref()), 8),
        [Item::Damaged(Damage::Run)]
    );
    assert_eq!(
        decode(&frame('$', b"0*~"), 8),
        [Item::Damaged(Damage::TooLong)]
    );
    assert_eq!(decode(&frame('$', b"}\x03}\x03"), 2), [packet(b"##")]);
    // What follows is read as ever.
    let bytes = [frame('$', &[b'x'; 10_000]), frame('$', b"OK")].concat();
    assert_eq!(
        decode(&bytes, 8),
        [Item::Damaged(Damage::TooLong), packet(b"OK")]
    );
}

#[test]
fn bytes_between_packets_are_counted() {
    let mut decoder = Decoder::default();
    let bytes = [&b"HTTP/1.1 400\r\n"[..], &[b'x'; 100]].concat();
    assert_eq!(
        bytes.iter().filter_map(|byte| decoder.push(*byte)).count(),
        0
    );
    assert_eq!(decoder.noise(), 114);
    assert!(!decoder.is_inside_packet());
    decoder.push(b'$');
    assert!(decoder.is_inside_packet());
}

#[test]
fn encoding_escapes_what_it_must() {
    let check = |payload: &[u8], expected: &[u8]| {
        let mut out = b"+".to_vec();
        encode(payload, &mut out);
        assert_eq!(out, [b"+", expected].concat());
    };
    check(b"", b"$#00");
    check(b"qSupported", b"$qSupported#37");
    check(b"D;1", b"$D;1#b0");
    check(b"#$}*", &frame('$', b"}\x03}\x04}]}\x0a"));
}
