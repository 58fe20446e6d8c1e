//! What a measurement costs: processor time, memory, wake-ups, system calls.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::time::ClockId;

/// This program's processor time so far in seconds, by the scheduler's own clock.
pub fn own_seconds() -> f64 {
    seconds(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// This thread's.
pub fn thread_seconds() -> f64 {
    seconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn seconds(clock: ClockId) -> f64 {
    clock
        .now()
        .map_or(f64::NAN, |now| now.num_nanoseconds() as f64 / 1e9)
}

/// That of the children that have been waited for, in steps of a tick or so each.
pub fn children_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
    usage.map_or(f64::NAN, |usage| {
        (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
    })
}

/// This program's own memory in KiB: what is not a file's.
pub fn own_memory_kib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .context("no RssAnon")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// How often a thread of this program woke up in that time, the one that calls this not counted. It
/// may not be a runtime's: its own timer would wake it.
pub fn wake_ups(within: Duration) -> Result<u64> {
    // What has just been done settles first.
    thread::sleep(Duration::from_millis(100));
    let before = waits()?;
    thread::sleep(within);
    Ok(waits()?.saturating_sub(before))
}

/// How often the other threads began to wait so far: each wake-up ends in one.
fn waits() -> Result<u64> {
    let own = fs::read_link("/proc/thread-self")?;
    let mut waits = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        if own.ends_with(task.file_name()) {
            continue;
        }
        // A thread may end while they are counted.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        waits += line.context("no count of waits")?.trim().parse::<u64>()?;
    }
    Ok(waits)
}

/// System calls an operation.
pub struct SystemCalls {
    pub all: f64,
    /// `write` and its kin.
    pub writes: f64,
}

/// Has this program do `alone NAME COUNT` under `strace`, few times and often: the difference is
/// what the operations cost. Only the main thread is looked at, which does all the work in a
/// runtime of one thread.
pub fn system_calls(firmware: &Path, name: &str) -> Result<SystemCalls> {
    const FEW: usize = 100;
    const MANY: usize = 1100;
    let (few, many) = (
        counted(firmware, name, FEW)?,
        counted(firmware, name, MANY)?,
    );
    let each = |few: u64, many: u64| many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
    Ok(SystemCalls {
        all: each(few.0, many.0),
        writes: each(few.1, many.1),
    })
}

/// All, and those that write.
fn counted(firmware: &Path, name: &str, count: usize) -> Result<(u64, u64)> {
    let report = tempfile::NamedTempFile::new()?;
    let mut strace = Command::new("strace");
    strace
        .args(["-c", "-o"])
        .arg(report.path())
        .arg(std::env::current_exe()?);
    strace
        .arg("--firmware")
        .arg(firmware)
        .args(["--alone", name, "--count", &count.to_string()]);
    let status = strace
        .stdout(Stdio::null())
        .status()
        .context("strace can't be run")?;
    if !status.success() {
        bail!("strace of {name}: {status}");
    }
    let text = fs::read_to_string(report.path())?;
    let (mut all, mut writes) = (0, 0);
    for line in text.lines() {
        // % time, seconds, usecs/call, calls, errors or nothing, name
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(Ok(calls)), Some(&call)) =
            (words.get(3).map(|word| word.parse::<u64>()), words.last())
        else {
            continue;
        };
        if call == "total" {
            continue;
        }
        all += calls;
        if matches!(call, "write" | "writev" | "sendto" | "sendmsg") {
            writes += calls;
        }
    }
    Ok((all, writes))
}
