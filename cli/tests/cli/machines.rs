//! The machine that a firmware runs on where none is named, and machines that begin without one.

use std::path::{Path, PathBuf};
use std::process::Command;

use test_support::{ElfKind, elf};

use crate::support::{Call, Said, image};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../qemu-controller/fixtures")
        .join(name)
}

#[test]
fn a_firmware_runs_on_a_machine_that_it_fits_and_that_is_said() {
    let rows = [
        ("arm", "qemu-system-arm"),
        ("aarch64", "qemu-system-aarch64"),
        ("riscv32", "qemu-system-riscv32"),
    ];
    for (name, qemu) in rows {
        let elf = fixture(&format!("semihosting/{name}.elf"));
        let Said { stderr, .. } = Call::new([elf]).ends_with(7);
        assert!(
            stderr.contains(&format!("{name}.elf fits {qemu} and machine virt")),
            "{stderr}"
        );
    }
    let Said { stderr, .. } = Call::image("semihosting-exit", []).ends_with(7);
    assert!(
        !stderr.contains("fits"),
        "the default is not worth a word: {stderr}"
    );
}

/// Turns the UART on and prints `OK`.
const AVR: [u16; 13] = [
    0xe108, 0x9300, 0x00c1, 0xe42f, 0x9320, 0x00c6, 0xe42b, 0x9320, 0x00c6, 0xe02a, 0x9320, 0x00c6,
    0xcfff,
];

/// An ELF file for AVR with this code at 0.
fn avr(code: &[u16]) -> tempfile::NamedTempFile {
    // An `avr5`.
    let kind = ElfKind {
        machine: 83,
        flags: 5,
        big_endian: false,
    };
    let code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), elf(kind, 0, &[(0, &code)])).unwrap();
    file
}

#[test]
fn an_avr_s_firmware_goes_where_its_boards_look_for_it() {
    let elf = avr(&AVR);
    let words = ["--expect", "OK", "--timeout", "20s"].map(Path::new);
    let Said { stdout, stderr } = Call::new(words.into_iter().chain([elf.path()])).ends_with(0);
    assert!(stdout.starts_with("OK"), "{stdout}");
    assert!(
        stderr.contains("fits qemu-system-avr and machine uno"),
        "{stderr}"
    );
}

#[test]
fn a_machine_may_begin_with_its_rom_alone() {
    // A branch to itself, where the ROM is.
    let rom = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rom.path(), 0xeaff_fffe_u32.to_le_bytes()).unwrap();
    let words = ["--machine", "virt", "--timeout", "1s", "--bios"].map(Path::new);
    let Said { stderr, .. } = Call::new(words.into_iter().chain([rom.path()])).ends_with(124);
    assert!(stderr.contains("at 0x00000000"), "{stderr}");
    // One that is an ELF file has symbols.
    let elf = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../firmware-info/fixtures/same/avr.elf"
    );
    let words = [
        "--qemu",
        "qemu-system-avr",
        "--machine",
        "uno",
        "--timeout",
        "1s",
        "--bios",
        elf,
    ];
    let Said { stderr, .. } = Call::new(words).ends_with(124);
    assert!(stderr.contains("in leave"), "{stderr}");
    let Said { stderr, .. } = Call::new(["--machine", "virt"]).ends_with(125);
    assert!(stderr.contains("<FIRMWARE>"), "{stderr}");
}

#[test]
fn a_machine_may_begin_with_what_qemu_s_own_arguments_have() {
    let elf = image("semihosting-exit").display().to_string();
    let loader = format!("loader,file={elf}");
    let call = |words: &[&str]| Call::new::<&str>([]).qemu_args(words);
    call(&["-device", &loader]).ends_with(7);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("qemu-controller.toml");
    std::fs::write(&config, format!("qemu-args = [\"-device\", {loader:?}]\n")).unwrap();
    Call::new(["--config".as_ref(), &*config]).ends_with(7);
    let rom = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rom.path(), 0xeaff_fffe_u32.to_le_bytes()).unwrap();
    let words = ["-bios", rom.path().to_str().unwrap()];
    let call_of_rom = Call::new(["--machine", "virt", "--timeout", "1s"]).qemu_args(&words);
    call_of_rom.ends_with(124);
    for words in [&["-smp", "1"], &["-name", &elf]] {
        let Said { stderr, .. } = call(words).ends_with(125);
        assert!(stderr.contains("<FIRMWARE>"), "{stderr}");
    }
}

#[test]
fn a_list_that_nobody_reads_ends_as_a_closed_pipe_does() {
    let tests = "TN:\nSF:a.c\nDA:1,1\nend_of_record\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tests).unwrap();
    let file = file.path().to_str().unwrap();
    for words in [["machines"].as_slice(), &["coverage", "summary", file]] {
        let (reader, stdout) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_qemu-controller"))
            .args(words)
            .stdout(stdout)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(141), "{words:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}

#[test]
fn symbols_come_from_another_file_where_the_firmware_has_none() {
    let elf = image("hardfault-loop");
    let raw = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(raw.path(), loaded(&std::fs::read(&elf).unwrap())).unwrap();
    let words = ["--raw", "0", "--timeout", "20s", "--symbols"].map(Path::new);
    let call = Call::new(words.into_iter().chain([&*elf, raw.path()]));
    let Said { stderr, .. } = call.ends_with(139);
    assert!(stderr.contains("in faulty"), "{stderr}");
}

/// What of a 32-bit ELF file is loaded from 0 on.
fn loaded(elf: &[u8]) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap()) as usize;
    let first = word(28);
    let (offset, address, size) = (word(first + 4), word(first + 12), word(first + 16));
    assert_eq!(address, 0, "the vectors are at 0");
    elf[offset..offset + size].to_vec()
}
