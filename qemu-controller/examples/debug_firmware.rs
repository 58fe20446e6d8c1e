//! Starts a firmware that waits for a debugger, says where to attach one, lets it run for a second,
//! and stops.
//!
//! `cargo run -p qemu-controller --example debug_firmware -- path/to/firmware.elf`

use std::time::Duration;

use qemu_controller::{Endpoint, QemuConfig, Session};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let firmware = std::env::args_os()
        .nth(1)
        .ok_or("name a firmware ELF for lm3s6965evb")?;
    let config = QemuConfig::default()
        .machine("lm3s6965evb")
        .cpu("cortex-m3")
        .firmware(firmware)
        .gdb(Endpoint::free_port())
        .wait_for_gdb(true);
    let session = Session::start(config).await?;

    // The guest is stopped before its first instruction.
    println!("run state: {}", session.query_status().await?.status);
    let check = session.check_gdb().await?;
    println!("GDB stub at {}: {}", check.endpoint, check.reachability);
    // A debugger could attach now: gdb-multiarch -ex 'target remote ADDRESS' firmware.elf

    let serial = session.serial(0).ok_or("no serial port")?;
    session.resume().await?;
    while let Ok(line) = serial.line_within(Duration::from_secs(1)).await {
        println!("firmware: {line}");
        if line.starts_with("tick 3") {
            break;
        }
    }
    session.pause().await?;
    println!("run state: {}", session.query_status().await?.status);

    println!("{}", session.stop().await?);
    Ok(())
}
