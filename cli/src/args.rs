//! The command line: what can be said, and how each word is read.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, CommandFactory as _, Parser, Subcommand};
use qemu_controller::Endpoint;
use qemu_controller::defmt::Filter;
use qemu_controller::testing::TestCase;

use crate::calls::number;
use crate::coverage;
use crate::ctl::Ctl;
use crate::debug::Debug;
use crate::logs;
use crate::mcp::Mcp;
use crate::new::New;
use crate::open::Open;
use crate::serve::Serve;
use crate::settings::Settings;
use crate::test_run;

/// Run, test and debug firmware in QEMU
#[derive(Debug, Parser)]
#[command(name = "qemu-controller", version, after_help = FIRST_STEPS)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(Box<Run>),
    New(New),
    Debug(Box<Debug>),
    Serve(Box<Serve>),
    Ctl(Ctl),
    Open(Box<Open>),
    Coverage(coverage::verb::CoverageVerb),
    Machines(MachinesVerb),
    Mcp(Mcp),
}

const FIRST_STEPS: &str = "\
First steps:
  qemu-controller run firmware.elf     runs it; `qemu-controller run --help` has the exit statuses
  qemu-controller new NAME             makes a Rust crate to begin with
  qemu-controller debug firmware.elf   holds it for gdb or an editor";

/// List the machines that an installed QEMU has
#[derive(Args, Debug)]
pub(crate) struct MachinesVerb {
    /// The QEMU to ask, a name or a path
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-arm")]
    pub(crate) qemu: PathBuf,
}

/// Run a firmware, show what it prints, and end as it ends
///
/// Runs a firmware in QEMU. What it prints (first serial port, semihosting) goes to stdout byte for
/// byte and in its order; stdin goes to whatever it reads of these, and the end of stdin does not
/// end the run. stderr has what the firmware prints on semihosting's standard error, and everything
/// else that there is to say. The exit status is the firmware's own.
///
/// It serves as Cargo's runner: with `runner = "qemu-controller run --machine lm3s6965evb"` in
/// `.cargo/config.toml`, `cargo run` and `cargo test` of an embedded crate run in QEMU.
#[derive(Args, Clone, Debug, Default)]
#[command(args_override_self = true, after_long_help = AFTER_HELP)]
#[command(group = ArgGroup::new("coverage_files").multiple(true).args(["coverage", "coverage_by_test"]))]
pub(crate) struct Run {
    /// The firmware: an ELF or Intel HEX file, or a Linux kernel; its content says which
    ///
    /// Without --qemu and --machine an ELF file runs on the first machine that it fits, which is said
    /// on stderr unless it is the default. It may be left out with --bios, and where QEMU's own
    /// arguments (`-- -device loader,…`, `-- -drive if=pflash,…`) have what the machine begins with.
    #[arg(value_name = "FIRMWARE")]
    pub(crate) firmware: Option<PathBuf>,
    /// Of a firmware with tests: filters, and the options of Rust's own test programs, such as
    /// `--list`, `--exact` and `--nocapture`. Of another one: its command line, dashes included
    #[arg(value_name = "ARGUMENT")]
    pub(crate) arguments: Vec<OsString>,
    /// Further arguments for QEMU, after `--`
    #[arg(value_name = "QEMU ARGUMENT", last = true)]
    pub(crate) qemu_args: Vec<OsString>,

