//! `new`: a crate for a Cortex-M3 in QEMU that builds, runs, is tested and debugged as it is.
//!
//! Its files are those of `examples/embedded`, which `template/` links to: what the project tests is
//! what is made.

use std::fs;
use std::io;
use std::path::Path;

use clap::Args;

use crate::debug;
use crate::outcome::OWN_FAILURE;
use crate::reporter::{complain, print};

/// Make a crate whose `cargo run` and `cargo test` go through QEMU
///
/// A folder NAME with a program, a library with unit tests, an integration test, the memory map of
/// the board lm3s6965evb, Cargo's runner, entries for VS Code's debugger, and a job for GitHub's CI.
#[derive(Args, Debug)]
pub(crate) struct New {
    /// The crate's name, and its folder's
    name: String,
}

/// The folder's files: where each goes, and what is in it.
const FILES: [(&str, &str); 11] = [
    ("Cargo.toml", include_str!("../template/Cargo.toml.in")),
    // The versions with which it was tested.
    ("Cargo.lock", include_str!("../template/Cargo.lock.in")),
    (
        ".cargo/config.toml",
        include_str!("../template/config.toml"),
    ),
    (
        ".config/nextest.toml",
        include_str!("../template/nextest.toml"),
    ),
    (
        ".github/workflows/ci.yml",
        include_str!("../template/ci.yml"),
    ),
    (".gitignore", "/target\n"),
    ("build.rs", include_str!("../template/build.rs")),
    ("memory.x", include_str!("../template/memory.x")),
    ("src/lib.rs", include_str!("../template/lib.rs")),
    ("src/main.rs", include_str!("../template/main.rs")),
    ("tests/images.rs", include_str!("../template/images.rs")),
];
const SUPPORT: (&str, &str) = (
    "tests/support/mod.rs",
    include_str!("../template/support.rs"),
);

/// The template's own names.
const CRATE: &str = "embedded-example";
const PROGRAM: &str = "\"hello\"";

/// The crate's own dependencies, and names that Rust or Cargo has: none of these is a crate's.
const TAKEN: [&str; 24] = [
    "cortex-m",
    "cortex-m-rt",
    "cortex-m-semihosting",
    "embedded-test",
    "embedded-test-linker-script",
    "panic-semihosting",
    "log",
    "core",
    "alloc",
    "std",
    "test",
    "proc_macro",
    "proc-macro",
    "build",
    "deps",
    "examples",
    "incremental",
    "images",
    "self",
    "super",
    "crate",
    "main",
    "bench",
    "doc",
];

/// Makes it; the exit status.
pub(crate) fn new(new: &New) -> u8 {
    match make(Path::new("."), &new.name) {
        Ok(()) => {
            let name = &new.name;
            let words = format!(
                "{name} is there:\n\n    cd {name}\n    cargo run\n    cargo test\n    \
                 qemu-controller debug target/thumbv7m-none-eabi/debug/{name}\n\n\
                 Once, if it is missing: rustup target add thumbv7m-none-eabi"
            );
            print(&format!("{words}\n"), 0)
        }
        Err(words) => complain(&words, OWN_FAILURE),
    }
}

fn make(parent: &Path, name: &str) -> Result<(), String> {
    check(name)?;
    let folder = parent.join(name);
    fs::create_dir(&folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{name} is there already, and stays as it is"),
        _ => format!("{name}: {error}"),
    })?;
    fill(&folder, name).inspect_err(|_| {
        // Half a crate is none; all of it was made here.
        let _ = fs::remove_dir_all(&folder);
    })
}

