//! Whether anything but the session itself may have changed QEMU's block devices, or the snapshots
//! in them, since they were last looked at: what is known of them then need not be asked again.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use qmp_proto::QmpEvent;
use qmp_proto::commands::TypedEvent;

/// What the names of all our block nodes and jobs begin with.
const MARK: &str = "snap";

/// Where QEMU may have other clients, so many hexadecimal digits follow, unlike those of any other
/// session. Short, since QEMU takes 4 µs for each byte that it reads, and a load has four such
/// names in it.
const DIGITS: usize = 6;

/// Commands that change no block device, beside all that begin with `query-`.
const HARMLESS: [&str; 8] = [
    "cont",
    "stop",
    "system_reset",
    "system_powerdown",
    "quit",
    "qom-get",
    "qom-list",
    "screendump",
];

/// Counts what may have changed something, and gives the names by which the session knows what is
/// its own.
pub(crate) struct BlockChanges {
    mark: String,
    names: AtomicU64,
    count: AtomicU64,
}

/// A command that may change something is under way: before its end nothing is known for certain.
pub(crate) struct Change<'a>(&'a BlockChanges);

impl BlockChanges {
    /// For a QEMU that this session has started, or for one that others use too.
    pub(crate) fn new(started: bool) -> Self {
        let mark = if started {
            format!("{MARK}.")
        } else {
            let random = RandomState::new().hash_one(0_u8) & 0xff_ffff;
            format!("{MARK}{random:0DIGITS$x}.")
        };
        Self {
            mark,
            names: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }

    /// Another as long as this is another.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// A name for a block node or a job, unlike those of any other client of this QEMU.
    pub(crate) fn name(&self) -> String {
        format!(
            "{}{}",
            self.mark,
            self.names.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// Keep it until the user's command of this name has been answered.
    pub(crate) fn command(&self, name: &str) -> Option<Change<'_>> {
        let harmless = name.starts_with("query-") || HARMLESS.contains(&name);
        (!harmless).then(|| self.change())
    }

    /// The same for a line of the human monitor.
    pub(crate) fn human_monitor_line(&self, line: &str) -> Option<Change<'_>> {
        let word = line.split([' ', '/']).next().unwrap_or_default();
        (!["info", "x", "xp"].contains(&word)).then(|| self.change())
    }

    fn change(&self) -> Change<'_> {
        self.note();
        Change(self)
    }

    /// The end of another's job, a tray that opens, a device that is gone. And the guest stopped or
    /// let run by something else than a command of the session's: a debugger perhaps, who has all
    /// of the human monitor's.
    pub(crate) fn event(&self, event: &QmpEvent, under_way: impl FnOnce() -> bool) {
        let may_change = match &*event.name {
            "STOP" | "RESUME" => !under_way(),
            name if ["JOB_", "BLOCK_", "DEVICE_"]
                .iter()
                .any(|kind| name.starts_with(kind)) =>
            {
                let job = event.typed();
                !matches!(job, Ok(TypedEvent::JobStatusChange(change)) if self.has_given(&change.id))
            }
            _ => false,
        };
        if may_change {
            self.note();
        }
    }

    /// Whether the name is from here.
    fn has_given(&self, name: &str) -> bool {
        let number = name
            .strip_prefix(&self.mark)
            .and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| {
            number < self.names.load(Ordering::Relaxed) && name == format!("{}{number}", self.mark)
        })
    }

    fn note(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.note();
    }
}

/// Whether this session or another of this project has given the name.
pub(crate) fn is_ours(name: &str) -> bool {
    let parts = name
        .strip_prefix(MARK)
        .and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(random, _)| {
        [0, DIGITS].contains(&random.len()) && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use qmp_proto::RawJson;
    use serde_json::{Value, json};

    use super::*;

    fn event(name: &str, data: Value) -> QmpEvent {
        QmpEvent::new(name.to_owned(), Some(RawJson::from_value(&data).unwrap()))
    }

    #[test]
    fn what_may_change_something_counts_and_nothing_else() {
        let changes = BlockChanges::new(true);
        for harmless in ["query-block", "cont", "qom-get"] {
            assert!(changes.command(harmless).is_none(), "{harmless}");
        }
        for harmless in ["info block", "x/4xb 0x0", "xp /1wx 0x0"] {
            assert!(changes.human_monitor_line(harmless).is_none(), "{harmless}");
        }
        let job = |id: &str| {
            event(
                "JOB_STATUS_CHANGE",
                json!({ "id": id, "status": "concluded" }),
            )
        };
        changes.event(&job(&changes.name()), || false);
        for name in ["STOP", "RESUME"] {
            changes.event(&event(name, json!({})), || true);
        }
        changes.event(
            &event("RESET", json!({ "guest": true, "reason": "guest-reset" })),
            || false,
        );
        assert_eq!(changes.count(), 0);
        let tray = event(
            "DEVICE_TRAY_MOVED",
            json!({ "device": "d", "id": "d", "tray-open": true }),
        );
        let another = job(&BlockChanges::new(false).name());
        let [stop, resume] = ["STOP", "RESUME"].map(|name| event(name, json!({})));
        // Names that begin as ours do, and that were never given.
        let [more, next, plus, zeros] = ["snap.0.backup", "snap.1", "snap.+0", "snap.00"].map(job);
        let changing = [tray, another, stop, resume, more, next, plus, zeros];
        for (before, event) in changing.iter().enumerate() {
            changes.event(event, || false);
            assert_eq!(changes.count(), before as u64 + 1, "{event:?}");
        }
    }

    #[test]
    fn a_command_counts_when_it_begins_and_when_it_is_over() {
        let changes = BlockChanges::new(true);
        for command in [
            changes.command("blockdev-del"),
            changes.human_monitor_line("savevm x"),
        ] {
            let during = changes.count();
            drop(command.unwrap());
            assert_ne!(changes.count(), during);
        }
        assert_eq!(changes.count(), 4);
    }

    #[test]
    fn names_are_known_again() {
        for changes in [BlockChanges::new(true), BlockChanges::new(false)] {
            let names = [changes.name(), changes.name()];
            assert!(
                names[0] != names[1] && names.iter().all(|name| is_ours(name)),
                "{names:?}"
            );
        }
        for other in ["snapshots", "snap1.1", "snap12345g.1", "snap123456", "disk"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
