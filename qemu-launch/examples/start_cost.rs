//! Start cost against `std::process::Command` with the same arguments, interleaved in one run.
//!
//! `cargo run --release -p qemu-launch --features qemu-tests --example start_cost [rounds [MiB]]`;
//! needs `qemu-system-arm`. Two moments are taken: `spawn` has returned (the system executes QEMU),
//! and the monitor's greeting has come (QEMU runs). Started from the main thread, as most programs
//! do; with that much memory in use, as a fuzzer or a large test suite has it.

use std::error::Error;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::CommandFdExt;
use qemu_launch::MachineSpec;

type Moments = (Duration, Duration);

fn main() -> Result<(), Box<dyn Error>> {
    let argument = |n, default| {
        std::env::args()
            .nth(n)
            .map_or(Ok(default), |text| text.parse::<usize>())
    };
    let (rounds, mebibytes) = (argument(1, 200)?, argument(2, 0)?);
    // In use means written to: each of its pages is one that a fork has to enter into the child's
    // tables.
    let memory = vec![1_u8; mebibytes << 20];
    let spec = MachineSpec::default().start_stopped(true);
    let (mut ours, mut plain, mut pass) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds + 5 {
        // A fork leaves pages that the next start pays for when it writes to them, and an end
        // leaves threads that end. So both that are compared come after the same one, which does
        // neither.
        let (a, b, c) = (launched(&spec)?, commanded(false)?, commanded(true)?);
        commanded(false)?;
        // The first rounds fill the page cache.
        if round >= 5 {
            ours.push(a);
            plain.push(b);
            pass.push(c);
        }
    }
    let (ours, plain, pass) = (medians(ours), medians(plain), medians(pass));
    let memory = std::hint::black_box(memory).len() >> 20;
    println!("median of {rounds}, {memory} MiB in use, in µs");
    println!("                                executes   greeting");
    println!(
        "qemu_launch::spawn             {:>9} {:>10}",
        ours.0.as_micros(),
        ours.1.as_micros()
    );
    println!(
        "Command, same argv             {:>9} {:>10}",
        pass.0.as_micros(),
        pass.1.as_micros()
    );
    println!(
        "Command, posix_spawn           {:>9} {:>10}",
        plain.0.as_micros(),
        plain.1.as_micros()
    );
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    println!(
        "ratio to the same argv         {:>9.3} {:>10.3}",
        ratio(ours.0, pass.0),
        ratio(ours.1, pass.1)
    );
    Ok(())
}

fn launched(spec: &MachineSpec) -> Result<Moments, Box<dyn Error>> {
    let start = Instant::now();
    let mut process = qemu_launch::spawn(spec)?;
    let executes = start.elapsed();
    let monitor = process.take_qmp().ok_or("no monitor")?;
    let greeting = greeted(start, monitor)?;
    Ok((executes, greeting))
}

/// `std` alone: pipes and the monitor's socket pair, no hardening. With `same` the arguments and
/// the descriptor are the same; without, no descriptor is passed and `std` may use `posix_spawn`.
fn commanded(same: bool) -> Result<Moments, Box<dyn Error>> {
    let start = Instant::now();
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = OwnedFd::from(theirs);
    let mut command = Command::new("qemu-system-arm");
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-machine", "lm3s6965evb", "-cpu", "cortex-m3", "-m", "64K"]);
    if same {
        use std::os::fd::AsRawFd;
        command.args([
            "-chardev",
            &format!("socket,id=qmp,fd={}", theirs.as_raw_fd()),
        ]);
        command.preserved_fds(vec![theirs]);
    } else {
        command
            .args(["-chardev", "socket,id=qmp,fd=0"])
            .stdin(theirs);
    }
    command.args(["-mon", "chardev=qmp,mode=control", "-S"]);
    if same {
        command.stdin(Stdio::null());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let executes = start.elapsed();
    drop(command);
    let greeting = greeted(start, ours)?;
    child.kill()?;
    child.wait()?;
    Ok((executes, greeting))
}

fn greeted(start: Instant, mut monitor: UnixStream) -> Result<Duration, Box<dyn Error>> {
    monitor.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut byte = [0];
    monitor.read_exact(&mut byte)?;
    Ok(start.elapsed())
}

fn medians(moments: Vec<Moments>) -> Moments {
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    (
        median(moments.iter().map(|m| m.0).collect()),
        median(moments.iter().map(|m| m.1).collect()),
    )
}
