//! Decides what to do about a missing program or firmware, from facts alone, so that tests need no
//! such machine.

use super::Tool;

/// All that the decision depends on.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) tool: Tool,
    pub(super) no_install: bool,
    /// How QEMU is installed on this system, as root where that is needed; `None` on an unknown
    /// system. The one table of package managers and packages is qemu-launch's.
    pub(super) install_qemu: Option<Vec<String>>,
    pub(super) root: bool,
    /// Whether `sudo -n` works: without a password, and without asking for one.
    pub(super) sudo: bool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// Run these shell words, one line after the other. Only the last has to succeed: the one
    /// before refreshes lists, and a source that cannot be reached may not matter.
    Install(Vec<String>),
    /// Stop, and say this to the user.
    Refuse(String),
}

/// What to do, from the facts alone.
pub(super) fn plan(facts: &Facts) -> Plan {
    let Some(install_qemu) = &facts.install_qemu else {
        let why = "how to install it on this system is not known here; install it by hand";
        return Plan::Refuse(why.to_owned());
    };
    let Some(commands) = commands(facts.tool, install_qemu) else {
        return Plan::Refuse(facts.tool.no_package().to_owned());
    };
    let brew = install_qemu.first().is_some_and(|word| word == "brew");
    match (brew, facts.root, facts.sudo) {
        _ if facts.no_install => {
            refuse(facts, brew, commands, "--no-install forbids installing it")
        }
        (true, true, _) => {
            let why = "brew refuses to run as root; run it as the user who owns it";
            refuse(facts, brew, commands, why)
        }
        (true, false, _) | (false, true, _) => Plan::Install(commands),
        (false, false, true) => Plan::Install(prefixed("sudo -n ", commands)),
        (false, false, false) => {
            let why = "installing it needs root, and `sudo -n` does not work here";
            refuse(facts, brew, commands, why)
        }
    }
}

/// Says why, and what to run by hand.
fn refuse(facts: &Facts, brew: bool, commands: Vec<String>, why: &str) -> Plan {
    let sudo = if brew || facts.root { "" } else { "sudo " };
    let command = prefixed(sudo, commands).join(" && ");
    Plan::Refuse(format!("{why}; run this:\n\n    {command}\n"))
}

fn prefixed(prefix: &str, commands: Vec<String>) -> Vec<String> {
    let commands = commands.into_iter();
    commands
        .map(|command| format!("{prefix}{command}"))
        .collect()
}

impl Tool {
    /// Why there is no command to install it, where the package manager is known.
    fn no_package(self) -> &'static str {
        match self {
            Self::MicroPython | Self::UBoot => {
                "this test takes it from a Debian package; run it on Debian or Ubuntu, or in a container of theirs"
            }
            _ => {
                "no package of this system is known to have a program of this name; install it by hand"
            }
        }
    }
}

