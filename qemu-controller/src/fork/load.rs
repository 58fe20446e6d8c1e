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
use crate::client::qtest::Qtest;
use crate::client::transaction::Transaction;
use crate::client::transport::tokio_stream;
use crate::error::CommandError;
use crate::snapshot::devices::Devices;
use crate::snapshot::{LoadedFiles, MachineFingerprint, MachineMismatch, SnapshotError};

/// The channel that [`MachineSpec::incoming`](qemu_launch::MachineSpec::incoming) makes.
const INCOMING: &str = "incoming";

/// The pauses between two queries grow from this …
const FIRST_PAUSE: Duration = Duration::from_micros(500);

/// … to this. A small machine is loaded within a millisecond or two.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

const CHUNK: usize = 64 * 1024;

/// Why a state was not loaded.
pub(crate) enum LoadError {
    /// QEMU ended, or refused a command.
    Command(CommandError),
    /// The state's file, or the stream to QEMU.
    Io(io::Error),
    /// The state is of another machine.
    OtherMachine(Vec<MachineMismatch>),
}

impl From<CommandError> for LoadError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<SnapshotError> for LoadError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Command(error) => Self::Command(error),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Loads the state into a machine that was started with `incoming`; the guest is paused then. What
/// does not fit is refused before anything is loaded. The deadline is the caller's, and so is the
/// end of QEMU if this is dropped.
pub(crate) async fn load(
    shared: Arc<Shared>,
    qemu: Version,
    process: &mut Process,
    loaded: LoadedFiles,
    state: &MachineState,
    qtest: Option<&Qtest>,
) -> Result<(), LoadError> {
    let transaction = Transaction::first(shared, qemu);
    let now = MachineFingerprint::ask(&transaction, loaded).await?;
    let mismatches = state.taken_with().mismatches(&now);
    if !mismatches.is_empty() {
        return Err(LoadError::OtherMachine(mismatches));
    }
    let Some(&Address::Inherited { fd }) = process.address(INCOMING) else {
        return Err(io::Error::from(io::ErrorKind::Unsupported).into());
    };
    let stream = process
        .take(INCOMING)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let stream = tokio_stream(stream)?;
    let uri = format!("fd:{fd}");
    transaction.command(&MigrateIncoming::new(&uri)).await?;
    tokio::select! {
        loaded = wait_until_loaded(&transaction) => loaded?,
        error = feed(stream, state) => return Err(error.into()),
    }
    // QEMU sends no event for the new run state; this makes it known.
    transaction.command(&QueryStatus).await?;
    let registers = &state.inner.registers;
    if let (Some(qtest), false) = (qtest, registers.is_empty()) {
        let devices = Devices::find(&transaction).await?;
        devices.write(&transaction, qtest, registers).await?;
    }
    Ok(())
}

/// Writes the state and closes the stream. Returns only where the state cannot be read: QEMU hangs
/// up on what it cannot use, and says why while it ends.
async fn feed(mut stream: UnixStream, state: &MachineState) -> io::Error {
    let (mut chunk, mut at) = (vec![0; CHUNK], 0);
    loop {
        match state.read_at(&mut chunk, at) {
            Ok(0) => break,
            Ok(length) if stream.write_all(&chunk[..length]).await.is_ok() => at += CHUNK as u64,
            Ok(_) => break,
            Err(error) => return error,
        }
    }
    drop(stream);
    pending().await
}

/// Waits until QEMU has loaded the state. Where it cannot, it ends, and the next query says so.
async fn wait_until_loaded(transaction: &Transaction) -> Result<(), CommandError> {
    let mut pause = FIRST_PAUSE;
    while transaction.command(&QueryMigrate).await?.status != Some(MigrationStatus::Completed) {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}
