//! The firmware checks: every way in which a file can be wrong, each with its own error.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::path::{Path, PathBuf};

use qemu_launch::firmware::{FirmwareError, check};
use qemu_launch::{MachineSpec, SpawnError};

use image::Image;

mod image;

const PROGRAM: &str = "qemu-system-arm";
const CPU: Option<&str> = Some("cortex-m3");

/// How a refusal ends that can be overruled.
const UNCHECKED: &str = "; if this is meant, load it unchecked";

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
    // As in FreeRTOS's demos: the CPU ignores the low two bits of the stack pointer.
    let free_rtos = image(|i| i.contents[..4].copy_from_slice(&0x207f_ffff_u32.to_le_bytes()));
    check_bytes(&free_rtos, PROGRAM, CPU).unwrap();
    // Linked without an entry: a Cortex-M takes its reset vector.
    flash.entry = 0;
    check_bytes(&flash.bytes(), PROGRAM, CPU).unwrap();
}

#[test]
fn what_is_not_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, empty) = (
        folder.path().join("absent.elf"),
        folder.path().join("empty.elf"),
    );
    std::fs::write(&empty, "").unwrap();
    let rows = [
        (&*missing, format!("there is no file {}", missing.display())),
        (
            folder.path(),
            format!("{} is a folder; a file was wanted", folder.path().display()),
        ),
        (&empty, format!("{} is empty", empty.display())),
        #[cfg(unix)]
        (
            Path::new("/dev/null"),
            "/dev/null is a device, pipe or socket; a file was wanted".to_owned(),
        ),
    ];
    for (path, text) in rows {
        let error = check(path, PROGRAM, CPU).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(
            matches!(error, FirmwareError::Unreadable { .. }),
            "{error:?}"
        );
        assert!(error.path() == path && !error.can_be_overruled());
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
    const LINUX: &str = "is a Linux kernel's image; an ELF file was wanted (load it unchecked)";
    let (arm, arm64) = (
        with_magic(b"", 0x24, b"\x18\x28\x6f\x01"),
        with_magic(b"MZ", 0x38, b"ARMd"),
    );
    let (riscv, x86) = (
        with_magic(b"MZ", 0x38, b"RSC\x05"),
        with_magic(b"MZ", 0x202, b"HdrS"),
    );
    let rows: [(&[u8], &str); 14] = [
        (
            b"UF2\nWQ]\x9e",
            "is a UF2 file; an ELF file was wanted (use the ELF file that it was made of)",
        ),
        (
            b"\x1f\x8b\x08\0",
            "is compressed by gzip; an ELF file was wanted (unpack it with gunzip)",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n",
            "is a Git LFS pointer and not the file itself; an ELF file was wanted \
             (download the file itself with git lfs pull)",
        ),
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
            "is an Intel HEX file; an ELF file was wanted (load it as Intel HEX)",
        ),
        (
            b"S00600004844521B\n",
            "is a Motorola S-record file; an ELF file was wanted (convert it: objcopy -I srec -O ihex)",
        ),
        (
            b"MZ\x90\0\x03",
            "is a Windows program; an ELF file was wanted (build for the bare-metal target)",
        ),
        (
            &[0, 0, 1, 0x20, 9, 0, 0, 0],
            "is no ELF file; an ELF file was wanted (load it as a raw image with its address, if that is what it is)",
        ),
        (
            b"\x7fEL",
            "is no ELF file; an ELF file was wanted (load it as a raw image with its address, if that is what it is)",
        ),
        (
            b"x",
            "is a text file; an ELF file was wanted (is it the source instead of the build's result?)",
        ),
    ];
    for (bytes, expected) in rows {
        let (error, text) = refused(bytes, PROGRAM, CPU);
        assert!(
            matches!(error, FirmwareError::WrongFormat { .. }),
            "{error:?}"
        );
        assert_eq!(text, expected);
        assert_eq!(error.with_advice(|advice| advice), error.to_string());
        let other = error.with_advice(|_| "do otherwise");
        assert!(
            other.ends_with("; an ELF file was wanted (do otherwise)"),
            "{other}"
        );
    }
}

