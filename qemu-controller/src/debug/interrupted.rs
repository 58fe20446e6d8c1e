//! What the code that faulted had in its registers, where the core keeps that in registers and
//! pushes no frame. Known at the first instruction of the fault's handler.
//!
//! | core | where from |
//! |---|---|
//! | RISC-V | mepc or sepc; nothing else has changed |
//! | AArch64 | ELR of the level, and the stack pointer that SPSR says |
//! | Arm, 32 bit | LR of the handler's mode; SP and LR of the mode before |
//!
//! Before which mode an Arm core was is in SPSR, which no stub tells, and its SP and LR are seen
//! only by a core in that mode. So the modes are tried, by CPSR, and the one counts whose stack can
//! be unwound.

use firmware_info::{Architecture, Registers};
use gdb_remote::target::Register;

use super::error::DebugError;
use super::vectors::{is_machine_mode, level_of};
use super::{Debugger, Verb, registers as encoding};

/// The modes whose SP and LR an Arm core keeps apart: SVC, in which it starts; SYS, which is the
/// user's as well; IRQ; FIQ; undefined; abort.
const ARM_MODES: [u64; 6] = [0x13, 0x1f, 0x12, 0x11, 0x1b, 0x17];

impl Debugger {
    /// One or more that it may have been, the likeliest first; none where it is not known, or where
    /// a frame on the stack has them.
    pub(super) async fn interrupted(
        &self,
        architecture: Architecture,
        now: &Registers,
        fault: &str,
        verb: &mut Verb,
    ) -> Result<Vec<Registers>, DebugError> {
        Ok(match architecture {
            Architecture::Riscv32 | Architecture::Riscv64 => {
                let name = match self.is_machine_mode().await? {
                    true => "mepc",
                    false => "sepc",
                };
                let pc = self.system_register(name).await?;
                let before = pc.and_then(|pc| Some(Registers::riscv(pc, numbered(now)?)));
                before.into_iter().collect()
            }
            Architecture::Aarch64 => {
                let before = self.before_level(now).await?;
                before.into_iter().collect()
            }
            Architecture::Arm if now.xpsr.is_none() => self.before_mode(now, fault, verb).await?,
            _ => Vec::new(),
        })
    }

    /// Of a RISC-V core; else it is supervisor mode.
    pub(super) async fn is_machine_mode(&self) -> Result<bool, DebugError> {
        Ok(is_machine_mode(self.system_register("priv").await?))
    }

    /// Of a 64 bit A profile.
    pub(super) async fn exception_level(&self) -> Result<u64, DebugError> {
        Ok(level_of(self.system_register("cpsr").await?))
    }

    async fn before_level(&self, now: &Registers) -> Result<Option<Registers>, DebugError> {
        let level = self.exception_level().await?;
        let pc = self.system_register(&format!("ELR_EL{level}")).await?;
        let state = self.system_register(&format!("SPSR_EL{level}")).await?;
        let (Some(pc), Some(state)) = (pc, state) else {
            return Ok(None);
        };
        let sp = match (state >> 2 & 3, state & 1) {
            (_, 0) => self.system_register("SP_EL0").await?,
            // The one that it uses now: what the stub has under its name is not kept up.
            (before, _) if before == level => now.get(31),
            (before, _) => self.system_register(&format!("SP_EL{before}")).await?,
        };
        Ok(sp
            .zip(numbered(now))
            .map(|(sp, x)| Registers::aarch64(pc, sp, x)))
    }

    async fn before_mode(
        &self,
        now: &Registers,
        fault: &str,
        verb: &mut Verb,
    ) -> Result<Vec<Registers>, DebugError> {
        let (Some(lr), Some(mut r)) = (now.get(14), numbered(now)) else {
            return Ok(Vec::new());
        };
        let symbol = self.session.place(lr).await.map(|place| place.symbol);
        let back = match fault {
            "data abort" => 8,
            "undefined instruction" if symbol.is_some_and(|symbol| symbol.thumb) => 2,
            _ => 4,
        };
        let pc = lr.wrapping_sub(back) & 0xffff_ffff;
        let cpsr = self.register("cpsr")?.clone();
        let state = self.value(&cpsr).await?;
        let big_endian = self.attachment.big_endian;
        let kept = encoding::encode(state, &cpsr, big_endian).unwrap_or_default();
        self.attachment.stub.state().put_back = Some((cpsr.number, kept));
        // Dropped in between, the core is put back as well.
        verb.is_unfinished = true;
        let mut before = Vec::new();
        for mode in ARM_MODES.into_iter().filter(|mode| *mode != state & 0x1f) {
            self.set_mode(&cpsr, state & !0x1f | mode).await?;
            for (number, name) in [(13, "sp"), (14, "lr")] {
                r[number] = self.system_register(name).await?.unwrap_or_default();
            }
            r[15] = pc;
            before.push(Registers::arm(r.map(|value| value as u32)));
        }
        self.attachment.put_back(self.session.deadline).await?;
        verb.is_unfinished = false;
        Ok(before)
    }

    async fn set_mode(&self, cpsr: &Register, state: u64) -> Result<(), DebugError> {
        let bytes = encoding::encode(state, cpsr, self.attachment.big_endian);
        let bytes = bytes.unwrap_or_default();
        self.ask("writing a register", |client| {
            client.write_register(cpsr.number, &bytes)
        })
        .await
        .map(drop)
    }
}

/// The general registers, by DWARF's numbers.
fn numbered<const COUNT: usize>(registers: &Registers) -> Option<[u64; COUNT]> {
    let mut values = [0; COUNT];
    for (number, value) in (0..).zip(&mut values) {
        *value = registers.get(number)?;
    }
    Some(values)
}
