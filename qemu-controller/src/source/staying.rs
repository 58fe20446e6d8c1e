//! Whether a core that took a fault or panicked stays there: a loop that changes no register.

use std::time::Duration;

use tokio::time::Instant;

use super::report::CoreReport;
use crate::debug::{Debugger, Registers};

/// How long after a fault, and how often, it is looked whether the core still does the same.
pub(crate) const SAMPLE: Duration = Duration::from_millis(50);

/// So many faults, each of the handler of the one before, have no end.
const ENDLESS: u32 = 20;

/// A stack that has grown by more than this is another one.
const FAR: u32 = 64 * 1024;

/// So many samples must be the same.
const SAME: u32 = 3;

/// A core that took a fault or panicked, as it was when it was last looked at.
pub(crate) struct Staying {
    /// As it took the fault, or panicked.
    at_first: Option<Registers>,
    last: Option<Registers>,
    same: u32,
    sampled: Instant,
    /// It has executed a return from an exception since.
    has_returned: bool,
    /// How many faults before this one had a handler that took the next.
    nested: u32,
    /// The stack pointer as it panicked; a function that has returned is above it.
    panicked_at: Option<u64>,
}

/// The last fault or panic that a core took, as long as it is not seen to have come back from it.
#[derive(Default)]
pub(crate) struct Trouble {
    /// As it was looked at.
    pub(crate) report: Option<Box<CoreReport>>,
    pub(crate) staying: Option<Staying>,
    /// The instructions that return from an exception, once they were looked for.
    pub(crate) returns: Option<Vec<u64>>,
}

impl Trouble {
    /// Whether a core is at an instruction that returns from an exception; of one that may stay this
    /// is noted.
    pub(crate) fn is_return(&mut self, pc: u64) -> bool {
        let returns = self.returns.as_ref();
        let is_one = returns.is_some_and(|returns| returns.contains(&pc));
        if let Some(staying) = self.staying.as_mut().filter(|_| is_one) {
            staying.has_returned = true;
        }
        is_one
    }

    /// Whether the fault that this core has just taken is one of the handler of the last: that one is
    /// why, and this is noted there.
    pub(crate) fn nests(&mut self, core: usize, now: Option<&Registers>, fault: &str) -> bool {
        let (Some(staying), Some(report), Some(now)) = (&mut self.staying, &mut self.report, now)
        else {
            return false;
        };
        // Where no return is known, it may have returned.
        let knows_returns = self.returns.as_ref().is_some_and(|all| !all.is_empty());
        let nests = knows_returns && report.core.number == core && staying.is_of_its_handler(now);
        if let Some(known) = report.fault.as_mut().filter(|_| nests) {
            let words = || format!("its handler has taken a fault itself: {fault}");
            known.words.escalation.get_or_insert_with(words);
            staying.at_first = Some(now.clone());
            staying.nested += 1;
        }
        nests
    }

    /// Whether its handlers take faults without an end.
    pub(crate) fn is_endless(&self) -> bool {
        let staying = self.staying.as_ref();
        staying.is_some_and(|staying| staying.nested >= ENDLESS)
    }

    /// Whether it is time to look at a core that took the same fault again; not at each of a
    /// thousand a second.
    pub(crate) fn is_due_again(&mut self) -> bool {
        let Some(staying) = &mut self.staying else {
            return false;
        };
        staying.has_returned = false;
        staying.is_due()
    }

    /// Whether a stopped core has done nothing for some samples, in the handler still. One that is
    /// held up by who takes its output does nothing, and has not come to stay.
    pub(crate) async fn stays(&mut self, debugger: &mut Debugger, is_held_up: bool) -> bool {
        let (Ok(now), Some(staying)) = (debugger.read_registers().await, &mut self.staying) else {
            return false;
        };
        let sampled = staying.sample(now, is_held_up);
        if sampled == Sampled::Left {
            // What it ends by later is something else.
            (self.staying, self.report) = (None, None);
        }
        sampled == Sampled::Stays
    }
}

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sampled {
    /// It has come back from there.
    Left,
    /// It does something there, or it cannot be told yet.
    Working,
    /// It has done nothing for some samples.
    Stays,
}

impl Staying {
    /// Of a core that has just taken a fault, or panicked.
    pub(crate) fn new(at_first: Option<Registers>, is_panic: bool) -> Self {
        let registers = at_first.as_ref().filter(|_| is_panic);
        Self {
            panicked_at: registers.and_then(|registers| registers.get("sp")),
            at_first,
            last: None,
            same: 0,
            sampled: Instant::now(),
            has_returned: false,
            nested: 0,
        }
    }

    /// Whether a fault that a core has just taken is one of this one's handler: it has not returned,
    /// and its stack has grown. A Cortex-M locks up instead.
    fn is_of_its_handler(&self, now: &Registers) -> bool {
        if self.has_returned || self.panicked_at.is_some() || is_in_handler(now).is_some() {
            return false;
        }
        let before = self.at_first.as_ref().and_then(|before| before.get("sp"));
        before.zip(now.get("sp")).is_some_and(|(before, now)| {
            // Of 32 bit, it may have come by 0.
            (1..=FAR).contains(&(before.wrapping_sub(now) as u32))
        })
    }

    /// Whether it is where it was at first, with the same registers: a function that is a loop of a
    /// single instruction is met again and again, and so is a handler that comes back to what
    /// faulted, or that is nowhere.
    pub(crate) fn is_again(&self, now: &Registers) -> bool {
        let before = self.at_first.as_ref();
        before.is_some_and(|before| is_same(before, now))
    }

    /// Whether it is time for a sample.
    fn is_due(&self) -> bool {
        self.sampled.elapsed() >= SAMPLE
    }

    /// Looks at it once more.
    fn sample(&mut self, now: Registers, is_held_up: bool) -> Sampled {
        let is_in = match self.panicked_at {
            Some(sp) => now.get("sp").is_some_and(|now| now <= sp),
            None => is_in_handler(&now).unwrap_or(!self.has_returned),
        };
        if !is_in {
            return Sampled::Left;
        }
        let is_same = self.last.as_ref().is_some_and(|last| is_same(last, &now));
        self.same = if is_same && !is_held_up {
            self.same + 1
        } else {
            0
        };
        self.last = Some(now);
        self.sampled = Instant::now();
        match self.same + 1 >= SAME {
            true => Sampled::Stays,
            false => Sampled::Working,
        }
    }
}

/// Whether a core is in a fault's handler; `None` of one whose registers do not say that (RISC-V,
/// AArch64).
pub(crate) fn is_in_handler(now: &Registers) -> Option<bool> {
    match (now.get("xpsr"), now.get("cpsr")) {
        (Some(xpsr), _) => Some(matches!(xpsr & 0x1ff, 3..=7)),
        // The modes of aborts and of undefined instructions; bit 4 says 32 bit.
        (_, Some(cpsr)) if cpsr & 0x10 != 0 => Some(matches!(cpsr & 0x1f, 0x17 | 0x1b)),
        _ => None,
    }
}

/// All but where exactly in its loop it is.
fn is_same(last: &Registers, now: &Registers) -> bool {
    now.names()
        .filter(|name| !matches!(*name, "pc" | "xpsr" | "cpsr"))
        .all(|name| last.bytes(name) == now.bytes(name))
}
