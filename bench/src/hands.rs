//! Firmware in other hands: calls a second by `mcp`, by a session of `serve` and by the program `ctl`,
//! beside the library; and what `--bundle` costs a run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use qemu_controller::Session;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Bench;
use crate::peers::{config, runtime};
use crate::report::{Limit, Report};
use crate::stats::{Contender, rate, take_turns};

const LIBRARY: &str = "qemu-controller, the library";
const MCP: &str = "mcp, one call after the other";
const SOCKET: &str = "a session of serve, by its socket";
const CTL: &str = "ctl, a program for each call";

const FAILS: &str = "a run that fails";
const FAILS_KEPT: &str = "a run that fails, with --bundle";
const PASSES: &str = "a run that passes";
const PASSES_WATCHED: &str = "a run that passes, with --bundle";

/// Memory of the guest, and how much of it a call reads.
const MEMORY: u64 = 0x2000_0000;
const BYTES: u64 = 64;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let program = bench.program.as_deref().context("no --program")?;
    calls(bench, program, report)?;
    bundles(bench, program, report)
}

fn calls(bench: &Bench, program: &Path, report: &mut Report) -> Result<()> {
    let runtime = runtime()?;
    let session = runtime.block_on(Session::start(config(&bench.firmware, true)))?;
    let mut mcp = Mcp::start(program, &bench.firmware)?;
    let serve = Serve::start(program, &bench.firmware)?;
    let (many, few) = (bench.either(200, 1000), bench.either(5, 20));
    let status = json!({ "call": "status" });
    let memory = json!({ "call": "read_memory", "at": format!("{MEMORY:#x}"), "length": BYTES });
    let contenders = vec![
        Contender::new(LIBRARY, || {
            runtime.block_on(async {
                let since = Instant::now();
                for _ in 0..many {
                    session.query_status().await?;
                }
                let status = rate(many, since);
                let since = Instant::now();
                for _ in 0..many {
                    session.read_memory(MEMORY, BYTES).await?;
                }
                Ok(vec![status, rate(many, since)])
            })
        }),
        Contender::new(MCP, || {
            rates(many, [&status, &memory], |call| mcp.call(call))
        }),
        Contender::new(SOCKET, || {
            rates(many, [&status, &memory], |call| serve.call(call))
        }),
        Contender::new(CTL, || {
            let (at, length) = (format!("{MEMORY:#x}"), BYTES.to_string());
            let calls = [&["status"][..], &["read-memory", &at, &length]];
            rates(few, calls, |words| serve.ctl(words))
        }),
    ];
    let measured = take_turns(bench.rounds(3, 10), contenders)?;
    let quantities = [("status", "/s"), ("64 bytes of memory", "/s")];
    report.rows("calls by other hands", &quantities, &measured);
    report.ratio(
        "a call by mcp, against the library's rate",
        &measured,
        (MCP, LIBRARY),
        0,
        Limit::AtLeast(0.2),
    );
    Ok(())
}

/// How often each of these calls is done a second, one after the other.
fn rates<C>(
    count: usize,
    calls: [C; 2],
    mut call: impl FnMut(&C) -> Result<()>,
) -> Result<Vec<f64>> {
    let measured = calls.iter().map(|wanted| {
        let since = Instant::now();
        for _ in 0..count {
            call(wanted)?;
        }
        Ok(rate(count, since))
    });
    measured.collect()
}

/// `--bundle`: of a run that fails all of it, of one that passes what watching for its exit costs.
fn bundles(bench: &Bench, program: &Path, report: &mut Report) -> Result<()> {
    let fails = bench.root.join("cli/fixtures/planted/cortex-m.elf");
    let passes = bench
        .root
        .join("xtask/firmware/semihosting-print/semihosting-print.elf");
    let run = |firmware: &PathBuf, status: i32, bundle: Option<&str>| {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(program);
        command.arg("run").arg(firmware).args(bundle);
        command.current_dir(folder.path()).stdin(Stdio::null());
        let since = Instant::now();
        let output = command.output()?;
        let took = since.elapsed();
        ensure!(output.status.code() == Some(status), "{output:?}");
        Ok(vec![took.as_secs_f64() * 1000.0])
    };
    let contenders = vec![
        Contender::new(FAILS, || run(&fails, 139, None)),
        Contender::new(FAILS_KEPT, || run(&fails, 139, Some("--bundle"))),
        Contender::new(PASSES, || run(&passes, 0, None)),
        Contender::new(PASSES_WATCHED, || run(&passes, 0, Some("--bundle"))),
    ];
    let measured = take_turns(bench.rounds(5, 30), contenders)?;
    report.rows("bundles", &[("time", "ms")], &measured);
    Ok(())
}

/// A program that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client of the Model Context Protocol, as little as it takes.
struct Mcp {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    id: u64,
    _child: Running,
}

impl Mcp {
    fn start(program: &Path, firmware: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["mcp", "--any-path"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("a pipe")?;
        let stdout = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut mcp = Self {
            stdin,
            stdout,
            id: 0,
            _child: Running(child),
        };
        let info = json!({ "name": "bench", "version": "1" });
        mcp.ask(
            "initialize",
            json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info }),
        )?;
        writeln!(
            mcp.stdin,
            "{}",
            json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })
        )?;
        mcp.call(&json!({ "call": "start", "firmware": firmware }))?;
        Ok(mcp)
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        self.id += 1;
        let request =
            json!({ "jsonrpc": "2.0", "id": self.id, "method": method, "params": params });
        writeln!(self.stdin, "{request}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn call(&mut self, call: &Value) -> Result<()> {
        let mut arguments = call.clone();
        let name = arguments["call"].take();
        if let Some(arguments) = arguments.as_object_mut() {
            arguments.remove("call");
        }
        let answer = self.ask(
            "tools/call",
            json!({ "name": name, "arguments": arguments }),
        )?;
        ensure!(answer["result"]["isError"] == false, "{answer}");
        Ok(())
    }
}

/// A session of `serve`.
struct Serve {
    program: PathBuf,
    folder: TempDir,
    _child: Running,
}

impl Serve {
    fn start(program: &Path, firmware: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg(firmware)
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("a pipe")?;
        let child = Running(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.contains("steer it"), "{line}");
        Ok(Self {
            program: program.to_owned(),
            folder,
            _child: child,
        })
    }

    fn call(&self, call: &Value) -> Result<()> {
        let socket = self.folder.path().join("qemu-controller/default.sock");
        let mut stream = UnixStream::connect(socket)?;
        writeln!(stream, "{call}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        match line.contains("\"error\"") {
            true => bail!("{line}"),
            false => Ok(()),
        }
    }

    fn ctl(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("ctl").args(words);
        command.env("XDG_RUNTIME_DIR", self.folder.path());
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }
}
