//! Starts and ends leave nothing behind: descriptors, zombies, sockets, temporary files, threads.

use std::path::Path;
use std::time::{Duration, Instant};

use qemu_launch::{Endpoint, MachineSpec, StopPolicy};
use serde_json::json;

use test_support::procfs::{children, entries};
use test_support::{Qmp, eventually, soon};

use crate::support::{alone, long, machine};

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    descriptors: usize,
    children: usize,
    temporary: usize,
    threads: usize,
}

fn counts(temporary: &Path) -> Counts {
    Counts {
        descriptors: entries("/proc/self/fd"),
        children: children().len(),
        temporary: entries(temporary),
        threads: entries("/proc/self/task"),
    }
}

/// Stopped, for nobody reads its serial port.
fn spec() -> MachineSpec {
    machine("tick")
        .serial(Endpoint::Inherited)
        .gdb(Endpoint::PrivateSocket)
        .start_stopped(true)
}

#[test]
fn starts_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    alone("repeated::starts_and_ends", folder.path(), || {
        let temporary = std::env::temp_dir();
        // At a path of its own choice as well, which one after the other can have.
        let spec = spec().chardev("named", Endpoint::Socket(temporary.join("named")));
        let before = warmed_up(&spec, &temporary);
        let rounds = if long() { 500 } else { 40 };
        for round in 0..rounds {
            once(&spec, round);
        }
        let after = again(&before, &temporary);
        println!("before {before:?}\nafter {rounds} rounds {after:?}");
        // The one is the folder above, which this process has made as well.
        assert_eq!((after.children, after.temporary), (0, 1));
    });
}

#[test]
fn fifty_at_once() {
    let folder = tempfile::tempdir().unwrap();
    alone("repeated::fifty_at_once", folder.path(), || {
        let temporary = std::env::temp_dir();
        let spec = spec();
        let before = warmed_up(&spec, &temporary);
        let mut processes: Vec<_> = (0..50)
            .map(|_| qemu_launch::spawn(&spec).unwrap())
            .collect();
        let mut monitors: Vec<_> = processes
            .iter_mut()
            .map(|process| Qmp::new(process.take_qmp().unwrap()))
            .collect();
        assert!(
            monitors
                .iter_mut()
                .all(|qmp| qmp.run_state() == "prelaunch")
        );
        drop((processes, monitors));
        again(&before, &temporary);
    });
}

/// Every way to end, in turn; a start that fails as well.
fn once(spec: &MachineSpec, round: usize) {
    match round % 5 {
        0 => {
            let mut process = qemu_launch::spawn(spec).unwrap();
            let mut qmp = Qmp::new(process.take_qmp().unwrap());
            qmp.execute("quit", json!({}));
            process.wait_blocking(soon()).unwrap();
        }
        1 => drop(qemu_launch::spawn(spec).unwrap()),
        2 => drop(
            qemu_launch::spawn(spec)
                .unwrap()
                .end_blocking(StopPolicy::default())
                .unwrap(),
        ),
        3 => {
            // With all that it makes, such as sockets, which it can't remove then.
            let mut process = qemu_launch::spawn(spec).unwrap();
            let _greeted = Qmp::new(process.take_qmp().unwrap());
            process.end_blocking(StopPolicy::kill()).unwrap();
        }
        _ => {
            let bad = spec.clone().machine("nosuch");
            let process = qemu_launch::spawn(&bad).unwrap();
            assert_eq!(process.wait_blocking(soon()).unwrap().code(), Some(1));
            assert!(qemu_launch::spawn(&spec.clone().firmware("/nonexistent")).is_err());
        }
    }
}

/// After a first round: a thread that has published the exit needs a moment to end itself.
fn warmed_up(spec: &MachineSpec, temporary: &Path) -> Counts {
    let plain = counts(temporary).threads;
    once(spec, 0);
    eventually("no child and no serving thread is left", || {
        let counts = counts(temporary);
        counts.children == 0 && counts.threads == plain
    });
    counts(temporary)
}

/// Once it is as it was before.
fn again(before: &Counts, temporary: &Path) -> Counts {
    let deadline = soon();
    loop {
        let now = counts(temporary);
        if now == *before {
            return now;
        }
        assert!(
            Instant::now() < deadline,
            "it was {before:?} and stays {now:?}"
        );
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
