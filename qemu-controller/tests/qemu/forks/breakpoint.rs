//! A guest that a debugger has stopped at a breakpoint is where one most wants to fork it.

use qemu_controller::{RunState, Session, gdb_port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{next_tick, serial};
use crate::snapshots::{Fingerprint, Ram};
use crate::support::{DEADLINE, start, symbol};

const RAM: Ram = Ram {
    from: 0x2000_0000,
    bytes: 8192,
};

/// As little of a debugger as it takes to run into a breakpoint.
struct Debugger {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Debugger {
    async fn attach(session: &Session) -> Self {
        let Some(gdb_port::StubAddress::Tcp(address)) = session.gdb() else {
            panic!("no port")
        };
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            heard: Vec::new(),
        }
    }

    async fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        self.stream
            .write_all(format!("${packet}#{sum:02x}").as_bytes())
            .await
            .unwrap();
    }

    /// Reads up to a packet that begins so, and acknowledges it.
    async fn expect(&mut self, beginning: &str) {
        let wanted = format!("${beginning}");
        let heard = timeout(DEADLINE, async {
            while !self
                .heard
                .windows(wanted.len())
                .any(|window| window == wanted.as_bytes())
                || self.heard.iter().rev().nth(2) != Some(&b'#')
            {
                assert!(self.stream.read_buf(&mut self.heard).await.unwrap() > 0);
            }
        });
        heard
            .await
            .unwrap_or_else(|_| panic!("no {beginning}: {}", self.heard.escape_ascii()));
        self.heard.clear();
        self.stream.write_all(b"+").await.unwrap();
    }
}

#[tokio::test]
async fn forks_go_on_from_a_breakpoint() {
    let parent = start("tick").await;
    let mut debugger = Debugger::attach(&parent).await;
    debugger.send("?").await;
    debugger.expect("T").await;
    debugger
        .send(&format!("Z0,{:x},2", symbol("tick", "tick") & !1))
        .await;
    debugger.expect("OK").await;
    debugger.send("c").await;
    debugger.expect("T05").await;
    assert_eq!(parent.query_status().await.unwrap().status, RunState::Debug);
    serial(&parent).take();
    let there = Fingerprint::of(&parent, RAM, &[]).await;
    let forks = parent.fork(2).await.unwrap();
    assert_eq!(parent.query_status().await.unwrap().status, RunState::Debug);
    let mut ticks = Vec::new();
    for fork in &forks {
        assert_eq!(fork.query_status().await.unwrap().status, RunState::Paused);
        assert_eq!(Fingerprint::of(fork, RAM, &[]).await, there);
        fork.resume().await.unwrap();
        ticks.push(next_tick(fork).await);
    }
    assert_eq!(ticks[0], ticks[1]);
    // The debugger goes on with its own.
    debugger
        .send(&format!("z0,{:x},2", symbol("tick", "tick") & !1))
        .await;
    debugger.expect("OK").await;
    debugger.send("c").await;
    assert_eq!(next_tick(&parent).await, ticks[0]);
}
