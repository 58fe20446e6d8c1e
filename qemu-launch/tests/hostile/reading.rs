//! A command line as QEMU reads it.
//!
//! The rules are those of QEMU's `lookup_opt` (system/vl.c: which words are options),
//! `get_opt_name_value` (util/qemu-option.c) and `keyval_parse_one` (util/keyval.c) for lists, and
//! `cpu_common_parse_features` (hw/core/cpu-common.c) for `-cpu`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

pub(crate) type Bytes = Vec<u8>;
pub(crate) type Pairs = Vec<(Bytes, Bytes)>;

/// One option as QEMU reads it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    pub(crate) option: String,
    /// Of a literal: one pair with an empty key.
    pub(crate) pairs: Pairs,
}

/// Reads a command line as QEMU does.
pub(crate) fn read(args: &[OsString]) -> Vec<Read> {
    const FLAGS: &[&str] = &["-nodefaults", "-no-user-config", "-S", "-no-reboot"];
    let mut words = args.iter().map(|word| word.as_bytes());
    let mut out = Vec::new();
    while let Some(option) = words.next() {
        let option = String::from_utf8(option.to_vec()).expect("an option is ASCII");
        assert!(
            option.starts_with('-'),
            "{option} would be taken for a disk image"
        );
        let pairs = if FLAGS.contains(&option.as_str()) {
            Vec::new()
        } else {
            let value = words.next().expect("the option has a value");
            match option.as_str() {
                "-kernel" | "-bios" | "-D" | "-d" | "-m" | "-display" | "-gdb" | "-serial" => {
                    vec![(Bytes::new(), value.to_vec())]
                }
                "-cpu" => features(value),
                "-machine"
                | "-device"
                | "-nic"
                | "-chardev"
                | "-mon"
                | "-drive"
                | "-blockdev"
                | "-global"
                | "-semihosting-config" => list(value),
                other => panic!("{other} was not asked for"),
            }
        };
        out.push(Read { option, pairs });
    }
    out
}

/// `get_opt_name_value`: a name up to `=` or `,`; a value up to a comma that is not doubled.
fn list(mut rest: &[u8]) -> Pairs {
    let mut pairs = Pairs::new();
    while !rest.is_empty() {
        let name_end = rest
            .iter()
            .position(|b| matches!(b, b'=' | b','))
            .unwrap_or(rest.len());
        let key = if rest.get(name_end) == Some(&b'=') {
            let key = rest[..name_end].to_vec();
            rest = &rest[name_end + 1..];
            key
        } else {
            // The implied key's value, or a flag; told apart from a pair by its empty key.
            Bytes::new()
        };
        let mut value = Bytes::new();
        loop {
            match rest {
                [b',', b',', ..] => {
                    value.push(b',');
                    rest = &rest[2..];
                }
                [b',', ..] => {
                    rest = &rest[1..];
                    break;
                }
                [] => break,
                [byte, ..] => {
                    value.push(*byte);
                    rest = &rest[1..];
                }
            }
        }
        pairs.push((key, value));
    }
    pairs
}

/// `strtok(featurestr, ",")`: empty pieces vanish, nothing is escaped.
fn features(value: &[u8]) -> Pairs {
    let pieces = value
        .split(|&b| b == b',')
        .filter(|piece| !piece.is_empty());
    let pair = |piece: &[u8]| match piece.iter().position(|&b| b == b'=') {
        Some(at) => (piece[..at].to_vec(), piece[at + 1..].to_vec()),
        None => (Bytes::new(), piece.to_vec()),
    };
    pieces.map(pair).collect()
}
