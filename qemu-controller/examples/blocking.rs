//! A session without async.
//!
//! `cargo run -p qemu-controller --example blocking -- path/to/firmware.elf`

use std::error::Error;

use qemu_controller::QemuConfig;
use qemu_controller::blocking::Session;

const FIRMWARE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../xtask/firmware/tick/tick.elf"
);

fn main() -> Result<(), Box<dyn Error>> {
    let firmware = std::env::args_os().nth(1);
    let firmware = firmware.unwrap_or_else(|| FIRMWARE.into());
    let session = Session::start(QemuConfig::default().firmware(firmware))?;
    let serial = session.serial(0).ok_or("no serial port")?;
    serial.expect("tick 3")?;
    println!("run state: {}", session.query_status()?.status);
    session.pause()?;
    println!("run state: {}", session.query_status()?.status);
    println!("{}", session.stop()?);
    Ok(())
}
