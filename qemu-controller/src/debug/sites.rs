//! The instructions of a firmware that say where its faults go, and that come back from them.
//!
//! Registers cannot be watched, so the instructions that write them are stopped at. They are looked
//! for in the whole code, data between it as well: a breakpoint at what is no instruction is never
//! met.

use firmware_info::{Architecture, Firmware};

use super::Debugger;

/// More of each than any firmware has.
const MOST_SITES: usize = 64;

/// So much code is looked at, of all sections together.
const MOST_CODE: u64 = 64 * 1024 * 1024;

/// Where they are, by address.
#[derive(Clone, Default)]
pub(super) struct CodeSites {
    /// They set where the vectors are.
    pub(super) base_writes: Vec<u64>,
    /// They return from an exception: `mret`, `sret`, `eret`. A 32-bit Arm core's mode tells that.
    pub(super) returns: Vec<u64>,
}

/// What an instruction is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Site {
    BaseWrite,
    Return,
}

impl Debugger {
    /// The guest is stopped, and the turn is the caller's.
    pub(super) async fn code_sites(&mut self) -> &CodeSites {
        if self.code_sites.is_none() {
            let mut all = CodeSites::default();
            let runtime = self.attachment.shared.runtime.clone();
            for found in self.elf().await.ask_each(&runtime, find).await {
                all.base_writes.extend(found.base_writes);
                all.returns.extend(found.returns);
            }
            self.code_sites = Some(all);
        }
        self.code_sites.get_or_insert_default()
    }

    /// The instructions that return from an exception, as far as the guest has them in its memory.
    #[cfg(feature = "source")]
    pub(crate) async fn exception_returns(&mut self) -> Vec<u64> {
        let Ok(_verb) = self.begin("look for returns from exceptions").await else {
            return Vec::new();
        };
        let returns = self.code_sites().await.returns.clone();
        let mut there = Vec::new();
        for address in returns {
            if self.memory(address, 4).await.is_ok() {
                there.push(address);
            }
        }
        there
    }
}

fn find(firmware: &Firmware) -> CodeSites {
    let mut found = CodeSites::default();
    let sections = firmware.sections().iter();
    let mut left = MOST_CODE;
    for section in sections.filter(|section| section.executable && section.loaded) {
        let mut code = vec![0; usize::try_from(section.size.min(left)).unwrap_or(0)];
        if !firmware.is_little_endian() || !firmware.loaded(section.address, &mut code) {
            continue;
        }
        left -= code.len() as u64;
        for (offset, site) in sites(firmware.architecture(), &code) {
            let list = match site {
                Site::BaseWrite => &mut found.base_writes,
                Site::Return => &mut found.returns,
            };
            if list.len() < MOST_SITES {
                list.push(section.address.wrapping_add(offset as u64));
            }
        }
    }
    found
}

fn sites(architecture: Architecture, code: &[u8]) -> impl Iterator<Item = (usize, Site)> + '_ {
    let halves = code.windows(4).enumerate().step_by(2);
    halves.filter_map(move |(offset, bytes)| {
        let word = u32::from_le_bytes(bytes.try_into().ok()?);
        let site = match architecture {
            Architecture::Riscv32 | Architecture::Riscv64 => risc_v(word),
            Architecture::Aarch64 => aarch64(word),
            Architecture::Arm => arm(word, offset),
            _ => None,
        };
        Some((offset, site?))
    })
}

fn risc_v(word: u32) -> Option<Site> {
    // mret, sret
    if matches!(word, 0x3020_0073 | 0x1020_0073) {
        return Some(Site::Return);
    }
    // csrrw, csrrs, csrrc and their immediates, of mtvec and stvec; reads are not.
    let (function, source, csr) = (word >> 12 & 7, word >> 15 & 31, word >> 20);
    let writes = matches!(function, 1 | 5) || function & 3 != 0 && source != 0;
    let is_write = word & 0x7f == 0x73 && writes && matches!(csr, 0x305 | 0x105);
    is_write.then_some(Site::BaseWrite)
}

fn aarch64(word: u32) -> Option<Site> {
    // eret, eretaa, eretab
    if matches!(word, 0xd69f_03e0 | 0xd69f_0bff | 0xd69f_0fff) {
        return Some(Site::Return);
    }
    // msr VBAR_EL1, VBAR_EL2, VBAR_EL3
    let is_write = matches!(word & !31, 0xd518_c000 | 0xd51c_c000 | 0xd51e_c000);
    is_write.then_some(Site::BaseWrite)
}

fn arm(word: u32, offset: usize) -> Option<Site> {
    // mcr p15, 0, Rt, c12, c0, 0 (VBAR) and c1, c0, 0 (SCTLR, whose V means high vectors)
    let thumb = word.rotate_left(16);
    let is_mcr = |word: u32| matches!(word & 0x0fff_0fff, 0x0e0c_0f10 | 0x0e01_0f10);
    let is_write = is_mcr(word) && offset.is_multiple_of(4) || is_mcr(thumb) && thumb >> 28 == 0xe;
    is_write.then_some(Site::BaseWrite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_that_move_the_vectors_and_that_come_back() {
        let check = |architecture, words: &[u32], moves: &[usize], returns: &[usize]| {
            let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            for (wanted, expected) in [(Site::BaseWrite, moves), (Site::Return, returns)] {
                let found = sites(architecture, &code).filter(|(_, site)| *site == wanted);
                let offsets: Vec<_> = found.map(|(offset, _)| offset).collect();
                assert_eq!(offsets, expected, "{architecture:?} {wanted:?}");
            }
        };
        // csrw mtvec, t0; csrr t0, mtvec; csrw mcause, t0; csrw stvec, a0; mret; sret
        let risc_v = [
            0x3052_9073,
            0x3050_22f3,
            0x3422_9073,
            0x1055_1073,
            0x3020_0073,
            0x1020_0073,
        ];
        check(Architecture::Riscv32, &risc_v, &[0, 12], &[16, 20]);
        // csrw mtvec, t0 in the middle of a word, between two compressed instructions
        check(
            Architecture::Riscv64,
            &[0x9073_0001, 0x0001_3052],
            &[2],
            &[],
        );
        // mcr p15, 0, r0, c12, c0, 0; nop; mcreq of SCTLR; mrc of the first
        check(
            Architecture::Arm,
            &[0xee0c_0f10, 0xe1a0_0000, 0x0e01_3f10, 0xee1c_0f10],
            &[0, 8],
            &[],
        );
        // nop; the same in Thumb: 0xee0c, 0x1f10
        check(Architecture::Arm, &[0xee0c_bf00, 0xbf00_1f10], &[2], &[]);
        // msr VBAR_EL1, x3; mrs x3, VBAR_EL1; msr VBAR_EL3, x0; eret
        check(
            Architecture::Aarch64,
            &[0xd518_c003, 0xd538_c003, 0xd51e_c000, 0xd69f_03e0],
            &[0, 8],
            &[12],
        );
    }
}
