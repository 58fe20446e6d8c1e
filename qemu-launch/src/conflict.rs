//! What `extra_args` may not say: an option that a typed one has said already, or one that defeats the watching.

use std::ffi::{OsStr, OsString};

use crate::error::SpecError;

/// Options that take no value, as `qemu-options.def` of 7.2 and 10.0 has them; all others take the next word.
const FLAGS: &[&str] = &[
    "h",
    "help",
    "version",
    "S",
    "s",
    "snapshot",
    "usb",
    "nographic",
    "full-screen",
    "portrait",
    "no-acpi",
    "no-hpet",
    "no-reboot",
    "no-shutdown",
    "nodefaults",
    "no-user-config",
    "daemonize",
    "mem-prealloc",
    "enable-kvm",
    "semihosting",
    "old-param",
    "preconfig",
    "singlestep",
    "one-insn-per-tb",
    "only-migratable",
    "audio-help",
    "xen-attach",
    "xen-domid-restrict",
    "win2k-hack",
    "no-fd-bootchk",
    "no-kvm",
    "enable-fips",
    "enable-sync-profile",
    "nouserconfig",
    "alt-grab",
    "ctrl-grab",
    "no-quit",
    "no-frame",
    "curses",
    "sdl",
];

/// Options that mean the same machine part, under one name each: one of them twice is a contradiction.
const SINGLE: &[(&str, &[&str])] = &[
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
    ("actions", &["action"]),
    ("log items", &["d"]),
    ("the log file", &["D"]),
    ("the sandbox", &["sandbox"]),
    (
        "the display",
        &["display", "nographic", "curses", "sdl", "vnc", "spice"],
    ),
];

/// Refuses extra arguments that are no options, defeat the watching, or repeat what `typed` says.
pub(crate) fn check_extra(typed: &[OsString], extra: &[OsString]) -> Result<(), SpecError> {
    let typed: Vec<&OsStr> = options(typed).collect::<Result<_, _>>()?;
    let mut seen = typed.clone();
    for option in options(extra) {
        let option = option?;
        crate::option::value("extra argument", option)?;
        match name(option) {
            "daemonize" => {
                return Err(SpecError::Refused {
                    option: option.to_owned(),
                    why: "the process would leave whoever watches it",
                });
            }
            "s" => {
                return Err(SpecError::Refused {
                    option: option.to_owned(),
                    why: "it listens on every interface; use `gdb(Endpoint::loopback(1234))`",
                });
            }
            _ => {}
        }
        if let Some((part, names)) = SINGLE.iter().find(|(_, names)| names.contains(&name(option)))
            && let Some(first) = seen.iter().find(|seen| names.contains(&name(seen)))
        {
            return Err(SpecError::Repeated {
                part,
                first: (*first).to_owned(),
                second: option.to_owned(),
            });
        }
        seen.push(option);
    }
    if let Some(nul) = extra.iter().find(|word| word.as_encoded_bytes().contains(&0)) {
        return Err(SpecError::Nul {
            what: "extra argument",
            text: nul.clone(),
        });
    }
    Ok(())
}

/// The option's name; QEMU takes one dash or two.
fn name(option: &OsStr) -> &str {
    let text = option.to_str().unwrap_or_default();
    text.strip_prefix("--")
        .or_else(|| text.strip_prefix('-'))
        .unwrap_or(text)
}

/// The words in option position, as QEMU's `lookup_opt` walks them.
fn options(words: &[OsString]) -> impl Iterator<Item = Result<&OsStr, SpecError>> {
    let mut words = words.iter();
    std::iter::from_fn(move || {
        let word = words.next()?;
        if word.as_encoded_bytes().first() != Some(&b'-') {
            return Some(Err(SpecError::NotAnOption { word: word.clone() }));
        }
        if word.as_encoded_bytes().contains(&b' ') {
            return Some(Err(SpecError::TwoWordsInOne { word: word.clone() }));
        }
        if !FLAGS.contains(&name(word)) {
            words.next();
        }
        Some(Ok(word.as_os_str()))
    })
}
