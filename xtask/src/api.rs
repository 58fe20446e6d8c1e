//! `cargo xtask api`: the public API of each library as a list that a change to it must touch.
//!
//! The lists are in `docs/api/`, a file a crate: every public item, with the features on that a
//! user may turn on. Read from rustdoc's JSON, whose form changes with the toolchain.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use cargo_metadata::{Metadata, Package, TargetKind};
use tempfile::TempDir;

use crate::workspace;

/// Compare the public API of each library with its list in docs/api
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Write the lists
    #[arg(long)]
    bless: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let metadata = workspace::metadata()?;
    let rustdoc = Rustdoc::new()?;
    let folder = workspace::root().join("docs/api");
    let mut changed = Vec::new();
    for package in libraries(&metadata) {
        let now = rustdoc.api(&metadata, package)?;
        let path = folder.join(format!("{}.txt", package.name));
        if args.bless {
            fs::create_dir_all(&folder)?;
            fs::write(&path, now)?;
            continue;
        }
        let listed = fs::read_to_string(&path).unwrap_or_default();
        changed.extend(differences(&listed, &now).map(|line| format!("{}: {line}", package.name)));
    }
    ensure!(
        changed.is_empty(),
        "the public API is not as it was listed; if that is meant, `cargo xtask api --bless` writes the lists anew:\n  {}",
        changed.join("\n  ")
    );
    println!(
        "the public API is {}",
        if args.bless {
            "listed"
        } else {
            "as it was listed"
        }
    );
    Ok(())
}

/// Why the lists cannot be compared here, if they cannot: they are of the oldest toolchain that the
/// project supports, and another's rustdoc may write the same otherwise, or in a form that nothing
/// here reads.
pub(crate) fn left_out() -> anyhow::Result<Option<String>> {
    let metadata = workspace::metadata()?;
    let wanted = libraries(&metadata)
        .first()
        .and_then(|package| package.rust_version.clone());
    let wanted = wanted.context("Cargo.toml names no rust-version")?;
    let output = Command::new("rustdoc")
        .arg("--version")
        .output()
        .context("cannot run rustdoc")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let here = said.split_whitespace().nth(1).unwrap_or_default();
    let same =
        here.starts_with(&format!("{}.{}.", wanted.major, wanted.minor)) && !here.contains('-');
    Ok((!same).then(|| format!("the lists are of Rust {wanted}, and rustdoc is {here}")))
}

/// What is published, and has a library.
fn libraries(metadata: &Metadata) -> Vec<&Package> {
    let packages = metadata.workspace_packages().into_iter();
    let is_library = |package: &&Package| {
        let mut targets = package.targets.iter();
        package
            .publish
            .as_ref()
            .is_none_or(|registries| !registries.is_empty())
            && targets.any(|target| target.kind.contains(&TargetKind::Lib))
    };
    packages.filter(is_library).collect()
}

/// rustdoc with the JSON that stable releases have, but keep for themselves.
struct Rustdoc {
    /// A script that says so to rustdoc alone: said to all that Cargo runs, it would have every
    /// dependency built again.
    program: PathBuf,
    _folder: TempDir,
}

impl Rustdoc {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("rustdoc");
        fs::write(
            &program,
            "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n",
        )?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            program,
            _folder: folder,
        })
    }

    fn api(&self, metadata: &Metadata, package: &Package) -> anyhow::Result<String> {
        let library = package
            .targets
            .iter()
            .find(|target| target.kind.contains(&TargetKind::Lib));
        let library = library.context("no library")?.name.replace('-', "_");
        let name = package.name.as_str();
        let status = Command::new(workspace::cargo())
            .args([
                "rustdoc",
                "--quiet",
                "--package",
                name,
                "--lib",
                "--all-features",
                "--",
            ])
            .args(["-Zunstable-options", "--output-format", "json"])
            .env("RUSTDOC", &self.program)
            .current_dir(workspace::root())
            .stdin(Stdio::null())
            .status()
            .context("cannot run cargo rustdoc")?;
        ensure!(status.success(), "cargo rustdoc failed for {name}");
        let json = metadata
            .target_directory
            .join("doc")
            .join(format!("{library}.json"));
        let api = public_api::Builder::from_rustdoc_json(json)
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(true)
            .build();
        let items = match api {
            Ok(api) => api.items().map(ToString::to_string).collect::<Vec<_>>(),
            Err(error) => bail!(
                "rustdoc's JSON of {name} is of a form that the crate public-api does not know: {error}"
            ),
        };
        Ok(items
            .iter()
            .filter(|item| is_listed(&library, item))
            .map(|item| format!("{item}\n"))
            .collect())
    }
}

/// Not what is for this project's own tests alone, nor the methods of traits whose `impl` says all.
fn is_listed(library: &str, item: &str) -> bool {
    const IMPLIED: [&str; 9] = [
        "clone",
        "cmp",
        "deserialize",
        "eq",
        "fmt",
        "hash",
        "partial_cmp",
        "serialize",
        "source",
    ];
    let method = item
        .split(['(', '<'])
        .next()
        .and_then(|path| path.strip_prefix("pub fn ")?.rsplit("::").next());
    let internal =
        item.contains(&format!("{library}::testing")) || item.contains("StructuralPartialEq");
    !internal && method.is_none_or(|method| !IMPLIED.contains(&method))
}

/// Lines that came and went.
fn differences<'a>(listed: &'a str, now: &'a str) -> impl Iterator<Item = String> + use<'a> {
    let (listed, now): (BTreeSet<_>, BTreeSet<_>) =
        (listed.lines().collect(), now.lines().collect());
    let gone: Vec<_> = listed
        .difference(&now)
        .map(|line| format!("- {line}"))
        .collect();
    let new: Vec<_> = now
        .difference(&listed)
        .map(|line| format!("+ {line}"))
        .collect();
    gone.into_iter().chain(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_went_is_told_and_order_is_not() {
        let told: Vec<_> = differences("b\na\nold\n", "a\nb\nnew\n").collect();
        assert_eq!(told, ["- old", "+ new"]);
        assert_eq!(differences("a\n", "a\n").count(), 0);
    }

    #[test]
    fn methods_that_an_impl_implies_and_what_is_internal_are_not_listed() {
        for (item, listed) in [
            ("pub mod a", true),
            ("impl core::clone::Clone for a::B", true),
            ("pub fn a::B::clone(&self) -> a::B", false),
            (
                "pub fn a::B::hash<__H: core::hash::Hasher>(&self, &mut __H)",
                false,
            ),
            ("pub fn a::B::cloned(&self) -> a::B", true),
            ("pub fn a::testing::decode(&[u8])", false),
        ] {
            assert_eq!(is_listed("a", item), listed, "{item}");
        }
    }

    #[test]
    fn the_libraries_are_those_that_are_published() {
        let metadata = workspace::metadata().unwrap();
        let names: Vec<_> = libraries(&metadata)
            .iter()
            .map(|package| package.name.to_string())
            .collect();
        assert!(
            names.contains(&"qmp-proto".to_owned()) && names.len() >= 4,
            "{names:?}"
        );
        assert!(!names.contains(&"xtask".to_owned()), "{names:?}");
    }
}
