//! `cargo xtask test`: everything that has to hold before a change goes in, in one command.
//!
//! Which test targets there are is read from `cargo metadata`: a new one cannot be forgotten, and
//! its `required-features` say what a target needs. All steps that compile tests select the
//! same packages and features, so that nothing is compiled twice for them; the examples are run as
//! a reader would, with a selection of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
};

use anyhow::ensure;
use cargo_metadata::{Metadata, TargetKind};
use clap::ValueEnum;

use crate::{
    qemus::{Further, Variant},
    setup,
    steps::{self, Step},
    workspace,
};

/// Run every check and test; installs qemu-system-arm first where it is missing
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only one part of it [default: unit and integration]
    part: Option<Part>,
    /// Install nothing: stop where QEMU is missing
    #[arg(long)]
    no_install: bool,
    /// Insist on the tests that need gdb-multiarch, which are skipped where it is missing (implied
    /// by CI=true)
    #[arg(long)]
    gdb: bool,
    #[command(flatten)]
    further: Further,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// All that needs no QEMU: format, lints, unit and doc tests, docs, firmware images
    Unit,
    /// The tests on real QEMU
    Integration,
    /// The tests on firmware that others wrote, which is installed from Debian's packages first; with
    /// QEMU_CONTROLLER_LONG set on Linux kernels as well (180 MB are fetched)
    Foreign,
    /// An editor's debug adapter, lldb-dap, driven by the entry that `debug --write` writes; it is
    /// installed from Debian's packages first (45 MB, 220 MB on the disk)
    Editors,
}

/// Examples that are also run, on real QEMU: the step's name, and the command that a reader would
/// type.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "example debug_firmware",
        "run --package qemu-controller --example debug_firmware -- xtask/firmware/tick/tick.elf",
    ),
    (
        "example debugger",
        "run --package qemu-controller --features debugger --example debugger -- xtask/firmware/tick/tick.elf",
    ),
    (
        "example attach",
        "run --package qemu-controller --example attach -- xtask/firmware/tick/tick.elf",
    ),
    (
        "example blocking",
        "run --package qemu-controller --example blocking -- xtask/firmware/tick/tick.elf",
    ),
    (
        "example forked_cases",
        "run --package qemu-controller --example forked_cases -- xtask/firmware/tick/tick.elf",
    ),
    (
        "example of qmp-proto: async_io",
        "run --package qmp-proto --example async_io",
    ),
    (
        "example of qmp-proto: blocking",
        "run --package qmp-proto --example blocking",
    ),
    (
        "example of qmp-proto: fake_server",
        "run --package qmp-proto --example fake_server",
    ),
    (
        "example of qmp-proto: proxy",
        "run --package qmp-proto --example proxy",
    ),
    (
        "example of qmp-proto: threads",
        "run --package qmp-proto --example threads",
    ),
    (
        "example of qmp-proto: tokio",
        "run --package qmp-proto --features tokio-codec --example tokio",
    ),
    (
        "example of qemu-launch: vm_launcher",
        "run --package qemu-launch --example vm_launcher",
    ),
    (
        "example of gdb-port: stub_check",
        "run --package gdb-port --no-default-features --example stub_check",
    ),
    (
        "example of firmware-info: where",
        "run --package firmware-info --example where -- firmware-info/fixtures/c/o2.elf 0x50",
    ),
    // Tests, as its reader would run them.
    (
        "example parallel_tests",
        "test --package qemu-controller --example parallel_tests",
    ),
    (
        "example fresh_state",
        "test --package qemu-controller --example fresh_state",
    ),
];

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let targets = TestTargets::of(&workspace::metadata()?)?;
    let mut steps = Vec::new();
    if matches!(args.part, None | Some(Part::Unit)) {
        steps.extend(unit_steps(&targets));
    }
    // Until all have run: a variant has the folder by which the tests find it.
    let qemus = match args.part {
        Some(Part::Unit | Part::Editors) => Vec::new(),
        None | Some(Part::Integration | Part::Foreign) => {
            setup::ensure_boards(args.no_install)?;
            args.further.variants()?
        }
    };
    if args.part == Some(Part::Foreign) {
        setup::ensure_foreign(args.no_install)?;
        let is_long = std::env::var_os("QEMU_CONTROLLER_LONG").is_some();
        let kernels = match is_long {
            true => Some(setup::kernels(args.no_install)?),
            false => None,
        };
        for qemu in &qemus {
            steps.push(foreign_step(&targets, qemu, kernels.as_deref()));
        }
    }
    if args.part == Some(Part::Editors) {
        setup::ensure_lldb_dap(args.no_install)?;
        steps.extend(editor_steps(&targets));
    }
    if matches!(args.part, None | Some(Part::Integration)) {
        setup::ensure_rust_target(args.no_install)?;
        let insist = args.gdb || std::env::var_os("CI").is_some_and(|value| value == "true");
        if insist && !targets.gdb.is_empty() {
            setup::ensure_gdb(args.no_install)?;
        }
        let gdb = setup::gdb_is_installed()?;
        steps.extend(qemus.iter().flat_map(|qemu| suites(&targets, gdb, qemu)));
        steps.extend(examples());
    }
    steps::run_all(steps)
}

