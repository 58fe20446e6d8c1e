//! What may be said both on the command line and in the configuration file, under the same names.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use qemu_controller::QemuConfig;
use qemu_controller::qemu_launch::Semihosting;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::bundle::When;

/// All unset means: the library's defaults.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[command(next_help_heading = "Options that the configuration file may set as well")]
pub(crate) struct Settings {
    /// QEMU's name of the board [default: lm3s6965evb]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    #[serde(deserialize_with = "not_empty")]
    pub(crate) machine: Option<String>,
    /// CPU model [default: cortex-m3 on lm3s6965evb, else the board's own]
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    #[serde(deserialize_with = "not_empty")]
    pub(crate) cpu: Option<String>,
    /// Memory, such as 64K or 16M [default: 64K on lm3s6965evb, else the board's own]
    #[arg(long, value_name = "SIZE", value_parser = NonEmptyStringValueParser::new())]
    #[serde(deserialize_with = "not_empty")]
    pub(crate) memory: Option<String>,
    /// The QEMU to run, a name or a path [default: qemu-system-arm]
    #[arg(long, value_name = "PROGRAM")]
    #[serde(deserialize_with = "not_empty")]
    pub(crate) qemu: Option<PathBuf>,
    /// End the run after this time, start included, such as 10s or 1m30s, with status 124; `none`
    /// for no end [default: none]. Of a firmware with tests: fail a test that takes longer
    ///
    /// A test that says itself how long it may take is not bound by it, and the default of all others
    /// is 60s. Tests that the firmware runs by itself have the time together.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<Timeout>,
    /// What to do when a core stays in the handler of a fault [default: stop]
    ///
    /// `stop` looks at each fault as it happens, through a debugger of the program's own, and ends the
    /// run once a core loops in the handler, or in a panic, for good. Where interrupts have the same
    /// handler (RISC-V in direct mode) each takes half a millisecond more. `continue` lets it be, and
    /// is the default with --append or --initrd.
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_fault: Option<OnFault>,
    /// Let a firmware that asks for a reset start over, as the board would; else the run ends with
    /// that
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) reboot: Option<bool>,
    /// Virtual time by instructions, 2^SHIFT ns each, and no waiting while the firmware sleeps: the
    /// same run every time, as fast as it goes [default with --deterministic: 6]
    #[arg(long, value_name = "SHIFT", num_args = 0..=1, require_equals = true,
          default_missing_value = "6",
          value_parser = clap::value_parser!(u8).range(0..=MAX_SHIFT as i64))]
    #[serde(deserialize_with = "shift")]
    pub(crate) deterministic: Option<u8>,
    /// What the firmware reaches by semihosting [default: console]
    ///
    /// `console` keeps QEMU from running other programs (its `-sandbox`). QEMU has nothing that
    /// keeps the firmware from opening files: it can read and write yours with `console` too.
    /// Firmware that you do not trust needs `off`.
    #[arg(long, value_name = "WHAT")]
    pub(crate) semihosting: Option<SemihostingMode>,
    /// Write what the firmware prints into this file as well
    ///
    /// It is emptied when the firmware begins to run. A log that takes nothing slows the firmware,
    /// as stdout does.
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "not_empty")]
    pub(crate) log: Option<PathBuf>,
    /// Keep the machine of a run that fails, as it was then, in a folder for `qemu-controller open`
    /// [default: never; with --bundle: on-failure]
    ///
    /// The folder has all that the firmware's memory has, and is only for you to read. Each
    /// semihosting call takes half a millisecond more.
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
          default_missing_value = "on-failure", env = "QEMU_CONTROLLER_BUNDLE")]
    pub(crate) bundle: Option<When>,
    /// The folder for bundles [default: qemu-controller/bundles in Cargo's target folder, where the
    /// firmware is in one, else qemu-controller-bundles]
    #[arg(long, value_name = "FOLDER", env = "QEMU_CONTROLLER_BUNDLE_DIR")]
    #[serde(deserialize_with = "not_empty")]
    pub(crate) bundle_dir: Option<PathBuf>,
    /// What the firmware receives for the end of an input line [default: cr from a terminal, else
    /// keep]
    #[arg(long, value_name = "KIND")]
    pub(crate) newline: Option<Newline>,
    /// The file's further arguments for QEMU; those after `--` follow them.
    #[arg(skip)]
    pub(crate) qemu_args: Vec<String>,
}

