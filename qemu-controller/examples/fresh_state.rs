//! Many test cases on one machine that boots once: each begins in the state in which the boot has
//! left it.
//!
//! `cargo test -p qemu-controller --example fresh_state`

fn main() {
    println!("these are tests: cargo test -p qemu-controller --example fresh_state");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use qemu_controller::{QemuConfig, Session};

    /// Ample: it is there for a firmware that hangs, not for one that is slow.
    const DEADLINE: Duration = Duration::from_secs(20);

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    /// The slow part, once: here it is the firmware's third line.
    async fn booted() -> Result<Session, Box<dyn std::error::Error>> {
        let firmware = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../xtask/firmware/tick/tick.elf"
        );
        let config = QemuConfig::default()
            .firmware(firmware)
            .start_deadline(DEADLINE)
            .command_deadline(DEADLINE);
        let session = Session::start(config).await?;
        let serial = session.serial(0).ok_or("no serial port")?;
        serial.expect_within("tick 2\n", DEADLINE).await?;
        session.pause().await?;
        serial.take();
        Ok(session)
    }

    /// The firmware is at its second tick, whatever the case before has done to it.
    async fn it_says_the_third_tick_and_echoes(session: &Session, input: &str) -> TestResult {
        let serial = session.serial(0).ok_or("no serial port")?;
        session.resume().await?;
        serial.expect_within("tick 3\n", DEADLINE).await?;
        serial.write(input.as_bytes()).await?;
        serial.expect_within(input, DEADLINE).await?;
        Ok(())
    }

    #[tokio::test]
    async fn every_case_begins_after_the_second_tick() -> TestResult {
        let session = booted().await?;
        for input in ["a", "b", "c"] {
            session
                .with_fresh_state("booted", async |session| {
                    it_says_the_third_tick_and_echoes(session, input).await?;
                    // Whatever a case leaves behind …
                    session.reset().await?;
                    TestResult::Ok(())
                })
                .await??;
        }
        Ok(())
    }
}
