//! How a watched run ended: the verdict, and the fault or panic before it.

use std::fmt;

use serde_json::{Value, json};

use super::report::CoreReport;
use crate::verdict::Verdict;

/// How a watched run ended.
///
/// Displayed as the verdict, and what is known of the fault or panic before it; with `{:#}` whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunReport {
    /// How the run ended.
    pub verdict: Verdict,
    /// The last fault or panic before that, where the firmware did not come back from it as far as
    /// that was seen: looked at as it happened.
    pub cause: Option<Box<CoreReport>>,
}

impl From<Verdict> for RunReport {
    /// Of a run that was not watched.
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            cause: None,
        }
    }
}

impl RunReport {
    /// The cores that the report has, in the order of what they tell: what faulted or panicked, or
    /// else where each core was at the deadline.
    pub fn cores(&self) -> impl Iterator<Item = &CoreReport> {
        let cores: &[CoreReport] = match &self.verdict {
            Verdict::Faulted(core) => std::slice::from_ref(&**core),
            _ if self.cause.is_some() => &[],
            Verdict::TimedOut(hang) => &hang.cores,
            _ => &[],
        };
        self.cause.iter().map(|core| &**core).chain(cores)
    }

    /// What is to be said before the cores, where they may not be why the run ended so.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        let fault = self
            .cause
            .as_ref()
            .is_some_and(|core| core.panicked_in.is_none());
        let is_exit = matches!(
            self.verdict,
            Verdict::Exited { .. } | Verdict::Reset | Verdict::Watchdog
        );
        (fault && is_exit).then_some("the last fault before that, which it may have handled:")
    }

    /// For a program: what the cores were doing, in objects.
    #[must_use]
    pub fn cores_json(&self) -> Value {
        json!(self.cores().map(CoreReport::to_json).collect::<Vec<_>>())
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = f.alternate();
        if let Verdict::Faulted(core) = &self.verdict
            && full
        {
            return write!(f, "a core stays in the handler of a fault: {core:#}");
        }
        write!(f, "{}", self.verdict)?;
        if matches!(self.verdict, Verdict::Faulted(_)) || self.verdict.success() {
            return Ok(());
        }
        if let Some(note) = self.note() {
            write!(f, "\n{note}")?;
        }
        for core in self.cores() {
            match full {
                true => write!(f, "\n{core:#}")?,
                false => write!(f, "\n{core}")?,
            }
        }
        Ok(())
    }
}
