//! What to do about a program or a firmware that may be missing: decided from facts alone, so that
//! tests need no such machine.

use super::Tool;

/// All that the decision depends on.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) tool: Tool,
    pub(super) installed: bool,
    pub(super) no_install: bool,
    /// How QEMU is installed on this system, run as root where that is needed; nothing on an
    /// unknown system. The one table of package managers and packages is qemu-launch's.
    pub(super) install_qemu: Option<Vec<String>>,
    pub(super) root: bool,
    /// Whether `sudo -n` works: without a password, and without asking for one.
    pub(super) sudo: bool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// It is there already.
    Nothing,
    /// Run these, one after the other.
    Install(Vec<Step>),
    /// Stop, and tell the user why and what to run.
    Refuse {
        why: String,
        command: Option<String>,
    },
}

/// A command, and whether its failure ends the installation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) argv: Vec<String>,
    pub(super) must_succeed: bool,
}

impl Step {
    fn new(words: &[&str], must_succeed: bool) -> Self {
        let argv = words.iter().map(|word| (*word).to_owned()).collect();
        Self { argv, must_succeed }
    }

    pub(super) fn shown(&self) -> String {
        self.argv.join(" ")
    }

    fn prefixed(&self, prefix: &str) -> Self {
        let argv = prefix
            .split_whitespace()
            .map(str::to_owned)
            .chain(self.argv.iter().cloned())
            .collect();
        Self { argv, ..*self }
    }
}

/// What to do, from the facts alone.
pub(super) fn plan(facts: &Facts) -> Plan {
    if facts.installed {
        return Plan::Nothing;
    }
    let Some(install_qemu) = &facts.install_qemu else {
        let why = "how to install it on this system is not known here; install it by hand";
        return Plan::Refuse {
            why: why.to_owned(),
            command: None,
        };
    };
    let Some(steps) = steps(facts.tool, install_qemu) else {
        let why = facts.tool.nowhere();
        return Plan::Refuse {
            why: why.to_owned(),
            command: None,
        };
    };
    let brew = install_qemu
        .first()
        .is_some_and(|program| program == "brew");
    let through = |prefix| {
        steps
            .iter()
            .map(|step| step.prefixed(prefix))
            .collect::<Vec<_>>()
    };
    let refuse = |why: &str| {
        let by_hand = through(if brew || facts.root { "" } else { "sudo" });
        let command = by_hand
            .iter()
            .map(Step::shown)
            .collect::<Vec<_>>()
            .join(" && ");
        Plan::Refuse {
            why: why.to_owned(),
            command: Some(command),
        }
    };
    match (brew, facts.root, facts.sudo) {
        _ if facts.no_install => refuse("--no-install forbids installing it"),
        (true, true, _) => refuse("brew refuses to run as root; run it as the user who owns it"),
        (true, false, _) | (false, true, _) => Plan::Install(steps),
        (false, false, true) => Plan::Install(through("sudo -n")),
        (false, false, false) => {
            refuse("installing it needs root, and `sudo -n` does not work here")
        }
    }
}

