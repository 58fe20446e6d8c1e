//! What the tests share: machines, started ones, and tests in a process of their own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use qemu_launch::discover::Qemu;
use qemu_launch::{MachineSpec, Process, StopPolicy};
use test_support::{PATIENCE, Qmp, image};

/// Time for QEMU to heed SIGTERM, also on a machine that is busy.
pub(crate) fn patient() -> StopPolicy {
    StopPolicy::default().terminate_within(PATIENCE)
}

/// Whether the long variants are wanted.
pub(crate) fn long() -> bool {
    std::env::var_os("QEMU_LAUNCH_LONG").is_some()
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
