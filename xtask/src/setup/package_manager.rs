//! The package managers of common systems, and what each calls the programs that we need.

use super::{Tool, plan::Step};

/// A package manager, named by its program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PackageManager {
    /// Debian, Ubuntu
    Apt,
    /// Fedora
    Dnf,
    /// Arch Linux
    Pacman,
    /// openSUSE
    Zypper,
    /// Alpine Linux
    Apk,
    /// macOS
    Brew,
}

impl PackageManager {
    /// In the order in which they are looked for: brew last, since it also exists on Linux beside the system's own.
    pub(super) const ALL: [Self; 6] = [
        Self::Apt,
        Self::Dnf,
        Self::Pacman,
        Self::Zypper,
        Self::Apk,
        Self::Brew,
    ];

    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Pacman => "pacman",
            Self::Zypper => "zypper",
            Self::Apk => "apk",
            Self::Brew => "brew",
        }
    }

    pub(super) fn wants_root(self) -> bool {
        self != Self::Brew
    }

    /// The commands that install a program, without `sudo`; nothing where no package has a program of that name.
    pub(super) fn install(self, tool: Tool) -> Option<Vec<Step>> {
        let package = self.package(tool)?;
        let install = |words: &[&str]| {
            let argv = words
                .iter()
                .copied()
                .chain([package])
                .map(str::to_owned)
                .collect();
            Step {
                argv,
                must_succeed: true,
            }
        };
        Some(match self {
            Self::Apt => vec![
                // The lists may be absent (a fresh container) or too old to fetch from. A source that cannot be
                // reached is no reason to stop: the others may do.
                Step {
                    argv: vec!["apt-get".to_owned(), "update".to_owned()],
                    must_succeed: false,
                },
                // `env`, because sudo clears the environment.
                install(&[
                    "env",
                    "DEBIAN_FRONTEND=noninteractive",
                    "apt-get",
                    "install",
                    "-y",
                    "--no-install-recommends",
                ]),
            ],
            Self::Dnf => vec![install(&["dnf", "install", "-y"])],
            // -y: a fresh system has no lists at all.
            Self::Pacman => vec![install(&["pacman", "-Sy", "--needed", "--noconfirm"])],
            Self::Zypper => vec![install(&[
                "zypper",
                "--non-interactive",
                "install",
                "--no-recommends",
            ])],
            Self::Apk => vec![install(&["apk", "add", "--no-cache"])],
            Self::Brew => vec![install(&["brew", "install"])],
        })
    }

    fn package(self, tool: Tool) -> Option<&'static str> {
        match (tool, self) {
            (Tool::Qemu, Self::Apt | Self::Dnf | Self::Pacman | Self::Apk) => Some("qemu-system-arm"),
            (Tool::Qemu, Self::Zypper) => Some("qemu-arm"),
            (Tool::Qemu, Self::Brew) => Some("qemu"),
            // Elsewhere the ordinary GDB speaks ARM as well, but is not called `gdb-multiarch`.
            (Tool::Gdb, Self::Apt | Self::Apk) => Some("gdb-multiarch"),
            (Tool::Gdb, _) => None,
        }
    }
}
