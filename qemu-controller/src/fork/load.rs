//! Feeding a state to a QEMU that waits for it.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use qemu_launch::{Address, Process};
use qmp_proto::Version;
use qmp_proto::commands::{MigrateIncoming, MigrationStatus, QueryMigrate, QueryStatus};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::MachineState;
use crate::client::Shared;
use crate::client::transaction::Transaction;
use crate::client::transport::tokio_stream;
use crate::error::CommandError;
use crate::snapshot::identity::{Difference, Identity, LoadedFiles};

/// The channel that [`MachineSpec::incoming`](qemu_launch::MachineSpec::incoming) makes.
const INCOMING: &str = "incoming";

/// The pauses between two looks grow from this …
const FIRST_PAUSE: Duration = Duration::from_micros(500);

/// … to this. A small machine is loaded within a millisecond or two.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

const CHUNK: usize = 64 * 1024;

/// Why a state was not loaded into a machine that was started for it.
pub(crate) enum LoadError {
    /// It was saved of another machine, which differs in this.
    OtherMachine(Vec<Difference>),
    /// A command failed.
    Command(CommandError),
    /// The state's file, or the way to QEMU.
    Io(io::Error),
}

impl From<CommandError> for LoadError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Brings a machine that was started with `incoming` into the state, and refuses one that cannot
/// fit before anything is loaded. The guest stands still then. The deadline is the caller's, and so
/// is the end of QEMU if it is dropped.
pub(crate) async fn load(
    shared: Arc<Shared>,
    qemu: Version,
    process: &mut Process,
    loaded: LoadedFiles,
    state: &MachineState,
) -> Result<(), LoadError> {
    let operation = Transaction::first(shared, qemu);
    let now = Identity::ask(&operation, loaded).await?;
    let differences = state.taken_with().differences(&now);
    if !differences.is_empty() {
        return Err(LoadError::OtherMachine(differences));
    }
    let Some(&Address::Inherited { fd }) = process.address(INCOMING) else {
        return Err(io::Error::from(io::ErrorKind::Unsupported).into());
    };
    let stream = process
        .take(INCOMING)
        .ok_or(io::ErrorKind::NotFound)
        .map_err(io::Error::from)?;
    let stream = tokio_stream(stream)?;
    operation
        .command(&MigrateIncoming {
            uri: &format!("fd:{fd}"),
        })
        .await?;
    let fed = async {
        match feed(stream, state).await {
            Ok(()) => pending().await,
            // QEMU hangs up on what it cannot use, and says why while it ends.
            Err(Feed::Stream) => pending().await,
            Err(Feed::File(error)) => Err(LoadError::Io(error)),
        }
    };
    tokio::select! {
        taken_in = taken_in(&operation) => taken_in?,
        failed = fed => failed?,
    }
    // So that whoever watches the run state sees it: QEMU sends no event.
    operation.command(&QueryStatus).await?;
    Ok(())
}

enum Feed {
    Stream,
    File(io::Error),
}

/// Writes the state, and hangs up.
async fn feed(mut stream: UnixStream, state: &MachineState) -> Result<(), Feed> {
    let (mut chunk, mut at) = (vec![0; CHUNK], 0);
    loop {
        match state.read_at(&mut chunk, at).map_err(Feed::File)? {
            0 => return Ok(()),
            length => stream
                .write_all(&chunk[..length])
                .await
                .map_err(|_| Feed::Stream)?,
        }
        at += CHUNK as u64;
    }
}

/// Waits until the state is there. Where it cannot be taken in, QEMU ends, and the next question
/// says so.
async fn taken_in(operation: &Transaction) -> Result<(), LoadError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let migration = operation.command(&QueryMigrate).await?;
        if migration.status == Some(MigrationStatus::Completed) {
            return Ok(());
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
