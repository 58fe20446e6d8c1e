//! Ctrl-C, SIGTERM and a closed terminal: the run is ended first, and then we end.

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a program to end, from now on. None is lost, neither between two waits nor
/// while this begins; none stays blocked, as a parent may have left them.
///
/// A terminal that is closed is ignored where it was from the start: that is what `nohup` does. A
/// child's end is heeded where it was ignored, or nobody could learn how QEMU ended.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
    /// Ctrl-C is for another program on this terminal.
    pub(crate) ignores_interrupt: bool,
    _child: Signal,
}

impl Signals {
    /// To be called before there are other threads, which could be given a signal meanwhile.
    pub(crate) fn listen() -> std::io::Result<Self> {
        // The library forgets a signal that comes between its system call for the handler and its
        // note of who wants to know.
        let asking = [Number::SIGINT, Number::SIGTERM, Number::SIGHUP];
        let asking = asking.into_iter().collect::<SigSet>();
        asking.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let listening = Self::listen_at_once();
        asking.thread_unblock()?;
        listening
    }

    fn listen_at_once() -> std::io::Result<Self> {
        let hangup = (!ignores_hangup())
            .then(|| signal(SignalKind::hangup()))
            .transpose()?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self {
            interrupt,
            terminate: signal(SignalKind::terminate())?,
            hangup,
            ignores_interrupt: false,
            _child: signal(SignalKind::child())?,
        })
    }

    /// Waits for one, and tells its number.
    pub(crate) async fn next(&mut self) -> u8 {
        let Self {
            interrupt,
            terminate,
            hangup,
            ignores_interrupt,
            _child: _,
        } = self;
        let interrupted = async { while interrupt.recv().await.is_none() || *ignores_interrupt {} };
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let number = tokio::select! {
            () = interrupted => Number::SIGINT,
            _ = terminate.recv() => Number::SIGTERM,
            _ = hung_up => Number::SIGHUP,
        };
        number as u8
    }
}

/// Whether this program was started with SIGHUP ignored; false where the system does not tell.
#[cfg(target_os = "linux")]
fn ignores_hangup() -> bool {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    status.is_ok_and(|status| status.sigign >> (Number::SIGHUP as u8 - 1) & 1 == 1)
}

#[cfg(not(target_os = "linux"))]
fn ignores_hangup() -> bool {
    false
}
