//! Starting a process on Linux as `posix_spawn` does, with what `posix_spawn` can't set.
//!
//! A `fork` copies the tables of all the memory that this program uses: a quarter of a millisecond
//! for a small one, and 27 ms for 500 MiB. `posix_spawn` copies none, but knows neither
//! parent-death signal nor umask nor limits. So this does what the C libraries do in theirs
//! (glibc's `spawni.c`, musl's `posix_spawn.c`), and those three as well:
//!
//! - The child runs in this program's memory (`CLONE_VM`), on a stack of its own, while the thread
//!   that made it waits until the child has become QEMU or has ended (`CLONE_VFORK`). So
//!   they share what belongs to the thread (thread-local variables, `errno`) without ever using it
//!   at once, and what the child has written the parent reads.
//! - All other threads go on, and may hold any lock for as long as they like. So the child makes
//!   system calls and nothing else, and whatever needs memory (words, pointers to them,
//!   descriptors) is made before.
//! - Descriptors, signal dispositions, umask, limits and process group are the child's own:
//!   `CLONE_FILES`, `CLONE_SIGHAND`, `CLONE_FS` and `CLONE_THREAD` are not asked for.
//! - A signal handler of this program that ran in the child would run on this program's memory. So
//!   all signals are blocked from before the `clone` until no handler is left in the child.
//! - Should this program die meanwhile, its memory stays for as long as the child uses it, and the
//!   child is killed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, NulError, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;

use rustix::io::{FdFlags, fcntl_setfd, retry_on_intr};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::process::{
    Pid, Signal, WaitOptions, chdir, getpid, getppid, kill_process,
    set_parent_process_death_signal, setpgid, waitpid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::confine::{close_all_on_exec, forbid_core_dumps, set_umask};
use super::inherited::above_standard;
use super::{Failure, Standard, Started};
use crate::argv::command_line::Argv;
use crate::process::child::Child;

/// Starts the program with exactly this environment (of a name's values the last) and these
/// descriptors beside the standard streams. Returns once it executes. Unless it is to be kept, it
/// ends with the thread that calls this.
pub(crate) fn start(
    argv: &Argv,
    environment: Vec<(OsString, OsString)>,
    inherited: Vec<OwnedFd>,
    Standard { stdin, stdout }: Standard,
    current_dir: Option<&Path>,
    kept: bool,
) -> Result<Started, Failure> {
    let stdin = match stdin {
        Some(stdin) => stdin,
        None => File::open("/dev/null")
            .map_err(Failure::to("open /dev/null"))?
            .into(),
    };
    let pipe = || io::pipe().map_err(Failure::to("make a pipe"));
    let (our_stdout, stdout) = match stdout {
        Some(channel) => (None, channel),
        None => {
            let (ours, theirs) = pipe()?;
            (Some(ours), theirs.into())
        }
    };
    let (our_stderr, stderr) = pipe()?;
    // Above the standard streams, so that none is overwritten before it has been copied to its
    // place.
    let place = |end| above_standard(end).map_err(Failure::to("duplicate a descriptor"));
    let task = Task {
        program: CString::new(argv.program().as_os_str().as_bytes())
            .map_err(Failure::to("write the path"))?,
        argv: Words::of_argv(argv).map_err(Failure::to("write the command line"))?,
        environment: Words::of_environment(environment)
            .map_err(Failure::to("write the environment"))?,
        streams: [place(stdin)?, place(stdout)?, place(stderr.into())?],
        inherited,
        current_dir: current_dir
            .map(|folder| CString::new(folder.as_os_str().as_bytes()))
            .transpose()
            .map_err(Failure::to("write the current folder"))?,
        parent: getpid(),
        kept,
        failure: Cell::new(None),
    };
    Ok(Started {
        child: Child::new(task.start()?),
        stdout: our_stdout,
        stderr: our_stderr,
    })
}

/// Words as the system takes them.
struct Words {
    /// To each word, and a null at the end.
    pointers: Vec<*const c_char>,
    _words: Vec<CString>,
}

impl Words {
    fn of_argv(argv: &Argv) -> Result<Self, NulError> {
        let program = argv.program().as_os_str();
        Self::new(
            std::iter::once(program)
                .chain(argv.args().iter().map(|arg| &**arg))
                .map(OsStrExt::as_bytes),
        )
    }

    fn of_environment(variables: Vec<(OsString, OsString)>) -> Result<Self, NulError> {
        // The last value of each name: a program that finds two may take either.
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        Self::new(variables.into_iter().map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name.into_vec()
        }))
    }

    fn new(words: impl Iterator<Item = impl Into<Vec<u8>>>) -> Result<Self, NulError> {
        let words = words.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = words
            .iter()
            .map(|word| word.as_ptr())
            .chain([ptr::null()])
            .collect();
        Ok(Self {
            pointers,
            _words: words,
        })
    }
}

