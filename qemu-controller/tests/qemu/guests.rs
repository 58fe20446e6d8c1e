//! Large guests of others, to their prompt: U-Boot, OpenSBI with U-Boot, Debian's Linux with a first
//! process of our own. Under QEMU_CONTROLLER_LONG, with the packages unpacked in a folder:
//!
//! ```text
//! dpkg -x u-boot-qemu_*_all.deb GUESTS; dpkg -x linux-image-*-cloud-arm64_*.deb GUESTS
//! QEMU_CONTROLLER_LONG=1 QEMU_CONTROLLER_GUESTS=GUESTS cargo test … --test qemu guests
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu_controller::{QemuConfig, Session, Verdict};

use crate::support::long;

/// A kernel is some seconds at its decompression, on a busy machine.
const BOOTED: Duration = Duration::from_secs(120);

/// A guest, and what it says.
struct Guest {
    name: &'static str,
    config: QemuConfig,
    banner: &'static str,
    prompt: &'static str,
    /// What is typed, and a part of the answer that the line itself has not.
    asked: (&'static str, &'static str),
    /// Ends the machine.
    off: &'static str,
}

/// A file of a package, by what its path begins and ends with.
fn file(begin: &str, end: &str) -> PathBuf {
    let folder = std::env::var_os("QEMU_CONTROLLER_GUESTS").map_or("/".into(), PathBuf::from);
    let (parent, name) = begin.rsplit_once('/').unwrap();
    let files = folder
        .join(parent)
        .read_dir()
        .into_iter()
        .flatten()
        .flatten();
    let mut found = files.map(|file| file.path()).filter(|path| {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        file.starts_with(name) && file.ends_with(end)
    });
    found.next().unwrap_or_else(|| {
        panic!(
            "there is no {begin}*{end} in {}: unpack Debian's u-boot-qemu and linux-image-cloud-arm64 (dpkg -x) in \
             a folder, and name it by QEMU_CONTROLLER_GUESTS",
            folder.display()
        )
    })
}

/// A cpio archive (newc) with a console and the first process.
fn initrd() -> Vec<u8> {
    let mut archive = Vec::new();
    let mut add = |name: &str, mode: u32, device: (u32, u32), data: &[u8]| {
        let inode = archive.len() as u32 + 1;
        let (size, length) = (data.len() as u32, name.len() as u32 + 1);
        let words = [
            inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, length, 0,
        ];
        archive.extend(b"070701");
        archive.extend(
            words
                .iter()
                .flat_map(|word| format!("{word:08X}").into_bytes()),
        );
        for part in [&[name.as_bytes(), b"\0"].concat(), data] {
            archive.extend(part);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    };
    add("dev", 0o40755, (0, 0), b"");
    add("dev/console", 0o20600, (5, 1), b"");
    add("init", 0o100_755, (0, 0), include_bytes!("../guests/init"));
    add("TRAILER!!!", 0, (0, 0), b"");
    archive
}

fn guests(folder: &Path) -> Vec<Guest> {
    let u_boot = |name: &'static str, qemu: &str, cpu: Option<&str>, of: &str| {
        let mut config = QemuConfig::default()
            .qemu(qemu)
            .machine("virt")
            .memory("256M");
        if let Some(cpu) = cpu {
            config = config.cpu(cpu);
        }
        let image = file(&format!("usr/lib/u-boot/{of}/u-boot.bin"), "");
        let is_below = of.ends_with("smode");
        let config = config.with_spec(|spec| match is_below {
            // OpenSBI is QEMU's own, and starts it.
            true => spec.unchecked_firmware(image),
            false => spec.bios(image),
        });
        Guest {
            name,
            config,
            banner: if is_below { "OpenSBI v" } else { "U-Boot 20" },
            prompt: "=> ",
            asked: ("echo $arch-$board", "-qemu-"),
            off: "poweroff",
        }
    };
    let cpio = folder.join("initrd.cpio");
    std::fs::write(&cpio, initrd()).unwrap();
    let linux = QemuConfig::default()
        .qemu("qemu-system-aarch64")
        .machine("virt")
        .cpu("cortex-a53")
        .memory("256M")
        .with_spec(|spec| spec.unchecked_firmware(file("boot/vmlinuz-", "-arm64")))
        .extra_args([
            "-append",
            "console=ttyAMA0",
            "-initrd",
            cpio.to_str().unwrap(),
        ]);
    vec![
        u_boot(
            "U-Boot, 32-bit Arm",
            "qemu-system-arm",
            Some("cortex-a15"),
            "qemu_arm",
        ),
        u_boot(
            "U-Boot, AArch64",
            "qemu-system-aarch64",
            Some("cortex-a53"),
            "qemu_arm64",
        ),
        u_boot(
            "U-Boot, RISC-V",
            "qemu-system-riscv64",
            None,
            "qemu-riscv64",
        ),
        u_boot("OpenSBI", "qemu-system-riscv64", None, "qemu-riscv64_smode"),
        Guest {
            name: "Linux",
            config: linux,
            banner: "Linux version 6",
            prompt: "tiny# ",
            asked: ("hello", "you said hello"),
            off: "off",
        },
    ]
}

async fn ask(session: &Session, guest: &Guest) {
    let serial = session.serial(0).unwrap();
    let (question, answer) = guest.asked;
    serial.write_line(question).await.unwrap();
    for expected in [answer, guest.prompt] {
        let said = serial.expect_within(expected, BOOTED).await;
        said.unwrap_or_else(|error| panic!("{}: {error}", guest.name));
    }
}

#[tokio::test]
async fn guests_of_others_come_to_their_prompt_and_back_to_it() {
    if !long() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for guest in guests(folder.path()) {
        let config = guest
            .config
            .clone()
            .start_deadline(BOOTED)
            .command_deadline(BOOTED);
        let session = Session::start(config).await.unwrap();
        let serial = session.serial(0).unwrap();
        let mut expected = vec![guest.banner];
        if guest.prompt == "=> " {
            expected.push("stop autoboot");
        }
        for text in expected {
            let said = serial.expect_within(text, BOOTED).await;
            said.unwrap_or_else(|error| panic!("{}: {error}", guest.name));
        }
        if guest.prompt == "=> " {
            serial.write_line("").await.unwrap();
        }
        serial.expect_within(guest.prompt, BOOTED).await.unwrap();
        ask(&session, &guest).await;
        let lost = session.save_snapshot("at-the-prompt").await.unwrap();
        assert!(lost.is_empty(), "{}: {lost:?}", guest.name);
        ask(&session, &guest).await;
        for _ in 0..2 {
            session.load_snapshot("at-the-prompt").await.unwrap();
            ask(&session, &guest).await;
        }
        serial.write_line(guest.off).await.unwrap();
        let verdict = session.run_to_end(BOOTED).await;
        let is_over = matches!(verdict, Verdict::ShutDown | Verdict::Exited { status: 0 });
        assert!(is_over, "{}: {verdict}", guest.name);
        println!("{}: {verdict}", guest.name);
    }
}
