//! A check before a debugger is started: is the stub there, and which target is it?
//!
//! ```text
//! cargo run -p gdb-port --no-default-features --example stub_check -- 127.0.0.1:1234
//! ```
//!
//! No runtime: everything blocks. The guest is stopped for about a millisecond, if it is known to
//! run, and runs on.

use std::process::ExitCode;
use std::time::Duration;

use gdb_port::{GuestState, Leave, ProbeOptions, Reachability, StubAddress, blocking, inspect};

fn main() -> ExitCode {
    let Some(text) = std::env::args().nth(1) else {
        eprintln!("usage: stub_check ADDRESS:PORT");
        return ExitCode::from(2);
    };
    match check(&text) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check(text: &str) -> Result<String, Box<dyn std::error::Error>> {
    let endpoint: StubAddress = text.parse()?;
    // Touches nothing: the kernel says who listens and whether a client is attached.
    let state = inspect(&endpoint, None);
    if !state.reachability().can_attach() {
        return Err(state.to_string().into());
    }
    let options = ProbeOptions::default()
        .guest(GuestState::Running)
        .leave(Leave::RunOn)
        .deadline(Duration::from_secs(2));
    let report = blocking::probe(&endpoint, &options)?;
    match &report.reachability {
        Reachability::Answers(identity) => Ok(format!("{identity}; {}", report.effect)),
        other => Err(other.to_string().into()),
    }
}
