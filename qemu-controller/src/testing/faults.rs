//! A test that takes a fault: it is looked at as it happens, and the test is ended where it stays in
//! the handler. One that handles its fault runs on.

use tokio::time::Instant;

use crate::debug::{Cause, Debugger};
use crate::semihosting::{Host, HostError};
use crate::source::report::CoreReport;
use crate::source::staying::{SAMPLE, Sampled, Staying, is_in_handler};

/// A test that takes more faults than this makes a use of them: they are not looked at any more.
const LOOKS: u32 = 20;

/// The faults of one test.
#[derive(Default)]
pub(super) struct FaultWatch {
    last: Option<Box<CoreReport>>,
    staying: Option<Staying>,
    looks: u32,
    /// The instructions that return from an exception, of a core whose registers do not say that it
    /// is in one; once there was a fault.
    returns: Option<Vec<u64>>,
}

impl FaultWatch {
    /// When it is to be looked whether the test stays in a handler, at the latest.
    pub(super) fn next_look(&self, until: Instant) -> Instant {
        match self.staying {
            Some(_) => until.min(Instant::now() + SAMPLE),
            None => until,
        }
    }

    /// The test is at the first instruction of a handler. True if it stays there.
    pub(super) async fn at_handler(&mut self, host: &mut Host) -> bool {
        let debugger = host.debugger();
        let Some(fault) = debugger.fault_taken().await else {
            // Another exception, or a call.
            return false;
        };
        let now = debugger.read_registers().await.ok();
        if let Some((staying, now)) = self.staying.as_mut().zip(now.as_ref())
            && staying.is_again(now)
        {
            staying.has_returned = false;
            return staying.is_due() && self.stays(debugger).await;
        }
        if self.returns.is_none() && now.as_ref().and_then(is_in_handler).is_none() {
            let returns = debugger.exception_returns().await;
            host.stop_at(returns.iter().copied());
            self.returns = Some(returns);
        }
        self.staying = Some(Staying::new(now, false));
        self.looks += 1;
        self.last = None;
        if self.looks <= LOOKS {
            let (fault, panic) = (Some(fault.name), None);
            let report = host.debugger().report_of_stop(Cause { fault, panic }).await;
            self.last = report.ok().map(Box::new);
        }
        false
    }

    /// Whether the test is about to return from an exception, which is noted.
    pub(super) fn is_return(&mut self, pc: u64) -> bool {
        Staying::is_return(&mut self.staying, self.returns.as_deref(), pc)
    }

    /// Leaves the host as it was.
    pub(super) async fn end(self, host: &mut Host) -> Result<(), HostError> {
        match self.returns {
            Some(returns) => host.pass(&returns).await,
            None => Ok(()),
        }
    }

    /// Whether a stopped test has done nothing for some samples, in the handler still.
    pub(super) async fn stays(&mut self, debugger: &mut Debugger) -> bool {
        let Some(staying) = &mut self.staying else {
            return false;
        };
        let Ok(now) = debugger.read_registers().await else {
            return false;
        };
        match staying.sample(now, false) {
            Sampled::Left => {
                // What it ends by later is something else.
                (self.staying, self.last) = (None, None);
                false
            }
            Sampled::Working => false,
            Sampled::Stays => true,
        }
    }

    /// The fault that was looked at last.
    pub(super) fn latest(&self) -> Option<&CoreReport> {
        self.last.as_deref()
    }

    /// The last fault, where the test did not come back from it as far as that was seen.
    pub(super) fn last(&mut self) -> Option<Box<CoreReport>> {
        self.last.take()
    }
}
