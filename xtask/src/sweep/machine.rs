//! One machine: what a session can do on it, in the order in which a user would try.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use qemu_controller::debug::Debugger;
use qemu_controller::qemu_launch::MachineSpec;
use qemu_controller::{AfterLoad, LostDevice, QemuConfig, Session, Verdict};
use tempfile::NamedTempFile;

use super::{ARM, Target};

const DEADLINE: Duration = Duration::from_secs(30);

/// How long a guest that goes nowhere is watched.
const WATCH: Duration = Duration::from_millis(50);

/// RISC-V boards that take no `-bios none`. The others would begin in QEMU's own firmware, which is
/// not there for all.
const HAVE_ROMS: [&str; 2] = ["opentitan", "shakti_c"];

/// What was tried, in this order; the first that fails ends the row.
pub(super) const COLUMNS: [&str; 7] = [
    "start",
    "memory",
    "place of a hang",
    "save",
    "load",
    "fork",
    "reset",
];

/// What came of it on one machine.
pub(super) struct Row {
    pub(super) target: &'static str,
    pub(super) machine: String,
    pub(super) cpus: usize,
    /// For each column that was reached how it went.
    pub(super) cells: Vec<Cell>,
    pub(super) lost: Vec<LostDevice>,
}

pub(super) enum Cell {
    Right,
    /// QEMU cannot, in these words.
    Cannot(String),
    /// It is our fault, or nobody said so.
    Wrong(String),
}

impl Row {
    pub(super) fn is_wrong(&self) -> bool {
        self.cells.iter().any(|cell| matches!(cell, Cell::Wrong(_)))
    }
}

/// Tries everything on a machine that begins paused and without firmware, where it can.
pub(super) async fn try_all(target: Target, program: &Path, machine: &str) -> Row {
    let mut row = Row {
        target: target.name,
        machine: machine.to_owned(),
        cpus: 0,
        cells: Vec::new(),
        lost: Vec::new(),
    };
    if let Err(error) = columns(target, program, &mut row).await {
        row.cells.push(failure(&error));
    }
    row
}

/// What QEMU or the library says of a machine that cannot, and anything else.
fn failure(error: &anyhow::Error) -> Cell {
    let text = format!("{error:#}");
    let words = [
        "non-migratable",
        "does not support migration",
        "No bios",
        "no bios",
        "needs an image",
        "must be specified",
        "is required",
        "not supported",
        "could not load",
        "Could not load",
        "Unable to load",
        "Pflash",
        "pflash",
        "Flash image must be",
        "find rom image",
        "find ROM image",
        "no default audio driver",
        "cannot be loaded",
        "Invalid RAM size",
        "KVM",
        "has a medium",
        "QEMU crashed",
    ];
    if words.iter().any(|word| text.contains(word)) {
        Cell::Cannot(text)
    } else {
        Cell::Wrong(text)
    }
}

async fn columns(target: Target, program: &Path, row: &mut Row) -> anyhow::Result<()> {
    let image = image(target)?;
    let spec = MachineSpec::new(program, &row.machine);
    let spec = match target.name {
        "avr" => spec.bios(image.path()),
        "riscv32" | "riscv64" if !HAVE_ROMS.contains(&&*row.machine) => spec.without_bios(),
        "m68k" | "rx" => spec.extra_args(["-kernel".as_ref(), image.path().as_os_str()]),
        _ => spec,
    };
    let config = QemuConfig::default()
        .with_spec(|_| spec)
        .start_paused(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE);
    let session = Session::start(config).await?;
    row.cpus = session.query_cpus().await?.len();
    row.cells.push(Cell::Right);

    let ram = ram(&session, target).await?;
    row.cells.push(Cell::Right);

    let place = match place_in(&session, target, ram).await? {
        Some(place) => {
            session.resume().await?;
            place
        }
        None => session
            .look()
            .await
            .pc
            .map(Place::Paused)
            .context("no program counter")?,
    };
    place.check(&session).await?;
    row.cells.push(Cell::Right);

    row.lost = session.save_snapshot("here").await?;
    row.cells.push(Cell::Right);

    for _ in 0..2 {
        session
            .load_snapshot("here")
            .then(AfterLoad::Paused)
            .await?;
    }
    let then = match place {
        Place::Paused(_) => AfterLoad::Paused,
        _ => AfterLoad::Running,
    };
    session.load_snapshot("here").then(then).await?;
    place.check(&session).await?;
    row.cells.push(Cell::Right);

    for fork in session.fork(1).await? {
        let forked = place.check(&fork).await;
        let cpu = row.lost.iter().find(|device| device.kind.ends_with("cpu"));
        match (forked, cpu) {
            (Err(_), Some(cpu)) => row.cells.push(Cell::Cannot(format!("it saves no {cpu}"))),
            (forked, _) => forked?,
        }
        fork.stop().await?;
    }
    row.cells.push(Cell::Right);

    session.pause().await?;
    session.reset().await?;
    row.cells.push(Cell::Right);
    session.stop().await?;
    Ok(())
}

