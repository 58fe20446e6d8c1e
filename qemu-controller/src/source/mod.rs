//! The firmware's source beside the guest: backtraces, fault reports, and a run that is watched for
//! faults.

mod fault;
pub(crate) mod look;
pub(crate) mod monitor;
pub(crate) mod registers;
pub(crate) mod report;
mod run_report;
pub(crate) mod staying;
mod watch;
pub(crate) mod witness;

pub use report::{CoreFault, CoreReport, StackUse};
pub use run_report::RunReport;