/// Folders that are workspaces of their own, which `--all` leaves out.
const OWN_WORKSPACES: [&str; 3] = ["bench", "examples/embedded", "fuzz"];

fn unit_steps(targets: &TestTargets) -> Vec<Step> {
    let tests = test_flags(&targets.unit);
    let mut steps = vec![Step::cargo("format", "fmt --all --check")];
    steps.extend(OWN_WORKSPACES.map(|folder| {
        let words = format!("fmt --check --manifest-path {folder}/Cargo.toml");
        Step::cargo(&format!("format, {folder}"), &words)
    }));
    steps.extend([
        Step::cargo(
            "clippy",
            "clippy --workspace --all-features --all-targets -- -D warnings",
        ),
        Step::cargo(
            "unit tests",
            &format!("test --workspace --all-features --no-fail-fast --lib --bins{tests}"),
        ),
        Step::cargo(
            "doc tests",
            "test --workspace --all-features --no-fail-fast --doc",
        ),
        Step::cargo("docs", "doc --workspace --all-features --no-deps")
            .with_env("RUSTDOCFLAGS", "-D warnings"),
        Step::cargo("firmware images", "xtask firmware --check"),
    ]);
    steps
}

/// In its long form with Linux kernels, which are in this folder.
fn foreign_step(targets: &TestTargets, qemu: &Variant, kernels: Option<&Path>) -> Step {
    let name = format!("tests on firmware of others, on QEMU {}", qemu.version);
    let step = on(qemu, test_step(&name, &targets.foreign));
    match kernels {
        Some(folder) => step.with_env("QEMU_CONTROLLER_GUESTS", folder),
        None => step,
    }
}

fn editor_steps(targets: &TestTargets) -> Vec<Step> {
    vec![test_step("tests with lldb-dap", &targets.editors)]
}

fn test_step(name: &str, targets: &BTreeSet<String>) -> Step {
    let tests = test_flags(targets);
    Step::cargo(
        name,
        &format!("test --workspace --all-features --no-fail-fast{tests}"),
    )
}

/// The step, in an environment in which its tests find this QEMU.
fn on(qemu: &Variant, step: Step) -> Step {
    let environment = qemu.environment().into_iter();
    environment.fold(step, |step, (name, value)| step.with_env(name, value))
}

