//! What one run is until, with its places found, and what counts as a hit.

use gdb_remote::client::PointKind;
use gdb_remote::reply::Access;

use super::error::DebugError;
use super::questions::Question;
use super::stub::Point;
use super::until::{StopReason, Until, What};
use super::vectors::Fault;
use super::{Debugger, panics};
use crate::guest::memory::Location;

/// One of those that were given.
pub(super) struct Wanted<'a> {
    pub(super) until: Until<'a>,
    /// Of breakpoints: where they are.
    pub(super) code: Vec<u64>,
    /// Of a watchpoint.
    pub(super) data: Option<Point>,
    pub(super) hits: u64,
    /// Of a watchpoint: what was there when it was last looked at.
    pub(super) last: Vec<u8>,
}

/// A breakpoint as the stub has it. QEMU looks at no size.
pub(super) fn breakpoint(address: u64) -> Point {
    (PointKind::Software, address, 2)
}

impl Wanted<'_> {
    pub(super) fn is_at(&self, pc: u64) -> bool {
        self.code.contains(&pc)
    }

    pub(super) fn is_for_faults(&self) -> bool {
        matches!(self.until.what, What::Fault)
    }

    /// Whether the first hit is one to stop for, whatever is read there.
    pub(super) fn is_for_each_hit(&self) -> bool {
        !self.is_for_faults() && self.until.condition.is_none() && self.until.skip == 0
    }

    pub(super) fn watches(&self, access: Access, address: u64) -> bool {
        let Some((kind, from, size)) = self.data else {
            return false;
        };
        let is_kind = match kind {
            PointKind::Write => access == Access::Write,
            PointKind::Read => access == Access::Read,
            _ => true,
        };
        is_kind && address.wrapping_sub(from) < u64::from(size)
    }
}

