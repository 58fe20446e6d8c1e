//! A test that takes a fault: it is looked at as it happens, and the test is ended where it stays in
//! the handler. One that handles its fault runs on.

use tokio::time::Instant;

use crate::debug::{Cause, Debugger};
use crate::semihosting::{Host, HostError};
use crate::source::report::CoreReport;
use crate::source::staying::{SAMPLE, Staying, Trouble, is_in_handler};

/// A test that takes more faults than this makes a use of them: they are not looked at any more.
const LOOKS: u32 = 20;

/// The faults of one test.
#[derive(Default)]
pub(super) struct FaultWatch {
    trouble: Trouble,
    looks: u32,
}

impl FaultWatch {
    /// When it is to be looked whether the test stays in a handler, at the latest.
    pub(super) fn next_look(&self, until: Instant) -> Instant {
        match self.trouble.staying {
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
        if let Some((staying, now)) = self.trouble.staying.as_ref().zip(now.as_ref())
            && staying.is_again(now)
        {
            return self.trouble.is_due_again() && self.stays(debugger).await;
        }
        // Of a core whose registers do not say that it is in a handler.
        if self.trouble.returns.is_none() && now.as_ref().and_then(is_in_handler).is_none() {
            let returns = debugger.exception_returns().await;
            host.stop_at(returns.iter().copied());
            self.trouble.returns = Some(returns);
        }
        self.trouble.staying = Some(Staying::new(now, false));
        self.looks += 1;
        self.trouble.report = None;
        if self.looks <= LOOKS {
            let (fault, panic) = (Some(fault.name), None);
            let report = host.debugger().report_of_stop(Cause { fault, panic }).await;
            self.trouble.report = report.ok().map(Box::new);
        }
        false
    }

    /// Whether the test is about to return from an exception, which is noted.
    pub(super) fn is_return(&mut self, pc: u64) -> bool {
        self.trouble.is_return(pc)
    }

    /// Leaves the host as it was.
    pub(super) async fn end(self, host: &mut Host) -> Result<(), HostError> {
        match self.trouble.returns {
            Some(returns) => host.pass(&returns).await,
            None => Ok(()),
        }
    }

    /// Whether a stopped test has done nothing for some samples, in the handler still.
    pub(super) async fn stays(&mut self, debugger: &mut Debugger) -> bool {
        self.trouble.stays(debugger, false).await
    }

    /// The fault that was looked at last.
    pub(super) fn latest(&self) -> Option<&CoreReport> {
        self.trouble.report.as_deref()
    }

    /// The last fault, where the test did not come back from it as far as that was seen.
    pub(super) fn last(&mut self) -> Option<Box<CoreReport>> {
        self.trouble.report.take()
    }
}
