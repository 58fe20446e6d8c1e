//! Decoding speed of `qmp-proto` and of other ways to read QMP, on the same bytes, in one interleaved run.
//!
//! Prints a table of MB/s (median, min and max of the rounds, by the thread's time on a processor) and the median of the rounds' ratios. Arguments: the number of
//! rounds, default 9. For a profiler, a contender's name runs that alone; then the size of the pieces, and `mixed` or `schema`.

mod contenders;
mod streams;

use std::hint::black_box;

use contenders::CONTENDERS;
use rustix::time::{ClockId, clock_gettime};

const MB: f64 = 1e6;

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(9);
    let mixed = streams::mixed(200_000);
    let schema = streams::schema();
    if let Some(name) = std::env::args().nth(2) {
        let stream = if std::env::args().nth(4).as_deref() == Some("schema") { &schema } else { &mixed };
        let piece = std::env::args().nth(3).and_then(|size| size.parse().ok()).unwrap_or(usize::MAX);
        let contender =
            CONTENDERS.iter().find(|contender| contender.name == name).expect("a contender's name");
        for _ in 0..rounds {
            black_box((contender.decode)(black_box(&stream.bytes), piece));
        }
        return;
    }
    println!(
        "{rounds} rounds; MB/s as median (min to max), and how many times faster qmp-proto is, the median of the rounds\n"
    );
    for (name, stream, repeats) in [("mixed", &mixed, 1), ("schema", &schema, 20)] {
        for piece in [usize::MAX, 4096, 1] {
            // A byte at a time is slow for all; a part of the stream tells as much.
            let part = if piece == 1 { stream.prefix(4_000_000) } else { stream.bytes.as_slice() };
            compare(name, part, piece, if piece == 1 { 2.min(repeats) } else { repeats }, rounds);
        }
    }
}

fn compare(name: &str, bytes: &[u8], piece: usize, repeats: usize, rounds: usize) {
    let size = match piece {
        usize::MAX => "whole".to_owned(),
        size => format!("{size} B pieces"),
    };
    println!("{name}, {:.1} MB, {size}", bytes.len() as f64 / MB);
    let mut speeds = vec![Vec::new(); CONTENDERS.len()];
    let mut counts = vec![0; CONTENDERS.len()];
    for round in 0..rounds {
        for turn in 0..CONTENDERS.len() {
            // Another one begins each round, so that none always follows the same.
            let index = (round + turn) % CONTENDERS.len();
            let start = cpu_seconds();
            for _ in 0..repeats {
                counts[index] = black_box((CONTENDERS[index].decode)(black_box(bytes), piece));
            }
            speeds[index].push((bytes.len() * repeats) as f64 / MB / (cpu_seconds() - start));
        }
    }
    assert!(counts.iter().all(|&count| count == counts[0]), "all must see the same messages: {counts:?}");
    let ours = speeds[0].clone();
    for (contender, speeds) in CONTENDERS.iter().zip(&mut speeds) {
        // Round by round: what disturbs the machine for a while disturbs both.
        let mut ratios: Vec<f64> = ours.iter().zip(&*speeds).map(|(ours, theirs)| ours / theirs).collect();
        let (median, ratio) = (median(speeds), median(&mut ratios));
        let (min, max) = (speeds[0], speeds[speeds.len() - 1]);
        println!("  {:<34} {median:7.1} ({min:7.1} to {max:7.1})  {ratio:5.2}x", contender.name);
    }
    println!();
}

/// This thread's time on a processor: a busy machine then disturbs less.
fn cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Sorts, and takes the middle.
fn median(speeds: &mut [f64]) -> f64 {
    speeds.sort_by(f64::total_cmp);
    speeds[speeds.len() / 2]
}
