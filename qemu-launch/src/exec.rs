//! Fork and exec: what QEMU inherits and what it does not. The crate's only unsafe code is here.

use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, Stdio};

use crate::command_line::Argv;

#[cfg(not(unix))]
use elsewhere::as_stdio;
#[cfg(not(unix))]
pub(crate) use elsewhere::{Descriptor, Inherited, Stream, confine};
#[cfg(unix)]
use unix::as_stdio;
#[cfg(unix)]
pub(crate) use unix::{Descriptor, Inherited, Stream, confine};

/// Starts the program with exactly this environment and these descriptors beside the standard streams.
pub(crate) fn start(
    argv: &Argv,
    environment: Vec<(OsString, OsString)>,
    inherited: Vec<Descriptor>,
    stdout: Option<Descriptor>,
    kept: bool,
) -> io::Result<Child> {
    let mut command = Command::new(argv.program());
    command.args(argv.args()).env_clear().envs(environment);
    let stdout = stdout.map_or_else(Stdio::piped, as_stdio);
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    confine(&mut command, inherited, kept);
    command.spawn()
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use command_fds::CommandFdExt;
    use rustix::process::{Pid, Resource, Rlimit, setrlimit, umask};

    /// QEMU's end of a socket pair.
    pub(crate) type Descriptor = OwnedFd;
    /// This program's end of it.
    pub(crate) type Stream = UnixStream;

    pub(super) fn as_stdio(descriptor: Descriptor) -> Stdio {
        descriptor.into()
    }

    /// Socket pairs: QEMU's ends and ours.
    #[derive(Debug, Default)]
    pub(crate) struct Inherited {
        theirs: Vec<Descriptor>,
        ours: Vec<Stream>,
    }

    impl Inherited {
        pub(crate) fn pairs(count: usize) -> io::Result<Self> {
            let mut pairs = Self::default();
            for _ in 0..count {
                let (theirs, ours) = UnixStream::pair()?;
                pairs.theirs.push(above_standard(theirs.into())?);
                pairs.ours.push(ours);
            }
            Ok(pairs)
        }

        /// The numbers under which QEMU will have its ends: those that they have here. A number of our choice could
        /// be the one of the pipe over which `std` hears that `exec` failed, and would break it.
        pub(crate) fn numbers(&self) -> Vec<i32> {
            self.theirs.iter().map(AsRawFd::as_raw_fd).collect()
        }

        pub(crate) fn split(self) -> (Vec<Descriptor>, Vec<Stream>) {
            (self.theirs, self.ours)
        }
    }

    /// A program that has closed its standard streams gets their numbers again, and in the child they are taken.
    fn above_standard(descriptor: Descriptor) -> io::Result<Descriptor> {
        if descriptor.as_raw_fd() > 2 {
            return Ok(descriptor);
        }
        Ok(rustix::io::fcntl_dupfd_cloexec(&descriptor, 3)?)
    }

    /// Sets what the child does to itself before it becomes QEMU.
    #[expect(unsafe_code, reason = "`pre_exec` is the only way to run code between fork and exec")]
    pub(crate) fn confine(command: &mut Command, inherited: Vec<Descriptor>, kept: bool) {
        command.process_group(0);
        let dies_with = (!kept).then(rustix::process::getpid);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed, and no allocation, because another
        // thread may have held any lock at the moment of the fork. `before_exec` makes system calls only.
        unsafe {
            command.pre_exec(move || before_exec(dies_with));
        }
        // After `before_exec`, which marks every descriptor as not to be inherited.
        command.preserved_fds(inherited);
    }

    /// Runs in the child: system calls only, see [`confine`].
    fn before_exec(dies_with: Option<Pid>) -> io::Result<()> {
        if let Some(parent) = dies_with {
            die_with_parent(parent)?;
        }
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        close_all_on_exec();
        Ok(())
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn die_with_parent(parent: Pid) -> io::Result<()> {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended between the fork and the line above; then the signal never comes.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(ECHILD)) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const ECHILD: i32 = 10;

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn die_with_parent(_: Pid) -> io::Result<()> {
        Ok(())
    }

    /// Marks every descriptor but the standard streams to be closed by `exec`. Not closed here: `std` still reports a
    /// failed `exec` over one.
    #[expect(unsafe_code, reason = "descriptors that other code left open have no owner to borrow them from")]
    fn close_all_on_exec() {
        use rustix::io::{FdFlags, fcntl_setfd};
        use std::os::fd::BorrowedFd;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            const CLOSE_RANGE_CLOEXEC: u32 = 4;
            // SAFETY: takes numbers only, touches no memory; kernels before 5.11 refuse, and the loop below serves.
            let done = unsafe {
                // All three are `unsigned int` on every architecture, where a `c_long` may have 32 bits.
                libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, CLOSE_RANGE_CLOEXEC)
            };
            if done == 0 {
                return;
            }
        }
        let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).min(65_536);
        for number in 3..i32::try_from(limit).unwrap_or(i32::MAX) {
            // SAFETY: only borrowed for a call that fails harmlessly where the number is not open.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
        }
    }
}

/// No socket pair can be inherited here, so there is never one.
#[cfg(not(unix))]
mod elsewhere {
    use std::convert::Infallible;
    use std::io;
    use std::process::{Command, Stdio};

    pub(crate) type Descriptor = Infallible;
    pub(crate) type Stream = Infallible;

    pub(super) fn as_stdio(descriptor: Descriptor) -> Stdio {
        match descriptor {}
    }

    #[derive(Debug, Default)]
    pub(crate) struct Inherited;

    impl Inherited {
        pub(crate) fn pairs(_: usize) -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) fn numbers(&self) -> Vec<i32> {
            Vec::new()
        }

        pub(crate) fn split(self) -> (Vec<Descriptor>, Vec<Stream>) {
            (Vec::new(), Vec::new())
        }
    }

    pub(crate) fn confine(_: &mut Command, _: Vec<Descriptor>, _: bool) {}
}