    /// Read this configuration file [default: qemu-controller.toml in this folder, or the nearest
    /// above it in the project]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Load the file as it is at this address, such as 0x8000: for raw images
    ///
    /// The CPU begins where the board has it begin. Elsewhere:
    /// `-- -device loader,addr=0x8000,cpu-num=0`.
    #[arg(long, value_name = "ADDRESS", value_parser = number)]
    pub(crate) raw: Option<u64>,
    /// The ROM that the CPU begins with, beside the firmware or in its place: a file, or `none`
    #[arg(long, value_name = "FILE")]
    pub(crate) bios: Option<PathBuf>,
    /// An ELF file with more symbols: where the firmware has none, or starts another program; may be
    /// given again
    #[arg(long, value_name = "ELF")]
    pub(crate) symbols: Vec<PathBuf>,
    /// The command line of a Linux kernel
    #[arg(long, value_name = "TEXT", requires = "firmware")]
    pub(crate) append: Option<OsString>,
    /// The first file system of a Linux kernel
    #[arg(long, value_name = "FILE", requires = "firmware")]
    pub(crate) initrd: Option<PathBuf>,
    /// Load the firmware without a check that this board can run it
    #[arg(long)]
    pub(crate) unchecked: bool,
    /// Hold the firmware until a debugger attaches and continues, and print the line that attaches
    /// one
    ///
    /// ADDRESS is where it can connect: a loopback port or address (default 127.0.0.1:1234),
    /// `free` for any free port, or `unix:PATH`. Of a firmware with tests, one that is named is held
    /// as it begins. A reset starts the firmware over. --timeout counts once the debugger has left.
    ///
    /// One debugger is let in at a time, and nobody but you (and root).
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true,
          default_missing_value = "1234", value_parser = gdb)]
    pub(crate) gdb: Option<Endpoint>,
    /// Succeed as soon as the firmware prints this text; fail when it ends before
    #[arg(long, value_name = "TEXT", conflicts_with = "expect_regex",
          value_parser = NonEmptyStringValueParser::new())]
    pub(crate) expect: Option<String>,
    /// Succeed as soon as what the firmware prints matches this regular expression
    ///
    /// It is matched against what has come so far, as often as something comes: `$` is the end of
    /// that. A match may be 4 KiB long.
    #[arg(long, value_name = "REGEX")]
    pub(crate) expect_regex: Option<String>,
    /// Hold input back until the firmware has printed this text
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) send_after: Option<String>,
    /// What kind of tests the firmware has [default: what its ELF file shows]
    #[arg(long, help_heading = TESTS, value_name = "KIND")]
    pub(crate) tests: Option<test_run::TestKind>,
    /// How its tests are kept apart [default: restore]
    #[arg(long, help_heading = TESTS, value_name = "HOW")]
    pub(crate) isolation: Option<test_run::Isolation>,
    /// Leave the firmware's RTT channels alone; else they are read where its ELF file has them
    #[arg(long, help_heading = LOGS)]
    pub(crate) no_rtt: bool,
    /// Where the firmware's defmt frames come from [default: what its ELF file shows]
    #[arg(long, help_heading = LOGS, value_name = "WAY")]
    pub(crate) defmt: Option<logs::Source>,
    /// How a line of defmt's looks: `oneline`, `default`, or a format of defmt's such as
    /// '{t} {L:bold} {f}:{l} {s}' [default: {t} {L} {s}]
    #[arg(long, help_heading = LOGS, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// Which lines of defmt's are shown, by level and module, such as `info,app::sensors=trace`
    #[arg(long, help_heading = LOGS, value_name = "FILTER", value_parser = logs::filter)]
    pub(crate) log_filter: Option<Filter>,
    /// Begin each line of RTT and defmt with the channel it comes from, as in `[rtt:0] `
    #[arg(long, help_heading = LOGS)]
    pub(crate) prefix: bool,
    /// Say how it ended as JSON on stderr, or into this file
    ///
    /// One object a line, the verdict last. On stderr they take the place of words.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
    /// Write which lines of the firmware ran into this file, in lcov's form, and a summary to stderr
    ///
    /// The firmware needs debug information and no instrumentation. A line's count is the number of
    /// runs that came by.
    #[arg(long, help_heading = COVERAGE, value_name = "FILE")]
    pub(crate) coverage: Option<PathBuf>,
    /// Write which test ran which line into this file, in lcov's form: each test's records have its
    /// name (TN)
    #[arg(long, help_heading = COVERAGE, value_name = "FILE")]
    pub(crate) coverage_by_test: Option<PathBuf>,
    /// Add to what is in the files of --coverage and --coverage-by-test, instead of replacing it
    #[arg(long, help_heading = COVERAGE, requires = "coverage_files")]
    pub(crate) coverage_merge: bool,
    /// Count the code of the toolchain's libraries and of crates from a registry as well
    #[arg(long, help_heading = COVERAGE, requires = "coverage_files")]
    pub(crate) coverage_all: bool,
    /// Show QEMU's command line, and (unless --json has stderr) what QEMU itself writes there
    #[arg(long, short)]
    pub(crate) verbose: bool,

    /// The test that a debugger is to have.
    #[arg(skip)]
    pub(crate) test: Option<TestCase>,

    #[command(flatten)]
    pub(crate) settings: Settings,
}

