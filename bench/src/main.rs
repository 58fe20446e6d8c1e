//! Measures the project beside its peers and the practical limit: `cargo xtask bench` builds and
//! runs this.

mod coverage;
mod debugger;
mod decode;
mod dependencies;
mod events;
mod hands;
mod logs;
mod machine;
mod peers;
mod plot;
mod python;
mod ready;
mod report;
mod round_trips;
mod sessions;
mod snapshots;
mod source;
mod stats;
mod stub;
mod tests;
mod usage;

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use python::Python;
use report::Report;

/// Measure the project beside its peers and the practical limit
#[derive(clap::Parser)]
struct Args {
    /// Fewer rounds, and no builds: under two minutes
    #[arg(long)]
    quick: bool,
    /// Only these subjects
    #[arg(value_name = "SUBJECT")]
    subjects: Vec<String>,
    /// The firmware that all machines get
    #[arg(long)]
    firmware: PathBuf,
    /// Where results.json, table.md and the plots go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// A Python that has the packages qemu.qmp and pygdbmi
    #[arg(long)]
    python: Option<PathBuf>,
    /// The program `qemu-controller`
    #[arg(long)]
    program: Option<PathBuf>,
    /// One round of one contender, for strace or a profiler: a client's name for round trips, a
    /// decoder's, or `sessions` for the memory that each takes
    #[arg(long, conflicts_with = "subjects")]
    alone: Option<String>,
    /// How much of it
    #[arg(long, default_value_t = 1000, requires = "alone")]
    count: usize,
    /// For a decoder: in pieces of so many bytes; whole without
    #[arg(long, requires = "alone")]
    piece: Option<usize>,
    /// For a decoder: `mixed` or `schema`
    #[arg(long, default_value = "mixed", requires = "alone")]
    stream: String,
}

/// What the subjects need to know.
pub struct Bench {
    pub quick: bool,
    pub firmware: PathBuf,
    pub python: Option<RefCell<Python>>,
    /// The same, for a script of its own.
    pub python_path: Option<PathBuf>,
    /// The program `qemu-controller`.
    pub program: Option<PathBuf>,
    /// The project's folder.
    pub root: PathBuf,
    pub out: PathBuf,
}

impl Bench {
    pub fn either<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    pub fn rounds(&self, quick: usize, full: usize) -> usize {
        self.either(quick, full)
    }
}

type Subject = (&'static str, fn(&Bench, &mut Report) -> Result<()>);

const SUBJECTS: [Subject; 15] = [
    ("ready", ready::run),
    ("life", ready::life),
    ("round-trips", round_trips::run),
    ("in-flight", round_trips::in_flight),
    ("events", events::run),
    ("decode", decode::run),
    ("snapshots", snapshots::run),
    ("debugger", debugger::run),
    ("sessions", sessions::run),
    ("tests", tests::run),
    ("logs", logs::run),
    ("coverage", coverage::run),
    ("source", source::run),
    ("hands", hands::run),
    ("dependencies", dependencies::run),
];

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(name) = &args.alone {
        if decode::alone(
            name,
            args.count,
            args.piece.unwrap_or(usize::MAX),
            &args.stream,
        )? {
            return Ok(());
        }
        if name == sessions::ALONE {
            return sessions::alone(&args.firmware, args.count);
        }
        return round_trips::alone(name, &args.firmware, args.count);
    }
    if let Some(unknown) = args
        .subjects
        .iter()
        .find(|s| SUBJECTS.iter().all(|(name, _)| name != s))
    {
        bail!(
            "no subject {unknown}; there are {}",
            SUBJECTS.map(|(name, _)| name).join(", ")
        );
    }
    fs::create_dir_all(&args.out)?;
    let mut report = Report::default();
    let python = args
        .python
        .as_deref()
        .map(Python::start)
        .transpose()
        .unwrap_or_else(|error| {
            report
                .left_out
                .push(format!("the Python package qemu.qmp: {error:#}"));
            None
        });
    let bench = Bench {
        quick: args.quick,
        firmware: fs::canonicalize(&args.firmware)
            .with_context(|| args.firmware.display().to_string())?,
        python: python.map(RefCell::new),
        python_path: args
            .python
            .as_deref()
            .map(std::path::absolute)
            .transpose()?,
        program: args
            .program
            .as_deref()
            .map(std::path::absolute)
            .transpose()?,
        root: fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))?,
        out: fs::canonicalize(&args.out)?,
    };
    report.conditions = conditions(&bench)?;
    let wanted =
        |name: &str| args.subjects.is_empty() || args.subjects.iter().any(|wanted| wanted == name);
    for (name, run) in SUBJECTS.into_iter().filter(|(name, _)| wanted(name)) {
        eprintln!("measuring {name} ...");
        if let Err(error) = run(&bench, &mut report) {
            eprintln!("{name}: {error:#}");
            report
                .left_out
                .push(format!("{name}, or what is left of it: {error:#}"));
        }
    }
    report
        .conditions
        .push(format!("load at the end {}", load()?));
    let table = report.markdown();
    println!("{table}");
    fs::write(bench.out.join("table.md"), &table)?;
    fs::write(
        bench.out.join("results.json"),
        serde_json::to_string_pretty(&report)?,
    )?;
    let plots = plot::draw(&report, &bench.out)?;
    println!(
        "results.json, table.md and {} plots are in {}",
        plots.len(),
        args.out.display()
    );
    Ok(())
}

/// Under what circumstances it was measured.
fn conditions(bench: &Bench) -> Result<Vec<String>> {
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program)
            .arg(argument)
            .output()
            .with_context(|| program.to_owned())?;
        anyhow::Ok(
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    Ok(vec![
        first_line("qemu-system-arm", "--version")?,
        first_line("rustc", "--version")?,
        format!("{} processors", std::thread::available_parallelism()?),
        format!(
            "{} rounds",
            bench.either("few (--quick)", "the full number of")
        ),
        format!("load at the start {}", load()?),
    ])
}

/// Programs that wanted a processor, on average over the last minute.
fn load() -> Result<String> {
    Ok(fs::read_to_string("/proc/loadavg")?
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned())
}
