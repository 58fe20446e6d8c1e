//! Fault status registers in words: what happened, at which address, and what it was escalated
//! from.

use std::fmt;

mod armv7;
mod armv8;
mod cortex_m;
mod m68k;
mod mips;
mod riscv;
mod xtensa;

pub use armv7::{armv7_data_abort, armv7_prefetch_abort};
pub use armv8::armv8_exception;
pub use cortex_m::{CortexMFaults, cortex_m_fault};
pub use m68k::m68k_exception;
pub use mips::mips_exception;
pub use riscv::riscv_trap;
pub use xtensa::xtensa_exception;

/// A fault in words. Displayed as one line, `UsageFault: a division by zero (DIVBYZERO); HardFault,
/// since …`; with `{:#}` as a report of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultReport {
    /// What happened: one line for each bit that is set, as the registers hold what came before too
    /// until somebody clears them. Empty where the registers tell of no fault.
    pub causes: Vec<Cause>,
    /// The address of the access, where the registers hold it.
    pub address: Option<u64>,
    /// Why it became a HardFault instead.
    pub escalation: Option<String>,
    /// What else the registers say.
    pub notes: Vec<String>,
    /// The registers it was read from, by name.
    pub registers: Vec<(&'static str, u64)>,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cause {
    /// The exception: `UsageFault`, `data abort`, `exception`.
    pub exception: &'static str,
    /// The architecture's name for the bit or the code: `DIVBYZERO`.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

impl Cause {
    /// For what the registers do not say.
    #[must_use]
    pub fn new(exception: &'static str, name: &'static str, meaning: &'static str) -> Self {
        Self {
            exception,
            name,
            meaning,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.exception, self.meaning, self.name)
    }
}

impl FaultReport {
    /// Each cause, the one that the address is of with it; or that there is none. One at least.
    #[must_use]
    pub fn causes_in_words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.causes.iter().map(Cause::to_string).collect();
        if words.is_empty() {
            words.push("the registers tell of no fault".to_owned());
        } else if let Some(address) = self.address {
            words[cortex_m::of_the_address(&self.causes)] += &format!(" at {address:#010x}");
        }
        words
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = f.alternate();
        let separator = if full { "\n" } else { "; " };
        let mut parts = self.causes_in_words();
        parts.extend(self.escalation.clone());
        if full {
            parts.extend(self.notes.iter().cloned());
            let registers = self.registers.iter();
            let registers = registers.map(|(name, value)| format!("{name} {value:#010x}"));
            parts.push(registers.collect::<Vec<_>>().join(", "));
        }
        f.write_str(&parts.join(separator))
    }
}
