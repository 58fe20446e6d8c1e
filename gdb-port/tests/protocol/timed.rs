//! A probe whose time a test moves.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use gdb_port::{Probe, ProbeOptions};

pub(crate) struct Timed {
    probe: Probe,
    options: ProbeOptions,
    start: Instant,
}

impl Timed {
    pub(crate) fn new(options: &ProbeOptions) -> Self {
        let start = Instant::now();
        Self {
            probe: Probe::new(options, start),
            options: options.clone(),
            start,
        }
    }

    /// Half the time has passed.
    pub(crate) fn reach_silence(&mut self) {
        self.probe
            .handle_timeout(self.start + self.options.deadline / 2);
    }

    /// The time for questions is over.
    pub(crate) fn reach_deadline(&mut self) {
        self.probe
            .handle_timeout(self.start + self.options.deadline);
    }

    /// The time for leaving is over, too.
    pub(crate) fn reach_end(&mut self) {
        let time = self.options.deadline + self.options.leave_within;
        self.probe.handle_timeout(self.start + time);
    }
}

impl Deref for Timed {
    type Target = Probe;

    fn deref(&self) -> &Probe {
        &self.probe
    }
}

impl DerefMut for Timed {
    fn deref_mut(&mut self) -> &mut Probe {
        &mut self.probe
    }
}
