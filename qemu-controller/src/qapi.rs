//! QEMU's whole typed API by the crate `qapi-qmp`, through the session. Feature `qapi`.

use qapi_qmp::QmpCommand;

use crate::error::CommandError;
use crate::session::Session;

impl Session {
    /// Runs a typed command of the crate [`qapi_qmp`].
    ///
    /// ```no_run
    /// # async fn example(session: qemu_controller::Session) -> Result<(), qemu_controller::CommandError> {
    /// let target = session.qapi(&qemu_controller::qapi_qmp::query_target {}).await?;
    /// println!("{:?}", target.arch);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`CommandError`]; [`Return`](CommandError::Return) where this QEMU's return is not what the
    /// crate, made from another version's schema, expects.
    pub async fn qapi<C: QmpCommand>(&self, command: &C) -> Result<C::Ok, CommandError> {
        let value = self.execute(C::NAME, command).await?;
        value.parse().map_err(|error| CommandError::Return {
            command: C::NAME.to_owned(),
            error,
        })
    }
}
