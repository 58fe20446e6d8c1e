//! Makes sure that the programs which are not written in Rust are there: QEMU, and for some tests GDB.
//!
//! Shared by every verb that needs them. Nothing is installed unannounced: the command is shown before it runs, and
//! where it may not or cannot run, it is what the error tells the user to do. What to do is decided by a pure
//! function, [`plan`], from the few [`Facts`] that matter.

mod package_manager;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use self::package_manager::PackageManager;

/// Install what the demo and the tests need and is missing: qemu-system-arm
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing: only say what is missing, and fail
    #[arg(long)]
    no_install: bool,
    /// Install gdb-multiarch as well, which some tests attach to QEMU
    #[arg(long)]
    gdb: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    ensure_qemu(args.no_install)?;
    if args.gdb {
        ensure_gdb(args.no_install)?;
    }
    for tool in [Tool::Qemu, Tool::Gdb] {
        match tool.path() {
            Some(path) => println!("{}: {}", tool.program(), path.display()),
            None => println!("{}: not installed", tool.program()),
        }
    }
    Ok(())
}

/// Makes sure that `qemu-system-arm` is on the PATH; installs it where that is allowed and possible.
pub(crate) fn ensure_qemu(no_install: bool) -> anyhow::Result<()> {
    ensure(Tool::Qemu, no_install)
}

/// Makes sure that `gdb-multiarch` is on the PATH; installs it where that is allowed and possible.
pub(crate) fn ensure_gdb(no_install: bool) -> anyhow::Result<()> {
    ensure(Tool::Gdb, no_install)
}

/// Whether `gdb-multiarch` is on the PATH.
pub(crate) fn gdb_is_installed() -> bool {
    Tool::Gdb.path().is_some()
}

/// A program that the project needs and cannot build.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tool {
    Qemu,
    Gdb,
}

impl Tool {
    fn program(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-system-arm",
            Self::Gdb => "gdb-multiarch",
        }
    }

    fn path(self) -> Option<PathBuf> {
        find_program(self.program())
    }
}

/// All that the decision depends on.
#[derive(Debug, Clone, Copy)]
struct Facts {
    tool: Tool,
    installed: bool,
    no_install: bool,
    manager: Option<PackageManager>,
    root: bool,
    /// Whether `sudo -n` works: without a password, and without asking for one.
    sudo: bool,
}

#[derive(Debug, PartialEq)]
enum Plan {
    /// It is there already.
    Nothing,
    /// Run these, one after the other.
    Install(Vec<Step>),
    /// Stop, and tell the user why and what to run.
    Refuse { why: String, command: Option<String> },
}

/// A command, and whether its failure ends the installation.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    argv: Vec<String>,
    must_succeed: bool,
}

impl Step {
    fn shown(&self) -> String {
        self.argv.join(" ")
    }
}

/// What to do, from the facts alone.
fn plan(facts: Facts) -> Plan {
    let Facts { tool, .. } = facts;
    if facts.installed {
        return Plan::Nothing;
    }
    let Some(manager) = facts.manager else {
        let why = "none of the package managers known here was found (apt-get, dnf, pacman, zypper, apk, brew); \
                   install it by hand and put it on the PATH";
        return Plan::Refuse {
            why: why.to_owned(),
            command: None,
        };
    };
    let Some(steps) = manager.install(tool) else {
        let why = format!(
            "{} has no package with a program of this name; install it by hand",
            manager.program()
        );
        return Plan::Refuse { why, command: None };
    };
    let prefix: &[&str] = match (manager.wants_root(), facts.root) {
        (true, false) => &["sudo"],
        _ => &[],
    };
    let by_hand = with_prefix(prefix, &steps)
        .iter()
        .map(Step::shown)
        .collect::<Vec<_>>()
        .join(" && ");
    let refuse = |why: &str| Plan::Refuse {
        why: why.to_owned(),
        command: Some(by_hand.clone()),
    };
    if facts.no_install {
        return refuse("--no-install forbids installing it");
    }
    match (manager.wants_root(), facts.root, facts.sudo) {
        (true, true, _) | (false, false, _) => Plan::Install(steps),
        (true, false, true) => Plan::Install(with_prefix(&["sudo", "-n"], &steps)),
        (true, false, false) => refuse("installing it needs root, and `sudo -n` does not work here"),
        (false, true, _) => refuse("brew refuses to run as root; run this as the user who owns it"),
    }
}

fn with_prefix(prefix: &[&str], steps: &[Step]) -> Vec<Step> {
    let prefixed = |step: &Step| {
        let argv = prefix
            .iter()
            .map(|word| (*word).to_owned())
            .chain(step.argv.iter().cloned())
            .collect();
        Step { argv, ..*step }
    };
    steps.iter().map(prefixed).collect()
}

fn ensure(tool: Tool, no_install: bool) -> anyhow::Result<()> {
    let installed = tool.path().is_some();
    let facts = Facts {
        tool,
        installed,
        no_install,
        manager: PackageManager::ALL
            .into_iter()
            .find(|manager| find_program(manager.program()).is_some()),
        root: rustix::process::geteuid().is_root(),
        // Asked only when the answer matters: sudo logs each call.
        sudo: !installed && !no_install && sudo_works(),
    };
    match plan(facts) {
        Plan::Nothing => Ok(()),
        Plan::Install(steps) => install(tool, &steps),
        Plan::Refuse { why, command } => {
            let command =
                command.map_or_else(String::new, |command| format!("; run this:\n\n    {command}\n"));
            bail!("{} is not installed: {why}{command}", tool.program())
        }
    }
}

