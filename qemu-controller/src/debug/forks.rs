//! Forks of a guest that is being debugged, each with a debugger of its own.

use super::error::DebugError;
use super::{Debugger, Session};

impl Debugger {
    /// [Forks](Session::fork) the guest where it is now, each fork with a debugger: none has
    /// executed an instruction, so the breakpoints that it is given by
    /// [`run_until`](Self::run_until) are met from the first one on. This guest stays where it is,
    /// and breakpoints are each machine's own.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use qemu_controller::debug::{Debugger, Until};
    /// # async fn example(mut debugger: Debugger) -> Result<(), Box<dyn std::error::Error>> {
    /// for (case, (_session, mut fork)) in debugger.fork(3).await?.into_iter().enumerate() {
    ///     fork.write_register("r0", case as u64).await?;
    ///     println!("{}", fork.run_until([Until::reaches("fail")], Duration::from_secs(5)).await?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`DebugError::Running`] where the guest runs; [`DebugError::Fork`]. No fork is left then, as
    /// none is when this future is dropped.
    pub async fn fork(&mut self, count: usize) -> Result<Vec<(Session, Self)>, DebugError> {
        drop(self.begin("fork").await?);
        let forks = self.session.fork(count).await;
        let forks = forks.map_err(|error| DebugError::Fork(Box::new(error)))?;
        let mut debugged = Vec::with_capacity(count);
        for fork in forks {
            let debugger = fork.debugger().await?;
            debugged.push((fork, debugger));
        }
        Ok(debugged)
    }
}
