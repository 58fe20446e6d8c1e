//! `cargo xtask soak`: what the tests do for a moment, for long; a table of figures, and a status.
//!
//! A process of its own does the work for each QEMU, with a folder of its own for temporary files,
//! so that what it leaves behind can be counted.

mod figures;
mod floods;
mod progress;
mod sessions;
mod suites;

use std::{
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use qemu_controller::{Endpoint, QemuConfig};
use tokio::process::Command;

use self::figures::{Row, table};
use crate::{
    interrupts::Interrupts,
    qemus::{Further, Variant},
    setup, workspace,
};

/// Do for long what the tests do for a moment; takes about half an hour for each QEMU
///
/// Exit status 0 when nothing failed, grew or was left behind. Half a minute with --quick.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to do [default: all but tests]
    parts: Vec<Part>,
    /// A twentieth of it
    #[arg(long)]
    quick: bool,
    /// How often `tests` runs everything
    #[arg(long, value_name = "N", default_value_t = 20)]
    times: u32,
    /// Keep so many processors busy meanwhile
    #[arg(long, value_name = "N", default_value_t = 0)]
    busy: usize,
    /// Install nothing: stop where QEMU is missing
    #[arg(long)]
    no_install: bool,
    #[command(flatten)]
    further: Further,
    /// Do the work in this process
    #[arg(long, hide = true)]
    here: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// A thousand starts and stops
    Cycles,
    /// Fifty sessions at once, twenty times over
    Fifty,
    /// A minute of RESET events
    Events,
    /// A minute of a serial port that prints without end
    Serial,
    /// A minute of a QEMU that logs to stderr without end
    Stderr,
    /// Two hundred connections to a monitor in a flood of events
    Connects,
    /// The tests in which QEMU is killed or stopped, ten times over
    Kills,
    /// The session's debugger: a thousand breakpoints over resets and loads, and its other tests
    Debugger,
    /// Each way in which a run of firmware ends, fifty times
    Verdicts,
    /// Each kind of save whose guest is stopped meanwhile, five hundred times
    Stops,
    /// Four minutes of a random walk over the session's verbs
    Walk,
    /// `cargo xtask test`, again and again
    Tests,
}

impl Args {
    fn parts(&self) -> Vec<Part> {
        if !self.parts.is_empty() {
            return self.parts.clone();
        }
        let all = Part::value_variants().iter().copied();
        all.filter(|part| *part != Part::Tests).collect()
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    for _ in 0..args.busy {
        std::thread::spawn(|| while std::hint::black_box(true) {});
    }
    if args.here {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        return runtime.block_on(work(&args));
    }
    setup::ensure_qemu(args.no_install)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut status = ExitCode::SUCCESS;
        let mut interrupts = Interrupts::listen()?;
        for qemu in args.further.variants()? {
            println!("==> soak on QEMU {}", qemu.version);
            match elsewhere(&args, &qemu, &mut interrupts).await? {
                Some(0) => {}
                Some(failed) => status = ExitCode::from(failed),
                None => status = ExitCode::FAILURE,
            }
        }
        Ok(status)
    })
}

/// The work, in a process of its own that finds this QEMU; its exit status.
async fn elsewhere(
    args: &Args,
    qemu: &Variant,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Option<u8>> {
    let temporary = tempfile::tempdir()?;
    let names = args
        .parts()
        .into_iter()
        .filter_map(|part| part.to_possible_value());
    let mut child = Command::new(std::env::current_exe()?)
        .args(["soak", "--here", "--times", &args.times.to_string()])
        .args(args.quick.then_some("--quick"))
        .args(names.map(|name| name.get_name().to_owned()))
        .envs(qemu.environment())
        .env_remove("QEMU_MATRIX")
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run this program again")?;
    tokio::select! {
        status = child.wait() => Ok(status?.code().and_then(|code| u8::try_from(code).ok())),
        // Its QEMUs end with it.
        status = interrupts.next() => {
            child.kill().await?;
            drop(temporary);
            std::process::exit(status.into())
        }
    }
}

async fn work(args: &Args) -> anyhow::Result<ExitCode> {
    // What is made once and stays, the runtime's descriptors for example, is made here.
    let session = qemu_controller::Session::start(config("tick")).await?;
    session.stop().await?;
    let mut rows = Vec::new();
    for part in args.parts() {
        let row = do_part(part, args).await;
        let name = format!("{part:?}").to_lowercase();
        rows.push(row.unwrap_or_else(|error| Row::failed(&name, &error)));
    }
    println!("\n{}", table(&rows));
    let faults: Vec<_> = rows.iter().flat_map(Row::faults).collect();
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn do_part(part: Part, args: &Args) -> anyhow::Result<Row> {
    let pick = |long, short| if args.quick { short } else { long };
    let flood = Duration::from_secs(pick(60, 3));
    let suite = |words: &[&str]| suites::session_tests(words, !args.quick);
    match part {
        Part::Cycles => sessions::cycles(pick(1000, 50)).await,
        Part::Fifty => sessions::fifty(pick(20, 1)).await,
        Part::Events => floods::events(flood).await,
        Part::Serial => floods::serial(flood).await,
        Part::Stderr => floods::stderr(flood).await,
        Part::Connects => sessions::connects(pick(200, 20)).await,
        Part::Kills => {
            let tests = suite(&["kill_matrix", "snapshots::killed", "forks::killed"]);
            suites::again("kills", pick(10, 1), tests).await
        }
        Part::Debugger => suites::again("debugger", 1, suite(&["debugger"])).await,
        Part::Verdicts => suites::again("verdicts", 1, suite(&["verdicts"])).await,
        Part::Stops => suites::again("stops", 1, suite(&["snapshots::stopped"])).await,
        Part::Walk => suites::again("walk", 1, suite(&["walk"])).await,
        Part::Tests => suites::again("tests", args.times.into(), suites::all_tests()?).await,
    }
}

/// How long anything may take: out of reach of a busy machine, but an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The default board with one of our images.
fn config(image: &str) -> QemuConfig {
    QemuConfig::default()
        .firmware(workspace::root().join(format!("xtask/firmware/{image}/{image}.elf")))
        .gdb(Endpoint::free_port())
        .start_deadline(PATIENCE)
        .command_deadline(PATIENCE)
        .stop_policy(PATIENCE, PATIENCE, PATIENCE)
}
