//! How far a part has come: a bar in a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Gone when dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    part: &'static str,
    /// The tenth that was printed last, where there is no terminal.
    told: u64,
}

impl Progress {
    /// Of so many steps.
    pub(super) fn new(part: &'static str, steps: u64) -> Self {
        // Draws nothing where stderr is no terminal.
        let bar = ProgressBar::new(steps).with_message(part);
        if let Ok(style) =
            ProgressStyle::with_template("{msg:>9} {wide_bar} {pos}/{len} {elapsed} (left: {eta})")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, part, told: 0 }
    }

    pub(super) fn set(&mut self, done: u64) {
        self.bar.set_position(done);
        let steps = self.bar.length().unwrap_or_default().max(1);
        let tenth = done * 10 / steps;
        if self.bar.is_hidden() && tenth > self.told {
            self.told = tenth;
            println!("{}: {done} of {steps}", self.part);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
