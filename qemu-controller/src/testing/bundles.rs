//! Bundles of the tests that fail: each machine is kept at the place of its failure, before the next
//! test has it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::outcome::{Failure, Outcome, TestResult};
use crate::bundle::{Account, Recorder, Written};
use crate::session::Session;

/// Where they are written, and how many more there may be.
#[derive(Clone, Debug)]
pub(super) struct Bundles {
    folder: PathBuf,
    left: Arc<AtomicUsize>,
}

impl Bundles {
    pub(super) fn new(folder: PathBuf, most: usize) -> Self {
        let left = Arc::new(AtomicUsize::new(most));
        Self { folder, left }
    }

    /// For the next test; `None` where there are enough.
    pub(super) fn recorder(&self) -> Option<Recorder> {
        (self.left.load(Relaxed) > 0).then(Recorder::default)
    }

    /// Writes one where the test has failed.
    pub(super) async fn write(
        &self,
        recorder: &Recorder,
        session: &Session,
        name: &str,
        result: &TestResult,
    ) -> Option<Result<Written, String>> {
        let failure = match &result.outcome {
            // That says nothing of the test.
            Outcome::Failed(Failure::Machine(_)) => return None,
            Outcome::Failed(failure) => failure,
            _ => return None,
        };
        let take = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Relaxed, Relaxed, take).ok()?;
        let account = Account::new(name, failure.name())
            .message(failure.to_string())
            .text("output.txt", result.output.clone());
        let written = recorder.write(session, account, &self.folder).await;
        Some(written.map_err(|error| error.to_string()))
    }
}
