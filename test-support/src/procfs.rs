//! What Linux tells of processes in `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A field of `/proc/PID/status`; `None` when the process is gone.
#[must_use]
pub fn status(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

/// The fields of `/proc/PID/stat` from the third one on, which is the state: the second one is the
/// program's name, which may hold anything. Empty when the process is gone.
#[must_use]
pub fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().map(str::to_owned).collect()
}

/// Whether there is such a process, be it a zombie.
#[must_use]
pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether there is such a process, as something other than a zombie that nobody has reaped yet.
#[must_use]
pub fn runs(pid: u32) -> bool {
    status(pid, "State").is_some_and(|state| !state.starts_with('Z'))
}

/// Whether the process is stopped by a signal.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    status(pid, "State").is_some_and(|state| state.starts_with('T'))
}

/// The resident memory of a process that runs, in KiB.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let value = status(pid, "VmRSS").expect("it runs");
    value.split_whitespace().next().unwrap().parse().unwrap()
}

/// The processes that have this word in their command line.
#[must_use]
pub fn with_word(word: &str) -> Vec<u32> {
    let has_word = |pid: &u32| {
        command_line(*pid)
            .iter()
            .any(|other| other == word.as_bytes())
    };
    processes().filter(has_word).collect()
}

/// The words of a process's command line; none when it is gone.
#[must_use]
pub fn command_line(pid: u32) -> Vec<Vec<u8>> {
    let mut line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // A NUL ends each word, the last one included.
    line.pop();
    line.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

/// This process's children, zombies included.
#[must_use]
pub fn children() -> Vec<u32> {
    let me = std::process::id().to_string();
    processes()
        .filter(|&pid| status(pid, "PPid").is_some_and(|parent| parent == me))
        .collect()
}

/// What each descriptor of a process is: a path, `pipe:[…]`, `socket:[…]` or the like.
#[must_use]
pub fn descriptors(pid: u32) -> BTreeMap<i32, String> {
    let named = |entry: fs::DirEntry| {
        let name = fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, name.to_string_lossy().into_owned()))
    };
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| named(entry.ok()?))
        .collect()
}

/// How many entries a folder has, such as `/proc/self/fd` and `/proc/self/task`.
#[must_use]
pub fn entries(folder: impl AsRef<Path>) -> usize {
    fs::read_dir(folder).unwrap().count()
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
