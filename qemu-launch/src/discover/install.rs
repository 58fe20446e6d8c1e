//! The command that installs QEMU on this system.

/// The command line that installs the package with this program (`qemu-system-arm`, ...), ready to
/// run as root, with the flag that asks no questions; on macOS Homebrew's, to be run as the user.
/// `None` on a system that is not known.
///
/// Known are the distributions with apt, dnf, pacman, zypper and apk, by `/etc/os-release`, and
/// macOS.
#[must_use]
pub fn install_command(program: &str) -> Option<Vec<String>> {
    if cfg!(target_os = "macos") {
        return Some(["brew", "install", "qemu"].map(str::to_owned).into());
    }
    let os_release = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .ok()?;
    install_command_on(&os_release, program)
}

/// As [`install_command`], for the system that this `os-release` file describes.
fn install_command_on(os_release: &str, program: &str) -> Option<Vec<String>> {
    let target = target_of(program)?;
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    let unquoted = |text: &str| text.trim_matches(['"', '\'']).to_owned();
    let ids = [value("ID"), value("ID_LIKE")]
        .into_iter()
        .flatten()
        .map(unquoted)
        .collect::<Vec<_>>()
        .join(" ");
    let (command, package): (&[&str], String) = ids.split_whitespace().find_map(|id| match id {
        "debian" | "ubuntu" => Some((&["apt-get", "install", "-y"][..], debian_package(target))),
        "fedora" | "rhel" | "centos" => Some((
            &["dnf", "install", "-y"][..],
            format!("qemu-system-{}", family(target)),
        )),
        "arch" => Some((
            &["pacman", "-S", "--noconfirm"][..],
            format!("qemu-system-{}", family(target)),
        )),
        "suse" | "opensuse" => Some((
            &["zypper", "--non-interactive", "install"][..],
            suse_package(target),
        )),
        "alpine" => Some((&["apk", "add"][..], format!("qemu-system-{target}"))),
        _ => None,
    })?;
    Some(
        command
            .iter()
            .map(|word| (*word).to_owned())
            .chain([package])
            .collect(),
    )
}

/// `arm` of `qemu-system-arm`.
pub(crate) fn target_of(program: &str) -> Option<&str> {
    let target = program.strip_prefix("qemu-system-")?;
    let end = target
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(target.len());
    Some(&target[..end]).filter(|target| !target.is_empty())
}

/// Fedora and Arch have one package for the sizes and byte orders of an architecture, but aarch64
/// apart from arm.
fn family(target: &str) -> &str {
    match target {
        "x86_64" | "i386" => "x86",
        "riscv32" | "riscv64" => "riscv",
        "ppc" | "ppc64" => "ppc",
        "mips" | "mipsel" | "mips64" | "mips64el" => "mips",
        "sparc" | "sparc64" => "sparc",
        "sh4" | "sh4eb" => "sh4",
        "microblaze" | "microblazeel" => "microblaze",
        "xtensa" | "xtensaeb" => "xtensa",
        other => other,
    }
}

fn debian_package(target: &str) -> String {
    let package = match family(target) {
        "arm" | "aarch64" => "arm",
        own @ ("x86" | "mips" | "ppc" | "sparc") => own,
        _ => "misc",
    };
    format!("qemu-system-{package}")
}

fn suse_package(target: &str) -> String {
    let package = match family(target) {
        "arm" | "aarch64" => "arm",
        own @ ("x86" | "ppc" | "s390x") => own,
        _ => "extra",
    };
    format!("qemu-{package}")
}

#[cfg(test)]
mod tests {
    use super::{install_command_on, target_of};

    #[test]
    fn each_distribution_has_its_command() {
        let rows = [
            (
                "ID=debian",
                "qemu-system-arm",
                "apt-get install -y qemu-system-arm",
            ),
            (
                "ID=debian",
                "qemu-system-aarch64",
                "apt-get install -y qemu-system-arm",
            ),
            (
                "ID=debian",
                "qemu-system-riscv32",
                "apt-get install -y qemu-system-misc",
            ),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"",
                "qemu-system-x86_64",
                "apt-get install -y qemu-system-x86",
            ),
            (
                "ID=fedora",
                "qemu-system-arm",
                "dnf install -y qemu-system-arm",
            ),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"",
                "qemu-system-i386",
                "dnf install -y qemu-system-x86",
            ),
            (
                "ID=arch",
                "qemu-system-riscv64",
                "pacman -S --noconfirm qemu-system-riscv",
            ),
            (
                "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"",
                "qemu-system-arm",
                "zypper --non-interactive install qemu-arm",
            ),
            ("ID=alpine", "qemu-system-arm", "apk add qemu-system-arm"),
        ];
        for (os_release, program, expected) in rows {
            let command = install_command_on(os_release, program).map(|words| words.join(" "));
            assert_eq!(command.as_deref(), Some(expected), "{os_release}");
        }
    }

    #[test]
    fn an_unknown_system_or_program_has_none() {
        assert_eq!(install_command_on("ID=plan9", "qemu-system-arm"), None);
        assert_eq!(install_command_on("NAME=debian", "qemu-system-arm"), None);
        assert_eq!(install_command_on("ID=debian", "gdb"), None);
    }

    #[test]
    fn the_target_is_read_from_the_name() {
        assert_eq!(target_of("qemu-system-arm"), Some("arm"));
        assert_eq!(target_of("qemu-system-x86_64.exe"), Some("x86_64"));
        assert_eq!(target_of("qemu-system-arm-10.0"), Some("arm"));
        assert_eq!(target_of("qemu-system-"), None);
        assert_eq!(target_of("my-qemu"), None);
    }
}