/// The test targets that need QEMU, on one of them.
fn suites(targets: &TestTargets, gdb_is_installed: bool, qemu: &Variant) -> Vec<Step> {
    let tests = |name: &str, targets| on(qemu, test_step(name, targets));
    let mut steps = Vec::new();
    if !targets.qemu.is_empty() {
        steps.push(tests(
            &format!("tests on QEMU {}", qemu.version),
            &targets.qemu,
        ));
    }
    let name = format!("tests with GDB on QEMU {}", qemu.version);
    match (targets.gdb.is_empty(), gdb_is_installed) {
        (true, _) => {}
        (false, true) => steps.push(tests(&name, &targets.gdb)),
        (false, false) => steps.push(Step::skipped(
            &name,
            "gdb-multiarch is not installed; `cargo xtask test --gdb` installs it and runs them",
        )),
    }
    steps
}

fn examples() -> impl Iterator<Item = Step> {
    EXAMPLES
        .iter()
        .map(|(name, words)| Step::cargo(name, words))
}

/// ` --test NAME` for each.
fn test_flags(names: &BTreeSet<String>) -> String {
    names.iter().map(|name| format!(" --test {name}")).collect()
}

/// The workspace's test targets (the files and folders in `tests/`), sorted by what they need.
#[derive(Debug, Default, PartialEq)]
struct TestTargets {
    /// Nothing but Rust.
    unit: BTreeSet<String>,
    /// A real QEMU: the feature `qemu-tests` is required.
    qemu: BTreeSet<String>,
    /// QEMU and gdb-multiarch: the feature `gdb-tests` is required.
    gdb: BTreeSet<String>,
    /// QEMU and firmware of others: the feature `foreign-tests` is required.
    foreign: BTreeSet<String>,
    /// QEMU and lldb-dap: the feature `editor-tests` is required.
    editors: BTreeSet<String>,
}

impl TestTargets {
    fn of(metadata: &Metadata) -> anyhow::Result<Self> {
        let targets = metadata
            .workspace_packages()
            .into_iter()
            .flat_map(|package| &package.targets);
        let tests = targets.filter(|target| target.kind.contains(&TargetKind::Test));
        Self::sort(tests.map(|target| (target.name.as_str(), target.required_features.as_slice())))
    }