fn install(tool: Tool, steps: &[Step]) -> anyhow::Result<()> {
    println!("{} is not installed. It is installed now, with:", tool.program());
    for step in steps {
        println!("    {}", step.shown());
    }
    std::io::stdout().flush()?;
    for step in steps {
        let (program, args) = step.argv.split_first().context("an empty command")?;
        let status = Command::new(program)
            .args(args)
            .stdin(Stdio::null()) // a question would wait for ever
            .status()
            .with_context(|| format!("cannot run {program}"))?;
        if !status.success() {
            eprintln!("`{}` failed: {status}", step.shown());
            if step.must_succeed {
                bail!("{} could not be installed", tool.program());
            }
        }
    }
    match tool.path() {
        Some(path) => println!("{} is installed: {}", tool.program(), path.display()),
        None => bail!(
            "the installation succeeded, but {} is not on the PATH",
            tool.program()
        ),
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

/// The first executable file of this name on the PATH.
fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::{package_manager::PackageManager as Pm, *};

    const MISSING: Facts = Facts {
        tool: Tool::Qemu,
        installed: false,
        no_install: false,
        manager: Some(Pm::Dnf),
        root: false,
        sudo: false,
    };

    fn commands(facts: Facts) -> Vec<String> {
        match plan(facts) {
            Plan::Install(steps) => steps.iter().map(Step::shown).collect(),
            other => panic!("{facts:?}: not installed but {other:?}"),
        }
    }

    fn refusal(facts: Facts) -> (String, Option<String>) {
        match plan(facts) {
            Plan::Refuse { why, command } => (why, command),
            other => panic!("{facts:?}: not refused but {other:?}"),
        }
    }

    #[test]
    fn what_is_there_is_left_alone_whatever_else_is_true() {
        for no_install in [false, true] {
            for manager in [None, Some(Pm::Apt)] {
                for (root, sudo) in [(false, false), (false, true), (true, false)] {
                    let facts = Facts {
                        installed: true,
                        no_install,
                        manager,
                        root,
                        sudo,
                        ..MISSING
                    };
                    assert_eq!(plan(facts), Plan::Nothing, "{facts:?}");
                }
            }
        }
    }

    #[test]
    fn each_package_manager_as_root() {
        let table: [(Pm, &[&str]); 5] = [
            (
                Pm::Apt,
                &[
                    "apt-get update",
                    "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-arm",
                ],
            ),
            (Pm::Dnf, &["dnf install -y qemu-system-arm"]),
            (Pm::Pacman, &["pacman -Sy --needed --noconfirm qemu-system-arm"]),
            (
                Pm::Zypper,
                &["zypper --non-interactive install --no-recommends qemu-arm"],
            ),
            (Pm::Apk, &["apk add --no-cache qemu-system-arm"]),
        ];
        for (manager, expected) in table {
            let facts = Facts {
                manager: Some(manager),
                root: true,
                ..MISSING
            };
            assert_eq!(commands(facts), expected);
            // `sudo` is not used by root, not even where it would work.
            assert_eq!(commands(Facts { sudo: true, ..facts }), expected);
        }
    }

    #[test]
    fn others_go_through_sudo_without_a_question_or_are_told_what_to_run() {
        assert_eq!(
            commands(Facts {
                sudo: true,
                ..MISSING
            }),
            ["sudo -n dnf install -y qemu-system-arm"]
        );
        let (why, command) = refusal(MISSING);
        assert!(why.contains("needs root"), "{why}");
        assert_eq!(command.unwrap(), "sudo dnf install -y qemu-system-arm");
        let (_, command) = refusal(Facts {
            manager: Some(Pm::Apt),
            ..MISSING
        });
        assert_eq!(
            command.unwrap(),
            "sudo apt-get update && \
             sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-arm"
        );
    }

    #[test]
    fn brew_runs_as_its_owner_only() {
        let brew = Facts {
            manager: Some(Pm::Brew),
            ..MISSING
        };
        assert_eq!(commands(brew), ["brew install qemu"]);
        let (why, command) = refusal(Facts { root: true, ..brew });
        assert!(why.contains("as root"), "{why}");
        assert_eq!(command.unwrap(), "brew install qemu");
    }

    #[test]
    fn no_install_forbids_it_to_root_too() {
        for (root, sudo, expected) in [
            (true, false, "dnf install -y qemu-system-arm"),
            (false, true, "sudo dnf install -y qemu-system-arm"),
            (false, false, "sudo dnf install -y qemu-system-arm"),
        ] {
            let (why, command) = refusal(Facts {
                no_install: true,
                root,
                sudo,
                ..MISSING
            });
            assert!(why.contains("--no-install"), "{why}");
            assert_eq!(command.unwrap(), expected);
        }
    }

    #[test]
    fn without_a_known_package_manager_or_package_there_is_no_command_to_tell() {
        let (why, command) = refusal(Facts {
            manager: None,
            root: true,
            ..MISSING
        });
        assert!(why.contains("zypper") && command.is_none(), "{why}");
        let (why, command) = refusal(Facts {
            tool: Tool::Gdb,
            root: true,
            ..MISSING
        });
        assert!(why.contains("dnf has no package") && command.is_none(), "{why}");
    }

    #[test]
    fn only_the_update_of_the_lists_may_fail() {
        let Plan::Install(steps) = plan(Facts {
            manager: Some(Pm::Apt),
            root: true,
            ..MISSING
        }) else {
            panic!("not installed");
        };
        assert_eq!(
            steps.iter().map(|step| step.must_succeed).collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn a_program_is_found_on_the_path_and_a_missing_one_is_not() {
        assert!(find_program("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find_program("no-program-has-this-name"), None);
    }
}
