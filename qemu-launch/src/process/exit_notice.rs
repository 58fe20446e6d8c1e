//! A descriptor that becomes readable when a child has exited, so that one `poll` waits for its
//! output and its exit.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Pid;

use crate::process::child::await_exit;
use crate::process::spawn_thread;

/// # Errors
/// No descriptor or no thread is left.
pub(crate) fn exit_notice(pid: Pid) -> io::Result<OwnedFd> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::io::Errno;
        use rustix::process::{PidfdFlags, pidfd_open};
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(notice) => return Ok(notice),
            // Linux before 5.3, or a container's filter.
            Err(Errno::NOSYS | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    by_thread(pid)
}

/// Where the system has no such descriptor: a pipe that a thread closes after the exit.
fn by_thread(pid: Pid) -> io::Result<OwnedFd> {
    let (notice, held) = io::pipe()?;
    spawn_thread("qemu-wait", move || {
        await_exit(pid);
        drop(held);
    })?;
    Ok(notice.into())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::Pid;

    use super::{by_thread, exit_notice};

    #[test]
    fn it_is_readable_after_the_exit_and_not_before() {
        for notice_of in [exit_notice, by_thread] {
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            let notice = notice_of(Pid::from_child(&child)).unwrap();
            let readable_within = |seconds| {
                let timeout = Timespec {
                    tv_sec: seconds,
                    tv_nsec: 0,
                };
                poll(&mut [PollFd::new(&notice, PollFlags::IN)], Some(&timeout)).unwrap() == 1
            };
            assert!(!readable_within(0));
            drop(child.stdin.take());
            assert!(readable_within(60));
            assert!(child.wait().unwrap().success(), "it is left to be reaped");
        }
    }
}
