//! Flash memory of the type `cfi.pflash01`, which must not be restored twice without a run in
//! between.
//!
//! Each restore registers a callback for the next start of the guest, and that start frees only the
//! latest one. After two loads in a row while the guest is paused, QEMU crashes (SIGSEGV) at the
//! next `cont` (7.2 and 10.0; boards `virt`, `vexpress-a9`). A moment of running between the two
//! cures it, and the second load undoes what ran.

use qmp_proto::commands::{Cont, QomList, Stop};

use crate::client::transaction::Transaction;
use crate::error::CommandError;

/// Where boards have it in the object model.
const CONTAINERS: [&str; 2] = ["/machine", "/machine/unattached"];

/// Whether the machine has such memory.
pub(crate) async fn is_there(transaction: &Transaction) -> Result<bool, CommandError> {
    for container in CONTAINERS {
        let objects = transaction.command(&QomList::new(container)).await?;
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
pub(crate) async fn run_callbacks(transaction: &Transaction) -> Result<(), CommandError> {
    transaction.command(&Cont).await?;
    transaction.command(&Stop).await.map(drop)
}
