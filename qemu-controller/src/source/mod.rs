//! The firmware's source beside the guest: backtraces, fault reports, and a run that is watched for
//! faults.

pub(crate) mod look;
pub(crate) mod monitor;
pub(crate) mod registers;
pub(crate) mod report;
pub(crate) mod staying;
mod watch;
pub(crate) mod witness;

pub use report::{CoreFault, CoreReport, StackUse};
pub use watch::RunReport;
