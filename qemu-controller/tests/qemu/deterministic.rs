//! Deterministic time: the same firmware is in the same state at the same place, run after run.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use gdb_port::gdb_remote::packet::{DEFAULT_MAX_PAYLOAD, Decoder, Item, encode};
use qemu_controller::{QemuConfig, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{DEADLINE, config};

/// At which arrival the state is looked at.
const ARRIVAL: usize = 3;

/// A debugger, as much of one as it takes to come to a place for the N-th time.
struct Debugger {
    stream: TcpStream,
    decoder: Decoder,
}

impl Debugger {
    async fn attach(session: &Session) -> Self {
        let Some(gdb_port::StubAddress::Tcp(address)) = session.gdb() else {
            panic!("no TCP port")
        };
        let stream = TcpStream::connect(address).await.unwrap();
        Self {
            stream,
            decoder: Decoder::new(DEFAULT_MAX_PAYLOAD),
        }
    }

    /// Sends a packet and returns the answer, both acknowledged.
    async fn ask(&mut self, payload: &str) -> String {
        let mut packet = Vec::new();
        encode(payload.as_bytes(), &mut packet);
        self.stream.write_all(&packet).await.unwrap();
        let answer = async {
            loop {
                let byte = self.stream.read_u8().await.unwrap();
                if let Some(Item::Packet(answer)) = self.decoder.push(byte) {
                    return answer;
                }
            }
        };
        let answer = timeout(DEADLINE, answer).await.unwrap();
        self.stream.write_all(b"+").await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Lets the guest run until it comes to this address; from there it takes a step of its own
    /// first, since a breakpoint at its program counter would hold it.
    async fn run_to(&mut self, address: u64) {
        assert!(self.ask("s").await.starts_with('T'));
        assert_eq!(self.ask(&format!("Z0,{address:x},2")).await, "OK");
        assert!(self.ask("c").await.starts_with("T05"));
        assert_eq!(self.ask(&format!("z0,{address:x},2")).await, "OK");
    }
}

/// The hash of the guest's RAM at the arrival.
async fn state_at_arrival(config: QemuConfig) -> u64 {
    let session = Session::start(config.wait_for_gdb(true)).await.unwrap();
    let tick = session
        .firmware_info()
        .unwrap()
        .symbol("tick")
        .unwrap()
        .address;
    let mut debugger = Debugger::attach(&session).await;
    for _ in 0..ARRIVAL {
        debugger.run_to(tick).await;
    }
    assert_eq!(
        session.read_u32("tick_count").await.unwrap() as usize,
        ARRIVAL - 1
    );
    let ram = session.read_memory(0x2000_0000, 0x1_0000).await.unwrap();
    session.stop().await.unwrap();
    let mut hasher = DefaultHasher::new();
    ram.hash(&mut hasher);
    hasher.finish()
}

#[tokio::test]
async fn with_it_the_state_at_a_place_is_the_same_in_ten_of_ten_runs() {
    let mut states = HashSet::new();
    for _ in 0..10 {
        states.insert(state_at_arrival(config("tick").deterministic(6)).await);
    }
    assert_eq!(states.len(), 1, "{states:x?}");
}

#[tokio::test]
async fn without_it_it_is_not() {
    let mut states = HashSet::new();
    for _ in 0..5 {
        states.insert(state_at_arrival(config("tick")).await);
    }
    assert!(states.len() > 1, "{states:x?}");
}

/// What the session's own debugger does on the way to the arrival.
#[cfg(feature = "debugger")]
#[derive(Clone, Copy, Debug, PartialEq)]
enum OnTheWay {
    Nothing,
    /// Two thousand single steps, from the reset on.
    Steps,
    /// Each call of this is met, and the guest looked at.
    Stops(&'static str),
    /// Faults are waited for as well, and do not come.
    Faults,
}

/// The hash of the guest's RAM at the arrival, and its counter.
#[cfg(feature = "debugger")]
async fn state_after(way: OnTheWay) -> (u64, u32) {
    use qemu_controller::debug::{StopReason, Until};

    let config = QemuConfig::default()
        .firmware(crate::support::image("tick"))
        .deterministic(6)
        .start_paused(true)
        .command_deadline(DEADLINE);
    let session = Session::start(config).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    if way == OnTheWay::Steps {
        for _ in 0..2000 {
            debugger.step_instruction().await.unwrap();
        }
    }
    loop {
        let ticks = session.read_u32("tick_count").await.unwrap();
        let mut until = vec![Until::reaches("tick").skip(ARRIVAL as u64 - 1 - u64::from(ticks))];
        match way {
            OnTheWay::Stops(function) => until.push(Until::reaches(function)),
            OnTheWay::Faults => until.push(Until::faults()),
            OnTheWay::Nothing | OnTheWay::Steps => {}
        }
        let stop = debugger.run_until(until, DEADLINE).await.unwrap();
        match stop.reason {
            StopReason::Reached { index: 0, .. } => break,
            StopReason::Reached { index: 1, .. } => {
                debugger.read_registers().await.unwrap();
                debugger.read_memory(0, 5000).await.unwrap();
            }
            _ => panic!("{stop}"),
        }
    }
    let counter = session.read_u32("counter").await.unwrap();
    let ram = session.read_memory(0x2000_0000, 0x1_0000).await.unwrap();
    session.stop().await.unwrap();
    let mut hasher = DefaultHasher::new();
    ram.hash(&mut hasher);
    (hasher.finish(), counter)
}

/// `print_string` is called first while no timer runs, and both later right after `tick`, whose own
/// stop has taken the clock to the same timer already.
#[cfg(feature = "debugger")]
#[tokio::test]
async fn steps_stops_and_looks_change_nothing_in_ten_of_ten_runs() {
    let ways = [
        OnTheWay::Nothing,
        OnTheWay::Steps,
        OnTheWay::Stops("print_string"),
        OnTheWay::Faults,
        OnTheWay::Stops("uart_put"),
    ];
    let mut states = HashSet::new();
    for way in ways.iter().cycle().take(10) {
        states.insert(state_after(*way).await);
    }
    assert_eq!(states.len(), 1, "{states:x?}");
}

/// A stop at a breakpoint lets QEMU's clock jump to its next timer: it takes the core that has
/// stopped for one that sleeps. So the state is that of the same stops, run after run, and not that
/// of fewer stops.
#[cfg(feature = "debugger")]
#[tokio::test]
async fn a_stop_lets_the_clock_jump_to_its_next_timer() {
    let (_, alone) = state_after(OnTheWay::Nothing).await;
    let mut states = HashSet::new();
    for _ in 0..10 {
        states.insert(state_after(OnTheWay::Stops("uart_get")).await);
    }
    assert_eq!(states.len(), 1, "{states:x?}");
    let (_, stopped) = states.into_iter().next().unwrap();
    assert!(stopped < alone / 10, "{stopped} {alone}");
}
