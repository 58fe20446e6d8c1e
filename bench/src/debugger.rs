//! The session's debugger, beside a bare loop that speaks the remote protocol over a socket pair,
//! with and without a monitor, beside gdb-multiarch over its machine interface, and beside pygdbmi.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use qemu_controller::Session;
use qemu_controller::debug::{StopReason, Until};
use tokio::time::sleep;

use crate::Bench;
use crate::machine::{self, Machine, PATIENCE};
use crate::peers::{BARE, BARE_TOKIO, SESSION, config, runtime, tokio_stream};
use crate::report::{Limit, Quantity, Report};
use crate::stats::{Contender, Spread, milliseconds, of, rate, take_turns};
use crate::stub::Stub;

/// A loop of five instructions, which writes the counter each time.
const FIRMWARE: &str = "xtask/firmware/tick/tick.elf";
const LOOP: &str = "main_loop";
/// Behind what the function begins with.
const INTO_LOOP: u64 = 8;
const COUNTER: &str = "counter";

/// QEMU writes two events to a monitor for each time that the guest ran.
const BESIDE: &str = "bare loop beside a monitor";
const MI: &str = "gdb-multiarch over MI";
const PYGDBMI: &str = "pygdbmi 0.11";

const QUANTITIES: [Quantity; 7] = [
    ("attach", "ms"),
    ("single steps", "/s"),
    ("register reads", "/s"),
    ("64-byte reads", "/s"),
    ("4 KiB reads", "/s"),
    ("breakpoint hits", "/s"),
    ("watchpoint hits", "/s"),
];

/// Longer than anything here takes.
const DEADLINE: Duration = PATIENCE;

/// For an earlier stub to be gone.
const APART: Duration = Duration::from_millis(30);

/// Where the loop is, and the counter.
#[derive(Clone, Copy)]
struct Places {
    start: u64,
    counter: u64,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let firmware = bench.root.join(FIRMWARE);
    let runtime = runtime()?;
    let session = runtime.block_on(Session::start(config(&firmware, true)))?;
    let info = session.firmware_info()?;
    let places = Places {
        start: info.symbol(LOOP)?.address + INTO_LOOP,
        counter: info.symbol(COUNTER)?.address,
    };
    let count = bench.either(300, 2000);
    let mut bare = Bare::start(machine::stub_over_pair(&firmware)?, places)?;
    let mut beside = Bare::start(machine::stub_beside_monitor(&firmware)?, places)?;
    let tokio_runtime = self::runtime()?;
    let mut bare_tokio = tokio_runtime.block_on(BareTokio::start(&firmware, places))?;
    let mut contenders = vec![
        Contender::new(SESSION, || runtime.block_on(ours(&session, places, count))),
        Contender::new(BARE, || bare.round(places, count)),
        Contender::new(BESIDE, || beside.round(places, count)),
        Contender::new(BARE_TOKIO, || {
            tokio_runtime.block_on(bare_tokio.round(places, count))
        }),
    ];
    match Mi::start(&firmware, places) {
        Ok(mut mi) => {
            let count = bench.either(50, 300);
            contenders.push(Contender::new(MI, move || mi.round(places, count)));
        }
        Err(error) => report.left_out.push(format!("{MI}: {error:#}")),
    }
    if let Some(python) = &bench.python_path {
        let (_machine, path) = machine::stub_over_unix(&firmware)?;
        let (python, count) = (python.clone(), bench.either(2, 5));
        contenders.push(Contender::new(PYGDBMI, move || {
            let _machine = &_machine;
            pygdbmi(&python, &firmware, &path, places, count)
        }));
    }
    let measured = take_turns(bench.rounds(3, 12), contenders)?;
    report.rows("debugger", &QUANTITIES, &measured);
    let attach = of(&measured, SESSION, 0).and_then(Spread::of);
    report.aim("debugger: attach, in ms", attach, Limit::AtMost(5.0));
    for (number, (quantity, _)) in QUANTITIES.iter().enumerate().skip(1) {
        for peer in [BARE, BESIDE, BARE_TOKIO] {
            report.ratio(
                &format!("debugger: {quantity}, against a {peer}"),
                &measured,
                (SESSION, peer),
                number,
                Limit::AtLeast(0.9),
            );
        }
    }
    let steps = "debugger: single steps, how many times gdb-multiarch over MI";
    report.ratio(steps, &measured, (SESSION, MI), 1, Limit::AtLeast(15.0));
    let steps = "debugger: single steps, how many times pygdbmi";
    report.ratio(
        steps,
        &measured,
        (SESSION, PYGDBMI),
        1,
        Limit::AtLeast(400.0),
    );
    Ok(())
}

