//! The configuration file: where it is looked for, and how it is read.

use std::io;
use std::path::{Path, PathBuf};

use crate::settings::Settings;

/// The name that is looked for.
const NAME: &str = "qemu-controller.toml";

/// The configuration file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the configuration file {} is wrong", path.display())]
    Wrong { path: PathBuf, source: Wrong },
}

/// What is wrong in the file, with the line that it is in.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.to_string().trim_end())]
pub(crate) struct Wrong(toml::de::Error);

/// What the file says: the one that is named, or the nearest from this folder upwards, if there is
/// one.
pub(crate) fn settings(named: Option<&Path>, folder: &Path) -> Result<Settings, ConfigFileError> {
    let Some(path) = named.map(Path::to_owned).or_else(|| nearest(folder)) else {
        return Ok(Settings::default());
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigFileError::Unreadable { path, source }),
    };
    match toml::from_str::<Settings>(&text) {
        Ok(settings) => Ok(settings.relative_to(path.parent().unwrap_or(Path::new("")))),
        Err(error) => Err(ConfigFileError::Wrong {
            path,
            source: Wrong(error),
        }),
    }
}

fn nearest(folder: &Path) -> Option<PathBuf> {
    folder
        .ancestors()
        .map(|folder| folder.join(NAME))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::settings::{Newline, Timeout};

    #[test]
    fn every_key() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"
            machine = "mps2-an385"
            cpu = "cortex-m3"
            memory = "16M"
            qemu = "tools/qemu-system-arm"
            timeout = "1m30s"
            reboot = true
            deterministic = 7
            log = "firmware.log"
            newline = "crlf"
            qemu-args = ["-d", "guest_errors"]
        "#;
        std::fs::write(folder.path().join(NAME), text).unwrap();
        let expected = Settings {
            machine: Some("mps2-an385".to_owned()),
            cpu: Some("cortex-m3".to_owned()),
            memory: Some("16M".to_owned()),
            qemu: Some(folder.path().join("tools/qemu-system-arm")),
            timeout: Some(Timeout::After(std::time::Duration::from_secs(90))),
            reboot: Some(true),
            deterministic: Some(7),
            log: Some(folder.path().join("firmware.log")),
            newline: Some(Newline::Crlf),
            qemu_args: vec!["-d".to_owned(), "guest_errors".to_owned()],
        };
        assert_eq!(settings(None, folder.path()).unwrap(), expected);
    }

    #[test]
    fn the_nearest_counts_and_a_named_one_more() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let write = |path: &Path, machine: &str| {
            std::fs::write(path, format!("machine = '{machine}'\n")).unwrap();
        };
        let machine = |named: Option<&Path>| settings(named, &inner).unwrap().machine;
        write(&folder.path().join(NAME), "outer");
        assert_eq!(machine(None).as_deref(), Some("outer"));
        write(&folder.path().join("a").join(NAME), "nearer");
        assert_eq!(machine(None).as_deref(), Some("nearer"));
        let other = folder.path().join("other.toml");
        write(&other, "named");
        assert_eq!(machine(Some(&other)).as_deref(), Some("named"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let rows = [
            ("mashine = 'x'\n", "line 1", "unknown field `mashine`"),
            ("machine = 'x'\n[run]\n", "line 2", "unknown field `run`"),
            ("machine = 1\n", "line 1", "expected a string"),
            ("\ntimeout = '10'\n", "line 2", "time unit needed"),
            ("timeout = 10\n", "line 1", "expected a string"),
            ("newline = 'lf'\n", "line 1", "unknown variant `lf`"),
            ("machine = 'x'\nmachine = 'y'\n", "line 2", "duplicate key"),
            ("machine\n", "line 1", "="),
        ];
        for (text, line, expected) in rows {
            std::fs::write(&path, text).unwrap();
            let error = settings(None, folder.path()).unwrap_err();
            assert!(error.to_string().contains(NAME), "{error}");
            let source = error.source().unwrap().to_string();
            assert!(
                source.contains(line) && source.contains(expected),
                "{text:?}: {source}"
            );
        }
        let missing = settings(Some(Path::new("no/such.toml")), folder.path()).unwrap_err();
        assert!(missing.to_string().contains("no/such.toml"), "{missing}");
    }
}
