//! Acknowledgments and resends.

use gdb_remote::link::{Broken, Event, Link, MAX_RESENDS};
use gdb_remote::packet::Damage;

/// What the link sends when it reads these bytes, and its events.
fn hear(link: &mut Link, bytes: &[u8]) -> (String, Vec<Event>) {
    link.handle_input(bytes);
    let events = std::iter::from_fn(|| link.poll_event()).collect();
    let said = link.output().escape_ascii().to_string();
    link.advance_output(usize::MAX);
    (said, events)
}

/// A link that has asked `?`, and whose question is on its way.
fn asking() -> Link {
    let mut link = Link::new(64);
    link.send(b"?");
    assert_eq!(hear(&mut link, b""), ("$?#3f".to_owned(), vec![]));
    link
}

fn packet(payload: &[u8]) -> Event {
    Event::Packet(payload.to_vec())
}

#[test]
fn packets_are_acknowledged_and_notifications_are_not() {
    let mut link = asking();
    assert!(link.is_outstanding());
    assert_eq!(
        hear(&mut link, b"+$OK#9a"),
        ("+".to_owned(), vec![Event::Acknowledged, packet(b"OK")])
    );
    assert!(!link.is_outstanding());
    assert_eq!(
        hear(&mut link, b"%x#78"),
        (String::new(), vec![Event::Notification(b"x".to_vec())])
    );
    assert_eq!(hear(&mut link, b"%x#79"), (String::new(), vec![]));
    assert_eq!(hear(&mut link, b"+++"), (String::new(), vec![]));
}

#[test]
fn the_greeting_and_raw_bytes_are_said_as_they_are() {
    let mut link = Link::new(64);
    link.greet();
    link.send_raw(b"\r\n");
    assert_eq!(hear(&mut link, b"").0, "+\\r\\n");
}

#[test]
fn output_is_written_in_parts() {
    let mut link = Link::new(64);
    link.send(b"?");
    link.advance_output(2);
    assert_eq!(link.output(), b"#3f");
    link.send(b"D");
    assert_eq!(link.output(), b"#3f$D#44");
    link.advance_output(8);
    assert_eq!(link.output(), b"");
}

#[test]
fn a_packet_that_was_lost_is_sent_again_so_many_times() {
    let mut link = asking();
    for _ in 0..MAX_RESENDS {
        assert_eq!(hear(&mut link, b"-"), ("$?#3f".to_owned(), vec![]));
    }
    assert_eq!(
        hear(&mut link, b"-"),
        (String::new(), vec![Event::Broken(Broken::ResendsAsked)])
    );
    assert_eq!(
        hear(&mut link, b"$OK#9a-+"),
        (String::new(), vec![]),
        "a broken link is deaf"
    );
}

#[test]
fn a_resend_is_of_the_last_packet_and_of_none_that_arrived() {
    let mut link = asking();
    link.send(b"D");
    assert_eq!(hear(&mut link, b"-").0, "$D#44$D#44");
    assert_eq!(
        hear(&mut link, b"+-"),
        (String::new(), vec![Event::Acknowledged])
    );
}

#[test]
fn a_damaged_packet_is_asked_for_again_so_many_times() {
    let mut link = asking();
    for _ in 0..2 {
        for _ in 0..MAX_RESENDS {
            assert_eq!(hear(&mut link, b"$OK#00"), ("-".to_owned(), vec![]));
        }
        assert_eq!(
            hear(&mut link, b"$OK#9a").0,
            "+",
            "a good one begins the count anew"
        );
    }
    let (said, events) = hear(&mut link, &b"$OK#00".repeat(usize::from(MAX_RESENDS) + 1));
    assert_eq!(said, "-".repeat(usize::from(MAX_RESENDS)));
    assert_eq!(events, [Event::Broken(Broken::Damaged(Damage::Checksum))]);
}

#[test]
fn a_packet_over_the_limit_is_not_asked_for_again() {
    let mut link = asking();
    let long = [&b"$"[..], &[b'x'; 65], b"#78"].concat();
    assert_eq!(
        hear(&mut link, &long),
        (
            String::new(),
            vec![Event::Broken(Broken::Damaged(Damage::TooLong))]
        )
    );
}

#[test]
fn a_packet_that_another_interrupts_is_passed_over() {
    let mut link = asking();
    assert_eq!(
        hear(&mut link, b"$O$OK#9a"),
        ("+".to_owned(), vec![packet(b"OK")])
    );
}

#[test]
fn without_acknowledgments_nothing_is_acknowledged_or_sent_again() {
    let mut link = asking();
    link.stop_acknowledging();
    assert_eq!(
        hear(&mut link, b"$OK#9a"),
        (String::new(), vec![packet(b"OK")])
    );
    link.send(b"?");
    assert_eq!(hear(&mut link, b"-"), ("$?#3f".to_owned(), vec![]));
    assert_eq!(
        hear(&mut link, b"$OK#00").1,
        [Event::Broken(Broken::Damaged(Damage::Checksum))]
    );
}

#[test]
fn the_last_acknowledgments_are_rationed() {
    let mut link = asking();
    link.limit_acknowledgments(1);
    assert_eq!(hear(&mut link, b"$OK#9a$OK#9a").0, "+");
    assert_eq!(
        hear(&mut link, b"$OK#9a$OK#00"),
        (String::new(), vec![packet(b"OK")])
    );
}

#[test]
fn a_flood_ends_the_link() {
    let mut link = asking();
    let (_, events) = hear(&mut link, &b"$#00".repeat(10_000));
    assert_eq!(events.last(), Some(&Event::Broken(Broken::Flood)));
    assert!(events.len() < 2_000);
}
