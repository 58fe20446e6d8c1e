//! The words after FIRMWARE, where it has tests: those of Rust's own test programs.
//!
//! `libtest-mimic` has the same for tests that are functions of its own program. It takes one
//! filter alone, captures nothing, has no JUnit, shuffle or show-output, and panics when stdout is
//! closed; of it there would be left no more than this file.

use std::ffi::OsString;

use clap::error::ContextKind;
use clap::{CommandFactory as _, Parser, ValueEnum};

/// The options of a firmware's tests, as Rust's own test programs have them.
#[derive(Debug, Parser)]
#[command(
    name = "qemu-controller run FIRMWARE",
    disable_version_flag = true,
    no_binary_name = true,
    args_override_self = true
)]
pub(super) struct Options {
    /// Run only the tests whose names have one of these texts in them
    #[arg(value_name = "FILTER")]
    pub(super) filters: Vec<String>,
    /// List the tests
    #[arg(long)]
    pub(super) list: bool,
    /// Take filters and --skip for whole names
    #[arg(long)]
    pub(super) exact: bool,
    /// Leave out the tests whose names have this text in them; may be given again
    #[arg(long, value_name = "FILTER")]
    pub(super) skip: Vec<String>,
    /// Run the ignored tests alone
    #[arg(long)]
    pub(super) ignored: bool,
    /// Run the ignored tests too
    #[arg(long, conflicts_with = "ignored")]
    pub(super) include_ignored: bool,
    /// Run tests and no benchmarks
    #[arg(long, conflicts_with = "bench")]
    pub(super) test: bool,
    /// Run benchmarks and no tests: there are none
    #[arg(long)]
    pub(super) bench: bool,
    /// Show what tests print as it comes
    #[arg(long, alias = "no-capture")]
    pub(super) nocapture: bool,
    /// Show at the end what the tests printed that passed
    #[arg(long)]
    pub(super) show_output: bool,
    /// How many machines work side by side [default: one for each processor]
    #[arg(long = "test-threads", value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    test_threads_given: Option<u16>,
    /// How results are shown
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<Format>,
    /// A character for each test; the same as --format=terse
    #[arg(long, short, conflicts_with = "format")]
    pub(super) quiet: bool,
    /// Whether results are coloured
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(super) color: Color,
    /// Run the tests in an order that chance makes
    #[arg(long)]
    pub(super) shuffle: bool,
    /// Run the tests in the order that this number makes
    #[arg(long, value_name = "SEED")]
    pub(super) shuffle_seed: Option<u64>,
    /// Show how long each test took, and the slowest
    #[arg(long)]
    pub(super) report_time: bool,
    /// For scripts that need it elsewhere: nothing here is unstable
    #[arg(short = 'Z', value_name = "unstable-options", hide = true)]
    unstable: Vec<String>,
    /// As many as were given.
    #[arg(skip)]
    pub(super) test_threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Pretty,
    Terse,
    Json,
    Junit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

impl Options {
    pub(super) fn parse(words: &[OsString]) -> Result<Self, clap::Error> {
        let mut options = Self::try_parse_from(words).map_err(|mut error| {
            // Behind `--` are QEMU's arguments, not these.
            error.remove(ContextKind::Suggested);
            error
        })?;
        let from_environment = || std::env::var("RUST_TEST_THREADS").ok()?.parse().ok();
        let given = options.test_threads_given.or_else(from_environment);
        options.test_threads = given.map(usize::from);
        options.nocapture |= is_set("RUST_TEST_NOCAPTURE");
        options.shuffle |= is_set("RUST_TEST_SHUFFLE");
        Ok(options)
    }

    /// Whether what tests print is shown as it comes.
    pub(super) fn shows_live(&self) -> bool {
        self.nocapture && matches!(self.format(), Format::Pretty | Format::Terse)
    }

    pub(super) fn format(&self) -> Format {
        match self.quiet {
            true => Format::Terse,
            false => self.format.unwrap_or(Format::Pretty),
        }
    }

    /// The number that makes the order, where chance is to.
    pub(super) fn seed(&self) -> Option<u64> {
        let chance = || self.shuffle.then(|| fastrand::u64(..));
        self.shuffle_seed.or_else(chance)
    }
}

/// The first of these words that is an option of a test program's.
pub(crate) fn first_among(words: &[OsString]) -> Option<&str> {
    let command = Options::command();
    let is_option = |word: &&str| {
        let long = word.strip_prefix("--");
        let name = long.and_then(|long| long.split('=').next());
        let mut options = command.get_arguments();
        name.is_some_and(|name| options.any(|option| option.get_long() == Some(name)))
    };
    words
        .iter()
        .filter_map(|word| word.to_str())
        .find(is_option)
}

/// As Rust's own test programs read their variables.
fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value != "0")
}
