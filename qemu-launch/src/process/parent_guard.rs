//! A small guard process that kills QEMU when this program ends, where the system can't (all but
//! Linux).
//!
//! The guard is a shell that reads a line from its stdin, a pipe whose other end only this program
//! holds. The line comes when QEMU has ended. EOF without a line means that this program has ended,
//! for whatever reason: then the guard kills QEMU's process group.

use std::io::{self, Write};
use std::process::Child;

/// Linux kills QEMU itself (`PR_SET_PDEATHSIG`). Windows has neither: there QEMU outlives a killed
/// program.
const NEEDED: bool = cfg!(all(
    unix,
    not(any(target_os = "linux", target_os = "android"))
));

#[derive(Debug)]
pub(crate) struct ParentGuard {
    shell: Option<Child>,
}

impl ParentGuard {
    /// Starts a guard for the process group of this id, on systems where one is needed.
    pub(crate) fn for_group(group: u32) -> io::Result<Self> {
        if NEEDED {
            Self::start(group)
        } else {
            Ok(Self::none())
        }
    }

    /// No guard: the system needs none, or QEMU is to outlive this program.
    pub(crate) fn none() -> Self {
        Self { shell: None }
    }

    #[cfg(unix)]
    fn start(group: u32) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "read -r line || kill -s KILL -- \"-$1\"",
            "qemu-guard",
            &group.to_string(),
        ]);
        command
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Not in this program's group, or a signal to the whole group would end the guard as well.
        command.process_group(0);
        Ok(Self {
            shell: Some(command.spawn()?),
        })
    }

    #[cfg(not(unix))]
    fn start(_: u32) -> io::Result<Self> {
        Ok(Self { shell: None })
    }

    /// Ends the guard: QEMU has ended.
    pub(crate) fn release(self) {
        let Some(mut shell) = self.shell else { return };
        if let Some(mut stdin) = shell.stdin.take() {
            // A failure means that the guard is gone, which is what is wanted.
            let _ = stdin.write_all(b"ended\n");
        }
        let _ = shell.wait();
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, ExitStatus};
    use std::time::{Duration, Instant};

    use super::ParentGuard;

    fn sleeper() -> Child {
        Command::new("sleep")
            .arg("1000")
            .process_group(0)
            .spawn()
            .unwrap()
    }

    /// The child's status; a child that runs on is killed, and fails the test.
    fn within_bounds(child: &mut Child) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            std::thread::yield_now();
        }
        child.kill().unwrap();
        panic!("it runs on")
    }

    #[test]
    fn the_end_of_the_pipe_ends_the_group() {
        let mut process = sleeper();
        let mut shell = ParentGuard::start(process.id()).unwrap().shell.unwrap();
        // As when this program has ended: the pipe is closed without a line.
        drop(shell.stdin.take());
        assert_eq!(within_bounds(&mut process).signal(), Some(9));
        assert!(within_bounds(&mut shell).success());
    }

    #[test]
    fn a_guard_that_is_released_harms_nobody() {
        let mut process = sleeper();
        ParentGuard::start(process.id()).unwrap().release();
        assert!(process.try_wait().unwrap().is_none());
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
