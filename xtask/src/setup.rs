//! Makes sure that what the project does not build is there: QEMU, a Rust target, and for some
//! tests GDB or firmware of others.
//!
//! Nothing is installed unannounced: the command is shown before it runs, and where it may not or
//! cannot run, the error names it. [`plan()`] decides from the few [`Facts`] that matter.

mod apt;
mod backports;
mod kernels;
mod plan;
mod rust_target;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use qemu_launch::discover::{self, FindError};

use self::plan::{Facts, Plan, plan};
use crate::workspace;

/// Install what the demo and the tests need and is missing: qemu-system-arm, and the Rust target
/// thumbv7m-none-eabi
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing: only say what is missing, and fail
    #[arg(long)]
    no_install: bool,
    /// Install gdb-multiarch as well, which some tests attach to QEMU
    #[arg(long)]
    gdb: bool,
    /// Unpack a newer QEMU from Debian's backports beside the installed one, and print
    /// its path
    ///
    /// For `cargo xtask test --qemu` and the like. Nothing is installed [default folder:
    /// target/qemu-backports]
    #[arg(long, value_name = "FOLDER", num_args = 0..=1)]
    qemu_backports: Option<Option<PathBuf>>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if let Some(folder) = args.qemu_backports {
        let folder = match folder {
            Some(folder) => folder,
            None => workspace::metadata()?
                .target_directory
                .join("qemu-backports")
                .into(),
        };
        println!("{}", backports::unpack(&folder)?.display());
        return Ok(());
    }
    ensure_qemu(args.no_install)?;
    ensure_rust_target(args.no_install)?;
    if args.gdb {
        ensure_gdb(args.no_install)?;
    }
    for tool in [ARM, Tool::Gdb] {
        match tool.find()? {
            Some(path) => println!("{}: {}", tool.name(), path.display()),
            None => println!("{}: not installed", tool.name()),
        }
    }
    Ok(())
}

/// Makes sure that `qemu-system-arm` is there; installs it where that is allowed and possible.
pub(crate) fn ensure_qemu(no_install: bool) -> anyhow::Result<()> {
    ensure(ARM, no_install)
}

/// Makes sure that the QEMU of each architecture that the tests run is there.
pub(crate) fn ensure_boards(no_install: bool) -> anyhow::Result<()> {
    let mut programs = BOARDS.iter();
    programs.try_for_each(|program| ensure(Tool::Qemu(program), no_install))
}

/// Makes sure that the Rust target of `examples/embedded` is there; adds it where that is allowed
/// and possible.
pub(crate) fn ensure_rust_target(no_install: bool) -> anyhow::Result<()> {
    rust_target::ensure(no_install)
}

/// Makes sure that `gdb-multiarch` is there; installs it where that is allowed and possible.
pub(crate) fn ensure_gdb(no_install: bool) -> anyhow::Result<()> {
    ensure(Tool::Gdb, no_install)
}

/// Makes sure that the firmware of others is there that the tests run; installs it where that is
/// allowed and possible.
pub(crate) fn ensure_foreign(no_install: bool) -> anyhow::Result<()> {
    [Tool::MicroPython, Tool::UBoot]
        .into_iter()
        .try_for_each(|tool| ensure(tool, no_install))
}

/// The folder of Debian's kernels: the one that QEMU_CONTROLLER_GUESTS names, or our own, into
/// which they are fetched.
pub(crate) fn kernels(no_install: bool) -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("QEMU_CONTROLLER_GUESTS") {
        return Ok(folder.into());
    }
    let folder = workspace::metadata()?.target_directory.join("guests");
    if !no_install {
        kernels::unpack(folder.as_std_path())?;
    }
    Ok(folder.into())
}

/// Makes sure that lldb-dap is there; installs it where that is allowed and possible.
pub(crate) fn ensure_lldb_dap(no_install: bool) -> anyhow::Result<()> {
    ensure(Tool::LldbDap, no_install)
}

/// Whether `gdb-multiarch` is there.
pub(crate) fn gdb_is_installed() -> anyhow::Result<bool> {
    Ok(Tool::Gdb.find()?.is_some())
}