async fn ours(session: &Session, places: Places, count: usize) -> Result<Vec<f64>> {
    let since = Instant::now();
    let mut debugger = session.debugger().await?;
    let mut figures = vec![milliseconds(since)];
    let until = || [Until::reaches(places.start)];
    let stop = debugger.run_until(until(), DEADLINE).await?;
    ensure!(matches!(stop.reason, StopReason::Reached { .. }), "{stop}");

    let since = Instant::now();
    for _ in 0..count {
        debugger.step_instruction().await?;
    }
    figures.push(rate(count, since));
    let since = Instant::now();
    for _ in 0..count {
        debugger.read_registers().await?;
    }
    figures.push(rate(count, since));
    for length in [64, 4096] {
        let since = Instant::now();
        for _ in 0..count {
            debugger.read_memory(places.counter, length).await?;
        }
        figures.push(rate(count, since));
    }
    debugger.run_until(until(), DEADLINE).await?;
    let since = Instant::now();
    for _ in 0..count {
        let stop = debugger.run_until(until(), DEADLINE).await?;
        ensure!(matches!(stop.reason, StopReason::Reached { .. }), "{stop}");
    }
    figures.push(rate(count, since));
    let since = Instant::now();
    for _ in 0..count {
        let written = [Until::writes(places.counter, 4)];
        let stop = debugger.run_until(written, DEADLINE).await?;
        ensure!(matches!(stop.reason, StopReason::Watched { .. }), "{stop}");
    }
    figures.push(rate(count, since));
    drop(debugger);
    sleep(APART).await;
    Ok(figures)
}

/// The least that has to be sent for the same answers, and nothing is checked.
struct Bare {
    stub: Stub,
    _machine: Machine,
}

impl Bare {
    fn start((machine, stream): (Machine, UnixStream), places: Places) -> Result<Self> {
        let mut bare = Self {
            stub: Stub::new(stream),
            _machine: machine,
        };
        bare.stub.ask("qSupported:multiprocess+")?;
        // QEMU 7.2 answers `p` only then.
        bare.stub.ask("qXfer:features:read:target.xml:0,ffb")?;
        bare.stub
            .ask("qXfer:features:read:arm-m-profile.xml:0,ffb")?;
        bare.run_to(places.start)?;
        Ok(bare)
    }

    fn run_to(&mut self, address: u64) -> Result<()> {
        for packet in running_to(address) {
            self.stub.ask(&packet)?;
        }
        Ok(())
    }

    fn round(&mut self, places: Places, count: usize) -> Result<Vec<f64>> {
        let mut figures = vec![f64::NAN];
        for packets in questions(places) {
            let since = Instant::now();
            for _ in 0..count {
                for packet in &packets {
                    self.stub.ask(packet)?;
                }
            }
            figures.push(rate(count, since));
        }
        self.run_to(places.start)?;
        Ok(figures)
    }
}

fn running_to(address: u64) -> [String; 3] {
    let point = format!("0,{address:x},2");
    [format!("Z{point}"), "c".to_owned(), format!("z{point}")]
}

/// The packets for each quantity but the first.
fn questions(Places { start, counter }: Places) -> [Vec<String>; 6] {
    // As much as a packet takes, twice.
    let piece = 0x1000 / 2;
    let second = counter + piece;
    let (breaks, watches) = (format!("0,{start:x},2"), format!("2,{counter:x},4"));
    [
        // A step of an instruction that waits is none in QEMU: which it is has to be seen before.
        format!("m{start:x},4 vCont;s:p1.1 pf"),
        "g".to_owned(),
        format!("m{counter:x},40"),
        format!("m{counter:x},{piece:x} m{second:x},{piece:x}"),
        format!("Z{breaks} m{start:x},4 vCont;s:p1.1 c pf z{breaks}"),
        format!("Z{watches} c m{counter:x},4 z{watches} vCont;s:p1.1 m{counter:x},4 pf"),
    ]
    .map(|packets| packets.split(' ').map(str::to_owned).collect())
}

/// The same in tokio, whose one thread reads the monitor too: the least that holds up nobody else.
struct BareTokio {
    stub: Stub<tokio::net::UnixStream>,
    _machine: Machine,
}

impl BareTokio {
    async fn start(firmware: &Path, places: Places) -> Result<Self> {
        let (machine, stub, monitor) = machine::stub_and_monitor(firmware)?;
        let bare = Bare::start((machine, stub), places)?;
        let mut monitor = tokio_stream(monitor)?;
        // Ends with QEMU.
        tokio::spawn(async move { tokio::io::copy(&mut monitor, &mut tokio::io::sink()).await });
        Ok(Self {
            stub: bare.stub.into_tokio()?,
            _machine: bare._machine,
        })
    }

