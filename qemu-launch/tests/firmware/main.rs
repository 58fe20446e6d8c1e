//! The firmware checks: every way in which a file can be wrong, each with its own error.

use std::path::{Path, PathBuf};

use qemu_launch::firmware::{FirmwareError, check};
use qemu_launch::{MachineSpec, SpawnError};

use image::Image;

mod image;

const PROGRAM: &str = "qemu-system-arm";
const CPU: Option<&str> = Some("cortex-m3");

/// Writes the bytes to a file of its own and checks it.
fn check_bytes(bytes: &[u8], program: &str, cpu: Option<&str>) -> Result<(), FirmwareError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("firmware.elf");
    std::fs::write(&path, bytes).expect("room for a small file");
    check(&path, program, cpu)
}

fn image(change: impl FnOnce(&mut Image)) -> Vec<u8> {
    let mut image = Image::default();
    change(&mut image);
    image.bytes()
}

/// The error, as the user reads it, without the path in front.
fn refused(bytes: &[u8], program: &str, cpu: Option<&str>) -> (FirmwareError, String) {
    let error = check_bytes(bytes, program, cpu).expect_err("it is refused");
    let text = error.to_string();
    let words = text
        .split_once("firmware.elf")
        .map(|(_, rest)| rest.trim().to_owned());
    (error, words.expect("the path is named"))
}

#[test]
fn every_image_of_the_project_passes() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../xtask/firmware");
    let images: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some(path.join(path.file_name()?).with_extension("elf")))
        .filter(|elf| elf.is_file())
        .collect();
    assert!(images.len() >= 3, "{images:?}");
    for elf in images {
        check(&elf, PROGRAM, CPU).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_bare_image_passes() {
    check_bytes(&Image::default().bytes(), PROGRAM, CPU).unwrap();
    // Flash that the board aliases to 0, as on an STM32.
    let mut flash = Image {
        address: 0x0800_0000,
        entry: 0x0800_0009,
        ..Image::default()
    };
    flash.contents[4..8].copy_from_slice(&0x0800_0009_u32.to_le_bytes());
    check_bytes(&flash.bytes(), PROGRAM, CPU).unwrap();
    // Linked without an entry: a Cortex-M takes its reset vector.
    flash.entry = 0;
    check_bytes(&flash.bytes(), PROGRAM, CPU).unwrap();
}

#[test]
fn what_is_not_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("absent.elf");
    assert!(
        matches!(check(&missing, PROGRAM, CPU), Err(FirmwareError::Missing { path }) if path == missing)
    );
    assert!(matches!(
        check(folder.path(), PROGRAM, CPU),
        Err(FirmwareError::Folder { .. })
    ));
    assert!(matches!(
        check_bytes(b"", PROGRAM, CPU),
        Err(FirmwareError::Empty { .. })
    ));
    if cfg!(unix) {
        assert!(matches!(
            check(Path::new("/dev/null"), PROGRAM, CPU),
            Err(FirmwareError::NotAFile { .. })
        ));
    }
}

#[test]
fn what_is_not_an_elf() {
    let with_magic = |start: &[u8], at: usize, magic: &[u8]| {
        let mut bytes = vec![0; 0x400];
        bytes[..start.len()].copy_from_slice(start);
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    };
    const LINUX: &str =
        "is a Linux kernel's image; an ELF file was wanted (say `unchecked_firmware`)";
    let (arm, arm64) = (
        with_magic(b"", 0x24, b"\x18\x28\x6f\x01"),
        with_magic(b"MZ", 0x38, b"ARMd"),
    );
    let (riscv, x86) = (
        with_magic(b"MZ", 0x38, b"RSC\x05"),
        with_magic(b"MZ", 0x202, b"HdrS"),
    );
    let rows: [(&[u8], &str); 11] = [
        (&arm, LINUX),
        (&arm64, LINUX),
        (&riscv, LINUX),
        (&x86, LINUX),
        (
            b"int main(void) {}\n",
            "is a text file; an ELF file was wanted (is it the source instead of the build's result?)",
        ),
        (
            b":10010000214601360121470136007EFE09D2190140\n",
            "is an Intel HEX file; an ELF file was wanted (or say `intel_hex`)",
        ),
        (
            b"S00600004844521B\n",
            "is a Motorola S-record file; an ELF file was wanted (convert it with objcopy)",
        ),
        (
            b"MZ\x90\0\x03",
            "is a Windows program; an ELF file was wanted (build for the bare-metal target)",
        ),
        (
            &[0, 0, 1, 0x20, 9, 0, 0, 0],
            "is no ELF file; an ELF file was wanted (or say `raw_image` with its address, if that is what it is)",
        ),
        (
            b"\x7fEL",
            "is no ELF file; an ELF file was wanted (or say `raw_image` with its address, if that is what it is)",
        ),
        (
            b"x",
            "is a text file; an ELF file was wanted (is it the source instead of the build's result?)",
        ),
    ];
    for (bytes, expected) in rows {
        let (error, text) = refused(bytes, PROGRAM, CPU);
        assert!(matches!(error, FirmwareError::NotElf { .. }), "{error:?}");
        assert_eq!(text, expected);
    }
}

