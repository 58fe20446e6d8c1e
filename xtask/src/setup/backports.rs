//! A newer QEMU from Debian's backports, unpacked beside the installed one: nothing is installed,
//! and no root needed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use qemu_launch::discover::Qemu;

use super::apt::{self, Apt};

/// The program that the tests start, and the packages of the targets that `sweep` walks.
const PROGRAM: &str = "qemu-system-arm";
const PACKAGES: [&str; 4] = [
    PROGRAM,
    "qemu-system-misc",
    "qemu-system-mips",
    "qemu-system-x86",
];

/// Fetches and unpacks it into `folder`; the path of the program to run.
pub(super) fn unpack(folder: &Path) -> anyhow::Result<PathBuf> {
    let release =
        fs::read_to_string("/etc/os-release").context("what system this is cannot be read")?;
    let suite = suite(&release)?;
    let folder = std::path::absolute(folder)?;
    let backports = format!("{suite}-backports");
    let sources = [suite, &backports].map(|suite| apt::source(suite, None));
    let mut apt = Apt::new(&folder.join("apt"), &sources)?;
    apt.options
        .extend(["--target-release".to_owned(), backports.clone()]);
    apt.update()?;
    let names = wanted(&apt, &backports)?;
    let packages = folder.join("packages");
    fs::create_dir_all(&packages)?;
    apt.download(&names, &packages)?;
    for package in fs::read_dir(&packages)? {
        apt::run(
            Command::new("dpkg")
                .arg("-x")
                .arg(package?.path())
                .arg(&folder),
        )?;
    }
    write_programs(&folder)?;
    let program = folder.join(PROGRAM);
    let version = Qemu::find(&program)?
        .version()
        .with_context(|| format!("{}", program.display()))?;
    fs::remove_dir_all(folder.join("apt"))?;
    fs::remove_dir_all(packages)?;
    eprintln!(
        "QEMU {}.{}.{} is at {}",
        version.major,
        version.minor,
        version.micro,
        folder.display()
    );
    Ok(program)
}

/// The release, where it is one that has backports.
fn suite(os_release: &str) -> anyhow::Result<&str> {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    ensure!(
        value("ID") == Some("debian"),
        "only Debian has its backports; name another QEMU with --qemu"
    );
    value("VERSION_CODENAME").context("/etc/os-release names no release")
}

/// The packages that would be installed: QEMU's own, and libraries that are missing or too old.
fn wanted(apt: &Apt, backports: &str) -> anyhow::Result<Vec<String>> {
    let mut install = apt.command("apt-get");
    install.args(["--simulate", "install", "--no-install-recommends"]);
    let names = to_install(&apt::run(install.args(PACKAGES))?);
    ensure!(
        !names.is_empty(),
        "QEMU of {backports} is installed already: nothing to unpack"
    );
    Ok(names)
}

/// Of a simulated installation.
fn to_install(plan: &str) -> Vec<String> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The programs to run: scripts, because QEMU would load the installed one's modules, and the
/// libraries that were unpacked too are not where the system looks.
fn write_programs(folder: &Path) -> anyhow::Result<()> {
    let libraries = fs::read_dir(folder.join("usr/lib"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.join("qemu").is_dir())
        .context("the packages hold no QEMU modules")?;
    for program in fs::read_dir(folder.join("usr/bin"))? {
        let program = program?;
        let name = program.file_name().to_string_lossy().into_owned();
        if name.starts_with("qemu-system-") {
            write_script(&folder.join(name), &program.path(), &libraries)?;
        }
    }
    Ok(())
}

/// Under the name it was called by, and in the same process: its id, its descriptors, and what ends
/// it with its parent stay.
fn write_script(script: &Path, program: &Path, libraries: &Path) -> anyhow::Result<()> {
    let (program, libraries) = (program.display(), libraries.display());
    let text = format!(
        "#!/bin/bash\n\
         export QEMU_MODULE_DIR='{libraries}/qemu' LD_LIBRARY_PATH='{libraries}'\n\
         exec -a \"$0\" '{program}' \"$@\"\n"
    );
    fs::write(script, text)?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_has_backports() {
        assert_eq!(
            suite("NAME=x\nVERSION_CODENAME=bookworm\nID=debian\n").unwrap(),
            "bookworm"
        );
        assert!(suite("ID=ubuntu\nVERSION_CODENAME=noble\n").is_err());
        assert!(suite("ID=debian\n").is_err(), "unstable has no name");
    }

    #[test]
    fn the_plan_of_an_installation_names_what_to_fetch() {
        let plan = "Reading package lists...\nInst qemu-system-arm [1:7.2] (1:10.0 Debian Backports) []\n\
                    Inst liburing2 (2.3 Debian)\nConf qemu-system-arm (1:10.0)\n";
        assert_eq!(to_install(plan), ["qemu-system-arm", "liburing2"]);
    }

    #[test]
    fn the_program_runs_the_unpacked_one_under_the_name_it_was_called_by_with_its_own_modules() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("usr/bin");
        fs::create_dir_all(folder.path().join("usr/lib/any-linux-gnu/qemu")).unwrap();
        fs::create_dir_all(&bin).unwrap();
        let inner = "#!/bin/bash\ntr '\\0' ' ' < /proc/$$/cmdline; echo \"$QEMU_MODULE_DIR\"\n";
        test_support::write_program(&bin.join(PROGRAM), inner, 0o755);
        write_programs(folder.path()).unwrap();
        let program = folder.path().join(PROGRAM);
        // Read and not executed: a child of another test may still have it open for writing.
        let said = apt::run(Command::new("bash").arg(&program).args(["a b", "c"])).unwrap();
        assert!(said.contains("a b c"), "{said}");
        assert!(said.contains("usr/lib/any-linux-gnu/qemu"), "{said}");
    }
}
