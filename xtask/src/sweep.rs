//! `cargo xtask sweep`: what a session can do on each machine of the installed QEMUs; a table, and a
//! status.

mod machine;
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use qemu_launch::discover::{FindError, Qemu};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::machine::Row;
use crate::qemus::Further;
use crate::workspace;

/// The targets whose boards people put firmware on, and a word of machine code that goes nowhere.
const TARGETS: [Target; 14] = [
    target("arm", &ARM),
    target("aarch64", &[0, 0, 0, 0x14]),
    target("riscv32", &[0x6f, 0, 0, 0]),
    target("riscv64", &[0x6f, 0, 0, 0]),
    target("avr", &[0xff, 0xcf]),
    target("m68k", &[0x60, 0xfe]),
    target("mips", &[0x10, 0, 0xff, 0xff, 0, 0, 0, 0]),
    target("mipsel", &[0xff, 0xff, 0, 0x10, 0, 0, 0, 0]),
    target("xtensa", &[0x06, 0xff, 0xff]),
    target("microblaze", &[0xb8, 0, 0, 0]),
    target("or1k", &[0, 0, 0, 0, 0x15, 0, 0, 0]),
    target("sh4", &[0xfe, 0xaf, 0x09, 0]),
    target("rx", &[0x2e, 0]),
    target("x86_64", &[0xeb, 0xfe]),
];

const ARM: [u8; 4] = [0xfe, 0xff, 0xff, 0xea];

/// One machine of each family, for a short sweep.
const FEW: [(&str, &str); 12] = [
    ("arm", "lm3s6965evb"),
    ("arm", "microbit"),
    ("arm", "mps2-an505"),
    ("arm", "netduino2"),
    ("arm", "sabrelite"),
    ("arm", "vexpress-a9"),
    ("arm", "virt"),
    ("aarch64", "virt"),
    ("riscv32", "sifive_e"),
    ("riscv32", "virt"),
    ("riscv64", "virt"),
    ("avr", "uno"),
];

/// A target of QEMU's.
#[derive(Clone, Copy)]
struct Target {
    name: &'static str,
    /// Code that jumps to itself.
    code: &'static [u8],
}

const fn target(name: &'static str, code: &'static [u8]) -> Target {
    Target { name, code }
}

/// Try a session on each machine: start, memory, a hang's place, snapshots, a fork, reset
///
/// Exit status 0 when each cell is right or says in words what QEMU cannot.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these, as TARGET/MACHINE or TARGET
    only: Vec<String>,
    /// A dozen machines, one a family
    #[arg(long)]
    few: bool,
    /// Write docs/targets.md
    #[arg(long)]
    write_docs: bool,
    #[command(flatten)]
    further: Further,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (mut sweeps, mut wrong) = (Vec::new(), 0);
    for qemu in args.further.variants()? {
        let folder = qemu.folder().map(Path::to_owned);
        let rows = runtime.block_on(sweep(&args, folder.as_deref()))?;
        println!("==> QEMU {}", qemu.version);
        print!("{}", table::text(&rows));
        wrong += rows.iter().filter(|row| row.is_wrong()).count();
        sweeps.push((qemu.version.clone(), rows));
    }
    if args.write_docs {
        let path = workspace::root().join("docs/targets.md");
        std::fs::write(&path, table::page(&sweeps))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if wrong == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    println!("{wrong} machines are not as they should be");
    Ok(ExitCode::FAILURE)
}

/// All machines of the QEMUs in this folder, or of the installed ones, two at a time.
async fn sweep(args: &Args, folder: Option<&Path>) -> anyhow::Result<Vec<Row>> {
    let turns = Arc::new(Semaphore::new(2));
    let mut machines = JoinSet::new();
    for target in TARGETS {
        let name = format!("qemu-system-{}", target.name);
        let program = match folder {
            Some(folder) => folder.join(&name),
            None => name.clone().into(),
        };
        let qemu = match Qemu::find(&program) {
            Ok(qemu) => qemu,
            Err(FindError::Missing { .. }) => {
                eprintln!("{name} is not installed");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for machine in qemu.machines()? {
            if !is_wanted(args, target.name, &machine.name) {
                continue;
            }
            let (turns, program) = (Arc::clone(&turns), qemu.path().to_owned());
            machines.spawn(async move {
                let _turn = turns.acquire_owned().await;
                machine::try_all(target, &program, &machine.name).await
            });
        }
    }
    let mut rows = machines.join_all().await;
    rows.sort_by(|a, b| (a.target, &a.machine).cmp(&(b.target, &b.machine)));
    Ok(rows)
}

/// `none` and `x-remote` have no CPU, and the older ones of a versioned machine are the newest one.
fn is_wanted(args: &Args, target: &str, machine: &str) -> bool {
    let has_version = machine
        .rsplit_once('-')
        .is_some_and(|(_, version)| version.parse::<f32>().is_ok());
    if ["none", "x-remote"].contains(&machine) || has_version {
        return false;
    }
    if args.few {
        return FEW.contains(&(target, machine));
    }
    args.only.is_empty()
        || args.only.iter().any(|only| match only.split_once('/') {
            Some(only) => only == (target, machine),
            None => only == target,
        })
}
