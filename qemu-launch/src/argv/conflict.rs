//! What `extra_args` may not say: an option that a typed one has set already, or one that lets QEMU
//! escape its supervision. It catches mistakes and is no boundary; see
//! [`MachineSpec::extra_args`](crate::MachineSpec::extra_args).

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;

use crate::error::SpecError;

/// Options that this crate sets, by the part of the machine that they are about: two of one part
/// contradict each other.
const PARTS: &[(&str, &[&str])] = &[
    ("the board", &["machine", "M"]),
    ("the CPU", &["cpu"]),
    ("the memory", &["m"]),
    ("the number of CPUs", &["smp"]),
    ("the firmware", &["kernel"]),
    ("the ROM", &["bios"]),
    ("semihosting", &["semihosting", "semihosting-config"]),
    ("the QMP monitor", &["qmp", "qmp-pretty", "mon", "monitor"]),
    ("the GDB stub", &["gdb"]),
    ("the clock", &["icount"]),
    ("the state to begin from", &["incoming", "loadvm"]),
    ("actions", &["action"]),
    ("log items", &["d"]),
    ("the log file", &["D"]),
    ("the sandbox", &["sandbox"]),
    (
        "the display",
        &["display", "nographic", "curses", "sdl", "vnc", "spice"],
    ),
];

/// Options of the above that take no value.
const FLAGS: &[&str] = &["semihosting", "nographic", "curses", "sdl"];

/// Options whose value is free text, and may look like any other option.
const TEXT: &[&str] = &["name", "append"];

const DAEMONIZE: &str = "the process would leave the one that supervises it";
const OPEN_STUB: &str = "it listens on every interface; set the GDB stub's endpoint instead";
const REMOTE_STUB: &str =
    "it can be reached from another machine; set the GDB stub's endpoint instead";

/// An option with its value, where it has one.
type Pair<'a> = (&'a OsStr, Option<&'a OsStr>);

/// The extra arguments without those that only repeat what `typed` says.
///
/// # Errors
/// One is no option, lets QEMU escape its supervision, or contradicts `typed`.
pub(crate) fn check_extra(
    typed: &[OsString],
    extra: &[OsString],
) -> Result<Vec<OsString>, SpecError> {
    let mut seen: Vec<Pair<'_>> = pairs(typed).collect();
    let mut passed = Vec::new();
    if let Some(word) = extra.first().filter(|word| !is_option(word)) {
        return Err(SpecError::invalid(
            "extra argument",
            format!("{word:?} is no option: one word each, beginning with a dash"),
        ));
    }
    for pair in pairs(extra) {
        let (option, value) = pair;
        for word in [Some(option), value].into_iter().flatten() {
            crate::argv::option::value("extra argument", word)?;
        }
        if option.as_encoded_bytes().contains(&b' ') {
            return Err(SpecError::invalid(
                "extra argument",
                format!(
                    "{option:?} is one word with a space; give the option and its value as two"
                ),
            ));
        }
        refuse(option, value)?;
        if is_repetition(pair, &seen) {
            continue;
        }
        if let Some((part, names)) = part_of(option)
            && let Some((first, _)) = seen.iter().find(|(seen, _)| names.contains(&name(seen)))
        {
            return Err(SpecError::SetAgain {
                option: option.to_owned(),
                part,
                first: (*first).to_owned(),
            });
        }
        passed.extend(
            [Some(option), value]
                .into_iter()
                .flatten()
                .map(OsStr::to_owned),
        );
        seen.push(pair);
    }
    Ok(passed)
}

fn part_of(option: &OsStr) -> Option<&'static (&'static str, &'static [&'static str])> {
    PARTS
        .iter()
        .find(|(_, names)| names.contains(&name(option)))
}

/// Whether it says nothing new: the same value again, no monitor where none is the default, no
/// window where there is none, semihosting where it is served.
fn is_repetition((option, value): Pair<'_>, seen: &[Pair<'_>]) -> bool {
    let has = |name_of: &str, value: Option<&str>| {
        seen.iter().any(|(option, seen)| {
            name(option) == name_of && value.is_none_or(|value| *seen == Some(OsStr::new(value)))
        })
    };
    match name(option) {
        "nodefaults" | "no-user-config" => true,
        "monitor" => value == Some(OsStr::new("none")),
        "nographic" => has("display", Some("none")),
        "semihosting" => has("semihosting-config", None),
        _ => {
            part_of(option).is_some_and(|(_, names)| {
                seen.iter()
                    .any(|(seen, other)| names.contains(&name(seen)) && *other == value)
            }) && value.is_some()
        }
    }
}

/// Refuses what is never passed on, whatever else is said.
fn refuse(option: &OsStr, value: Option<&OsStr>) -> Result<(), SpecError> {
    let value = value.unwrap_or_default().to_string_lossy();
    let why = match name(option) {
        "daemonize" => DAEMONIZE,
        "run-with" if value.split([',', '=']).any(|word| word == "daemonize") => DAEMONIZE,
        "s" => OPEN_STUB,
        "gdb" if !stays_here(&value) => REMOTE_STUB,
        _ => return Ok(()),
    };
    Err(SpecError::Refused {
        option: option.to_owned(),
        why,
    })
}

/// Whether a stub at this character device can be reached from this machine only.
fn stays_here(device: &str) -> bool {
    let device = device.strip_prefix("mon:").unwrap_or(device);
    let Some((kind, address)) = device.split_once(':') else {
        return true;
    };
    if !matches!(kind, "tcp" | "telnet" | "tn3270" | "websocket" | "udp") {
        return true;
    }
    let (address, options) = address.split_once(',').unwrap_or((address, ""));
    // QEMU takes the last one that is named.
    if options.split(',').any(|option| option.starts_with("host=")) {
        return false;
    }
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // With UDP, the address that answers are sent to is not the one that QEMU listens on.
    kind != "udp"
        && (host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

fn is_option(word: &OsString) -> bool {
    word.as_encoded_bytes().first() == Some(&b'-')
}

/// The option's name; QEMU takes one dash or two.
fn name(option: &OsStr) -> &str {
    let text = option.to_str().unwrap_or_default();
    text.strip_prefix("--")
        .or_else(|| text.strip_prefix('-'))
        .unwrap_or(text)
}

/// Each option with its value. Which options take one differs by QEMU's version, so a word is a
/// value if it does not begin with a dash: no option hides behind one that is not known.
fn pairs(words: &[OsString]) -> impl Iterator<Item = Pair<'_>> {
    let mut words = words.iter().peekable();
    std::iter::from_fn(move || {
        let option = words.next()?;
        let takes_any = TEXT.contains(&name(option));
        let takes_none = FLAGS.contains(&name(option));
        let value = words.next_if(|word| takes_any || (!takes_none && !is_option(word)));
        Some((option.as_os_str(), value.map(OsString::as_os_str)))
    })
}
