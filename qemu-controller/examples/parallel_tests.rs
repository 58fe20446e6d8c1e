//! Tests of a firmware as its engineer would write them: each with a machine of its own, all at
//! once, on any number of cores.
//!
//! `cargo test -p qemu-controller --example parallel_tests`

fn main() {
    println!("these are tests: cargo test -p qemu-controller --example parallel_tests");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use qemu_controller::{Endpoint, QemuConfig, RunState, Session};

    /// Ample: it is there for a firmware that hangs, not for one that is slow.
    const DEADLINE: Duration = Duration::from_secs(20);

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    /// A machine that no other test shares. Its GDB stub takes a free port, so any number of them
    /// run side by side; dropping the session ends it, also when a test fails.
    async fn machine() -> Result<Session, qemu_controller::StartError> {
        let firmware = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../xtask/firmware/tick/tick.elf"
        );
        let config = QemuConfig::default()
            .firmware(firmware)
            .gdb(Endpoint::free_port())
            .start_deadline(DEADLINE)
            .command_deadline(DEADLINE);
        Session::start(config).await
    }

    #[tokio::test]
    async fn it_boots_and_ticks() -> TestResult {
        let machine = machine().await?;
        let serial = machine.serial(0).ok_or("no serial port")?;
        assert_eq!(serial.line_within(DEADLINE).await?, "boot");
        assert_eq!(serial.line_within(DEADLINE).await?, "tick 1");
        assert_eq!(serial.line_within(DEADLINE).await?, "tick 2");
        Ok(())
    }

    #[tokio::test]
    async fn it_echoes_what_it_hears() -> TestResult {
        let machine = machine().await?;
        let serial = machine.serial(0).ok_or("no serial port")?;
        serial.expect_within("boot", DEADLINE).await?;
        serial.write(b"x").await?;
        serial.expect_within("x", DEADLINE).await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_reset_starts_it_over() -> TestResult {
        let machine = machine().await?;
        let serial = machine.serial(0).ok_or("no serial port")?;
        serial.expect_within("tick 2", DEADLINE).await?;
        machine.reset().await?;
        serial.expect_within("boot", DEADLINE).await?;
        serial.expect_within("tick 1\n", DEADLINE).await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_debugger_can_attach_while_others_debug_theirs() -> TestResult {
        let (one, two) = (machine().await?, machine().await?);
        assert_ne!(one.gdb(), two.gdb());
        one.pause().await?;
        assert_eq!(one.query_status().await?.status, RunState::Paused);
        assert_eq!(two.query_status().await?.status, RunState::Running);
        assert!(two.check_gdb().await?.reachability.can_attach());
        Ok(())
    }
}
