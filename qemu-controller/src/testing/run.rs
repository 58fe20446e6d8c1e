//! A run of tests on several machines side by side.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

use super::bundles::Bundles;
use super::capture::{Capture, Live};
#[cfg(feature = "defmt")]
use super::frames::FrameSource;
use super::frames::Frames;
use super::machine::Machine;
use super::outcome::{Failure, Outcome, TestResult};
use super::{Isolation, TestCase};
use crate::client::transaction::resume_panic;
use crate::config::QemuConfig;
use crate::coverage::ExecutedCode;
#[cfg(feature = "defmt")]
use crate::defmt::{Decoder, Filter};
use crate::error::with_causes;
use crate::escape;
use crate::fork::{MachineState, StateError};
use crate::semihosting::HostError;
use crate::session::error::StartError;
use crate::snapshot::SnapshotError;

/// How long a test may take that does not say so itself, as with probe-rs.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often in a row a machine may fail to boot before no more is tried.
const MOST_FAILED_BOOTS: usize = 3;

/// A run of tests that has not begun: [`run`](Self::run) it, or set more before.
#[derive(Clone, Debug)]
pub struct TestRun {
    config: QemuConfig,
    isolation: Isolation,
    threads: usize,
    deadline: Duration,
    kept: Option<KeptState>,
    pub(super) bundles: Option<Bundles>,
    pub(super) frames: Frames,
}

/// Where the booted state is kept from one program to the next.
#[derive(Clone, Debug)]
struct KeptState {
    path: PathBuf,
    slower_than: Duration,
}

