//! Starting a process by `std`, where there is nothing better: everywhere but on Linux.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Descriptor, Failure, Standard, Started};
use crate::argv::command_line::Argv;
use crate::process::child::Child;

/// Starts the program with exactly this environment (of a name's values the last) and these
/// descriptors beside the standard streams. Returns once it executes. That it ends with this
/// program is left to [`ParentGuard`](crate::process::parent_guard::ParentGuard).
pub(crate) fn start(
    argv: &Argv,
    environment: Vec<(OsString, OsString)>,
    inherited: Vec<Descriptor>,
    Standard { stdin, stdout }: Standard,
    current_dir: Option<&Path>,
    _kept: bool,
) -> Result<Started, Failure> {
    let pipe = || io::pipe().map_err(Failure::to("make a pipe"));
    let mut command = Command::new(argv.program());
    command
        .args(argv.args())
        .env_clear()
        .envs(environment)
        .stdin(stdin.map_or_else(Stdio::null, as_stdio));
    if let Some(folder) = current_dir {
        command.current_dir(folder);
    }
    let stdout = match stdout {
        Some(channel) => {
            command.stdout(as_stdio(channel));
            None
        }
        None => {
            let (ours, theirs) = pipe()?;
            command.stdout(theirs);
            Some(ours)
        }
    };
    let (stderr, theirs) = pipe()?;
    command.stderr(theirs);
    confine(&mut command, inherited);
    let child = command.spawn().map_err(Failure::Exec)?;
    #[cfg(unix)]
    let child = rustix::process::Pid::from_child(&child);
    Ok(Started {
        child: Child::new(child),
        stdout,
        stderr,
    })
}

#[cfg(unix)]
fn as_stdio(descriptor: Descriptor) -> Stdio {
    descriptor.into()
}

/// Sets what the child does to itself before it becomes QEMU.
#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "`pre_exec` is the only way to run code between fork and exec"
)]
fn confine(command: &mut Command, inherited: Vec<Descriptor>) {
    use command_fds::CommandFdExt;
    use std::os::unix::process::CommandExt;

    use super::confine::{close_all_on_exec, forbid_core_dumps, set_umask};

    command.process_group(0);
    let before_exec = || {
        forbid_core_dumps()?;
        set_umask();
        // Marked, not closed: `std` still reports a failed `exec` over one.
        close_all_on_exec();
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed, and no allocation,
    // because another thread may have held any lock at the moment of the fork. `before_exec` makes
    // system calls only.
    unsafe {
        command.pre_exec(before_exec);
    }
    // After `before_exec`, which marks every descriptor as not to be inherited.
    command.preserved_fds(inherited);
}

#[cfg(not(unix))]
fn as_stdio(descriptor: Descriptor) -> Stdio {
    match descriptor {}
}

#[cfg(not(unix))]
fn confine(_: &mut Command, _: Vec<Descriptor>) {}
