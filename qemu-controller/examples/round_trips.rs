//! How fast a session asks, beside a bare tokio loop over the same kind of socket pair: `query-status` one
//! after the other, and with 64 callers at once. In one run, in turn, a few commands at a time, so that both
//! see the same machine; prints the time and this program's CPU time a command, and their ratios.
//!
//! `cargo run --release -p qemu-controller --example round_trips -- path/to/firmware.elf [rounds]`

use std::error::Error;
use std::time::{Duration, Instant};

use qemu_controller::{QemuConfig, Session};
use qemu_launch::MachineSpec;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::UnixStream;

/// Commands a round.
const COMMANDS: usize = 128;

/// Callers at once, in the second measurement.
const CALLERS: usize = 64;

/// In-band commands that QEMU takes at once.
const IN_FLIGHT: usize = 8;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let firmware = arguments.next().ok_or("name a firmware ELF for lm3s6965evb")?;
    let rounds: usize = arguments.next().map_or(Ok(200), |rounds| rounds.parse())?;

    let session =
        Session::start(QemuConfig::default().firmware(&firmware).without_gdb().wait_for_gdb(true)).await?;
    let spec = MachineSpec::default().firmware(&firmware).start_stopped(true);
    let mut process = qemu_launch::spawn_async(spec).await?;
    let stream = process.take_qmp().ok_or("no monitor")?;
    stream.set_nonblocking(true)?;
    let mut bare = Bare { stream: BufStream::new(UnixStream::from_std(stream)?), line: String::new() };
    bare.line().await?;
    bare.ask(r#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#, 1, 1).await?;

    let ask = r#"{"execute":"query-status","id":"12345678-1000"}"#;
    let mut costs: [Vec<Cost>; 4] = Default::default();
    for _ in 0..rounds {
        costs[0].push(cost(bare.ask(ask, COMMANDS, 1)).await?);
        costs[1].push(cost(one_by_one(&session)).await?);
        costs[2].push(cost(bare.ask(ask, COMMANDS, IN_FLIGHT)).await?);
        costs[3].push(cost(many_callers(&session)).await?);
    }
    let [bare_one, ours_one, bare_many, ours_many] = costs;
    print("one by one", &bare_one, &ours_one);
    print(&format!("{CALLERS} callers"), &bare_many, &ours_many);
    session.stop().await?;
    Ok(())
}

/// The lower quartile is what a loaded machine spoils least.
fn print(what: &str, bare: &[Cost], ours: &[Cost]) {
    for (of, cost) in [("time", (|cost| cost.time) as fn(&Cost) -> Duration), ("CPU", |cost| cost.cpu)] {
        for (name, parts) in [("median", 2), ("lower quartile", 4)] {
            let [bare, ours] = [bare, ours].map(|costs| {
                let mut costs: Vec<_> = costs.iter().map(cost).collect();
                costs.sort();
                costs[costs.len() / parts].as_secs_f64() * 1e6 / COMMANDS as f64
            });
            let rate = bare / ours;
            println!(
                "{what}, {of}, {name}: bare {bare:.1} us, session {ours:.1} us, bare / session {rate:.3}"
            );
        }
    }
}

/// What `COMMANDS` commands took.
struct Cost {
    time: Duration,
    cpu: Duration,
}

async fn cost(work: impl Future<Output = Result<(), Box<dyn Error>>>) -> Result<Cost, Box<dyn Error>> {
    let (since, cpu_before) = (Instant::now(), cpu_time());
    work.await?;
    Ok(Cost { time: since.elapsed(), cpu: cpu_time() - cpu_before })
}

/// This program's, QEMU's not counted.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

async fn one_by_one(session: &Session) -> Result<(), Box<dyn Error>> {
    for _ in 0..COMMANDS {
        session.query_status().await?;
    }
    Ok(())
}

async fn many_callers(session: &Session) -> Result<(), Box<dyn Error>> {
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let session = session.clone();
        callers.spawn(async move {
            for _ in 0..COMMANDS.div_ceil(CALLERS) {
                session.query_status().await?;
            }
            Ok::<_, qemu_controller::CommandError>(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(())
}

/// The least that a client can do: write, read a line, look whether it is a return.
struct Bare {
    stream: BufStream<UnixStream>,
    line: String,
}

impl Bare {
    async fn line(&mut self) -> Result<(), Box<dyn Error>> {
        self.line.clear();
        self.stream.read_line(&mut self.line).await?;
        Ok(())
    }

    /// So many commands, with so many of them in flight.
    async fn ask(&mut self, command: &str, count: usize, in_flight: usize) -> Result<(), Box<dyn Error>> {
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            while sent < count && sent - answered < in_flight {
                self.stream.write_all(command.as_bytes()).await?;
                sent += 1;
            }
            self.stream.flush().await?;
            self.line().await?;
            serde_json::from_str::<serde::de::IgnoredAny>(&self.line)?;
            answered += usize::from(self.line.starts_with(r#"{"return""#));
        }
        Ok(())
    }
}
