//! `--gdb`: where a debugger finds the firmware, whether one is there, and who has the port.

use std::net::SocketAddr;
use std::time::Duration;

use qemu_controller::gdb_port::{ListenState, StubAddress, inspect};
use qemu_controller::qmp_proto::commands::QueryChardev;
use qemu_controller::{Endpoint, RunState, Session};
use serde_json::json;

use crate::args::Run;
use crate::limit::Limit;
use crate::report::{Failure, Reporter};
use crate::settings::{Settings, Timeout};

/// How often QEMU is asked whether a debugger is there: it has no event for that.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Says how to attach a debugger.
pub(crate) fn announce(
    run: &Run,
    settings: &Settings,
    gdb: &StubAddress,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let attach = attach_line(run, gdb);
    let mut words = format!(
        "the firmware waits for a debugger; attach one with\n\n{attach}\n\nand let it `continue`"
    );
    if matches!(settings.timeout, Some(Timeout::After(_))) {
        words += "; --timeout counts once it has left";
    }
    let object = json!({ "event": "gdb", "address": gdb.to_string(), "attach": attach });
    reporter.say(Some(&words), &object)
}

/// The line that attaches a debugger, as a shell takes it.
fn attach_line(run: &Run, gdb: &StubAddress) -> String {
    let address = gdb.to_string();
    // GDB knows a socket by its path alone.
    let address = address.strip_prefix("unix:").unwrap_or(&address);
    let firmware = run.firmware.to_string_lossy();
    let target = format!("target remote {address}");
    shlex::try_join(["gdb-multiarch", "-q", &firmware, "-ex", &target]).unwrap_or(target)
}

/// Waits until a debugger was there and has left. Returns whether the firmware runs on.
pub(crate) async fn left(session: &Session) -> bool {
    let mut was_there = false;
    loop {
        // A session that has ended is somebody else's to see.
        match (is_attached(session).await, session.query_status().await) {
            (Some(true), _) => was_there = true,
            // The firmware was held at its start: only a debugger can have let it run.
            (Some(false), Ok(state)) if was_there || state.status != RunState::Prelaunch => {
                return state.running;
            }
            _ => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until a debugger is there.
pub(crate) async fn attached(session: &Session) {
    while is_attached(session).await != Some(true) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says that the debugger has left, and whether the firmware runs on.
pub(crate) fn say_left(runs: bool, limit: Limit, reporter: &Reporter) -> Result<(), Failure> {
    let mut words = match runs {
        true => "the debugger has left; the firmware runs on".to_owned(),
        false => {
            "the debugger has left; the firmware is stopped, until one attaches again".to_owned()
        }
    };
    words += &match limit.timeout {
        Some(timeout) => format!(", for {timeout:?} at most"),
        None => String::new(),
    };
    let object = json!({ "event": "gdb-left", "running": runs });
    reporter.say(Some(&words), &object)
}

/// Whether a debugger is there, by QEMU's own socket; `None` where it does not say.
async fn is_attached(session: &Session) -> Option<bool> {
    let devices = session.command(&QueryChardev).await.ok()?;
    let stub = devices.iter().find(|device| device.label == "gdb")?;
    Some(!stub.filename.starts_with("disconnected:"))
}

/// Who listens where the stub was to listen.
pub(crate) fn port_in_use(gdb: Option<&Endpoint>) -> Option<Failure> {
    let address = address(gdb?)?;
    // Asked as if this process should listen there: any other owner is then named.
    match inspect(&StubAddress::Tcp(address), Some(std::process::id())) {
        ListenState::OtherProcess { pid } => Some(Failure::PortInUse {
            address,
            owner: pid.map_or_else(String::new, |pid| format!(" by {}", program(pid))),
        }),
        ListenState::Present(_) => Some(Failure::PortInUse {
            address,
            owner: String::new(),
        }),
        _ => None,
    }
}

fn address(gdb: &Endpoint) -> Option<SocketAddr> {
    match gdb {
        Endpoint::Exposed(address) => Some(*address),
        Endpoint::Loopback { port: 0 } => None,
        Endpoint::Loopback { port } => Some(SocketAddr::from(([127, 0, 0, 1], *port))),
        _ => None,
    }
}

/// A process, by its name where that can be read.
fn program(pid: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (process {pid})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}
