//! A proxy that logs what passes and refuses `quit`: `cargo run -p qmp-proto --example proxy`.

use std::{
    error::Error,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    process::Command,
    thread,
};

use qmp_proto::{Blocking, Codec, Limits, RawMessage, commands::QueryStatus};

/// Passes on the messages of one direction. Where `answer` gives one, that goes back instead.
fn pass(
    mut from: UnixStream,
    mut to: UnixStream,
    answer: impl Fn(&RawMessage) -> Option<String>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut codec = Codec::new(Limits::default());
    let mut buffer = [0; 4096];
    while let count @ 1.. = from.read(&mut buffer)? {
        codec.feed(&buffer[..count]);
        while let Some(message) = codec.next_raw()? {
            println!("{:?} {message}", message.range());
            match answer(&message) {
                Some(text) => writeln!(from, "{text}")?,
                None => writeln!(to, "{message}")?,
            }
        }
    }
    Ok(to.shutdown(std::net::Shutdown::Both)?)
}

fn refuse_quit(message: &RawMessage) -> Option<String> {
    let request = message
        .to_request()
        .ok()
        .filter(|request| request.name == "quit")?;
    let error = serde_json::json!({ "class": "GenericError", "desc": "not through this proxy" });
    Some(serde_json::json!({ "error": error, "id": request.id }).to_string())
}

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::temp_dir().join(format!("qmp-proto-proxy-{}", std::process::id()));
    let listener = UnixListener::bind(&socket)?;
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", "none", "-nodefaults", "-display", "none", "-qmp"])
        .arg(format!("unix:{}", socket.display()))
        .spawn()?;
    let server = listener.accept()?.0;
    let (ours, client) = UnixStream::pair()?;
    let (from, to) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(|| pass(from, to, |_| None));
    thread::spawn(|| pass(client, server, refuse_quit));
    let mut qmp = Blocking::connect(ours)?;
    println!("it is {}", qmp.command(&QueryStatus)?.status);
    println!("quit: {:?}", qmp.execute("quit", &()));
    qemu.kill().and_then(|()| qemu.wait())?;
    Ok(std::fs::remove_file(socket)?)
}
