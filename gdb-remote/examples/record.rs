//! Relays one GDB session and writes it down, for the recordings under `tests/recordings/`.
//!
//! ```text
//! cargo run -p gdb-remote --example record -- 127.0.0.1:PORT_OF_THE_STUB session.gdb-session
//! ```
//!
//! It prints the address where it listens; connect gdb there. `tests/recordings/README.md` has
//! the form.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stub, path] = arguments.as_slice() else {
        eprintln!("usage: record ADDRESS:PORT FILE");
        return ExitCode::from(2);
    };
    match record(stub, path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("record: {error}");
            ExitCode::FAILURE
        }
    }
}

fn record(stub: &str, path: &str) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (client, _) = listener.accept()?;
    client.set_nodelay(true)?;
    let stub = TcpStream::connect(stub)?;
    stub.set_nodelay(true)?;
    let file = File::create(path)?;
    thread::scope(|scope| {
        let up = scope.spawn(|| relay(&client, &stub, '>', &file));
        let down = relay(&stub, &client, '<', &file);
        up.join().unwrap_or(Ok(())).and(down)
    })
}

/// Passes on what one side sends until it closes; each read becomes one line of the file.
fn relay(mut from: &TcpStream, mut to: &TcpStream, mark: char, file: &File) -> io::Result<()> {
    let mut file = file;
    let mut buffer = vec![0; 4096];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            // The other side may have closed first.
            let _ = to.shutdown(Shutdown::Write);
            return Ok(());
        }
        let line = format!("{mark} {}\n", buffer[..count].escape_ascii());
        file.write_all(line.as_bytes())?;
        to.write_all(&buffer[..count])?;
    }
}
