//! The GDB stub of a session: where it listens, and whether a debugger could attach, without harm
//! to the guest.

use std::time::Duration;

use gdb_port::{
    Chardev, GuestEffect, GuestState, Leave, ListenState, ProbeOptions, Reachability, StubAddress,
    inspect, probe,
};
use qemu_launch::Address;
use qmp_proto::commands::{QueryChardev, StatusInfo};
use tokio::time::sleep;

use crate::client::Shared;
use crate::client::command::command;
use crate::error::CommandError;
use crate::session::Session;

/// The pause between two looks for a stub that does not listen yet.
const PAUSE: Duration = Duration::from_millis(1);

/// Why nothing can be said of the GDB stub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GdbError {
    /// The machine has no GDB stub that listens.
    #[error(
        "this QEMU has no GDB stub that listens on an address; one that a session starts gets it by `QemuConfig::gdb`"
    )]
    NoStub,
    /// QEMU could not be asked.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The system would not connect.
    #[error(transparent)]
    Connect(#[from] gdb_port::ConnectError),
}

/// What a check of the GDB stub found, and the guest's run state around it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GdbCheck {
    /// Where the stub listens.
    pub endpoint: StubAddress,
    /// Whether a debugger could attach, and why not.
    pub reachability: Reachability,
    /// What the check did to the guest.
    pub effect: GuestEffect,
    /// The run state before.
    pub before: StatusInfo,
    /// The run state after.
    pub after: StatusInfo,
}

impl Session {
    /// Whether a debugger could attach to the GDB stub now. Only looks: at what QEMU says of its
    /// own socket (`query-chardev`) and, on Linux, at the kernel's socket tables, which also show
    /// that the port is this QEMU's. Nothing is connected and the guest is not touched.
    ///
    /// # Errors
    /// [`GdbError`]. That a debugger could *not* attach is no error, but in
    /// [`GdbCheck::reachability`].
    pub async fn check_gdb(&self) -> Result<GdbCheck, GdbError> {
        let before = self.query_status().await?;
        let said = stub(&self.inner.shared, self.deadline).await?;
        let endpoint = self.stub_endpoint(said.as_ref())?;
        let seen = inspect(&endpoint, self.pid());
        let reachability = match (said, seen) {
            (Some(Chardev { attached: true, .. }), _) => Reachability::HeldByAnotherClient,
            // Where the kernel shows nothing, QEMU's own word counts.
            (Some(_), ListenState::Unknown(_)) => Reachability::Listens,
            (_, seen) => seen.reachability(),
        };
        let after = self.query_status().await?;
        Ok(GdbCheck {
            endpoint,
            reachability,
            effect: GuestEffect::Untouched,
            before,
            after,
        })
    }

    /// Connects to the GDB stub, asks who it is, and leaves in order. **This pauses a running guest
    /// for some milliseconds**; then it runs on, and one that was stopped stays stopped. It never
    /// connects while a debugger is attached.
    ///
    /// # Errors
    /// [`GdbError`]; the run state has been put back as far as QEMU let it.
    pub async fn probe_gdb(&self) -> Result<GdbCheck, GdbError> {
        let before = self.query_status().await?;
        let said = stub(&self.inner.shared, self.deadline).await?;
        let endpoint = self.stub_endpoint(said.as_ref())?;
        let guest = if before.running {
            GuestState::Running
        } else {
            GuestState::Stopped
        };
        let mut options = ProbeOptions::default()
            .guest(guest)
            .leave(Leave::RunOn)
            .deadline(self.deadline);
        options.owner = self.pid();
        // Where the kernel shows nothing, QEMU's own word counts.
        options.nobody_attached = said.is_some_and(|stub| !stub.attached);
        let report = probe(&endpoint, &options).await?;
        // Where another client was faster, ours waits in the queue and stops the guest when that
        // one leaves. Dropped, it leaves a packet there that lets a guest that ran run on.
        drop(report.queued);
        let mut after = self.query_status().await?;
        // Not where another client may have paused it.
        let ours = matches!(
            report.effect,
            GuestEffect::ResumeUnconfirmed
                | GuestEffect::LeftPaused
                | GuestEffect::LeftStopped
                | GuestEffect::Unknown
        );
        if before.running && !after.running && ours {
            self.resume().await?;
            after = self.query_status().await?;
        }
        Ok(GdbCheck {
            endpoint,
            reachability: report.reachability,
            effect: report.effect,
            before,
            after,
        })
    }

    /// Where the stub listens: known from the start, or what an attached QEMU says.
    fn stub_endpoint(&self, said: Option<&Chardev>) -> Result<StubAddress, GdbError> {
        let said = said.map(|stub| &stub.endpoint);
        self.gdb().or(said).cloned().ok_or(GdbError::NoStub)
    }
}

/// Where the stub listens: what was asked for, or the port that QEMU got where it was to choose.
pub(crate) async fn endpoint(
    shared: &Shared,
    deadline: Duration,
    address: Option<&Address>,
) -> Result<Option<StubAddress>, CommandError> {
    match address {
        Some(Address::Tcp(address)) if address.port() == 0 => loop {
            if let Some(chardev) = stub(shared, deadline).await? {
                return Ok(Some(chardev.endpoint));
            }
            // QMP can be there before the stub is.
            sleep(PAUSE).await;
        },
        Some(Address::Tcp(address)) => Ok(Some(StubAddress::Tcp(*address))),
        Some(Address::Socket(path)) => Ok(Some(StubAddress::Unix(path.clone()))),
        _ => Ok(None),
    }
}

/// What QEMU says of the stub's socket.
async fn stub(shared: &Shared, deadline: Duration) -> Result<Option<Chardev>, CommandError> {
    let chardevs = command(shared, deadline, &QueryChardev).await?;
    Ok(chardevs
        .iter()
        .find(|chardev| chardev.label == "gdb")
        .and_then(|chardev| Chardev::parse(&chardev.filename)))
}
