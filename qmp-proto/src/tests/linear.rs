//! Counted work: each byte is looked at once and moved at most three times, whatever the cutting.

use crate::{Codec, Limits, testing::cut};

/// Bytes looked at and bytes moved for this stream in these pieces, and messages found.
fn work<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, polls_each: usize) -> (u64, u64, usize) {
    let mut codec = Codec::new(Limits::default());
    let mut count = 0;
    for piece in pieces {
        codec.feed(piece);
        for _ in 0..polls_each {
            count += usize::from(codec.next_message().expect("a good stream").is_some());
        }
    }
    while codec.next_message().expect("a good stream").is_some() {
        count += 1;
    }
    (codec.looked_at(), codec.moved(), count)
}

fn stream(messages: usize, size: usize) -> Vec<u8> {
    let strings = "\"some text\", -12.5e3, {\"k\": [true, null, false]}, ".repeat(size / 50);
    format!("{{\"return\": [{strings}0], \"id\": 1}}")
        .repeat(messages)
        .into_bytes()
}

#[test]
fn every_byte_is_looked_at_once_however_it_is_cut() {
    let mut all_moved = 0;
    for (messages, size) in [(1000, 0), (100, 500), (3, 60_000), (1, 300_000)] {
        let stream = stream(messages, size);
        let length = stream.len() as u64;
        for longest in [1, 3, 17, 100, 4096, stream.len()] {
            for polls_each in [0, 1, 5] {
                let (looked_at, moved, count) = work(cut(&stream, longest, 7), polls_each);
                assert_eq!(count, messages);
                assert_eq!(
                    looked_at, length,
                    "{messages} of {size} in pieces of {longest}"
                );
                all_moved += moved;
                assert!(
                    moved <= 3 * length,
                    "{moved} moved of {length} in pieces of {longest}, {polls_each} polls"
                );
            }
        }
    }
    assert!(all_moved > 0, "moves are counted");
}

#[test]
fn large_messages_in_one_read_are_not_moved_again_and_again() {
    let stream = stream(40, 20_000);
    let (_, moved, count) = work([&stream[..]], 1);
    assert_eq!(count, 40);
    assert!(
        moved <= 3 * stream.len() as u64,
        "{moved} moved of {}",
        stream.len()
    );
}

#[test]
fn twice_the_stream_is_twice_the_work() {
    for piece in [1, 100, 4096] {
        let of = |messages| work(stream(messages, 1000).chunks(piece), 2).0;
        assert_eq!(of(200), 2 * of(100));
    }
}

#[test]
fn what_follows_a_fault_is_not_looked_at() {
    let mut codec = Codec::new(Limits::default());
    codec.feed(b"{!");
    codec.next_message().unwrap_err();
    let before = codec.looked_at();
    codec.feed(&[b'x'; 1000]);
    codec.next_message().unwrap_err();
    assert_eq!(codec.looked_at(), before);
}
