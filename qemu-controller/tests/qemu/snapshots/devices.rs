//! Devices that QEMU does not save whole: what a session puts right after a load and in a fork, and
//! what it names.

use std::io::Write as _;
use std::time::{Duration, Instant};

use qemu_controller::qemu_launch::MachineSpec;
use qemu_controller::{AfterLoad, QemuConfig, Session, SnapshotError, StateError};
use tempfile::NamedTempFile;

use crate::support::{DEADLINE, long};

/// A board with a program that gives back what its UART gets.
struct Echo {
    qemu: &'static str,
    machine: &'static str,
    program: &'static [u32],
    /// Where the program is loaded; none for `-bios`.
    address: Option<u64>,
}

/// Turn the UART on; wait until it has a byte; take it and send it.
const ECHOES: [Echo; 3] = [
    Echo {
        qemu: "qemu-system-arm",
        machine: "netduino2",
        // The vectors, and `USART1`.
        program: &[
            0x2000_1000,
            0x0800_0009,
            0xf242_4804,
            0x60c1_010c,
            0x0689_6801,
            0x6841_d5fc,
            0xe7f9_6041,
            0x4001_1000,
        ],
        address: Some(0x0800_0000),
    },
    Echo {
        qemu: "qemu-system-avr",
        machine: "uno",
        program: &[
            0x9300_e108,
            0x9110_00c1,
            0xff17_00c0,
            0x9120_cffc,
            0x9320_00c6,
            0xcff7_00c6,
        ],
        address: None,
    },
    Echo {
        qemu: "qemu-system-arm",
        machine: "sabrelite",
        program: &[
            0xe59f_0024,
            0xe3a0_1001,
            0xe580_1080,
            0xe304_1027,
            0xe580_1084,
            0xe590_1000,
            0xe311_0902,
            0x0aff_fffc,
            0xe201_10ff,
            0xe580_1040,
            0xeaff_fff9,
            0x0202_0000,
        ],
        address: Some(0x1000_0000),
    },
];

fn file(program: &[u32]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    let words = program.iter().flat_map(|word| word.to_le_bytes());
    file.write_all(&words.collect::<Vec<_>>()).unwrap();
    file
}

fn config(spec: MachineSpec) -> QemuConfig {
    QemuConfig::default()
        .with_spec(|_| spec)
        .add_serial()
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
        .stop_policy(DEADLINE, DEADLINE, DEADLINE)
}

impl Echo {
    fn config(&self, program: &NamedTempFile) -> QemuConfig {
        let spec = MachineSpec::new(self.qemu, self.machine);
        config(match self.address {
            Some(address) => {
                let start = format!("loader,addr={address:#x},cpu-num=0");
                let spec = spec.raw_image(program.path(), address);
                // A Cortex-M begins at its vectors.
                match self.machine {
                    "netduino2" => spec,
                    _ => spec.extra_args(["-device", &start]),
                }
            }
            None => spec.bios(program.path()),
        })
    }
}

/// Waits for the program: a byte that comes before its UART is on may be lost, as on the board.
async fn boots(session: &Session) {
    let serial = session.serial(0).unwrap();
    let until = Instant::now() + DEADLINE;
    loop {
        serial.write(b"?").await.unwrap();
        let answer = serial.expect_within("?", Duration::from_millis(200)).await;
        if answer.is_ok() {
            return;
        }
        assert!(Instant::now() < until, "{answer:?}");
    }
}

async fn hears(session: &Session, text: &str) {
    let serial = session.serial(0).unwrap();
    serial.write(text.as_bytes()).await.unwrap();
    serial.expect(text).await.unwrap();
}

#[tokio::test]
async fn a_uart_hears_after_a_load_and_in_a_fork() {
    for echo in &ECHOES {
        let program = file(echo.program);
        let session = Session::start(echo.config(&program)).await.unwrap();
        boots(&session).await;
        let lost = session.save_snapshot("booted").await.unwrap();
        let is_uart = |kind: &str| kind.contains("serial") || kind.contains("usart");
        let mut kinds = lost.iter().map(|device| device.kind.as_str());
        assert!(!kinds.any(is_uart), "{}: {lost:?}", echo.machine);
        hears(&session, "before").await;
        let rounds = if long() { 100 } else { 3 };
        for round in 0..rounds {
            assert_eq!(session.load_snapshot("booted").await.unwrap(), lost);
            hears(&session, &format!("load {round}")).await;
        }
        for fork in session.fork(2).await.unwrap() {
            hears(&fork, "fork").await;
            fork.stop().await.unwrap();
        }
        let state = session.save_state().await.unwrap();
        assert_eq!(state.lost_devices(), lost);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        state.persist(&path).unwrap();
        let state = qemu_controller::MachineState::open(&path).unwrap();
        let later = Session::start_from(echo.config(&program), &state)
            .await
            .unwrap();
        hears(&later, "later").await;
    }
}

