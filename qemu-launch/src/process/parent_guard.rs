//! Where the system can't kill QEMU when this program ends (all but Linux): a small guard process
//! that does.
//!
//! The guard is a shell that waits for a line on its stdin, a pipe whose other end only this
//! program holds. The line comes when QEMU has ended. The pipe's end without a line means that this
//! program has ended, however that came: then the guard kills QEMU's process group.

use std::io::{self, Write};
use std::process::Child;

/// Linux kills QEMU itself (`PR_SET_PDEATHSIG`), and Windows has neither: there a QEMU outlives a
/// killed program.
const NEEDED: bool = cfg!(all(
    unix,
    not(any(target_os = "linux", target_os = "android"))
));

#[derive(Debug)]
pub(crate) struct Guard {
    shell: Option<Child>,
}

impl Guard {
    /// Sets a guard over the process group of this id, on systems where one is needed.
    pub(crate) fn over(group: u32) -> io::Result<Self> {
        if NEEDED {
            Self::set(group)
        } else {
            Ok(Self::none())
        }
    }

    /// No guard: the system needs none, or QEMU is to outlive this program.
    pub(crate) fn none() -> Self {
        Self { shell: None }
    }

    #[cfg(unix)]
    fn set(group: u32) -> io::Result<Self> {
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
    fn set(_: u32) -> io::Result<Self> {
        Ok(Self { shell: None })
    }

    /// Lets the guard go: QEMU has ended.
    pub(crate) fn release(self) {
        let Some(mut shell) = self.shell else { return };
        if let Some(mut stdin) = shell.stdin.take() {
            // It can only fail if the guard is gone, which is what is wanted.
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

    use super::Guard;

    fn sleeper() -> Child {
        Command::new("sleep")
            .arg("1000")
            .process_group(0)
            .spawn()
            .unwrap()
    }

    /// The child's status; a child that goes on is killed, and fails the test.
    fn within_bounds(child: &mut Child) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            std::thread::yield_now();
        }
        child.kill().unwrap();
        panic!("it goes on")
    }

    #[test]
    fn the_end_of_the_pipe_ends_the_group() {
        let mut process = sleeper();
        let mut shell = Guard::set(process.id()).unwrap().shell.unwrap();
        // As when this program has ended: the pipe is closed without a line.
        drop(shell.stdin.take());
        assert_eq!(within_bounds(&mut process).signal(), Some(9));
        assert!(within_bounds(&mut shell).success());
    }

    #[test]
    fn a_guard_that_is_let_go_harms_nobody() {
        let mut process = sleeper();
        Guard::set(process.id()).unwrap().release();
        assert!(process.try_wait().unwrap().is_none());
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
