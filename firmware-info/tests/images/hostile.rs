//! Damaged and hostile files end in an error or an answer, soon and without a panic.

use firmware_info::testing::ask_everything;
use firmware_info::{DebugInfoError, Firmware};
use proptest::prelude::*;

use crate::fixture;

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

/// Uncompressed, so that a change reaches what it is meant for.
const IMAGES: [&str; 5] = [
    "dwarf/dwarf2.elf",
    "dwarf/dwarf4.elf",
    "dwarf/dwarf5.elf",
    "dwarf/dwarf64.elf",
    "dwarf/shapes.elf",
];

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn bytes_that_were_changed(
        image in 0..IMAGES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = bytes(IMAGES[image]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        ask_everything(&bytes);
    }

    #[test]
    fn bytes_that_are_missing(image in 0..IMAGES.len(), length in any::<prop::sample::Index>()) {
        let bytes = bytes(IMAGES[image]);
        ask_everything(&bytes[..length.index(bytes.len())]);
    }

    #[test]
    fn words_that_were_changed(
        image in 0..IMAGES.len(),
        at in any::<prop::sample::Index>(),
        word in prop_oneof![Just(u32::MAX), Just(0x7fff_ffff), Just(0), 0_u32..0x1_0000],
    ) {
        let mut bytes = bytes(IMAGES[image]);
        let at = at.index(bytes.len() - 4);
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        ask_everything(&bytes);
    }
}

#[test]
fn no_bytes_and_no_elf() {
    for bytes in [&b""[..], b"\x7fELF", b"MZ", &[0; 100]] {
        assert!(Firmware::parse(bytes).is_err());
    }
}

/// A little file whose section claims to decompress to gigabytes.
#[test]
fn a_section_that_claims_to_be_huge_is_refused_unread() {
    let mut bytes = bytes("dwarf/zdebug.elf");
    let at = bytes.windows(4).position(|word| word == b"ZLIB").unwrap();
    bytes[at + 4..at + 12].copy_from_slice(&(1_u64 << 33).to_be_bytes());
    let error = Firmware::parse(bytes)
        .unwrap()
        .source_frames(0x8000)
        .unwrap_err();
    assert!(matches!(&error, DebugInfoError::Section { .. }), "{error}");
}
