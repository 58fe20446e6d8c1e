//! A QEMU that floods stderr and a serial port never wedges, and memory stays flat.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qemu_launch::{Endpoint, Log, StopStep};
use serde_json::json;

use test_support::procfs::resident;

use crate::support::{alone, long, machine, patient, start};

#[test]
fn stderr_and_serial() {
    alone("flood::stderr_and_serial", &std::env::temp_dir(), || {
        flood(Duration::from_secs(if long() { 60 } else { 2 }))
    });
}

fn flood(time: Duration) {
    // Stopped until the serial port is read: 278 unread bytes would keep QEMU from greeting.
    let log = Log::items(["exec", "nochain"]);
    let spec = machine("uart-flood")
        .serial(Endpoint::Inherited)
        .log(log)
        .start_stopped(true);
    let (mut process, mut qmp) = start(&spec);
    let mut serial = process.take_serial(0).unwrap();
    let received = Arc::new(AtomicU64::new(0));
    let reader = {
        let received = Arc::clone(&received);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = serial.read(&mut buffer) {
                received.fetch_add(read as u64, Ordering::Relaxed);
            }
        })
    };
    qmp.execute("cont", json!({}));
    // A reader that is never read, and one that is now and then.
    let _never = process.stderr_lines();
    let mut sometimes = process.stderr_lines();

    let (begin, mut answers, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
    let warm = begin + time / 4;
    let (mut early, mut dropped) = (None, 0);
    // For the time asked for, and on until there was enough of a flood: how fast it comes is the
    // machine's affair.
    let deadline = begin + time + Duration::from_secs(120);
    let enough = |dropped: u64| {
        dropped > 0
            && received.load(Ordering::Relaxed) > 10_000
            && process.stderr_tail().dropped() > 1_000_000
    };
    while begin.elapsed() < time || (!enough(dropped) && Instant::now() < deadline) {
        let asked = Instant::now();
        assert!(qmp.run_state() == "running");
        slowest = slowest.max(asked.elapsed());
        answers += 1;
        if answers % 64 == 0 {
            let line = sometimes
                .next_line_blocking(Instant::now() + Duration::from_secs(30))
                .unwrap();
            dropped += line.expect("the stream goes on").dropped_before;
        }
        if early.is_none() && Instant::now() > warm {
            early = Some((resident(std::process::id()), resident(process.pid())));
        }
    }
    let (ours_early, qemu_early) = early.expect("a quarter of the time has passed");
    let (ours, qemu) = (resident(std::process::id()), resident(process.pid()));
    let tail = process.stderr_tail();
    let ended = process.end_blocking(patient()).unwrap();
    reader.join().unwrap();

    let serial_bytes = received.load(Ordering::Relaxed);
    println!(
        "{} s: {} MB of stderr, {} KB of serial, {answers} answers (slowest {} ms), resident KiB after a quarter \
         and at the end: this process {ours_early} and {ours}, QEMU {qemu_early} and {qemu}",
        time.as_secs(),
        (tail.dropped() + tail.bytes().len() as u64) / 1_000_000,
        serial_bytes / 1000,
        slowest.as_millis()
    );
    assert_eq!(ended.step, StopStep::Terminated, "it heard SIGTERM");
    assert!(
        tail.bytes().len() <= 64 * 1024 && tail.dropped() > 1_000_000,
        "{} dropped",
        tail.dropped()
    );
    assert!(dropped > 0, "a slow reader is told what it missed");
    assert!(serial_bytes > 10_000, "{serial_bytes}");
    assert!(
        ours < ours_early + 2048,
        "this process grew from {ours_early} to {ours} KiB"
    );
    assert!(
        qemu < qemu_early + 8192,
        "QEMU grew from {qemu_early} to {qemu} KiB"
    );
}