impl Tool {
    /// Why there is no command to install it, where the package manager is known.
    fn nowhere(self) -> &'static str {
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

/// The commands that install something, to be run as root, from the one that installs QEMU; nothing
/// where no package is known that has it.
fn steps(tool: Tool, install_qemu: &[String]) -> Option<Vec<Step>> {
    let words: Vec<&str> = install_qemu.iter().map(String::as_str).collect();
    let (qemu_package, install) = words.split_last()?;
    let manager = *install.first()?;
    let package = match (tool, manager) {
        (Tool::Qemu | Tool::QemuAarch64, _) => *qemu_package,
        // Elsewhere the ordinary GDB speaks ARM as well, but is not called `gdb-multiarch`.
        (Tool::Gdb, "apt-get" | "apk") => "gdb-multiarch",
        // Debian's and its descendants', where they are built from source.
        (Tool::MicroPython, "apt-get") => "firmware-microbit-micropython",
        (Tool::UBoot, "apt-get") => "u-boot-qemu",
        (Tool::Gdb | Tool::MicroPython | Tool::UBoot, _) => return None,
    };
    // The lists of packages may be absent (a fresh container) or too old to fetch from; the other
    // managers see to that themselves. A source that cannot be reached is no reason to stop: the
    // rest may do.
    let refresh: Option<&[&str]> = match manager {
        "apt-get" => Some(&["apt-get", "update"]),
        "pacman" => Some(&["pacman", "-Sy"]),
        "apk" => Some(&["apk", "update"]),
        _ => None,
    };
    let install = match manager {
        // `env`, because sudo clears the environment.
        "apt-get" => [
            &["env", "DEBIAN_FRONTEND=noninteractive"],
            install,
            &["--no-install-recommends", package],
        ]
        .concat(),
        _ => [install, &[package]].concat(),
    };
    let refresh = refresh.map(|words| Step::new(words, false));
    Some(
        refresh
            .into_iter()
            .chain([Step::new(&install, true)])
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DNF: &str = "dnf install -y qemu-system-arm";
    const APT: &str = "apt-get install -y qemu-system-arm";
    const BREW: &str = "brew install qemu";

    /// QEMU is missing, and we are neither root nor allowed to use sudo.
    fn missing(install_qemu: &str) -> Facts {
        Facts {
            tool: Tool::Qemu,
            installed: false,
            no_install: false,
            install_qemu: Some(install_qemu.split(' ').map(str::to_owned).collect()),
            root: false,
            sudo: false,
        }
    }

    fn commands(facts: &Facts) -> Vec<String> {
        match plan(facts) {
            Plan::Install(steps) => steps.iter().map(Step::shown).collect(),
            other => panic!("{facts:?}: not installed but {other:?}"),
        }
    }

    fn refusal(facts: &Facts) -> (String, Option<String>) {
        match plan(facts) {
            Plan::Refuse { why, command } => (why, command),
            other => panic!("{facts:?}: not refused but {other:?}"),
        }
    }

    #[test]
    fn what_is_there_is_left_alone_whatever_else_is_true() {
        for no_install in [false, true] {
            for install_qemu in [None, missing(APT).install_qemu] {
                for (root, sudo) in [(false, false), (false, true), (true, false)] {
                    let install_qemu = install_qemu.clone();
                    let facts = Facts {
                        installed: true,
                        no_install,
                        install_qemu,
                        root,
                        sudo,
                        ..missing(APT)
                    };
                    assert_eq!(plan(&facts), Plan::Nothing, "{facts:?}");
                }
            }
        }
    }

    #[test]
    fn each_package_manager_as_root() {
        let table: [(&str, &[&str]); 5] = [
            (
                APT,
                &[
                    "apt-get update",
                    "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-arm",
                ],
            ),
            (DNF, &[DNF]),
            (
                "pacman -S --noconfirm qemu-system-arm",
                &["pacman -Sy", "pacman -S --noconfirm qemu-system-arm"],
            ),
            (
                "zypper --non-interactive install qemu-arm",
                &["zypper --non-interactive install qemu-arm"],
            ),
            (
                "apk add qemu-system-arm",
                &["apk update", "apk add qemu-system-arm"],
            ),
        ];
        for (install_qemu, expected) in table {
            let facts = Facts {
                root: true,
                ..missing(install_qemu)
            };
            assert_eq!(commands(&facts), expected);
            // `sudo` is not used by root, not even where it would work.
            assert_eq!(
                commands(&Facts {
                    sudo: true,
                    ..facts
                }),
                expected
            );
        }
    }

    #[test]
    fn others_go_through_sudo_without_a_question_or_are_told_what_to_run() {
        assert_eq!(
            commands(&Facts {
                sudo: true,
                ..missing(DNF)
            }),
            ["sudo -n dnf install -y qemu-system-arm"]
        );
        let (why, command) = refusal(&missing(DNF));
        assert!(why.contains("needs root"), "{why}");
        assert_eq!(command.unwrap(), "sudo dnf install -y qemu-system-arm");
        let (_, command) = refusal(&missing(APT));
        assert_eq!(
            command.unwrap(),
            "sudo apt-get update && \
             sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-arm"
        );
    }

    #[test]
    fn brew_runs_as_its_owner_only() {
        assert_eq!(commands(&missing(BREW)), [BREW]);
        assert_eq!(
            commands(&Facts {
                sudo: true,
                ..missing(BREW)
            }),
            [BREW]
        );
        let (why, command) = refusal(&Facts {
            root: true,
            ..missing(BREW)
        });
        assert!(why.contains("as root"), "{why}");
        assert_eq!(command.unwrap(), BREW);
    }

    #[test]
    fn no_install_forbids_it_to_root_too() {
        for (install_qemu, root, sudo, expected) in [
            (DNF, true, false, "dnf install -y qemu-system-arm"),
            (DNF, false, true, "sudo dnf install -y qemu-system-arm"),
            (DNF, false, false, "sudo dnf install -y qemu-system-arm"),
            (BREW, false, false, BREW),
        ] {
            let (why, command) = refusal(&Facts {
                no_install: true,
                root,
                sudo,
                ..missing(install_qemu)
            });
            assert!(why.contains("--no-install"), "{why}");
            assert_eq!(command.unwrap(), expected);
        }
    }

    #[test]
    fn gdb_comes_from_the_managers_that_have_it_under_this_name() {
        for (install_qemu, expected) in [
            (
                APT,
                "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gdb-multiarch",
            ),
            ("apk add qemu-system-arm", "apk add gdb-multiarch"),
        ] {
            let facts = Facts {
                tool: Tool::Gdb,
                root: true,
                ..missing(install_qemu)
            };
            assert_eq!(commands(&facts)[1], expected);
        }
        let (why, command) = refusal(&Facts {
            tool: Tool::Gdb,
            root: true,
            ..missing(DNF)
        });
        assert!(why.contains("no package") && command.is_none(), "{why}");
    }

    #[test]
    fn firmware_of_others_comes_from_debian_only() {
        for (tool, package) in [
            (Tool::MicroPython, "firmware-microbit-micropython"),
            (Tool::UBoot, "u-boot-qemu"),
        ] {
            let install = &commands(&Facts {
                tool,
                root: true,
                ..missing(APT)
            })[1];
            assert!(
                install.ends_with(&format!("--no-install-recommends {package}")),
                "{install}"
            );
            let (why, command) = refusal(&Facts {
                tool,
                root: true,
                ..missing(DNF)
            });
            assert!(why.contains("Debian") && command.is_none(), "{why}");
        }
    }

    #[test]
    fn on_an_unknown_system_there_is_no_command_to_tell() {
        let (why, command) = refusal(&Facts {
            install_qemu: None,
            root: true,
            ..missing(APT)
        });
        assert!(why.contains("by hand") && command.is_none(), "{why}");
    }

    #[test]
    fn only_the_refresh_of_the_lists_may_fail() {
        let Plan::Install(steps) = plan(&Facts {
            root: true,
            ..missing(APT)
        }) else {
            panic!("not installed");
        };
        assert_eq!(
            steps
                .iter()
                .map(|step| step.must_succeed)
                .collect::<Vec<_>>(),
            [false, true]
        );
    }
}
