//! The configuration file: where it is looked for, whose it may be, and how it is read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::OFlags;
use serde_json::json;

use crate::failure::Failure;
use crate::reporter::Reporter;
use crate::settings::Settings;

/// The name that is looked for.
pub(crate) const NAME: &str = "qemu-controller.toml";

/// What marks the root of a project: nothing above it belongs to it.
const PROJECT_ROOTS: [&str; 5] = [".git", ".hg", ".jj", ".svn", ".bzr"];

/// More is no configuration file.
const MAX_BYTES: u64 = 1024 * 1024;

/// So many characters of a line are quoted.
const QUOTED: usize = 200;

/// The configuration file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the configuration file {} is wrong", path.display())]
    Wrong { path: PathBuf, source: Wrong },
}

/// What is wrong in the file, with the line that it is in.
#[derive(Debug)]
pub(crate) struct Wrong(toml::de::Error);

impl std::error::Error for Wrong {}

impl fmt::Display for Wrong {
    /// It quotes the line, which may be of any length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let short = text
            .trim_end()
            .lines()
            .map(|line| match line.char_indices().nth(QUOTED) {
                Some((end, _)) => format!("{}…", line[..end].trim_end()),
                None => line.to_owned(),
            });
        f.write_str(&short.collect::<Vec<_>>().join("\n"))
    }
}

/// What the file says: the one that is named, or the nearest of the project, if there is one.
///
/// One that was not named is reported where it decides what runs or what is written.
pub(crate) fn settings(
    named: Option<&Path>,
    folder: &Path,
    reporter: &Reporter,
) -> Result<Settings, Failure> {
    if let Some(path) = named {
        return Ok(read(path)?);
    }
    // The current folder has no symbolic link in it.
    let home = std::env::var_os("HOME").and_then(|home| Path::new(&home).canonicalize().ok());
    let Some(path) = nearest(folder, home.as_deref()) else {
        return Ok(Settings::default());
    };
    if let Some(why) = distrust(&path).map_err(|source| {
        let path = path.clone();
        ConfigFileError::Unreadable { path, source }
    })? {
        let words = format!(
            "{} is not read: {why}; --config reads it all the same",
            shown(&path)
        );
        let object = json!({ "event": "config", "path": path.to_string_lossy(), "ignored": why });
        reporter.say(Some(&words), &object)?;
        return Ok(Settings::default());
    }
    let settings = read(&path)?;
    let sets = settings.sets_of_weight();
    if !sets.is_empty() {
        let words = format!("{} sets {}", shown(&path), sets.join(", "));
        let object = json!({ "event": "config", "path": path.to_string_lossy(), "sets": sets });
        reporter.say(Some(&words), &object)?;
    }
    Ok(settings)
}

/// What the nearest file of the project says of the board; of the rest it is said that it is left
/// out.
pub(crate) fn board(folder: &Path, reporter: &Reporter) -> Result<Settings, Failure> {
    let settings = settings(None, folder, reporter)?;
    let sets = settings.sets_of_weight();
    if !sets.is_empty() {
        let words = format!("of {NAME} only machine, cpu, memory and deterministic are taken here");
        reporter.say(
            Some(&words),
            &json!({ "event": "config", "left_out": sets }),
        )?;
    }
    Ok(settings)
}

/// A path on one line.
fn shown(path: &Path) -> String {
    crate::escape::line(&path.display().to_string())
}

/// The nearest file from this folder upwards, but no higher than the project: its root, the home
/// folder, the file system.
fn nearest(folder: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let own = device(folder)?;
    for folder in folder.ancestors() {
        if device(folder) != Some(own) {
            return None;
        }
        let path = folder.join(NAME);
        if path.is_file() {
            return Some(path);
        }
        let is_root = PROJECT_ROOTS.iter().any(|mark| folder.join(mark).exists());
        if is_root || home == Some(folder) {
            return None;
        }
    }
    None
}

/// The file system that a folder is on.
fn device(folder: &Path) -> Option<u64> {
    folder.metadata().ok().map(|metadata| metadata.dev())
}

/// Why a file that nobody named is not to decide what runs: somebody else may have written it.
fn distrust(path: &Path) -> io::Result<Option<&'static str>> {
    let user = Uid::effective();
    let folder = path.parent().unwrap_or(Path::new("/"));
    for (place, by_all, by_group) in [
        (
            path,
            "somebody else can write it (chmod o-w mends that)",
            "its group can write it (chmod g-w mends that)",
        ),
        (
            folder,
            "somebody else can write its folder (chmod o-w mends that)",
            "its folder's group can write there (chmod g-w mends that)",
        ),
    ] {
        let metadata = place.metadata()?;
        if ![user.as_raw(), 0].contains(&metadata.uid()) {
            return Ok(Some("it or its folder belongs to somebody else"));
        }
        if metadata.mode() & 0o002 != 0 {
            return Ok(Some(by_all));
        }
        if metadata.mode() & 0o020 != 0 && !is_private(Gid::from_raw(metadata.gid()), user) {
            return Ok(Some(by_group));
        }
    }
    Ok(None)
}

/// Whether a group is the user's own and nobody else's, as many systems give one to each user: it
/// has the user's name, and no other member. What cannot be looked up is not.
fn is_private(group: Gid, user: Uid) -> bool {
    let (Ok(Some(group)), Ok(Some(user))) = (Group::from_gid(group), User::from_uid(user)) else {
        return false;
    };
    group.name == user.name && group.mem.iter().all(|member| *member == user.name)
}

