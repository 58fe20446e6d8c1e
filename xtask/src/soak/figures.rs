//! What the soak measures: how long things take, and what this process has before and after.

use std::{fs, path::Path, time::Duration};

/// How long one thing took, again and again.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that this share of them stayed within; nothing without any.
    fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted
            .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
            .copied()
    }

    /// `p50/p99` in milliseconds.
    fn shown(&self) -> String {
        let milliseconds = |percent| {
            self.percentile(percent)
                .map(|time| time.as_secs_f64() * 1e3)
        };
        match (milliseconds(50), milliseconds(99)) {
            (Some(half), Some(most)) => format!("{half:.1}/{most:.1}"),
            _ => "-".to_owned(),
        }
    }
}

impl Extend<Duration> for Times {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, times: I) {
        self.0.extend(times);
    }
}

/// What this process has of what must not be left behind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Belongings {
    pub(super) descriptors: usize,
    pub(super) threads: usize,
    /// Zombies included.
    pub(super) children: usize,
    /// Temporary files and sockets.
    pub(super) files: usize,
    /// Resident, in KiB.
    pub(super) memory: u64,
}

/// How much memory may grow: what the allocator keeps for later, and no leak of a thousand cycles.
const GROWTH_KIB: u64 = 16 * 1024;

impl Belongings {
    pub(super) fn count() -> Self {
        let entries = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
        Self {
            descriptors: entries(Path::new("/proc/self/fd")),
            threads: entries(Path::new("/proc/self/task")),
            children: children(),
            files: entries(&std::env::temp_dir()),
            memory: resident(std::process::id()),
        }
    }

    /// Once it is as before, or after so long that it never will be: threads and descriptors go a
    /// moment after their process.
    pub(super) async fn settled(before: &Self) -> Self {
        let deadline = tokio::time::Instant::now() + super::PATIENCE;
        loop {
            let now = Self::count();
            if now.growth(before).is_empty() || tokio::time::Instant::now() > deadline {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What there is more of than before, in words.
    fn growth(&self, before: &Self) -> Vec<String> {
        let counts = [
            ("descriptors", before.descriptors, self.descriptors),
            ("threads", before.threads, self.threads),
            ("processes", before.children, self.children),
            ("temporary files", before.files, self.files),
        ];
        let mut grown: Vec<_> = counts
            .into_iter()
            .filter(|(_, before, after)| after > before)
            .map(|(name, before, after)| format!("{name} grew from {before} to {after}"))
            .collect();
        if self.memory > before.memory + GROWTH_KIB {
            grown.push(format!(
                "memory grew from {} to {} KiB",
                before.memory, self.memory
            ));
        }
        grown
    }
}

fn children() -> usize {
    let me = format!("PPid:\t{}", std::process::id());
    let statuses = fs::read_dir("/proc").into_iter().flatten().flatten();
    let statuses =
        statuses.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    statuses
        .filter(|status| status.lines().any(|line| line == me))
        .count()
}

/// A process's resident memory in KiB; nothing of one that is gone.
pub(super) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    value
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

/// One line of the table.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) part: String,
    /// How often, and of what.
    pub(super) amount: String,
    pub(super) ready: Times,
    pub(super) stop: Times,
    /// Answers to `query-status`.
    pub(super) answer: Times,
    pub(super) before: Belongings,
    pub(super) after: Belongings,
    /// What else went wrong.
    pub(super) faults: Vec<String>,
}

impl Row {
    pub(super) fn failed(part: &str, error: &anyhow::Error) -> Self {
        let now = Belongings::count();
        let faults = vec![format!("{error:#}")];
        Self {
            part: part.to_owned(),
            amount: "-".to_owned(),
            before: now,
            after: now,
            faults,
            ..Self::default()
        }
    }

    /// All that went wrong, what was left behind included.
    pub(super) fn faults(&self) -> Vec<String> {
        let grown = self.after.growth(&self.before);
        self.faults
            .iter()
            .chain(&grown)
            .map(|fault| format!("{}: {fault}", self.part))
            .collect()
    }

    fn cells(&self) -> [String; 10] {
        let Self { before, after, .. } = self;
        let both = |before: usize, after: usize| format!("{before}/{after}");
        [
            self.part.clone(),
            self.amount.clone(),
            self.ready.shown(),
            self.stop.shown(),
            self.answer.shown(),
            both(before.descriptors, after.descriptors),
            both(before.threads, after.threads),
            both(before.children, after.children),
            both(before.files, after.files),
            format!(
                "{:.1}/{:.1}",
                before.memory as f64 / 1024.0,
                after.memory as f64 / 1024.0
            ),
        ]
    }
}

const HEAD: [&str; 10] = [
    "part",
    "amount",
    "ready ms",
    "stop ms",
    "answer ms",
    "descriptors",
    "threads",
    "processes",
    "files",
    "memory MiB",
];

/// Times are p50/p99, counts before/after.
pub(super) fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..HEAD.len()).map(width).collect();
    let show = |cells: &[String; 10]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let text: Vec<_> = lines.iter().map(show).collect();
    format!(
        "times are p50/p99, counts before/after\n\n{}",
        text.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let mut times = Times::default();
        assert_eq!(times.shown(), "-");
        times.extend((1..=100).rev().map(Duration::from_millis));
        assert_eq!(times.shown(), "51.0/100.0");
    }

    #[test]
    fn what_is_left_behind_is_a_fault_and_what_is_gone_is_none() {
        let before = Belongings {
            descriptors: 10,
            threads: 3,
            children: 0,
            files: 0,
            memory: 5000,
        };
        let mut row = Row {
            part: "cycles".to_owned(),
            before,
            after: before,
            ..Row::default()
        };
        row.after.threads = 2;
        row.after.memory += GROWTH_KIB;
        assert_eq!(row.faults(), [""; 0]);
        row.after.children = 1;
        row.after.memory += 1;
        row.faults.push("a start failed".to_owned());
        let faults = row.faults();
        assert_eq!(faults[0], "cycles: a start failed");
        assert_eq!(faults[1], "cycles: processes grew from 0 to 1");
        assert!(
            faults[2].starts_with("cycles: memory grew from 5000"),
            "{faults:?}"
        );
        assert_eq!(faults.len(), 3);
    }

    #[test]
    fn this_process_has_descriptors_threads_and_memory() {
        let mine = Belongings::count();
        assert!(
            mine.descriptors > 2 && mine.threads > 0 && mine.memory > 100,
            "{mine:?}"
        );
        assert!(table(&[Row::default()]).contains("descriptors"));
    }
}
