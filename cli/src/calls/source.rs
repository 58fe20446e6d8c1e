//! Lines of the firmware's source: of those files alone that its debug information names and that are
//! in the project. With `--any-path` as well: the path is the ELF file's word, not the user's, and
//! might name any file of his.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use qemu_controller::firmware_info::Firmware;

use super::answer::{Answer, SourceLine};
use super::error::{CallError, CallErrorKind};
use super::machine::Machine;
use super::place::{address, number};
use super::start::Policy;

/// The longest file that is read, in bytes, and the longest line that is shown, in characters.
const FILE: u64 = 4 * 1024 * 1024;
const LINE: usize = 400;

/// How many lines are shown at the most.
pub(crate) const LINES: u32 = 200;

/// So many lines around a place: `FILE:LINE`, a symbol or an address.
pub(crate) async fn around(
    machine: &Machine,
    policy: &Policy,
    at: &str,
    count: u32,
) -> Result<Answer, CallError> {
    if count == 0 || count > LINES {
        return Err(CallError::invalid(format!("lines is 1 to {LINES}")));
    }
    let firmware = machine.session.firmware_info();
    let firmware = firmware.map_err(|error| CallError::failed(&error))?.clone();
    let named = at
        .rsplit_once(':')
        .and_then(|(file, line)| Some((file.to_owned(), line.parse().ok()?)));
    let place = match named {
        Some((file, line)) => SourcePlace::Line(file, line),
        None => SourcePlace::Address(address(&machine.session, at)?),
    };
    let policy = Policy {
        confined: true,
        ..policy.clone()
    };
    let reading = move || {
        let (file, line) = place.located(&firmware)?;
        let text = read(&find(&policy, &file)?, &file)?;
        let first = line.saturating_sub(count / 2).max(1);
        let shown = text.lines().enumerate();
        let shown = shown.skip(first as usize - 1).take(count as usize);
        let shown = shown.map(|(index, text)| SourceLine {
            line: index as u64 + 1,
            text: text.chars().take(LINE).collect(),
        });
        Ok(Answer::Source {
            at: line,
            lines: shown.collect(),
            file,
        })
    };
    let read = tokio::task::spawn_blocking(reading).await;
    read.unwrap_or_else(|panic| Err(CallError::failed(&panic)))
}

enum SourcePlace {
    Line(String, u32),
    Address(u64),
}

impl SourcePlace {
    /// The file as the debug information names it, and the line.
    fn located(self, firmware: &Firmware) -> Result<(String, u32), CallError> {
        match self {
            Self::Line(file, line) => {
                let all = firmware.code_lines();
                let all = all.map_err(|error| CallError::failed(&error))?;
                // Whoever asks may leave out the folders.
                let is_it = |known: &str| !file.is_empty() && Path::new(known).ends_with(&file);
                let known = all.iter().find(|code| is_it(&code.file));
                let known = known.ok_or_else(|| {
                    let message =
                        format!("the firmware's debug information names no file {file:?}");
                    CallError::invalid(message)
                })?;
                Ok((known.file.to_string(), line))
            }
            Self::Address(address) => {
                let frames = firmware.source_frames(address);
                let frames = frames.map_err(|error| CallError::failed(&error))?;
                let location = frames.into_iter().find_map(|frame| frame.location);
                let location = location.ok_or_else(|| {
                    let message = format!("the debug information has no line for {address:#x}");
                    CallError::invalid(message)
                })?;
                Ok((location.file.to_string(), location.line))
            }
        }
    }
}

/// Where a file is that the compiler knew by this path: there, or under the longest end of its path
/// that is in the project, where it was built elsewhere.
fn find(policy: &Policy, known: &str) -> Result<PathBuf, CallError> {
    let path = Path::new(known);
    let names = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    let names: Vec<_> = names.collect();
    let ends = (0..names.len()).map(|from| names[from..].iter().collect::<PathBuf>());
    let candidates = std::iter::once(path.to_owned()).chain(ends);
    for candidate in candidates {
        if let Ok(found) = policy.file(&candidate)
            && found.is_file()
        {
            return Ok(found);
        }
    }
    Err(CallError::invalid(format!(
        "the source file {known} is not in the project"
    )))
}

fn read(path: &Path, known: &str) -> Result<String, CallError> {
    let failed =
        |error: std::io::Error| CallError::new(CallErrorKind::Failed, format!("{known}: {error}"));
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > FILE {
        return Err(CallError::invalid(format!(
            "{known} has more than {FILE} bytes"
        )));
    }
    let mut bytes = Vec::new();
    file.take(FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A place as a resource's name has it, behind `source/`: its slashes and colons stay, a space is
/// `%20`.
pub(crate) fn of_uri(text: &str) -> String {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match (first, tail) {
            (b'%', [high, low, ..]) => {
                let digits = [*high, *low];
                std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|digits| number(&format!("0x{digits}")).ok())
            }
            _ => None,
        };
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
