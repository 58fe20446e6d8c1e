//! What to do about a program that may be missing: decided from facts alone, so that tests need no such machine.

use super::{Tool, package_manager::PackageManager};

/// All that the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) tool: Tool,
    pub(super) installed: bool,
    pub(super) no_install: bool,
    pub(super) manager: Option<PackageManager>,
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
    Refuse { why: String, command: Option<String> },
}

/// A command, and whether its failure ends the installation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) argv: Vec<String>,
    pub(super) must_succeed: bool,
}

impl Step {
    pub(super) fn shown(&self) -> String {
        self.argv.join(" ")
    }
}

/// What to do, from the facts alone.
pub(super) fn plan(facts: Facts) -> Plan {
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

#[cfg(test)]
mod tests {
    use super::{super::package_manager::PackageManager as Pm, *};

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
}
