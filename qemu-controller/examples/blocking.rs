//! A session without async: a small wrapper with a runtime of its own, to be copied into a program
//! that has none.
//!
//! `cargo run -p qemu-controller --example blocking -- path/to/firmware.elf`

use std::error::Error;
use std::thread::JoinHandle;
use std::time::Duration;

use qemu_controller::{QemuConfig, Session, StatusInfo, StopReport};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

const FIRMWARE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../xtask/firmware/tick/tick.elf"
);

/// A QEMU whose methods block until they are done. Dropping it ends QEMU.
struct Qemu {
    session: Session,
    runtime: Handle,
    driver: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Qemu {
    fn start(config: QemuConfig) -> Result<Self, Box<dyn Error>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        // Driven by a thread of its own: between two calls QEMU goes on to print and to send
        // events, and stalls if nobody reads.
        let driver = std::thread::spawn(move || drop(runtime.block_on(stopped)));
        Ok(Self {
            session: handle.block_on(Session::start(config))?,
            runtime: handle,
            driver: Some((stop, driver)),
        })
    }

    fn query_status(&self) -> Result<StatusInfo, Box<dyn Error>> {
        Ok(self.runtime.block_on(self.session.query_status())?)
    }

    fn pause(&self) -> Result<(), Box<dyn Error>> {
        Ok(self.runtime.block_on(self.session.pause())?)
    }

    fn expect(&self, text: &str, deadline: Duration) -> Result<Vec<u8>, Box<dyn Error>> {
        let serial = self.session.serial(0).ok_or("no serial port")?;
        Ok(self.runtime.block_on(serial.expect(text, deadline))?.before)
    }

    fn stop(&self) -> Result<StopReport, Box<dyn Error>> {
        Ok(self.runtime.block_on(self.session.stop())?)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if let Some((stop, driver)) = self.driver.take() {
            let _ = stop.send(());
            let _ = driver.join();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let firmware = std::env::args_os().nth(1);
    let firmware = firmware.unwrap_or_else(|| FIRMWARE.into());
    let qemu = Qemu::start(QemuConfig::default().firmware(firmware))?;
    qemu.expect("tick 3", Duration::from_secs(10))?;
    println!("run state: {}", qemu.query_status()?.status);
    qemu.pause()?;
    println!("run state: {}", qemu.query_status()?.status);
    println!("{}", qemu.stop()?);
    Ok(())
}
