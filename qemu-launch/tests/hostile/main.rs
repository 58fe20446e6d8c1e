//! Hostile strings through every option, read back by QEMU's own rules: no string becomes an
//! option, a property or a second file.
#![cfg(unix)]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use qemu_launch::{
    Backend, Blockdev, Device, Drive, Endpoint, Log, MachineSpec, Nic, Semihosting, SpecError,
};

use reading::{Bytes, Read, read};

mod reading;

/// A slot: where in a description a user's string can stand.
struct Slot {
    name: &'static str,
    fill: fn(OsString) -> MachineSpec,
    kind: Kind,
}

/// What becomes of the string.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    /// It arrives as it is, always.
    Value,
    /// It arrives as an absolute path.
    Path,
    /// It arrives as it is, or is refused: a name, or a value that QEMU can't be given unharmed.
    Name,
    /// As a name, but what is behind a comma is a property, by its documentation: it makes no other
    /// option.
    NameAndProperties,
}

fn text(string: OsString) -> String {
    String::from_utf8_lossy(string.as_bytes()).into_owned()
}

fn slots() -> Vec<Slot> {
    fn base() -> MachineSpec {
        MachineSpec::default()
    }
    let slot = |name, kind, fill| Slot { name, fill, kind };
    vec![
        slot("machine", Kind::NameAndProperties, |s| {
            base().machine(text(s))
        }),
        slot("machine property", Kind::Value, |s| {
            base().machine_property("graphics", s)
        }),
        slot("machine property's key", Kind::Name, |s| {
            base().machine_property(text(s), "on")
        }),
        slot("cpu", Kind::NameAndProperties, |s| base().cpu(text(s))),
        slot("cpu property", Kind::Name, |s| {
            base().cpu_property("vfp", text(s))
        }),
        slot("cpu property's key", Kind::Name, |s| {
            base().cpu_property(text(s), "off")
        }),
        slot("memory", Kind::Name, |s| base().memory(text(s))),
        slot("firmware", Kind::Path, |s| base().firmware(s)),
        slot("raw image", Kind::Path, |s| base().raw_image(s, 0)),
        slot("intel hex", Kind::Path, |s| base().intel_hex(s)),
        slot("bios", Kind::Path, |s| base().bios(s)),
        slot("semihosting argument", Kind::Value, |s| {
            base().semihosting(Semihosting::full().argument(s))
        }),
        slot("semihosting console", Kind::Name, |s| {
            base().semihosting(Semihosting::full().chardev(text(s)))
        }),
        slot("serial file", Kind::Path, |s| {
            base().serial(Backend::File {
                path: s.into(),
                append: false,
            })
        }),
        slot("socket", Kind::Path, |s| {
            base().qmp(Endpoint::Socket(s.into()))
        }),
        slot("chardev id", Kind::Name, |s| {
            base().chardev(text(s), Backend::Null)
        }),
        slot("drive", Kind::Path, |s| base().drive(Drive::raw("sd", s))),
        slot("drive interface", Kind::Name, |s| {
            base().drive(Drive::raw(text(s), "/d"))
        }),
        slot("drive format", Kind::Name, |s| {
            base().drive(Drive::new("sd", text(s), "/d"))
        }),
        slot("drive property", Kind::Value, |s| {
            base().drive(Drive::raw("sd", "/d").property("serial", s))
        }),
        slot("drive property's key", Kind::Name, |s| {
            base().drive(Drive::raw("sd", "/d").property(text(s), "on"))
        }),
        slot("blockdev", Kind::Path, |s| {
            base().blockdev(Blockdev::raw("n0", s))
        }),
        slot("blockdev node", Kind::Name, |s| {
            base().blockdev(Blockdev::raw(text(s), "/d"))
        }),
        slot("blockdev property", Kind::Value, |s| {
            base().blockdev(Blockdev::raw("n0", "/d").property("discard", s))
        }),
        slot("device", Kind::Name, |s| {
            base().device(Device::new(text(s)))
        }),
        slot("device property", Kind::Value, |s| {
            base().device(Device::new("tmp105").property("id", s))
        }),
        slot("device property's key", Kind::Name, |s| {
            base().device(Device::new("tmp105").property(text(s), "on"))
        }),
        slot("nic", Kind::Name, |s| base().nic(Nic::new(text(s)))),
        slot("nic property", Kind::Value, |s| {
            base().nic(Nic::user().property("hostfwd", s))
        }),
        slot("log item", Kind::Name, |s| {
            base().log(Log::items([text(s)]))
        }),
        slot("log file", Kind::Path, |s| {
            base().log(Log::items(["int"]).to_file(s))
        }),
        slot("global driver", Kind::Name, |s| {
            base().global(text(s), "p", "v")
        }),
        slot("global property", Kind::Name, |s| {
            base().global("d", text(s), "v")
        }),
        slot("global value", Kind::Value, |s| {
            base().global("tmp105", "address", s)
        }),
    ]
}

fn argv(spec: &MachineSpec) -> Result<Vec<OsString>, SpecError> {
    Ok(spec
        .argv(Path::new("/q"), Path::new("/run"))?
        .args()
        .to_vec())
}

/// Each option, key and value of a command line, one after the other.
fn flat(reads: &[Read]) -> Vec<Bytes> {
    let words = |read: &Read| {
        let pairs = read
            .pairs
            .iter()
            .flat_map(|(key, value)| [key.clone(), value.clone()]);
        std::iter::once(read.option.clone().into_bytes())
            .chain(pairs)
            .collect::<Vec<_>>()
    };
    reads.iter().flat_map(words).collect()
}