/// The headers of an ELF file whose 256 bytes of code are loaded at 0x10000: some of the boards take
/// nothing else.
const M68K_ELF: [u8; 84] = {
    let mut elf = [0; 84];
    let words: [(usize, u32); 15] = [
        (0, 0x7f45_4c46),
        (4, 0x0102_0100),
        (16, 0x0002_0004),
        (20, 1),
        (24, 0x0001_0000),
        (28, 52),
        (40, 0x0034_0020),
        (44, 0x0001_0000),
        (52, 1),
        (56, 84),
        (60, 0x0001_0000),
        (64, 0x0001_0000),
        (68, 256),
        (72, 256),
        (76, 7),
    ];
    let mut number = 0;
    while number < words.len() {
        let (at, word) = words[number];
        let bytes = word.to_be_bytes();
        let mut byte = 0;
        while byte < 4 {
            elf[at + byte] = bytes[byte];
            byte += 1;
        }
        number += 1;
    }
    elf
};

/// Enough code that goes nowhere for whatever a board's loader expects at the beginning.
fn image(target: Target) -> anyhow::Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    if target.name == "m68k" {
        file.write_all(&M68K_ELF)?;
    }
    file.write_all(&target.code.repeat(256 / target.code.len()))?;
    Ok(file)
}

/// The first memory that the CPU sees and both the debugger and the session can write.
async fn ram(session: &Session, target: Target) -> anyhow::Result<u64> {
    let tree = session.human_monitor_command("info mtree -f").await?;
    let regions = tree.lines().filter(|line| line.contains(", ram): "));
    let mut debugger = session.debugger().await?;
    let mut why = anyhow!("no RAM in `info mtree -f`");
    for region in regions {
        let start = region.trim().split('-').next().unwrap_or_default();
        let start = u64::from_str_radix(start, 16)?;
        match is_memory(session, &mut debugger, start, target.code).await {
            Ok(()) => return Ok(start),
            Err(error) => why = error,
        }
    }
    Err(why)
}

async fn is_memory(
    session: &Session,
    debugger: &mut Debugger,
    at: u64,
    bytes: &[u8],
) -> anyhow::Result<()> {
    debugger.write_memory(at, bytes).await?;
    let length = bytes.len();
    let by_debugger = debugger.read_memory(at, length).await?;
    let by_session = session.read_memory(at, length as u64).await?;
    ensure!(
        by_debugger == bytes && by_session == bytes,
        "{at:#x} holds {by_debugger:x?} by the debugger and {by_session:x?} by the session"
    );
    Ok(())
}

/// Where the guest is to be found.
enum Place {
    /// It runs, at one of the first instructions from here on.
    Runs(u64),
    /// It runs, where its firmware is.
    RunsSomewhere,
    /// It does not run, and is there.
    Paused(u64),
}

/// Puts code that goes nowhere into RAM and has the only CPU begin there. `None` where QEMU's stub
/// does not tell the registers, or where there are other CPUs, which would run what nobody wrote.
async fn place_in(session: &Session, target: Target, ram: u64) -> anyhow::Result<Option<Place>> {
    if target.name == "avr" {
        return Ok(Some(Place::RunsSomewhere));
    }
    let mut debugger = session.debugger().await?;
    let registers = debugger.read_registers().await?;
    let has = |name: &str| registers.get(name).is_some();
    // A PC begins in real mode, and its firmware goes on.
    if !has("pc") || debugger.threads().await?.len() > 1 {
        return Ok(None);
    }
    let code = match target.name {
        // A Cortex-M runs Thumb code alone.
        "arm" | "aarch64" if has("xpsr") => &[0xfe, 0xe7][..],
        // The other QEMU's boards too.
        "aarch64" if !has("x0") => &ARM,
        _ => target.code,
    };
    debugger.write_memory(ram, code).await?;
    if has("xpsr") {
        debugger.write_register("xpsr", 0x0100_0000).await?;
    }
    debugger.write_register("pc", ram).await?;
    Ok(Some(Place::Runs(ram)))
}

impl Place {
    async fn check(&self, session: &Session) -> anyhow::Result<()> {
        let hang = match self {
            Self::Paused(_) => session.look().await,
            _ => match session.run_to_end(WATCH).await {
                Verdict::TimedOut(hang) => *hang,
                other => bail!("the guest did not stay: {other}"),
            },
        };
        let pc = hang.pc.context("a hang without a program counter")?;
        let near = match *self {
            Self::Runs(at) => (at..at + 8).contains(&pc),
            Self::RunsSomewhere => true,
            Self::Paused(at) => pc == at,
        };
        ensure!(near, "the guest is at {pc:#x}");
        Ok(())
    }
}
