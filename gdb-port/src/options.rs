//! How to probe: what the caller knows of the guest, what is to become of it, and how long it may
//! take.

use std::time::Duration;

/// Upper bound for deadlines, so that `Instant + Duration` cannot overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What to do with a guest that ran and was stopped by the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Leave {
    /// Leave it stopped: a debugger is about to attach.
    #[default]
    Paused,
    /// Detach, so that it runs on. A guest that did not run before, or of which that is not known,
    /// is left stopped.
    RunOn,
}

/// What the caller knows of the guest, from the monitor's `query-status`, before the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GuestState {
    /// It runs.
    Running,
    /// It does not run: `paused`, `prelaunch` and every other run state but `running`.
    Stopped,
}

/// How to probe. The default leaves the guest paused, asks for the target description, and takes
/// two seconds at most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeOptions {
    /// What becomes of a guest that ran. Default: it is left paused.
    pub leave: Leave,
    /// The run state before, if the caller knows it. Default: not known.
    pub guest: Option<GuestState>,
    /// The process that should be listening. Default: any.
    pub owner: Option<u32>,
    /// The caller's word that no client is attached (`query-chardev` said so), where looks see
    /// nothing. Default: no.
    pub nobody_attached: bool,
    /// Whether to read the target description. Default: yes.
    pub target: bool,
    /// Until when it must have answered everything. Default: 2 s, a hundred times what QEMU takes.
    pub deadline: Duration,
    /// How long leaving may take after that. Default: 500 ms.
    pub leave_within: Duration,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            leave: Leave::Paused,
            guest: None,
            owner: None,
            nobody_attached: false,
            target: true,
            deadline: Duration::from_secs(2),
            leave_within: Duration::from_millis(500),
        }
    }
}

impl ProbeOptions {
    /// Sets what becomes of a guest that ran.
    #[must_use]
    pub fn leave(mut self, leave: Leave) -> Self {
        self.leave = leave;
        self
    }

    /// Says what the guest did before.
    #[must_use]
    pub fn guest(mut self, state: GuestState) -> Self {
        self.guest = Some(state);
        self
    }

    /// Names the process that should be listening.
    #[must_use]
    pub fn owner(mut self, pid: u32) -> Self {
        self.owner = Some(pid);
        self
    }

    /// Vouches that no client is attached, for platforms and addresses where that cannot be seen.
    #[must_use]
    pub fn nobody_attached(mut self) -> Self {
        self.nobody_attached = true;
        self
    }

    /// Sets whether to read the target description.
    #[must_use]
    pub fn target(mut self, read: bool) -> Self {
        self.target = read;
        self
    }

    /// Sets the deadline of the questions.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how long leaving may take after the deadline.
    #[must_use]
    pub fn leave_within(mut self, time: Duration) -> Self {
        self.leave_within = time;
        self
    }

    pub(crate) fn bounded_deadline(&self) -> Duration {
        self.deadline.min(LONGEST)
    }

    pub(crate) fn bounded_leave(&self) -> Duration {
        self.leave_within.min(LONGEST)
    }
}
