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

use gdb_remote::reply::StopReply;
use qmp_proto::commands::RunState;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::error::DebugError;
use super::questions::Question;
use super::until::{Stop, StopReason, Until};
use super::waiting::Left;
use super::wanted::{Wanted, breakpoint};
use super::{Debugger, UNSURE, Verb};
use crate::client::command::instant_after;
use crate::client::run_state::RunRequests;
use crate::verdict::Verdict;

/// GDB's numbers of two signals.
pub(super) const SIGINT: u8 = 2;
pub(super) const SIGTRAP: u8 = 5;

/// How long QEMU may take to end after its stub's stream has, at most.
const ENDING: Duration = Duration::from_secs(20);

/// How the guest is moved.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Motion {
    Step,
    Run,
    /// The current core runs, and the others stay stopped.
    RunAlone,
}

/// What others have done to the guest since it was last moved.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Since {
    /// Nothing: nobody had the turn.
    Ours,
    /// They may have reset or loaded it.
    Moved,
    /// They did something, and paused it last.
    Paused,
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
            wanted.push(self.find(until).await?);
        }
        let mut verb = self.begin_stopped("run_until").await?;
        self.guards.clear();
        let pc = self.insert(&mut wanted).await?;
        let (reason, pc) = self.run(&mut wanted, pc, at, &mut verb).await?;
        let stop = self.end(reason, pc).await?;
        verb.done();
        Ok(stop)
    }

    /// The guest has stopped for good reason: takes the points out, and tells where it is. `pc` is
    /// that of this stop, if it was read.
    pub(super) async fn end(
        &mut self,
        reason: StopReason,
        pc: Option<u64>,
    ) -> Result<Stop, DebugError> {
        if let StopReason::Ended(_) = reason {
            return Ok(Stop {
                reason,
                pc: None,
                place: None,
            });
        }
        let pc = match pc {
            Some(pc) => {
                self.ask_all(&self.removals()).await?;
                pc
            }
            None => self.pc_and_remove_points().await?,
        };
        self.seen = pc;
        {
            let mut state = self.attachment.stub.state();
            (state.should_run, state.is_moving) = (false, false);
        }
        let place = self.session.place(pc).await;
        Ok(Stop {
            reason,
            pc: Some(pc),
            place,
        })
    }

    /// The pc, with all points taken out in the same question.
    async fn pc_and_remove_points(&self) -> Result<u64, DebugError> {
        let mut questions = vec![self.pc_question()?];
        questions.extend(self.removals());
        let mut read = self.ask_all(&questions).await?;
        self.number(questions[0], read.swap_remove(0))
    }

    fn removals(&self) -> Vec<Question<'static>> {
        self.attachment.stub.state().removals()
    }

    /// Why it stopped, and the pc where that was read; `pc` is where it is before.
    async fn run(
        &mut self,
        wanted: &mut [Wanted<'_>],
        mut pc: u64,
        at: Instant,
        verb: &mut Verb,
    ) -> Result<(StopReason, Option<u64>), DebugError> {
        // Whether a breakpoint at `pc` is to be left behind. Else the guest has come to where it is
        // without being stopped there, and what is there is to be met.
        let mut leave = true;
        // Whether it may be in the handler of a fault that goes round at its first instruction.
        let for_faults = wanted.iter().any(Wanted::is_for_faults);
        let mut may_loop = for_faults;
        loop {
            let (moved, is_step) = match leave && self.is_at_one(wanted, pc) {
                false => (self.advance(Motion::Run, at, verb).await?, false),
                true => match self.after_wait(pc).await? {
                    None => (self.advance(Motion::Step, at, verb).await?, true),
                    Some(next) => match self.leave_wait(pc, next, at, verb).await? {
                        Left::At(now) => {
                            (leave, pc) = (now == pc, now);
                            continue;
                        }
                        Left::Otherwise(moved) => (moved, false),
                    },
                },
            };
            let reply = match moved {
                Moved::Stopped(reply) => reply,
                Moved::DeadlinePassed => return Ok((StopReason::DeadlinePassed, None)),
                Moved::Ended(verdict) => return Ok((StopReason::Ended(verdict), None)),
            };
            if let Some((access, address)) = reply.as_ref().and_then(StopReply::watchpoint) {
                match self.watched(wanted, access, address, at, verb).await? {
                    Some(ended) => return Ok(ended),
                    None => leave = false,
                }
                continue;
            }
            let signal = signal(&reply);
            if is_step && signal == SIGTRAP {
                if self.is_code_guard(pc) {
                    self.insert_faults(wanted).await?;
                }
                // A handler that is a loop of one instruction takes no fault each time.
                leave = may_loop && self.pc().await? == pc && self.leave_loop(wanted, pc).await?;
                continue;
            }
            let ends_run = signal == SIGTRAP
                && self.since == Since::Ours
                && wanted.iter().all(Wanted::is_for_each_hit);
            let fault;
            (pc, fault) = match for_faults {
                true => self.pc_and_fault().await?,
                // Wherever it is: a question less.
                false if ends_run => (self.pc_and_remove_points().await?, None),
                false => (self.pc().await?, None),
            };
            may_loop = fault.is_some();
            leave = true;
            match self.is_at_one(wanted, pc) {
                true if signal == SIGTRAP => {
                    if let Some(reason) = self.reached(wanted, pc, fault).await? {
                        return Ok((reason, Some(pc)));
                    }
                }
                // It was reset or loaded while it was at a breakpoint: the run goes on from
                // there.
                false if signal == SIGTRAP && self.since == Since::Moved => leave = false,
                _ if signal == SIGINT || reply.is_none() || self.since == Since::Paused => {
                    return Ok((StopReason::Paused, Some(pc)));
                }
                _ => return Ok((StopReason::Signal(signal), Some(pc))),
            }
        }
    }

    /// Whether a breakpoint of this run is there.
    fn is_at_one(&self, wanted: &[Wanted<'_>], pc: u64) -> bool {
        wanted.iter().any(|wanted| wanted.is_at(pc)) || self.is_code_guard(pc)
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
        let thread = self.thread();
        stub.run("running the guest", |client| match motion {
            // The others stay stopped meanwhile.
            Motion::Step => client.step(thread),
            Motion::Run => client.resume(),
            Motion::RunAlone => client.resume_thread(thread),
        })
        .await?;
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
                    Ok(reply) => Some(reply),
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
                    None
                }
            };
            let deadline = self.session.deadline;
            verb.turn = Some(shared.take_turn("run_until", deadline.into()).await?);
            let turns = self.count_of_turns();
            if before.checked_add(1) == Some(turns) && !by_monitor {
                (self.since, self.turns) = (Since::Ours, turns);
                return Ok(Moved::Stopped(reply));
            }
            let state = self.attachment.status(deadline).await?;
            if matches!(state, RunState::Shutdown | RunState::GuestPanicked) {
                return self.ended().await;
            }
            if state != RunState::Running {
                let last = stub.drain_stops(deadline).await?.or(reply);
                self.since = match shared.run_requests.last.load(Relaxed) {
                    RunRequests::STOP => Since::Paused,
                    _ => Since::Moved,
                };
                self.turns = turns;
                // QEMU 10.0 says nothing of a stop at a breakpoint after a monitor's `cont`.
                let is_of_before = state == RunState::Debug && signal(&last) != SIGTRAP;
                let last = last.filter(|_| !is_of_before);
                if last.is_none() {
                    self.select_core_at_point().await?;
                }
                return Ok(Moved::Stopped(last));
            }
            // Somebody stopped it for a moment, a save for example.
            verb.turn = None;
            by_monitor = true;
            stub.note(true);
        }
    }

    /// Of several cores, makes the one that is at a breakpoint the current one: where QEMU says
    /// nothing of a stop, it does not say whose it is.
    async fn select_core_at_point(&mut self) -> Result<(), DebugError> {
        for core in self.tour() {
            // There is no other.
            let Some(core) = core else { return Ok(()) };
            self.select(core).await?;
            let here = breakpoint(self.pc().await?);
            let mut state = self.attachment.stub.state();
            if state.points.contains(&here) {
                state.back_to = None;
                return Ok(());
            }
        }
        self.attachment.select_back(self.session.deadline).await
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
        let deadline = self.session.deadline.min(ENDING);
        match timeout(deadline, self.session.wait()).await {
            Ok(verdict) => Ok(Moved::Ended(Box::new(verdict))),
            Err(_) => Err(DebugError::Closed(gdb_remote::client::Closed::Eof)),
        }
    }
}

pub(super) fn signal(reply: &Option<StopReply>) -> u8 {
    match reply {
        Some(StopReply::Signal { signal, .. }) => *signal,
        _ => SIGTRAP,
    }
}

/// Waits until the guest does not run, as far as events tell; false when the session has ended.
async fn until_stopped(run_state: &mut watch::Receiver<RunState>) -> bool {
    let stopped = run_state.wait_for(|state| *state != RunState::Running);
    stopped.await.is_ok()
}
