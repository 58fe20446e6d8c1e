//! Steps: one instruction, over a call, out of a function, to an address.

use std::time::Duration;

use super::error::DebugError;
use super::questions::SP;
use super::run::{Motion, Moved, SIGINT, signal};
use super::until::{Stop, StopReason, Until};
use super::vectors::Family;
use super::wanted::breakpoint;
use super::{Debugger, registers};
use crate::client::command::instant_after;

/// The longest instruction of any architecture, in bytes.
const LONGEST_INSTRUCTION: u64 = 16;

impl Debugger {
    /// Lets the guest execute one instruction. QEMU holds interrupts and timers back meanwhile, but
    /// for an instruction that waits for one (`wfi`, `wfe`, of Arm and RISC-V): it is left when the
    /// guest comes to the next one, woken, and with the interrupt handled if it is not masked.
    ///
    /// # Errors
    /// [`DebugError`]; [`DebugError::Running`] where the guest runs. An instruction that does not
    /// end within the session's deadline (nothing has woken it) is a
    /// [`StopReason::DeadlinePassed`].
    pub async fn step_instruction(&mut self) -> Result<Stop, DebugError> {
        let at = instant_after(self.session.deadline);
        let mut verb = self.begin("step").await?;
        let waits = self.wait_to_step().await?;
        verb.is_unfinished = true;
        let motion = match waits {
            Some(next) => {
                self.insert_points([breakpoint(next)]).await?;
                Motion::RunAlone
            }
            None => Motion::Step,
        };
        let reason = match self.advance(motion, at, &mut verb).await? {
            Moved::Stopped(reply) if signal(&reply) == SIGINT => StopReason::Paused,
            Moved::Stopped(_) => StopReason::Stepped,
            Moved::DeadlinePassed => StopReason::DeadlinePassed,
            Moved::Ended(verdict) => StopReason::Ended(verdict),
        };
        let stop = self.end(reason, None).await?;
        verb.done();
        Ok(stop)
    }

    /// As [`step_instruction`](Self::step_instruction), but a call is run until it returns, or
    /// until the deadline.
    ///
    /// # Errors
    /// [`DebugError`].
    pub async fn step_over(&mut self, deadline: Duration) -> Result<Stop, DebugError> {
        let verb = self.begin("step").await?;
        let (before, sp) = (self.pc().await?, self.sp().await?);
        let length = self.instruction_length(before).await?;
        drop(verb);
        let stop = self.step_instruction().await?;
        let (StopReason::Stepped, Some(after)) = (&stop.reason, stop.pc) else {
            return Ok(stop);
        };
        let verb = self.begin("step").await?;
        let back = self.return_address().await?;
        drop(verb);
        let is_call = match length {
            Some(length) => back == before.wrapping_add(length),
            // A call has put the next instruction's address onto the stack.
            None => (1..=LONGEST_INSTRUCTION).contains(&back.wrapping_sub(before)),
        };
        if !is_call || after == back {
            return Ok(stop);
        }
        let stop = self.run_to_frame(back, sp, deadline).await?;
        Ok(stepped(stop))
    }

    /// Runs until the function that the guest has just entered returns, or until the deadline.
    ///
    /// # Errors
    /// [`DebugError`]; [`DebugError::NotAtEntry`] anywhere but at a function's first instruction,
    /// the one place where its return address is known without unwinding.
    pub async fn finish(&mut self, deadline: Duration) -> Result<Stop, DebugError> {
        let verb = self.begin("finish").await?;
        let pc = self.pc().await?;
        let place = self.session.place(pc).await;
        if place.as_ref().is_none_or(|place| place.offset != 0) {
            let here = place.map_or(format!("{pc:#x}"), |place| place.to_string());
            return Err(DebugError::NotAtEntry(here));
        }
        let (back, sp) = (self.return_address().await?, self.sp().await?);
        drop(verb);
        let stop = self.run_to_frame(back, sp, deadline).await?;
        Ok(stepped(stop))
    }

    /// Runs until an address is reached, or until the deadline.
    ///
    /// # Errors
    /// [`DebugError`].
    pub async fn run_to(&mut self, address: u64, deadline: Duration) -> Result<Stop, DebugError> {
        self.run_until([Until::reaches(address)], deadline).await
    }

    /// Runs to an address in the frame of this stack pointer or an outer one: not in a recursive
    /// call.
    async fn run_to_frame(
        &mut self,
        address: u64,
        sp: u64,
        deadline: Duration,
    ) -> Result<Stop, DebugError> {
        let name = self.register_of(&SP)?.name.clone();
        let here = Until::reaches(address)
            .when(move |registers| registers.get(&name).is_none_or(|now| now >= sp));
        self.run_until([here], deadline).await
    }

    /// The address in the link register, or on top of the stack.
    async fn return_address(&self) -> Result<u64, DebugError> {
        if let Ok(link) = self.register_of(&["lr", "ra", "x30"]) {
            let value = self.value(link).await?;
            return Ok(if self.has_thumb() { value & !1 } else { value });
        }
        let sp = self.register_of(&SP)?;
        let top = self.value(sp).await?;
        let word = self.memory(top, sp.bits.div_ceil(8) as usize).await?;
        Ok(registers::number(&word, self.attachment.big_endian).unwrap_or_default())
    }

    /// The length of the instruction at an address, where its first bytes show it.
    async fn instruction_length(&self, address: u64) -> Result<Option<u64>, DebugError> {
        let first = self.memory(address, 2).await?;
        let first = registers::number(&first, self.attachment.big_endian).unwrap_or_default();
        Ok(match self.family() {
            Some(Family::Aarch64) => Some(4),
            Some(Family::Arm | Family::CortexM) if self.is_thumb().await? => {
                Some(if first >> 11 >= 0b11101 { 4 } else { 2 })
            }
            Some(Family::Arm | Family::CortexM) => Some(4),
            Some(Family::RiscV) => Some(if first & 3 == 3 { 4 } else { 2 }),
            // A call and its delay slot.
            None if self.attachment.arch.starts_with("mips") => Some(8),
            None => None,
        })
    }

    pub(super) async fn is_thumb(&self) -> Result<bool, DebugError> {
        match self.register("cpsr") {
            Ok(cpsr) => Ok(self.value(cpsr).await? >> 5 & 1 == 1),
            // The M profile knows nothing else.
            Err(_) => Ok(true),
        }
    }
}

/// What was reached is where the step was to end.
fn stepped(stop: Stop) -> Stop {
    match stop.reason {
        StopReason::Reached { .. } => Stop {
            reason: StopReason::Stepped,
            ..stop
        },
        _ => stop,
    }
}
