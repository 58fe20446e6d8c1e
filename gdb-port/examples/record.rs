//! Relays one GDB session and writes it down, for the recordings under `tests/recordings/`.
//!
//! ```text
//! cargo run -p gdb-port --example record -- 127.0.0.1:PORT_OF_THE_STUB session.gdb-session
//! ```
//!
//! It prints the address where it listens; connect gdb there. `tests/recordings/README.md` tells
//! the form.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stub, path] = arguments.as_slice() else {
        eprintln!("usage: record ADDRESS:PORT FILE");
        return ExitCode::from(2);
    };
    match record(stub, path).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("record: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn record(stub: &str, path: &str) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let (mut client, _) = listener.accept().await?;
    client.set_nodelay(true)?;
    let mut stub = TcpStream::connect(stub).await?;
    stub.set_nodelay(true)?;
    let mut file = BufWriter::new(File::create(path)?);
    relay(&mut client, &mut stub, &mut file).await?;
    file.flush()
}

/// Until either side closes.
async fn relay(
    client: &mut TcpStream,
    stub: &mut TcpStream,
    file: &mut impl Write,
) -> io::Result<()> {
    let (mut from_client, mut from_stub) = (vec![0; 4096], vec![0; 4096]);
    loop {
        let more = tokio::select! {
            count = client.read(&mut from_client) => pass(&from_client[..count?], '>', stub, file).await?,
            count = stub.read(&mut from_stub) => pass(&from_stub[..count?], '<', client, file).await?,
        };
        if !more {
            return Ok(());
        }
    }
}

/// Passes one read on, and writes it as one line. False at the end of the stream.
async fn pass(
    bytes: &[u8],
    direction: char,
    to: &mut (impl AsyncRead + AsyncWrite + Unpin),
    file: &mut impl Write,
) -> io::Result<bool> {
    if bytes.is_empty() {
        return Ok(false);
    }
    writeln!(file, "{direction} {}", bytes.escape_ascii())?;
    to.write_all(bytes).await?;
    Ok(true)
}