#[test]
fn an_elf_for_something_else() {
    let (error, text) = refused(&image(|i| (i.bits, i.machine) = (64, 62)), PROGRAM, CPU);
    assert!(
        matches!(error, FirmwareError::WrongMachine { .. }),
        "{error:?}"
    );
    assert_eq!(
        text,
        "is for another CPU: x86-64, 64 bit, little-endian; qemu-system-arm runs Arm, 32 bit, little-endian"
    );
    let (error, text) = refused(&image(|i| i.little = false), PROGRAM, CPU);
    assert!(
        matches!(error, FirmwareError::WrongByteOrder { .. }),
        "{error:?}"
    );
    assert_eq!(
        text,
        "has the wrong byte order: Arm, 32 bit, big-endian; qemu-system-arm runs Arm, 32 bit, little-endian"
    );
    let (error, text) = refused(&image(|i| i.bits = 64), PROGRAM, CPU);
    assert!(
        matches!(error, FirmwareError::WrongClass { .. }),
        "{error:?}"
    );
    assert_eq!(
        text,
        "has the wrong word size: Arm, 64 bit, little-endian; qemu-system-arm runs Arm, 32 bit, little-endian"
    );
}

#[test]
fn each_target_runs_its_own() {
    let riscv = |bits| image(|i| (i.bits, i.machine) = (bits, 243));
    check_bytes(&riscv(32), "qemu-system-riscv32", None).unwrap();
    check_bytes(&riscv(64), "qemu-system-riscv64", None).unwrap();
    let (error, _) = refused(&riscv(64), "qemu-system-riscv32", None);
    assert!(
        matches!(error, FirmwareError::WrongClass { .. }),
        "{error:?}"
    );
    let (error, _) = refused(&Image::default().bytes(), "qemu-system-riscv32", None);
    assert!(
        matches!(error, FirmwareError::WrongMachine { .. }),
        "{error:?}"
    );
    check_bytes(&Image::default().bytes(), "qemu-system-aarch64", None).unwrap();
    // A program whose name says nothing: no architecture to check against.
    check_bytes(&riscv(64), "my-emulator", None).unwrap();
}