#[test]
fn an_elf_for_something_else() {
    let (error, text) = refused(&image(|i| (i.bits, i.machine) = (64, 62)), PROGRAM, CPU);
    assert!(matches!(error, FirmwareError::WrongCpu { .. }), "{error:?}");
    assert_eq!(
        text,
        "is for another CPU: x86-64, 64 bit, little-endian; qemu-system-arm runs Arm, 32 bit, little-endian"
    );
    let (error, text) = refused(&image(|i| i.little = false), PROGRAM, CPU);
    assert!(matches!(error, FirmwareError::WrongCpu { .. }), "{error:?}");
    assert_eq!(
        text,
        "has the wrong byte order: Arm, 32 bit, big-endian; qemu-system-arm runs Arm, 32 bit, little-endian"
    );
    let (error, text) = refused(&image(|i| i.bits = 64), PROGRAM, CPU);
    assert!(matches!(error, FirmwareError::WrongCpu { .. }), "{error:?}");
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
    assert!(matches!(error, FirmwareError::WrongCpu { .. }), "{error:?}");
    let (error, _) = refused(&Image::default().bytes(), "qemu-system-riscv32", None);
    assert!(matches!(error, FirmwareError::WrongCpu { .. }), "{error:?}");
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
            FirmwareError::WrongFormat { .. } => assert!(length < 16, "{length}"),
            FirmwareError::Damaged { .. } => {}
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn segments_outside_the_file() {
    for size in [11, u64::from(u32::MAX)] {
        let (error, text) = refused(&image(|i| i.claimed_size = Some(size)), PROGRAM, CPU);
        assert!(matches!(error, FirmwareError::Damaged { .. }), "{error:?}");
        assert!(
            text.contains(&format!(
                "its loadable segment 0 of {size} bytes at offset 84 should be within its 94 bytes"
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
            matches!(error, FirmwareError::NotRunnable { .. }),
            "{error:?}"
        );
        assert_eq!(text, format!("{expected}{UNCHECKED}"));
    }
    let (error, _) = refused(&image(|i| i.contents.clear()), PROGRAM, CPU);
    assert!(
        matches!(error, FirmwareError::NotRunnable { .. }),
        "{error:?}"
    );
}

#[test]
fn an_entry_outside_what_is_loaded() {
    let (error, text) = refused(&image(|i| i.entry = 0x4000_0000), PROGRAM, CPU);
    assert!(
        matches!(error, FirmwareError::NotRunnable { .. }),
        "{error:?}"
    );
    assert_eq!(
        text,
        format!("has its entry at 0x40000000, which is in no loadable segment{UNCHECKED}")
    );
    let high = image(|i| (i.entry, i.address) = (0, 0x8000));
    assert!(matches!(
        refused(&high, PROGRAM, Some("cortex-a9")).0,
        FirmwareError::NotRunnable { .. }
    ));
}

#[test]
fn vectors_that_would_lock_up() {
    let rows: [(u32, u32, &str); 7] = [
        (0, 9, "the initial stack pointer would be 0x00000000"),
        (3, 9, "the initial stack pointer would be 0x00000003"),
        (
            u32::MAX,
            u32::MAX,
            "what is loaded there is erased flash (all ones)",
        ),
        (
            0x464c_457f,
            0x0001_0101,
            "the file's own ELF header is loaded there; link with -Wl,--nmagic (ld -n), which keeps \
             it out of the first segment",
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
            matches!(error, FirmwareError::NotRunnable { .. }),
            "{error:?}"
        );
        assert_eq!(
            text,
            format!("has no vector table for a Cortex-M at 0x0: {why}{UNCHECKED}")
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
        matches!(error, FirmwareError::NotRunnable { .. }),
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
                SpawnError::Firmware(FirmwareError::NotRunnable { .. })
            ),
            "{board}: {error:?}"
        );
        // What a Cortex-M33 board locked up with, at an address of another board.
        let error = start(spec(), linked(0x8000, stack)).expect_err(board);
        let words = format!("where the CPU of {board} looks for its vectors");
        assert!(error.to_string().contains(&words), "{board}: {error}");
        // Refused or not, the checks can be left out.
        start(spec().without_firmware_checks(), linked(address, 0))
            .unwrap_or_else(|error| panic!("{board}: {error:?}"));
    }
    start(MachineSpec::board("virt"), linked(0, 0)).expect("not known to be one");
    start(
        MachineSpec::board("mps2-an385").cpu("cortex-a9"),
        linked(0, 0),
    )
    .expect("known not to be one");
}

/// A machine whose QEMU is a script that ends at once, with an application linked for 0x4000.
#[cfg(unix)]
struct Bench {
    folder: tempfile::TempDir,
}

#[cfg(unix)]
impl Bench {
    fn new() -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let script = r#"#!/bin/sh
            echo "$@"
            for word; do case $word in *.hex) cat "${word#*file=}";; esac; done
        "#;
        test_support::write_program(&bench.path("qemu-system-arm"), script, 0o755);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), contents).unwrap();
        self.path(name)
    }

    fn spec(&self) -> MachineSpec {
        MachineSpec::default().qemu(self.path("qemu-system-arm"))
    }

    /// What the script prints, or the refusal.
    fn start(&self, spec: &MachineSpec) -> Result<String, String> {
        let process = qemu_launch::spawn(spec).map_err(|error| error.to_string())?;
        process.wait_blocking(test_support::soon()).unwrap();
        Ok(process.stdout_tail().to_string_lossy())
    }
}

