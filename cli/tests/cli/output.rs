//! What the firmware prints comes through byte for byte and at once; a reader that goes away ends
//! the run.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read as _};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Call, DEADLINE, Said, nonblocking};

#[test]
fn it_comes_while_the_firmware_runs() {
    let mut running = Call::image("tick", []).start();
    for line in ["boot\n", "tick 1\n", "tick 2\n"] {
        running.prints(line);
    }
    assert_eq!(running.stderr.text(), "");
    running.signal(Signal::TERM);
    assert_eq!(running.end().status.code(), Some(143));
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let mut running = Call::image("tick", []).start();
    running.prints("tick 1");
    // The thread that reads stops at the next chunk, and closes the pipe.
    running.stdout = None;
    let output = running.end();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_stdout_that_is_full_is_an_error() {
    // Also where all is over before that is noticed.
    for image in ["tick", "semihosting-exit"] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let said = Call::image(image, []).stdout(full).ends_with(125).stderr;
        assert!(
            said.contains("cannot write to stdout: No space left"),
            "{said}"
        );
    }
}

#[test]
fn the_log_has_what_stdout_has() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("a log.txt");
    std::fs::write(&log, "of the run before").unwrap();
    let words = ["--log", log.to_str().unwrap(), "--expect", "tick 2\n"];
    let said = Call::image("tick", words).ends_with(0);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), said.stdout);

    let said = Call::image("tick", ["--log", "no/such/folder/log.txt"]).ends_with(125);
    assert!(
        said.stderr.contains("no/such/folder/log.txt"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_flood_is_printed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flood.txt");
    let call = Call::image(
        "uart-flood",
        ["--expect", "flood 20000\n", "--timeout", "60s"],
    );
    let said = call.stdout(File::create(&path).unwrap()).ends_with(0);
    assert_eq!(said.stderr, "", "nothing is said to be lost");
    let text = std::fs::read_to_string(&path).unwrap();
    for (number, line) in text.lines().take(20_000).enumerate() {
        assert_eq!(line, format!("flood {number}"));
    }
}

#[test]
fn qemu_s_own_words_are_shown_on_demand_to_the_last() {
    let said = Call::image("semihosting-exit", [])
        .qemu_args(&["-d", "int"])
        .ends_with(7);
    assert!(!said.stderr.contains("semihosting call"), "{}", said.stderr);
    let call = Call::image("semihosting-exit", ["--verbose"]).qemu_args(&["-d", "int"]);
    let said = call.ends_with(7);
    assert_eq!(said.stdout, "hello by semihosting\n");
    for words in [
        "qemu-system-arm -nodefaults",
        "semihosting call 0x4",
        "semihosting call 0x20",
    ] {
        assert!(
            said.stderr.contains(words),
            "no {words:?} in {}",
            said.stderr
        );
    }
}

#[test]
fn all_of_it_comes_in_the_order_in_which_it_was_printed() {
    for _ in 0..8 {
        let said = Call::image("mixed-output", []).ends_with(1);
        assert_eq!(said.stdout, "uart\noutput\nwrite0\n".repeat(20));
    }
}

#[test]
fn what_it_prints_on_standard_error_is_its_output_too() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.txt");
    let said = Call::image("semihosting-print", ["--log", log.to_str().unwrap()]).ends_with(0);
    assert_eq!(
        (&*said.stdout, &*said.stderr),
        ("write0\noutput\n", "error.\n")
    );
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.contains("write0\noutput\n") && log.contains("error.\n"),
        "{log}"
    );

    let said = Call::image("semihosting-print", ["--expect", "error.\n"]).ends_with(0);
    assert_eq!(said.stderr, "error.\n");

    let said = Call::image("semihosting-print", ["--json"]).ends_with(0);
    let first = said.stderr.lines().next().unwrap();
    assert_eq!(first, r#"{"event":"stderr","text":"error."}"#);
}

/// Its lines have no mark, and could hold what is expected of the firmware.
#[test]
fn qemu_s_log_meets_no_expectation() {
    let words = ["--verbose", "--expect", "taken on"];
    for qemu_args in [&["-d", "int"], &["-trace", "memory_region_ops_write"]] {
        let call = Call::image("semihosting-print", words).qemu_args(qemu_args);
        let said = call.ends_with(1);
        assert!(said.stderr.contains("error.\n"), "{}", said.stderr);
    }
}

/// Where both are one terminal or file, a message begins a line of its own.
#[test]
fn a_message_does_not_begin_in_the_firmware_s_unfinished_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("both");
    let both = File::options()
        .append(true)
        .create(true)
        .open(&path)
        .unwrap();
    let input = folder.path().join("input");
    std::fs::write(&input, "no end").unwrap();
    // What comes before the firmware sets its UART up may be lost there, as on a board.
    Call::image("uart-echo", ["--timeout=2s", "--send-after=boot"])
        .stdin(File::open(&input).unwrap())
        .stdout(both.try_clone().unwrap())
        .stderr(both)
        .ends_with(124);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("no end\nqemu-controller: "), "{text:?}");
}

#[test]
fn a_list_of_qemu_s_is_shown() {
    let rows: [(&[&str], &[&str], &str); 4] = [
        (&["--machine", "help"], &[], "lm3s6965evb"),
        (&["--cpu", "help"], &[], "cortex-m3"),
        (&[], &["-h"], "-semihosting"),
        (&[], &["-device", "help"], "name \"loader\""),
    ];
    for (words, qemu_args, expected) in rows {
        let call = Call::image("tick", words.iter().copied()).qemu_args(qemu_args);
        let said = call.ends_with(0);
        assert!(said.stdout.contains(expected), "{words:?}: {}", said.stdout);
        assert_eq!(said.stderr, "", "{words:?} {qemu_args:?}");
    }
}

/// Reads all, a little at a time.
fn read_slowly(mut reader: PipeReader) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = reader.read(&mut chunk) {
        text.extend_from_slice(&chunk[..length]);
        // Not synchronisation: this reader is slow.
        std::thread::sleep(Duration::from_millis(1));
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_slow_reader_slows_the_firmware_and_gets_all() {
    for is_nonblocking in [false, true] {
        let (reader, writer) = std::io::pipe().unwrap();
        if is_nonblocking {
            nonblocking(&writer);
        }
        let call = Call::image("uart-flood", ["--expect", "flood 20000\n"]).stdout(writer);
        let running = call.start();
        let printed = std::thread::spawn(move || read_slowly(reader));
        let said = Said::of(&running.end(), 0);
        assert_eq!(said.stderr, "", "nothing is said to be lost");
        let printed = printed.join().unwrap();
        for (number, line) in printed.lines().take(20_001).enumerate() {
            assert_eq!(line, format!("flood {number}"));
        }
        assert!(printed.contains("flood 20000\n"), "{is_nonblocking}");
    }
}

#[test]
fn a_reader_that_waits_for_the_end_does_not_hold_up_the_timeout() {
    let (reader, writer) = std::io::pipe().unwrap();
    let since = Instant::now();
    let said = Call::image("uart-flood", ["--timeout", "2s"])
        .stdout(writer)
        .ends_with(124);
    assert!(since.elapsed() < DEADLINE / 3, "{:?}", since.elapsed());
    let words = [
        "stdout did not take ",
        "not over after 2s: the guest is running at ",
    ];
    for words in words {
        assert!(
            said.stderr.contains(words),
            "no {words:?} in {}",
            said.stderr
        );
    }
    drop(reader);
}
