//! RTT and defmt from the command line: found by themselves, told apart, expected, filtered, and in
//! words where they are not what they should be.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Call, Said, image};

/// What the firmware logs first, whatever the way.
const LINES: &str = "\
a line without a level
0.000001 TRACE trace 0xff
0.000002 DEBUG debug text, gr\u{fc}n
0.000003 INFO  info Circle { radius: 300 } Square(4) Nothing
0.000004 WARN  warn READY | LATE b\"ab\\x00\"
0.000005 ERROR error 1.5 true -9223372036854775808
0.000006 DEBUG sensor at -7 of the lab
";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../qemu-controller/fixtures")
        .join(name)
}

fn call(words: &[&str], name: &str) -> Call {
    let firmware = fixture(name);
    Call::new(words.iter().copied().chain([firmware.to_str().unwrap()]))
}

#[test]
fn defmt_is_found_and_decoded_whatever_way_it_comes() {
    for way in ["rtt", "semihosting", "uart"] {
        let said = call(&["--timeout=30s"], &format!("defmt/{way}.elf")).ends_with(0);
        assert_eq!(said.stdout, LINES, "{way}");
    }
}

#[test]
fn text_and_defmt_are_told_apart() {
    let words = [
        "--prefix",
        "--json",
        "--timeout=30s",
        "--log-filter=warn,logs::sensors=debug",
    ];
    let said = call(&words, "defmt/rtt-target.elf").ends_with(0);
    let of = |channel: &str| -> Vec<&str> {
        let lines = said.stdout.lines();
        lines
            .filter_map(|line| line.strip_prefix(&format!("[{channel}] ")))
            .collect()
    };
    assert_eq!(of("rtt:0").len(), 201);
    assert_eq!(of("rtt:0")[..2], ["waits 0", "waits 1"]);
    assert_eq!(of("rtt:1")[0], "skips 0");
    let expected: Vec<&str> = LINES.lines().collect();
    assert_eq!(
        of("rtt:2"),
        [expected[0], expected[4], expected[5], expected[6]]
    );
    let objects: Vec<Value> = said
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let warned = objects
        .iter()
        .find(|object| object["level"] == "warn")
        .unwrap();
    assert_eq!(warned["channel"], "rtt:2");
    assert_eq!(warned["timestamp"], "0.000004");
    assert_eq!(warned["module"], "logs::say_all");
    assert!(warned["file"].as_str().unwrap().ends_with("src/main.rs") && warned["line"].is_u64());
    assert!(
        objects
            .iter()
            .any(|object| object["channel"] == "rtt:0" && object["text"] == "waits 199")
    );
}

#[test]
fn decoded_lines_are_expected_logged_and_shown_as_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "--expect=sensor at -7 of",
        "--log=log",
        "--log-format={L}|{m}|{s}",
        "--timeout=30s",
    ];
    let call = Call::new(
        words
            .iter()
            .copied()
            .chain([fixture("defmt/rtt.elf").to_str().unwrap(), "stay"]),
    );
    let said = call.folder(folder.path()).ends_with(0);
    assert!(
        said.stdout
            .contains("DEBUG|logs::sensors::report|sensor at -7 of the lab\n"),
        "{}",
        said.stdout
    );
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(log, said.stdout);
}

#[test]
fn a_panic_ends_the_run_with_its_place() {
    for way in ["rtt", "semihosting", "uart"] {
        let firmware = fixture(&format!("defmt/{way}.elf"));
        let words = ["--timeout=60s", firmware.to_str().unwrap(), "panic"];
        let output = Call::new(words).output();
        // `panic-probe` ends in a fault, which is not what there is to say of it.
        assert_eq!(output.status.code(), Some(121), "{output:?}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            stdout.contains("ERROR panicked at src/main.rs:"),
            "{stdout}"
        );
        assert!(stdout.ends_with("on purpose\n"), "{stdout}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let place = "panicked, in logs::__cortex_m_rt_main at /fixtures/defmt/src/main.rs:";
        assert!(stderr.contains(place), "{stderr}");
    }
}

#[test]
fn it_can_be_left_alone() {
    let said = call(&["--no-rtt", "--timeout=30s"], "defmt/rtt.elf").ends_with(0);
    assert_eq!(said.stdout, "");
    let said = call(&["--defmt=off", "--timeout=30s"], "defmt/uart.elf").output();
    assert!(said.stdout.starts_with(b"\0I~\0"), "{said:?}");
}

#[test]
fn what_it_cannot_be_is_said() {
    let tick = image("tick");
    let tick = tick.to_str().unwrap();
    let uart = fixture("defmt/uart.elf");
    let uart = uart.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.elf");
    let mut elf = std::fs::read(uart).unwrap();
    let version = b"_defmt_version_ = 4";
    let at = elf
        .windows(version.len())
        .position(|window| window == version)
        .unwrap();
    elf[at + version.len() - 1] = b'9';
    std::fs::write(&other, elf).unwrap();
    let rows: [(&[&str], &str); 5] = [
        (&["--defmt=serial", tick], "the firmware does not use defmt"),
        (
            &["--log-format={x", uart],
            "'{x' is no log format of defmt's",
        ),
        (&["--log-filter=loud", uart], "'loud' is no level"),
        (
            &["--defmt=pigeon", uart],
            "possible values: off, rtt, semihosting, serial",
        ),
        (
            &[other.to_str().unwrap()],
            "the firmware's defmt table cannot be used",
        ),
    ];
    for (words, expected) in rows {
        let said = Call::new(words).ends_with(125);
        assert!(said.stderr.contains(expected), "{words:?}: {}", said.stderr);
        assert!(
            !said.stderr.contains("panicked"),
            "{words:?}: {}",
            said.stderr
        );
    }
    // Frames by another way than was said are none.
    let said = call(&["--defmt=semihosting", "--timeout=2s"], "defmt/uart.elf").output();
    assert!(said.stdout.starts_with(b"\0I~\0"), "{said:?}");
}

/// What is typed reaches RTT's down channel 0.
#[test]
fn a_firmware_reads_what_is_typed_by_rtt() {
    let mut running = call(&[], "rtt/rtt.elf").stdin(Stdio::piped()).start();
    running.prints("boot 00000001\n");
    running.type_in(b"e");
    running.prints("<e>\n");
    running.type_in(b"\nx");
    let said = Said::of(&running.end(), 0);
    assert!(said.stdout.ends_with("<e>\n<\n>\nbye\n"), "{}", said.stdout);
    let said = call(&["--defmt=rtt"], "defmt/uart.elf").ends_with(125);
    assert!(
        said.stderr.contains("the firmware has no RTT"),
        "{}",
        said.stderr
    );
}

/// `defmt-rtt` overwrites what nobody has read, unless it is made to wait before it begins.
#[test]
fn a_flood_of_defmt_rtt_is_whole_from_its_first_line() {
    let firmware = fixture("defmt/rtt.elf");
    let words = ["--timeout=60s", firmware.to_str().unwrap(), "flood", "3000"];
    let said = Call::new(words).ends_with(0);
    let numbers = said
        .stdout
        .lines()
        .filter_map(|line| line.split_once("flood "));
    let numbers = numbers.filter_map(|(_, rest)| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(
        numbers.eq(0..3000),
        "{}",
        said.stdout.lines().take(12).collect::<Vec<_>>().join("\n")
    );
    assert!(said.stdout.starts_with(LINES), "{:?}", &said.stdout[..400]);
    assert_eq!(said.stderr, "");
}