#[test]
#[cfg(unix)]
fn the_vectors_that_count_are_those_at_the_reset_address() {
    let bench = Bench::new();
    let application = bench.write(
        "application.elf",
        image(|i| {
            (i.address, i.entry) = (0x4000, 0x4009);
            i.contents[4..8].copy_from_slice(&0x4009_u32.to_le_bytes());
        }),
    );
    let boot = bench.write("boot.bin", &Image::default().contents);
    let spec = || bench.spec().firmware(&application);
    let refusal = bench.start(&spec()).unwrap_err();
    assert!(
        refusal.ends_with(&format!(
            "application.elf begins at 0x4000, and nothing is loaded at 0x0, where the CPU of lm3s6965evb \
             looks for its vectors: link it for that address, or load its boot loader as well{UNCHECKED}"
        )),
        "{refusal}"
    );
    let by_argument = |properties: &str| {
        let loader = format!("loader,file={}{properties}", boot.display());
        spec().extra_args(["-device".to_owned(), loader])
    };
    for with_boot in [
        spec().raw_image(&boot, 0),
        by_argument(",addr=0,force-raw=on"),
        by_argument(",addr=0x0"),
        by_argument(",addr=0x4000").raw_image(&boot, 0),
    ] {
        bench.start(&with_boot).unwrap();
    }
    // Something is there, and no table.
    let short = bench.write("short.bin", [0; 4]);
    let refusal = bench.start(&bench.spec().raw_image(&short, 0)).unwrap_err();
    assert!(
        refusal.contains("at 0x0: it is shorter than a table"),
        "{refusal}"
    );
    for (place, fits) in [(u64::MAX - 3, true), (u64::MAX - 2, false)] {
        let refusal = bench.start(&bench.spec().raw_image(&short, place));
        let words = format!("has 4 bytes, which do not fit at {place:#x}");
        let refusal = refusal.unwrap_err();
        assert_eq!(!refusal.contains(&words), fits, "{refusal}");
    }
    // A boot loader whose own vectors are no good is refused by its own name.
    let bad = bench.write("bad.bin", [0; 8]);
    let refusal = bench.start(&spec().raw_image(&bad, 0)).unwrap_err();
    assert!(refusal.contains("bad.bin has no vector table"), "{refusal}");
    // An application whose image header comes first, behind a boot loader: its beginning is no table.
    let mut contents = vec![0x3d, 0xb8, 0xf3, 0x96];
    contents.resize(0x200, 0xff);
    contents.extend(&Image::default().contents);
    let behind = image(|i| (i.address, i.entry, i.contents) = (0x4000, 0x4209, contents));
    let behind = bench.spec().firmware(bench.write("mcuboot.elf", behind));
    bench.start(&behind.raw_image(&boot, 0)).unwrap();
}

