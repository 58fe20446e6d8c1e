//! Running the guest until something: points in, over the place where it is, on, and what the stop
//! was.
//!
//! ```text
//!  points in ─► [step over a breakpoint at pc] ─► c ─► stop ─► is it one of ours, and wanted? ─no─┐
//!                 ▲                                              │ yes                            │
//!                 └──────────────────────────────────────────────┼────────────────────────────────┘
//!                                                                └─► points out ─► Stop
//! ```
//!
//! The turn is free while the guest runs, so that others may pause, reset, save or load. The stub
//! reports a stop once, since it answers each `c` once. Where somebody else had the turn
//! meanwhile, QEMU is asked what the guest does now: after a save it runs again, and a later stop
//! shows in the run state alone (QEMU 10.0 sends nothing then).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use gdb_remote::client::PointKind;
use gdb_remote::reply::{Access, StopReply};
use qmp_proto::commands::RunState;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::error::DebugError;
use super::until::{Stop, StopReason, Until};
use super::{Debugger, UNSURE, Verb};
use crate::client::command::instant_after;
use crate::client::run_state::RunRequests;
use crate::guest::memory::Location;
use crate::verdict::Verdict;

/// GDB's numbers of two signals.
const SIGINT: u8 = 2;
const SIGTRAP: u8 = 5;

/// How long QEMU may take to end after its stub's stream has.
const ENDING: Duration = Duration::from_secs(20);

/// How long to wait for the stub's stop reply once the monitor has reported the stop: it comes at
/// the same time or not at all.
const LATE_WORD: Duration = Duration::from_millis(50);

/// QEMU's targets whose watchpoints stop after the access; those of all others stop before.
const STOPS_AFTER: [&str; 7] = [
    "i386", "x86_64", "s390x", "sparc", "sparc64", "m68k", "alpha",
];

/// One of those that were given, with its place found.
struct Wanted<'a> {
    until: Until<'a>,
    address: u64,
    hits: u64,
    /// Of a watchpoint: what was there when it was last looked at.
    last: Vec<u8>,
}

/// How the guest is moved.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Motion {
    Step,
    Run,
}

/// What became of it.
pub(super) enum Moved {
    /// It stopped, with the stub's stop reply where there was one.
    Stopped(Option<StopReply>),
    DeadlinePassed,
    Ended(Box<Verdict>),
}

