//! How soon a session is ready, beside a bare loop that does the least that is possible: the same QEMU over a
//! socket pair that it inherits, blocking reads, no checks. Both in one run, in turn; prints median, minimum
//! and maximum of each, and the ratio of the medians.
//!
//! `cargo run --release -p qemu-controller --example ready -- path/to/firmware.elf [runs]`

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use qemu_controller::{Endpoint, QemuConfig, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let firmware = arguments.next().ok_or("name a firmware ELF for lm3s6965evb")?;
    let runs = arguments.next().map_or(Ok(40), |runs| runs.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        bare.push(bare_loop(&firmware)?);
        ours.push(runtime.block_on(session(&firmware))?);
    }
    let bare = show("bare loop", &mut bare);
    let ours = show("session", &mut ours);
    println!("ratio of the medians: {:.3}", ours.as_secs_f64() / bare.as_secs_f64());
    Ok(())
}

async fn session(firmware: &str) -> Result<Duration, Box<dyn Error>> {
    let since = Instant::now();
    let session = Session::start(QemuConfig::default().firmware(firmware).gdb(Endpoint::loopback(0))).await?;
    let ready = since.elapsed();
    session.stop().await?;
    Ok(ready)
}

fn bare_loop(firmware: &str) -> Result<Duration, Box<dyn Error>> {
    let since = Instant::now();
    let (monitor, theirs) = UnixStream::pair()?;
    let mut command = Command::new("qemu-system-arm");
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", "lm3s6965evb", "-cpu", "cortex-m3", "-m", "64K", "-kernel", firmware])
        .args(["-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control"])
        .args(["-gdb", "tcp:127.0.0.1:0", "-serial", "null"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: 3 }])?;
    let mut child = command.spawn()?;
    drop(command);
    let mut lines = BufReader::new(monitor.try_clone()?).lines();
    let mut next = || lines.next().ok_or("QEMU closed its monitor")?.map_err(Box::<dyn Error>::from);
    next()?;
    for request in [r#"{"execute":"qmp_capabilities"}"#, r#"{"execute":"query-status"}"#] {
        (&monitor).write_all(request.as_bytes())?;
        while !next()?.starts_with(r#"{"return""#) {}
    }
    let ready = since.elapsed();
    (&monitor).write_all(br#"{"execute":"quit"}"#)?;
    child.wait()?;
    Ok(ready)
}

fn show(name: &str, times: &mut [Duration]) -> Duration {
    times.sort();
    let median = times[times.len() / 2];
    println!(
        "{name:>10}: median {median:.2?}, minimum {:.2?}, maximum {:.2?}",
        times[0],
        times[times.len() - 1]
    );
    median
}
