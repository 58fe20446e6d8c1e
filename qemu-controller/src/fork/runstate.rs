//! The run state inside a saved state: QEMU takes it on with the state. It is in the section
//! `globalstate`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use qmp_proto::commands::RunState;

/// The section's name with its length before it, its instance and its version.
const SECTION: &[u8] = b"\x0bglobalstate\0\0\0\0\0\0\0\x01";

const CHUNK: usize = 1024 * 1024;

/// Whether QEMU goes from `inmigrate` to this run state. Where its table of transitions lacks that
/// one, as at a debugger's breakpoint (`debug`), it aborts.
pub(super) fn can_begin(run_state: &RunState) -> bool {
    !matches!(
        run_state,
        RunState::Debug
            | RunState::RestoreVm
            | RunState::InMigrate
            | RunState::SaveVm
            | RunState::FinishMigrate
            | RunState::Colo
    )
}

/// Replaces this run state by `paused` in a saved state. Returns false, and changes nothing, where
/// it is not there exactly once.
pub(super) fn pause(state: &File, bytes: u64, run_state: &RunState) -> io::Result<bool> {
    let named = named(run_state.as_str());
    let Some(at) = find_once(state, bytes, &named)? else {
        return Ok(false);
    };
    let mut paused = self::named("paused");
    // The text is in a buffer of 100 bytes: the rest of a longer one becomes zero.
    paused.resize(paused.len().max(named.len()), 0);
    state.write_all_at(&paused, at)?;
    Ok(true)
}

/// The section as far as its text goes: name, instance, version, length, text with its end.
fn named(run_state: &str) -> Vec<u8> {
    let length = run_state.len() as u32 + 1;
    [
        SECTION,
        &length.to_be_bytes()[..],
        run_state.as_bytes(),
        &[0],
    ]
    .concat()
}

/// The offset of these bytes, if they are there exactly once.
fn find_once(state: &File, bytes: u64, wanted: &[u8]) -> io::Result<Option<u64>> {
    let mut found = None;
    let mut chunk = vec![0; CHUNK];
    // Chunks overlap by a byte less than a match has.
    for at in (0..bytes).step_by(CHUNK + 1 - wanted.len()) {
        let length = (bytes - at).min(CHUNK as u64) as usize;
        state.read_exact_at(&mut chunk[..length], at)?;
        for (position, window) in chunk[..length].windows(wanted.len()).enumerate() {
            if window == wanted && found.replace(at + position as u64).is_some() {
                return Ok(None);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused(contents: &[u8], run_state: &RunState) -> (bool, Vec<u8>) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(contents, 0).unwrap();
        let done = pause(&file, contents.len() as u64, run_state).unwrap();
        let mut now = vec![0; contents.len()];
        file.read_exact_at(&mut now, 0).unwrap();
        (done, now)
    }

    #[test]
    fn another_run_state_is_named_in_the_same_place() {
        let section = |run_state: &str| [&named(run_state)[..], &[0; 90]].concat();
        for run_state in [RunState::Debug, RunState::RestoreVm] {
            for before in [0, 1, 20, CHUNK - 100, CHUNK - 20, CHUNK, 2 * CHUNK - 30] {
                let around = |section: &[u8]| [&vec![7; before], section, &[9; 50]].concat();
                let contents = around(&section(run_state.as_str()));
                let (done, now) = paused(&contents, &run_state);
                assert!(
                    done && now.len() == contents.len(),
                    "{run_state} after {before} bytes"
                );
                assert!(now[before..].starts_with(&named("paused")));
                assert!(
                    now[before + named("paused").len()..]
                        .iter()
                        .take(60)
                        .all(|&byte| byte == 0)
                );
                assert_eq!(
                    (&now[..before], &now[now.len() - 50..]),
                    (&vec![7; before][..], &[9; 50][..])
                );
            }
        }
    }

    #[test]
    fn twice_or_nowhere_is_left_as_it_is() {
        let debug = named("debug");
        for contents in [
            vec![0; 500],
            [&debug[..], &debug].concat(),
            named("paused"),
            Vec::new(),
        ] {
            assert_eq!(paused(&contents, &RunState::Debug), (false, contents));
        }
    }
}
