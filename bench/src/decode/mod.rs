//! Decoding speed of `qmp-proto` and of other ways to read QMP, on the same bytes.

mod contenders;
mod streams;

use std::hint::black_box;

use anyhow::{Result, bail, ensure};
use contenders::CONTENDERS;

use crate::Bench;
use crate::report::{Curve, Limit, Report};
use crate::stats::{Contender, Measured, take_turns};
use crate::usage::thread_seconds;

const MB: f64 = 1e6;
const OURS: &str = contenders::QMP_PROTO;

/// A message a line; whole, in pieces as they come from a socket, and in bytes.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (mixed, schema) = (streams::mixed(200_000), streams::schema());
    let rounds = bench.rounds(3, 11);
    let part = mixed.prefix(bench.either(5_000_000, usize::MAX));
    for (subject, bytes, piece, repeats) in [
        ("decoding, 200,000 messages, whole", part, usize::MAX, 1),
        (MIXED, part, 4096, 1),
        (
            "decoding, 200,000 messages in pieces of 1 byte",
            mixed.prefix(2_000_000),
            1,
            1,
        ),
        (
            "decoding, the schema of 205 KB, whole",
            &schema.bytes,
            usize::MAX,
            20,
        ),
        (
            "decoding, the schema of 205 KB in pieces of 4096 bytes",
            &schema.bytes,
            4096,
            20,
        ),
        (BYTES, &schema.bytes, 1, 4),
    ] {
        let measured = compare(bytes, piece, repeats, rounds)?;
        report.rows(subject, &[("speed", "MB/s of processor time")], &measured);
        if subject == MIXED {
            let mut aim = |what, other, least| {
                report.ratio(what, &measured, (OURS, other), 0, Limit::AtLeast(least));
            };
            aim(
                "decoding, against a borrowed struct with RawValue",
                contenders::BORROWED,
                1.0,
            );
            aim("decoding, against qapi 0.15", contenders::QAPI, 6.0);
            aim("decoding, against qmp 0.1.1", contenders::QMP, 4.0);
        }
    }
    let whole_and_bytes = take_turns(
        rounds,
        [("whole", usize::MAX), ("bytes", 1)]
            .map(|(name, piece)| {
                let bytes = schema.bytes.as_slice();
                Contender::new(name, move || {
                    Ok(vec![seconds(contenders::qmp_proto, bytes, piece, 10)?])
                })
            })
            .into(),
    )?;
    let what = "the schema in pieces of 1 byte, against whole";
    report.ratio(
        what,
        &whole_and_bytes,
        ("bytes", "whole"),
        0,
        Limit::AtMost(10.0),
    );
    growth(report)
}

const MIXED: &str = "decoding, 200,000 messages in pieces of 4096 bytes";
const BYTES: &str = "decoding, the schema of 205 KB in pieces of 1 byte";

fn compare(bytes: &[u8], piece: usize, repeats: usize, rounds: usize) -> Result<Vec<Measured>> {
    let contenders = CONTENDERS
        .iter()
        .map(|contender| {
            Contender::new(contender.name, move || {
                let took = seconds(contender.decode, bytes, piece, repeats)?;
                Ok(vec![(bytes.len() * repeats) as f64 / MB / took])
            })
        })
        .collect();
    take_turns(rounds, contenders)
}

/// This thread's time on a processor: a busy machine then disturbs less.
fn seconds(
    decode: fn(&[u8], usize) -> usize,
    bytes: &[u8],
    piece: usize,
    repeats: usize,
) -> Result<f64> {
    let since = thread_seconds();
    for _ in 0..repeats {
        let count = black_box(decode(black_box(bytes), piece));
        ensure!(
            count == memchr::memchr_iter(b'\n', bytes).count(),
            "{count} messages are not all"
        );
    }
    Ok(thread_seconds() - since)
}

/// The time for one message by its size, from 1 KB to just below the limit.
fn growth(report: &mut Report) -> Result<()> {
    for (who, piece) in [("whole", usize::MAX), ("in pieces of 4096 bytes", 4096)] {
        let mut points = Vec::new();
        for kilobytes in [1, 4, 16, 64, 256, 1024, 4096, 10_000] {
            let bytes = streams::one_of(kilobytes * 1000).bytes;
            let repeats = (20_000_000 / bytes.len()).clamp(1, 2000);
            let took = seconds(contenders::qmp_proto, &bytes, piece, repeats)?;
            points.push((bytes.len() as f64 / 1e3, took * 1e6 / repeats as f64));
        }
        let (title, x, y) = ("decoding one message by its size", "KB", "µs");
        report.curves.push(Curve {
            title,
            x,
            y,
            who: who.to_owned(),
            points,
        });
    }
    Ok(())
}

/// One contender alone, for a profiler: so many times one stream. False where there is none of that
/// name.
pub fn alone(name: &str, count: usize, piece: usize, stream: &str) -> Result<bool> {
    let Some(contender) = CONTENDERS.iter().find(|contender| contender.name == name) else {
        return Ok(false);
    };
    let stream = match stream {
        "mixed" => streams::mixed(200_000),
        "schema" => streams::schema(),
        _ => bail!("no stream {stream}; there are mixed and schema"),
    };
    seconds(contender.decode, &stream.bytes, piece, count).map(|_| true)
}
