//! A blocking debugger in a few lines: break at an address, look around, step, detach.
//!
//! ```text
//! qemu-system-arm -M lm3s6965evb -display none -kernel tick.elf -S -gdb tcp:127.0.0.1:1234 &
//! cargo run -p gdb-remote --example tour -- 127.0.0.1:1234 0x122
//! ```

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use gdb_remote::client::{Client, Event, PointKind, Reply};
use gdb_remote::handshake::Handshake;

/// Writes what the client has to say, and reads until something has happened.
fn next_event(client: &mut Client, stream: &mut TcpStream) -> Result<Event, Box<dyn Error>> {
    loop {
        stream.write_all(client.output())?;
        client.advance_output(usize::MAX);
        if let Some(event) = client.poll_event() {
            return Ok(event);
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => client.handle_eof(),
            count => client.handle_input(&buffer[..count]),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, stub, address] = arguments.as_slice() else {
        return Err("usage: tour ADDRESS:PORT 0xBREAKPOINT".into());
    };
    let address = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
    let mut stream = TcpStream::connect(stub)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut client = Client::new(Handshake::new());
    println!(
        "{:?}: {}",
        next_event(&mut client, &mut stream)?,
        client.identity()
    );

    client.insert(PointKind::Software, address, 2)?;
    println!("breakpoint: {:?}", next_event(&mut client, &mut stream)?);
    client.resume()?;
    println!("continue: {:?}", next_event(&mut client, &mut stream)?);
    client.read_registers()?;
    if let Event::Reply(Ok(Reply::Bytes(bytes))) = next_event(&mut client, &mut stream)? {
        let target = client.identity().target.clone().unwrap_or_default();
        for (register, value) in target.split(&bytes) {
            println!("  {} {value:02x?}", register.name);
        }
    }
    client.step(None)?;
    println!("step: {:?}", next_event(&mut client, &mut stream)?);
    client.read_memory(address, 16)?;
    println!("memory: {:02x?}", next_event(&mut client, &mut stream)?);
    client.monitor("info status")?;
    println!("monitor: {:?}", next_event(&mut client, &mut stream)?);
    client.remove(PointKind::Software, address, 2)?;
    println!("breakpoint: {:?}", next_event(&mut client, &mut stream)?);
    client.detach(None)?;
    println!("detach: {:?}", next_event(&mut client, &mut stream)?);
    Ok(())
}