fn fill(folder: &Path, name: &str) -> Result<(), String> {
    for (path, text) in FILES.into_iter().chain([SUPPORT]) {
        let file = folder.join(path);
        let mut text = for_crate(text, name);
        if path == "Cargo.lock" {
            text = sorted(&text);
        }
        let written = fs::create_dir_all(file.parent().unwrap_or(folder))
            .and_then(|()| fs::write(&file, text));
        written.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let program = Path::new("target/thumbv7m-none-eabi/debug").join(name);
    debug::write_for_vs_code(folder, &program).map_err(|failure| failure.words())
}

/// A file of the example's for a crate of this name.
fn for_crate(text: &str, name: &str) -> String {
    let mut of_example = false;
    let mut lines = String::with_capacity(text.len());
    for line in text.lines() {
        match line.starts_with("# example") {
            true => of_example = true,
            false if line == "# end of example" => of_example = false,
            false if !of_example => lines.extend([line, "\n"]),
            false => {}
        }
    }
    lines
        .replace(CRATE, name)
        .replace(&CRATE.replace('-', "_"), &name.replace('-', "_"))
        .replace(PROGRAM, &format!("{name:?}"))
}

/// The packages of a lock file in Cargo's order, which `--locked` insists on: by their names.
fn sorted(lock: &str) -> String {
    const BEGIN: &str = "\n[[package]]\n";
    let mut packages = lock.trim_end().split(BEGIN);
    let head = packages.next().unwrap_or_default().trim_end();
    let mut packages: Vec<_> = packages.map(str::trim_end).collect();
    packages.sort_unstable();
    let packages = packages.iter().map(|package| format!("\n{BEGIN}{package}"));
    head.to_owned() + &packages.collect::<String>() + "\n"
}

/// Refuses what Cargo would refuse, and what would hide one of the crate's own dependencies.
fn check(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let begins = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic());
    if !begins || name.len() > 64 || !name.bytes().all(is_plain) {
        return Err(format!(
            "{name:?} is no crate's name: 1 to 64 letters, digits, - and _, of which the first is a letter"
        ));
    }
    let taken = TAKEN.contains(&&*name.to_lowercase()) || is_keyword(name);
    match taken {
        true => Err(format!(
            "{name:?} is no name for this crate: Rust, Cargo or a crate that it uses has it"
        )),
        false => Ok(()),
    }
}

fn is_keyword(name: &str) -> bool {
    const KEYWORDS: &str = " abstract as async await become box break const continue crate do dyn else \
         enum extern false final fn for gen if impl in let loop macro match mod move mut override priv \
         pub ref return self static struct super trait true try type typeof unsafe unsized use virtual \
         where while yield ";
    KEYWORDS.contains(&format!(" {name} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["blinky", "my-firmware", "App_2", "a"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let long = "a".repeat(65);
        for name in [
            "", "2nd", "-x", "a b", "a/b", "../a", "/tmp/a", ".", "grün", "fn", "test", "cortex-m",
            "async", "a\n", &long,
        ] {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_lock_file_is_sorted_and_else_as_it_was() {
        let lock = include_str!("../template/Cargo.lock.in");
        assert_eq!(sorted(lock), lock);
        let other = lock.replace(CRATE, "a");
        assert!(sorted(&other).find("\"a\"").unwrap() < 200);
    }

    #[test]
    fn nothing_of_the_example_is_left_and_what_is_there_stays() {
        let parent = tempfile::tempdir().unwrap();
        make(parent.path(), "my-firmware").unwrap();
        let folder = parent.path().join("my-firmware");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("my-firmware"));
        assert_eq!(manifest["bin"][0]["name"].as_str(), Some("my-firmware"));
        assert!(!manifest.contains_key("features"));
        for (path, _) in FILES.into_iter().chain([SUPPORT]) {
            let text = fs::read_to_string(folder.join(path))
                .unwrap()
                .to_lowercase();
            assert!(
                !text.contains("example") && !text.contains("failing"),
                "{path}: {text}"
            );
        }
        let entries = fs::read_to_string(folder.join(".vscode/launch.json")).unwrap();
        let program = "${workspaceFolder}/target/thumbv7m-none-eabi/debug/my-firmware";
        assert_eq!(entries.matches(program).count(), 2, "{entries}");

        let refused = make(parent.path(), "my-firmware").unwrap_err();
        assert_eq!(refused, "my-firmware is there already, and stays as it is");
        fs::write(parent.path().join("file"), "mine").unwrap();
        assert!(make(parent.path(), "file").is_err());
        assert_eq!(fs::read(parent.path().join("file")).unwrap(), b"mine");
    }
}
