//! Each board: save, run on, load, and all is as it was; a hundred times, and after a reset.

use std::time::Instant;

use qemu_controller::{AfterLoad, Endpoint, QemuConfig, Session};
use tempfile::TempDir;

use super::{Fingerprint, Ram, word};
use crate::support::{DEADLINE, config, symbol};

const K: u64 = 1024;

/// The SysTick timer's reload value and its current one, in every Cortex-M.
const SYSTICK: [u64; 2] = [0xe000_e014, 0xe000_e018];

/// Where a program of a few instructions counts.
const COUNTER: u64 = 0x2000_0000;

/// A Cortex-M program that is right for every board with RAM at 0x2000_0000: counts in its first
/// word.
const COUNT: [u16; 10] = [
    0x0400, 0x2000, // the initial stack pointer
    0x0009, 0x0000, // the reset vector: 8, and Thumb
    0x2020, 0x0600, // r0 = 0x2000_0000
    0x2100, // r1 = 0
    0x3101, // r1 += 1
    0x6001, // [r0] = r1
    0xe7fc, // back to r1 += 1
];

/// The same for a Cortex-A in ARM state, which a board loads as it would Linux; counts at
/// 0x4010_0000.
const COUNT_A: [u32; 6] = [
    0xe3a0_0101,
    0xe380_0601,
    0xe3a0_1000,
    0xe281_1001,
    0xe580_1000,
    0xeaff_fffc,
];

struct Board {
    config: QemuConfig,
    ram: Ram,
    counter: u64,
    peripherals: Vec<u64>,
    /// Where a program is that is not in a file of the project's.
    _folder: Option<TempDir>,
}

impl Board {
    /// With one of the project's own images.
    fn with_image(machine: &str, name: &str, peripherals: &[u64]) -> Self {
        let config = config(name).machine(machine);
        let ram = Ram {
            from: 0x2000_0000,
            bytes: 8 * K,
        };
        let peripherals = [&SYSTICK[..], peripherals].concat();
        Self {
            config,
            ram,
            counter: symbol(name, "counter"),
            peripherals,
            _folder: None,
        }
    }

    /// With a few instructions.
    fn with_program(machine: &str, program: &[u8], counter: u64, peripherals: &[u64]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("count.bin");
        std::fs::write(&path, program).unwrap();
        let config = QemuConfig::default()
            .machine(machine)
            .gdb(Endpoint::free_port())
            .start_deadline(DEADLINE)
            .command_deadline(DEADLINE)
            .stop_policy(DEADLINE, DEADLINE, DEADLINE)
            .with_spec(|spec| spec.unchecked_firmware(path));
        let ram = Ram {
            from: counter,
            bytes: 16 * K,
        };
        Self {
            config,
            ram,
            counter,
            peripherals: peripherals.to_vec(),
            _folder: Some(folder),
        }
    }

    fn cortex_m(machine: &str, peripherals: &[u64]) -> Self {
        let program: Vec<_> = COUNT.iter().flat_map(|half| half.to_le_bytes()).collect();
        Self::with_program(
            machine,
            &program,
            COUNTER,
            &[&SYSTICK[..], peripherals].concat(),
        )
    }

    async fn fingerprint(&self, session: &Session) -> Fingerprint {
        Fingerprint::of(session, self.ram, &self.peripherals).await
    }

    /// Waits until the counter has moved on.
    async fn runs(&self, session: &Session) {
        let (before, until) = (word(session, self.counter).await, Instant::now() + DEADLINE);
        while word(session, self.counter).await == before {
            assert!(Instant::now() < until, "the guest does not count");
        }
    }

    async fn check(&self) {
        let session = Session::start(self.config.clone()).await.unwrap();
        self.runs(&session).await;
        session.pause().await.unwrap();
        let first = self.fingerprint(&session).await;
        session.save_snapshot("first").await.unwrap();
        assert_eq!(
            self.fingerprint(&session).await,
            first,
            "a save changes nothing"
        );

        for _ in 0..100 {
            session.resume().await.unwrap();
            session
                .load_snapshot("first")
                .then(AfterLoad::Paused)
                .await
                .unwrap();
        }
        assert_eq!(self.fingerprint(&session).await, first);
        session.resume().await.unwrap();
        self.runs(&session).await;

        session.reset().await.unwrap();
        self.runs(&session).await;
        session.pause().await.unwrap();
        let second = self.fingerprint(&session).await;
        assert_ne!(second, first);
        session.save_snapshot("second").await.unwrap();
        session.load_snapshot("first").await.unwrap();
        assert_eq!(self.fingerprint(&session).await, first);
        session.load_snapshot("second").await.unwrap();
        assert_eq!(self.fingerprint(&session).await, second);
        session
            .load_snapshot("first")
            .then(AfterLoad::Running)
            .await
            .unwrap();
        self.runs(&session).await;
        assert!(session.stop().await.unwrap().exit.unwrap().success());
    }
}

/// UART0's flags, divisors, line control and control.
const STELLARIS_UART: [u64; 5] = [
    0x4000_c018,
    0x4000_c024,
    0x4000_c028,
    0x4000_c02c,
    0x4000_c030,
];

#[tokio::test]
async fn lm3s6965evb() {
    Board::with_image("lm3s6965evb", "tick", &STELLARIS_UART)
        .check()
        .await;
}

#[tokio::test]
async fn lm3s811evb() {
    // 8 KiB of RAM, and the image's stack is at the end of 64: it is put where there is some.
    Board::cortex_m("lm3s811evb", &STELLARIS_UART).check().await;
}

#[tokio::test]
async fn mps2_an385() {
    // UART0's state, control and divisor.
    Board::with_image(
        "mps2-an385",
        "tick-mps2",
        &[0x4000_4004, 0x4000_4008, 0x4000_4010],
    )
    .check()
    .await;
}

#[tokio::test]
async fn netduinoplus2() {
    // USART1's status and control, TIM2's control.
    Board::cortex_m("netduinoplus2", &[0x4001_1008, 0x4001_100c, 0x4000_0000])
        .check()
        .await;
}

#[tokio::test]
async fn microbit() {
    // The GPIO's output and direction.
    Board::cortex_m("microbit", &[0x5000_0504, 0x5000_0514])
        .check()
        .await;
}

#[tokio::test]
async fn virt_with_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = super::disk(folder.path(), "qcow2").await;
    let program: Vec<_> = COUNT_A.iter().flat_map(|word| word.to_le_bytes()).collect();
    // The PL011's flags, divisor and control.
    let mut board = Board::with_program(
        "virt",
        &program,
        0x4010_0000,
        &[0x0900_0018, 0x0900_0024, 0x0900_0030],
    );
    let drive = qemu_launch::Drive::qcow2("virtio", path);
    board.config = board
        .config
        .cpu("cortex-a15")
        .memory("64M")
        .with_spec(|spec| spec.drive(drive));
    board.check().await;
}
