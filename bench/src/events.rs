//! Events, how many arrive and how fast: a flood from a scripted monitor, and of a guest that
//! resets itself in a loop.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use qemu_controller::Session;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

use crate::Bench;
use crate::machine::{self, PATIENCE};
use crate::peers::{
    self, BARE_TOKIO, BareTokio, PYTHON, QAPI, QMP, SESSION, runtime, tokio_stream,
};
use crate::report::{Limit, Report};
use crate::stats::{Contender, of, take_turns};

/// The flood's last event.
const LAST: &str = "POWERDOWN";

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = 200_000;
    let mut contenders = vec![
        Contender::new(SESSION, || over_pair(count, session)),
        Contender::new(BARE_TOKIO, || over_pair(count, bare)),
        Contender::new(QAPI, || over_pair(count, qapi)),
        Contender::new(QMP, || {
            let (folder, path) = listening(count)?;
            let flood = runtime()?.block_on(qmp(&path));
            drop(folder);
            figures(count, flood?)
        }),
    ];
    if let Some(python) = &bench.python {
        // It takes a second for what the others take in a blink.
        let count = count / 10;
        contenders.push(Contender::new(PYTHON, move || {
            let (_folder, path) = listening(count)?;
            python.borrow_mut().ask("events", &path, count)
        }));
    }
    let measured = take_turns(bench.rounds(3, 11), contenders)?;
    let quantities = [("rate", "thousand/s"), ("arrived", "%")];
    report.rows(
        "200,000 events from a scripted monitor (Python: 20,000)",
        &quantities,
        &measured,
    );
    let arrived = of(&measured, SESSION, 1).and_then(crate::stats::Spread::of);
    // Each round has to be without loss, not the median alone.
    let worst = arrived.map(|spread| crate::stats::Spread {
        median: spread.min,
        ..spread
    });
    report.aim(
        "events that arrive, of 200,000, in %",
        worst,
        Limit::AtLeast(100.0),
    );
    let what = "events, against a bare tokio loop with RawValue";
    report.ratio(
        what,
        &measured,
        (SESSION, BARE_TOKIO),
        0,
        Limit::AtLeast(0.7),
    );
    let firmware = bench.root.join(RESETS);
    let contenders = vec![
        Contender::new(SESSION, || {
            runtime()?.block_on(resets_of_session(&firmware))
        }),
        Contender::new(BARE_TOKIO, || {
            runtime()?.block_on(resets_of_bare(&firmware))
        }),
    ];
    let measured = take_turns(bench.rounds(3, 11), contenders)?;
    report.rows(
        "RESET of a guest that resets itself in a loop, 0.5 s (the session keeps a transcript)",
        &quantities,
        &measured,
    );
    Ok(())
}

/// A guest that asks for a reset as soon as it runs.
const RESETS: &str = "xtask/firmware/reset-request/reset-request.elf";

/// For how long it may.
const LOOP: Duration = Duration::from_millis(500);

/// Counts what is read from the monitor, before anything of the session has seen it.
#[derive(Clone, Default)]
struct Sent(Arc<AtomicUsize>);

