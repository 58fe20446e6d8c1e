//! Before the session is ready, by `Session::start`: before QEMU listens, greets, and takes
//! capabilities.

use std::io::{self, Write};
use std::sync::Arc;

use qemu_controller::{Endpoint, Session, StartError, StartPhase};
use rustix::process::Signal;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{SIGNALS, patience_for_a_start};
use crate::support::{DEADLINE, Fifo, Held, config, process_with};

/// QEMU makes it once it has answered the greeting's commands, and waits to open its file.
const HELD: &str = "loader,id=held,addr=0x20000000,force-raw=on";

/// Starts a session that cannot get beyond a phase, sends the signal in it, and looks at the error.
async fn during_start(phase: StartPhase, signal: Signal) {
    let fifo = Fifo::new();
    let marker = format!("kill-{phase:?}-{}-{}", signal.as_raw(), std::process::id());
    let asked = Arc::new(Notify::new());
    // Said apart: a pipe for a loader is refused before QEMU starts.
    let loaded = format!("device.held.file={fifo}");
    let deadline = patience_for_a_start(signal).await;
    let config = config("tick").start_deadline(deadline);
    let config = match phase {
        StartPhase::Connecting => config.qmp(Endpoint::PrivateSocket).extra_args([
            "-name",
            &marker,
            "-readconfig",
            &fifo.to_string(),
        ]),
        StartPhase::Greeting => {
            config.extra_args(["-name", &marker, "-readconfig", &fifo.to_string()])
        }
        _ => config
            .extra_args(["-name", &marker, "-device", HELD, "-set", &loaded])
            .qmp_transcript_to(Tell("qmp_capabilities", Arc::clone(&asked))),
    };
    let starting = tokio::spawn(Session::start(config));
    let qemu = Held::of(process_with(&marker).await);
    let _blocked = match phase {
        StartPhase::Negotiation => {
            timeout(DEADLINE, asked.notified())
                .await
                .expect("it gets so far before its deadline");
            None
        }
        // While nobody writes and this end is open, QEMU waits for the rest of its options.
        _ => Some(fifo.write_end().await),
    };
    qemu.signal(signal).await;
    let error = starting.await.unwrap().unwrap_err();
    let told = match &error {
        StartError::Exited {
            phase: seen, exit, ..
        } => *seen == phase && exit.signal() == Some(signal.as_raw()) && signal != Signal::STOP,
        StartError::Deadline { phase: seen, .. } => *seen == phase && signal == Signal::STOP,
        _ => false,
    };
    assert!(told, "{phase:?}, {signal:?}: {error:?}");
    qemu.reaped().await;
}

/// A transcript that tells when a command is written into it.
struct Tell(&'static str, Arc<Notify>);

impl Write for Tell {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if String::from_utf8_lossy(bytes).contains(self.0) {
            self.1.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both at once: the one that is stopped takes its deadline.
async fn each_signal_during_start(phase: StartPhase) {
    let [kill, stop] = SIGNALS.map(|signal| during_start(phase, signal));
    tokio::join!(kill, stop);
}

#[tokio::test]
async fn before_connect() {
    each_signal_during_start(StartPhase::Connecting).await;
}

#[tokio::test]
async fn before_the_greeting() {
    each_signal_during_start(StartPhase::Greeting).await;
}

#[tokio::test]
async fn before_the_capabilities() {
    each_signal_during_start(StartPhase::Negotiation).await;
}
