//! The QEMUs that the suites run on: the installed one, and further ones that somebody names.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use qemu_launch::discover::{Qemu, QemuVersion};
use tempfile::TempDir;

/// The name that the tests look for.
const NAME: &str = "qemu-system-arm";

/// The option that names further QEMUs.
#[derive(clap::Args, Default)]
pub(crate) struct Further {
    /// A qemu-system-arm to run on as well as on the installed one, with those of other targets that
    /// are beside it; may be given again
    ///
    /// `cargo xtask setup --qemu-backports` unpacks a newer one beside the installed one, and says
    /// its path.
    #[arg(
        long = "qemu",
        value_name = "PATH",
        env = "QEMU_MATRIX",
        value_delimiter = ':'
    )]
    paths: Vec<PathBuf>,
}

/// One of the QEMUs, and what makes a test find it.
pub(crate) struct Variant {
    /// `7.2.22`.
    pub(crate) version: String,
    /// Nothing for the installed one, which the tests find by themselves.
    pub(crate) named: Option<Named>,
}

/// A folder in which the program has the name that tests look for, whatever its own is.
pub(crate) struct Named {
    folder: TempDir,
    path: OsString,
}

impl Further {
    /// The installed QEMU and the further ones, in this order, with their versions.
    pub(crate) fn variants(&self) -> anyhow::Result<Vec<Variant>> {
        let installed = Variant {
            version: version(Path::new(NAME))?,
            named: None,
        };
        // A variable that is set to nothing names none.
        let further = self
            .paths
            .iter()
            .filter(|path| !path.as_os_str().is_empty());
        let further = further.map(|path| Variant::named(path));
        std::iter::once(Ok(installed)).chain(further).collect()
    }
}

impl Variant {
    fn named(path: &Path) -> anyhow::Result<Self> {
        let program = std::path::absolute(path)?;
        let version = version(&program)?;
        let folder = tempfile::tempdir()?;
        std::os::unix::fs::symlink(&program, folder.path().join(NAME))
            .context("cannot link to the program")?;
        link_others(&program, folder.path())?;
        let old = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            std::iter::once(folder.path().to_owned()).chain(std::env::split_paths(&old)),
        )
        .context("the PATH cannot be put before")?;
        Ok(Self {
            version,
            named: Some(Named { folder, path }),
        })
    }

    /// Where it is with those of other targets, if it is not the installed one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.named.as_ref().map(|named| named.folder.path())
    }

    /// What to set for a program that is to find this QEMU: by the `PATH`, and by the variable that
    /// comes before it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        self.named
            .as_ref()
            .map_or_else(Vec::new, |Named { folder, path }| {
                vec![
                    ("PATH", path.clone()),
                    ("QEMU_SYSTEM_ARM", folder.path().join(NAME).into()),
                ]
            })
    }
}

/// Links to what is beside it for other targets: they are of the same version.
fn link_others(program: &Path, folder: &Path) -> anyhow::Result<()> {
    let beside = program.parent().context("a program is in a folder")?;
    for entry in std::fs::read_dir(beside)? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let is_qemu = name.to_string_lossy().starts_with("qemu-system-");
        let link = folder.join(&name);
        if is_qemu && !link.exists() {
            std::os::unix::fs::symlink(path, link).context("cannot link to the program")?;
        }
    }
    Ok(())
}

fn version(program: &Path) -> anyhow::Result<String> {
    let QemuVersion {
        major,
        minor,
        micro,
        ..
    } = Qemu::find(program)?
        .version()
        .with_context(|| format!("{}", program.display()))?;
    Ok(format!("{major}.{minor}.{micro}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::write_program;

    #[test]
    fn a_named_one_is_found_by_its_path_and_by_its_variable_under_the_name_that_tests_use() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu of mine");
        write_program(
            &program,
            "#!/bin/sh\necho QEMU emulator version 99.8.7\n",
            0o755,
        );
        let variant = Variant::named(&program).unwrap();
        assert_eq!(variant.version, "99.8.7");
        let environment = variant.environment();
        let in_path = std::env::split_paths(&environment[0].1)
            .next()
            .unwrap()
            .join(NAME);
        assert_eq!(environment[0].0, "PATH");
        assert_eq!(
            in_path.canonicalize().unwrap(),
            program.canonicalize().unwrap()
        );
        assert_eq!(environment[1], ("QEMU_SYSTEM_ARM", in_path.into()));
    }

    #[test]
    fn one_that_is_missing_is_told_by_its_path() {
        let error = Variant::named(Path::new("/no/such/qemu")).err().unwrap();
        assert!(format!("{error:#}").contains("/no/such/qemu"), "{error:#}");
    }
}
