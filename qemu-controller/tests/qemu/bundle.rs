//! A failure that was written down: opened again it is the same machine, and what somebody else put
//! into the folder is refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu_controller::bundle::{Account, Bundle, BundleError, MomentKind, Recorder, Written};
use qemu_controller::qemu_launch::MachineSpec;
use qemu_controller::{QemuConfig, RunReport, Semihosting, Session, StartError, Verdict};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DEADLINE, fault, image};

fn fixture(name: &str) -> PathBuf {
    Path::new("../firmware-info/fixtures/faults").join(name)
}

fn planted(name: &str) -> PathBuf {
    Path::new("../cli/fixtures/planted").join(name)
}

fn riscv() -> QemuConfig {
    let spec = MachineSpec::new("qemu-system-riscv32", "virt");
    QemuConfig::default()
        .with_spec(|_| spec.without_bios())
        .add_serial()
        .firmware(planted("riscv.elf"))
}

/// Runs it to its failure.
async fn fails(config: QemuConfig, recorder: &mut Recorder) -> (Session, RunReport) {
    fails_within(config, DEADLINE, recorder).await
}

async fn fails_within(
    config: QemuConfig,
    deadline: Duration,
    recorder: &mut Recorder,
) -> (Session, RunReport) {
    let config = config.start_paused(true).start_deadline(DEADLINE);
    let session = Session::start(config).await.unwrap();
    let report = session.run_recorded(deadline, || false, recorder).await;
    (session, report)
}

async fn written(session: &Session, recorder: &Recorder, folder: &Path) -> Written {
    let account = Account::new("case", "failed").text("output.txt", "what it printed");
    recorder.write(session, account, folder).await.unwrap()
}

/// All that the machine has at these addresses.
async fn memory(session: &Session, (address, length): (u64, u64)) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in (address..address + length).step_by(4096) {
        bytes.extend(session.read_memory(at, 4096).await.unwrap());
    }
    bytes
}

/// Firmware, what it is about to do, where its memory is, and whether QEMU is there still.
#[tokio::test]
async fn what_is_opened_is_the_machine_that_failed() {
    let tick = QemuConfig::default().firmware(image("tick"));
    let cortex_m = QemuConfig::default().firmware(planted("cortex-m.elf"));
    let panic = QemuConfig::default()
        .firmware(fixture("panic.elf"))
        .semihosting(Semihosting::console());
    let lm3s = (0x2000_0000, 0x1_0000);
    let riscv_ram = (0x8000_0000, 0x2000);
    // Of a machine that has ended, or whose handler writes, the memory is not what it was.
    let cases = [
        ("planted", cortex_m, MomentKind::Fault, Some(lm3s)),
        ("lockup", fault("lockup"), MomentKind::Fault, None),
        ("panic", panic, MomentKind::Panic, None),
        ("exit-3", fault("exit-3"), MomentKind::Exit, None),
        ("hang", tick.clone(), MomentKind::Deadline, None),
        ("tick", tick, MomentKind::End, Some(lm3s)),
        ("riscv", riscv(), MomentKind::Fault, Some(riscv_ram)),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, config, kind, ram) in cases {
        let mut recorder = Recorder::default();
        let deadline = match kind {
            MomentKind::Deadline | MomentKind::End => Duration::from_millis(300),
            _ => DEADLINE,
        };
        let (session, report) = fails_within(config, deadline, &mut recorder).await;
        if kind == MomentKind::End {
            session.pause().await.unwrap();
            recorder.keep(&session, kind).await.unwrap();
        }
        assert_eq!(recorder.moment(), Some(kind), "{name}: {report}");
        let before = match ram {
            Some(ram) => memory(&session, ram).await,
            None => Vec::new(),
        };
        let written = written(&session, &recorder, folder.path()).await;
        assert_eq!(written.missing, [""; 0], "{name}");
        session.stop().await.unwrap();

        // Another place, from which nothing leads back.
        let elsewhere = tempfile::tempdir().unwrap();
        let there = elsewhere.path().join("bundle");
        fs::rename(&written.folder, &there).unwrap();
        let bundle = Bundle::open(&there).unwrap();
        assert_eq!((bundle.moment(), bundle.name()), (Some(kind), "case"));
        let session = bundle.start().await.unwrap();
        let mut debugger = session.debugger().await.unwrap();
        let differing = bundle.differing_registers(&mut debugger).await.unwrap();
        assert_eq!(differing, [""; 0], "{name}");
        let look = bundle.look(&mut debugger).await.unwrap();
        assert_eq!(
            [format!("{look:#}").as_str()],
            bundle.reports().collect::<Vec<_>>()[..]
        );
        assert_eq!(look.to_json(), bundle.reports_json()[0], "{name}");
        if let Some(ram) = ram {
            assert!(memory(&session, ram).await == before, "{name}");
        }
        let text = fs::read_to_string(there.join("output.txt")).unwrap();
        assert_eq!(text, "what it printed");
        for entry in fs::read_dir(&there).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
        }
        assert!(
            fs::metadata(there.join("core")).unwrap().len() > 0,
            "{name}"
        );
        drop(debugger);
        session.stop().await.unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

fn manifest(bundle: &Path) -> Value {
    serde_json::from_slice(&fs::read(bundle.join("bundle.json")).unwrap()).unwrap()
}

/// A bundle to be changed.
async fn sample() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let config = QemuConfig::default().firmware(planted("cortex-m.elf"));
    let mut recorder = Recorder::default();
    let (session, _) = fails(config, &mut recorder).await;
    let written = written(&session, &recorder, folder.path()).await;
    (folder, written.folder)
}

