//! What a firmware says at full speed: defmt over RTT, semihosting and a UART, text over RTT, beside
//! the UART alone; and decoding defmt's frames beside `defmt-print`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use qemu_controller::defmt::{Decoded, Decoder, Log};
use qemu_controller::rtt::Rtt;
use qemu_controller::{QemuConfig, Semihosting, Serial, Session};
use tokio::time::timeout;

use crate::Bench;
use crate::peers::runtime;
use crate::report::{Limit, Report};
use crate::stats::{Contender, take_turns};

const UART: &str = "UART, text";
const DEFMT_RTT: &str = "RTT, defmt-rtt, decoded";
const RTT_TARGET: &str = "RTT, rtt-target, decoded";
const TEXT_RTT: &str = "RTT, C with a ring of 256 bytes, text";
const DEFMT_UART: &str = "UART, defmt, decoded";
const DEFMT_SEMIHOSTING: &str = "semihosting, defmt, decoded";
const OURS: &str = "qemu-controller";
const DEFMT_PRINT: &str = "defmt-print, its start included";

/// No line takes as long.
const DEADLINE: Duration = Duration::from_secs(30);

/// So much is recorded.
const RECORDED_BYTES: usize = 128 * 1024;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let runtime = runtime()?;
    let lasts = bench.either(Duration::from_millis(500), Duration::from_secs(3));
    let defmt = |way: &'static str| {
        let image = bench
            .root
            .join(format!("qemu-controller/fixtures/defmt/{way}.elf"));
        let runtime = &runtime;
        move || Ok(vec![runtime.block_on(lines(&image, way, lasts))?])
    };
    let flood = bench.root.join("xtask/firmware/uart-flood/uart-flood.elf");
    let c = bench.root.join("qemu-controller/fixtures/rtt/rtt.elf");
    let contenders = vec![
        Contender::new(UART, || Ok(vec![runtime.block_on(uart(&flood, lasts))?])),
        Contender::new(DEFMT_RTT, defmt("rtt")),
        Contender::new(RTT_TARGET, defmt("rtt-target")),
        Contender::new(DEFMT_UART, defmt("uart")),
        Contender::new(DEFMT_SEMIHOSTING, defmt("semihosting")),
        Contender::new(TEXT_RTT, || Ok(vec![runtime.block_on(text(&c, lasts))?])),
    ];
    let measured = take_turns(bench.rounds(1, 5), contenders)?;
    report.rows("logs", &[("text", "KB/s")], &measured);
    let elf = bench.root.join("qemu-controller/fixtures/defmt/rtt.elf");
    let frames = runtime.block_on(record(&elf))?;
    // So often that a program's start counts little.
    let times = bench.either(2, 40);
    decoding(bench, report, &elf, &frames.repeat(times))
}

fn kilobytes(bytes: usize, since: Instant) -> f64 {
    bytes as f64 / 1024.0 / since.elapsed().as_secs_f64()
}

/// The firmware that logs by defmt without end, and the port that it does so on.
async fn start(image: &Path, way: &str) -> Result<(Session, Serial)> {
    let words = ["logs", "flood", "100000000"];
    let console = words
        .into_iter()
        .fold(Semihosting::console(), Semihosting::argument);
    let rtt = Rtt::default().lossless().blocking(0);
    let config = QemuConfig::default().firmware(image).semihosting(console);
    let session = Session::start(config.rtt(rtt)).await?;
    let port = match way {
        "uart" => session.serial(0).context("the UART")?.clone(),
        "semihosting" => session.semihosting().context("the console")?.clone(),
        "rtt" => session.rtt(0)?,
        _ => session.rtt(2)?,
    };
    Ok((session, port))
}

/// How much text its lines are a second, each of them there.
async fn lines(image: &Path, way: &str, lasts: Duration) -> Result<f64> {
    let (session, port) = start(image, way).await?;
    let decoder = Decoder::new(&fs::read(image)?)?.context("the fixture logs by defmt")?;
    let mut log = Log::new(&port, decoder);
    let mut last = settled(&mut log).await?;
    let (since, mut bytes) = (Instant::now(), 0);
    while since.elapsed() < lasts {
        let next = timeout(DEADLINE, log.next()).await?;
        let Some(Decoded::Line(line)) = next else {
            anyhow::bail!("no line follows line {last}");
        };
        ensure!(
            number(&line.message)? == last + 1,
            "a line is missing behind {last}"
        );
        last += 1;
        bytes += line.text.len() + 1;
    }
    let rate = kilobytes(bytes, since);
    session.stop().await?;
    Ok(rate)
}

