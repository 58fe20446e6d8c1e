//! A fake QEMU for the tests of a client: it knows two commands, refuses others, and sends events.
//! Run it with `cargo run -p qmp-proto --example fake_server`.

use std::{error::Error, os::unix::net::UnixStream, thread};

use qmp_proto::{
    Blocking, BlockingError, ErrorClass, Greeting, Limits, QmpEvent, RawJson, ServerError, Version,
    commands::{QueryStatus, Stop},
    server::{Connection, Phase},
};
use serde_json::json;

/// Serves one client until it leaves.
fn serve(mut stream: UnixStream) -> Result<(), Box<dyn Error + Send + Sync>> {
    let greeting = Greeting::new(Version::new(10, 0, 2), []);
    let mut server = Connection::new(&greeting, Limits::default());
    let mut running = true;
    while server.phase() != Phase::Closed {
        while let Some(request) = server.poll_command()? {
            match request.name.as_str() {
                "query-status" => {
                    let status = if running { "running" } else { "paused" };
                    server.reply(&request, &json!({ "running": running, "status": status }))?;
                }
                "stop" => {
                    running = false;
                    let data = RawJson::from_value(&json!({ "by": "the fake" }))?;
                    server.emit(&QmpEvent::new("STOP", Some(data)));
                    server.reply(&request, &json!({}))?;
                }
                name => {
                    let desc = format!("The command {name} has not been found");
                    let error = ServerError::new(ErrorClass::CommandNotFound, desc);
                    server.reply_error(&request, error);
                }
            }
        }
        while server.write_to(&mut stream)? > 0 {}
        server.read_from(&mut stream)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    let server = thread::spawn(|| serve(theirs));
    let mut qmp = Blocking::connect(ours)?;
    qmp.command(&Stop)?;
    assert_eq!(qmp.next_event()?.name, "STOP");
    assert!(!qmp.command(&QueryStatus)?.running);
    let refused = qmp.execute("quit", &());
    assert!(matches!(&refused, Err(BlockingError::Server(error)) if error.desc.contains("quit")));
    drop(qmp);
    server
        .join()
        .expect("it does not panic")
        .map_err(|error| error as Box<dyn Error>)?;
    println!("served, and refused what it does not know");
    Ok(())
}
