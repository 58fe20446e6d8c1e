//! Instructions that wait for an interrupt or an event.
//!
//! A single step does not end after one: QEMU holds interrupts back meanwhile, so the core sleeps until
//! something is pending, and executes the next instruction in the same step, whatever breakpoint is
//! there. With all cores in one thread, as with `-icount`, the clock stands still as well, and
//! nothing ever wakes the core.

use std::time::Duration;

use tokio::time::Instant;

use super::error::DebugError;
use super::questions::Question;
use super::run::{Motion, Moved, SIGTRAP, signal};
use super::vectors::Family;
use super::wanted::breakpoint;
use super::{Debugger, Verb};

/// How long the breakpoint at such an instruction is out, at most: what runs once the core sleeps,
/// the handler of an interrupt or another core, may come to it as well.
const FALLING_ASLEEP: Duration = Duration::from_millis(5);

/// Of 16 bits, in Thumb: `yield`, `wfe` and `wfi`.
const THUMB: [u32; 3] = [0xbf10, 0xbf20, 0xbf30];
/// Of 32 bits, in Thumb by its first half.
const WIDE_THUMB: [u32; 3] = [0xf3af_8001, 0xf3af_8002, 0xf3af_8003];
const ARM: [u32; 3] = [0xe320_f001, 0xe320_f002, 0xe320_f003];
const AARCH64: [u32; 3] = [0xd503_203f, 0xd503_205f, 0xd503_207f];
const RISC_V: [u32; 1] = [0x1050_0073];

/// The longest of them, in bytes.
const LONGEST: usize = 4;

/// How an instruction that waits was left.
pub(super) enum Left {
    /// The core sleeps, or has gone on, and is here now.
    At(u64),
    /// Something else came of it.
    Otherwise(Moved),
}

impl Debugger {
    /// What comes after the instruction that is to be stepped over, if it is one that waits.
    pub(super) async fn wait_to_step(&self) -> Result<Option<u64>, DebugError> {
        // In one question where it is still where it was seen last, as it is from step to step.
        let questions = [self.pc_question()?, Question::Memory(self.seen, LONGEST)];
        match self.ask_all(&questions).await {
            Ok(mut read) => {
                let code = read.pop().unwrap_or_default();
                let pc = self.number(questions[0], read.pop().unwrap_or_default())?;
                match pc == self.seen {
                    true => self.wait_in(pc, &code).await,
                    false => self.after_wait(pc).await,
                }
            }
            Err(DebugError::NoMemory { .. } | DebugError::Guarded { .. }) => {
                self.after_wait(self.pc().await?).await
            }
            Err(error) => Err(error),
        }
    }

    /// What comes after the instruction here, if it is one that waits.
    pub(super) async fn after_wait(&self, pc: u64) -> Result<Option<u64>, DebugError> {
        match self.memory(pc, LONGEST).await {
            Ok(code) => self.wait_in(pc, &code).await,
            // At the end of the memory, or nowhere.
            Err(DebugError::NoMemory { .. } | DebugError::Guarded { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same by the code here.
    async fn wait_in(&self, pc: u64, code: &[u8]) -> Result<Option<u64>, DebugError> {
        let Some(family) = self.family() else {
            return Ok(None);
        };
        let &[a, b, c, d] = code else {
            return Ok(None);
        };
        // Code is little-endian.
        let word = u32::from_le_bytes([a, b, c, d]);
        let [first, second] = [word & 0xffff, word >> 16];
        let is_wide = WIDE_THUMB.contains(&(first << 16 | second));
        let thumb = match THUMB.contains(&first) {
            true => Some(2),
            false => is_wide.then_some(4),
        };
        let arm = ARM.contains(&word).then_some(4);
        let length = match family {
            Family::CortexM => thumb,
            Family::Arm if thumb.or(arm).is_none() => None,
            Family::Arm if self.is_thumb().await? => thumb,
            Family::Arm => arm,
            Family::Aarch64 => AARCH64.contains(&word).then_some(4),
            Family::RiscV => RISC_V.contains(&word).then_some(4),
        };
        Ok(length.map(|length| pc.wrapping_add(length)))
    }

    /// Leaves an instruction that waits, at which there is a breakpoint: the core runs without that
    /// one until it sleeps or comes to what is `next`. All other breakpoints are met meanwhile.
    pub(super) async fn leave_wait(
        &mut self,
        pc: u64,
        next: u64,
        at: Instant,
        verb: &mut Verb,
    ) -> Result<Left, DebugError> {
        let [here, next_one] = [pc, next].map(breakpoint);
        let is_wanted = self.attachment.stub.state().points.contains(&next_one);
        let mut questions = vec![Question::Remove(here)];
        questions.extend(self.inserts([next_one]));
        self.ask_all(&questions).await?;
        self.attachment.stub.state().moves();
        let asleep = Instant::now() + FALLING_ASLEEP;
        let moved = self.advance(Motion::RunAlone, at.min(asleep), verb).await?;
        if let Moved::Ended(_) = moved {
            return Ok(Left::Otherwise(moved));
        }
        let mut questions = vec![self.pc_question()?, Question::Insert(here)];
        if !is_wanted {
            questions.push(Question::Remove(next_one));
        }
        let mut read = self.ask_all(&questions).await?;
        let now = self.number(questions[0], read.swap_remove(0))?;
        let is_left = match &moved {
            Moved::DeadlinePassed => Instant::now() < at,
            Moved::Stopped(reply) => signal(reply) == SIGTRAP && now == next,
            Moved::Ended(_) => false,
        };
        Ok(match is_left {
            true => Left::At(now),
            false => Left::Otherwise(moved),
        })
    }
}
