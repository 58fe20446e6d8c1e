//! The blocking client: starts a QEMU, asks for its status, waits for an event, and ends it. Run it
//! with `cargo run -p qmp-proto --example blocking`.

use std::{error::Error, os::unix::net::UnixListener, process::Command, time::Duration};

use qmp_proto::{
    Blocking, BlockingError,
    commands::{QueryStatus, Quit, Stop},
};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("qmp-proto-blocking-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let socket = folder.join("qmp");
    // QEMU connects to us: nobody has to wait until it listens.
    let listener = UnixListener::bind(&socket)?;
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", "none", "-nodefaults", "-display", "none", "-qmp"])
        .arg(format!("unix:{}", socket.display()))
        .spawn()?;
    let stream = listener.accept()?.0;
    // The deadline of each call.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;

    let mut qmp = Blocking::connect(stream)?;
    println!("QEMU {}", qmp.greeting().version);
    println!("it is {}", qmp.command(&QueryStatus)?.status);
    qmp.command(&Stop)?;
    println!("event {}", qmp.next_event()?.name);
    match qmp.execute("device_del", &serde_json::json!({"id": "nic0"})) {
        Err(BlockingError::Server(error)) => println!("refused: {error}"),
        other => drop(other?),
    }
    qmp.command(&Quit)?;
    let end = loop {
        match qmp.next_event() {
            Ok(event) => println!("event {}", event.name),
            Err(end) => break end,
        }
    };
    println!("{end}; qemu ended: {}", qemu.wait()?);
    Ok(std::fs::remove_dir_all(folder)?)
}
