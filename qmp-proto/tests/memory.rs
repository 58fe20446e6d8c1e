//! A counting allocator shows that memory stays within the limit and one read, and that a value
//! kept keeps only itself.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use qmp_proto::{Codec, CommandId, Connection, DecodeErrorKind, Limits, Received, ServerMessage};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// How often memory of at least one read was taken.
static LARGE: AtomicUsize = AtomicUsize::new(0);

fn grow(size: usize) {
    LARGE.fetch_add((size >= READ).into(), Relaxed);
    PEAK.fetch_max(NOW.fetch_add(size, Relaxed) + size, Relaxed);
}

#[expect(
    unsafe_code,
    reason = "an allocator is made of it; all is handed on to the system's"
)]
// SAFETY: every call goes to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    /// Counted as a change of size: where the system copies, it does so page by page for what is
    /// large.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        NOW.fetch_sub(layout.size(), Relaxed);
        grow(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMIT: usize = 1024 * 1024;
const READ: usize = 64 * 1024;
/// For an error, a message's own struct and the like.
const SMALL: usize = 4 * 1024;

/// The most memory that was in use at once during `work`, beyond what was before.
fn peak(work: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    PEAK.load(Relaxed) - before
}

fn codec() -> Codec {
    let mut limits = Limits::default();
    limits.max_message_bytes = LIMIT;
    Codec::new(limits)
}

/// One test, as the count is of the whole process.
#[test]
fn memory_is_bounded() {
    let read = vec![b'x'; READ];
    let endless_string = peak(|| {
        let mut codec = codec();
        codec.feed(b"{\"return\": \"");
        let error = loop {
            codec.feed(&read);
            match codec.next_message() {
                Ok(message) => assert_eq!(message, None),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), &DecodeErrorKind::TooLarge { limit: LIMIT });
        for _ in 0..100 {
            codec.feed(&read);
        }
    });
    assert!(endless_string <= LIMIT + READ + SMALL, "{endless_string}");
    assert!(endless_string >= LIMIT, "the count works");

    let never_polled = peak(|| {
        let mut codec = codec();
        codec.feed(b"{\"return\": \"");
        for _ in 0..100 {
            codec.feed(&read);
        }
        codec.next_message().unwrap_err();
    });
    assert!(never_polled <= LIMIT + READ + SMALL, "{never_polled}");

    let largest = format!("{{\"return\": \"{}\"}}", "y".repeat(LIMIT - 14));
    let largest_message_kept = peak(|| {
        let mut codec = codec();
        let mut kept = None;
        for piece in largest.as_bytes().chunks(READ) {
            codec.feed(piece);
            kept = kept.or(codec.next_message().unwrap());
        }
        assert!(kept.is_some());
    });
    assert!(
        largest_message_kept <= LIMIT + READ + SMALL,
        "handed over without a copy: {largest_message_kept}"
    );

    let space = vec![b' '; READ];
    let endless_space = peak(|| {
        let mut codec = codec();
        for _ in 0..1000 {
            codec.feed(&space);
            assert_eq!(codec.next_message(), Ok(None));
        }
    });
    assert!(endless_space <= READ + SMALL, "{endless_space}");

    let tiny = b"{\"return\":{}}".repeat(READ / 13);
    let tiny_messages = peak(|| {
        let mut codec = codec();
        for _ in 0..200 {
            codec.feed(&tiny);
            while codec.next_message().unwrap().is_some() {}
        }
    });
    assert!(tiny_messages <= READ + SMALL, "{tiny_messages}");

    let split = peak(|| {
        let mut codec = codec();
        // Each read ends inside a message.
        for piece in tiny.repeat(20).chunks(READ) {
            codec.feed(piece);
            while codec.next_message().unwrap().is_some() {}
        }
    }) - tiny.len() * 20;
    assert!(split <= READ + SMALL, "{split}");

    let event = b"{\"event\": \"E\", \"data\": {\"a\": 1}}\r\n".repeat(100);
    let mut kept: Vec<ServerMessage> = Vec::with_capacity(10_000);
    let kept_events = peak(|| {
        let mut codec = codec();
        for _ in 0..100 {
            codec.feed(&event);
            while let Some(message) = codec.next_message().unwrap() {
                kept.push(message);
            }
        }
    });
    assert_eq!(kept.len(), 10_000);
    assert!(
        kept_events <= 10_000 * 16 + READ,
        "an event that is kept keeps its own bytes, no buffer: {kept_events}"
    );

    hostile_messages();
    kept_values();
    kept_buffer();
    written_commands();

    let deep = "[".repeat(10_000_000);
    let depth = peak(|| {
        let mut codec = codec();
        codec.feed(b"{\"x\": ");
        for piece in deep.as_bytes().chunks(READ) {
            codec.feed(piece);
        }
        codec.next_message().unwrap_err();
    });
    assert!(depth <= READ + SMALL, "{depth}");
    println!(
        "limit {LIMIT}, read {READ}: endless string {endless_string}, never polled {never_polled}, largest message \
         kept {largest_message_kept}, endless space {endless_space}, tiny messages {tiny_messages}, 10,000 kept events {kept_events}, depth {depth}"
    );
}

/// Messages just under the default limit, each of which would be dear to read in full.
fn hostile_messages() {
    let limit = qmp_proto::MAX_MESSAGE_BYTES;
    let fill = |before: &str, unit: &str, after: &str| {
        let count = (limit - before.len() - after.len()) / unit.len();
        format!("{before}{}{after}", unit.repeat(count))
    };
    let version = r#""version": {"qemu": {"major": 1, "minor": 2, "micro": 3}}"#;
    let greeting = format!(r#"{{"QMP": {{{version}, "capabilities": [""#);
    let rows = [
        (
            "a greeting of many capabilities",
            fill(&greeting, r#"",""#, r#""]}}"#),
        ),
        (
            "an escaped key",
            fill(r#"{"event": "E", "\n"#, "x", r#"": 1}"#),
        ),
        (
            "an escaped desc",
            fill(r#"{"error": {"class": "C", "desc": "\n"#, "x", r#""}}"#),
        ),
        (
            "an error of another type",
            fill(r#"{"error": ""#, "x", r#""}"#),
        ),
        (
            "an escaped event name",
            fill(r#"{"event": "\n"#, "x", r#""}"#),
        ),
        (
            "an escaped key in a timestamp",
            fill(r#"{"event": "E", "timestamp": {"\n"#, "x", r#"": 1}}"#),
        ),
        (
            "a foreign id",
            fill(r#"{"return": {}, "id": ""#, "x", r#""}"#),
        ),
        ("data", fill(r#"{"event": "E", "data": ""#, "x", r#""}"#)),
    ];
    for (name, message) in rows {
        assert!(message.len() > limit - 8);
        let peak = peak(|| drop(decode_whole(&message)));
        println!("{name}: {peak}");
        assert!(peak <= limit + READ + SMALL, "{name}: {peak}");
    }

    let quarter = "x".repeat(limit / 4 - 100);
    let rest = "x".repeat(limit / 2);
    let message = format!(r#"{{"return": "{quarter}", "id": "{quarter}", "x": "{rest}"}}"#);
    let copied = peak(|| drop(decode_whole(&message)));
    let message = format!(
        r#"{{"error": {{"class": "C", "desc": "\n{}"}}}}"#,
        "x".repeat(1_048_000)
    );
    let error = peak(|| drop(decode_whole(&message)));
    println!("two copied values: {copied}, the largest error: {error}");
    assert!(copied <= limit + limit / 2 + READ + SMALL, "{copied}");
    assert!(error <= 4 * 1024 * 1024 + 2 * READ + SMALL, "{error}");
}

/// The one message of this stream, or the error.
fn decode_whole(stream: &str) -> Result<ServerMessage, qmp_proto::DecodeError> {
    let mut codec = Codec::new(Limits::default());
    let mut kept = None;
    for piece in stream.as_bytes().chunks(READ) {
        codec.feed(piece);
        if let Some(message) = codec.next_message()? {
            kept = Some(message);
        }
    }
    Ok(kept.expect("a whole message"))
}

/// What a value keeps once all else is gone: what is small is copied and keeps just itself.
fn kept_values() {
    let small = [
        (2, 1_000_000),
        (1_100, 2_000),
        (2_000, 14_500),
        (16_000, 20_000),
    ];
    for (size, around) in small {
        let now = kept_by_value(size, around);
        assert!(now <= size + 200, "a small value of {size} keeps {now}");
    }
    let large = [
        (17_000, 1_000_000),
        (100_000, 900_000),
        (300_000, 100),
        (1_000_000, 1),
    ];
    for (size, around) in large {
        let now = kept_by_value(size, around);
        assert!(now <= 4 * (size + 2) + 200, "a value of {size} keeps {now}");
    }
}

fn kept_by_value(size: usize, around: usize) -> usize {
    let message = format!(
        r#"{{"x": "{}", "return": "{}"}}"#,
        "x".repeat(around),
        "y".repeat(size)
    );
    let before = NOW.load(Relaxed);
    let kept = decode_whole(&message).expect("a good message");
    let now = NOW.load(Relaxed) - before;
    drop(kept);
    now
}

/// Reads of 64 KiB go through one buffer, which is kept; after a larger one it is given back.
fn kept_buffer() {
    let reads = b"{\"return\": {}}\r\n".repeat(READ / 16);
    assert_eq!(reads.len(), READ);
    let mut codec = codec();
    let large_before = LARGE.load(Relaxed);
    let before = NOW.load(Relaxed);
    for _ in 0..10 {
        codec.feed(&reads);
        while codec.next_message().expect("a good stream").is_some() {}
    }
    assert_eq!(LARGE.load(Relaxed) - large_before, 1, "taken once");
    let kept = NOW.load(Relaxed) - before;
    assert!((READ..READ + SMALL).contains(&kept), "{kept}");
    codec.feed(&[&reads[..], b"\n"].concat());
    while codec.next_message().expect("a good stream").is_some() {}
    let kept = NOW.load(Relaxed) - before;
    assert!(kept <= SMALL, "{kept}");
}

/// What went out does not pile up, whether a socket takes all that waits or always leaves
/// something.
fn written_commands() {
    for left in [0, 10] {
        let mut qmp = Connection::with_id_prefix(Limits::default(), 0);
        qmp.handle_input(
            br#"{"QMP": {"version": {"qemu": {"major": 9, "minor": 0, "micro": 0}}}}"#,
        );
        assert!(matches!(qmp.poll(), Ok(Some(Received::Greeting(_)))));
        qmp.negotiate(&[]).expect("greeted");
        let answer = |qmp: &mut Connection, number| {
            let id = CommandId::new(0, number);
            qmp.handle_input(format!("{{\"return\": {{}}, \"id\": \"{id}\"}}").as_bytes());
            assert!(matches!(
                qmp.poll(),
                Ok(Some(Received::Negotiated(Ok(())) | Received::Reply { .. }))
            ));
        };
        answer(&mut qmp, 1);
        let piled = peak(|| {
            for number in 2..10_000 {
                qmp.execute("query-status", &()).expect("a place is free");
                qmp.advance_output(qmp.output().len() - left);
                answer(&mut qmp, number);
            }
        });
        assert!(piled <= SMALL, "{piled} with {left} left");
    }
}
