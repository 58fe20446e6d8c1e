//! What `extra_args` may not say: an option that a typed one has said already, or one that defeats
//! the watching.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;

use crate::error::SpecError;

/// Options that take no value, as `qemu-options.def` of 7.2 and 10.0 has them.
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
    "async-teardown",
    "perfmap",
    "jitdump",
];

/// Options that take the next word for their value, from the same place. Of one that is in neither
/// table it is not known where the next option stands.
#[rustfmt::skip]
const VALUED: &[&str] = &[
    "machine", "M", "cpu", "accel", "smp", "numa", "add-fd", "set", "global", "boot", "m", "mem-path", "k", "audio",
    "audiodev", "device", "name", "uuid", "fda", "fdb", "hda", "hdb", "hdc", "hdd", "cdrom", "blockdev", "drive",
    "mtdblock", "sd", "pflash", "fsdev", "virtfs", "iscsi", "usbdevice", "display", "spice", "rotate", "vga", "g",
    "vnc", "acpitable", "smbios", "netdev", "nic", "net", "chardev", "tpmdev", "kernel", "append", "initrd", "dtb",
    "shim", "compat", "fw_cfg", "serial", "parallel", "monitor", "qmp", "qmp-pretty", "mon", "debugcon", "pidfile",
    "gdb", "d", "D", "dfilter", "seed", "L", "bios", "xen-domid", "option-rom", "rtc", "icount", "watchdog",
    "watchdog-action", "action", "echr", "loadvm", "chroot", "runas", "prom-env", "semihosting-config", "sandbox",
    "readconfig", "writeconfig", "trace", "plugin", "qtest", "qtest-log", "run-with", "msg", "dump-vmstate",
    "overcommit", "incoming", "object", "tb-size", "soundhw",
];

/// Options that mean the same machine part, under one name each: one of them twice is a
/// contradiction.
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

const DAEMONIZE: &str = "the process would leave whoever watches it";
const OPEN_STUB: &str = "it listens on every interface; use `gdb(Endpoint::loopback(1234))`";

/// Refuses extra arguments that are no options, defeat the watching, or repeat what `typed` says.
pub(crate) fn check_extra(typed: &[OsString], extra: &[OsString]) -> Result<(), SpecError> {
    if extra.is_empty() {
        return Ok(());
    }
    let mut seen: Vec<&OsStr> = Vec::new();
    for found in options(typed) {
        seen.push(found?.0);
    }
    let mut unknown = false;
    for found in options(extra) {
        let (option, value) = found?;
        crate::argv::option::value("extra argument", option)?;
        refuse(option, value)?;
        unknown |= !FLAGS.contains(&name(option)) && !VALUED.contains(&name(option));
        if let Some(value) = value
            && unknown
            && value.as_encoded_bytes().first() == Some(&b'-')
        {
            // Behind an option that is not known, what was taken for a value may be an option.
            refuse(value, None)?;
        }
        if let Some((part, names)) = SINGLE
            .iter()
            .find(|(_, names)| names.contains(&name(option)))
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
    if let Some(nul) = extra
        .iter()
        .find(|word| word.as_encoded_bytes().contains(&0))
    {
        return Err(SpecError::Nul {
            what: "extra argument",
            text: nul.clone(),
        });
    }
    Ok(())
}

/// Refuses what is never passed on, whatever else is said.
fn refuse(option: &OsStr, value: Option<&OsStr>) -> Result<(), SpecError> {
    let value = value.unwrap_or_default().to_string_lossy();
    let why = match name(option) {
        "daemonize" => DAEMONIZE,
        "run-with" if value.split([',', '=']).any(|word| word == "daemonize") => DAEMONIZE,
        "s" => OPEN_STUB,
        "gdb" if !stays_here(&value) => {
            "it can be reached from another machine; use `gdb(Endpoint::loopback(1234))`"
        }
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
    // Where UDP is answered is not where it listens.
    kind != "udp"
        && (host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

/// The option's name; QEMU takes one dash or two.
fn name(option: &OsStr) -> &str {
    let text = option.to_str().unwrap_or_default();
    text.strip_prefix("--")
        .or_else(|| text.strip_prefix('-'))
        .unwrap_or(text)
}

/// The words in option position and their values, as QEMU's `lookup_opt` walks them.
fn options(
    words: &[OsString],
) -> impl Iterator<Item = Result<(&OsStr, Option<&OsStr>), SpecError>> {
    let mut words = words.iter();
    std::iter::from_fn(move || {
        let word = words.next()?;
        if word.as_encoded_bytes().first() != Some(&b'-') {
            return Some(Err(SpecError::NotAnOption { word: word.clone() }));
        }
        if word.as_encoded_bytes().contains(&b' ') {
            return Some(Err(SpecError::TwoWordsInOne { word: word.clone() }));
        }
        let takes_one = !FLAGS.contains(&name(word));
        let value = if takes_one { words.next() } else { None };
        Some(Ok((word.as_os_str(), value.map(OsString::as_os_str))))
    })
}
