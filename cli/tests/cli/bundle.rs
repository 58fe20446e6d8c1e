//! `--bundle` and `open`: a failure is written down, opened by somebody else, and is the same; what
//! does not fit, and what a stranger put there, is said in words.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::Value;

use crate::mcp::{children, gone, signal};
use crate::support::{Call, Said, Stream, image, until};

fn planted(board: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/planted");
    fixtures.join(board).display().to_string()
}

/// The one bundle in a folder.
fn only(folder: &Path) -> PathBuf {
    let mut all = std::fs::read_dir(folder).unwrap();
    let first = all.next().unwrap().unwrap().path();
    assert!(all.next().is_none());
    first
}

fn manifest(bundle: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(bundle.join("bundle.json")).unwrap()).unwrap()
}

fn program(runtime: &Path, words: &[&str]) -> Command {
    test_support::heed_signals();
    let mut command = Command::new(env!("CARGO_BIN_EXE_qemu-controller"));
    command.args(words).env("XDG_RUNTIME_DIR", runtime);
    command.current_dir(runtime).stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> Output {
    command.output().unwrap()
}

/// What a failed `open` says.
fn refused(bundle: &Path, words: &[&str]) -> String {
    let runtime = tempfile::tempdir().unwrap();
    let path = bundle.display().to_string();
    let words = [&["open", &path], words].concat();
    let output = output(program(runtime.path(), &words));
    Said::of(&output, 125).stderr
}

/// A run that fails writes a folder; another user opens it elsewhere, and registers and backtrace are
/// those of the failure.
#[test]
fn a_failure_opens_again_under_another_user() {
    for board in ["cortex-m.elf", "riscv.elf"] {
        let folder = tempfile::tempdir().unwrap();
        let call = Call::new([&planted(board), "--bundle"]).folder(folder.path());
        let said = call.ends_with(139);
        let last = said.stderr.lines().last().unwrap();
        let bundle = only(&folder.path().join("qemu-controller-bundles"));
        let name = bundle.file_name().unwrap().to_str().unwrap();
        assert!(
            last.ends_with(&format!(
                "qemu-controller open qemu-controller-bundles/{name}"
            )),
            "{last}"
        );
        assert_eq!(std::fs::read(bundle.join("output.txt")).unwrap(), b"boot\n");
        for file in ["state", "firmware", "core", "qmp.txt", "report.json"] {
            assert!(bundle.join(file).is_file(), "{file}");
        }
        let moment = manifest(&bundle)["moment"].clone();
        let (runtime, mut opened) = opened_by_another(&bundle);
        let said = opened.stdout.text();
        assert!(
            said.contains("first instruction of the fault's handler"),
            "{said}"
        );
        assert!(said.contains("use_pointer"), "{said}");
        let ctl = |words: &[&str]| {
            let words = [&["ctl", "--json"], words].concat();
            let mut command = program(runtime.path(), &words);
            as_another(&mut command);
            let text = Said::of(&output(command), 0).stdout;
            serde_json::from_str::<Value>(&text).unwrap()
        };
        for register in ctl(&["read-registers"])["registers"].as_array().unwrap() {
            let number = register["value"].as_str().unwrap().trim_start_matches("0x");
            let Ok(number) = u32::from_str_radix(number, 16) else {
                continue;
            };
            let bytes = number
                .to_le_bytes()
                .map(|byte| format!("{byte:02x}"))
                .concat();
            let name = register["name"].as_str().unwrap();
            assert_eq!(moment["registers"][name], bytes, "{board}: {name}");
        }
        let frames = ctl(&["backtrace"])["frames"].clone();
        let frames = frames.as_array().unwrap().iter().rev();
        let before = moment["cores"][0]["backtrace"]
            .as_array()
            .unwrap()
            .iter()
            .rev();
        // On RISC-V the handler's own frame is in the one and not in the other.
        for (frame, before) in frames.zip(before).take(2) {
            assert_eq!(frame["symbol"], before["symbol"], "{board}");
        }
        let qemus = children(opened.child.id());
        ctl(&["stop"]);
        assert_eq!(
            until("its end", || opened.child.try_wait().unwrap()).code(),
            Some(0)
        );
        gone(&qemus);
    }
}

/// Has a program run as somebody else, where that can be.
fn as_another(command: &mut Command) {
    if is_another_there() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

/// Whether there is another user for whom the program and the same QEMUs can be reached.
fn is_another_there() -> bool {
    static IS_THERE: OnceLock<bool> = OnceLock::new();
    *IS_THERE.get_or_init(|| {
        let reached = |program: &str| {
            let mut ours = Command::new(program);
            let ours = ours.arg("--version").output().unwrap().stdout;
            let mut theirs = Command::new(program);
            let theirs = theirs.arg("--version").uid(NOBODY).gid(NOBODY).output();
            theirs.is_ok_and(|theirs| theirs.stdout == ours)
        };
        let programs = [
            env!("CARGO_BIN_EXE_qemu-controller"),
            "qemu-system-arm",
            "qemu-system-riscv32",
        ];
        rustix::process::getuid().is_root() && programs.into_iter().all(reached)
    })
}

const NOBODY: u32 = 65534;

struct Opened {
    child: std::process::Child,
    stdout: Stream,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Moves the bundle to a folder of somebody else's, who opens it.
fn opened_by_another(bundle: &Path) -> (tempfile::TempDir, Opened) {
    let runtime = tempfile::tempdir().unwrap();
    let there = runtime.path().join("bundle");
    std::fs::rename(bundle, &there).unwrap();
    if is_another_there() {
        let files = std::fs::read_dir(&there).unwrap();
        let files = files.map(|file| file.unwrap().path());
        for path in files.chain([there.clone(), runtime.path().to_owned()]) {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let mut command = program(runtime.path(), &["open", there.to_str().unwrap()]);
    as_another(&mut command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut stdout = Stream::new(child.stdout.take().unwrap());
    stdout.until("steer it with");
    (runtime, Opened { child, stdout })
}

#[test]
fn it_is_written_when_it_is_wanted_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    let bundles = folder.path().join("b");
    let dir = format!("--bundle-dir={}", bundles.display());
    let exits = image("semihosting-exit").display().to_string();
    let passes = image("semihosting-print").display().to_string();
    let fails = |words: &[&str]| Call::new(words).folder(folder.path());
    fails(&[&exits]).ends_with(7);
    fails(&[&exits, &dir]).ends_with(7);
    fails(&[&exits, &dir, "--bundle=never"]).ends_with(7);
    fails(&[&passes, &dir, "--bundle"]).ends_with(0);
    assert!(!bundles.exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // By the environment, as CI sets it; the command line counts more.
    let by_environment = |when: &str, words: &[&str]| {
        fails(words)
            .env("QEMU_CONTROLLER_BUNDLE", when)
            .env("QEMU_CONTROLLER_BUNDLE_DIR", &bundles)
    };
    by_environment("on-failure", &[&exits, "--bundle=never"]).ends_with(7);
    by_environment("sometimes", &[&exits]).ends_with(125);
    assert!(!bundles.exists());
    by_environment("on-failure", &[&exits]).ends_with(7);
    let bundle = only(&bundles);
    assert_eq!(manifest(&bundle)["moment"]["kind"], "exit");
    assert_eq!(
        std::fs::read(bundle.join("output.txt")).unwrap(),
        b"hello by semihosting\n"
    );
    std::fs::remove_dir_all(&bundles).unwrap();
    // By the configuration file, which says so.
    let config = "bundle = 'always'\nbundle-dir = 'b'\n";
    std::fs::write(folder.path().join("qemu-controller.toml"), config).unwrap();
    let said = fails(&[&passes]).ends_with(0);
    assert!(
        said.stderr.contains("sets bundle, bundle-dir"),
        "{}",
        said.stderr
    );
    assert_eq!(manifest(&only(&bundles))["verdict"], "exited");
}

/// What somebody else's folder has in it ends in words, and runs nothing.
#[test]
fn a_bundle_that_does_not_fit_or_is_none_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let call = Call::new([&planted("cortex-m.elf"), "--bundle"]).folder(folder.path());
    call.ends_with(139);
    let bundle = only(&folder.path().join("qemu-controller-bundles"));
    let said = refused(&folder.path().join("nowhere"), &[]);
    assert!(said.contains("No such file"), "{said}");
    let said = refused(&bundle, &["--qemu", "/nowhere/qemu-system-arm"]);
    assert!(said.contains("/nowhere/qemu-system-arm"), "{said}");
    let tick = image("tick").display().to_string();
    let said = refused(&bundle, &["--firmware", &tick]);
    assert!(
        said.contains("does not fit here") && said.contains("--firmware names the file"),
        "{said}"
    );
    let said = refused(
        &bundle,
        &[
            "--firmware",
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/main.rs"),
        ],
    );
    assert!(
        said.contains(
            "is a text file; an ELF file was wanted (--firmware names the file that ran)"
        ),
        "{said}"
    );
    // A state of another QEMU: its version is in the first line.
    let state = std::fs::read(bundle.join("state")).unwrap();
    let end = state.iter().position(|&byte| byte == b'\n').unwrap();
    let line = String::from_utf8(state[..end].to_vec()).unwrap();
    let fields: Vec<_> = line.split(';').collect();
    let other = line.replace(fields[3], "9.9.9");
    std::fs::write(
        bundle.join("state"),
        [other.as_bytes(), &state[end..]].concat(),
    )
    .unwrap();
    let said = refused(&bundle, &[]);
    assert!(
        said.contains("QEMU 9.9.9 and not") && said.contains("the very version"),
        "{said}"
    );
    std::fs::write(bundle.join("state"), state).unwrap();
    // Words of a stranger's reach no terminal, and nothing of the argv is run.
    let mut bad = manifest(&bundle);
    bad["message"] = "\u{1b}]0;owned\u{7}".into();
    bad["qemu"]["argv"] = serde_json::json!(["/bin/sh", "-c", "touch here"]);
    bad["machine"]["beyond"] = serde_json::json!(["-monitor", "tcp::4444,server"]);
    std::fs::write(bundle.join("bundle.json"), bad.to_string()).unwrap();
    let runtime = tempfile::tempdir().unwrap();
    let path = bundle.display().to_string();
    let shown = program(runtime.path(), &["open", "--show", &path]);
    let said = Said::of(&output(shown), 0).stdout;
    assert!(
        !said.contains('\u{1b}') && said.contains("not taken from a bundle"),
        "{said}"
    );
    bad["machine"]["program"] = "/bin/sh".into();
    std::fs::write(bundle.join("bundle.json"), bad.to_string()).unwrap();
    assert!(refused(&bundle, &[]).contains("no QEMU"));
    assert!(!runtime.path().join("here").exists());
}

/// A debugger in place of calls: it is at the place of the failure, and the machine ends with it.
#[test]
fn a_debugger_finds_the_failure() {
    use std::io::{Read as _, Write as _};
    let folder = tempfile::tempdir().unwrap();
    Call::new([&planted("cortex-m.elf"), "--bundle"])
        .folder(folder.path())
        .ends_with(139);
    let bundle = only(&folder.path().join("qemu-controller-bundles"));
    let socket = folder.path().join("gdb");
    let gdb = format!("--gdb=unix:{}", socket.display());
    let mut command = program(folder.path(), &["open", bundle.to_str().unwrap(), &gdb]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut opened = Opened {
        stdout: Stream::new(child.stdout.take().unwrap()),
        child,
    };
    opened.stdout.until("target remote");
    let mut debugger = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    debugger.write_all(b"$g#67").unwrap();
    let pc = manifest(&bundle)["moment"]["registers"]["pc"].clone();
    let mut reply = Vec::new();
    until("the registers", || {
        let mut chunk = [0; 1024];
        let read = debugger.read(&mut chunk).unwrap();
        reply.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&reply);
        text.contains(pc.as_str().unwrap()).then_some(())
    });
    let qemus = children(opened.child.id());
    signal(opened.child.id(), Signal::INT);
    let status = until("its end", || opened.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    gone(&qemus);
}

/// Tests that fail have a bundle each, as many as are wanted; those that pass and go on the same
/// machine are not disturbed.
#[test]
fn each_failed_test_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = "../qemu-controller/fixtures/embedded-test/outcomes.elf";
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join(fixtures);
    let tests = tests.display().to_string();
    let run = |words: &[&str]| {
        let words = [&[tests.as_str(), "--timeout=3s"], words].concat();
        Call::new(words).folder(folder.path()).ends_with(101)
    };
    let without = run(&["fails", "passes"]);
    let with = run(&["fails", "passes", "--bundle"]);
    let results = |said: &Said| {
        let lines = said.stdout.lines().filter(|line| line.starts_with("test "));
        let mut lines: Vec<_> = lines.map(str::to_owned).collect();
        lines.retain(|line| !line.contains("test result"));
        lines.sort();
        lines
    };
    assert_eq!(results(&with), results(&without));
    let bundles = std::fs::read_dir(folder.path().join("qemu-controller-bundles")).unwrap();
    let bundles: Vec<_> = bundles.map(|bundle| bundle.unwrap().path()).collect();
    let failed = results(&with)
        .iter()
        .filter(|line| line.contains("FAILED"))
        .count();
    assert_eq!(bundles.len(), failed.min(10), "{bundles:?}");
    let said = with.stderr.matches("to go on from there").count();
    assert_eq!(said, bundles.len(), "{}", with.stderr);
    for bundle in bundles {
        let manifest = manifest(&bundle);
        assert_eq!(manifest["missing"], serde_json::json!([]), "{bundle:?}");
        assert_eq!(manifest["moment"]["has_state"], true, "{bundle:?}");
    }
}