    async fn round(&mut self, places: Places, count: usize) -> Result<Vec<f64>> {
        let mut figures = vec![f64::NAN];
        for packets in questions(places) {
            let since = Instant::now();
            for _ in 0..count {
                for packet in &packets {
                    self.stub.ask(packet).await?;
                }
            }
            figures.push(rate(count, since));
        }
        for packet in running_to(places.start) {
            self.stub.ask(&packet).await?;
        }
        Ok(figures)
    }
}

/// gdb over its machine interface, asked by a pipe: each answer is waited for and no longer.
struct Mi {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    firmware: PathBuf,
    path: PathBuf,
    _machine: Machine,
}

impl Drop for Mi {
    fn drop(&mut self) {
        // Both only fail for a process that has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Gdb = (Child, ChildStdin, BufReader<ChildStdout>);

fn spawn_gdb(firmware: &Path) -> Result<Gdb> {
    let mut command = Command::new("gdb-multiarch");
    command
        .args([
            "-nx",
            "-q",
            "--interpreter=mi3",
            "-iex",
            "set debuginfod enabled off",
        ])
        .arg(firmware)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn()?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let (stdin, stdout) = pipes.context("no pipes")?;
    Ok((child, stdin, BufReader::new(stdout)))
}

impl Mi {
    fn start(firmware: &Path, places: Places) -> Result<Self> {
        let (machine, path) = machine::stub_over_unix(firmware)?;
        let (child, stdin, stdout) = spawn_gdb(firmware)?;
        let mut mi = Self {
            child,
            stdin,
            stdout,
            firmware: firmware.to_owned(),
            path,
            _machine: machine,
        };
        mi.connect()?;
        mi.ask(&format!("-break-insert -t *{:#x}", places.start), "^done")?;
        mi.ask("-exec-continue", "*stopped")?;
        Ok(mi)
    }

    fn connect(&mut self) -> Result<()> {
        let target = format!("-target-select remote {}", self.path.display());
        self.ask(&target, "^connected")
    }

    /// Sends a command, and reads to the line that begins so.
    fn ask(&mut self, command: &str, answer: &str) -> Result<()> {
        writeln!(self.stdin, "{command}")?;
        let mut line = String::new();
        while !line.starts_with(answer) {
            line.clear();
            ensure!(self.stdout.read_line(&mut line)? > 0, "gdb has ended");
            if line.starts_with("^error") {
                bail!("{command}: {line}");
            }
        }
        Ok(())
    }

    fn round(&mut self, places: Places, count: usize) -> Result<Vec<f64>> {
        let Places { start, counter } = places;
        // Another gdb in its place, with the symbols.
        self.ask("-target-disconnect", "^done")?;
        let since = Instant::now();
        let gdb = spawn_gdb(&self.firmware)?;
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.stdin, self.stdout) = gdb;
        self.connect()?;
        let mut figures = vec![milliseconds(since)];
        let commands = [
            ("-exec-step-instruction".to_owned(), "*stopped"),
            ("-data-list-register-values x".to_owned(), "^done"),
            (format!("-data-read-memory-bytes {counter:#x} 64"), "^done"),
            (
                format!("-data-read-memory-bytes {counter:#x} 4096"),
                "^done",
            ),
        ];
        let mut measure = |mi: &mut Self, command: &str, answer: &str| -> Result<()> {
            let since = Instant::now();
            for _ in 0..count {
                mi.ask(command, answer)?;
            }
            figures.push(rate(count, since));
            Ok(())
        };
        for (command, answer) in &commands {
            measure(self, command, answer)?;
        }
        self.ask(&format!("-break-insert *{start:#x}"), "^done")?;
        measure(self, "-exec-continue", "*stopped")?;
        self.ask("-break-delete", "^done")?;
        self.ask(&format!("-break-watch *(int*){counter:#x}"), "^done")?;
        measure(self, "-exec-continue", "*stopped")?;
        self.ask("-break-delete", "^done")?;
        Ok(figures)
    }
}

/// A script that does the same by pygdbmi, with its own waiting, and prints the figures.
fn pygdbmi(
    python: &Path,
    firmware: &Path,
    path: &Path,
    places: Places,
    count: usize,
) -> Result<Vec<f64>> {
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/pygdbmi_peer.py"))
        .args([firmware, path])
        .args([places.start, places.counter, count as u64].map(|number| number.to_string()))
        .stdin(Stdio::null());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pygdbmi: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}
