//! A check before a debugger is started: is the stub there, and which target is it?
//!
//! ```text
//! cargo run -p gdb-port --no-default-features --example stub_check -- 127.0.0.1:1234
//! ```
//!
//! No runtime: everything blocks. The guest is stopped for about a millisecond, if it is known to
//! run, and runs on. Without an address, a QEMU of its own is checked.

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use gdb_port::{GuestState, Leave, ProbeOptions, Reachability, StubAddress, blocking, inspect};

fn main() -> Result<(), Box<dyn Error>> {
    let line = match std::env::args().nth(1) {
        Some(text) => check(&text.parse()?)?,
        None => check_own_qemu()?,
    };
    println!("{line}");
    Ok(())
}

fn check(endpoint: &StubAddress) -> Result<String, Box<dyn Error>> {
    // Touches nothing: the kernel says who listens and whether a client is attached.
    let state = inspect(endpoint, None);
    if !state.reachability().can_attach() {
        return Err(state.to_string().into());
    }
    let options = ProbeOptions::default()
        .guest(GuestState::Running)
        .leave(Leave::RunOn)
        .deadline(Duration::from_secs(2));
    let report = blocking::probe(endpoint, &options)?;
    match &report.reachability {
        Reachability::Answers(identity) => Ok(format!("{identity}; {}", report.effect)),
        other => Err(other.to_string().into()),
    }
}

fn check_own_qemu() -> Result<String, Box<dyn Error>> {
    let socket = std::env::temp_dir().join(format!("stub-check-{}", std::process::id()));
    let mut qemu = Command::new("qemu-system-arm")
        .args("-machine virt -nodefaults -display none -gdb chardev:gdb -chardev".split(' '))
        .arg(format!(
            "socket,id=gdb,server=on,wait=off,path={}",
            socket.display()
        ))
        .spawn()?;
    let endpoint = format!("unix:{}", socket.display()).parse()?;
    let is_gone = || matches!(qemu.try_wait(), Ok(Some(_)));
    let listens = blocking::wait_until_listening(&endpoint, None, Duration::from_secs(10), is_gone);
    let checked = listens.map_err(Into::into).and_then(|_| check(&endpoint));
    qemu.kill()?;
    qemu.wait()?;
    std::fs::remove_file(socket)?;
    checked
}
