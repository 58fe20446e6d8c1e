//! `query-status`, one after the other and many in flight: rate, delay, processor time, system
//! calls.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::Bench;
use crate::machine::{self, Blocking};
use crate::peers::{
    self, BARE, BARE_PLAIN, BARE_TOKIO, BareTokio, PYTHON, QAPI, QAPI_SYNC, QMP, SESSION, runtime,
};
use crate::report::{Curve, Limit, Report};
use crate::stats::{Contender, Spread, percentile, take_turns};
use crate::usage::{own_seconds, system_calls};

const ASK: &str = r#"{"execute":"query-status","id":"12345678-1000"}"#;

/// Those that are measured here; the last is added where Python is there.
const NAMES: [&str; 7] = [SESSION, BARE, BARE_TOKIO, BARE_PLAIN, QAPI, QAPI_SYNC, QMP];

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let firmware = bench.firmware.as_path();
    // A few at a time, so that all see the same machine.
    let count = 200;
    let mut contenders = NAMES
        .iter()
        .map(|name| contender(name, firmware, count))
        .collect::<Result<Vec<_>>>()?;
    if let Some(python) = &bench.python {
        let ask = move || python.borrow_mut().ask("round_trips", firmware, count);
        contenders.push(Contender::new(PYTHON, ask));
    }
    let measured = take_turns(bench.rounds(30, 150), contenders)?;
    let quantities = [
        ("rate", "/s"),
        ("delay, median", "µs"),
        ("delay, 99 %", "µs"),
        ("processor time each", "µs"),
    ];
    report.rows("query-status, one by one", &quantities, &measured);
    let pair = (SESSION, BARE_TOKIO);
    report.ratio(
        "query_status round trips, against a bare tokio loop",
        &measured,
        pair,
        0,
        Limit::AtLeast(0.97),
    );
    report.ratio(
        "query_status processor time, against bare tokio",
        &measured,
        pair,
        3,
        Limit::AtMost(1.15),
    );
    calls(firmware, report);
    Ok(())
}

/// System calls, where `strace` is there.
fn calls(firmware: &Path, report: &mut Report) {
    let mut ours = None;
    for name in [SESSION, BARE, BARE_TOKIO, QAPI, QAPI_SYNC, QMP] {
        match system_calls(firmware, name) {
            Ok(calls) => {
                let subject = "query-status, one by one";
                report.row(subject, ("system calls each", ""), name, calls.all);
                report.row(subject, ("of which write", ""), name, calls.writes);
                if name == SESSION {
                    let writes = calls.writes;
                    ours = Some(Spread {
                        median: writes,
                        min: writes,
                        max: writes,
                    });
                }
            }
            Err(error) => report
                .left_out
                .push(format!("system calls of {name}: {error:#}")),
        }
    }
    report.aim("query_status, writes each", ours, Limit::AtMost(1.005));
}

/// One round of one contender, for `strace` or a profiler.
pub fn alone(name: &str, firmware: &Path, count: usize) -> Result<()> {
    let name = NAMES
        .iter()
        .find(|known| **known == name)
        .context("no such contender")?;
    (contender(name, firmware, count)?.round)().map(drop)
}

/// Starts a QEMU for it, which lives as long as the contender.
fn contender<'a>(name: &'static str, firmware: &'a Path, count: usize) -> Result<Contender<'a>> {
    let runtime = runtime()?;
    let in_pair = || machine::over_pair(firmware, true);
    Ok(match name {
        SESSION => {
            let session = runtime.block_on(peers::session(firmware))?;
            Contender::new(name, move || {
                runtime.block_on(timed(count, async || {
                    session.query_status().await?;
                    Ok(())
                }))
            })
        }
        BARE => {
            let (machine, stream) = in_pair()?;
            let mut client = Blocking::ready(stream)?;
            Contender::new(name, move || {
                let _alive = &machine;
                blocking(count, || client.ask(ASK).map(drop))
            })
        }
        BARE_TOKIO | BARE_PLAIN => {
            let mut bare = runtime.block_on(BareTokio::start(firmware, name == BARE_TOKIO))?;
            Contender::new(name, move || {
                runtime.block_on(timed(count, async || bare.ask(ASK, 1, 1).await))
            })
        }
        QAPI => {
            let (machine, service) = runtime.block_on(peers::qapi(firmware))?;
            Contender::new(name, move || {
                let _alive = &machine;
                runtime.block_on(timed(count, async || {
                    service.execute(qapi::qmp::query_status {}).await?;
                    Ok(())
                }))
            })
        }
        QAPI_SYNC => {
            let (machine, stream) = in_pair()?;
            let mut client = peers::qapi_sync_over(stream)?;
            Contender::new(name, move || {
                let _alive = &machine;
                blocking(count, || {
                    Ok(client.execute(&qapi::qmp::query_status {}).map(drop)?)
                })
            })
        }
        _ => {
            let (machine, path) = machine::over_unix(firmware, true)?;
            let client = runtime.block_on(peers::qmp_at(&path))?;
            Contender::new(name, move || {
                let _alive = &machine;
                runtime.block_on(timed(count, async || {
                    client
                        .execute::<(), serde_json::Value>("query-status", None)
                        .await?;
                    Ok(())
                }))
            })
        }
    })
}

async fn timed(count: usize, mut one: impl AsyncFnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut clock = Clock::start(count);
    for _ in 0..count {
        let since = Instant::now();
        one().await?;
        clock.delays.push(since.elapsed());
    }
    Ok(clock.figures())
}

