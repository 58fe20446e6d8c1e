//! Loading a snapshot.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use qmp_proto::Command as _;
use qmp_proto::commands::{Cont, QueryStatus, RunState, SnapshotLoad, Stop};

use super::devices::LostDevice;
use super::error::SnapshotError;
use super::listing::{Precheck, SnapshotEntry};
use super::name::{self, Tag};
use super::store::Store;
use super::{reset, sd_card};
use crate::client::transaction::Transaction;
use crate::error::CommandError;
use crate::serial::Serial;
use crate::session::Session;

/// What the guest does after a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterLoad {
    /// It runs if it ran before the call.
    #[default]
    AsBefore,
    /// It runs if it ran when it was saved; as before the call where the snapshot does not say.
    AsSaved,
    /// It is paused, and has not run one instruction since it was saved.
    Paused,
    /// It runs.
    Running,
}

/// A load that has not begun: await it, or set more options before. Made by
/// [`Session::load_snapshot`].
#[derive(Debug)]
#[must_use = "nothing is loaded before it is awaited"]
pub struct LoadSnapshot<'a> {
    session: &'a Session,
    name: &'a str,
    options: Options,
}

#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) then: AfterLoad,
    pub(super) unchecked: bool,
    /// The caller's debugger has stopped the guest: QEMU is not asked why it is.
    pub(super) is_stopped: bool,
    /// The ports whose output from before the load is dropped, while the guest is paused: so
    /// nothing is dropped that it prints after the load.
    pub(super) without_output: Option<Vec<Serial>>,
}

impl<'a> LoadSnapshot<'a> {
    pub(super) fn new(session: &'a Session, name: &'a str) -> Self {
        Self {
            session,
            name,
            options: Options::default(),
        }
    }

    /// What the guest does after the load. Default: what it did before the call.
    pub fn then(mut self, then: AfterLoad) -> Self {
        self.options.then = then;
        self
    }

    /// Loads it though it was taken with something else, or by something else that left no note.
    /// QEMU finds most misfits itself, but some only in the middle of the load, which ruins the
    /// state of the guest that runs, and some by an abort.
    pub fn unchecked(mut self) -> Self {
        self.options.unchecked = true;
        self
    }

    /// Says that the caller's debugger has stopped the guest. QEMU is not asked why it is then, which
    /// is a large part of a load.
    #[cfg(feature = "tests")]
    pub(crate) fn of_stopped(mut self) -> Self {
        self.options.is_stopped = true;
        self
    }
}

impl<'a> IntoFuture for LoadSnapshot<'a> {
    type Output = Result<Vec<LostDevice>, SnapshotError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            name::check(self.name)?;
            let (name, options) = (self.name.to_owned(), self.options);
            let store = Arc::clone(&self.session.inner.snapshots);
            let load = async move |transaction| load(&transaction, &store, &name, &options).await;
            self.session.transaction(SnapshotLoad::NAME, load).await
        })
    }
}

pub(super) async fn load(
    transaction: &Transaction,
    store: &Store,
    name: &str,
    options: &Options,
) -> Result<Vec<LostDevice>, SnapshotError> {
    let precheck = match store.record() {
        Some(record) if record.find(name).is_ok() => {
            Precheck::from_record(transaction, record, options.is_stopped).await?
        }
        _ => Precheck::query(transaction, store).await?,
    };
    match load_checked(transaction, store, &precheck, name, options).await {
        Ok(lost) => Ok(lost),
        Err(error) => {
            let explain =
                precheck.explain(error, transaction, store, |now| now.find(name).map(drop));
            Err(explain.await)
        }
    }
}

async fn load_checked(
    transaction: &Transaction,
    store: &Store,
    precheck: &Precheck,
    name: &str,
    options: &Options,
) -> Result<Vec<LostDevice>, SnapshotError> {
    let (node, SnapshotEntry { text, tag }) = precheck.listing.find(name)?;
    if !options.unchecked {
        check_fits(transaction, store, tag).await?;
    }
    let mut before = precheck.run_state.clone();
    let ran = before == RunState::Running;
    let run = match options.then {
        AfterLoad::AsBefore => ran,
        AfterLoad::AsSaved => tag.running.unwrap_or(ran),
        AfterLoad::Paused => false,
        AfterLoad::Running => true,
    };
    // A snapshot that something else saved may have the SD card in it: while the card is out, the
    // load fails where QEMU would abort.
    let cards = if tag.is_ours() {
        &[]
    } else {
        store.cards(transaction).await?
    };
    let devices = precheck.listing.devices(node);
    let registers = store.registers_of(text);
    loop {
        // QEMU lets a guest that ran run on at once.
        let runs_on = before == RunState::Running
            && run
            && options.without_output.is_none()
            && registers.is_none();
        if !runs_on {
            pause_for_load(transaction, store, &before).await?;
        }
        let id = store.ids.next();
        let command = SnapshotLoad::new(&id, text, node, &devices);
        let loaded = sd_card::job_without(transaction, cards, &id, &command).await;
        let loaded = match loaded {
            Ok(resumed) => {
                let lost = store.write_registers(transaction, registers.as_deref());
                lost.await.map(|lost| (resumed, lost))
            }
            Err(error) => Err(error),
        };
        // Until the guest is known to run.
        store.set_loaded(false);
        let lost = match loaded {
            Err(error) => {
                transaction.run(ran).await?;
                store.set_loaded(ran);
                return Err(error);
            }
            // QEMU did not let it run: something else had stopped it, which had not been read when
            // the run state was checked. Or events were missed.
            Ok((false, lost)) if runs_on => match transaction.command(&QueryStatus).await?.status {
                RunState::Running => lost,
                stopped => {
                    before = stopped;
                    continue;
                }
            },
            Ok((_, lost)) => lost,
        };
        for port in options.without_output.iter().flatten() {
            port.take();
        }
        if run && !runs_on {
            transaction.command(&Cont).await?;
        }
        store.set_loaded(run);
        return Ok(lost);
    }
}

/// Pauses the guest, and does what has to be done before a load into a machine that is paused.
async fn pause_for_load(
    transaction: &Transaction,
    store: &Store,
    before: &RunState,
) -> Result<(), CommandError> {
    if *before == RunState::Running {
        transaction.command(&Stop).await?;
        // If something else had stopped it, that has been read by now.
        return reset::reset_if_shut_down(transaction, &transaction.known_run_state()).await;
    }
    reset::reset_if_shut_down(transaction, before).await?;
    store.run_pflash_callbacks(transaction).await
}

/// Whether the snapshot was taken with what there is now. In a session's own image all were.
async fn check_fits(
    transaction: &Transaction,
    store: &Store,
    tag: &Tag,
) -> Result<(), SnapshotError> {
    let Some(now) = store.fingerprint_for_file(transaction).await? else {
        return Ok(());
    };
    let name = tag.name.clone();
    let Some(saved) = &tag.taken_with else {
        return Err(SnapshotError::UnknownOrigin { name });
    };
    let mismatches = saved.mismatches(now);
    if mismatches.is_empty() {
        return Ok(());
    }
    Err(SnapshotError::OtherMachine { name, mismatches })
}