const ARM: Tool = Tool::Qemu("qemu-system-arm");

/// The architectures that the session's tests run.
const BOARDS: [&str; 5] = [
    "qemu-system-arm",
    "qemu-system-aarch64",
    "qemu-system-riscv32",
    "qemu-system-riscv64",
    "qemu-system-avr",
];

/// What the project needs and cannot build.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tool {
    /// This program.
    Qemu(&'static str),
    Gdb,
    /// The debug adapter of an editor.
    LldbDap,
    /// Firmware for machine `microbit`, an Intel HEX file.
    MicroPython,
    /// Firmware for machine `virt`.
    UBoot,
}

impl Tool {
    /// The program's name, or how people call it.
    fn name(self) -> &'static str {
        match self {
            Self::Qemu(program) => program,
            Self::Gdb => "gdb-multiarch",
            Self::LldbDap => "lldb-dap-19",
            Self::MicroPython => "MicroPython for the micro:bit",
            Self::UBoot => "U-Boot for QEMU",
        }
    }

    /// The QEMU whose package tells which package manager this system has.
    fn qemu(self) -> &'static str {
        match self {
            Self::Qemu(program) => program,
            _ => ARM.name(),
        }
    }

    /// The file that its package installs; nothing for a program, which is looked up.
    fn file(self) -> Option<&'static Path> {
        match self {
            Self::Qemu(_) | Self::Gdb | Self::LldbDap => None,
            Self::MicroPython => Some(Path::new(
                "/usr/share/firmware-microbit-micropython/firmware.hex",
            )),
            Self::UBoot => Some(Path::new("/usr/lib/u-boot/qemu_arm64/uboot.elf")),
        }
    }

    /// Where it is, a program looked up just as the library does it; nothing where installing it is
    /// the cure.
    ///
    /// A program that is there but cannot be run is an error, and so is an environment variable
    /// that names a program which is not there: installing would change neither.
    fn find(self) -> anyhow::Result<Option<PathBuf>> {
        if let Some(file) = self.file() {
            return Ok(file.is_file().then(|| file.to_owned()));
        }
        let variable = self.name().to_uppercase().replace('-', "_");
        match discover::find(self.name()) {
            Ok(path) => Ok(Some(path)),
            Err(FindError::Missing { .. })
                if std::env::var_os(&variable).is_none_or(|value| value.is_empty()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn ensure(tool: Tool, no_install: bool) -> anyhow::Result<()> {
    if tool.find()?.is_some() {
        return Ok(());
    }
    let facts = Facts {
        tool,
        no_install,
        install_qemu: qemu_launch::install_command(tool.qemu()),
        root: rustix::process::geteuid().is_root(),
        // Asked only when the answer matters: sudo logs each call.
        sudo: !no_install && sudo_works(),
    };
    match plan(&facts) {
        Plan::Install(commands) => install(tool, &commands),
        Plan::Refuse(why) => bail!("{} is not installed: {why}", tool.name()),
    }
}

/// Runs the commands, of which the last must succeed. All messages go to stderr: on stdout they
/// would spoil output that a program reads.
fn install(tool: Tool, commands: &[String]) -> anyhow::Result<()> {
    let name = tool.name();
    eprintln!("{name} is not installed. It is installed now, with:");
    for command in commands {
        eprintln!("    {command}");
    }
    for (number, command) in (1..).zip(commands) {
        let mut words = command.split(' ');
        let program = words.next().context("an empty command")?;
        let status = Command::new(program)
            .args(words)
            .stdin(Stdio::null()) // a question would wait for ever
            .stdout(std::io::stderr())
            .status()
            .with_context(|| format!("cannot run {program}"))?;
        if status.success() {
            continue;
        }
        if number == commands.len() {
            bail!("{name} could not be installed: `{command}` failed: {status}");
        }
        eprintln!("`{command}` failed: {status}; going on without it");
    }
    match tool.find()? {
        Some(path) => eprintln!("{name} is installed: {}", path.display()),
        None => bail!("the installation succeeded, but {name} is still not found"),
    }
    Ok(())
}

fn sudo_works() -> bool {
    let quiet = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}
