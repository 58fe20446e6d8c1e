//! What is known of the code that the guest runs: the session's ELF files, or else the code itself, as
//! QEMU has loaded it from a raw image, a HEX file or a ROM.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use firmware_info::{Architecture, Firmware};
use qmp_proto::commands::HumanMonitorCommand;

use super::Debugger;
use super::vectors::Family;
use crate::client::command::{Deadline, command};
use crate::guest::symbols::ElfFile;

/// More than a raw image of a microcontroller has, of each region and of all: a tenth of a second
/// over the stub.
const MOST_OF_ONE: u64 = 512 * 1024;
const MOST_OF_ALL: u64 = 2 * 1024 * 1024;

/// So many bytes of one value are no code, nor is there any behind them.
const PIECE: u64 = 16 * 1024;

impl Debugger {
    /// The session's ELF files where one can be read, or else the code in the guest's memory. The
    /// guest is stopped, and the turn is the caller's.
    pub(super) async fn elf(&mut self) -> Arc<ElfFile> {
        if let Some(elf) = &self.elf {
            return Arc::clone(elf);
        }
        let elf = match self.session.ask_each(|_| ()).await[..] {
            [] => Arc::new(ElfFile::known(self.code_in_memory().await)),
            _ => Arc::clone(&self.session.inner.firmware),
        };
        Arc::clone(self.elf.insert(elf))
    }

    async fn code_in_memory(&self) -> Firmware {
        let is_64 = || {
            let pc = self.register("pc");
            pc.is_ok_and(|pc| pc.bits == 64)
        };
        let architecture = match self.family() {
            Some(Family::CortexM | Family::Arm) => Architecture::Arm,
            Some(Family::Aarch64) => Architecture::Aarch64,
            Some(Family::RiscV) if is_64() => Architecture::Riscv64,
            Some(Family::RiscV) => Architecture::Riscv32,
            None => Architecture::Other,
        };
        let regions = Regions::new(
            &self.says("info roms").await,
            &self.says("info mtree -f").await,
        );
        let mut code = Vec::new();
        let mut left = MOST_OF_ALL;
        for (&address, &size) in &regions.code {
            let bytes = self.code_at(address, size.min(MOST_OF_ONE).min(left)).await;
            left -= bytes.len() as u64;
            code.push((address, bytes));
        }
        Firmware::from_memory(
            architecture,
            !self.attachment.big_endian,
            code,
            regions.data,
        )
    }

    /// Up to where nothing can be read, or flash is empty.
    async fn code_at(&self, address: u64, size: u64) -> Vec<u8> {
        let mut code = Vec::new();
        while (code.len() as u64) < size {
            let at = code.len() as u64;
            let length = PIECE.min(size - at) as usize;
            let Ok(piece) = self.memory(address.wrapping_add(at), length).await else {
                break;
            };
            let is_empty = piece.windows(2).all(|pair| pair[0] == pair[1]);
            code.extend(piece);
            if is_empty {
                break;
            }
        }
        code
    }

    /// What the human monitor answers; nothing where it cannot be asked.
    async fn says(&self, line: &str) -> String {
        let deadline: Deadline = self.session.deadline.into();
        let question = HumanMonitorCommand::new(line);
        let answer = command(&self.attachment.shared, deadline, &question).await;
        answer.unwrap_or_default()
    }
}

/// What the guest's memory is for.
#[derive(Debug, Default, PartialEq)]
struct Regions {
    /// Address and size of what QEMU has loaded (`info roms`), and of memory that the guest only
    /// reads and that nothing is loaded to by an address, such as flash with a drive behind it.
    code: BTreeMap<u64, u64>,
    /// Memory that it may write.
    data: Vec<Range<u64>>,
}

impl Regions {
    /// By the words of `info roms` and of `info mtree -f`.
    fn new(roms: &str, tree: &str) -> Self {
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let mut regions = Self::default();
        for line in roms.lines() {
            // addr=0000000080000000 size=0x000250 mem=ram name="firmware.bin"
            let field = |name: &str| {
                let mut words = line.split(' ');
                words.find_map(|word| hex(word.strip_prefix(name)?))
            };
            let is_tree = line.ends_with("\"fdt\"") || line.ends_with("\"dtb\"");
            if let (Some(address), Some(size), false) = (field("addr="), field("size="), is_tree) {
                regions.code.insert(address, size);
            }
        }
        for line in tree.lines() {
            //   0000000020000000-0000000021ffffff (prio 0, romd): virt.flash0
            let Some((range, rest)) = line.trim_start().split_once(" (prio ") else {
                continue;
            };
            let ends = range.split_once('-');
            let ends = ends.and_then(|(begin, last)| Some((hex(begin)?, hex(last)?)));
            let kind = rest.split([' ', ')']).nth(1);
            let (Some((begin, last)), Some(kind)) = (ends, kind) else {
                continue;
            };
            let region = begin..last.saturating_add(1).max(begin);
            let is_empty = regions.code.range(region.clone()).next().is_none();
            match kind {
                "rom" | "romd" if is_empty => {
                    _ = regions.code.insert(begin, region.end - begin);
                }
                "ram" if !regions.data.contains(&region) => regions.data.push(region),
                _ => {}
            }
        }
        regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_where_something_was_loaded_and_in_flash() {
        let roms = "addr=0000000000001000 size=0x000028 mem=rom name=\"mrom.reset\"\r\n\
                    addr=0000000080000000 size=0x000250 mem=ram name=\"my size=0x1 fw.bin\"\r\n\
                    /rom@etc/acpi/tables size=0x200000 name=\"etc/acpi/tables\"\r\n\
                    addr=0000000087e00000 size=0x100000 mem=ram name=\"fdt\"\r\n";
        let tree = "FlatView #0\r\n AS \"memory\", root: system\r\n\
                    \x20 0000000000001000-000000000000ffff (prio 0, rom): riscv_virt_board.mrom\r\n\
                    \x20 0000000020000000-0000000021ffffff (prio 0, romd): virt.flash0\r\n\
                    \x20 0000000080000000-0000000087ffffff (prio 0, ram): riscv_virt_board.ram\r\n\
                    \x20 0000000080000000-0000000087ffffff (prio 0, ram): again\r\n";
        let code = [
            (0x1000, 0x28),
            (0x2000_0000, 0x0200_0000),
            (0x8000_0000, 0x250),
        ];
        let regions = Regions::new(roms, tree);
        assert_eq!(regions.code, BTreeMap::from(code));
        let data = 0x8000_0000..0x8800_0000;
        assert_eq!(regions.data, std::slice::from_ref(&data));
        let nothing = Regions::new("no such command", "(prio \u{fffd}");
        assert_eq!(nothing, Regions::default());
    }
}