impl Run {
    /// Whether the firmware is started as an operating system's kernel is.
    pub(crate) fn is_kernel(&self) -> bool {
        self.append.is_some() || self.initrd.is_some()
    }

    /// The files that it reads, and what they are.
    pub(crate) fn inputs(&self) -> Vec<(&Path, &'static str)> {
        let config = self.config.as_deref();
        let config = config.map(|config| (config, "the configuration file"));
        let firmware = self.firmware.as_deref();
        let firmware = firmware.map(|firmware| (firmware, "the firmware"));
        let bios = self.bios.as_deref().map(|bios| (bios, "the ROM"));
        let initrd = self.initrd.as_deref();
        let initrd = initrd.map(|initrd| (initrd, "the initrd"));
        let symbols = self.symbols.iter();
        let symbols = symbols.map(|symbols| (symbols.as_path(), "the file of symbols"));
        [firmware, bios, initrd, config]
            .into_iter()
            .flatten()
            .chain(symbols)
            .collect()
    }

    /// The same, and what `--json` writes.
    pub(crate) fn inputs_and_json(&self) -> Vec<(&Path, &'static str)> {
        let mut files = self.inputs();
        files.extend(
            self.json
                .as_deref()
                .map(|json| (json, "what --json writes")),
        );
        files
    }
}

const TESTS: &str = "Tests in the firmware";
const LOGS: &str = "Logs by RTT and defmt";
const COVERAGE: &str = "Coverage";

const AFTER_HELP: &str = "\
Exit status:
  the firmware's   it exited by semihosting; 0 also when it shut the machine down
  0                its tests passed; --expect: it printed what was expected
  1                --expect: it ended with status 0, but before it printed that
  101              one of its tests failed
  120              it asked for a reset, or its watchdog expired (--reboot lets it)
  121              it told QEMU that it panicked, or stayed in a panic (--on-fault)
  124              --timeout passed
  125              QEMU or qemu-controller failed, which says nothing of the firmware
  129, 130, 143    SIGHUP, SIGINT (Ctrl-C) or SIGTERM ended the run; 130 also a debugger
  134              the core locked up, or took a triple fault
  137              SIGKILL ended QEMU (the system sends it where memory has run out)
  139              a core stayed in the handler of a fault (--on-fault)
  141              the reader of stdout or stderr is gone

Configuration file:
  It sets those options by their names; the further arguments for QEMU are `qemu-args`:

    machine = \"lm3s6965evb\"
    timeout = \"10s\"
    qemu-args = [\"-d\", \"guest_errors\"]

  The command line takes precedence. Relative paths start at the file's folder. A file that
  somebody else owns or can write is not read, unless --config names it.

Input:
  The first serial port, the semihosting console and the file `:tt` get all of it. A terminal
  stays in its line mode: a line is sent when Enter is pressed, which a serial port receives as
  CR, as from a serial terminal (--newline). Other input is passed on unchanged.";

/// Reads the command line.
///
/// After the firmware come further options of the program's, as `cargo run --` passes them on. What
/// is none of those, `--nocapture` for example, is for the firmware.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Verb, clap::Error> {
    let (ours, arguments) = split(words.collect());
    let mut verb = Arguments::try_parse_from(ours)?.verb;
    if let Verb::Run(run) = &mut verb {
        run.arguments = arguments;
    }
    Ok(verb)
}

/// Said where nothing is named that a machine begins with.
pub(crate) fn no_firmware() -> String {
    let mut command = Arguments::command();
    command.build();
    let run = command.find_subcommand_mut("run");
    let usage = run.map(clap::Command::render_usage).unwrap_or_default();
    format!(
        "no <FIRMWARE> is named, which comes before `--`, and QEMU's arguments have nothing that a \
         machine begins with\n\n{usage}"
    )
}

