//! `cargo xtask tidy`: checks house rules that neither the compiler nor clippy knows.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use crate::workspace;

/// Check house rules that neither the compiler nor clippy knows
#[derive(clap::Args, Default)]
pub(crate) struct Args {}

/// A Rust file may have so many lines; longer ones have an entry in [`LONG_FILES`].
const MAX_LINES: usize = 400;

/// Files that are longer for a reason: the path from the workspace's folder, and the reason.
const LONG_FILES: &[(&str, &str)] = &[
    (
        "gdb-port/src/probe.rs",
        "one state machine, with the documentation of what each phase may do to the guest",
    ),
    (
        "qmp-proto/src/connection.rs",
        "one state machine, a quarter of it documentation",
    ),
    (
        "qmp-proto/src/framing.rs",
        "one scanner: its states are of no use apart",
    ),
    (
        "qmp-proto/src/message.rs",
        "all that the server can say, a small type each",
    ),
    (
        "qmp-proto/tests/bad_input/codec_rows.rs",
        "one table: a row for each way of being wrong",
    ),
];

/// What no Rust file contains. (Put together here, so that this file does not contain it either.)
const FORBIDDEN: [(&str, &str); 2] = [
    (
        concat!("todo", "!("),
        "unfinished work has no place in a commit",
    ),
    (
        concat!("#[", "ignore"),
        "a test that needs equipment gets a feature, so that it fails instead of being passed over",
    ),
];

/// First folders of paths that exist on one person's machine only.
const PERSONAL_FOLDERS: [&str; 6] = ["home", "root", "Users", "work", "workspace", "builds"];

/// The files whose text is ours: recorded transcripts, for one, are left as they were recorded.
const TEXT_EXTENSIONS: [&str; 8] = ["rs", "toml", "md", "s", "ld", "sh", "yml", "yaml"];
const TEXT_FILES: [&str; 4] = [".ci/run", ".ci/long", ".gitignore", ".gitattributes"];

pub(crate) fn run(Args {}: Args) -> anyhow::Result<()> {
    let root = workspace::root();
    let files = files(&root)?;
    let mut faults = stale_entries(&root);
    for file in &files {
        let text = fs::read_to_string(root.join(file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        faults.extend(faults_in(&file.to_string_lossy(), &text));
    }
    if faults.is_empty() {
        println!("{} files are tidy", files.len());
        return Ok(());
    }
    bail!("untidy:\n  {}", faults.join("\n  "))
}

/// The text files that git tracks or would add.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root)
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .context("cannot run git, which knows the project's files")?;
    ensure!(
        output.status.success(),
        "git ls-files failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let names = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    let ours = |path: &PathBuf| {
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        TEXT_EXTENSIONS.contains(&extension)
            || TEXT_FILES.iter().any(|file| path == Path::new(file))
    };
    // A file that was removed, but not yet from git's index, is still listed.
    Ok(names
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(ours)
        .filter(|path| root.join(path).is_file())
        .collect())
}

/// Entries of [`LONG_FILES`] that are not needed any more.
fn stale_entries(root: &Path) -> Vec<String> {
    let long = |path: &str| {
        fs::read_to_string(root.join(path)).is_ok_and(|text| text.lines().count() > MAX_LINES)
    };
    let stale = LONG_FILES.iter().filter(|(path, _)| !long(path));
    stale
        .map(|(path, _)| format!("{path} is in the table of long files, but is not one"))
        .collect()
}

fn faults_in(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if path.ends_with(".rs") {
        if !text.starts_with("//!") {
            faults.push(format!(
                "{path}:1: begins without a `//!` line that says what the file is for"
            ));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES && !LONG_FILES.iter().any(|(long, _)| *long == path) {
            faults.push(format!(
                "{path}: {lines} lines; split it, or give the reason in xtask/src/tidy.rs (the limit is {MAX_LINES})"
            ));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        faults.push(format!("{path}: does not end with a newline"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if line.ends_with([' ', '\t']) {
            faults.push(format!(
                "{path}:{number}: white space at the end of the line"
            ));
        }
        if let Some(found) = personal_path(line) {
            faults.push(format!(
                "{path}:{number}: a path that exists on one machine only: {found}"
            ));
        }
        for (word, why) in FORBIDDEN
            .iter()
            .filter(|(word, _)| path.ends_with(".rs") && line.contains(word))
        {
            faults.push(format!("{path}:{number}: {word}: {why}"));
        }
    }
    faults
}

/// An absolute path into somebody's own folders, if the line has one.
fn personal_path(line: &str) -> Option<&str> {
    line.match_indices('/').find_map(|(start, _)| {
        let path = &line[start + 1..];
        let (first, rest) = path.split_once('/')?;
        // Within a longer path or a URL it is something else.
        let inside = line[..start]
            .ends_with(|before: char| before.is_alphanumeric() || "._-~/}>".contains(before));
        let length = first.len()
            + 2
            + rest
                .find(|c: char| c.is_whitespace() || "\"'`),;".contains(c))
                .unwrap_or(rest.len());
        (!inside && PERSONAL_FOLDERS.contains(&first)).then(|| &line[start..start + length])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_fault_and_where_it_is() {
        let table = [
            ("a.rs", "//! Fine.\n", ""),
            ("a.rs", "fn main() {}\n", "a.rs:1: begins without"),
            (
                "a.rs",
                concat!("//! A.\n    todo", "!(\"later\")\n"),
                "a.rs:2: todo",
            ),
            (
                "a.rs",
                concat!("//! A.\n\n#[", "ignore]\n"),
                "a.rs:3: #[ign",
            ),
            (
                "a.rs",
                concat!("//! A.\n\n#[", "ignore = \"slow\"]\n"),
                "a.rs:3: #[ign",
            ),
            ("a.rs", "//! A.", "a.rs: does not end with a newline"),
            ("a.md", "two  \nlines\n", "a.md:1: white space"),
            ("a.md", "no `//!` here, and #[test] is fine\n", ""),
            (
                "a.md",
                concat!("see `/ho", "me/me/qemu/x.rs`\n"),
                concat!("one machine only: /ho", "me/me/qemu/x.rs"),
            ),
            (
                "a.md",
                "https://example.org/home/page, target/work/x, ${HOME}/work/x, <dir>/root/x, ./work/\n",
                "",
            ),
        ];
        for (path, text, expected) in table {
            let faults = faults_in(path, text);
            if expected.is_empty() {
                assert_eq!(faults, [""; 0], "{text:?}");
            } else {
                assert_eq!(faults.len(), 1, "{text:?}: {faults:?}");
                assert!(faults[0].contains(expected), "{text:?}: {faults:?}");
            }
        }
    }

    #[test]
    fn a_long_file_wants_a_reason() {
        let text = format!("//! Long.\n{}", "\n".repeat(MAX_LINES));
        assert!(faults_in("long.rs", &text)[0].contains("401 lines"));
        assert_eq!(faults_in("long.s", &text), [""; 0]);
        assert_eq!(faults_in("short.rs", &text[..text.len() - 1]), [""; 0]);
    }

    #[test]
    fn the_project_s_own_files_are_found() {
        let files = files(&workspace::root()).unwrap();
        for expected in [
            "xtask/src/main.rs",
            "xtask/firmware/tick/tick.s",
            "Cargo.toml",
        ] {
            assert!(files.contains(&PathBuf::from(expected)), "{expected}");
        }
        assert!(
            !files
                .iter()
                .any(|file| file.starts_with("target")
                    || file.extension().is_some_and(|e| e == "elf"))
        );
    }
}
