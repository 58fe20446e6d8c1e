//! Ctrl-C, SIGTERM and a closed terminal: the run is ended first, and then we end.

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

const ASKING: [Number; 3] = [Number::SIGINT, Number::SIGTERM, Number::SIGHUP];

/// The signals that ask a program to end, from now on. None is lost, neither between two waits nor while this begins.
///
/// One that is ignored from the start stays so: that is how `nohup`, and a script with its jobs in the background, mean it.
pub(crate) struct Signals([Option<Signal>; ASKING.len()]);

impl Signals {
    /// To be called before there are other threads, which could be given a signal meanwhile.
    pub(crate) fn listen() -> std::io::Result<Self> {
        // The library forgets a signal that comes between its system call for the handler and its note of who wants to know.
        let before = ASKING.into_iter().collect::<SigSet>().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let mut listening = Self([const { None }; ASKING.len()]);
        let ignored = ignored();
        let outcome = std::iter::zip(&mut listening.0, ASKING).try_for_each(|(one, number)| {
            if ignored >> (number as u8 - 1) & 1 == 0 {
                *one = Some(signal(SignalKind::from_raw(number as i32))?);
            }
            Ok(())
        });
        before.thread_set_mask()?;
        outcome.map(|()| listening)
    }

    /// Waits for one, and tells its number.
    pub(crate) async fn next(&mut self) -> u8 {
        let [first, second, third] = &mut self.0;
        let number = tokio::select! {
            () = comes(first) => ASKING[0],
            () = comes(second) => ASKING[1],
            () = comes(third) => ASKING[2],
        };
        number as u8
    }
}

async fn comes(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// A bit for each signal that this program ignores; none where the system does not tell.
#[cfg(target_os = "linux")]
fn ignored() -> u64 {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    status.map_or(0, |status| status.sigign)
}

#[cfg(not(target_os = "linux"))]
fn ignored() -> u64 {
    0
}
