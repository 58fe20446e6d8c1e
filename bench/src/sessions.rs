//! Many sessions at once: until all are ready, the controller's memory and processor time, and how
//! still it is when idle.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use qemu_controller::Session;
use tokio::sync::oneshot;

use crate::Bench;
use crate::machine;
use crate::peers::{BARE_TOKIO, BareTokio, SESSION, config, runtime, tokio_stream};
use crate::report::{Curve, Limit, Report};
use crate::stats::{Measured, Spread, milliseconds, of};
use crate::usage::{children_seconds, own_memory_kib, own_seconds, thread_seconds, wake_ups};

/// Where growth is judged: from ten, when both processors are busy, to fifty.
const FEW: usize = 10;
const MANY: usize = 50;

const SUBJECTS: [(usize, &str); 3] = [
    (1, "1 session"),
    (FEW, "10 sessions at once"),
    (MANY, "50 sessions at once"),
];

const QUANTITIES: [(&str, &str); 6] = [
    ("all are ready", "ms"),
    ("ready, median of the sessions", "ms"),
    ("controller's memory a session", "KiB"),
    ("wake-ups a second, a session that is idle", "/s"),
    (
        "processor time of the controller a session, start to end",
        "ms",
    ),
    ("processor time of QEMU a session, start to end", "ms"),
];

/// Those of `QUANTITIES` that bare loops are measured for as well.
const PROCESSOR_TIMES: std::ops::Range<usize> = 4..6;

fn nothing_yet(sizes: &[usize], name: &'static str, quantities: usize) -> Vec<(usize, Measured)> {
    let nothing = || Measured {
        name,
        quantities: vec![Vec::new(); quantities],
    };
    sizes.iter().map(|&size| (size, nothing())).collect()
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let rounds = bench.rounds(2, 5);
    let sizes = bench.either(
        vec![1, 2, 5, FEW, 20, MANY],
        vec![1, 2, 5, FEW, 20, MANY, 100],
    );
    let mut measured = nothing_yet(&sizes, SESSION, QUANTITIES.len());
    let mut bare = nothing_yet(&sizes, BARE_TOKIO, PROCESSOR_TIMES.len());
    // Not counted: it fills caches.
    once(&bench.firmware, 1, Duration::ZERO)?;
    bare_loops(&bench.firmware, 1)?;
    for round in 0..rounds {
        for ((size, ours), (_, bare)) in measured.iter_mut().zip(&mut bare) {
            // Another one first in each round.
            let ours_first = round % 2 == 0;
            for ours_now in [ours_first, !ours_first] {
                if ours_now {
                    let figures =
                        once(&bench.firmware, *size, bench.either(SHORT_LOOK, LONG_LOOK))?;
                    ours.quantities
                        .iter_mut()
                        .zip(figures)
                        .for_each(|(all, figure)| all.push(figure));
                } else {
                    let figures = bare_loops(&bench.firmware, *size)?;
                    bare.quantities
                        .iter_mut()
                        .zip(figures)
                        .for_each(|(all, figure)| all.push(figure));
                }
            }
        }
    }
    let figures = |size, quantity| {
        let found = measured.iter().find(|(known, _)| *known == size)?;
        of(std::slice::from_ref(&found.1), SESSION, quantity)
    };
    let idle = figures(1, 3).and_then(Spread::of);
    report.aim("idle session, wake-ups a second", idle, Limit::AtMost(0.0));
    report.aim(
        "idle session, the controller's KiB",
        figures(MANY, 2).and_then(Spread::of),
        Limit::AtMost(64.0),
    );
    let each = |size: usize| {
        Some(
            figures(size, 0)?
                .iter()
                .map(|all| all / size as f64)
                .collect::<Vec<_>>(),
        )
    };
    let growth = each(MANY)
        .zip(each(FEW))
        .and_then(|(many, few)| Spread::of_ratios(&many, &few));
    report.aim(
        "50 sessions, time for each against 10 sessions",
        growth,
        Limit::AtMost(1.15),
    );
    let share = figures(MANY, 4)
        .zip(figures(MANY, 5))
        .and_then(|(own, qemu)| {
            Spread::of_ratios(&own.iter().map(|own| own * 100.0).collect::<Vec<_>>(), qemu)
        });
    report.aim(
        "50 sessions, the controller's processor time in % of QEMU's",
        share,
        Limit::AtMost(2.0),
    );
    for (size, subject) in SUBJECTS {
        for (_, measured) in measured.iter().filter(|(known, _)| *known == size) {
            report.rows(subject, &QUANTITIES, std::slice::from_ref(measured));
        }
        for (_, bare) in bare.iter().filter(|(known, _)| *known == size) {
            report.rows(
                subject,
                &QUANTITIES[PROCESSOR_TIMES],
                std::slice::from_ref(bare),
            );
        }
    }
    for (quantity, title, y) in [
        (0, "sessions at once: until all are ready", "ms"),
        (2, "sessions at once: memory", "KiB"),
    ] {
        let point = |(size, measured): &(usize, Measured)| {
            let median = Spread::of(&measured.quantities[quantity])?.median;
            // Memory was taken for each.
            Some((
                *size as f64,
                if quantity == 2 {
                    median * *size as f64
                } else {
                    median
                },
            ))
        };
        let points = measured.iter().filter_map(point).collect();
        report.curves.push(Curve {
            title,
            x: "sessions",
            y,
            who: SESSION.to_owned(),
            points,
        });
    }
    Ok(())
}