/// What happens in a run, as it happens.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// This test begins to run.
    Started(usize),
    /// This test has printed this. It comes about when it was printed, 50 ms later at the most.
    Output(usize, &'a [u8]),
    /// This test is over.
    Finished(usize, &'a TestResult),
    /// This code ran for no test of its own, where the configuration records
    /// [coverage](QemuConfig::coverage): that of a boot, or the whole run of a firmware that runs
    /// its tests by itself.
    Executed(&'a ExecutedCode),
}

/// The same, from a machine.
#[derive(Debug)]
pub(super) enum Event {
    Started(usize),
    Output(usize, Vec<u8>),
    Finished(usize, TestResult),
    Executed(ExecutedCode),
}

/// Why a run could not be done. What is a test's own is in its [`Outcome`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestRunError {
    /// QEMU did not start.
    #[error("QEMU did not start")]
    Start(#[from] StartError),
    /// The firmware did not come to where it asks which test is wanted.
    #[error(
        "the firmware did not come to ask which test it is to run: {why}{}",
        printed(output)
    )]
    Boot {
        /// Why not.
        why: String,
        /// What it had printed.
        output: Vec<u8>,
    },
    /// Its calls cannot be answered.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The booted machine cannot be saved or restored. [`Isolation::Boot`] needs neither.
    #[error("the booted machine cannot be saved or restored; an isolation by boot needs neither")]
    Snapshot(#[from] SnapshotError),
    /// The booted machine's state cannot be passed on. [`Isolation::Boot`] does without.
    #[error("the booted machine's state cannot be passed on; an isolation by boot does without")]
    State(#[from] StateError),
}

impl TestRunError {
    pub(super) fn boot(why: String, output: Capture) -> Self {
        let (output, _) = output.finish();
        Self::Boot { why, output }
    }
}

/// What a firmware printed, for an error.
fn printed(output: &[u8]) -> String {
    match output {
        [] => String::new(),
        output => format!(
            "\nit printed:\n{}",
            escape::each_line(&String::from_utf8_lossy(output))
        ),
    }
}

impl TestRun {
    /// Of the firmware of this configuration. The machine's endpoints are its own; whether it
    /// starts paused, and whether a reset ends it, the run decides.
    #[must_use]
    pub fn new(config: QemuConfig) -> Self {
        Self {
            config,
            isolation: Isolation::default(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            deadline: DEADLINE,
            kept: None,
            bundles: None,
            frames: Frames::default(),
        }
    }

    /// Writes a [bundle](crate::bundle) of each test that fails into this folder, of the first
    /// `most` of them: the machine at the place of the failure. Default: none.
    #[must_use]
    pub fn bundles(mut self, folder: impl Into<PathBuf>, most: usize) -> Self {
        self.bundles = Some(Bundles::new(folder.into(), most));
        self
    }

    /// How tests are kept apart. Default: [`Isolation::Restore`].
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How many machines work side by side. Default: one for each processor.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// How long a test may take that does not say so itself, and the boot. Default: 60 s, as with
    /// probe-rs.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Keeps the booted state in this file for later programs, if the boot took longer than this: a
    /// program that runs one test, as nextest starts them, boots no more then. **It has all that
    /// the guest's memory has**, and only its owner can read it.
    ///
    /// A state that is there is used where it fits: board, CPU, memory, QEMU's version and the
    /// firmware's contents are the same, and its checksum is right. One that does not is replaced.
    /// With [coverage](QemuConfig::coverage) none is kept or used: the boot's lines count too.
    #[must_use]
    pub fn keep_state(mut self, path: impl Into<PathBuf>, slower_than: Duration) -> Self {
        let path = path.into();
        self.kept = Some(KeptState { path, slower_than });
        self
    }

    /// Makes lines of defmt's frames that tests log by this way: those that the filter takes. Where
    /// it is [RTT](FrameSource::Rtt), the configuration has to [read](QemuConfig::rtt) it. The log
    /// format's colours are left out.
    #[cfg(feature = "defmt")]
    #[must_use]
    pub fn defmt(mut self, source: FrameSource, decoder: Decoder, filter: Filter) -> Self {
        self.frames = Frames::new(source, decoder, filter);
        self
    }

    /// What the whole run of a firmware that prints its tests' results is done with.
    pub(super) fn for_whole_run(self) -> (QemuConfig, Duration) {
        (self.config.start_paused(true), self.deadline)
    }

    /// The first machine: from the state that is kept, or booted.
    async fn first_machine(&self) -> Result<Machine, TestRunError> {
        let kept = self.kept.as_ref().filter(|_| !self.config.coverage);
        let Some(KeptState { path, slower_than }) = kept else {
            return Machine::boot(&self.config, self.isolation, self.deadline).await;
        };
        if let Ok(state) = MachineState::open(path) {
            match Machine::fork(&self.config, self.isolation, &state).await {
                Ok(machine) => return Ok(machine),
                Err(error) => debug!(%error, "the kept state is not used"),
            }
        }
        let since = Instant::now();
        let machine = Machine::boot(&self.config, self.isolation, self.deadline).await?;
        if since.elapsed() > *slower_than {
            // Whoever comes next boots too where it cannot be kept.
            if let Err(error) = keep(&machine, path).await {
                debug!(%error, "the booted state is not kept");
            }
        }
        Ok(machine)
    }

    /// Runs these tests, in their order as far as several machines keep one, and returns their
    /// results in it. Those that say that they are to be ignored are run too: leave out what is
    /// not wanted.
    ///
    /// Dropped, it ends all its machines.
    ///
    /// # Errors
    /// [`TestRunError`], where no test could be run. Later a machine that cannot be had is the
    /// [failure](Failure::Machine) of the test that it was for.
    pub async fn run(
        self,
        tests: &[TestCase],
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<Vec<TestResult>, TestRunError> {
        if tests.is_empty() {
            return Ok(Vec::new());
        }
        let mut run = self;
        if run.isolation == Isolation::Restore && tests.len() <= run.threads {
            // No machine is used twice: there is nothing to restore.
            run.isolation = Isolation::Boot;
        }
        // The first machine shows whether there can be any.
        let mut first = run.first_machine().await?;
        let state = match run.isolation {
            Isolation::Fork => Some(first.save().await?),
            _ => None,
        };
        if let Some(executed) = first.take_boot() {
            progress(Progress::Executed(&executed));
        }
        let (sender, mut events) = mpsc::unbounded_channel();
        let queue = tests.iter().cloned().enumerate().collect::<VecDeque<_>>();
        let worker = Worker {
            run: Arc::new(run.clone()),
            state,
            queue: Arc::new(Mutex::new(queue)),
            events: sender,
        };
        let mut workers = JoinSet::new();
        let mut first = Some(first);
        for _ in 0..run.threads.min(tests.len()) {
            workers.spawn(worker.clone().work(first.take()));
        }
        drop(worker);
        let mut results: Vec<Option<TestResult>> = vec![None; tests.len()];
        while let Some(event) = events.recv().await {
            match event {
                Event::Started(index) => progress(Progress::Started(index)),
                Event::Output(index, bytes) => progress(Progress::Output(index, &bytes)),
                Event::Executed(executed) => progress(Progress::Executed(&executed)),
                Event::Finished(index, result) => {
                    progress(Progress::Finished(index, &result));
                    results[index] = Some(result);
                }
            }
        }
        while let Some(worker) = workers.join_next().await {
            // Otherwise what it did not run has no result.
            worker.unwrap_or_else(resume_panic);
        }
        let failed = || Failure::Machine("it was not run".to_owned());
        let result = |result: Option<TestResult>| result.unwrap_or_else(|| without_run(failed()));
        Ok(results.into_iter().map(result).collect())
    }
}

/// Puts the state in place whole, or not at all.
async fn keep(machine: &Machine, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let state = machine.save().await?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let made = tempfile::tempdir_in(folder)?;
    let whole = made.path().join("state");
    state.persist(&whole)?;
    std::fs::rename(whole, path)?;
    Ok(())
}

/// What one machine after the other works through.
#[derive(Clone)]
struct Worker {
    run: Arc<TestRun>,
    state: Option<MachineState>,
    queue: Arc<Mutex<VecDeque<(usize, TestCase)>>>,
    events: mpsc::UnboundedSender<Event>,
}

impl Worker {
    async fn work(self, mut machine: Option<Machine>) {
        let mut failed_boots = 0;
        while let Some((index, test)) = self.next_test() {
            let _ = self.events.send(Event::Started(index));
            let result = match machine.take() {
                Some(machine) => Ok(machine),
                None if failed_boots == MOST_FAILED_BOOTS => {
                    Err("it does not boot any more".to_owned())
                }
                None => self.machine().await.map_err(|error| {
                    failed_boots += 1;
                    with_causes(&error)
                }),
            };
            let result = match result {
                Ok(mut ready) => {
                    failed_boots = 0;
                    if let Some(executed) = ready.take_boot() {
                        let _ = self.events.send(Event::Executed(executed));
                    }
                    let live = Live {
                        test: index,
                        events: self.events.clone(),
                    };
                    let output = Capture::live(live, self.run.frames.of_test());
                    let deadline = test.timeout.unwrap_or(self.run.deadline);
                    let bundles = self.run.bundles.as_ref();
                    match ready.run(&test, deadline, bundles, output).await {
                        Ok(result) => {
                            let is_over = matches!(
                                result.outcome,
                                Outcome::Failed(Failure::Ended(_) | Failure::Stopped(_))
                            );
                            if self.run.isolation == Isolation::Restore && !is_over {
                                machine = Some(ready);
                            }
                            result
                        }
                        Err(error) => without_run(Failure::Machine(with_causes(&error))),
                    }
                }
                Err(why) => without_run(Failure::Machine(why)),
            };
            let _ = self.events.send(Event::Finished(index, result));
        }
    }

    fn next_test(&self) -> Option<(usize, TestCase)> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    }

    async fn machine(&self) -> Result<Machine, TestRunError> {
        let TestRun {
            config,
            isolation,
            deadline,
            ..
        } = &*self.run;
        match &self.state {
            Some(state) => Machine::fork(config, *isolation, state).await,
            None => Machine::boot(config, *isolation, *deadline).await,
        }
    }
}

fn without_run(failure: Failure) -> TestResult {
    TestResult::without_run(Outcome::Failed(failure))
}