#[test]
fn cut_at_every_byte() {
    let whole = Image::default().bytes();
    for length in 1..whole.len() {
        let error = check_bytes(&whole[..length], PROGRAM, CPU).expect_err("it is cut off");
        match error {
            FirmwareError::NotElf { .. } => assert!(length < 16, "{length}"),
            FirmwareError::Truncated { .. } => {}
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn segments_outside_the_file() {
    for size in [11, u64::from(u32::MAX)] {
        let (error, text) = refused(&image(|i| i.claimed_size = Some(size)), PROGRAM, CPU);
        assert!(
            matches!(error, FirmwareError::Truncated { length: 94, .. }),
            "{error:?}"
        );
        assert!(
            text.contains(&format!(
                "its loadable segment 0 of {size} bytes at offset 84"
            )),
            "{text}"
        );
    }
}

#[test]
fn nothing_to_load() {
    for (kind, expected) in [
        (2, "has no loadable segment"),
        (
            1,
            "has no loadable segment: it is an object file, not linked yet",
        ),
    ] {
        let (error, text) = refused(&image(|i| (i.segments, i.kind) = (0, kind)), PROGRAM, CPU);
        assert!(
            matches!(error, FirmwareError::NothingToLoad { .. }),
            "{error:?}"
        );
        assert_eq!(text, expected);
    }
    let (error, _) = refused(&image(|i| i.contents.clear()), PROGRAM, CPU);
    assert!(
        matches!(error, FirmwareError::NothingToLoad { .. }),
        "{error:?}"
    );
}

#[test]
fn an_entry_outside_what_is_loaded() {
    let (error, text) = refused(&image(|i| i.entry = 0x4000_0000), PROGRAM, CPU);
    assert!(
        matches!(
            error,
            FirmwareError::NoEntry {
                entry: 0x4000_0000,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        text,
        "has its entry at 0x40000000, which is in no loadable segment"
    );
    let high = image(|i| (i.entry, i.address) = (0, 0x8000));
    assert!(matches!(
        refused(&high, PROGRAM, Some("cortex-a9")).0,
        FirmwareError::NoEntry { entry: 0, .. }
    ));
}

#[test]
fn vectors_that_would_lock_up() {
    let rows: [(u32, u32, &str); 6] = [
        (0, 9, "the initial stack pointer would be 0x00000000"),
        (
            0x2001_0001,
            9,
            "the initial stack pointer would be 0x20010001",
        ),
        (
            u32::MAX,
            u32::MAX,
            "the initial stack pointer would be 0xffffffff",
        ),
        (
            0x2001_0000,
            8,
            "the reset vector 0x00000008 is even, which is not Thumb code",
        ),
        (
            0x2001_0000,
            0,
            "the reset vector 0x00000000 is even, which is not Thumb code",
        ),
        (
            0x2001_0000,
            0x1001,
            "the reset vector 0x00001001 points outside what is loaded",
        ),
    ];
    for (stack, reset, why) in rows {
        let bad = image(|i| {
            i.contents[..4].copy_from_slice(&stack.to_le_bytes());
            i.contents[4..8].copy_from_slice(&reset.to_le_bytes());
        });
        let (error, text) = refused(&bad, PROGRAM, CPU);
        assert!(
            matches!(error, FirmwareError::NoVectorTable { address: 0, .. }),
            "{error:?}"
        );
        assert_eq!(
            text,
            format!("has no vector table for a Cortex-M at 0x0: {why}")
        );
        // Another CPU has no such table, and of the board's own one nothing is known.
        check_bytes(&bad, PROGRAM, Some("cortex-a9")).unwrap();
        check_bytes(&bad, PROGRAM, None).unwrap();
    }
    let (error, _) = refused(
        &image(|i| i.contents.truncate(7)),
        PROGRAM,
        Some("cortex-m0"),
    );
    assert!(
        matches!(
            error,
            FirmwareError::NoEntry { .. } | FirmwareError::NoVectorTable { .. }
        ),
        "{error:?}"
    );
}

/// Whatever the board, what begins where it looks is not refused, and what does not is.
#[test]
#[cfg(unix)]
fn boards_whose_own_cpu_is_a_cortex_m() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("qemu-system-arm");
    test_support::write_program(&program, "#!/bin/sh\n", 0o755);
    let path = folder.path().join("firmware.elf");
    let start = |spec: MachineSpec, bytes: Vec<u8>| {
        std::fs::write(&path, bytes).unwrap();
        qemu_launch::spawn(&spec.qemu(&program).firmware(&path)).map(drop)
    };
    // Linked where the board has its memory, with the stack and the code of each kind.
    let linked = |address: u32, stack: u32| {
        image(|image| {
            image.contents[..4].copy_from_slice(&stack.to_le_bytes());
            image.contents[4..8].copy_from_slice(&(address + 9).to_le_bytes());
            image.address = address.into();
            image.entry = u64::from(address) + 9;
        })
    };
    let boards = [
        ("ast1030-evb", 0, 0x000c_0000),
        ("b-l475e-iot01a", 0x0800_0000, 0x2001_8000),
        ("emcraft-sf2", 0, 0x2001_0000),
        ("lm3s6965evb", 0, 0x2001_0000),
        ("lm3s811evb", 0, 0x2000_2000),
        ("microbit", 0, 0x2000_4000),
        ("mps2-an385", 0, 0x2040_0000),
        ("mps2-an386", 0, 0x2040_0000),
        ("mps2-an500", 0, 0x2040_0000),
        ("mps2-an505", 0x1000_0000, 0x3800_8000),
        ("mps2-an511", 0, 0x2040_0000),
        ("mps2-an521", 0x1000_0000, 0x3800_8000),
        ("mps3-an524", 0x1000_0000, 0x3000_8000),
        ("mps3-an547", 0, 0x3000_8000),
        ("musca-a", 0x1020_0000, 0x3000_8000),
        ("musca-b1", 0x1000_0000, 0x3000_8000),
        ("netduino2", 0x0800_0000, 0x2002_0000),
        ("netduinoplus2", 0x0800_0000, 0x2002_0000),
        ("olimex-stm32-h405", 0x0800_0000, 0x2002_0000),
        ("stm32vldiscovery", 0x0800_0000, 0x2000_2000),
    ];
    for (board, address, stack) in boards {
        let spec = || MachineSpec::board(board);
        start(spec(), linked(address, stack)).unwrap_or_else(|error| panic!("{board}: {error:?}"));
        let error = start(spec(), linked(address, 0)).expect_err(board);
        assert!(
            matches!(
                error,
                SpawnError::Firmware(FirmwareError::NoVectorTable { .. })
            ),
            "{board}: {error:?}"
        );
        // The vectors may be another image's.
        start(spec().raw_image(&program, 0), linked(address, 0))
            .unwrap_or_else(|error| panic!("{board}: {error:?}"));
    }
    start(MachineSpec::board("virt"), linked(0, 0)).expect("not known to be one");
    start(
        MachineSpec::board("mps2-an385").cpu("cortex-a9"),
        linked(0, 0),
    )
    .expect("known not to be one");
}
