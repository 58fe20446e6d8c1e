//! A runtime other than tokio, by `futures`' traits: starts a QEMU, asks for its status, and ends
//! it. Run it with `cargo run -p qmp-proto --example async_io`.

use std::{error::Error, os::unix::net::UnixListener, process::Command};

use async_io::{Async, block_on};
use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use qmp_proto::{
    Connection, Limits, Received,
    commands::{QueryStatus, Quit},
    parse_return,
};

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::temp_dir().join(format!("qmp-proto-async-io-{}", std::process::id()));
    let listener = Async::new(UnixListener::bind(&socket)?)?;
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", "none", "-nodefaults", "-display", "none", "-qmp"])
        .arg(format!("unix:{}", socket.display()))
        .spawn()?;
    block_on(async { talk(listener.accept().await?.0).await })?;
    println!("qemu ended: {}", qemu.wait()?);
    Ok(std::fs::remove_file(socket)?)
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), Box<dyn Error>> {
    let mut qmp = Connection::new(Limits::default());
    let mut buffer = [0; 4096];
    let mut status = None;
    loop {
        stream.write_all(&qmp.take_output()).await?;
        match stream.read(&mut buffer).await? {
            0 => qmp.handle_eof(),
            count => qmp.handle_input(&buffer[..count]),
        }
        while let Some(received) = qmp.poll()? {
            match received {
                Received::Greeting(greeting) => {
                    println!("QEMU {}", greeting.version);
                    qmp.negotiate(&[])?;
                }
                Received::Negotiated(result) => {
                    result?;
                    status = Some(qmp.command(&QueryStatus)?);
                }
                Received::Reply { id, result } if Some(id) == status => {
                    println!("it is {}", parse_return::<QueryStatus>(&result?)?.status);
                    qmp.command(&Quit)?;
                }
                Received::Closed => return Ok(()),
                other => println!("{other:?}"),
            }
        }
    }
}
