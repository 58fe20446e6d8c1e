//! Breakpoints that stay set from one run to the next, for who stops thousands of times at the same
//! places: setting and taking out cost as much as a stop does.

use gdb_remote::reply::StopReply;
use tokio::time::Instant;

use super::error::DebugError;
#[cfg(feature = "tests")]
use super::questions::Question;
use super::run::{Motion, Moved, SIGINT, SIGTRAP};
use super::until::{Stop, StopReason};
use super::wanted::breakpoint;
use super::{Debugger, Registers, Verb};

/// Where a run to a standing breakpoint ended.
pub(crate) enum Arrival {
    /// At one of them, before its instruction.
    At {
        /// The address.
        pc: u64,
        /// The registers there.
        registers: Registers,
    },
    /// For another reason; no breakpoint is set any more.
    Elsewhere(Stop),
}

impl Debugger {
    /// Lets the guest run until it is about to execute one of these instructions, or until the
    /// deadline. The breakpoints stay set until a run ends for another reason, or until
    /// [`run_until`](Self::run_until) or dropping the debugger takes them out; they are in force
    /// after a load too. One at the very place where the guest is now is stepped over.
    pub(crate) async fn run_to_standing(
        &mut self,
        addresses: &[u64],
        at: Instant,
    ) -> Result<Arrival, DebugError> {
        let mut verb = self.begin_stopped("run_until").await?;
        self.insert_points(addresses.iter().copied().map(breakpoint))
            .await?;
        let mut motion = match addresses.contains(&self.pc().await?) {
            true => Motion::Step,
            false => Motion::Run,
        };
        loop {
            let reply = match self.advance(motion, at, &mut verb).await? {
                Moved::Stopped(reply) => reply,
                Moved::DeadlinePassed => {
                    return self.elsewhere(StopReason::DeadlinePassed, verb).await;
                }
                Moved::Ended(verdict) => {
                    return self.elsewhere(StopReason::Ended(verdict), verb).await;
                }
            };
            let registers = self.registers().await?;
            let pc = registers.get("pc").unwrap_or_default();
            if addresses.contains(&pc) {
                verb.done();
                return Ok(Arrival::At { pc, registers });
            }
            match reply {
                Some(StopReply::Signal {
                    signal: SIGTRAP, ..
                }) if motion == Motion::Step => {
                    motion = Motion::Run;
                }
                Some(StopReply::Signal { signal, .. }) if signal != SIGINT => {
                    return self.elsewhere(StopReason::Signal(signal), verb).await;
                }
                _ => return self.elsewhere(StopReason::Paused, verb).await,
            }
        }
    }

    /// The turn that was taken last was the caller's own, for a load into a guest that was stopped and
    /// still is: nothing is asked that only others' doings are a reason for.
    #[cfg(feature = "tests")]
    pub(crate) fn note_load(&mut self) {
        if self.turns.checked_add(1) == Some(self.count_of_turns()) {
            self.turns += 1;
        }
    }

    /// Takes some of them out.
    #[cfg(feature = "tests")]
    pub(crate) async fn remove_standing(&mut self, addresses: &[u64]) -> Result<(), DebugError> {
        let _verb = self.begin("take breakpoints out").await?;
        let points = addresses.iter().copied().map(breakpoint);
        let set = self.attachment.stub.state().points.clone();
        let set = points.filter(|point| set.contains(point));
        self.ask_all(&set.map(Question::Remove).collect::<Vec<_>>())
            .await?;
        Ok(())
    }

    async fn elsewhere(&mut self, reason: StopReason, verb: Verb) -> Result<Arrival, DebugError> {
        let stop = self.end(reason, None).await?;
        verb.done();
        Ok(Arrival::Elsewhere(stop))
    }
}
