//! Linux kernels of Debian's, for the tests on guests of others: only their files of /boot, unpacked
//! in a folder.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use super::apt::{self, Apt};

/// Suite, architecture, and the package that names the newest kernel. Debian 12 has none for
/// RISC-V.
const KERNELS: [[&str; 3]; 3] = [
    ["bookworm", "arm64", "linux-image-cloud-arm64"],
    ["bookworm", "armhf", "linux-image-armmp"],
    ["trixie", "riscv64", "linux-image-riscv64"],
];

/// Fetches and unpacks them, 180 MB, unless they are there.
pub(super) fn unpack(folder: &Path) -> anyhow::Result<()> {
    let boot = folder.join("boot");
    if boot
        .read_dir()
        .is_ok_and(|files| files.count() == KERNELS.len())
    {
        return Ok(());
    }
    eprintln!("fetching Debian's kernels into {}", folder.display());
    let packages = folder.join("packages");
    fs::create_dir_all(&packages)?;
    let sources = KERNELS.map(|[suite, architecture, _]| apt::source(suite, Some(architecture)));
    let mut apt = Apt::new(&folder.join("apt"), &sources)?;
    let architectures = KERNELS.map(|[_, architecture, _]| architecture);
    for architecture in architectures.iter().chain(&["amd64"]) {
        let option = format!("--option=APT::Architectures::={architecture}");
        apt.options.push(option);
    }
    apt.update()?;
    let names = KERNELS.map(|[_, architecture, package]| {
        let mut show = apt.command("apt-cache");
        let name = format!("{package}:{architecture}");
        let shown = apt::run(show.args(["show", "--no-all-versions", &name]))?;
        let newest = newest(&shown).with_context(|| format!("{package} names no kernel"))?;
        Ok(format!("{newest}:{architecture}"))
    });
    let names = names.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    apt.download(&names, &packages)?;
    for package in fs::read_dir(&packages)? {
        unpack_boot(&package?.path(), folder)?;
    }
    fs::remove_dir_all(folder.join("apt"))?;
    fs::remove_dir_all(packages)?;
    Ok(())
}

/// What `linux-image-armmp` depends on.
fn newest(shown: &str) -> Option<&str> {
    let depends = shown
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    depends.split_whitespace().next()
}

/// The modules take ten times as much.
fn unpack_boot(package: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut archive = Command::new("dpkg-deb");
    archive.arg("--fsys-tarfile").arg(package);
    let mut archive = archive.stdout(Stdio::piped()).spawn()?;
    let piped = archive.stdout.take().context("no pipe")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--wildcards", "./boot/vmlinu*"]);
    let unpacked = tar.current_dir(folder).stdin(piped).status()?;
    let read = archive.wait()?;
    ensure!(
        unpacked.success() && read.success(),
        "{} cannot be unpacked",
        package.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn the_newest_kernel_is_what_the_package_depends_on() {
        let shown =
            "Package: linux-image-armmp\nDepends: linux-image-6.1.0-50-armmp (= 6.1.176-1)\n";
        assert_eq!(newest(shown), Some("linux-image-6.1.0-50-armmp"));
        assert_eq!(newest("Package: none\n"), None);
    }
}
