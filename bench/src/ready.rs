//! From the call to a ready session: greeting, negotiation, an answered `query-status`; and a whole
//! life.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use qemu_controller::{Endpoint, QemuConfig, Session};

use crate::Bench;
use crate::machine::{self, Blocking};
use crate::peers::{self, PYTHON, QAPI, QAPI_SYNC, QMP, SESSION, runtime};
use crate::report::{Limit, Report};
use crate::stats::{Contender, Measured, milliseconds, take_turns};

const PAIR: &str = "qemu-controller, socket pair";
const UNIX: &str = "qemu-controller, unix socket";
const TCP: &str = "qemu-controller, TCP";
const BARE_PAIR: &str = "bare loop, socket pair";
const SPIN_UNIX: &str = "bare loop that spins, unix socket";
const SPIN_TCP: &str = "bare loop that spins, TCP";
const SLEEP: &str = "spawn, sleep 0.5 s, connect over TCP";
const QAPI_RETRY: &str = "qapi 0.15, tokio, tried every 10 ms";
const QMP_RETRY: &str = "qmp 0.1.1, tried every 10 ms";

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let firmware = bench.firmware.as_path();
    let mut contenders = vec![
        Contender::new(PAIR, || session(firmware, |config| config)),
        Contender::new(BARE_PAIR, || {
            timed(|| {
                let (machine, stream) = machine::over_pair(firmware, false)?;
                Ok((machine, Blocking::ready(stream)?))
            })
        }),
        Contender::new(UNIX, || {
            session(firmware, |config| config.qmp(Endpoint::PrivateSocket))
        }),
        Contender::new(SPIN_UNIX, || {
            timed(|| {
                let (machine, path) = machine::over_unix(firmware, false)?;
                Ok((
                    machine,
                    Blocking::ready(spin(|| std::os::unix::net::UnixStream::connect(&path)))?,
                ))
            })
        }),
        Contender::new(TCP, || {
            let port = machine::free_port()?.port();
            session(firmware, |config| config.qmp(Endpoint::loopback(port)))
        }),
        Contender::new(SPIN_TCP, || {
            timed(|| {
                let (machine, address) = machine::over_tcp(firmware, false)?;
                Ok((machine, Blocking::ready(spin(|| machine::tcp(address)))?))
            })
        }),
        Contender::new(QAPI_RETRY, || {
            let runtime = runtime()?;
            timed(|| {
                let (machine, path) = machine::over_unix(firmware, false)?;
                let client = runtime.block_on(async {
                    let stream =
                        peers::retry(async || Ok(tokio::net::UnixStream::connect(&path).await?))
                            .await?;
                    let (service, events) = peers::qapi_over(stream).await?;
                    events.spawn_tokio();
                    service.execute(qapi::qmp::query_status {}).await?;
                    anyhow::Ok(service)
                })?;
                Ok((machine, client))
            })
        }),
        Contender::new(QMP_RETRY, || {
            let runtime = runtime()?;
            timed(|| {
                let (machine, path) = machine::over_unix(firmware, false)?;
                let client = runtime.block_on(async {
                    let client = peers::qmp_at(&path).await?;
                    client
                        .execute::<(), serde_json::Value>("query-status", None)
                        .await?;
                    anyhow::Ok(client)
                })?;
                Ok((machine, client))
            })
        }),
        Contender::new(SLEEP, || {
            timed(|| {
                let (machine, address) = machine::as_often_seen(firmware)?;
                Ok((machine, Blocking::ready(slept(address)?)?))
            })
        }),
    ];
    if let Some(python) = &bench.python {
        contenders.push(Contender::new(PYTHON, move || {
            python.borrow_mut().ask("ready", firmware, 0)
        }));
    }
    let measured = take_turns(bench.rounds(8, 40), contenders)?;
    report.rows("start to ready", &[("time", "ms")], &measured);
    let mut ratio = |what, pair, limit| report.ratio(what, &measured, pair, 0, limit);
    ratio(
        "start to ready over a socket pair, against a bare loop",
        (PAIR, BARE_PAIR),
        Limit::AtMost(1.05),
    );
    ratio(
        "start to ready, how many times faster than a fixed sleep",
        (SLEEP, PAIR),
        Limit::AtLeast(10.0),
    );
    ratio(
        "start to ready over a unix socket, against a loop that spins",
        (UNIX, SPIN_UNIX),
        Limit::AtMost(1.15),
    );
    ratio(
        "start to ready over TCP, against a loop that spins",
        (TCP, SPIN_TCP),
        Limit::AtMost(1.15),
    );
    Ok(())
}