/// The words that the program understands or has to refuse, and the firmware's.
fn split(words: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let command = Arguments::command();
    let options = command
        .find_subcommand("run")
        .filter(|_| words.get(1).is_some_and(|word| word == "run"));
    let Some(options) = options else {
        return (words, Vec::new());
    };
    let mut words = words.into_iter().peekable();
    let mut ours: Vec<OsString> = words.by_ref().take(2).collect();
    let mut arguments = Vec::new();
    let mut has_firmware = false;
    while let Some(word) = words.next() {
        if word == "--" {
            ours.push(word);
            break;
        }
        // `--gdb free`: the address would be taken for the firmware, or for an argument of it.
        let is_address = |next: &OsString| next.to_str().is_some_and(|next| gdb(next).is_ok());
        if word == "--gdb"
            && let Some(address) = words.next_if(is_address)
        {
            ours.push([word, address].join(OsStr::new("=")));
            continue;
        }
        let is_word = !word.as_encoded_bytes().starts_with(b"-") || word == "-";
        match option(options, &word) {
            _ if is_word && !has_firmware => {
                has_firmware = true;
                ours.push(word);
            }
            Some(takes_next) => {
                ours.push(word);
                ours.extend(words.by_ref().take(usize::from(takes_next)));
            }
            None if has_firmware => arguments.push(word),
            None => ours.push(word),
        }
    }
    ours.extend(words);
    (ours, arguments)
}

/// Whether an option of this name takes the next word; `None` where there is none.
fn option(options: &clap::Command, word: &OsStr) -> Option<bool> {
    let word = word.to_str()?;
    if matches!(word, "-h" | "--help") {
        return Some(false);
    }
    let (name, value) = match word.split_once('=') {
        Some((name, _)) => (name, true),
        None => (word, false),
    };
    let is_named = |argument: &&clap::Arg| match name.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => name.strip_prefix('-').is_some_and(|short| {
            let letter = argument.get_short();
            letter.is_some_and(|letter| short.chars().eq([letter]))
        }),
    };
    let argument = options.get_arguments().find(is_named)?;
    let takes_value = argument.get_action().takes_values();
    Some(takes_value && !value && !argument.is_require_equals_set())
}

