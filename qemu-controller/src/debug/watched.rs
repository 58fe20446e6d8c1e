//! A hit of a watchpoint: the access is let pass, and what was there before and after it is told.

use gdb_remote::reply::Access;
use tokio::time::Instant;

use super::error::DebugError;
use super::questions::Question;
use super::run::{Motion, Moved, SIGTRAP};
use super::stub::Point;
use super::until::StopReason;
use super::wanted::Wanted;
use super::{Debugger, Verb};

/// QEMU's targets whose watchpoints stop after the access; those of all others stop before.
const STOPS_AFTER: [&str; 7] = [
    "i386", "x86_64", "s390x", "sparc", "sparc64", "m68k", "alpha",
];

impl Debugger {
    /// Lets the access be done, and tells what it did, if it is one to stop for; the pc as well,
    /// where that was read.
    pub(super) async fn watched(
        &mut self,
        wanted: &mut [Wanted<'_>],
        access: Access,
        address: u64,
        at: Instant,
        verb: &mut Verb,
    ) -> Result<Option<(StopReason, Option<u64>)>, DebugError> {
        let is_guard = self.is_guard(address);
        let watching: Vec<(usize, Point)> = wanted
            .iter()
            .enumerate()
            .filter(|(_, one)| one.watches(access, address))
            .filter_map(|(index, one)| Some((index, one.data?)))
            .collect();
        if watching.is_empty() && !is_guard {
            return Ok(Some((StopReason::Signal(SIGTRAP), None)));
        }
        let mut told = None;
        for &(index, point) in &watching {
            // Each of them is counted, and the first is told.
            if self.is_wanted(&mut wanted[index]).await? {
                told = told.or(Some((index, point)));
            }
        }
        let mut old = Vec::new();
        if self.stops_after() {
            old = told.map_or(old, |(index, _)| wanted[index].last.clone());
        } else {
            // They are taken out, to let the access pass.
            let watches = self.watches();
            let mut questions: Vec<_> = told.iter().map(|told| Question::watched(told.1)).collect();
            questions.extend(watches.iter().copied().map(Question::Remove));
            let read = self.ask_all(&questions).await?;
            match self.advance(Motion::Step, at, verb).await? {
                Moved::Stopped(_) => {}
                Moved::DeadlinePassed => return Ok(Some((StopReason::DeadlinePassed, None))),
                Moved::Ended(verdict) => return Ok(Some((StopReason::Ended(verdict), None))),
            }
            match told {
                Some(_) => old = read.into_iter().next().unwrap_or_default(),
                None => self.insert_points(watches).await?,
            }
        }
        if let Some((index, point)) = told {
            let pc = self.pc_question()?;
            let mut read = self.ask_all(&[pc, Question::watched(point)]).await?;
            let new = read.pop().unwrap_or_default();
            let pc = self.number(pc, read.pop().unwrap_or_default())?;
            let reason = StopReason::Watched {
                index,
                hits: wanted[index].hits,
                access,
                address,
                old,
                new,
            };
            return Ok(Some((reason, Some(pc))));
        }
        if is_guard {
            self.insert_faults(wanted).await?;
        }
        if self.stops_after() {
            for (index, point) in watching {
                wanted[index].last = self.ask_one(Question::watched(point)).await?;
            }
        }
        Ok(None)
    }

    fn stops_after(&self) -> bool {
        STOPS_AFTER.contains(&self.attachment.arch.as_str())
    }
}
