//! One thread reads, one writes, and the main thread has the connection: for programs that do other
//! work between messages. Run it with `cargo run -p qmp-proto --example threads`.

use std::{
    error::Error,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    process::Command,
    sync::mpsc::channel,
    thread,
};

use qmp_proto::{
    Connection, Limits, Received,
    commands::{QueryStatus, Quit},
};

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::temp_dir().join(format!("qmp-proto-threads-{}", std::process::id()));
    let listener = UnixListener::bind(&socket)?;
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", "none", "-nodefaults", "-display", "none", "-qmp"])
        .arg(format!("unix:{}", socket.display()))
        .spawn()?;
    let mut writes = listener.accept()?.0;
    std::fs::remove_file(socket)?;
    let mut reads = writes.try_clone()?;
    let (read, input) = channel::<Vec<u8>>();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = reads.read(&mut buffer) {
            let _ = read.send(buffer[..count].into()); // The channel ends with the stream.
        }
    });
    let (output, to_write) = channel::<Vec<u8>>();
    thread::spawn(move || {
        to_write
            .iter()
            .try_for_each(|bytes| writes.write_all(&bytes))
    });
    let mut qmp = Connection::new(Limits::default());
    loop {
        match input.recv() {
            Ok(bytes) => qmp.handle_input(&bytes),
            Err(_) => qmp.handle_eof(),
        }
        while let Some(received) = qmp.poll()? {
            match received {
                Received::Greeting(_) => qmp.negotiate(&[])?,
                Received::Negotiated(_) => {
                    qmp.command(&QueryStatus)?;
                    qmp.command(&Quit)?;
                }
                Received::Closed => return Ok(qemu.wait().map(drop)?),
                other => println!("{other:?}"),
            }
        }
        output.send(qmp.take_output())?;
    }
}
