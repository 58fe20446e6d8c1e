//! `cargo xtask robustness`: keeps the table of bad input and faults, `docs/robustness.md`, true to
//! the tests.
//!
//! Each row names the tests that cover it: a link whose text is the test's name and whose target is
//! its file, then in quotes the rows of that test's own table. What a test runs on is told by where
//! it is, so that column is written by this check.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};

use crate::workspace;

/// Check that the tests named in docs/robustness.md exist, and that each row has one or says why
/// not
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Write the column that says what the tests run on
    #[arg(long)]
    bless: bool,
}

const DOCUMENT: &str = "docs/robustness.md";

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let path = workspace::root().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let checked = check(&text, path.parent().context("no folder")?);
    if args.bless && checked.text != text {
        fs::write(&path, &checked.text)?;
    } else if checked.text != text {
        bail!(
            "{DOCUMENT} says of some rows that they ran on something else; write it with --bless"
        );
    }
    ensure!(
        checked.faults.is_empty(),
        "{DOCUMENT} does not hold:\n  {}",
        checked.faults.join("\n  ")
    );
    println!(
        "{} rows are covered by {} tests",
        checked.rows,
        checked.tests.len()
    );
    Ok(())
}

/// What the document's text is worth.
#[derive(Default)]
struct Checked {
    rows: usize,
    tests: BTreeSet<(PathBuf, String)>,
    faults: Vec<String>,
    /// The document with the right words in the column "ran on".
    text: String,
}

/// Links are relative to `folder`.
fn check(text: &str, folder: &Path) -> Checked {
    let mut checked = Checked::default();
    for (number, line) in (1..).zip(text.lines()) {
        let inner = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'))
            .unwrap_or_default();
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        let is_row =
            line.starts_with('|') && !line.starts_with("|-") && !line.ends_with("| tests |");
        let [what, then, _, tests] = cells[..] else {
            if is_row {
                checked.faults.push(format!(
                    "line {number}: a row has four cells, this has {}",
                    cells.len()
                ));
            }
            checked.text += &format!("{line}\n");
            continue;
        };
        if !is_row {
            checked.text += &format!("{line}\n");
            continue;
        }
        checked.rows += 1;
        let links = links(tests);
        let ran_on: BTreeSet<_> = links.iter().map(|link| ran_on(link.file)).collect();
        let ran_on = ran_on.into_iter().collect::<Vec<_>>().join(", ");
        checked.text += &format!("| {what} | {then} | {ran_on} | {tests} |\n");
        if links.is_empty() && tests.split_whitespace().count() < 5 {
            checked.faults.push(format!(
                "line {number}: '{what}' has neither a test nor a reason"
            ));
        }
        for link in links {
            let file = folder.join(link.file);
            checked.faults.extend(
                link.faults(&file)
                    .into_iter()
                    .map(|fault| format!("line {number}: {fault}")),
            );
            checked.tests.insert((file, link.test.to_owned()));
        }
    }
    checked
}

/// `[test](file) "row", "row"`.
#[derive(Debug, PartialEq)]
struct Link<'a> {
    test: &'a str,
    file: &'a str,
    rows: Vec<&'a str>,
}

fn links(cell: &str) -> Vec<Link<'_>> {
    let parts = cell.split('[').skip(1);
    parts
        .filter_map(|part| {
            let (test, rest) = part.split_once("](")?;
            let (file, rest) = rest.split_once(')')?;
            Some(Link {
                test,
                file,
                rows: rest.split('"').skip(1).step_by(2).collect(),
            })
        })
        .collect()
}

impl Link<'_> {
    fn faults(&self, file: &Path) -> Vec<String> {
        let Ok(source) = fs::read_to_string(file) else {
            return vec![format!("there is no file {}", self.file)];
        };
        if !is_test(&source, self.test) {
            return vec![format!("{} has no test {}", self.file, self.test)];
        }
        let missing = self
            .rows
            .iter()
            .filter(|row| !source.contains(&format!("\"{row}\"")));
        missing
            .map(|row| format!("{} has no row \"{row}\"", self.file))
            .collect()
    }
}

/// Whether the source has a test of this name: a function to which an attribute `#[test]` or
/// `#[tokio::test]` belongs.
fn is_test(source: &str, name: &str) -> bool {
    let mut attributed = false;
    source.lines().map(str::trim_start).any(|line| {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            attributed = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) {
            let of_a_test = std::mem::take(&mut attributed);
            return of_a_test && rest.split_once('(').is_some_and(|(found, _)| found == name);
        }
        false
    })
}

/// By where a test is: what a target needs is told by its folder.
fn ran_on(file: &str) -> &'static str {
    const PLACES: [(&str, &str); 7] = [
        ("/tests/qemu/", "real QEMU"),
        ("/tests/cli/", "real QEMU"),
        ("/tests/gdb/", "real QEMU and GDB"),
        ("/tests/scripted/", "scripted peer"),
        ("/tests/driver/", "scripted peer"),
        ("qemu-launch/tests/process.rs", "helper program"),
        ("qemu-launch/tests/born.rs", "helper program"),
    ];
    PLACES
        .iter()
        .find(|(place, _)| file.contains(place))
        .map_or("unit", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "//! A.\n// fn three() {\n#[test]\nfn one() { (\"a row\", 1); }\n\
        fn helper() {}\n    #[tokio::test(start_paused = true)]\n    async fn two() {}\n";

    fn checked(rows: &str) -> Checked {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("x/tests/qemu")).unwrap();
        fs::write(folder.path().join("x/tests/qemu/a.rs"), SOURCE).unwrap();
        fs::write(folder.path().join("b.rs"), SOURCE).unwrap();
        let head = "# Title\n\n| input | what happens | ran on | tests |\n|---|---|---|---|\n";
        check(&format!("{head}{rows}\n"), folder.path())
    }

    #[test]
    fn tests_that_exist_pass_and_what_they_ran_on_is_written() {
        let row = "| x | y | ? | [one](x/tests/qemu/a.rs) \"a row\", [two](b.rs) |";
        let checked = checked(row);
        assert_eq!(checked.faults, [""; 0]);
        assert_eq!((checked.rows, checked.tests.len()), (1, 2));
        let written = row.replace('?', "real QEMU, unit");
        assert!(
            checked.text.ends_with(&format!("{written}\n")),
            "{}",
            checked.text
        );
        assert!(
            checked.text.starts_with("# Title\n\n| input |"),
            "the rest is left as it is"
        );
    }

    #[test]
    fn what_is_not_there_is_told() {
        for (row, fault) in [
            ("| x | y | | [one](c.rs) |", "no file c.rs"),
            ("| x | y | | [three](b.rs) |", "b.rs has no test three"),
            ("| x | y | | [helper](b.rs) |", "b.rs has no test helper"),
            (
                "| x | y | | [one](b.rs) \"a row\", \"no such row\" |",
                "b.rs has no row \"no such row\"",
            ),
            ("| x | y | | |", "neither a test nor a reason"),
            ("| x | y |  | none |", "neither a test nor a reason"),
            ("| x | y | one too few |", "a row has four cells"),
        ] {
            let faults = checked(row).faults;
            assert_eq!(faults.len(), 1, "{row}: {faults:?}");
            assert!(faults[0].contains(fault), "{faults:?}");
        }
        let reasoned = checked("| x | y |  | No test: it would take a second kernel. |");
        assert_eq!((reasoned.faults.len(), reasoned.rows), (0, 1));
    }
}
