//! `debug --gdb-ui`: gdb in this terminal, connected.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::failure::Failure;

/// Those that know more than the CPU they run on; Debian's plain `gdb` comes last, since it knows no
/// other.
const PROGRAMS: [&str; 6] = [
    "gdb-multiarch",
    "arm-none-eabi-gdb",
    "riscv64-unknown-elf-gdb",
    "riscv32-unknown-elf-gdb",
    "riscv-none-elf-gdb",
    "gdb",
];

/// What gdb is to do first. What it has read is old after a `monitor` word.
pub(super) fn script(target: &str) -> String {
    format!(
        "target extended-remote {target}\n\
         define hookpost-monitor\n\
         maintenance flush register-cache\n\
         maintenance flush dcache\n\
         end\n"
    )
}

/// Runs gdb to its end: this one, or the first of those that are there.
pub(super) async fn run(program: Option<&Path>, target: &str, elf: &Path) -> Result<(), Failure> {
    let program = program
        .map(PathBuf::from)
        .or_else(installed)
        .ok_or_else(|| {
            let names = PROGRAMS.join(", ");
            Failure::Debug(format!(
                "no gdb is installed ({names}); --gdb-ui=PROGRAM names one"
            ))
        })?;
    let script = tempfile::Builder::new().suffix(".gdb").tempfile();
    let mut file = script.map_err(Failure::system("write what gdb is to do first"))?;
    file.write_all(self::script(target).as_bytes())
        .map_err(Failure::system("write what gdb is to do first"))?;
    let mut command = Command::new(&program);
    command
        .arg("-q")
        .arg(elf)
        .arg("-x")
        .arg(file.path())
        .kill_on_drop(true);
    let status = command.status().await;
    let refused = |error| Failure::Debug(format!("{} cannot be run: {error}", program.display()));
    let status = status.map_err(refused)?;
    match status.code() {
        Some(0) => Ok(()),
        _ => Err(Failure::Debug(format!(
            "{} ended with {status}",
            program.display()
        ))),
    }
}

/// The first gdb in PATH.
pub(super) fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .collect();
    PROGRAMS.iter().find_map(|program| {
        let is_there = folders.iter().any(|folder| folder.join(program).is_file());
        is_there.then(|| PathBuf::from(program))
    })
}
