//! The console's calls, answered as a console does on which nobody types.

use super::call::{Call, Request};
use super::{Host, HostError};

/// The handle of the console's stdin; stdout's and stderr's follow. Far from those that QEMU gives
/// out, so that files may be QEMU's and the console ours.
const STDIN: u64 = 0x4000_0000;
const STDOUT: u64 = STDIN + 1;
const STDERR: u64 = STDIN + 2;

/// What became of a call in [`Host::answer_console`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Printed {
    /// The firmware printed this, or asked the console something (then it is empty).
    Stdout(Vec<u8>),
    /// The firmware printed this on its standard error.
    Stderr(Vec<u8>),
    /// It is no call to the console, and was not answered.
    NotConsole,
}

impl Host {
    /// Answers a call to the console: opening `:tt`, printing, reading (its input is at its end),
    /// closing. It has no state: a guest that was loaded back finds its handles as they were.
    ///
    /// # Errors
    /// [`HostError::Debug`].
    pub async fn answer_console(&mut self, call: &Call) -> Result<Printed, HostError> {
        let nothing = Printed::Stdout(Vec::new());
        let (value, printed) = match &call.request {
            Request::Open { name, mode } if name == b":tt" => {
                let handle = match mode {
                    0..=3 => STDIN,
                    4..=7 => STDOUT,
                    _ => STDERR,
                };
                (handle.cast_signed(), nothing)
            }
            Request::Print(text) => (0, Printed::Stdout(text.clone())),
            Request::Write {
                handle,
                bytes,
                size,
            } if is_console(*handle) => {
                let left = size - bytes.len() as u64;
                let printed = match *handle == STDERR {
                    true => Printed::Stderr(bytes.clone()),
                    false => Printed::Stdout(bytes.clone()),
                };
                (left.cast_signed(), printed)
            }
            Request::Read { handle, size, .. } if is_console(*handle) => {
                (size.cast_signed(), nothing)
            }
            Request::ReadByte => (-1, nothing),
            Request::IsTty { handle } if is_console(*handle) => (1, nothing),
            Request::Close { handle } if is_console(*handle) => (0, nothing),
            _ => return Ok(Printed::NotConsole),
        };
        self.answer(call, value).await?;
        Ok(printed)
    }
}

fn is_console(handle: u64) -> bool {
    (STDIN..=STDERR).contains(&handle)
}