/// Start, status, resume, pause, stop, reaped.
pub fn life(bench: &Bench, report: &mut Report) -> Result<()> {
    let firmware = bench.firmware.as_path();
    let mut contenders = vec![
        Contender::new(SESSION, || {
            let runtime = runtime()?;
            let since = Instant::now();
            runtime.block_on(async {
                let session = Session::start(peers::config(firmware, true)).await?;
                session.query_status().await?;
                session.resume().await?;
                session.pause().await?;
                session.stop().await?;
                anyhow::Ok(())
            })?;
            Ok(vec![milliseconds(since)])
        }),
        Contender::new(peers::BARE, || {
            let since = Instant::now();
            let (mut machine, stream) = machine::over_pair(firmware, true)?;
            let mut client = Blocking::ready(stream)?;
            for command in ["query-status", "cont", "stop", "quit"] {
                client.ask(&format!(r#"{{"execute":"{command}"}}"#))?;
            }
            machine.wait()?;
            Ok(vec![milliseconds(since)])
        }),
        Contender::new(QAPI_SYNC, || {
            let since = Instant::now();
            let (mut machine, stream) = machine::over_pair(firmware, true)?;
            let mut client = peers::qapi_sync_over(stream)?;
            client.execute(&qapi::qmp::query_status {})?;
            client.execute(&qapi::qmp::cont {})?;
            client.execute(&qapi::qmp::stop {})?;
            client.execute(&qapi::qmp::quit {})?;
            machine.wait()?;
            Ok(vec![milliseconds(since)])
        }),
        Contender::new(QAPI, || {
            let runtime = runtime()?;
            let since = Instant::now();
            runtime.block_on(async {
                let (mut machine, client) = peers::qapi(firmware).await?;
                client.execute(qapi::qmp::query_status {}).await?;
                client.execute(qapi::qmp::cont {}).await?;
                client.execute(qapi::qmp::stop {}).await?;
                client.execute(qapi::qmp::quit {}).await?;
                machine.wait()
            })?;
            Ok(vec![milliseconds(since)])
        }),
        Contender::new(QMP, || {
            let runtime = runtime()?;
            let since = Instant::now();
            let (mut machine, path) = machine::over_unix(firmware, true)?;
            runtime.block_on(async {
                let client = peers::qmp_at(&path).await?;
                for command in ["query-status", "cont", "stop", "quit"] {
                    client
                        .execute::<(), serde_json::Value>(command, None)
                        .await?;
                }
                anyhow::Ok(())
            })?;
            machine.wait()?;
            Ok(vec![milliseconds(since)])
        }),
    ];
    if let Some(python) = &bench.python {
        contenders.push(Contender::new(PYTHON, move || {
            python.borrow_mut().ask("life", firmware, 0)
        }));
    }
    let measured: Vec<Measured> = take_turns(bench.rounds(8, 40), contenders)?;
    report.rows(
        "whole life: start, status, resume, pause, stop, reaped",
        &[("time", "ms")],
        &measured,
    );
    Ok(())
}

/// Until it is ready; the end of it does not count.
fn timed<T>(start: impl FnOnce() -> Result<T>) -> Result<Vec<f64>> {
    let since = Instant::now();
    let started = start()?;
    let ready = milliseconds(since);
    drop(started);
    Ok(vec![ready])
}

fn session(firmware: &Path, change: impl FnOnce(QemuConfig) -> QemuConfig) -> Result<Vec<f64>> {
    let runtime = runtime()?;
    let since = Instant::now();
    let session = runtime.block_on(Session::start(change(peers::config(firmware, false))))?;
    let ready = milliseconds(since);
    runtime.block_on(session.stop())?;
    Ok(vec![ready])
}

/// Tries without a pause.
fn spin<S>(mut connect: impl FnMut() -> std::io::Result<S>) -> S {
    loop {
        if let Ok(stream) = connect() {
            return stream;
        }
    }
}

fn slept(address: SocketAddr) -> Result<std::net::TcpStream> {
    std::thread::sleep(Duration::from_millis(500));
    Ok(machine::tcp(address)?)
}