#[tokio::test]
async fn what_somebody_else_put_into_it_is_refused_in_words() {
    let (_folder, bundle) = sample().await;
    let good = manifest(&bundle);
    let refused = |expected: &str| {
        let error = Bundle::open(&bundle).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    };
    for (pointer, value, expected) in [
        ("/version", json!(2), "a later version"),
        ("/format", json!("x"), "something else"),
        ("/machine/program", json!("/bin/sh"), "no QEMU"),
        ("/machine/program", json!("qemu-system-arm -x"), "no QEMU"),
        (
            "/machine/board",
            json!("virt,dumpdtb=/tmp/x"),
            "no plain name",
        ),
        ("/machine/memory", json!("64G"), "the most"),
        ("/machine/serials", json!(-1), "invalid"),
        ("/machine/serials", json!(1_u64 << 40), "beyond"),
        ("/moment/kind", json!("other"), "unknown variant"),
        ("/machine/loaded", json!(1), "invalid type"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        fs::write(bundle.join("bundle.json"), bad.to_string()).unwrap();
        refused(expected);
    }
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{\"format\": \"qemu-controller bundle\"}",
    ] {
        fs::write(bundle.join("bundle.json"), text).unwrap();
        Bundle::open(&bundle).unwrap_err();
    }
    fs::write(bundle.join("bundle.json"), good.to_string()).unwrap();
    Bundle::open(&bundle).unwrap();

    // What is no file of the bundle's own is neither read nor waited for.
    let secret = bundle.join("../secret");
    fs::write(&secret, "secret").unwrap();
    for name in ["bundle.json", "state", "firmware"] {
        let path = bundle.join(name);
        let contents = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&secret, &path).unwrap();
        refused("is a link");
        fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        refused("is no regular file");
        fs::remove_file(&path).unwrap();
        refused("No such file");
        // As large as a disk, and empty.
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        refused("is the most that is read");
        fs::write(&path, contents).unwrap();
    }
    let state = fs::read(bundle.join("state")).unwrap();
    for length in [0, 10, state.len() / 2, state.len() - 1] {
        fs::write(bundle.join("state"), &state[..length]).unwrap();
        refused("its state cannot be used");
    }
    fs::write(bundle.join("state"), &state).unwrap();

    // Another firmware, and none.
    fs::copy(image("tick"), bundle.join("firmware")).unwrap();
    let error = Bundle::open(&bundle).unwrap().start().await.unwrap_err();
    let BundleError::Start(StartError::OtherMachine { .. }) = &error else {
        panic!("{error}")
    };
    let mut bad = good.clone();
    bad["machine"]["loaded"][0]["is_here"] = json!(false);
    fs::write(bundle.join("bundle.json"), bad.to_string()).unwrap();
    let without = Bundle::open(&bundle).unwrap();
    let error = without.start().await.unwrap_err();
    assert!(matches!(error, BundleError::NoFirmware { .. }), "{error}");
    let session = without.firmware(planted("cortex-m.elf")).start().await;
    session.unwrap().stop().await.unwrap();
}

