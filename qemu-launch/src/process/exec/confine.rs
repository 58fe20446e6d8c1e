//! What a child does to itself before it becomes QEMU, on every Unix: system calls only.

use rustix::fs::Mode;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Files that QEMU makes are for the owner alone.
pub(super) fn set_umask() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// A core file would have the guest's memory in it.
pub(super) fn forbid_core_dumps() -> rustix::io::Result<()> {
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
}

/// Marks every descriptor but the standard streams to be closed by `exec`.
#[expect(
    unsafe_code,
    reason = "descriptors that other code left open have no owner to borrow them from"
)]
pub(super) fn close_all_on_exec() {
    use std::os::fd::BorrowedFd;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        const CLOSE_RANGE_CLOEXEC: u32 = 4;
        // SAFETY: takes numbers only, touches no memory; kernels before 5.11 refuse, and the loop
        // below serves.
        let done = unsafe {
            // All three are `unsigned int` on every architecture, where a `c_long` may have 32
            // bits.
            libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, CLOSE_RANGE_CLOEXEC)
        };
        if done == 0 {
            return;
        }
    }
    let limit = getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
        .min(65_536);
    for number in 3..i32::try_from(limit).unwrap_or(i32::MAX) {
        // SAFETY: only borrowed for a call that fails harmlessly where the number is not open.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
}