impl Debugger {
    /// Lets the guest run until one of these, or the deadline, and says why it stopped and where. A
    /// guest that runs already is stopped first, to set them. They are set for this run alone.
    ///
    /// At the deadline the guest is stopped where it is. A breakpoint at the very place where the
    /// guest is now counts when it comes there again. Pausing the session ends the run
    /// ([`StopReason::Paused`]); a reset, a save and a load do not, unless they leave the guest
    /// stopped.
    ///
    /// # Errors
    /// [`DebugError`], with nothing left of the breakpoints. That the deadline passed, or that the
    /// guest ended, is no error.
    pub async fn run_until<'a>(
        &mut self,
        until: impl IntoIterator<Item = Until<'a>>,
        deadline: Duration,
    ) -> Result<Stop, DebugError> {
        let at = instant_after(deadline);
        let mut wanted = Vec::new();
        for until in until {
            let address = self.code_address(until.kind, until.at).await?;
            wanted.push(Wanted {
                until,
                address,
                hits: 0,
                last: Vec::new(),
            });
        }
        let mut verb = self.begin_stopped("run_until").await?;
        self.insert(&mut wanted).await?;
        let reason = self.run(&mut wanted, at, &mut verb).await?;
        let stop = self.end(reason).await?;
        verb.done();
        Ok(stop)
    }

    /// The guest has stopped for good reason: takes the points out, and tells where it is.
    pub(super) async fn end(&mut self, reason: StopReason) -> Result<Stop, DebugError> {
        if let StopReason::Ended(_) = reason {
            return Ok(Stop {
                reason,
                pc: None,
                place: None,
            });
        }
        self.attachment.remove_points(self.session.deadline).await?;
        {
            let mut state = self.attachment.stub.state();
            (state.should_run, state.is_moving) = (false, false);
        }
        let pc = self.pc().await?;
        let place = self.session.place(pc).await;
        Ok(Stop {
            reason,
            pc: Some(pc),
            place,
        })
    }

    /// A Thumb function's address has no bit that says Thumb.
    async fn code_address(&self, kind: PointKind, at: Location<'_>) -> Result<u64, DebugError> {
        let address = self.address(at).await?;
        let is_arm = self.attachment.arch == "arm";
        let is_code = kind == PointKind::Software;
        Ok(if is_arm && is_code {
            address & !1
        } else {
            address
        })
    }

    async fn insert(&mut self, wanted: &mut [Wanted<'_>]) -> Result<(), DebugError> {
        for wanted in wanted {
            let (kind, address) = (wanted.until.kind, wanted.address);
            let is_code = kind == PointKind::Software;
            let size = if is_code { 2 } else { wanted.until.size };
            // QEMU takes a breakpoint anywhere: one where nothing is would never be reached.
            wanted.last = self.memory(address, size as usize).await?;
            self.insert_point(kind, address, size).await?;
        }
        Ok(())
    }

    async fn insert_point(
        &self,
        kind: PointKind,
        address: u64,
        size: u32,
    ) -> Result<(), DebugError> {
        let point = (kind, address, size);
        if !self.attachment.stub.state().points.insert(point) {
            return Ok(());
        }
        let inserted = self
            .ask("setting a breakpoint", |client| {
                client.insert(kind, address, size)
            })
            .await;
        match inserted {
            Err(DebugError::Refused { .. }) => {
                self.attachment.stub.state().points.remove(&point);
                Err(DebugError::NoWatchpoint { address, size })
            }
            other => other.map(drop),
        }
    }

    async fn run(
        &mut self,
        wanted: &mut [Wanted<'_>],
        at: Instant,
        verb: &mut Verb,
    ) -> Result<StopReason, DebugError> {
        let mut pc = self.pc().await?;
        // Whether a breakpoint at `pc` is to be left behind, or to be met.
        let mut leave = true;
        loop {
            let is_here = |wanted: &Wanted<'_>| wanted.is_code() && wanted.address == pc;
            let motion = match leave && wanted.iter().any(is_here) {
                true => Motion::Step,
                false => Motion::Run,
            };
            let reply = match self.advance(motion, at, verb).await? {
                Moved::Stopped(reply) => reply,
                Moved::DeadlinePassed => return Ok(StopReason::DeadlinePassed),
                Moved::Ended(verdict) => return Ok(StopReason::Ended(verdict)),
            };
            pc = self.pc().await?;
            leave = true;
            if let Some((access, address)) = reply.as_ref().and_then(StopReply::watchpoint) {
                match self.watched(wanted, access, address, at, verb).await? {
                    Some(reason) => return Ok(reason),
                    None => {
                        pc = self.pc().await?;
                        // The access took the guest to here: a breakpoint here is to be met.
                        leave = false;
                        continue;
                    }
                }
            }
            let signal = match &reply {
                Some(StopReply::Signal { signal, .. }) => *signal,
                _ => SIGTRAP,
            };
            if motion == Motion::Step && signal == SIGTRAP {
                leave = false;
                continue;
            }
            let reached = wanted
                .iter()
                .position(|one| one.is_code() && one.address == pc);
            match reached {
                Some(index) if signal == SIGTRAP => {
                    if self.is_wanted(&mut wanted[index]).await? {
                        let hits = wanted[index].hits;
                        return Ok(StopReason::Reached { index, hits });
                    }
                }
                // It was reset or loaded while it was at a breakpoint: the run goes on from
                // there.
                None if signal == SIGTRAP && self.is_elsewhere => leave = false,
                _ if signal == SIGINT || reply.is_none() => return Ok(StopReason::Paused),
                _ => return Ok(StopReason::Signal(signal)),
            }
        }
    }

    /// Counts a hit; whether it is one to stop for.
    async fn is_wanted(&self, wanted: &mut Wanted<'_>) -> Result<bool, DebugError> {
        wanted.hits += 1;
        if let Some(condition) = &mut wanted.until.condition {
            let registers = self.registers().await?;
            if !condition(&registers) {
                return Ok(false);
            }
        }
        let skip = wanted.until.skip;
        wanted.until.skip = skip.saturating_sub(1);
        Ok(skip == 0)
    }

    /// Lets the access be done, and tells what it did, if it is one to stop for.
    async fn watched(
        &mut self,
        wanted: &mut [Wanted<'_>],
        access: Access,
        address: u64,
        at: Instant,
        verb: &mut Verb,
    ) -> Result<Option<StopReason>, DebugError> {
        let Some(index) = wanted.iter().position(|one| one.watches(access, address)) else {
            return Ok(Some(StopReason::Signal(SIGTRAP)));
        };
        let (watched_at, size) = (wanted[index].address, wanted[index].until.size as usize);
        let is_wanted = self.is_wanted(&mut wanted[index]).await?;
        let stops_after = STOPS_AFTER.contains(&self.attachment.arch.as_str());
        let old = match stops_after {
            true => wanted[index].last.clone(),
            false => self.memory(watched_at, size).await?,
        };
        if !stops_after {
            let watches = self.take_watches().await?;
            match self.advance(Motion::Step, at, verb).await? {
                Moved::Stopped(_) => {}
                Moved::DeadlinePassed => return Ok(Some(StopReason::DeadlinePassed)),
                Moved::Ended(verdict) => return Ok(Some(StopReason::Ended(verdict))),
            }
            if !is_wanted {
                for (kind, address, size) in watches {
                    self.insert_point(kind, address, size).await?;
                }
            }
        }
        let new = self.memory(watched_at, size).await?;
        wanted[index].last.clone_from(&new);
        let hits = wanted[index].hits;
        Ok(is_wanted.then_some(StopReason::Watched {
            index,
            hits,
            access,
            address,
            old,
            new,
        }))
    }

    /// Takes the watchpoints out, to let an access pass.
    async fn take_watches(&self) -> Result<Vec<super::stub::Point>, DebugError> {
        let points = self.attachment.stub.state().points.clone();
        let watches = points
            .into_iter()
            .filter(|(kind, ..)| *kind != PointKind::Software);
        let watches: Vec<_> = watches.collect();
        for point @ (kind, address, size) in &watches {
            self.ask("taking a watchpoint out", |client| {
                client.remove(*kind, *address, *size)
            })
            .await?;
            self.attachment.stub.state().points.remove(point);
        }
        Ok(watches)
    }

    /// Moves the guest, and waits until it is stopped again; the turn is free meanwhile.
    pub(super) async fn advance(
        &mut self,
        motion: Motion,
        at: Instant,
        verb: &mut Verb,
    ) -> Result<Moved, DebugError> {
        let shared = Arc::clone(&self.attachment.shared);
        let stub = Arc::clone(&self.attachment.stub);
        if motion == Motion::Run {
            stub.state().moves();
        }
        shared.run_requests.last.store(0, Relaxed);
        let thread = self.thread;
        stub.run("running the guest", |client| match motion {
            // The others stay stopped meanwhile.
            Motion::Step => client.step(thread),
            Motion::Run => client.resume(),
        })?;
        let before = std::mem::replace(&mut self.turns, UNSURE);
        verb.turn = None;
        let mut run_state = shared.run_state();
        // A monitor let the guest run: the stub may say nothing when it stops.
        let mut by_monitor = false;
        loop {
            let reply = tokio::select! {
                biased;
                reply = stub.stopped() => match reply {
                    Ok(StopReply::Exited(_) | StopReply::Terminated(_)) => return self.ended().await,
                    Ok(reply) => {
                        self.thread = reply.thread().or(self.thread);
                        Some(reply)
                    }
                    Err(DebugError::Closed(why)) => {
                        return match self.ended().await {
                            Err(DebugError::Closed(_)) => Err(DebugError::Closed(why)),
                            other => other,
                        };
                    }
                    Err(error) => return Err(error),
                },
                () = sleep_until(at) => return self.stop_at_deadline(verb).await,
                is_known = until_stopped(&mut run_state), if by_monitor => {
                    if !is_known {
                        return self.ended().await;
                    }
                    timeout(LATE_WORD, stub.stopped()).await.ok().transpose()?
                }
            };
            let deadline = self.session.deadline;
            verb.turn = Some(shared.take_turn("run_until", deadline.into()).await?);
            let turns = self.count_of_turns();
            let is_ours = before.checked_add(1) == Some(turns) && !by_monitor;
            if is_ours || !self.attachment.is_running(deadline).await? {
                if !is_ours
                    && matches!(
                        *shared.run_state().borrow(),
                        RunState::Shutdown | RunState::GuestPanicked
                    )
                {
                    return self.ended().await;
                }
                let last = shared.run_requests.last.load(Relaxed);
                self.is_elsewhere = !is_ours && last != RunRequests::STOP;
                self.turns = turns;
                return Ok(Moved::Stopped(reply));
            }
            // Somebody stopped it for a moment, a save for example.
            verb.turn = None;
            by_monitor = true;
            stub.note(true);
        }
    }

    async fn stop_at_deadline(&mut self, verb: &mut Verb) -> Result<Moved, DebugError> {
        let deadline = self.session.deadline;
        let shared = Arc::clone(&self.attachment.shared);
        verb.turn = Some(shared.take_turn("stop", deadline.into()).await?);
        let reply = match self.attachment.stop(deadline).await {
            Ok(reply) => reply,
            Err(error) => {
                return match self.ended().await {
                    Err(_) => Err(error),
                    ended => ended,
                };
            }
        };
        self.turns = self.count_of_turns();
        match reply {
            // It met something at the very moment.
            Some(
                reply @ StopReply::Signal {
                    signal: SIGTRAP, ..
                },
            ) => Ok(Moved::Stopped(Some(reply))),
            _ => Ok(Moved::DeadlinePassed),
        }
    }

    /// The stub's stream is over: mostly because QEMU has ended, which has a verdict.
    async fn ended(&self) -> Result<Moved, DebugError> {
        match timeout(ENDING, self.session.wait()).await {
            Ok(verdict) => Ok(Moved::Ended(Box::new(verdict))),
            Err(_) => Err(DebugError::Closed(gdb_remote::client::Closed::Eof)),
        }
    }
}

/// Waits until the guest does not run, as far as events tell; false when the session has ended.
async fn until_stopped(run_state: &mut watch::Receiver<RunState>) -> bool {
    let stopped = run_state.wait_for(|state| *state != RunState::Running);
    stopped.await.is_ok()
}

impl Wanted<'_> {
    fn is_code(&self) -> bool {
        self.until.kind == PointKind::Software
    }

    fn watches(&self, access: Access, address: u64) -> bool {
        let is_kind = match self.until.kind {
            PointKind::Write => access == Access::Write,
            PointKind::Read => access == Access::Read,
            PointKind::Access => true,
            _ => false,
        };
        let size = u64::from(self.until.size);
        is_kind && address.wrapping_sub(self.address) < size
    }
}