/// Whatever the child needs, made before there is one.
struct Task {
    program: CString,
    argv: Words,
    environment: Words,
    /// What become its stdin, stdout and stderr.
    streams: [OwnedFd; 3],
    inherited: Vec<OwnedFd>,
    current_dir: Option<CString>,
    parent: Pid,
    kept: bool,
    /// Why there is no QEMU: the child writes it for the parent.
    failure: Cell<Option<Failure>>,
}

/// The parent's part.
impl Task {
    /// The child's id, once it executes QEMU.
    #[expect(
        unsafe_code,
        reason = "no crate and nothing in `std` starts a process so"
    )]
    fn start(&self) -> Result<Pid, Failure> {
        let stack = Stack::new().map_err(Failure::to("make a stack"))?;
        let blocked = Blocked::all();
        let task = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: for this thread, which waits until the child uses this memory no more, it
        // is a call of `in_child` with a reference to `self`, on another stack, which is alive,
        // aligned, writable, used by nobody else and far larger than the few hundred bytes that
        // system calls take. That `self` is lent and not moved, and the result written through a
        // `Cell`, is what such a call needs. What else is asked of the child is at the head of this
        // file.
        let pid = unsafe {
            libc::clone(
                in_child,
                stack.top(),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
                task,
            )
        };
        let refused = io::Error::last_os_error();
        drop(blocked);
        let pid = match pid {
            1.. => Pid::from_raw(pid),
            _ => None,
        };
        let Some(pid) = pid else {
            return Err(Failure::to("make a process")(refused));
        };
        match self.failure.take() {
            None => Ok(pid),
            Some(failure) => {
                // It has ended, or is about to. The only error is that the program reaps all of its
                // children.
                let _ = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
                Err(failure)
            }
        }
    }
}

/// The child: it becomes QEMU, or says why not and ends, by the C library's `_exit`, with what this
/// returns.
#[expect(unsafe_code, reason = "what `clone` passes on is a bare pointer")]
extern "C" fn in_child(task: *mut c_void) -> c_int {
    // SAFETY: made of a reference by `Task::start`, which returns only after the child's end or
    // `exec`.
    let task = unsafe { &*task.cast::<Task>() };
    let Err(failure) = task.become_qemu();
    task.failure.set(Some(failure));
    127
}

/// The child's part: system calls only, no allocation, no lock, no panic.
impl Task {
    fn become_qemu(&self) -> Result<Infallible, Failure> {
        // First, and whether it is to be kept or not: from here on nothing stays behind half-made.
        self.die_with_parent()
            .map_err(Failure::to("set the parent-death signal"))?;
        setpgid(None, None).map_err(Failure::to("make a process group"))?;
        remove_handlers();
        forbid_core_dumps().map_err(Failure::to("forbid core dumps"))?;
        set_umask();
        if let Some(folder) = &self.current_dir {
            chdir(folder.as_c_str()).map_err(Failure::to("enter the current folder"))?;
        }
        self.place_descriptors()
            .map_err(Failure::to("place the descriptors"))?;
        if self.kept {
            set_parent_process_death_signal(None)
                .map_err(Failure::to("clear the parent-death signal"))?;
        }
        // A Ctrl-Z that came before the process group would stop this child now, and with it the
        // thread that waits for it. The one takes the other away.
        kill_process(getpid(), Signal::CONT).map_err(Failure::to("go on after a stop"))?;
        unblock_signals();
        Err(Failure::Exec(self.execute()))
    }