impl Debugger {
    /// Finds the places, and sets what is to be set there.
    pub(super) async fn find<'a>(&mut self, until: Until<'a>) -> Result<Wanted<'a>, DebugError> {
        let mut wanted = Wanted {
            code: Vec::new(),
            data: None,
            hits: 0,
            last: Vec::new(),
            until,
        };
        match wanted.until.what {
            What::Code(at) => wanted.code.push(self.code_address(at).await?),
            What::Data { kind, at, size } => {
                wanted.data = Some((kind, self.address(at).await?, size));
            }
            What::Panic => wanted.code = self.panic_functions().await?,
            // Found when the guest is stopped.
            What::Fault => {}
        }
        Ok(wanted)
    }

    async fn panic_functions(&mut self) -> Result<Vec<u64>, DebugError> {
        if self.panic_functions.is_none() {
            let found = self.session.ask_firmware(panics::functions).await;
            let found = found.map_err(|error| DebugError::Place(error.into()))?;
            let each = self.session.ask_each(panics::functions).await;
            let mut all: Vec<u64> = each.into_iter().flatten().flatten().collect();
            if all.is_empty() {
                all = found?;
            }
            self.panic_functions = Some(all);
        }
        Ok(self.panic_functions.clone().unwrap_or_default())
    }

    /// A Thumb function's address has no bit that says Thumb.
    async fn code_address(&self, at: Location<'_>) -> Result<u64, DebugError> {
        let address = self.address(at).await?;
        Ok(if self.has_thumb() {
            address & !1
        } else {
            address
        })
    }

    /// Sets them; the pc as well, which is asked with that.
    pub(super) async fn insert(&mut self, wanted: &mut [Wanted<'_>]) -> Result<u64, DebugError> {
        let questions = self.insert_questions(wanted)?;
        let mut read = self.ask_all(&questions).await?.into_iter();
        let pc = self.number(questions[0], read.next().unwrap_or_default())?;
        let watching = wanted.iter_mut().filter(|wanted| wanted.data.is_some());
        for (wanted, bytes) in watching.zip(read) {
            wanted.last = bytes;
        }
        if wanted.iter().any(Wanted::is_for_faults) {
            self.insert_faults(wanted).await?;
        }
        Ok(pc)
    }

    /// The pc, what is there to be watched, and what sets the points.
    fn insert_questions(
        &self,
        wanted: &[Wanted<'_>],
    ) -> Result<Vec<Question<'static>>, DebugError> {
        let code = wanted.iter().flat_map(|wanted| &wanted.code).copied();
        let data = wanted.iter().filter_map(|wanted| wanted.data);
        let mut questions = vec![self.pc_question()?];
        questions.extend(data.clone().map(Question::watched));
        // QEMU takes a breakpoint anywhere: one where nothing is would never be reached.
        questions.extend(code.clone().map(|address| Question::Memory(address, 2)));
        questions.extend(self.inserts(code.map(breakpoint).chain(data)));
        Ok(questions)
    }

    /// Sets breakpoints where faults go now; those that are set already stay, for a reset.
    pub(super) async fn insert_faults(
        &mut self,
        wanted: &mut [Wanted<'_>],
    ) -> Result<(), DebugError> {
        let places = self.fault_places().await?;
        let handlers = places.handlers.iter().copied().map(breakpoint);
        self.insert_points(handlers.chain(places.guards.iter().copied()))
            .await?;
        for wanted in wanted.iter_mut().filter(|wanted| wanted.is_for_faults()) {
            for &handler in &places.handlers {
                if !wanted.is_at(handler) {
                    wanted.code.push(handler);
                }
            }
        }
        self.guards.extend(places.guards);
        Ok(())
    }

    /// The watchpoints that are set.
    pub(super) fn watches(&self) -> Vec<Point> {
        let points = &self.attachment.stub.state().points;
        let watches = points
            .iter()
            .filter(|(kind, ..)| *kind != PointKind::Software);
        watches.copied().collect()
    }

    /// Whether a write there changes where faults go.
    pub(super) fn is_guard(&self, address: u64) -> bool {
        let mut guards = self.guards.iter();
        guards.any(|(kind, from, size)| {
            *kind != PointKind::Software && address.wrapping_sub(*from) < u64::from(*size)
        })
    }

    /// Whether the instruction here changes where faults go.
    pub(super) fn is_code_guard(&self, pc: u64) -> bool {
        self.guards.contains(&breakpoint(pc))
    }

    /// Of a fault's handler that goes round at its first instruction: it is not stopped there again
    /// for each round, and is left for good unless something else is waited for there.
    pub(super) async fn leave_loop(
        &self,
        wanted: &mut [Wanted<'_>],
        pc: u64,
    ) -> Result<bool, DebugError> {
        let is_other = |one: &Wanted<'_>| one.is_at(pc) && !one.is_for_faults();
        let is_fault = !wanted.iter().any(is_other);
        if !is_fault || self.fault().await?.is_none() {
            return Ok(false);
        }
        self.ask_all(&[Question::Remove(breakpoint(pc))]).await?;
        for wanted in wanted {
            wanted.code.retain(|address| *address != pc);
        }
        Ok(true)
    }

    /// Which of those at a place is to be stopped for, and why; `None` if none of them is. `fault` is
    /// the one that the guest has taken, as far as one is waited for.
    pub(super) async fn reached(
        &self,
        wanted: &mut [Wanted<'_>],
        pc: u64,
        fault: Option<Fault>,
    ) -> Result<Option<StopReason>, DebugError> {
        let mut reason = None;
        for (index, one) in wanted.iter_mut().enumerate() {
            if !one.is_at(pc) {
                continue;
            }
            let fault = fault.clone().filter(|_| one.is_for_faults());
            // Another exception has the same handler, or the program has called it.
            if one.is_for_faults() && fault.is_none() {
                continue;
            }
            // Each of them is counted, and the first is told.
            if !self.is_wanted(one).await? || reason.is_some() {
                continue;
            }
            let (hits, is_panic) = (one.hits, matches!(one.until.what, What::Panic));
            reason = Some(match fault {
                Some(fault) => StopReason::Faulted { index, hits, fault },
                None if is_panic => {
                    let place = self.session.place(pc).await;
                    let function = place.map_or(String::new(), |place| place.symbol.name);
                    StopReason::Panicked {
                        index,
                        hits,
                        function,
                    }
                }
                None => StopReason::Reached { index, hits },
            });
        }
        Ok(reason)
    }

    /// Counts a hit; whether it is one to stop for.
    pub(super) async fn is_wanted(&self, wanted: &mut Wanted<'_>) -> Result<bool, DebugError> {
        wanted.hits += 1;
        if let Some(condition) = &mut wanted.until.condition {
            let registers = self.registers().await?;
            if !condition(&registers) {
                return Ok(false);
            }
        }
        let skip = wanted.until.skip;
        wanted.until.skip = skip.saturating_sub(1);
        Ok(skip == 0)
    }
}
