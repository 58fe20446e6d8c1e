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