/// The options of a command line without their values.
fn options(args: &[OsString]) -> Vec<String> {
    read(args).into_iter().map(|read| read.option).collect()
}

fn check(slot: &Slot, string: &OsString) -> Result<(), TestCaseError> {
    let with = |string: &OsString| argv(&(slot.fill)(string.clone()));
    let arrives = |string: &OsString| match slot.kind {
        Kind::Path => std::path::absolute(string)
            .map(|path| path.into_os_string().into_vec())
            .ok(),
        Kind::Value => Some(string.as_bytes().to_vec()),
        Kind::Name | Kind::NameAndProperties => Some(text(string.clone()).into_bytes()),
    };
    let is_name = matches!(slot.kind, Kind::Name | Kind::NameAndProperties);
    let benign = OsString::from(if slot.name == "memory" {
        "77K"
    } else {
        "benign"
    });
    let mark = arrives(&benign).expect("a path");
    let mut expected = flat(&read(&with(&benign).expect("it is benign")));
    prop_assert_eq!(
        expected.iter().filter(|word| **word == mark).count(),
        1,
        "{}",
        slot.name
    );
    match with(string) {
        Ok(args) => {
            prop_assert!(
                !string.as_bytes().contains(&0),
                "{}: a NUL got through",
                slot.name
            );
            if slot.kind == Kind::NameAndProperties && string.as_bytes().contains(&b',') {
                let plain = with(&benign).expect("it is benign");
                prop_assert_eq!(options(&args), options(&plain), "{:?}", string);
                return Ok(());
            }
            let filled = arrives(string).expect("it was made absolute");
            expected
                .iter_mut()
                .filter(|word| **word == mark)
                .for_each(|word| word.clone_from(&filled));
            prop_assert_eq!(flat(&read(&args)), expected, "{}: {:?}", slot.name, string);
        }
        Err(SpecError::Invalid { message, .. }) => {
            // Each of these has one cause, whatever the slot.
            let causes = [
                ("contains a NUL", string.as_bytes().contains(&0)),
                ("can't be made an absolute path", string.is_empty()),
                ("is the most that the system takes", string.len() > 90),
                (
                    "has a % in its absolute path",
                    string.as_bytes().contains(&b'%'),
                ),
            ];
            let told = causes.iter().find(|(text, _)| message.contains(text));
            let justified = told.map_or(is_name, |(_, is_so)| *is_so);
            prop_assert!(justified, "{}: {:?}: {}", slot.name, string, message);
        }
        Err(error) => prop_assert!(is_name, "{}: {}", slot.name, error),
    }
    Ok(())
}

/// What an attacker would write, and what a careless user does.
const NASTY: &[&str] = &[
    "",
    ",",
    ",,",
    ",,,",
    "=",
    "-",
    "--",
    "-qmp",
    "--daemonize",
    "a,b",
    "x.log,logfile=pwn.log",
    "x,,logfile=pwn",
    "m,firmware=/etc/shadow",
    "on,path=/tmp/x",
    ",file=/etc/passwd",
    "json:{\"driver\":\"null-co\"}",
    "nbd:unix:/x",
    "exec:id",
    "{\"driver\":\"file\"}",
    "a=b,c=d",
    "a b",
    "a\nb",
    "\r\n-qmp\r\n",
    "\"",
    "'",
    "$(id)",
    "`id`",
    "%d",
    "%s%n",
    "~",
    "..",
    "/",
    "/dev/stdin",
    "fd:0",
    "help",
    "?",
    "help,",
    "on",
    "off",
    "id=x",
    "#",
    "\\",
    "\u{202e}",
    "caf\u{e9}",
    "\u{0}",
    "a\u{0}b",
    "file.filename=/etc/passwd",
    "a.b",
    "[0]",
    "driver=x",
    "server=on,host=0.0.0.0",
    "cortex-m3,vfp=on",
    "64K,slots=2,maxmem=1G",
];

#[test]
fn the_known_tricks() {
    for slot in &slots() {
        for nasty in NASTY {
            check(slot, &OsString::from(nasty)).unwrap_or_else(|error| panic!("{error}"));
        }
        check(slot, &OsString::from_vec(b"a\xff,\xfe=b".to_vec()))
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Pieces of syntax, of tricks, and any bytes at all.
fn hostile() -> impl Strategy<Value = OsString> {
    let piece = prop_oneof![
        4 => "[,=.\\-:{}\"'% a-z/]{1,4}".prop_map(String::into_bytes),
        2 => proptest::sample::select(NASTY).prop_map(|text| text.as_bytes().to_vec()),
        2 => proptest::collection::vec(any::<u8>(), 1..6),
        1 => "\\PC{1,4}".prop_map(String::into_bytes),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| OsString::from_vec(pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/hostile.proptest-regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_string_in_any_slot(index in 0..slots().len(), string in hostile()) {
        check(&slots()[index], &string)?;
    }

    #[test]
    fn a_list_value_reads_back_as_itself(bytes in proptest::collection::vec(1_u8..=255, 0..40)) {
        let spec = MachineSpec::default().device(Device::new("tmp105").property("id", OsString::from_vec(bytes.clone())));
        let reads = read(&argv(&spec).unwrap());
        let device = reads.iter().find(|read| read.option == "-device").expect("it is there");
        prop_assert_eq!(&device.pairs[1], &(b"id".to_vec(), bytes));
    }
}
