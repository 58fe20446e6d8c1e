//! `cargo xtask bench`: builds the peers, measures them beside us, and puts tables and plots into
//! `target/bench/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use crate::workspace;

/// Measure the project beside its peers and the practical limit; results in target/bench/
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fewer rounds and no clean builds: under two minutes, once it is built
    #[arg(long)]
    quick: bool,
    /// Put the newest table into docs/performance.md as well
    #[arg(long)]
    write_docs: bool,
    /// Only these subjects: ready, life, round-trips, in-flight, events, decode, snapshots,
    /// debugger, sessions, tests, logs, coverage, source, hands, dependencies
    #[arg(value_name = "SUBJECT")]
    subjects: Vec<String>,
}

/// The firmware of all machines: it waits for interrupts that do not come.
const FIRMWARE: &str = "xtask/firmware/wfi/wfi.elf";

/// The newest table is between these lines of `docs/performance.md`.
const BEGIN: &str = "<!-- the table begins: written by `cargo xtask bench --write-docs` -->";
const END: &str = "<!-- the table ends -->";

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.write_docs && (args.quick || !args.subjects.is_empty()) {
        bail!(
            "the table in docs/ is that of a full run: no --quick and no subjects with --write-docs"
        );
    }
    let root = workspace::root();
    let target = workspace::metadata()?.target_directory.into_std_path_buf();
    let out = target.join("bench");
    fs::create_dir_all(&out)?;
    let manifest = root.join("bench/Cargo.toml");
    let build = target.join("bench/build");
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .args(["build", "--release", "--manifest-path"])
        .arg(&manifest);
    cargo.arg("--target-dir").arg(&build);
    succeed(&mut cargo)?;

    let is_wanted = |subject: &str| {
        args.subjects.is_empty() || args.subjects.iter().any(|wanted| wanted == subject)
    };
    if is_wanted("hands") {
        let mut cargo = Command::new(workspace::cargo());
        cargo
            .args(["build", "--release", "--package", "qemu-controller-cli"])
            .arg("--target-dir")
            .arg(&build);
        succeed(cargo.current_dir(&root))?;
    }

    let mut bench = Command::new(build.join("release/bench"));
    bench
        .arg("--program")
        .arg(build.join("release/qemu-controller"));
    bench
        .arg("--firmware")
        .arg(root.join(FIRMWARE))
        .arg("--out")
        .arg(&out)
        .args(&args.subjects);
    bench.args(args.quick.then_some("--quick"));
    match python(&out) {
        Ok(python) => drop(bench.arg("--python").arg(python)),
        Err(error) => eprintln!("without the Python packages: {error:#}"),
    }
    succeed(bench.current_dir(&root))?;
    if args.write_docs {
        write_docs(&root, &out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let program = PathBuf::from(command.get_program());
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "{}: {status}", program.display());
    Ok(())
}

/// A Python with the packages, in an environment of its own that is made once.
fn python(out: &Path) -> anyhow::Result<PathBuf> {
    let environment = out.join("venv");
    let python = environment.join("bin/python");
    let has_it = || {
        let mut look = Command::new(&python);
        look.args(["-c", "import qemu.qmp, pygdbmi"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        look.status().is_ok_and(|status| status.success())
    };
    if !has_it() {
        succeed(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(&environment),
        )?;
        succeed(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "qemu.qmp==0.0.6",
            "pygdbmi==0.11.0.0",
        ]))?;
        ensure!(has_it(), "it was installed and can't be imported");
    }
    Ok(python)
}

/// Puts the table that was just made, and the command that made it, in the place of the last one.
fn write_docs(root: &Path, out: &Path) -> anyhow::Result<()> {
    let page = root.join("docs/performance.md");
    let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    let table = fs::read_to_string(out.join("table.md"))?;
    fs::write(&page, with_table(&text, &table)?)?;
    println!("the table is in docs/performance.md");
    // Those that the page shows.
    let plots = root.join("docs/plots");
    for plot in fs::read_dir(&plots).with_context(|| plots.display().to_string())? {
        let name = plot?.file_name();
        let drawn = out.join(&name);
        fs::copy(&drawn, plots.join(&name)).with_context(|| drawn.display().to_string())?;
    }
    Ok(())
}

fn with_table(text: &str, table: &str) -> anyhow::Result<String> {
    let (before, rest) = text
        .split_once(BEGIN)
        .context("the page has no line where the table begins")?;
    let (_, after) = rest
        .split_once(END)
        .context("the page has no line where the table ends")?;
    Ok(format!(
        "{before}{BEGIN}\nMade by `cargo xtask bench --write-docs`.\n\n{table}\n{END}{after}"
    ))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, with_table};

    #[test]
    fn the_last_table_makes_room_for_the_new_one() {
        let page = format!("# Page\n{BEGIN}\nold\n{END}\nmore\n");
        let written = with_table(&page, "| new |").unwrap();
        assert!(
            written.starts_with("# Page\n") && written.ends_with(&format!("{END}\nmore\n")),
            "{written}"
        );
        assert!(
            written.contains("\n| new |\n") && !written.contains("old"),
            "{written}"
        );
        assert_eq!(with_table(&written, "| new |").unwrap(), written);
        assert!(with_table("# Page\n", "| new |").is_err());
    }

    #[test]
    fn the_page_has_a_place_for_the_table() {
        let page = crate::workspace::root().join("docs/performance.md");
        let text = std::fs::read_to_string(page).unwrap();
        with_table(&text, "| new |").unwrap();
    }
}
