//! The async runtime that a verb's work is done in: one thread, and nothing waits for what is left in
//! the background.

use crate::failure::Failure;
use crate::outcome::OWN_FAILURE;
use crate::reporter::complain;

/// Does the work.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::system("set up the async runtime"))?;
    let done = runtime.block_on(work);
    // Whatever still runs there may hang for ever, as a read of stdin.
    runtime.shutdown_background();
    done
}

/// Does the work, and says what is wrong in words; the exit status.
pub(crate) fn status_of(work: impl Future<Output = Result<u8, String>>) -> u8 {
    let status = block_on(async { work.await.map_err(Failure::Usage) });
    status.unwrap_or_else(|failure| complain(&failure.words(), OWN_FAILURE))
}