/// Where a debugger may connect. Whoever reaches it can run commands here, so no address that others
/// can reach.
pub(crate) fn gdb(text: &str) -> Result<Endpoint, String> {
    if text == "free" {
        return Ok(Endpoint::free_port());
    }
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Endpoint::Socket(Path::new(path).to_owned()));
    }
    if let Ok(port) = text.trim_start_matches(':').parse() {
        return Ok(Endpoint::loopback(port));
    }
    let address = text
        .replacen("localhost:", "127.0.0.1:", 1)
        .parse::<std::net::SocketAddr>();
    match address {
        Ok(address) if !address.ip().is_loopback() => Err(format!(
            "whoever reaches a GDB stub can run commands on this machine, so only a loopback address is taken, such as 127.0.0.1:{}",
            address.port()
        )),
        Ok(address) => Ok(Endpoint::Exposed(address)),
        Err(_) => Err("a GDB address is a port, 127.0.0.1:PORT, unix:PATH or free".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OnFault;

    fn parsed(words: &[&str]) -> Result<Run, clap::Error> {
        let words = ["qemu-controller", "run"].iter().chain(words);
        match parse(words.map(OsString::from))? {
            Verb::Run(run) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn cargo_puts_the_firmware_after_the_runner_s_options_and_its_own_words_after_that() {
        let run = parsed(&[
            "--machine",
            "microbit",
            "target/debug/app",
            "one_test",
            "--timeout",
            "2s",
        ])
        .unwrap();
        assert_eq!(run.firmware.as_deref(), Some(Path::new("target/debug/app")));
        assert_eq!(run.arguments, ["one_test"]);
        assert_eq!(run.settings.machine.as_deref(), Some("microbit"));
        assert!(run.settings.timeout.is_some());
    }

    #[test]
    fn what_follows_two_dashes_is_qemu_s() {
        let run = parsed(&[
            "a.elf",
            "word",
            "--",
            "-d",
            "guest_errors",
            "--",
            "--machine",
        ])
        .unwrap();
        assert_eq!(run.arguments, ["word"]);
        assert_eq!(run.qemu_args, ["-d", "guest_errors", "--", "--machine"]);
    }

    #[test]
    fn what_is_no_option_of_the_program_s_is_the_firmware_s() {
        let words = [
            "a.elf",
            "--nocapture",
            "--list",
            "--format",
            "terse",
            "-q",
            "--timeout",
            "2s",
        ];
        let run = parsed(&words).unwrap();
        assert_eq!(
            run.arguments,
            ["--nocapture", "--list", "--format", "terse", "-q"]
        );
        assert!(run.settings.timeout.is_some());
        let words = [
            "-v",
            "a.elf",
            "--gdb",
            "one",
            "-",
            "--exact=x",
            "--",
            "-d",
            "int",
        ];
        let run = parsed(&words).unwrap();
        assert_eq!(run.arguments, ["one", "-", "--exact=x"]);
        assert_eq!((run.verbose, run.gdb.is_some()), (true, true));
        assert_eq!(run.qemu_args, ["-d", "int"]);
    }

    #[test]
    fn a_machine_may_begin_with_its_rom_alone() {
        let run = parsed(&["--machine", "virt", "--bios", "u-boot.bin"]).unwrap();
        assert_eq!((run.firmware, run.bios), (None, Some("u-boot.bin".into())));
        let run = parsed(&["zImage", "--append", "quiet", "--initrd", "root.cpio"]).unwrap();
        assert_eq!(run.append, Some("quiet".into()));
        assert_eq!(run.settings.on_fault(run.is_kernel()), OnFault::Continue);
        let told = ["zImage", "--append", "quiet", "--on-fault", "stop"];
        let told = parsed(&told).unwrap();
        assert_eq!(told.settings.on_fault(told.is_kernel()), OnFault::Stop);
        let plain = parsed(&["fw.elf"]).unwrap();
        assert_eq!(plain.settings.on_fault(plain.is_kernel()), OnFault::Stop);
        parsed(&["--bios", "u-boot.bin", "--append", "quiet"]).unwrap_err();
    }

    #[test]
    fn the_later_of_two_counts() {
        let run = parsed(&[
            "--machine",
            "one",
            "--gdb",
            "--machine",
            "two",
            "--gdb=free",
            "a.elf",
        ])
        .unwrap();
        assert_eq!(run.settings.machine.as_deref(), Some("two"));
        assert_eq!(run.gdb, Some(Endpoint::free_port()));
    }

    #[test]
    fn options_with_an_optional_value_never_take_the_firmware() {
        for words in [["--gdb", "free", "a.elf"], ["a.elf", "--gdb", "free"]] {
            let run = parsed(&words).unwrap();
            assert_eq!(run.gdb, Some(Endpoint::free_port()));
            assert_eq!(
                (run.firmware, run.arguments),
                (Some("a.elf".into()), vec![])
            );
        }
        let run = parsed(&["--gdb", "--json", "--deterministic", "--reboot", "a.elf"]).unwrap();
        assert_eq!(run.firmware.as_deref(), Some(Path::new("a.elf")));
        assert_eq!(run.gdb, Some(Endpoint::loopback(1234)));
        assert_eq!(run.json.as_deref(), Some(Path::new("-")));
        assert_eq!(
            (run.settings.deterministic, run.settings.reboot),
            (Some(6), Some(true))
        );
    }

    #[test]
    fn gdb_addresses() {
        let exposed = |text: &str| Endpoint::Exposed(text.parse().unwrap());
        let rows = [
            ("free", Endpoint::free_port()),
            ("3333", Endpoint::loopback(3333)),
            (":3333", Endpoint::loopback(3333)),
            ("127.0.0.1:3333", exposed("127.0.0.1:3333")),
            ("localhost:3333", exposed("127.0.0.1:3333")),
            ("[::1]:3333", exposed("[::1]:3333")),
            ("unix:gdb.sock", Endpoint::Socket("gdb.sock".into())),
        ];
        for (text, expected) in rows {
            assert_eq!(gdb(text), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "unix:",
            "65536",
            "a.elf",
            "192.0.2.1:1234",
            "0.0.0.0:1234",
        ] {
            assert!(gdb(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_words_are_refused_with_what_is_wrong() {
        let rows: [(&[&str], &str); 7] = [
            (&["--mashine", "x", "a.elf"], "--machine"),
            (&["--timeout", "10", "a.elf"], "time unit needed"),
            (&["--timeout", "0s", "a.elf"], "above zero"),
            (&["--gdb=192.0.2.1:1", "a.elf"], "loopback"),
            (&["--expect", "", "a.elf"], "--expect"),
            (
                &["--expect", "a", "--expect-regex", "b", "a.elf"],
                "cannot be used with",
            ),
            (&["--deterministic=11", "a.elf"], "0..=10"),
        ];
        for (words, expected) in rows {
            let error = parsed(words).unwrap_err().to_string();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }
}