const SHORT_LOOK: Duration = Duration::from_millis(1500);
const LONG_LOOK: Duration = Duration::from_secs(5);

/// Starts so many at once, looks at them while nobody asks anything, and ends them.
fn once(firmware: &Path, size: usize, look: Duration) -> Result<Vec<f64>> {
    let runtime = runtime()?;
    let (cpu, qemu) = (own_seconds(), children_seconds());
    let since = Instant::now();
    let started = runtime.block_on(try_join_all((0..size).map(|_| async {
        let session = Session::start(config(firmware, true)).await?;
        anyhow::Ok((session, milliseconds(since)))
    })))?;
    let all = milliseconds(since);
    let (wakes, looking) = if look.is_zero() {
        (f64::NAN, 0.0)
    } else {
        // The runtime runs meanwhile, as it would in a program that waits for something else.
        let (looked, seen) = oneshot::channel();
        thread::spawn(move || looked.send((wake_ups(look), thread_seconds())));
        let (wakes, looking) = runtime.block_on(seen)?;
        (wakes? as f64 / look.as_secs_f64() / size as f64, looking)
    };
    let (sessions, mut times): (Vec<_>, Vec<_>) = started.into_iter().unzip();
    runtime.block_on(try_join_all(sessions.iter().map(Session::stop)))?;
    drop(sessions);
    let each = |seconds: f64| seconds * 1e3 / size as f64;
    // To look costs time too, more for more threads, and is not theirs.
    let cpu = each(own_seconds() - cpu - looking);
    let qemu = each(children_seconds() - qemu);
    times.sort_by(f64::total_cmp);
    let memory = memory(firmware, size)?;
    Ok(vec![all, times[times.len() / 2], memory, wakes, cpu, qemu])
}

/// The same life as [`once`] without the look, with the least that an async program does, and its
/// processes started as `std` starts them where a descriptor is passed on: by a fork.
fn bare_loops(firmware: &Path, size: usize) -> Result<Vec<f64>> {
    let runtime = runtime()?;
    let (cpu, qemu) = (own_seconds(), children_seconds());
    runtime.block_on(try_join_all((0..size).map(|_| async {
        let (mut machine, stream) = machine::over_pair(firmware, true)?;
        let mut bare = BareTokio::over(tokio_stream(stream)?, true, None).await?;
        bare.ask(r#"{"execute":"query-status"}"#, 1, 1).await?;
        bare.ask(r#"{"execute":"quit"}"#, 1, 1).await?;
        machine.wait()
    })))?;
    let each = |seconds: f64| seconds * 1e3 / size as f64;
    Ok(vec![
        each(own_seconds() - cpu),
        each(children_seconds() - qemu),
    ])
}

/// KiB a session, in a program of its own: this one has freed memory that it would use again.
fn memory(firmware: &Path, size: usize) -> Result<f64> {
    let mut alone = Command::new(std::env::current_exe()?);
    alone
        .arg("--firmware")
        .arg(firmware)
        .args(["--alone", ALONE, "--count", &size.to_string()]);
    let output = alone.output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// The name of this subject's part for a program of its own.
pub const ALONE: &str = "sessions";

/// Prints what this program's memory grows by for each of so many sessions.
pub fn alone(firmware: &Path, size: usize) -> Result<()> {
    let runtime = runtime()?;
    let start = || Session::start(config(firmware, true));
    // The first one brings along what is there once a program: the runtime's parts and
    // allocator arenas.
    let first = runtime.block_on(start())?;
    let before = own_memory_kib()?;
    let sessions = runtime.block_on(try_join_all((0..size).map(|_| start())))?;
    println!("{}", (own_memory_kib()? - before) / size as f64);
    runtime.block_on(try_join_all(
        sessions.iter().chain([&first]).map(Session::stop),
    ))?;
    Ok(())
}