fn blocking(count: usize, mut one: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut clock = Clock::start(count);
    for _ in 0..count {
        let since = Instant::now();
        one()?;
        clock.delays.push(since.elapsed());
    }
    Ok(clock.figures())
}

struct Clock {
    delays: Vec<Duration>,
    since: Instant,
    cpu: f64,
}

impl Clock {
    fn start(count: usize) -> Self {
        let delays = Vec::with_capacity(count);
        Self {
            delays,
            since: Instant::now(),
            cpu: own_seconds(),
        }
    }

    fn figures(self) -> Vec<f64> {
        let count = self.delays.len() as f64;
        let rate = count / self.since.elapsed().as_secs_f64();
        let cpu = (own_seconds() - self.cpu) * 1e6 / count;
        let mut delays: Vec<f64> = self
            .delays
            .iter()
            .map(|delay| delay.as_secs_f64() * 1e6)
            .collect();
        delays.sort_by(f64::total_cmp);
        vec![
            rate,
            percentile(&delays, 0.5),
            percentile(&delays, 0.99),
            cpu,
        ]
    }
}

/// The rate by how many commands are in flight.
pub fn in_flight(bench: &Bench, report: &mut Report) -> Result<()> {
    let firmware = bench.firmware.as_path();
    let count = 256;
    for (depth, subject) in [
        (1, None),
        (2, None),
        (4, None),
        (8, Some("query-status, 8 in flight")),
        (16, None),
        (32, None),
        (64, Some("query-status, 64 in flight")),
    ] {
        let rounds = if subject.is_some() {
            bench.rounds(20, 100)
        } else {
            bench.rounds(4, 20)
        };
        let measured = take_turns(rounds, pipelined(bench, firmware, depth, count)?)?;
        for measured in &measured {
            let Some(spread) = Spread::of(&measured.quantities[0]) else {
                continue;
            };
            let point = (depth as f64, spread.median);
            match report
                .curves
                .iter_mut()
                .find(|c| c.title == FLIGHT && c.who == measured.name)
            {
                Some(curve) => curve.points.push(point),
                None => report.curves.push(Curve {
                    title: FLIGHT,
                    x: "commands in flight",
                    y: "answers a second",
                    who: measured.name.to_owned(),
                    points: vec![point],
                }),
            }
        }
        let Some(subject) = subject else { continue };
        report.rows(subject, &[("rate", "/s")], &measured);
        if depth == 64 {
            let what = "64 in flight, against a bare pipelined loop";
            report.ratio(
                what,
                &measured,
                (SESSION, BARE_TOKIO),
                0,
                Limit::AtLeast(0.97),
            );
        }
    }
    Ok(())
}

const FLIGHT: &str = "query-status by commands in flight";

/// A QEMU for each; QEMU takes eight commands at once where out-of-band execution is on, so the
/// bare loop sends no more.
fn pipelined<'a>(
    bench: &'a Bench,
    firmware: &'a Path,
    depth: usize,
    count: usize,
) -> Result<Vec<Contender<'a>>> {
    let mut contenders = Vec::new();
    for (name, oob) in [(BARE_TOKIO, true), (BARE_PLAIN, false)] {
        let runtime = runtime()?;
        let mut bare = runtime.block_on(BareTokio::start(firmware, oob))?;
        let depth = if oob { depth.min(8) } else { depth };
        contenders.push(Contender::new(name, move || {
            runtime.block_on(async { rate(count, bare.ask(ASK, count, depth)).await })
        }));
    }
    let runtime_ours = runtime()?;
    let session = runtime_ours.block_on(peers::session(firmware))?;
    contenders.push(Contender::new(SESSION, move || {
        let one = |session: qemu_controller::Session| async move {
            Ok(session.query_status().await.map(drop)?)
        };
        runtime_ours.block_on(rate(count, callers(depth, count, session.clone(), one)))
    }));
    let runtime_qapi = runtime()?;
    let (machine, service) = runtime_qapi.block_on(peers::qapi(firmware))?;
    contenders.push(Contender::new(QAPI, move || {
        let _alive = &machine;
        let one = |service: peers::Qapi| async move {
            Ok(service
                .execute(qapi::qmp::query_status {})
                .await
                .map(drop)?)
        };
        runtime_qapi.block_on(rate(count, callers(depth, count, service.clone(), one)))
    }));
    let runtime_qmp = runtime()?;
    let (machine, path) = machine::over_unix(firmware, true)?;
    let client = runtime_qmp.block_on(peers::qmp_at(&path))?;
    contenders.push(Contender::new(QMP, move || {
        let _alive = &machine;
        let one = |client: qmp::Client| async move {
            Ok(client
                .execute::<(), serde_json::Value>("query-status", None)
                .await
                .map(drop)?)
        };
        runtime_qmp.block_on(rate(count, callers(depth, count, client.clone(), one)))
    }));
    if let Some(python) = &bench.python {
        let ask = move || {
            python
                .borrow_mut()
                .ask_at_once("in_flight", firmware, count, depth)
        };
        contenders.push(Contender::new(PYTHON, ask));
    }
    Ok(contenders)
}

async fn rate(count: usize, work: impl Future<Output = Result<()>>) -> Result<Vec<f64>> {
    let since = Instant::now();
    work.await?;
    Ok(vec![count as f64 / since.elapsed().as_secs_f64()])
}

/// So many tasks that share a client; each asks, waits, and asks again.
async fn callers<C, F>(depth: usize, count: usize, client: C, one: fn(C) -> F) -> Result<()>
where
    C: Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..depth {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in 0..count / depth {
                one(client.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}