#[test]
#[cfg(unix)]
fn what_cannot_be_a_rom() {
    let bench = Bench::new();
    let riscv = bench.path("qemu-system-riscv32");
    std::fs::rename(bench.path("qemu-system-arm"), &riscv).unwrap();
    let bench_arm = Bench::new();
    let elf = bench.write("arm.elf", Image::default().bytes());
    let hex = bench.write("rom.hex", ":00000001FF\n");
    let raw = bench.write("rom.bin", [0, 1, 2, 3]);
    let on_riscv = |rom: &Path| MachineSpec::new(&riscv, "virt").bios(rom);
    let on_arm = |rom: &Path| bench_arm.spec().machine("virt").cpu("cortex-a15").bios(rom);
    for (spec, words) in [
        (
            on_arm(&elf),
            "arm.elf is an ELF file, which the ROM of this QEMU's boards cannot be",
        ),
        (on_riscv(&elf), "arm.elf is for another CPU: Arm"),
        (
            on_arm(&hex),
            "rom.hex is an Intel HEX file, which is no ROM",
        ),
        (
            on_riscv(&hex),
            "rom.hex is an Intel HEX file, which is no ROM",
        ),
    ] {
        let refusal = bench.start(&spec).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
        bench.start(&spec.without_firmware_checks()).unwrap();
    }
    for spec in [on_riscv(&raw), on_arm(&raw)] {
        bench.start(&spec).unwrap();
    }
}

#[test]
#[cfg(unix)]
fn a_segment_larger_than_the_memory() {
    let bench = Bench::new();
    let mut bytes = Image::default().bytes();
    // The program header's memory size.
    bytes[52 + 20..52 + 24].copy_from_slice(&u32::MAX.to_le_bytes());
    let large = bench.write("large.elf", bytes);
    let refusal = bench.start(&bench.spec().firmware(&large)).unwrap_err();
    assert!(
        refusal
            .contains("has a segment of 4294967295 bytes at 0x0, more than the machine has memory"),
        "{refusal}"
    );
}

#[test]
#[cfg(unix)]
fn intel_hex_that_qemu_would_misread_is_given_to_it_rewritten() {
    let bench = Bench::new();
    // Vectors and an endless loop, and the end.
    const CLEAN: &str = ":0A0000000000012009000000FEE7E7\n:00000001FF\n";
    let given = |text: &str| {
        let path = bench.write("firmware.hex", text);
        bench.start(&bench.spec().intel_hex(&path))
    };
    let as_it_is = given(CLEAN).unwrap();
    assert!(as_it_is.contains("/firmware.hex"), "{as_it_is}");
    let rows = [
        CLEAN.trim_end().to_owned(),
        format!("\u{feff}# made by hand\n{CLEAN}\u{1a}"),
    ];
    for text in rows {
        let said = given(&text).unwrap();
        assert!(
            said.ends_with(CLEAN) && !said.contains("/firmware.hex"),
            "{said}"
        );
    }
    let rows = [
        (
            CLEAN.replace("E7E7", "E7E8"),
            "is damaged in line 1: its checksum is wrong",
        ),
        (
            CLEAN.replace(":00000001FF", ":00000006FA"),
            "is damaged in line 2: its type is 06, which no board's loader knows",
        ),
        (
            ":00000001FF\n".to_owned(),
            "has nothing in it to load: no record has data",
        ),
    ];
    for (text, why) in rows {
        let refusal = given(&text).unwrap_err();
        assert!(
            refusal.ends_with(&format!("firmware.hex {why}")),
            "{refusal}"
        );
    }
    // Its vectors are checked as an ELF file's.
    let refusal = given(":020000040001F9\n:0A0000000000012009000000FEE7E7\n:00000001FF\n");
    assert!(refusal.unwrap_err().contains("nothing is loaded at 0x0"));
}
