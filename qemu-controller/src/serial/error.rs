//! Why what was waited for did not come over a port.

use std::time::Duration;

/// Why what was waited for did not come. Nothing was taken from the buffer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SerialError {
    /// Not in time.
    #[error("{wanted} did not come within {deadline:?}; {}", shown(.last))]
    Deadline {
        /// What was waited for.
        wanted: String,
        /// The deadline that was set.
        deadline: Duration,
        /// The last lines that came, read or not.
        last: String,
    },
    /// QEMU closed the port.
    #[error("the port closed before {wanted} came; {}", shown(.last))]
    Closed {
        /// What was waited for.
        wanted: String,
        /// The last lines that came, read or not.
        last: String,
    },
}

fn shown(last: &str) -> String {
    if last.is_empty() {
        "nothing came at all".to_owned()
    } else {
        format!("the last that came:\n{last}")
    }
}
