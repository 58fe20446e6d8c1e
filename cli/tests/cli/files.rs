//! The files that the program reads and writes: pipes and devices among them hold up neither
//! `--timeout` nor a signal, and nothing is written over.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};

use crate::support::{Call, Said, image};

/// A pipe in this folder.
fn fifo(folder: &Path) -> PathBuf {
    let path = folder.join("pipe");
    mkfifoat(CWD, &path, Mode::RWXU).unwrap();
    path
}

/// Its reading end, without a wait for a writer.
fn reader(path: &Path) -> File {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let options = OpenOptions::new().read(true).custom_flags(flags).clone();
    options.open(path).unwrap()
}

#[test]
fn a_pipe_that_nobody_reads_or_writes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = fifo(folder.path());
    let pipe = pipe.to_str().unwrap();
    for option in [format!("--log={pipe}"), format!("--json={pipe}")] {
        let said = Call::image("tick", [option.as_str()]).ends_with(125).stderr;
        assert!(said.contains("it is a pipe that nobody reads"), "{said}");
    }
    let said = Call::image("tick", ["--config", pipe])
        .ends_with(125)
        .stderr;
    assert!(said.contains("it is a pipe; a file was wanted"), "{said}");
}

#[test]
fn a_log_that_takes_nothing_holds_up_no_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = fifo(folder.path());
    let mut reader = reader(&pipe);
    let words = ["--timeout", "2s", "--log", pipe.to_str().unwrap()];
    let said = Call::image("uart-flood", words).ends_with(124);
    assert!(
        said.stderr.contains("the log did not take "),
        "{}",
        said.stderr
    );
    let mut start = [0; 6];
    reader.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"flood ");
}

#[test]
fn a_log_is_emptied_only_by_a_run_that_begins() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.txt");
    std::fs::write(&log, "of the run before").unwrap();
    let option = format!("--log={}", log.display());
    let kept = |call: Call| {
        call.ends_with(125);
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "of the run before");
    };
    kept(Call::new([&option, "no/such.elf"]));
    kept(Call::image("tick", [&*option, "--expect-regex=("]));
    kept(Call::image("tick", [&*option, "--machine=no-such-board"]));
    kept(Call::image("tick", [&*option, "--qemu=/no/such/qemu"]));
    Call::image("tick", [&*option, "--expect=boot\n"]).ends_with(0);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("boot\n"), "{text:?}");
}

/// The later one empties it; from then on both write whole pieces.
#[test]
fn two_runs_with_one_log_write_it_both() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.txt");
    let words = ["--expect=tick 3\n", "--log", log.to_str().unwrap()];
    let mut first = Call::image("tick", words).start();
    first.prints("tick 1");
    Call::image("tick", words).ends_with(0);
    Said::of(&first.end(), 0);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains('\0'), "{text:?}");
    assert!(text.matches("tick 3\n").count() >= 1, "{text:?}");
}

#[test]
fn one_file_is_not_written_for_two_purposes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let words = [
        format!("--json={}", file.display()),
        format!("--log={}", link.display()),
    ];
    let said = Call::image("tick", words.iter().map(String::as_str)).ends_with(125);
    assert!(
        said.stderr.contains("it is what --json writes"),
        "{}",
        said.stderr
    );
    // Of a firmware with tests, too.
    let tests = env!("CARGO_MANIFEST_DIR").to_owned()
        + "/../qemu-controller/fixtures/embedded-test/empty.elf";
    for option in ["--json", "--coverage", "--coverage-by-test"] {
        let other = format!("{option}={}", file.display());
        let said = Call::new([&*tests, &other, &words[1]]).ends_with(125);
        let expected = [
            "it is the log".to_owned(),
            format!("it is what {option} writes"),
        ];
        let is_refused = expected
            .iter()
            .any(|expected| said.stderr.contains(expected));
        assert!(is_refused, "{}", said.stderr);
    }

    let config = folder.path().join("settings.toml");
    std::fs::write(&config, "machine = 'lm3s6965evb'\n").unwrap();
    let config = config.to_str().unwrap();
    for option in ["--log", "--json"] {
        let option = format!("{option}={config}");
        let said = Call::image("tick", ["--config", config, &option]).ends_with(125);
        assert!(
            said.stderr.contains("it is the configuration file"),
            "{}",
            said.stderr
        );
        assert!(std::fs::read_to_string(config).unwrap().contains("lm3s"));
    }
}

#[test]
fn what_could_not_be_written_is_a_failure() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for words in [&["--log=/dev/full"], &["--json=/dev/full"]] {
        let said = Call::image(
            "tick",
            ["--expect=tick 1\n"]
                .into_iter()
                .chain(words.iter().copied()),
        )
        .ends_with(125);
        assert!(said.stderr.contains("No space left"), "{}", said.stderr);
    }
    for words in [&["--json", "--expect=boot\n"][..], &["--timeout=1s"]] {
        Call::image("tick", words.iter().copied())
            .stderr(full())
            .ends_with(125);
    }
}

/// QEMU has another stdin, and other descriptors.
#[test]
fn a_firmware_by_the_name_of_an_open_file_is_refused() {
    let elf = image("semihosting-exit");
    for path in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let said = Call::new([path])
            .stdin(File::open(&elf).unwrap())
            .ends_with(125)
            .stderr;
        assert!(said.contains("name the file itself"), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = fifo(folder.path());
    let _reader = reader(&pipe);
    for words in [&["--raw=0"][..], &["--unchecked"], &[]] {
        let words = words.iter().copied().chain([pipe.to_str().unwrap()]);
        let said = Call::new(words).ends_with(125).stderr;
        assert!(said.contains("pipe"), "{said}");
    }
    let pipe = pipe.to_str().unwrap();
    let loader = format!("loader,file={pipe},addr=0x1000");
    for words in [
        ["-bios", pipe],
        ["-dtb", pipe],
        ["-initrd", pipe],
        ["-device", &loader],
    ] {
        let said = Call::image("tick", [])
            .qemu_args(&words)
            .ends_with(125)
            .stderr;
        assert!(said.contains("is a device, pipe or socket"), "{said}");
    }
}

/// Each byte is looked at by thousands of states.
#[test]
fn a_slow_regular_expression_holds_up_no_timeout() {
    let slow = "--expect-regex=(?s-u)(.?){4000}never";
    let since = std::time::Instant::now();
    Call::image("uart-flood", [slow, "--timeout", "2s"]).ends_with(124);
    assert!(since.elapsed().as_secs() < 12, "{:?}", since.elapsed());
    let said = Call::image("tick", ["--expect-regex=(.{1000}){1000}"]).ends_with(125);
    assert!(said.stderr.contains("--expect-regex"), "{}", said.stderr);
}