    fn sort<'a, F: AsRef<str> + 'a>(
        tests: impl Iterator<Item = (&'a str, &'a [F])>,
    ) -> anyhow::Result<Self> {
        let mut targets = Self::default();
        let mut seen = BTreeMap::new();
        for (name, features) in tests {
            let requires =
                |feature: &str| features.iter().any(|required| required.as_ref() == feature);
            let (needs, group) = if requires("foreign-tests") {
                ("firmware of others", &mut targets.foreign)
            } else if requires("editor-tests") {
                ("lldb-dap", &mut targets.editors)
            } else if requires("gdb-tests") {
                ("GDB", &mut targets.gdb)
            } else if requires("qemu-tests") {
                ("QEMU", &mut targets.qemu)
            } else {
                ("nothing", &mut targets.unit)
            };
            group.insert(name.to_owned());
            // Cargo selects test targets by name alone, in all packages at once.
            let before = seen.insert(name, needs).unwrap_or(needs);
            ensure!(
                before == needs,
                "two test targets are called `{name}`; one needs {before}, the other {needs}: rename one"
            );
        }
        Ok(targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(tests: &[(&str, &[&str])]) -> anyhow::Result<TestTargets> {
        TestTargets::sort(tests.iter().copied())
    }

    fn installed() -> Variant {
        Variant {
            version: "7.2.22".to_owned(),
            named: None,
        }
    }

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    #[test]
    fn targets_are_sorted_by_what_they_need() {
        let targets = sorted(&[
            ("bad_input", &[]),
            ("strategies", &["proptest"]),
            ("qemu", &["qemu-tests"]),
            ("qemu", &["qemu-tests", "tokio"]),
            ("attach", &["qemu-tests", "gdb-tests"]),
            ("gdb", &["gdb-tests"]),
            ("foreign", &["cli", "foreign-tests"]),
            ("dap", &["editor-tests"]),
        ])
        .unwrap();
        assert_eq!(names(&targets.unit), ["bad_input", "strategies"]);
        assert_eq!(names(&targets.qemu), ["qemu"]);
        assert_eq!(names(&targets.gdb), ["attach", "gdb"]);
        assert_eq!(names(&targets.foreign), ["foreign"]);
        assert_eq!(names(&targets.editors), ["dap"]);
    }

    #[test]
    fn one_name_in_two_groups_is_refused() {
        let error = sorted(&[("qemu", &["qemu-tests"]), ("qemu", &[])])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("qemu") && error.contains("rename"),
            "{error}"
        );
    }

    fn commands(steps: &[Step]) -> Vec<String> {
        steps.iter().map(command).collect()
    }

    fn command(
        Step {
            name,
            args,
            skipped,
            ..
        }: &Step,
    ) -> String {
        match skipped {
            None => format!("{name}: {}", args.join(" ")),
            Some(why) => format!("{name}: skipped: {why}"),
        }
    }

    #[test]
    fn unit_steps_run_no_target_that_needs_qemu() {
        let targets = sorted(&[("qemu", &["qemu-tests"]), ("bad_input", &[])]).unwrap();
        let shown = commands(&unit_steps(&targets));
        assert_eq!(
            shown[2 + OWN_WORKSPACES.len()],
            "unit tests: test --workspace --all-features --no-fail-fast --lib --bins --test bad_input"
        );
        assert!(
            !shown
                .iter()
                .any(|step| step.contains("--test qemu") || step.contains("--tests")),
            "{shown:?}"
        );
    }

    #[test]
    fn without_gdb_its_tests_are_skipped_by_name_and_qemu_s_are_not() {
        let targets = sorted(&[("qemu", &["qemu-tests"]), ("gdb", &["gdb-tests"])]).unwrap();
        let qemu =
            "tests on QEMU 7.2.22: test --workspace --all-features --no-fail-fast --test qemu";
        let with = commands(&suites(&targets, true, &installed()));
        let gdb = "tests with GDB on QEMU 7.2.22: test --workspace --all-features --no-fail-fast --test gdb";
        assert_eq!(with, [qemu, gdb]);
        let without = commands(&suites(&targets, false, &installed()));
        assert_eq!(without[0], qemu);
        assert!(
            without[1].starts_with(
                "tests with GDB on QEMU 7.2.22: skipped: gdb-multiarch is not installed"
            ),
            "{without:?}"
        );
    }

    /// The other tutorials' commands are run by the program's tests.
    #[test]
    fn the_commands_of_the_library_s_tutorial_are_run() {
        let tutorial = include_str!("../../docs/tutorials/library.md");
        let commands = tutorial
            .lines()
            .filter_map(|line| line.strip_prefix("$ cargo "));
        let commands: Vec<_> = commands.collect();
        assert!(!commands.is_empty());
        for command in commands {
            let is_run = EXAMPLES.iter().any(|(_, example)| *example == command);
            assert!(is_run, "{command}");
        }
    }

    #[test]
    fn a_workspace_without_such_tests_gets_no_empty_cargo_call() {
        let targets = sorted(&[("bad_input", &[])]).unwrap();
        assert!(suites(&targets, true, &installed()).is_empty());
    }

    #[test]
    fn every_test_target_of_this_workspace_is_run_by_a_step() {
        let metadata = workspace::metadata().unwrap();
        let targets = TestTargets::of(&metadata).unwrap();
        let mut steps = unit_steps(&targets);
        steps.extend(suites(&targets, true, &installed()));
        steps.push(foreign_step(&targets, &installed(), None));
        steps.extend(editor_steps(&targets));
        let shown = commands(&steps).join("\n") + "\n";
        for target in metadata
            .workspace_packages()
            .iter()
            .flat_map(|package| &package.targets)
        {
            if target.kind.contains(&TargetKind::Test) {
                let flag = format!("--test {}", target.name);
                assert!(
                    shown
                        .split('\n')
                        .any(|line| format!("{line} ").contains(&format!("{flag} "))),
                    "{flag}"
                );
            }
        }
    }
}
