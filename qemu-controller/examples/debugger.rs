//! Boots firmware, runs until a function, looks at a variable, changes it, steps, and runs on.
//!
//! ```text
//! cargo run -p qemu-controller --features debugger --example debugger -- xtask/firmware/tick/tick.elf
//! ```

use std::time::Duration;

use qemu_controller::debug::Until;
use qemu_controller::{QemuConfig, Session};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let firmware = std::env::args().nth(1).ok_or("usage: debugger FIRMWARE")?;
    let deadline = Duration::from_secs(10);
    let session = Session::start(QemuConfig::default().firmware(firmware)).await?;

    let mut debugger = session.debugger().await?;
    let stop = debugger
        .run_until([Until::reaches("tick")], deadline)
        .await?;
    println!("{stop}\n{:?}", debugger.read_registers().await?);

    println!("tick_count is {}", session.read_u32("tick_count").await?);
    debugger
        .write_memory("tick_count", &1000_u32.to_le_bytes())
        .await?;
    println!("{}", debugger.step_instruction().await?);

    let stop = debugger
        .run_until([Until::writes("tick_count", 4)], deadline)
        .await?;
    println!("{stop}");
    // Nothing of it is left: no breakpoint, no stub.
    drop(debugger);
    session.resume().await?;
    println!("{}", session.stop().await?);
    Ok(())
}
