//! Drives a QEMU over a plain blocking `UnixStream`, with this crate alone: `cargo run -p qmp-proto
//! --example blocking`.

use std::{
    error::Error,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::Command,
};

use qmp_proto::{
    Connection, Limits, Received,
    commands::{QueryStatus, Quit},
    parse_return,
};

/// Starts a QEMU, asks for its status, and ends it.
fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("qmp-proto-blocking-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    // QEMU connects to us: nobody has to wait until it listens.
    let listener = UnixListener::bind(folder.join("qmp"))?;
    let mut qemu = Command::new("qemu-system-arm")
        .args("-M none -nodefaults -display none -mon chardev=qmp,mode=control -chardev".split(' '))
        .arg(format!(
            "socket,id=qmp,path={}",
            folder.join("qmp").display()
        ))
        .spawn()?;
    talk(listener.accept()?.0)?;
    println!("qemu ended: {}", qemu.wait()?);
    Ok(std::fs::remove_dir_all(folder)?)
}

fn talk(mut stream: UnixStream) -> Result<(), Box<dyn Error>> {
    let mut qmp = Connection::new(Limits::default());
    let mut buffer = [0; 4096];
    let mut status = None;
    loop {
        stream.write_all(qmp.output())?;
        qmp.advance_output(qmp.output().len());
        match stream.read(&mut buffer)? {
            0 => qmp.handle_eof(),
            count => qmp.handle_input(&buffer[..count]),
        }
        while let Some(event) = qmp.poll()? {
            match event {
                Received::Greeting(greeting) => {
                    println!("QEMU {}", greeting.version);
                    qmp.negotiate(&[])?;
                }
                Received::Negotiated(agreed) => {
                    agreed.map(|()| status = qmp.command(&QueryStatus).ok())?
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
