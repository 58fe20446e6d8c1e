//! Another process of the same user, which listens nowhere: the files of a process of another user
//! are hidden.

use std::process::{Child, Command, Stdio};

/// Killed and reaped when dropped.
pub(crate) struct Other(Child);

impl Other {
    pub(crate) fn start() -> Self {
        let mut command = Command::new("sleep");
        command
            .arg("600")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Dead, and not yet reaped.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
    }

    pub(crate) fn end(&mut self) {
        self.kill();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
