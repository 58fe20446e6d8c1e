//! One boot for many test cases: each begins in the same state.

use std::sync::Arc;

use qmp_proto::Command as _;
use qmp_proto::commands::SnapshotLoad;

use super::error::SnapshotError;
use super::load::{AfterLoad, Options, load};
use super::name;
use super::save::save;
use crate::client::transaction::Transaction;
use crate::session::Session;

impl Session {
    /// Runs a test case on a machine in the state `name`: the first call with a name saves the
    /// state as it is, each later one restores it first, run state included. So the machine boots
    /// once, and no case sees what another did. What the guest had printed before a restore and
    /// nobody had read is dropped.
    ///
    /// ```no_run
    /// # async fn example(session: qemu_controller::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// for input in ["a", "b"] {
    ///     session
    ///         .with_fresh_state("booted", async |session| {
    ///             let serial = session.serial(0).expect("the board has one");
    ///             serial.write(input.as_bytes()).await
    ///         })
    ///         .await??;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// There is one machine, so one case at a time; cases that are to run together want a session
    /// each.
    ///
    /// # Errors
    /// [`SnapshotError`]: the case did not run. What the case itself returns is passed on.
    pub async fn with_fresh_state<T>(
        &self,
        name: &str,
        case: impl AsyncFnOnce(&Self) -> T,
    ) -> Result<T, SnapshotError> {
        name::check(name)?;
        let (store, name) = (Arc::clone(&self.inner.snapshots), name.to_owned());
        let options = Options {
            then: AfterLoad::AsSaved,
            without_output: Some(self.inner.ports().cloned().collect()),
            ..Options::default()
        };
        let load_or_save =
            async move |transaction: Transaction| match load(&transaction, &store, &name, &options)
                .await
            {
                Err(SnapshotError::Missing { .. }) => {
                    save(&transaction, &store, &name, false).await
                }
                loaded => loaded,
            };
        self.transaction(SnapshotLoad::NAME, load_or_save).await?;
        Ok(case(self).await)
    }
}
