//! The machine that a firmware runs on where none is named, and machines that begin without one.

use std::path::{Path, PathBuf};

use crate::support::{Call, Said};

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

#[test]
fn a_machine_may_begin_with_its_rom_alone() {
    // A branch to itself, where the ROM is.
    let rom = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rom.path(), 0xeaff_fffe_u32.to_le_bytes()).unwrap();
    let words = ["--machine", "virt", "--timeout", "1s", "--bios"].map(Path::new);
    let Said { stderr, .. } = Call::new(words.into_iter().chain([rom.path()])).ends_with(124);
    assert!(stderr.contains("at 0x00000000"), "{stderr}");
    let Said { stderr, .. } = Call::new(["--machine", "virt"]).ends_with(125);
    assert!(stderr.contains("<FIRMWARE>"), "{stderr}");
}
