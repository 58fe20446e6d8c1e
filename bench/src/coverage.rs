//! A run with coverage beside the same run without: of one that is over at once, and of one that
//! takes a while.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use qemu_controller::{QemuConfig, Semihosting, Session};

use crate::Bench;
use crate::peers::runtime;
use crate::report::{Limit, Report};
use crate::stats::{Contender, milliseconds, take_turns};

const WITHOUT: &str = "qemu-controller";
const LOG: &str = "qemu-controller, with coverage, not read";
const WITH: &str = "qemu-controller, with coverage as lcov";
const BARE: &str = "bare QEMU, its exit waited for";

/// No run takes as long.
const DEADLINE: Duration = Duration::from_secs(60);

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let short = bench
        .root
        .join("qemu-controller/fixtures/coverage/rust-debug.elf");
    let image = |subject, image: &Path, report: &mut Report| measure(bench, report, subject, image);
    image("coverage, a run of some ms", &short, report)?;
    let tests = bench
        .root
        .join("qemu-controller/fixtures/defmt/semihosting.elf");
    image("coverage, a run with 20,000 lines", &tests, report)
}

fn measure(bench: &Bench, report: &mut Report, subject: &'static str, image: &Path) -> Result<()> {
    let runtime = runtime()?;
    let ours = |records: bool, reads: bool| {
        let runtime = &runtime;
        move || {
            let since = Instant::now();
            runtime.block_on(one(image, records, reads))?;
            Ok(vec![milliseconds(since)])
        }
    };
    let contenders = vec![
        Contender::new(WITHOUT, ours(false, false)),
        Contender::new(LOG, ours(true, false)),
        Contender::new(WITH, ours(true, true)),
        Contender::new(BARE, || bare(image)),
    ];
    let measured = take_turns(bench.rounds(5, 20), contenders)?;
    report.rows(subject, &[("whole run", "ms")], &measured);
    let what = format!("{subject}: with coverage against without");
    report.ratio(&what, &measured, (WITH, WITHOUT), 0, Limit::AtMost(1.15));
    Ok(())
}

fn words() -> Semihosting {
    let words = ["firmware", "flood", "20000"];
    words
        .into_iter()
        .fold(Semihosting::console(), Semihosting::argument)
}

async fn one(image: &Path, records: bool, reads: bool) -> Result<()> {
    let config = QemuConfig::default().firmware(image).semihosting(words());
    let session = Session::start(config.coverage(records).start_paused(true)).await?;
    // As the program does: the lines are read beside the run.
    let other = session.clone();
    let lines = reads.then(|| tokio::spawn(async move { other.source_map().await }));
    let verdict = session.run_to_end(DEADLINE).await;
    ensure!(verdict.success(), "{verdict}");
    session.stop().await?;
    if let Some(lines) = lines {
        let coverage = lines.await??.coverage(&session.executed_code()?);
        ensure!(coverage.totals().lines_hit > 0, "nothing ran");
        coverage.to_lcov(std::io::sink())?;
    }
    Ok(())
}

fn bare(image: &Path) -> Result<Vec<f64>> {
    let options = "-nodefaults -display none -serial null -machine lm3s6965evb -semihosting-config \
        enable=on,target=native,arg=firmware,arg=flood,arg=20000 -kernel";
    let mut qemu = Command::new("qemu-system-arm");
    qemu.args(options.split_whitespace()).arg(image);
    qemu.stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let since = Instant::now();
    let status = qemu.status()?;
    ensure!(status.success(), "QEMU: {status}");
    Ok(vec![milliseconds(since)])
}
