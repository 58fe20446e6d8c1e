//! Over a stream in memory, with time that passes only when everybody waits.

use std::time::Duration;

use gdb_port::gdb_remote::packet::{Decoder, Item, encode};
use gdb_port::{GuestEffect, GuestState, Leave, ProbeOptions, Reachability, probe_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

/// A stub that answers each packet after `delay`, until the other side has said all; returns the
/// questions.
async fn stub(
    mut stream: DuplexStream,
    delay: Duration,
    answer: fn(&str) -> Option<&'static str>,
) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut asked = Vec::new();
    let mut buffer = [0; 64];
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        if count == 0 {
            return asked;
        }
        for item in buffer[..count]
            .iter()
            .filter_map(|byte| decoder.push(*byte))
        {
            let Item::Packet(question) = item else {
                continue;
            };
            let question = String::from_utf8(question).unwrap();
            tokio::time::sleep(delay).await;
            if let Some(text) = answer(&question) {
                let mut reply = b"+".to_vec();
                encode(text.as_bytes(), &mut reply);
                // Whoever has given up waiting reads no more.
                let _ = stream.write_all(&reply).await;
            }
            asked.push(question);
        }
    }
}

fn simple(question: &str) -> Option<&'static str> {
    Some(match question {
        "?" => "S05",
        detach if detach.starts_with('D') => "OK",
        _ => "",
    })
}

fn options() -> ProbeOptions {
    ProbeOptions::default()
        .leave(Leave::RunOn)
        .guest(GuestState::Running)
}

#[tokio::test(start_paused = true)]
async fn a_stub_is_asked_and_left_also_through_a_buffer_of_one_byte() {
    let options = options();
    for buffer in [1, 2, 7, 4096] {
        let (near, far) = duplex(buffer);
        let delay = Duration::from_millis(1);
        let (outcome, asked) = tokio::join!(probe_stream(near, &options), stub(far, delay, simple));
        assert!(
            matches!(outcome.reachability, Reachability::Answers(_)),
            "{buffer}"
        );
        assert_eq!(outcome.effect, GuestEffect::PausedThenResumed);
        assert_eq!(asked[1..], ["?", "D"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_stub_is_left_in_order_at_the_deadline() {
    let (near, far) = duplex(4096);
    let options = options();
    let begun = Instant::now();
    let delay = Duration::from_millis(1_500);
    let (outcome, asked) = tokio::join!(probe_stream(near, &options), stub(far, delay, simple));
    // Asked at 0, answered at 1.5 s; asked again, and at 2 s the deadline: D, which may take half a
    // second more.
    assert_eq!(asked[1..], ["?", "D"]);
    assert_eq!(outcome.effect, GuestEffect::ResumeUnconfirmed);
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_leaving_begun_before_the_deadline_is_awaited_past_it() {
    let (near, far) = duplex(4096);
    let options = options();
    let delay = Duration::from_millis(700);
    let (outcome, asked) = tokio::join!(probe_stream(near, &options), stub(far, delay, simple));
    // D is sent at 1.4 s and answered at 2.1 s, between the deadline and the end of leaving at 2.5
    // s.
    assert_eq!(asked[1..], ["?", "D"]);
    assert_eq!(outcome.effect, GuestEffect::PausedThenResumed);
}

#[tokio::test(start_paused = true)]
async fn a_stub_that_never_answers_or_reads_takes_no_longer_than_was_allowed() {
    for buffer in [1, 4096] {
        let (near, far) = duplex(buffer);
        let begun = Instant::now();
        let outcome = probe_stream(near, &options()).await;
        assert_eq!(
            outcome.reachability,
            Reachability::Silent { accepted: None }
        );
        // The deadline of 2 s, and twice the half second for leaving: D unanswered, and the close
        // unanswered.
        assert!(
            begun.elapsed() <= Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        drop(far);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stub_that_vanishes_in_the_middle_is_still_what_it_was() {
    let (near, mut far) = duplex(4096);
    let options = options();
    let vanish = async {
        let mut buffer = [0; 64];
        let _ = far.read(&mut buffer).await.unwrap();
        far.write_all(b"+$#00").await.unwrap();
        drop(far);
    };
    let (outcome, ()) = tokio::join!(probe_stream(near, &options), vanish);
    assert!(matches!(outcome.reachability, Reachability::Answers(_)));
    assert_eq!(outcome.effect, GuestEffect::LeftPaused);
}

/// What is awaited in other tasks must be able to move between threads.
#[test]
fn the_futures_and_what_they_return_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    let endpoint = "127.0.0.1:9".parse().unwrap();
    let options = options();
    is_send(&gdb_port::probe(&endpoint, &options));
    is_send(&gdb_port::wait_until_listening(
        &endpoint,
        None,
        Duration::ZERO,
        std::future::ready(()),
    ));
    is_send(&async {
        let report = gdb_port::probe(&endpoint, &options).await.unwrap();
        report.queued.unwrap().finish(Duration::ZERO).await
    });
}
