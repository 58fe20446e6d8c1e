//! How a QEMU process ended, by its status and by what it wrote on stderr.

use std::fmt;
use std::process::ExitStatus;
use std::sync::Arc;

use crate::process::lockup::RegisterDump;
use crate::process::output::Tail;

/// How the process ended. Cheap to clone: each one that waits gets a copy.
#[derive(Debug, Clone)]
pub struct Exit {
    kind: ExitKind,
    status: Option<ExitStatus>,
    by_this_program: bool,
    stderr: Tail,
}

/// What the end of the process means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitKind {
    /// It exited by itself with this status: 0 after `quit`, a signal such as SIGTERM or the
    /// guest's own shutdown; the guest's status after a semihosting exit.
    Exited(i32),
    /// A signal ended it that it did not raise itself: killed from outside, or by the system for
    /// want of memory.
    Signalled(i32),
    /// The guest locked up (a fault that its fault handler could not take), upon which QEMU aborts.
    Lockup(Arc<RegisterDump>),
    /// QEMU refused its options or what they name: status 1 and a message of its own.
    OptionError {
        /// QEMU's own words without its name in front. Some take several lines, such as those that
        /// tell which ROM regions overlap.
        line: String,
    },
    /// QEMU aborted by itself: a failed assertion, or another fatal error. GLib's (`g_error`) come
    /// by SIGTRAP.
    Aborted {
        /// The assertion or the fatal error's line, where QEMU printed one.
        line: Option<String>,
    },
    /// QEMU crashed: SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGSYS (its sandbox).
    Crashed(i32),
    /// The process is gone, but its status could not be had: something else in this program reaped
    /// it.
    Unknown,
}

/// The numbers are the same on Linux and macOS, but for SIGBUS and SIGSYS.
mod signal {
    pub(super) const ILL: i32 = 4;
    pub(super) const TRAP: i32 = 5;
    pub(super) const ABRT: i32 = 6;
    pub(super) const BUS: i32 = if cfg!(target_os = "linux") { 7 } else { 10 };
    pub(super) const FPE: i32 = 8;
    pub(super) const SEGV: i32 = 11;
    pub(super) const SYS: i32 = if cfg!(target_os = "linux") { 31 } else { 12 };
}

impl Exit {
    /// How `program` ended, by its status (`None` where it could not be had) and its stderr.
    /// `signalled`: this program has sent it a signal to end it.
    pub(crate) fn new(
        program: &str,
        status: Option<ExitStatus>,
        signalled: bool,
        stderr: Tail,
    ) -> Self {
        let (code, signal) =
            status.map_or((None, None), |status| (status.code(), signal_of(status)));
        let text = stderr.to_string_lossy();
        let kind = match (code, signal) {
            (Some(1), _) => match option_error(program, &text) {
                Some(line) => ExitKind::OptionError { line },
                None => ExitKind::Exited(1),
            },
            (Some(code), _) => ExitKind::Exited(code),
            (None, Some(signal::ABRT | signal::TRAP)) => aborted(&text),
            (
                None,
                Some(
                    signal @ (signal::ILL | signal::BUS | signal::FPE | signal::SEGV | signal::SYS),
                ),
            ) => ExitKind::Crashed(signal),
            (None, Some(signal)) => ExitKind::Signalled(signal),
            (None, None) => ExitKind::Unknown,
        };
        Self {
            kind,
            status,
            by_this_program: signalled,
            stderr,
        }
    }

    /// What the end means.
    #[must_use]
    pub fn kind(&self) -> &ExitKind {
        &self.kind
    }

    /// The exit status, unless a signal ended the process.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }

    /// The signal that ended the process, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(signal_of)
    }

    /// It exited with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code() == Some(0)
    }

    /// The end of what it wrote on stderr.
    #[must_use]
    pub fn stderr(&self) -> &Tail {
        &self.stderr
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExitKind::Exited(code) => write!(f, "QEMU exited with status {code}"),
            ExitKind::Signalled(signal) if self.by_this_program => {
                write!(f, "QEMU was ended by this program, with signal {signal}")
            }
            ExitKind::Signalled(signal) => write!(f, "QEMU was ended by signal {signal}"),
            ExitKind::Lockup(dump) => write!(f, "the guest locked up: {dump}"),
            ExitKind::OptionError { line } => write!(f, "QEMU refused to start: {line}"),
            ExitKind::Aborted { line: Some(line) } => write!(f, "QEMU aborted: {line}"),
            ExitKind::Aborted { line: None } => write!(f, "QEMU aborted"),
            ExitKind::Crashed(signal) => write!(f, "QEMU crashed with signal {signal}"),
            ExitKind::Unknown => write!(f, "QEMU is gone, and its exit status could not be had"),
        }
    }
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal_of(_: ExitStatus) -> Option<i32> {
    None
}

/// QEMU's longest refusals have about ten lines.
const REFUSAL_LINES: usize = 30;

