//! Who is shown a watched guest at the moments after which there may be nothing left to see.

use std::future::Future;

use super::report::CoreReport;
use crate::debug::Debugger;
use crate::session::Session;

/// What the guest, which is stopped, is about to do.
#[cfg_attr(
    not(feature = "bundle"),
    expect(dead_code, reason = "then nobody is there to be shown it")
)]
pub(crate) enum Sight<'a> {
    /// To run the first instruction of a fault's handler, or of a function that panics come to.
    Cause(&'a CoreReport),
    /// To make a semihosting call, which may be its exit.
    Call,
    /// Whatever it did at the deadline.
    Deadline,
}

/// Is shown the guest; it goes on afterwards.
pub(crate) trait Witness: Send {
    /// Whether semihosting calls are to be shown: each costs a stop.
    fn wants_calls(&self) -> bool;

    fn sees(
        &mut self,
        session: &Session,
        debugger: &mut Debugger,
        sight: Sight<'_>,
    ) -> impl Future<Output = ()> + Send;
}

/// Nobody.
impl Witness for () {
    fn wants_calls(&self) -> bool {
        false
    }

    async fn sees(&mut self, _: &Session, _: &mut Debugger, _: Sight<'_>) {}
}
