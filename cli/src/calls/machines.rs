//! The machines by their names, and a call's way to its machine, with a bound on its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::Answer;
use super::call::{Call, MAIN, Request, Start};
use super::error::{CallError, CallErrorKind};
use super::machine::Machine;
use super::start::Policy;
use super::{perform, source, tests};

/// How many there may be at once.
const MACHINES: usize = 16;

/// The longest name.
const NAME: usize = 32;

/// How long a call may take beyond the deadline that it names: a QEMU that hangs answers none of
/// the few commands that a call consists of.
const GRACE: Duration = Duration::from_secs(30);

/// All machines of one client, or of one server.
pub(crate) struct Machines {
    policy: Policy,
    all: Mutex<BTreeMap<String, Arc<Machine>>>,
    /// The names of those that start.
    starting: Mutex<BTreeSet<String>>,
}

/// A name that nobody else gets while its machine starts.
struct Reserved<'a> {
    machines: &'a Machines,
    name: String,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.machines.starting().remove(&self.name);
    }
}

impl Machines {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            all: Mutex::default(),
            starting: Mutex::default(),
        }
    }

    fn starting(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Machine>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines of the source around a place.
    pub(crate) async fn source(&self, on: &str, at: &str) -> Result<Answer, CallError> {
        source::around(&*self.of(on)?, &self.policy, at, source::LINES).await
    }

    /// The names of those that there are.
    pub(crate) fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    pub(crate) fn of(&self, name: &str) -> Result<Arc<Machine>, CallError> {
        let all = self.all();
        all.get(name).map(Arc::clone).ok_or_else(|| {
            let known: Vec<_> = all.keys().map(String::as_str).collect();
            let known = match &known[..] {
                [] => "there is none; start one".to_owned(),
                known => format!("there are {}", known.join(", ")),
            };
            CallError::new(
                CallErrorKind::NoMachine,
                format!("no machine {name:?}: {known}"),
            )
        })
    }

    /// Does what is asked. The future may be dropped at any point.
    pub(crate) async fn perform(&self, request: Request) -> Result<Answer, CallError> {
        let bound = perform::deadline(&request.call)? + GRACE;
        let performed = timeout(bound, self.perform_unbounded(request)).await;
        performed.unwrap_or_else(|_| {
            let message = format!("not done within {bound:?}; the guest's state is not known");
            Err(CallError::new(CallErrorKind::Deadline, message))
        })
    }

    async fn perform_unbounded(&self, request: Request) -> Result<Answer, CallError> {
        let Request { on, call } = request;
        match call {
            Call::Start(start) => {
                let name = self.reserve(on)?;
                let started = self.policy.start(&start).await?;
                Ok(self.add(name, started).await)
            }
            Call::OpenBundle { folder } => {
                let name = self.reserve(on)?;
                let (opened, failure, text) = self.policy.open(&folder).await?;
                let machine = match self.add(name, opened).await {
                    Answer::Status(status) => status,
                    other => return Ok(other),
                };
                Ok(Answer::Opened {
                    machine,
                    failure,
                    text,
                })
            }
            Call::ListTests {
                firmware,
                filters,
                kind,
            } => {
                let policy = self.policy.clone();
                let listing = move || tests::list(&policy, &firmware, kind, &filters);
                let listed = tokio::task::spawn_blocking(listing).await;
                listed.unwrap_or_else(|panic| Err(CallError::failed(&panic)))
            }
            Call::RunTests {
                firmware,
                filters,
                kind,
                machine,
                deadline_ms,
            } => {
                let wanted = Start {
                    firmware,
                    machine,
                    ..Start::default()
                };
                let deadline = Duration::from_millis(deadline_ms);
                tests::run(&self.policy, &wanted, kind, &filters, deadline).await
            }
            Call::SourceLines { at, lines } => {
                source::around(&*self.of(&on)?, &self.policy, &at, lines).await
            }
            Call::Fork { name } => {
                let name = self.reserve(name)?;
                let forked = perform::fork(&*self.of(&on)?).await?;
                Ok(self.add(name, forked).await)
            }
            Call::List {} => Ok(self.list().await),
            Call::Stop {} => self.stop(&on).await,
            call => perform::on(&*self.of(&on)?, &on, call).await,
        }
    }

    async fn list(&self) -> Answer {
        let all = self.all().clone();
        // All at once: each that hangs takes its time.
        let mut asked = JoinSet::new();
        for (name, machine) in all {
            asked.spawn(async move { machine.status(&name).await });
        }
        let mut machines = Vec::new();
        while let Some(status) = asked.join_next().await {
            // One that cannot be asked says nothing of the others.
            machines.extend(status);
        }
        machines.sort_by(|one, other| one.machine.cmp(&other.machine));
        Answer::Machines { machines }
    }

    async fn stop(&self, name: &str) -> Result<Answer, CallError> {
        let machine = self.of(name)?;
        let stopped = machine.session.stop().await;
        let mut all = self.all();
        // Another may have got the name meanwhile, from who stopped this one too.
        if all.get(name).is_some_and(|now| Arc::ptr_eq(now, &machine)) {
            all.remove(name);
        }
        drop(all);
        let stopped = stopped.map_err(|error| CallError::failed(&error))?;
        Ok(Answer::done(format!("{name}: {stopped}")))
    }

    /// A name for a new machine, if it can have it.
    fn reserve(&self, name: String) -> Result<Reserved<'_>, CallError> {
        let refuse = |message: String| Err(CallError::invalid(message));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > NAME || !name.bytes().all(is_plain) {
            return refuse(format!(
                "a machine's name has 1 to {NAME} letters, digits, . _ and -"
            ));
        }
        let (all, mut starting) = (self.all(), self.starting());
        if all.contains_key(&name) || starting.contains(&name) {
            return refuse(format!("there is a machine {name} already; stop it first"));
        }
        if all.len() + starting.len() >= MACHINES {
            return refuse(format!(
                "there are {MACHINES} machines already; stop one first"
            ));
        }
        starting.insert(name.clone());
        let machines = self;
        Ok(Reserved { machines, name })
    }

    async fn add(&self, name: Reserved<'_>, machine: Machine) -> Answer {
        let machine = Arc::new(machine);
        self.all().insert(name.name.clone(), Arc::clone(&machine));
        Answer::Status(machine.status(&name.name).await)
    }

    /// Takes a machine that was started elsewhere for the main one.
    pub(crate) fn adopt(&self, machine: Machine) {
        self.all().insert(MAIN.to_owned(), Arc::new(machine));
    }

    /// Ends all of them, and waits for that.
    pub(crate) async fn stop_all(&self) {
        let all = std::mem::take(&mut *self.all());
        let mut stops = JoinSet::new();
        for machine in all.into_values() {
            stops.spawn(async move {
                // Dropped with the last handle, whatever comes of it.
                let _ = machine.session.stop().await;
            });
        }
        while stops.join_next().await.is_some() {}
    }
}
