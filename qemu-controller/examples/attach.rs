//! Joins a QEMU that runs already, looks at it, and leaves it running. Given a firmware in place of
//! an address, it starts such a QEMU itself first.
//!
//! `cargo run -p qemu-controller --example attach -- unix:PATH | IP:PORT | path/to/firmware.elf`

use std::error::Error;
use std::time::{Duration, Instant};

use qemu_controller::{Address, Endpoint, Session, StartError, StopPolicy};
use qemu_launch::MachineSpec;

const FIRMWARE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../xtask/firmware/tick/tick.elf"
);
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args().nth(1);
    let target = target.unwrap_or_else(|| FIRMWARE.to_owned());
    if let Some(path) = target.strip_prefix("unix:") {
        return look_at(Session::attach(Address::Socket(path.into()), DEADLINE).await?).await;
    }
    if let Ok(address) = target.parse() {
        return look_at(Session::attach(Address::Tcp(address), DEADLINE).await?).await;
    }

    // Somebody else's QEMU: `qemu-launch` starts it and knows nothing of QMP.
    let spec = MachineSpec::default()
        .firmware(target)
        .qmp(Endpoint::PrivateSocket);
    let qemu = qemu_launch::spawn_async(spec).await?;
    let address = qemu.qmp_address().ok_or("it has no monitor")?;
    look_at(attach_when_it_listens(address).await?).await?;
    println!("still running: {}", qemu.try_wait().is_none());
    println!("{}", qemu.end(StopPolicy::default()).await?.exit);
    Ok(())
}

async fn look_at(session: Session) -> Result<(), Box<dyn Error>> {
    println!("QEMU {}", session.qemu_version());
    println!("run state: {}", session.query_status().await?.status);
    for cpu in session.query_cpus().await? {
        println!("CPU {}: {}", cpu.cpu_index, cpu.qom_path);
    }
    // Dropping a session that was attached only hangs up; `stop` would ask QEMU to quit.
    Ok(())
}

/// A QEMU that was started a moment ago does not listen yet.
async fn attach_when_it_listens(address: &Address) -> Result<Session, StartError> {
    let until = Instant::now() + DEADLINE;
    loop {
        match Session::attach(address.clone(), DEADLINE).await {
            Err(StartError::Connect { .. }) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            outcome => return outcome,
        }
    }
}
