//! The words of `monitor` that the server answers itself, and those of QEMU's that it passes on.

use qemu_controller::{AfterLoad, Session};
use std::time::Duration;

use crate::escape;
use crate::failure::chain;

/// How long a save or a load may take: a machine may have much memory.
const STATE: Duration = Duration::from_secs(20);

const HELP: &str = "\
reset                 back to the firmware's reset, and held there (also `reset halt`, `reset init`)
halt                  nothing: where a debugger can ask, the firmware is stopped
snapshot save NAME    save the whole machine as it is now
snapshot load NAME    take the machine back to there
snapshot list         those that there are
snapshot delete NAME
quit                  end qemu-controller and the machine
info ..., x, xp, p    QEMU's own: `info registers`, `info mtree`, `xp /4xw 0x40000000`, ...
gdb keeps what it has read: after reset and snapshot load, `maintenance flush register-cache`
makes it look again, where its hook of `qemu-controller debug` is not loaded.
";

/// QEMU's words that only look at the machine. Others write files and run programs.
const LOOKS: [&str; 5] = ["info", "x", "xp", "p", "print"];

/// What is to be done for a line.
#[derive(Debug, PartialEq)]
pub(super) enum Word {
    Say(String),
    Reset,
    Quit,
    Snapshot(SnapshotVerb, String),
    /// One of QEMU's.
    PassOn,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SnapshotVerb {
    Save,
    Load,
    List,
    Delete,
}

/// Reads a line.
pub(super) fn word(line: &str) -> Word {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [] | ["help"] => Word::Say(HELP.to_owned()),
        ["reset" | "system_reset", ..] => Word::Reset,
        ["halt"] => Word::Say(String::new()),
        ["quit" | "q" | "shutdown"] => Word::Quit,
        ["snapshot", "list"] => Word::Snapshot(SnapshotVerb::List, String::new()),
        ["snapshot", "save", name] | ["savevm", name] => {
            Word::Snapshot(SnapshotVerb::Save, name.to_owned())
        }
        ["snapshot", "load", name] | ["loadvm", name] => {
            Word::Snapshot(SnapshotVerb::Load, name.to_owned())
        }
        ["snapshot", "delete", name] | ["delvm", name] => {
            Word::Snapshot(SnapshotVerb::Delete, name.to_owned())
        }
        ["snapshot", ..] => Word::Say(
            "snapshot save NAME, snapshot load NAME, snapshot list or snapshot delete NAME\n"
                .to_owned(),
        ),
        [first, ..] if LOOKS.contains(&first.split('/').next().unwrap_or(first)) => Word::PassOn,
        [first, ..] => Word::Say(format!(
            "{first} is not known here (`monitor help`); `qemu-controller run --gdb` has all of QEMU's monitor\n"
        )),
    }
}

/// Saves, loads, lists or deletes a snapshot; what to say of it.
pub(super) async fn snapshot(session: &Session, verb: SnapshotVerb, name: &str) -> String {
    let session = session.with_deadline(STATE);
    let done = match verb {
        SnapshotVerb::Save => session.save_snapshot(name).overwrite().await.map(|lost| {
            let lost: Vec<_> = lost.iter().map(ToString::to_string).collect();
            match &lost[..] {
                [] => format!("{name} is saved"),
                lost => format!(
                    "{name} is saved; a load does not bring back {}",
                    lost.join(", ")
                ),
            }
        }),
        SnapshotVerb::Load => {
            let load = session.load_snapshot(name).then(AfterLoad::Paused).await;
            load.map(|_| format!("{name} is loaded"))
        }
        SnapshotVerb::Delete => {
            let deleted = session.delete_snapshot(name).await;
            deleted.map(|()| format!("{name} is deleted"))
        }
        SnapshotVerb::List => session.list_snapshots().await.map(|snapshots| {
            let names: Vec<_> = snapshots.iter().map(|snapshot| &*snapshot.name).collect();
            match &names[..] {
                [] => "no snapshot".to_owned(),
                names => names.join("\n"),
            }
        }),
    };
    let text = done.unwrap_or_else(|error| chain(&error));
    let lines: Vec<_> = text.lines().map(escape::line).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_their_users_mean_them() {
        let named = |verb, name: &str| Word::Snapshot(verb, name.to_owned());
        let rows = [
            ("reset", Word::Reset),
            ("  reset   halt ", Word::Reset),
            ("system_reset", Word::Reset),
            ("halt", Word::Say(String::new())),
            ("quit", Word::Quit),
            ("snapshot save a", named(SnapshotVerb::Save, "a")),
            ("loadvm a", named(SnapshotVerb::Load, "a")),
            ("snapshot list", named(SnapshotVerb::List, "")),
            ("info registers", Word::PassOn),
            ("xp/4xw 0", Word::PassOn),
            ("help", Word::Say(HELP.to_owned())),
        ];
        for (line, expected) in rows {
            assert_eq!(word(line), expected, "{line}");
        }
        for line in [
            "pmemsave 0 1 /tmp/x",
            "migrate exec:id",
            "snapshot save",
            "information",
        ] {
            let Word::Say(words) = word(line) else {
                panic!("{line}")
            };
            assert!(!words.is_empty());
        }
    }
}