impl Write for Sent {
    fn write(&mut self, entry: &[u8]) -> std::io::Result<usize> {
        let resets = memchr::memmem::find_iter(entry, br#""event": "RESET""#).count();
        self.0.fetch_add(resets, Ordering::Relaxed);
        Ok(entry.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Thousands a second, and how many of those that QEMU sent reached the subscriber.
async fn resets_of_session(firmware: &Path) -> Result<Vec<f64>> {
    let sent = Sent::default();
    let session =
        Session::start(peers::config(firmware, true).qmp_transcript_to(sent.clone())).await?;
    let mut events = session.events();
    let since = Instant::now();
    session.resume().await?;
    let mut arrived = 0;
    let count = async {
        while let Some(event) = events.next().await {
            arrived += usize::from(event.is_ok_and(|event| event.name == "RESET"));
        }
        Ok(())
    };
    let end = async {
        tokio::time::sleep(LOOP).await;
        session.pause().await?;
        let took = since.elapsed().as_secs_f64();
        session.stop().await?;
        anyhow::Ok(took)
    };
    let ((), took) = tokio::try_join!(count, end)?;
    let sent = sent.0.load(Ordering::Relaxed);
    Ok(vec![
        arrived as f64 / took / 1e3,
        arrived as f64 * 100.0 / sent as f64,
    ])
}

async fn resets_of_bare(firmware: &Path) -> Result<Vec<f64>> {
    let (_machine, stream) = machine::over_pair(firmware, true)?;
    let mut stream = BareTokio::over(tokio_stream(stream)?, true, None)
        .await?
        .into_stream();
    let (mut line, mut arrived, mut returned, mut asked) = (Vec::new(), 0, 0, false);
    let since = Instant::now();
    stream.get_mut().write_all(br#"{"execute":"cont"}"#).await?;
    while returned < 2 {
        line.clear();
        ensure!(
            stream.read_until(b'\n', &mut line).await? > 0,
            "the monitor closed"
        );
        let message: Message<'_> = serde_json::from_slice(&line)?;
        arrived += usize::from(message.event == Some("RESET"));
        returned += usize::from(message.returned.is_some());
        if !asked && since.elapsed() > LOOP {
            asked = true;
            stream.get_mut().write_all(br#"{"execute":"stop"}"#).await?;
        }
    }
    // All that is read is counted.
    Ok(vec![
        arrived as f64 / since.elapsed().as_secs_f64() / 1e3,
        100.0,
    ])
}

/// How long the flood took, and how many came.
type Flood = (f64, usize);

fn figures(count: usize, (seconds, arrived): Flood) -> Result<Vec<f64>> {
    Ok(vec![
        arrived as f64 / seconds / 1e3,
        arrived as f64 * 100.0 / count as f64,
    ])
}

fn over_pair(
    count: usize,
    client: impl AsyncFnOnce(tokio::net::UnixStream) -> Result<Flood>,
) -> Result<Vec<f64>> {
    let (ours, theirs) = UnixStream::pair()?;
    std::thread::spawn(move || serve(theirs, count));
    let flood = runtime()?.block_on(async { client(tokio_stream(ours)?).await })?;
    figures(count, flood)
}

/// A scripted monitor that listens, for one client.
fn listening(count: usize) -> Result<(tempfile::TempDir, std::path::PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("qmp");
    let listener = UnixListener::bind(&path)?;
    std::thread::spawn(move || serve(listener.accept()?.0, count));
    Ok((folder, path))
}

/// Greets, answers whatever is asked, and floods before it answers `cont`. Ends with the client.
fn serve(stream: UnixStream, count: usize) -> Result<()> {
    let mut writer = stream.try_clone()?;
    writer.write_all(GREETING.as_bytes())?;
    let flood = flood(count);
    for command in serde_json::Deserializer::from_reader(stream).into_iter::<Value>() {
        let command = command?;
        if command["execute"] == "cont" {
            writer.write_all(&flood)?;
        }
        let returned = match command["execute"].as_str() {
            Some("query-status") => {
                r#"{"status": "running", "singlestep": false, "running": true}"#
            }
            _ => "{}",
        };
        let id = command
            .get("id")
            .map_or_else(String::new, |id| format!(r#", "id": {id}"#));
        write!(writer, "{{\"return\": {returned}{id}}}\r\n")?;
    }
    Ok(())
}

const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \
    \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n";

/// As QEMU spells them.
fn flood(count: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..count {
        let name = match number {
            last if last + 1 == count => LAST,
            even if even % 2 == 0 => "STOP",
            _ => "RESUME",
        };
        let (seconds, micros) = (1_700_000_000 + number / 1000, number * 7919 % 1_000_000);
        let time = format!("{{\"seconds\": {seconds}, \"microseconds\": {micros}}}");
        // Writing to memory can't fail.
        let _ = write!(text, "{{\"timestamp\": {time}, \"event\": \"{name}\"}}\r\n");
    }
    text
}

async fn session(stream: tokio::net::UnixStream) -> Result<Flood> {
    let session = Session::attach_stream(stream, PATIENCE)
        .await?
        .with_deadline(PATIENCE);
    let mut events = session.events();
    let since = Instant::now();
    let count = async {
        let mut arrived = 0;
        while let Some(event) = events.next().await {
            // One that was missed is not among those that arrived.
            let Ok(event) = event else { continue };
            arrived += 1;
            if event.name == LAST {
                return Ok((since.elapsed().as_secs_f64(), arrived));
            }
        }
        anyhow::bail!("the session ended")
    };
    let (flood, answer) = tokio::join!(count, session.execute("cont", &()));
    answer?;
    flood
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "to be decoded is their purpose")]
struct Message<'a> {
    event: Option<&'a str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, rename = "return")]
    returned: Option<&'a RawValue>,
}

async fn bare(stream: tokio::net::UnixStream) -> Result<Flood> {
    let mut stream = BareTokio::over(stream, true, None).await?.into_stream();
    let since = Instant::now();
    stream.get_mut().write_all(br#"{"execute":"cont"}"#).await?;
    let (mut line, mut arrived, mut took) = (Vec::new(), 0, None);
    loop {
        line.clear();
        ensure!(
            stream.read_until(b'\n', &mut line).await? > 0,
            "the monitor closed"
        );
        let message: Message<'_> = serde_json::from_slice(&line)?;
        if let Some(event) = message.event {
            arrived += 1;
            if event == LAST {
                took = Some(since.elapsed().as_secs_f64());
            }
        } else if message.returned.is_some() {
            return Ok((took.context("the last event was lost")?, arrived));
        }
    }
}

async fn qapi(stream: tokio::net::UnixStream) -> Result<Flood> {
    let (service, mut events) = peers::qapi_over(stream).await?;
    let since = Instant::now();
    let count = async {
        let mut arrived = 0;
        while let Some(event) = events.next().await {
            arrived += 1;
            if matches!(event?, qapi::qmp::Event::POWERDOWN { .. }) {
                return Ok((since.elapsed().as_secs_f64(), arrived));
            }
        }
        anyhow::bail!("the stream ended")
    };
    // Who drops the reader loses the answer, so it is not waited for.
    tokio::select! {
        biased;
        flood = count => flood,
        Err(error) = service.execute(qapi::qmp::cont {}) => Err(error.into()),
    }
}

async fn qmp(path: &Path) -> Result<Flood> {
    let client = peers::qmp_at(path).await?;
    let mut events = client.events();
    let since = Instant::now();
    let count = async {
        let mut arrived = 0;
        loop {
            match events.recv().await {
                Ok(event) => {
                    arrived += 1;
                    if event.name == LAST {
                        return Ok((since.elapsed().as_secs_f64(), arrived));
                    }
                }
                Err(qmp::Error::EventLagged { .. }) => {}
                Err(error) => return Err(anyhow::Error::from(error)),
            }
        }
    };
    let (flood, answer) = tokio::join!(count, client.execute::<(), Value>("cont", None));
    answer?;
    flood
}