/// Reads until a thousand lines have come in a row, and gives the number of the last one: what
/// defmt-rtt overwrote before its control block was found is damaged.
async fn settled(log: &mut Log) -> Result<u64> {
    let (mut last, mut in_a_row) = (0, 0);
    while in_a_row < 1000 {
        let next = timeout(DEADLINE, log.next()).await?;
        in_a_row = match next.context("the log is over")? {
            Decoded::Line(line) if line.message.starts_with("flood ") => {
                last = number(&line.message)?;
                in_a_row + 1
            }
            _ => 0,
        };
    }
    Ok(last)
}

fn number(message: &str) -> Result<u64> {
    let number = message.split(' ').nth(1).context("no number")?;
    Ok(number.parse()?)
}

async fn uart(image: &Path, lasts: Duration) -> Result<f64> {
    let session = Session::start(QemuConfig::default().firmware(image)).await?;
    let port = session.serial(0).context("the UART")?;
    port.expect("flood 0\n").await?;
    let (since, mut bytes) = (Instant::now(), 0);
    while since.elapsed() < lasts {
        bytes += port.line().await?.len() + 1;
    }
    let rate = kilobytes(bytes, since);
    session.stop().await?;
    Ok(rate)
}

async fn text(image: &Path, lasts: Duration) -> Result<f64> {
    let config = QemuConfig::default().firmware(image).rtt(Rtt::default());
    let session = Session::start(config).await?;
    let port = session.rtt(0)?;
    port.expect("boot 00000001\n").await?;
    let (since, mut bytes) = (Instant::now(), 0);
    port.write(b"F").await?;
    while since.elapsed() < lasts {
        bytes += port.line().await?.len() + 1;
    }
    let rate = kilobytes(bytes, since);
    session.stop().await?;
    Ok(rate)
}

/// Whole frames, as they come.
async fn record(image: &Path) -> Result<Vec<u8>> {
    let (session, port) = start(image, "rtt").await?;
    let mut frames = Vec::new();
    let since = Instant::now();
    while frames.len() < 2 * RECORDED_BYTES {
        ensure!(since.elapsed() < DEADLINE, "the firmware says too little");
        frames.extend(port.take());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    session.stop().await?;
    // Of what came first some was overwritten before the control block was found.
    frames.drain(..RECORDED_BYTES);
    let first = frames
        .iter()
        .position(|&byte| byte == 0)
        .map_or(0, |end| end + 1);
    let last = frames
        .iter()
        .rposition(|&byte| byte == 0)
        .map_or(0, |end| end + 1);
    Ok(frames[first..last].to_vec())
}

fn decoding(bench: &Bench, report: &mut Report, elf: &Path, frames: &[u8]) -> Result<()> {
    let path = &bench.out.join("frames.bin");
    fs::write(path, frames)?;
    let rate = |since: Instant| frames.len() as f64 / 1024.0 / since.elapsed().as_secs_f64();
    let bytes = fs::read(elf)?;
    let mut contenders = vec![Contender::new(OURS, || {
        let since = Instant::now();
        let decoder = Decoder::new(&bytes)?.context("the fixture logs by defmt")?;
        let mut decoder = decoder.log_format("{t} {L} {s}")?;
        let mut written = 0;
        for piece in frames.chunks(16 * 1024) {
            for decoded in decoder.push(piece) {
                ensure!(matches!(decoded, Decoded::Line(_)), "{decoded}");
                written += decoded.to_string().len();
            }
        }
        ensure!(written > frames.len(), "nothing was decoded");
        Ok(vec![rate(since)])
    })];
    match in_path("defmt-print") {
        Some(program) => contenders.push(Contender::new(DEFMT_PRINT, move || {
            let (since, mut print) = (Instant::now(), Command::new(&program));
            print.args(["--log-format", "{t} {L} {s}", "-e"]).arg(elf);
            print.stdin(File::open(path)?).stdout(Stdio::null());
            let status = print.status()?;
            ensure!(status.success(), "defmt-print: {status}");
            Ok(vec![rate(since)])
        })),
        None => report.left_out.push(
            "decoding by defmt-print, which is not in PATH: cargo install defmt-print".to_owned(),
        ),
    }
    let measured = take_turns(bench.rounds(2, 8), contenders)?;
    report.rows("logs, decoding", &[("frames", "KB/s")], &measured);
    let what = "decoding defmt, how many times defmt-print";
    report.ratio(what, &measured, (OURS, DEFMT_PRINT), 0, Limit::AtLeast(1.0));
    Ok(())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    places.find(|place| place.is_file())
}