impl Settings {
    /// These, and where they are silent the others.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            machine: self.machine.or(others.machine),
            cpu: self.cpu.or(others.cpu),
            memory: self.memory.or(others.memory),
            qemu: self.qemu.or(others.qemu),
            timeout: self.timeout.or(others.timeout),
            on_fault: self.on_fault.or(others.on_fault),
            reboot: self.reboot.or(others.reboot),
            deterministic: self.deterministic.or(others.deterministic),
            semihosting: self.semihosting.or(others.semihosting),
            log: self.log.or(others.log),
            bundle: self.bundle.or(others.bundle),
            bundle_dir: self.bundle_dir.or(others.bundle_dir),
            newline: self.newline.or(others.newline),
            qemu_args: [others.qemu_args, self.qemu_args].concat(),
        }
    }

    /// The names of those set here that decide what runs on this machine, or what is written.
    pub(crate) fn sets_of_weight(&self) -> Vec<&'static str> {
        // More than a name has files written, such as `virt,dumpdtb=FILE`.
        let has_options =
            |name: &Option<String>| name.as_ref().is_some_and(|name| name.contains(','));
        let sets = [
            ("machine", has_options(&self.machine)),
            ("cpu", has_options(&self.cpu)),
            ("qemu", self.qemu.is_some()),
            ("log", self.log.is_some()),
            ("bundle", self.bundle().is_some()),
            ("bundle-dir", self.bundle_dir.is_some()),
            (
                "semihosting",
                self.semihosting == Some(SemihostingMode::Full),
            ),
            ("qemu-args", !self.qemu_args.is_empty()),
        ];
        let sets = sets.into_iter().filter(|(_, set)| *set);
        sets.map(|(name, _)| name).collect()
    }

    /// When a bundle is written; `None` where none ever is.
    pub(crate) fn bundle(&self) -> Option<When> {
        self.bundle.filter(|when| *when != When::Never)
    }

    /// What the firmware reaches by semihosting.
    pub(crate) fn semihosting(&self) -> SemihostingMode {
        self.semihosting.unwrap_or(SemihostingMode::Console)
    }

    /// The QEMU that is run.
    pub(crate) fn program(&self) -> &Path {
        self.qemu.as_deref().unwrap_or(Path::new("qemu-system-arm"))
    }

    /// What to do when a core stays in the handler of a fault. A kernel with a command line or an
    /// initrd handles page faults by the thousand, and a stop at each costs it most of its time.
    pub(crate) fn on_fault(&self, is_kernel: bool) -> OnFault {
        let default = if is_kernel {
            OnFault::Continue
        } else {
            OnFault::Stop
        };
        self.on_fault.unwrap_or(default)
    }

    /// Relative paths as seen from this folder. A bare name of a program is not one: it is looked
    /// up.
    pub(crate) fn relative_to(mut self, folder: &Path) -> Self {
        self.qemu = self.qemu.map(|qemu| match qemu.components().count() {
            1 => qemu,
            _ => folder.join(qemu),
        });
        self.log = self.log.map(|log| folder.join(log));
        self.bundle_dir = self.bundle_dir.map(|bundles| folder.join(bundles));
        self
    }
}

/// The slowest virtual clock that QEMU has, by `-icount shift=`.
const MAX_SHIFT: u8 = 10;

fn shift<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    match u8::try_from(i64::deserialize(from)?) {
        Ok(shift @ 0..=MAX_SHIFT) => Ok(Some(shift)),
        _ => Err(D::Error::custom("a shift is a number from 0 to 10")),
    }
}

/// A name or a path, which has to be one.
fn not_empty<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + AsRef<OsStr>,
{
    let text = T::deserialize(from)?;
    match text.as_ref().is_empty() {
        true => Err(D::Error::custom(
            "it is empty; leave it out for the default",
        )),
        false => Ok(Some(text)),
    }
}

/// What the firmware reaches by semihosting.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SemihostingMode {
    /// Nothing: a semihosting call is a fault
    Off,
    /// Printing, its arguments, its exit
    Console,
    /// The commands of this machine, too
    Full,
}

impl SemihostingMode {
    /// What QEMU serves of it.
    pub(crate) fn served(self) -> Option<Semihosting> {
        match self {
            Self::Off => None,
            Self::Console => Some(Semihosting::console()),
            Self::Full => Some(Semihosting::full()),
        }
    }

    /// The machine with that.
    pub(crate) fn of(self, config: QemuConfig) -> QemuConfig {
        match self.served() {
            Some(semihosting) => config.semihosting(semihosting),
            None => config,
        }
    }
}