fn read(path: &Path) -> Result<Settings, ConfigFileError> {
    let text = read_text(path).map_err(|source| ConfigFileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    match toml::from_str::<Settings>(&text) {
        Ok(settings) => Ok(settings.relative_to(path.parent().unwrap_or(Path::new("")))),
        Err(error) => Err(ConfigFileError::Wrong {
            path: path.to_owned(),
            source: Wrong(error),
        }),
    }
}

/// Opens what can be read without waiting: a pipe may have no writer, or one that says nothing.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match file.metadata()?.file_type().is_fifo() {
        true => Err(io::Error::other("it is a pipe; a file was wanted")),
        false => Ok(file),
    }
}

/// The text of a file that is no pipe and has at most [`MAX_BYTES`].
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        let why = format!("it has more than {} KiB", MAX_BYTES / 1024);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::bundle::When;
    use crate::settings::{Newline, OnFault, SemihostingMode, Timeout};

    fn settings(named: Option<&Path>, folder: &Path) -> Result<Settings, Failure> {
        super::settings(named, folder, &Reporter::new(None, &[]).unwrap())
    }

    #[test]
    fn every_key() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"
            machine = "mps2-an385"
            cpu = "cortex-m3"
            memory = "16M"
            qemu = "tools/qemu-system-arm"
            timeout = "1m30s"
            on-fault = "continue"
            reboot = true
            deterministic = 7
            log = "firmware.log"
            bundle = "on-failure"
            bundle-dir = "bundles"
            semihosting = "full"
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
            on_fault: Some(OnFault::Continue),
            reboot: Some(true),
            deterministic: Some(7),
            log: Some(folder.path().join("firmware.log")),
            bundle: Some(When::OnFailure),
            bundle_dir: Some(folder.path().join("bundles")),
            semihosting: Some(SemihostingMode::Full),
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
            ("deterministic = 100\n", "line 1", "from 0 to 10"),
            ("deterministic = -1\n", "line 1", "from 0 to 10"),
            ("\nqemu = ''\n", "line 2", "is empty"),
            ("machine = ''\n", "line 1", "is empty"),
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

    #[test]
    fn nothing_above_the_project_or_the_home_folder_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("project/src");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(folder.path().join(NAME), "machine = 'x'\n").unwrap();
        let above = Some(folder.path().join(NAME));
        let project = folder.path().join("project");
        assert_eq!(nearest(&inner, None), above);
        assert_eq!(nearest(&inner, Some(folder.path())), above);
        assert_eq!(nearest(&inner, Some(&project)), None);
        std::fs::create_dir(project.join(".git")).unwrap();
        assert_eq!(nearest(&inner, None), None);
        std::fs::write(project.join(NAME), "").unwrap();
        assert_eq!(nearest(&inner, None), Some(project.join(NAME)));
        // Another file system.
        assert_eq!(nearest(Path::new("/proc/self"), None), None);
    }

    #[test]
    fn what_somebody_else_can_write_is_not_read_unless_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        std::fs::write(&path, "machine = 'x'\n").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let machine = |named| settings(named, folder.path()).unwrap().machine;
        for (of_folder, of_file, is_read) in [
            (0o755, 0o644, true),
            (0o777, 0o644, false),
            (0o1777, 0o644, false),
            (0o755, 0o666, false),
            // Another's group; the user's own is looked up below.
            (
                0o775,
                0o644,
                is_private(of(folder.path()), Uid::effective()),
            ),
            (0o755, 0o664, is_private(of(&path), Uid::effective())),
        ] {
            mode(folder.path(), of_folder);
            mode(&path, of_file);
            assert_eq!(
                machine(None).is_some(),
                is_read,
                "{of_folder:o} {of_file:o}"
            );
            assert!(machine(Some(&path)).is_some());
        }
    }

    fn of(path: &Path) -> Gid {
        Gid::from_raw(path.metadata().unwrap().gid())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_group_is_private_that_has_the_user_s_name_and_nobody_else() {
        let root = Uid::from_raw(0);
        assert!(is_private(Gid::from_raw(0), root));
        assert!(!is_private(Gid::from_raw(1), root), "daemon's");
        assert!(!is_private(Gid::from_raw(4_000_000_000), root), "no group");
    }

    #[test]
    fn a_long_line_is_not_quoted_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        std::fs::write(&path, format!("machine = '{}\n", "ü".repeat(50_000))).unwrap();
        let error = settings(Some(&path), folder.path()).unwrap_err();
        let source = error.source().unwrap().to_string();
        assert!(source.len() < 2000 && source.contains("line 1"), "{source}");
    }

    #[test]
    fn a_pipe_is_refused_and_nothing_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let error = settings(Some(&path), folder.path()).unwrap_err();
        assert!(error.source().unwrap().to_string().contains("pipe"));
        assert_eq!(settings(None, folder.path()).unwrap(), Settings::default());
    }

    #[test]
    fn a_file_of_any_length_takes_bounded_memory() {
        let error = settings(Some(Path::new("/dev/zero")), Path::new("/")).unwrap_err();
        let source = error.source().unwrap().to_string();
        assert!(source.contains("1024 KiB"), "{source}");
    }
}
