//! What the tests share: images, machines, a look into `/proc`, and the few lines of QMP that some
//! of them need.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use qemu_launch::discover::Qemu;
use qemu_launch::{MachineSpec, Process, StopPolicy};

/// A bound for what takes milliseconds: reached only where something hangs.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Time for QEMU to heed SIGTERM, also on a machine that is busy.
pub(crate) fn patient() -> StopPolicy {
    StopPolicy::default().terminate_within(Duration::from_secs(30))
}

/// Whether the long variants are wanted.
pub(crate) fn long() -> bool {
    std::env::var_os("QEMU_LAUNCH_LONG").is_some()
}

/// Waits until it is so, and says how long it took.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let (start, deadline) = (Instant::now(), soon());
    while !is_so() {
        assert!(Instant::now() < deadline, "never so: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    start.elapsed()
}

/// One of the images that are built beside their source.
pub(crate) fn image(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../xtask/firmware");
    folder.join(name).join(format!("{name}.elf"))
}

/// The default machine with one of the images.
pub(crate) fn machine(name: &str) -> MachineSpec {
    MachineSpec::default().firmware(image(name))
}

/// The major and the minor number of the QEMU that the tests run on, for what differs between
/// versions.
pub(crate) fn qemu_version() -> (u32, u32) {
    let version = Qemu::find("qemu-system-arm").unwrap().version().unwrap();
    (version.major, version.minor)
}

/// Starts it, and waits until the monitor answers.
pub(crate) fn start(spec: &MachineSpec) -> (Process, Qmp) {
    let mut process = qemu_launch::spawn(spec).expect("QEMU starts");
    let qmp = Qmp::new(process.take_qmp().expect("the monitor is inherited"));
    (process, qmp)
}

/// As much of QMP as these tests need: one command, one reply, events passed over.
pub(crate) struct Qmp(BufReader<UnixStream>);

impl Qmp {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut qmp = Self(BufReader::new(stream));
        assert!(qmp.line().contains("\"QMP\""), "a greeting comes first");
        assert_eq!(qmp.execute("qmp_capabilities"), "{\"return\": {}}");
        qmp
    }

    pub(crate) fn execute(&mut self, command: &str) -> String {
        self.execute_raw(&format!("{{\"execute\": \"{command}\"}}"))
    }

    pub(crate) fn execute_raw(&mut self, command: &str) -> String {
        self.send(command);
        loop {
            let line = self.line();
            if !line.contains("\"event\"") {
                return line;
            }
        }
    }

    /// Sends a command and leaves the reply to whoever reads next.
    pub(crate) fn send(&mut self, command: &str) {
        // In one piece and without a newline: QEMU acts at the closing brace, and may have quit
        // before another write.
        self.0.get_mut().write_all(command.as_bytes()).unwrap();
    }

    /// Whether something comes by then after a question. Where it is not, nothing more can be
    /// asked.
    pub(crate) fn answers_within(&mut self, patience: Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(patience)).unwrap();
        self.send(r#"{"execute": "query-status"}"#);
        self.0.read_line(&mut String::new()).is_ok()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

/// A field of `/proc/PID/status`; `None` when the process is gone.
pub(crate) fn status(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

/// Resident memory in KiB.
pub(crate) fn resident(pid: u32) -> u64 {
    let value = status(pid, "VmRSS").expect("it runs");
    value.split_whitespace().next().unwrap().parse().unwrap()
}

/// Whether the process is there, as something other than a zombie that nobody has reaped yet.
pub(crate) fn runs(pid: u32) -> bool {
    status(pid, "State").is_some_and(|state| !state.starts_with('Z'))
}

/// The processes that have this word in their command line.
pub(crate) fn with_word(word: &str) -> Vec<u32> {
    let named = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&b| b == 0).any(|part| part == word.as_bytes())
    };
    processes().filter(named).collect()
}

/// This process's children, zombies included.
pub(crate) fn children() -> Vec<u32> {
    let me = std::process::id().to_string();
    processes()
        .filter(|&pid| status(pid, "PPid").is_some_and(|parent| parent == me))
        .collect()
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// How many entries a folder has.
pub(crate) fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// A test that has the process to itself, or plays a second part: the test binary again, with this
/// test only and with `QEMU_LAUNCH_ROLE` saying which part.
pub(crate) fn again(test: &str, role: &str, threads: usize) -> Child {
    again_command(test, role, threads).spawn().unwrap()
}

fn again_command(test: &str, role: &str, threads: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        test,
        "--nocapture",
        "--test-threads",
        &threads.to_string(),
    ]);
    command.env("QEMU_LAUNCH_ROLE", role).stdout(Stdio::piped());
    command
}

/// The part that this process plays.
pub(crate) fn role() -> Option<String> {
    std::env::var("QEMU_LAUNCH_ROLE").ok()
}

/// Runs the test's body in a process of its own, where it can count what it alone has opened;
/// `temporary` is its folder for temporary files.
pub(crate) fn alone(test: &str, temporary: &Path, body: impl FnOnce()) {
    if role().is_some() {
        return body();
    }
    let child = again_command(test, "alone", 2)
        .env("TMPDIR", temporary)
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{test} failed in its own process");
}