    fn die_with_parent(&self) -> rustix::io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended between the clone and the line above; then the signal never comes.
        if getppid() == Some(self.parent) {
            Ok(())
        } else {
            Err(rustix::io::Errno::CHILD)
        }
    }

    fn place_descriptors(&self) -> rustix::io::Result<()> {
        let [stdin, stdout, stderr] = &self.streams;
        dup2_stdin(stdin)?;
        dup2_stdout(stdout)?;
        dup2_stderr(stderr)?;
        close_all_on_exec();
        for descriptor in &self.inherited {
            fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "the safe ones allocate")]
    fn execute(&self) -> io::Error {
        let (argv, environment) = (
            self.argv.pointers.as_ptr(),
            self.environment.pointers.as_ptr(),
        );
        // SAFETY: a string that ends in NUL, and two arrays of such that end in null, all alive as
        // long as `self` is. It returns only where it failed.
        unsafe { libc::execve(self.program.as_ptr(), argv, environment) };
        io::Error::last_os_error()
    }
}

/// Gives every signal that has a handler its default, and SIGPIPE, which Rust programs ignore; any
/// other that is ignored stays so, as with every other way to start a process.
///
/// Two signals are the C library's own, which it hides from us; their handlers only act on what
/// comes from their process. For SIGABRT some C libraries take a lock, which another thread has
/// while it asks the same, or until this program has aborted, and then the child is killed.
#[expect(unsafe_code, reason = "`std` and rustix have nothing for it")]
fn remove_handlers() {
    for signal in 1..=libc::SIGRTMAX() {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: it only writes, to memory that is large enough.
        if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
            continue;
        }
        // SAFETY: written by the call, which succeeded.
        let mut action = unsafe { action.assume_init() };
        let ignored = action.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE;
        if action.sa_sigaction == libc::SIG_DFL || ignored {
            continue;
        }
        action.sa_sigaction = libc::SIG_DFL;
        // SAFETY: an action that the system has given out, and no handler in it. The dispositions
        // are the child's own.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
}

/// No signal is blocked in QEMU, whatever the thread that starts it blocks.
#[expect(unsafe_code, reason = "`std` and rustix have nothing for it")]
fn unblock_signals() {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call writes what the second one reads, and can't fail; the mask is the
    // child's own.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// All signals are blocked in this thread for as long as this lives.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    #[expect(unsafe_code, reason = "`std` and rustix have nothing for it")]
    fn all() -> Self {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the first call writes what the second one reads. That fails only for an unknown
        // way to set a mask, so it has written what is taken.
        let before = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Self { before }
    }
}

impl Drop for Blocked {
    #[expect(unsafe_code, reason = "`std` and rustix have nothing for it")]
    fn drop(&mut self) {
        // SAFETY: reads a mask that the system has given out.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut())
        };
    }
}

/// A stack, with a guard below it: a child that needed more would end by SIGSEGV, and write to
/// nothing of this program's.
struct Stack {
    lowest: *mut c_void,
}

impl Stack {
    /// Multiples of any page size. What is not written to takes no memory.
    const GUARD: usize = 64 * 1024;
    const SIZE: usize = 64 * 1024;

    #[expect(unsafe_code, reason = "memory with a guard has no safe owner")]
    fn new() -> io::Result<Self> {
        // SAFETY: new memory, at a place of the system's choice.
        let lowest = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                Self::GUARD + Self::SIZE,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )?
        };
        let stack = Self { lowest };
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the upper part of the memory above, which nobody else knows of.
        unsafe { mprotect(stack.lowest.byte_add(Self::GUARD), Self::SIZE, access)? };
        Ok(stack)
    }

    /// Where it begins: it grows downwards, on every architecture that Rust has Linux for.
    fn top(&self) -> *mut c_void {
        self.lowest.wrapping_byte_add(Self::GUARD + Self::SIZE)
    }
}

impl Drop for Stack {
    #[expect(unsafe_code, reason = "memory with a guard has no safe owner")]
    fn drop(&mut self) {
        // SAFETY: the memory of `new`, all of it. The child that used it has ended or executes
        // another program.
        let unmapped = unsafe { munmap(self.lowest, Self::GUARD + Self::SIZE) };
        debug_assert!(unmapped.is_ok());
    }
}
