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

/// Marks every descriptor but the standard streams to be closed by `exec`. It does not allocate.
pub(super) fn close_all_on_exec() {
    if !mark_by_range() && !mark_by_procfs() {
        mark_by_number();
    }
}

/// False where the system has no such call: Linux before 5.11, a container's filter, other systems.
fn mark_by_range() -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        const CLOSE_RANGE_CLOEXEC: u32 = 4;
        // SAFETY: takes numbers only and touches no memory. All three are `unsigned int` on every
        // architecture, where a `c_long` may have 32 bits.
        #[expect(unsafe_code, reason = "neither `std` nor rustix has this call")]
        let done =
            unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, CLOSE_RANGE_CLOEXEC) };
        done == 0
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    false
}

/// Those that the system lists: a limit that was lowered says nothing about numbers above it. False
/// where there is no procfs.
fn mark_by_procfs() -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{OFlags, RawDir, open};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(folder) = open(c"/proc/self/fd", flags, Mode::empty()) else {
            return false;
        };
        let mut buffer = [std::mem::MaybeUninit::uninit(); 2048];
        let mut entries = RawDir::new(&folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else { return false };
            let number = entry
                .file_name()
                .to_str()
                .ok()
                .and_then(|name| name.parse().ok());
            if let Some(number @ 3..) = number {
                mark(number);
            }
        }
        true
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    false
}

/// Every number up to the highest limit that this process may have had, or a million.
fn mark_by_number() {
    let limit = getrlimit(Resource::Nofile);
    let limit = limit
        .maximum
        .or(limit.current)
        .unwrap_or(u64::MAX)
        .min(1 << 20);
    (3..i32::try_from(limit).unwrap_or(i32::MAX)).for_each(mark);
}

#[expect(
    unsafe_code,
    reason = "descriptors that other code left open have no owner to borrow them from"
)]
fn mark(number: i32) {
    // SAFETY: only borrowed for a call that fails without harm where the number is not open.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

    /// A container's filter may refuse `close_range`.
    #[test]
    fn each_way_marks_all() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let high = fcntl_dupfd_cloexec(&file, 900).unwrap();
        let by_number = || {
            super::mark_by_number();
            true
        };
        let ways: [fn() -> bool; 3] = [super::mark_by_range, super::mark_by_procfs, by_number];
        for mark_all in ways {
            fcntl_setfd(&high, FdFlags::empty()).unwrap();
            assert!(mark_all(), "this system has it");
            assert_eq!(
                fcntl_getfd(&high).unwrap(),
                FdFlags::CLOEXEC,
                "{}",
                high.as_raw_fd()
            );
        }
    }
}
