//! How fast a session asks, beside a bare tokio loop over the same kind of socket pair: `query-status` one
//! after the other, and with 64 callers at once. In one run, in turn; prints the rates and the ratios of the
//! medians.
//!
//! `cargo run --release -p qemu-controller --example round_trips -- path/to/firmware.elf [rounds]`

use std::error::Error;
use std::time::Instant;

use qemu_controller::{QemuConfig, Session};
use qemu_launch::MachineSpec;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::UnixStream;

/// Commands a round.
const COMMANDS: usize = 4000;

/// Callers at once, in the second measurement.
const CALLERS: usize = 64;

/// In-band commands that QEMU takes at once.
const IN_FLIGHT: usize = 8;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let firmware = arguments.next().ok_or("name a firmware ELF for lm3s6965evb")?;
    let rounds: usize = arguments.next().map_or(Ok(7), |rounds| rounds.parse())?;

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
    let mut rates: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        rates[0].push(rate(bare.ask(ask, COMMANDS, 1)).await?);
        rates[1].push(rate(one_by_one(&session)).await?);
        rates[2].push(rate(bare.ask(ask, COMMANDS, IN_FLIGHT)).await?);
        rates[3].push(rate(many_callers(&session)).await?);
    }
    let [bare_one, ours_one, bare_many, ours_many] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!("one by one:   bare {bare_one:.0}/s, session {ours_one:.0}/s, ratio {:.3}", ours_one / bare_one);
    println!(
        "{CALLERS} callers:   bare {bare_many:.0}/s, session {ours_many:.0}/s, ratio {:.3}",
        ours_many / bare_many
    );
    session.stop().await?;
    Ok(())
}

/// Commands a second.
async fn rate(work: impl Future<Output = Result<(), Box<dyn Error>>>) -> Result<f64, Box<dyn Error>> {
    let since = Instant::now();
    work.await?;
    Ok(COMMANDS as f64 / since.elapsed().as_secs_f64())
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
