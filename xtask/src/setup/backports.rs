//! A newer QEMU from Debian's backports, unpacked beside the installed one: nothing is installed,
//! and no root needed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use qemu_launch::discover::Qemu;

/// Debian's own, as every mirror has what it has.
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
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
    let apt = Apt::new(&folder.join("apt"), suite)?;
    apt.update()?;
    let names = apt.wanted()?;
    let packages = folder.join("packages");
    fs::create_dir_all(&packages)?;
    apt.download(&names, &packages)?;
    for package in fs::read_dir(&packages)? {
        run(Command::new("dpkg")
            .arg("-x")
            .arg(package?.path())
            .arg(&folder))?;
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

/// `apt-get` with lists and a cache of its own: what this machine installs from is left as it is.
struct Apt {
    options: Vec<String>,
    backports: String,
}

impl Apt {
    fn new(folder: &Path, suite: &str) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let backports = format!("{suite}-backports");
        let sources: String = [suite, &backports]
            .map(|suite| format!("deb [signed-by={KEYRING}] {MIRROR} {suite} main\n"))
            .concat();
        fs::write(folder.join("sources.list"), sources)?;
        let option = |key: &str, value: &str| {
            format!("--option=Dir::{key}={}", folder.join(value).display())
        };
        let options = vec![
            option("Etc::sourcelist", "sources.list"),
            "--option=Dir::Etc::sourceparts=-".to_owned(),
            option("State::lists", "lists"),
            option("Cache", "cache"),
            // Its own user could not write here.
            "--option=APT::Sandbox::User=".to_owned(),
        ];
        Ok(Self { options, backports })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command
            .args(["--quiet", "--quiet"])
            .args(&self.options)
            .args(["--target-release", &self.backports]);
        command.args(words);
        command
    }

    fn update(&self) -> anyhow::Result<()> {
        run(&mut self.command(&["update"])).map(drop)
    }

    /// The packages that would be installed: QEMU's own, and libraries that are missing or too old.
    fn wanted(&self) -> anyhow::Result<Vec<String>> {
        let mut install = self.command(&["--simulate", "install", "--no-install-recommends"]);
        let plan = run(install.args(PACKAGES))?;
        let names = to_install(&plan);
        ensure!(
            !names.is_empty(),
            "QEMU of {} is installed already: nothing to unpack",
            self.backports
        );
        Ok(names)
    }

    fn download(&self, names: &[String], folder: &Path) -> anyhow::Result<()> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        run(self.command(&["download"]).args(names).current_dir(folder)).map(drop)
    }
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

/// Runs a command to its end; what it printed.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!(
        "{:?} {:?}",
        command.get_program(),
        command.get_args().collect::<Vec<_>>()
    );
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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
        let said = run(Command::new("bash").arg(&program).args(["a b", "c"])).unwrap();
        assert!(said.contains("a b c"), "{said}");
        assert!(said.contains("usr/lib/any-linux-gnu/qemu"), "{said}");
    }
}
