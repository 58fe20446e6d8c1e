//! Waiting for the end of a run, with or without a deadline.

use std::time::Duration;

use qemu_launch::ExitKind;
use qmp_proto::commands::RunState;
use tokio::time::{sleep, timeout, timeout_at};

use super::{RunFacts, Verdict, triple_fault};
use crate::client::command::{A_YEAR, instant_after};
use crate::error::SessionEnd;
use crate::session::Session;

/// How long the ports are drained after QEMU's end; what it wrote is there already, unless it left
/// a child that holds them.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// How long QEMU may take to exit once the machine is shut down, before it gets SIGTERM; it takes
/// some milliseconds.
const EXIT: Duration = Duration::from_millis(500);

impl Session {
    /// Lets the guest run if it is stopped, waits for the end of the run, and tells how it ended.
    /// All that the firmware printed is in the buffers of its [ports](Self::serial) then.
    ///
    /// A deadline that passes is a verdict too, [`Verdict::TimedOut`]: QEMU still runs then and can
    /// be looked at, and [`stop`](Self::stop) ends it. A guest that resets itself runs on, as on
    /// hardware, and the report counts how often it did; with
    /// [`QemuConfig::no_reboot`](crate::QemuConfig::no_reboot) its first reset is the end of the
    /// run. A guest that shut down in a QEMU that stays after that (`-no-shutdown`) has come to its
    /// end as well.
    pub async fn run_to_end(&self, deadline: Duration) -> Verdict {
        let until = instant_after(deadline);
        let run = async {
            #[cfg(all(feature = "rtt", feature = "debugger"))]
            if self.run_until_exit(deadline).await {
                return self.wait().await;
            }
            // What it answers, the verdict tells better: a guest may take QEMU with it before the
            // answer comes.
            let _ = self.with_deadline(deadline).resume().await;
            self.wait().await
        };
        if let Ok(verdict) = timeout_at(until, run).await {
            return verdict;
        }
        let hang = self.hang(deadline).await;
        // What ended before it was looked at, or meanwhile, has ended.
        let final_state = hang.run_state.clone().filter(is_final);
        match self.inner.shared.how_it_ended() {
            None if final_state.is_none() => Verdict::TimedOut(Box::new(hang)),
            _ => self.verdict(final_state).await,
        }
    }

    /// Waits for the end of the run, however long that takes, and tells how it ended, as
    /// [`run_to_end`](Self::run_to_end) does; a guest that is stopped is left so. After the end it
    /// answers at once, with the same.
    pub async fn wait(&self) -> Verdict {
        let final_state = tokio::select! {
            _ = self.ended() => None,
            final_state = self.reaches_final_state() => Some(final_state),
            () = self.wakes_stuck_exit() => None,
        };
        #[cfg(feature = "rtt")]
        if final_state.is_some() {
            // Where QEMU stays, so does its memory.
            let _ = self.drain_rtt().await;
        }
        self.verdict(final_state).await
    }

    /// Of a run that is over, by QEMU's end or with the guest in a state for good.
    async fn verdict(&self, final_state: Option<RunState>) -> Verdict {
        let ended = self.inner.shared.how_it_ended();
        if ended.is_some() {
            self.drained().await;
        }
        Verdict::of(RunFacts {
            final_state,
            ..self.run_facts(ended).await
        })
    }

    /// Waits for a guest that has come to its end in a QEMU that stays, and tells in which state. A
    /// QEMU that is about to exit does not answer any more; one that is held up answers later,
    /// however long that takes.
    async fn reaches_final_state(&self) -> RunState {
        let session = self.with_deadline(A_YEAR);
        let mut run_state = self.watch_run_state();
        while run_state.wait_for(is_final).await.is_ok() {
            if let Ok(now) = session.query_status().await
                && is_final(&now.status)
            {
                return now.status;
            }
            if run_state.changed().await.is_err() {
                break;
            }
        }
        std::future::pending().await
    }

    /// Wakes a QEMU that has shut the machine down and does not exit, and waits for its end.
    ///
    /// Seen on 7.2 and 10.0: a command that is in flight then can leave `monitor_cleanup` in a
    /// poll that nothing ends but a signal.
    async fn wakes_stuck_exit(&self) {
        let stays = match self.process() {
            Some(process) => process.argv().args().iter().any(|word| {
                let word = word.to_string_lossy();
                word.ends_with("-no-shutdown") || word.contains("shutdown=pause")
            }),
            None => true,
        };
        let mut run_state = self.watch_run_state();
        let shut_down = run_state.wait_for(|state| *state == RunState::Shutdown);
        if !stays && shut_down.await.is_ok() {
            sleep(EXIT).await;
            if let Some(process) = self.process() {
                process.terminate();
            }
        }
        self.ended().await;
    }

    /// Waits until all that was printed is in the buffers.
    async fn drained(&self) {
        let drained = async {
            for port in self.inner.ports() {
                port.closed().await;
            }
            #[cfg(feature = "rtt")]
            for port in self.rtt_ports() {
                port.closed().await;
            }
        };
        let _ = timeout(LAST_OUTPUT, drained).await;
    }

    async fn run_facts(&self, ended: Option<SessionEnd>) -> RunFacts {
        let history = self.inner.shared.state().history.clone();
        let process = self.process();
        let semihosting = |word: &std::ffi::OsString| {
            word.to_str()
                .is_some_and(|word| word.trim_start_matches('-').starts_with("semihosting"))
        };
        let dump = match &ended {
            Some(SessionEnd::Exited(exit)) => match exit.kind() {
                ExitKind::Lockup(dump) => dump.pc(),
                _ => None,
            },
            _ => None,
        };
        let place = match dump {
            Some(pc) => self.place(pc).await,
            None => None,
        };
        let words = process.as_ref().map(|process| process.argv().args());
        let words = words.unwrap_or_default();
        RunFacts {
            place,
            triple_fault: match &process {
                Some(process) => triple_fault::was(process, ended.is_some()),
                None => Some(false),
            },
            ended,
            final_state: None,
            asked: history.asked_to_end(),
            shutdown: history.shutdown,
            watchdog: history.watchdog,
            signalled: process
                .as_ref()
                .is_some_and(|process| process.was_signalled()),
            semihosting: words.iter().any(semihosting),
            gdb: words.iter().any(|word| word == "-gdb" || word == "-s")
                || self.inner.shared.run_requests.handed_over(),
            only_monitor: words.iter().filter(|word| *word == "-mon").count() == 1,
        }
    }
}

/// A state that only a reset leaves.
fn is_final(state: &RunState) -> bool {
    matches!(state, RunState::Shutdown | RunState::GuestPanicked)
}