/// QEMU's refusal: its first error, and what follows it.
fn option_error(program: &str, stderr: &str) -> Option<String> {
    let mut lines = stderr.lines().map(|line| (reported(program, line), line));
    let first = lines.find_map(|(reported, _)| reported.filter(|text| !is_notice(text)))?;
    let rest = lines.filter_map(|(reported, line)| match reported {
        Some(text) if is_notice(text) => None,
        Some(text) => Some(text),
        None => Some(line),
    });
    let lines: Vec<_> = std::iter::once(first)
        .chain(rest)
        .take(REFUSAL_LINES)
        .collect();
    let text = lines.join("\n");
    Some(text.trim_end().to_owned())
}

/// What QEMU's `error_report` says on this line. It puts the program's name in front, behind a time
/// or a guest's name if `-msg` says so; a wrapper's name is not that of the program that it runs.
fn reported<'a>(program: &str, line: &'a str) -> Option<&'a str> {
    let (front, text) = line.split_once(": ")?;
    let name = front.rsplit(' ').next()?;
    (name == program || name.starts_with("qemu-system-")).then_some(text)
}

/// Warnings and information are no reason to exit.
fn is_notice(text: &str) -> bool {
    text.starts_with("warning:") || text.starts_with("info:")
}

fn aborted(stderr: &str) -> ExitKind {
    if let Some(dump) = RegisterDump::parse(stderr) {
        return ExitKind::Lockup(Arc::new(dump));
    }
    // The last is GLib's, as in `GLib-ERROR **: 12:00:00.000: ../glib/gmem.c:136: failed to
    // allocate 8 bytes`.
    const TELLING: [&str; 4] = ["Assertion", "assertion", "fatal", "ERROR **"];
    let telling = |line: &&str| TELLING.iter().any(|word| line.contains(word));
    ExitKind::Aborted {
        line: stderr.lines().rev().find(telling).map(str::to_owned),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::process::ring::Ring;

    fn exit(wait_status: i32, stderr: &str) -> ExitKind {
        let ring = Ring::new(1 << 16);
        ring.push(stderr.as_bytes());
        Exit::new(
            "qemu-system-arm",
            Some(ExitStatus::from_raw(wait_status)),
            false,
            Tail::of(&ring),
        )
        .kind()
        .clone()
    }

    #[test]
    fn told_apart_by_status_and_stderr() {
        let option = |line: &str| ExitKind::OptionError {
            line: line.to_owned(),
        };
        let rows = [
            (0, "qemu-system-arm: whatever\n", ExitKind::Exited(0)),
            (0x100, "", ExitKind::Exited(1)),
            (
                0x100,
                "qemu-system-arm: -foo: invalid option\n",
                option("-foo: invalid option"),
            ),
            (
                0x100,
                "/x: No such file\nqemu-system-arm: Could not load kernel '/x'\n",
                option("Could not load kernel '/x'"),
            ),
            (
                0x100,
                "qemu-system-arm: Some ROM regions are overlapping\nThese regions:\n  a\n  b\nqemu-system-arm: warning: w\n\n",
                option("Some ROM regions are overlapping\nThese regions:\n  a\n  b"),
            ),
            (
                0x100,
                "2026-11-23T05:00:00.000000Z qemu-system-arm: no\n",
                option("no"),
            ),
            (
                0x100,
                "qemu-system-aarch64: run by a wrapper\n",
                option("run by a wrapper"),
            ),
            (
                0x100,
                "qemu-system-arm: warning: nic x has no peer\nTimer with period zero, disabling\n",
                ExitKind::Exited(1),
            ),
            (0x100, "the guest says: hello\n", ExitKind::Exited(1)),
            (0x2a00, "", ExitKind::Exited(42)),
            (9, "", ExitKind::Signalled(9)),
            (15, "", ExitKind::Signalled(15)),
            (11, "", ExitKind::Crashed(11)),
            (11 | 0x80, "", ExitKind::Crashed(11)),
            (6, "", ExitKind::Aborted { line: None }),
            (5, "", ExitKind::Aborted { line: None }),
            (
                5,
                "\n(process:8): GLib-ERROR **: 05:00:00.000: ../glib/gmem.c:136: failed to allocate 8 bytes\n",
                ExitKind::Aborted {
                    line: Some(
                        "(process:8): GLib-ERROR **: 05:00:00.000: ../glib/gmem.c:136: failed to allocate 8 bytes"
                            .into(),
                    ),
                },
            ),
            (
                6,
                "qemu: hardware error: x\nqemu: fatal: no\n",
                ExitKind::Aborted {
                    line: Some("qemu: fatal: no".into()),
                },
            ),
        ];
        for (status, stderr, expected) in rows {
            assert_eq!(exit(status, stderr), expected, "{status:#x} {stderr}");
        }
    }

    #[test]
    fn a_signal_of_this_program_is_not_blamed_on_somebody_else() {
        let text = |signalled| {
            let killed = Some(ExitStatus::from_raw(9));
            Exit::new("qemu-system-arm", killed, signalled, Tail::default()).to_string()
        };
        assert_eq!(text(true), "QEMU was ended by this program, with signal 9");
        assert_eq!(text(false), "QEMU was ended by signal 9");
    }

    #[test]
    fn an_exit_without_a_status_is_unknown() {
        let exit = Exit::new("qemu-system-arm", None, true, Tail::default());
        assert_eq!(
            (exit.kind(), exit.code(), exit.signal()),
            (&ExitKind::Unknown, None, None)
        );
    }
}
