//! Backtraces beside those of a gdb-multiarch that runs now, on the QEMU that is in the path.
//!
//! `FRAMES=FOLDER` compares what `fixtures/record-frames.sh STOPS FOLDER` recorded there instead:
//! 200 stops of each image take half an hour.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../images/compare.rs"]
mod compare;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use compare::{Comparison, compare};
use firmware_info::{Architecture, Firmware};
use test_support::until;

const CORTEX_M: &str = "qemu-system-arm -M lm3s6965evb";

/// Image, instructions between two stops, where the first is, QEMU. Not the exceptions: QEMU tells
/// PSP since 8.1 only.
const IMAGES: [(&str, &str, &str, &str); 2] = [
    ("c/o2", "100", "round_of", CORTEX_M),
    ("rust/release", "100", "calls::round", CORTEX_M),
];

/// Ended when it takes too long; its QEMU, at the other end of a pipe, ends with it.
struct Gdb(Child);

impl Drop for Gdb {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"))
}

fn record(image: &str, stride: &str, first: &str, qemu: &str) -> String {
    let out = tempfile::NamedTempFile::new().unwrap();
    let gdb = Command::new("gdb-multiarch")
        .args(["-nx", "-batch", "-x", "record-frames.py"])
        .current_dir(fixtures())
        .envs([
            ("IMAGE", image),
            ("STRIDE", stride),
            ("BREAK", first),
            ("QEMU", qemu),
        ])
        .envs([("STOPS", "12"), ("MOST", "1280")])
        .env("OUT", out.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("gdb-multiarch cannot be started: {error}"));
    let mut gdb = Gdb(gdb);
    until("gdb is done", || gdb.0.try_wait().unwrap());
    std::fs::read_to_string(out.path()).unwrap()
}

/// Whether binutils, a second opinion where gdb shows the line of other code, knows none for any of
/// these addresses.
fn addr2line_has_none(image: &Path, architecture: Architecture, addresses: &[u64]) -> bool {
    let target = match architecture {
        Architecture::Arm => "arm-none-eabi",
        Architecture::Aarch64 => "aarch64-linux-gnu",
        _ => "riscv64-unknown-elf",
    };
    let said = Command::new(format!("{target}-addr2line"))
        .arg("-e")
        .arg(image)
        .args(addresses.iter().map(|at| format!("{at:#x}")))
        .output()
        .unwrap_or_else(|error| panic!("{target}-addr2line cannot be started: {error}"));
    let said = String::from_utf8(said.stdout).unwrap();
    let is_none = |line: &&str| line.ends_with(":?") || line.ends_with(":0");
    said.lines().filter(is_none).count() == addresses.len()
}

fn check(image: &str, text: &str) {
    let path = fixtures().join(format!("{image}.elf"));
    let firmware = Firmware::open(&path).unwrap();
    let Comparison {
        equal,
        known,
        kinds,
        all,
        different,
        without_line,
    } = compare(&firmware, text);
    println!("{image}: of {all} frames {equal} equal, {known} known to differ {kinds:?}");
    assert!(
        without_line.is_empty()
            || addr2line_has_none(&path, firmware.architecture(), &without_line),
        "{image}: {without_line:#x?}"
    );
    assert!(
        all > 20 && (equal + known) * 100 >= all * 99,
        "{image}: {}",
        different.join("\n")
    );
}

#[test]
fn frames_are_those_of_gdb() {
    match std::env::var("FRAMES") {
        Ok(folder) => {
            for entry in walk(Path::new(&folder)) {
                let text = std::fs::read_to_string(&entry).unwrap();
                let image = entry.strip_prefix(&folder).unwrap().to_str().unwrap();
                check(image.strip_suffix(".frames.txt").unwrap(), &text);
            }
        }
        Err(_) => {
            for (image, stride, first, qemu) in IMAGES {
                check(image, &record(image, stride, first, qemu));
            }
        }
    }
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let groups = folder
        .read_dir()
        .unwrap()
        .map(|group| group.unwrap().path());
    let files = groups
        .filter(|group| group.is_dir())
        .flat_map(|group| group.read_dir().unwrap());
    files.map(|file| file.unwrap().path()).collect()
}
