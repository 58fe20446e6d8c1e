//! Waking a QEMU that does not look for the input of a port.
//!
//! QEMU reads a port's socket while its UART takes bytes. Where the firmware enables the UART after
//! the bytes have come, several UARTs (that of the mps2 boards among them) do not tell QEMU's main
//! loop, which then looks at the socket again only when something else wakes it: measured with 7.2
//! and 10.0, the input is never delivered to an otherwise idle guest. Any QMP command wakes it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use qmp_proto::commands::RunState;
use tokio::time::sleep;

use super::Port;
use crate::client::command::call;
use crate::client::{Band, Shared};

/// The pauses between two looks at the socket grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// … to this, while nothing is read.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How often QEMU is woken for one write where the kernel does not tell what is unread.
const BLIND_WAKES: usize = 12;

/// How long QEMU may take to answer the command that wakes it: longer where it is held up, and then
/// it is awake.
const WAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Wakes QEMU while the guest runs and bytes of the port are unread, until the session ends.
pub(super) async fn wake_while_unread(port: Weak<Port>, shared: Arc<Shared>) {
    let Some(written) = port.upgrade().map(|port| Arc::clone(&port.written)) else {
        return;
    };
    let waking = async {
        loop {
            written.notified().await;
            let Some(port) = port.upgrade() else { return };
            if deliver(&port, &shared).await.is_none() {
                return;
            }
        }
    };
    tokio::select! {
        () = waking => {}
        _ = shared.end() => {}
    }
}

/// Wakes QEMU until it has read what was written; `None` when the session has ended.
async fn deliver(port: &Port, shared: &Shared) -> Option<()> {
    let mut run_state = shared.run_state();
    let (mut pause, mut before, mut blind) = (FIRST_PAUSE, None, 0);
    loop {
        sleep(pause).await;
        let unread = gdb_port::unread_by_peer(&port.sockets[0]).ok();
        match unread {
            Some(0) => return Some(()),
            None if blind == BLIND_WAKES => return Some(()),
            None => blind += 1,
            Some(_) => {}
        }
        // A guest that is stopped reads nothing. What lets it run wakes QEMU.
        run_state
            .wait_for(|state| *state == RunState::Running)
            .await
            .ok()?;
        pause = if unread == before {
            (pause * 2).min(LONGEST_PAUSE)
        } else {
            FIRST_PAUSE
        };
        before = unread;
        // Its answer tells nothing: it was awake to give it.
        let _ = call(
            shared,
            "query-name",
            Band::In,
            WAKE_DEADLINE,
            |connection| connection.execute("query-name", &()),
        )
        .await;
    }
}
