//! `--gdb`: where a debugger finds the firmware, whether one is there, and who has the port.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use qemu_controller::debug::{DebugError, HandOver, StopReason, Until};
use qemu_controller::gdb_port::{ListenState, StubAddress, inspect};
use qemu_controller::testing::TestCase;
use qemu_controller::{Endpoint, Session};
use serde_json::json;

use crate::failure::Failure;
use crate::limit::Limit;
use crate::reporter::Reporter;
use crate::settings::{Settings, Timeout};

/// How long the firmware may take to begin the test that a debugger is to have.
const BOOT: Duration = Duration::from_secs(30);

/// Lets a debugger connect: the firmware is held until one has come, and QEMU listens nowhere.
/// A test that it is to have has begun then.
pub(crate) async fn wait(
    session: &Session,
    endpoint: &Endpoint,
    test: Option<&TestCase>,
) -> Result<HandOver, Failure> {
    let mut debugger = session.debugger().await?;
    if let Some(test) = test {
        let stop = debugger.run_until([Until::reaches(test.address())], BOOT);
        let stop = stop.await?;
        if !matches!(stop.reason, StopReason::Reached { .. }) {
            let test = test.name.clone();
            let why = stop.to_string();
            return Err(Failure::TestNotReached { test, why });
        }
    }
    let waiting = debugger.hand_over(endpoint.clone()).await;
    waiting.map_err(|error| cannot_listen(error, endpoint))
}

/// Says how to attach a debugger.
pub(crate) fn announce(
    settings: &Settings,
    hand_over: &HandOver,
    test: Option<&TestCase>,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let attach = hand_over.command();
    let who = match test {
        Some(test) => format!("the test {} has begun and", test.name),
        None => "the firmware".to_owned(),
    };
    let mut words =
        format!("{who} waits for a debugger; attach one with\n\n{attach}\n\nand let it `continue`");
    if matches!(settings.timeout, Some(Timeout::After(_))) {
        words += "; --timeout counts once it has left";
    }
    let address = hand_over.address().to_string();
    let object = json!({ "event": "gdb", "address": address, "attach": attach });
    reporter.say(Some(&words), &object)
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

/// Why no debugger can be let in, and who has the port.
pub(crate) fn cannot_listen(error: DebugError, gdb: &Endpoint) -> Failure {
    let in_use = match &error {
        DebugError::Listen { error, .. } if error.kind() == ErrorKind::AddrInUse => address(gdb),
        _ => None,
    };
    let Some(address) = in_use else {
        return error.into();
    };
    // Asked as if this process should listen there: any other owner is then named.
    let owner = match inspect(&StubAddress::Tcp(address), Some(std::process::id())) {
        ListenState::OtherProcess { pid: Some(pid) } => format!(" by {}", program(pid)),
        _ => String::new(),
    };
    Failure::PortInUse { address, owner }
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
pub(crate) fn program(pid: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (process {pid})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}