/// Counts the interrupts of the core-local timer, one every 10 ms.
const TICKS: [u32; 29] = [
    0x0000_0297,
    0x0582_8293,
    0x3052_9073,
    0x0200_4437,
    0x0200_c4b7,
    0xff84_8493,
    0x0000_1917,
    0xfe09_0913,
    0x0009_2023,
    0x0001_89b7,
    0x6a09_8993,
    0x0004_a303,
    0x0133_0333,
    0x0004_2223,
    0x0064_2023,
    0x0800_0293,
    0x3042_9073,
    0x3004_6073,
    0x1050_0073,
    0xffdf_f06f,
    0x0000_0013,
    0x0000_0013,
    0x0009_2303,
    0x0013_0313,
    0x0069_2023,
    0x0004_2303,
    0x0133_0333,
    0x0064_2023,
    0x3020_0073,
];
const COUNT: u64 = 0x8000_0ff8;
const MTIME: u64 = 0x0200_bff8;
/// `mtime` counts at 10 MHz.
const TICK: u64 = 100_000;

#[tokio::test]
async fn a_risc_v_timer_goes_on_where_it_was() {
    for qemu in ["qemu-system-riscv32", "qemu-system-riscv64"] {
        let program = file(&TICKS);
        // QEMU's own firmware would be in the same place, and is left out.
        let spec = MachineSpec::new(qemu, "virt").raw_image(program.path(), 0x8000_0000);
        let session = Session::start(config(spec)).await.unwrap();
        session
            .wait_for_value(COUNT, |count| count >= 3)
            .await
            .unwrap();
        session.pause().await.unwrap();
        let (saved, ticks) = (now(&session).await, ticks(&session).await);
        assert_eq!(session.save_snapshot("ticks").await.unwrap(), []);
        session.resume().await.unwrap();
        session
            .wait_for_value(COUNT, |count| count >= ticks + 20)
            .await
            .unwrap();
        let rounds = if long() { 100 } else { 5 };
        for _ in 0..rounds {
            let load = session.load_snapshot("ticks").then(AfterLoad::Paused);
            assert_eq!(load.await.unwrap(), []);
            assert_eq!(now(&session).await, saved, "the guest's time stands");
            session.resume().await.unwrap();
            goes_on(&session, ticks).await;
        }
        let load = session.load_snapshot("ticks").then(AfterLoad::Paused);
        load.await.unwrap();
        let forks = if long() { 20 } else { 2 };
        for fork in session.fork(forks).await.unwrap() {
            assert_eq!(now(&fork).await, saved);
            fork.resume().await.unwrap();
            goes_on(&fork, ticks).await;
            fork.stop().await.unwrap();
        }
    }
}

async fn now(session: &Session) -> u64 {
    session.read_u64(MTIME).await.unwrap()
}

async fn ticks(session: &Session) -> u64 {
    session.read_u32(COUNT).await.unwrap().into()
}

/// Ticks come, and none before its time, which the guest's own clock says.
async fn goes_on(session: &Session, ticks: u64) {
    let count = session.wait_for_value(COUNT, |count| count >= ticks + 5);
    let count = count.await.unwrap();
    let now = now(session).await;
    assert!(count <= now / TICK, "{count} ticks until {now}");
}

#[tokio::test]
async fn what_nothing_brings_back_is_named_or_refused() {
    let spec = MachineSpec::new("qemu-system-riscv64", "shakti_c");
    let strict = config(spec.clone())
        .strict_snapshots(true)
        .start_paused(true);
    let session = Session::start(strict).await.unwrap();
    let error = session.save_snapshot("x").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a load would not bring back shakti-uart at 0x11300"
    );
    assert!(matches!(error, SnapshotError::LostDevices { .. }));
    let error = session.save_state().await.unwrap_err();
    assert!(matches!(
        error,
        StateError::Save(SnapshotError::LostDevices { .. })
    ));
    session.stop().await.unwrap();
    let session = Session::start(config(spec).start_paused(true))
        .await
        .unwrap();
    let lost = session.save_snapshot("x").await.unwrap();
    assert_eq!(lost[0].kind, "shakti-uart");
    assert_eq!(session.load_snapshot("x").await.unwrap(), lost);
}
