//! Boots a firmware once, then gives each test case a machine of its own that continues from there,
//! all at once; and says what that saves.
//!
//! `cargo run -p qemu-controller --example forked_cases -- xtask/firmware/tick/tick.elf [CASES]`

use std::error::Error;
use std::time::{Duration, Instant};

use qemu_controller::{QemuConfig, Session};

/// Ample: it is there for a firmware that hangs, not for one that is slow.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the demo firmware prints when it is warmed up.
const BOOTED: &str = "tick 2\n";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let firmware = args
        .next()
        .ok_or("usage: forked_cases FIRMWARE.elf [CASES]")?;
    let cases: usize = args.next().map_or(Ok(6), |count| count.parse())?;
    let config = QemuConfig::default()
        .firmware(firmware)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE);

    let since = Instant::now();
    let warm = Session::start(config).await?;
    warm.serial(0)
        .ok_or("no serial port")?
        .expect_within(BOOTED, DEADLINE)
        .await?;
    let booted = since.elapsed();

    // Each case begins where this one is paused.
    warm.pause().await?;
    let since = Instant::now();
    let forks = warm.fork(cases).await?;
    let forked = since.elapsed();

    for (fork, input) in forks.iter().zip((b'a'..=b'z').cycle()) {
        let serial = fork.serial(0).ok_or("no serial port")?;
        serial.write(&[input]).await?;
        fork.resume().await?;
        serial.expect_within([input], DEADLINE).await?;
        // It has not booted again, and got no input that another was given.
        let rest = serial.expect_within("tick 4\n", DEADLINE).await?.before;
        if rest.windows(4).any(|word| word == b"boot") {
            return Err("a fork has booted".into());
        }
    }
    println!("{cases} cases, each with a machine of its own that went on from one boot");
    let each = forked / u32::try_from(cases.max(1))?;
    println!(
        "the boot took {booted:.0?}, a fork {each:.0?}: {:.1} times as fast",
        booted.as_secs_f64() / each.as_secs_f64()
    );
    Ok(())
}