/// A state whose checksum is right and whose contents are nonsense: QEMU says so, and ends.
#[tokio::test]
async fn a_state_that_qemu_cannot_read_is_said_to_be_so() {
    let (_folder, bundle) = sample().await;
    let state = qemu_controller::MachineState::open(bundle.join("state")).unwrap();
    let line = fs::read(bundle.join("state")).unwrap();
    let end = line.iter().position(|&byte| byte == b'\n').unwrap();
    let line = String::from_utf8(line[..end].to_vec()).unwrap();
    let fields: Vec<_> = line.splitn(7, ' ').collect();
    // The hash of a state of four bytes, as this program takes it.
    let nonsense = b"oops";
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let mut word = |word: u64| {
        hash = (hash ^ u128::from(word)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    };
    word(u64::from(u32::from_le_bytes(*nonsense)));
    word(4);
    let head = format!(
        "{} 4 {hash:032x} {}  {} {}",
        fields[0], fields[3], fields[5], fields[6]
    );
    let contents = [head.as_bytes(), b"\n", &nonsense[..]].concat();
    fs::write(bundle.join("state"), contents).unwrap();
    assert_eq!(state.was_running(), fields[3] == "true");
    let bundle = Bundle::open(&bundle).unwrap();
    let error = bundle.start().await.unwrap_err();
    let BundleError::Start(StartError::Exited { exit, .. }) = &error else {
        panic!("{error}")
    };
    assert!(!exit.stderr().to_string_lossy().is_empty(), "{error}");
}

#[tokio::test]
async fn names_do_not_collide_and_a_run_that_passes_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = QemuConfig::default().firmware(planted("cortex-m.elf"));
    let mut recorder = Recorder::default();
    let (session, report) = fails(config, &mut recorder).await;
    assert!(matches!(report.verdict, Verdict::Faulted(_)), "{report}");
    let (one, other) = tokio::join!(
        written(&session, &recorder, folder.path()),
        written(&session, &recorder, folder.path()),
    );
    assert_ne!(one.folder, other.folder);
    let strange = Account::new("../../x y", "a/b");
    let third = recorder
        .write(&session, strange, folder.path())
        .await
        .unwrap();
    assert_eq!(third.folder, folder.path().join("_.._x_y-a_b"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    // A folder that cannot be written to.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let account = Account::new("x", "y");
    let error = recorder.write(&session, account, &file).await.unwrap_err();
    assert!(matches!(error, BundleError::File { .. }), "{error}");
    session.stop().await.unwrap();
    // Of a firmware that exits with status 0 nothing is kept.
    let mut recorder = Recorder::default();
    let passes = QemuConfig::default()
        .firmware(image("semihosting-print"))
        .semihosting(Semihosting::console());
    let (_, report) = fails(passes, &mut recorder).await;
    assert!(report.verdict.success(), "{report}");
    assert_eq!(recorder.moment(), None, "{report}");
}

/// QEMU that was killed has no state: the bundle has the rest, and says so.
#[tokio::test]
async fn a_qemu_that_is_gone_has_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let session = Session::start(QemuConfig::default().firmware(image("tick")));
    let session = session.await.unwrap();
    session.process().unwrap().kill();
    let report = session
        .run_recorded(DEADLINE, || false, &mut Recorder::default())
        .await;
    assert!(!report.verdict.success(), "{report}");
    let written = written(&session, &Recorder::default(), folder.path()).await;
    assert!(
        !written.can_start && written.missing[0].contains("QEMU was gone"),
        "{written:?}"
    );
    let bundle = Bundle::open(&written.folder).unwrap();
    let error = bundle.start().await.unwrap_err();
    assert!(matches!(error, BundleError::NoState { .. }), "{error}");
}
