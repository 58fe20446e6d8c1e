//! Flash memory of the type `cfi.pflash01`, which must not be restored twice without a run in
//! between.
//!
//! Each restore leaves a callback for the next start of the guest, which frees the latest one only:
//! two loads in a row while the guest stands still, and QEMU crashes (SIGSEGV) at the next `cont`
//! (7.2 and 10.0; boards `virt`, `vexpress-a9`). A moment of running between the two cures it, and
//! the second load makes it undone.

use qmp_proto::commands::{Cont, QomList, Stop};

use crate::client::transaction::Transaction;
use crate::error::CommandError;

/// Where boards have it.
const CONTAINERS: [&str; 2] = ["/machine", "/machine/unattached"];

/// Whether the machine has such memory.
pub(crate) async fn is_there(operation: &Transaction) -> Result<bool, CommandError> {
    for container in CONTAINERS {
        let objects = operation.command(&QomList { path: container }).await?;
        if objects
            .iter()
            .any(|object| object.kind == "child<cfi.pflash01>")
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lets the callbacks run, and the guest for as long as that takes.
pub(crate) async fn settle(operation: &Transaction) -> Result<(), CommandError> {
    operation.command(&Cont).await?;
    operation.command(&Stop).await.map(drop)
}