/// The commands that install something, to be run as root, derived from the one that installs
/// QEMU; `None` where no package is known that has it.
fn commands(tool: Tool, install_qemu: &[String]) -> Option<Vec<String>> {
    let (qemu_package, install) = install_qemu.split_last()?;
    let manager = install.first()?.as_str();
    let package = match (tool, manager) {
        (Tool::Qemu(_), _) => qemu_package,
        // Elsewhere the ordinary GDB speaks ARM as well, but is not called `gdb-multiarch`.
        (Tool::Gdb, "apt-get" | "apk") => "gdb-multiarch",
        // Debian's and its descendants', where they are built from source.
        (Tool::MicroPython, "apt-get") => "firmware-microbit-micropython",
        (Tool::UBoot, "apt-get") => "u-boot-qemu",
        (Tool::LldbDap, "apt-get") => "lldb-19",
        (Tool::Gdb | Tool::LldbDap | Tool::MicroPython | Tool::UBoot, _) => return None,
    };
    // The lists of packages may be absent (a fresh container) or too old to fetch from; the other
    // managers refresh them by themselves.
    let refresh = match manager {
        "apt-get" => Some("apt-get update"),
        "pacman" => Some("pacman -Sy"),
        "apk" => Some("apk update"),
        _ => None,
    };
    let install = install.join(" ");
    let install = match manager {
        // `env`, because sudo clears the environment.
        "apt-get" => {
            format!(
                "env DEBIAN_FRONTEND=noninteractive {install} --no-install-recommends {package}"
            )
        }
        _ => format!("{install} {package}"),
    };
    let refresh = refresh.map(str::to_owned);
    Some(refresh.into_iter().chain([install]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::ARM;

    const DNF: &str = "dnf install -y qemu-system-arm";
    const APT: &str = "apt-get install -y qemu-system-arm";
    const BREW: &str = "brew install qemu";
    const NONINTERACTIVE: &str =
        "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends";

    /// This is missing, and we are neither root nor allowed to use sudo.
    fn missing(tool: Tool, install_qemu: &str) -> Facts {
        Facts {
            tool,
            no_install: false,
            install_qemu: Some(install_qemu.split(' ').map(str::to_owned).collect()),
            root: false,
            sudo: false,
        }
    }

    fn as_root(tool: Tool, install_qemu: &str) -> Facts {
        Facts {
            root: true,
            ..missing(tool, install_qemu)
        }
    }

    fn installs(facts: &Facts, expected: &[&str]) {
        let expected = expected.iter().map(|&command| command.to_owned()).collect();
        assert_eq!(plan(facts), Plan::Install(expected), "{facts:?}");
    }

    fn refuses(facts: &Facts, words: &[&str]) {
        match plan(facts) {
            Plan::Refuse(why) => {
                for word in words {
                    assert!(why.contains(word), "no {word:?} in {why:?}: {facts:?}");
                }
            }
            other => panic!("{facts:?}: not refused but {other:?}"),
        }
    }

    #[test]
    fn each_package_manager_as_root() {
        let apt = format!("{NONINTERACTIVE} qemu-system-arm");
        let pacman = "pacman -S --noconfirm qemu-system-arm";
        let zypper = "zypper --non-interactive install qemu-arm";
        let apk = "apk add qemu-system-arm";
        let rows: [(&str, &[&str]); 5] = [
            (APT, &["apt-get update", &apt]),
            (DNF, &[DNF]),
            (pacman, &["pacman -Sy", pacman]),
            (zypper, &[zypper]),
            (apk, &["apk update", apk]),
        ];
        for (install_qemu, expected) in rows {
            let facts = as_root(ARM, install_qemu);
            installs(&facts, expected);
            // Root does not use `sudo`, not even where it would work.
            installs(
                &Facts {
                    sudo: true,
                    ..facts
                },
                expected,
            );
        }
    }

    #[test]
    fn others_go_through_sudo_without_a_question_or_read_what_to_run() {
        let facts = missing(ARM, DNF);
        refuses(
            &facts,
            &["needs root", "    sudo dnf install -y qemu-system-arm\n"],
        );
        installs(
            &Facts {
                sudo: true,
                ..facts
            },
            &["sudo -n dnf install -y qemu-system-arm"],
        );
        let both = format!("sudo apt-get update && sudo {NONINTERACTIVE} qemu-system-arm");
        refuses(&missing(ARM, APT), &[&both]);
    }

    #[test]
    fn brew_runs_as_its_owner_only() {
        let facts = missing(ARM, BREW);
        installs(&facts, &[BREW]);
        installs(
            &Facts {
                sudo: true,
                ..facts
            },
            &[BREW],
        );
        refuses(&as_root(ARM, BREW), &["as root", "    brew install qemu"]);
    }

    #[test]
    fn no_install_forbids_it_to_root_too() {
        let rows = [
            (DNF, true, false, "    dnf install"),
            (DNF, false, true, "    sudo dnf install"),
            (DNF, false, false, "    sudo dnf install"),
            (BREW, false, false, "    brew install"),
        ];
        for (install_qemu, root, sudo, expected) in rows {
            let facts = Facts {
                no_install: true,
                root,
                sudo,
                ..missing(ARM, install_qemu)
            };
            refuses(&facts, &["--no-install", expected]);
        }
    }

    #[test]
    fn packages_that_only_some_managers_have() {
        for (tool, package, reason) in [
            (Tool::Gdb, "gdb-multiarch", "no package"),
            (Tool::MicroPython, "firmware-microbit-micropython", "Debian"),
            (Tool::UBoot, "u-boot-qemu", "Debian"),
        ] {
            let install = format!("{NONINTERACTIVE} {package}");
            installs(&as_root(tool, APT), &["apt-get update", &install]);
            refuses(&as_root(tool, DNF), &[reason]);
        }
        let facts = as_root(Tool::Gdb, "apk add qemu-system-arm");
        installs(&facts, &["apk update", "apk add gdb-multiarch"]);
    }

    #[test]
    fn on_an_unknown_system_there_is_no_command_to_name() {
        let facts = Facts {
            install_qemu: None,
            ..as_root(ARM, APT)
        };
        refuses(&facts, &["by hand"]);
    }
}