/// What to do when a core stays in the handler of a fault.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnFault {
    /// End the run, and say where and why
    Stop,
    /// Let it run on, and look at no fault
    Continue,
}

/// How long a run may take.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(try_from = "String")]
pub(crate) enum Timeout {
    None,
    After(Duration),
}

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            _ => match humantime::parse_duration(text) {
                Ok(Duration::ZERO) => Err("a time above zero was wanted".to_owned()),
                Ok(duration) => Ok(Self::After(duration)),
                Err(error) => Err(format!("{error} (such as 10s, 500ms or 1m30s)")),
            },
        }
    }
}

impl TryFrom<String> for Timeout {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What the firmware receives for the end of an input line.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Newline {
    /// As it comes
    Keep,
    /// Carriage return, as a serial terminal sends for Enter
    Cr,
    /// Carriage return and line feed
    Crlf,
}

impl Newline {
    /// The bytes to send for these bytes of input, which follow `before`: a line may end in CR and
    /// LF already, and they may come in two pieces.
    pub(crate) fn translate(self, before: Option<u8>, input: &[u8]) -> Vec<u8> {
        let mut sent = Vec::with_capacity(input.len());
        let mut before = before;
        for &byte in input {
            match (self, byte) {
                (Self::Cr, b'\n') if before == Some(b'\r') => {}
                (Self::Cr, b'\n') => sent.push(b'\r'),
                (Self::Crlf, b'\n') if before != Some(b'\r') => sent.extend(b"\r\n"),
                _ => sent.push(byte),
            }
            before = Some(byte);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(machine: &str) -> Settings {
        Settings {
            machine: Some(machine.to_owned()),
            ..Settings::default()
        }
    }

    #[test]
    fn the_command_line_counts_more_than_the_file() {
        let file = Settings {
            cpu: Some("cortex-m4".to_owned()),
            reboot: Some(true),
            ..named("of the file")
        };
        let line = Settings {
            reboot: Some(false),
            ..named("of the line")
        };
        let both = line.or(file.clone());
        assert_eq!(
            both,
            Settings {
                reboot: Some(false),
                ..Settings {
                    machine: named("of the line").machine,
                    ..file
                }
            }
        );
    }

    #[test]
    fn paths_of_a_file_start_at_its_folder_and_names_of_programs_nowhere() {
        let settings = |qemu: &str, log: &str| Settings {
            qemu: Some(qemu.into()),
            log: Some(log.into()),
            ..Settings::default()
        };
        let rows = [
            (
                settings("qemu-system-arm", "a.log"),
                settings("qemu-system-arm", "/p/a.log"),
            ),
            (
                settings("./qemu", "../a.log"),
                settings("/p/./qemu", "/p/../a.log"),
            ),
            (
                settings("/opt/qemu", "/var/a.log"),
                settings("/opt/qemu", "/var/a.log"),
            ),
        ];
        for (written, expected) in rows {
            assert_eq!(written.relative_to(Path::new("/p")), expected);
        }
    }

    #[test]
    fn durations() {
        let after = |seconds| Ok(Timeout::After(Duration::from_secs_f64(seconds)));
        let rows = [
            ("10s", after(10.0)),
            ("500ms", after(0.5)),
            ("1m 30s", after(90.0)),
            ("none", Ok(Timeout::None)),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<Timeout>(), expected, "{text}");
        }
        for wrong in ["", "10", "0s", "-1s", "soon", "1e9"] {
            assert!(wrong.parse::<Timeout>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ends_of_lines() {
        let rows: [(Newline, &[u8], &[u8]); 7] = [
            (Newline::Keep, b"a\r\nb\n\0\xff", b"a\r\nb\n\0\xff"),
            (Newline::Cr, b"a\nb", b"a\rb"),
            (Newline::Cr, b"\n", b"\r"),
            (Newline::Crlf, b"a\n\n", b"a\r\n\r\n"),
            (Newline::Crlf, b"", b""),
            (Newline::Cr, b"a\r\n\nb\r", b"a\r\rb\r"),
            (Newline::Crlf, b"a\r\n\nb\r", b"a\r\n\r\nb\r"),
        ];
        for (newline, input, expected) in rows {
            for cut in 0..=input.len() {
                let (first, second) = input.split_at(cut);
                let mut sent = newline.translate(None, first);
                sent.extend(newline.translate(first.last().copied(), second));
                assert_eq!(sent, expected, "{newline:?} {input:?} cut at {cut}");
            }
        }
    }
}
