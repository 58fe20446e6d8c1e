//! Debian's packages, fetched beside the system: with lists and a cache of their own, so that what
//! this machine installs from is left as it is, and no root is needed.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

/// Debian's own, as every mirror has what it has.
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// `apt-get` and `apt-cache` with a folder of their own.
pub(super) struct Apt {
    pub(super) options: Vec<String>,
}

/// A line of `sources.list`: a suite, of this machine's architecture or of another.
pub(super) fn source(suite: &str, architecture: Option<&str>) -> String {
    let architecture = architecture.map(|name| format!(" arch={name}"));
    let architecture = architecture.unwrap_or_default();
    format!("deb [signed-by={KEYRING}{architecture}] {MIRROR} {suite} main\n")
}

impl Apt {
    pub(super) fn new(folder: &Path, sources: &[String]) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("sources.list"), sources.concat())?;
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
        Ok(Self { options })
    }

    /// `apt-get` or `apt-cache`.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["--quiet", "--quiet"]).args(&self.options);
        command
    }

    pub(super) fn update(&self) -> anyhow::Result<()> {
        run(self.command("apt-get").arg("update")).map(drop)
    }

    pub(super) fn download(&self, names: &[String], folder: &Path) -> anyhow::Result<()> {
        let mut command = self.command("apt-get");
        run(command.arg("download").args(names).current_dir(folder)).map(drop)
    }
}

/// Runs a command to its end; what it printed.
pub(super) fn run(command: &mut Command) -> anyhow::Result<String> {
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
