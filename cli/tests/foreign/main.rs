//! The session and the program on firmware that this project did not write. Needs QEMU and two
//! packages of Debian's; `cargo xtask test foreign` installs them and runs this.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use qemu_controller::{QemuConfig, Session};

mod guests;

/// Ample, and still an end: nothing in a test should come near it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A file of one of Debian's packages.
fn file(path: &str, package: &str) -> PathBuf {
    let path = Path::new(path);
    assert!(
        path.is_file(),
        "{} is missing: `cargo xtask test foreign` installs Debian's package {package}",
        path.display()
    );
    path.to_owned()
}

/// An Intel HEX image.
fn micropython() -> PathBuf {
    file(
        "/usr/share/firmware-microbit-micropython/firmware.hex",
        "firmware-microbit-micropython",
    )
}

/// An ELF for 64-bit Arm.
fn u_boot() -> PathBuf {
    file("/usr/lib/u-boot/qemu_arm64/uboot.elf", "u-boot-qemu")
}

fn config() -> QemuConfig {
    QemuConfig::default()
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
}

#[tokio::test]
async fn micropython_calculates() {
    let image = micropython();
    let session = Session::start(
        config()
            .machine("microbit")
            .with_spec(|spec| spec.intel_hex(image)),
    );
    let session = session.await.unwrap();
    let serial = session.serial(0).unwrap();
    let banner = serial.expect_within(">>> ", DEADLINE).await.unwrap().before;
    assert!(
        banner.windows(11).any(|window| window == b"MicroPython"),
        "{}",
        banner.escape_ascii()
    );
    serial.write(b"print(6*7)\r").await.unwrap();
    let echo = serial.expect_within("42", DEADLINE).await.unwrap().before;
    assert_eq!(echo, b"print(6*7)\r\n", "{}", echo.escape_ascii());
    serial.expect_within(">>> ", DEADLINE).await.unwrap();
    session.stop().await.unwrap();
}

#[tokio::test]
async fn u_boot_tells_of_its_board() {
    let config = config()
        .qemu("qemu-system-aarch64")
        .machine("virt")
        .cpu("cortex-a57");
    let session = Session::start(config.firmware(u_boot())).await.unwrap();
    let serial = session.serial(0).unwrap();
    serial
        .expect_within("stop autoboot", DEADLINE)
        .await
        .unwrap();
    serial.write(b"\n").await.unwrap();
    serial.expect_within("=> ", DEADLINE).await.unwrap();
    serial.write(b"version\n").await.unwrap();
    serial.expect_within("U-Boot 20", DEADLINE).await.unwrap();
    serial.expect_within("=> ", DEADLINE).await.unwrap();
    serial.write(b"bdinfo\n").await.unwrap();
    // `virt` has its memory there, 128 MiB of it unless told otherwise.
    serial
        .expect_within("-> start    = 0x0000000040000000", DEADLINE)
        .await
        .unwrap();
    serial
        .expect_within("-> size     = 0x0000000008000000", DEADLINE)
        .await
        .unwrap();
    serial.expect_within("=> ", DEADLINE).await.unwrap();
    session.stop().await.unwrap();
}

/// Runs the program with this on its stdin, all at once; what it prints until what is expected has
/// come.
fn piped(firmware: &Path, words: &[&str], input: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qemu-controller"));
    command
        .arg("run")
        .args(words)
        .arg("--timeout=60s")
        .arg(firmware)
        .current_dir(env!("CARGO_TARGET_TMPDIR"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {printed}", output.status);
    printed
}

#[test]
fn micropython_by_the_program() {
    let words = [
        "--machine=microbit",
        "--newline=cr",
        "--expect-regex=42\\r\\n>>> $",
    ];
    let printed = piped(&micropython(), &words, "print(6*7)\n");
    assert!(
        printed.contains("MicroPython") && printed.contains("print(6*7)\r\n42\r\n"),
        "{printed}"
    );
}

#[test]
fn u_boot_by_the_program() {
    let virt = [
        "--qemu=qemu-system-aarch64",
        "--machine=virt",
        "--cpu=cortex-a57",
        "--expect-regex=devicetree *=",
    ];
    // As an ELF, and as the raw image that a board's flash would hold. An empty line interrupts
    // autoboot; some are lost to the start, and further ones do nothing.
    let raw = file("/usr/lib/u-boot/qemu_arm64/u-boot.bin", "u-boot-qemu");
    for (firmware, words) in [
        (u_boot(), virt.to_vec()),
        (raw, [&virt[..], &["--raw=0"]].concat()),
    ] {
        let printed = piped(&firmware, &words, "\n\n\n\nversion\nbdinfo\n");
        for expected in [
            "U-Boot 20",
            "=> version",
            "=> bdinfo",
            "-> start    = 0x0000000040000000",
        ] {
            assert!(printed.contains(expected), "no {expected:?} in {printed}");
        }
    }
}
