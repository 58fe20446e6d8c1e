//! The program `gdb-port`, for scripts: exit status 0 only when a debugger could attach, now.

use std::error::Error as _;
use std::process::ExitCode;
use std::time::Duration;

use gdb_port::{GuestState, Leave, ProbeOptions, Reachability, StubAddress, blocking, inspect};

const USAGE: &str = "\
usage: gdb-port [OPTIONS] ENDPOINT

ENDPOINT is ADDRESS:PORT, [V6ADDRESS]:PORT or unix:PATH.
Without options nothing is connected and no guest can notice: the kernel's socket tables are read (Linux).

  --pid PID       the process that should be listening
  --wait SECONDS  wait until somebody listens (without connecting)
  --probe         connect and ask the stub who it is. THIS STOPS A RUNNING GUEST and leaves it stopped
  --run-on        with --probe: let a guest run on that ran before. QEMU up to 8.0 shows that it ran; for
                  others say --was-running
  --was-running   with --probe: the guest runs now
  --was-stopped   with --probe: the guest is stopped now
  --free          with --probe: nobody is attached, where that cannot be seen (another host or system)

exit status:
  0  a debugger could attach now
  1  nobody listens
  2  wrong usage
  3  another client is attached
  4  it listens, but says nothing
  5  what listens is no GDB stub
  6  another process listens than --pid
  7  it cannot be told without connecting
  8  the system forbade the check
";

struct Options {
    endpoint: StubAddress,
    wait: Option<Duration>,
    probe: bool,
    details: ProbeOptions,
}

fn main() -> ExitCode {
    let options = match read_options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("gdb-port: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match check(&options) {
        Ok(reachability) => ExitCode::from(status(&reachability)),
        Err(error) => {
            let cause = error.source().map(ToString::to_string);
            eprintln!("gdb-port: {error}: {}", cause.unwrap_or_default());
            ExitCode::from(8)
        }
    }
}

fn check(options: &Options) -> Result<Reachability, gdb_port::ConnectError> {
    let owner = options.details.owner;
    if let Some(deadline) = options.wait {
        let is_gone = || owner.is_some_and(is_gone);
        // Why the wait ended without a listener is what the look below says, too.
        let _ = blocking::wait_until_listening(&options.endpoint, owner, deadline, is_gone);
    }
    if !options.probe {
        let reachability = inspect(&options.endpoint, owner).reachability();
        println!("{}: {reachability}", options.endpoint);
        return Ok(reachability);
    }
    let mut report = blocking::probe(&options.endpoint, &options.details)?;
    if let Some(queued) = report.queued {
        eprintln!(
            "gdb-port: {}; waiting until it accepts this connection, so as not to stop the guest later",
            report.reachability
        );
        report = blocking::finish(queued, options.details.deadline);
    }
    println!("{}: {}", options.endpoint, report.reachability);
    println!("{}", report.effect);
    Ok(report.reachability)
}

/// Whether the process is gone, or dead and not yet reaped; no where that is not shown.
fn is_gone(pid: u32) -> bool {
    // The state follows the program's name, which is in parentheses and may hold anything.
    let lives = |stat: String| !matches!(stat.rsplit(") ").next(), Some(rest) if rest.starts_with(['Z', 'X']));
    cfg!(target_os = "linux")
        && !std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(lives)
}

fn status(reachability: &Reachability) -> u8 {
    match reachability {
        answer if answer.can_attach() => 0,
        Reachability::NobodyListens => 1,
        Reachability::HeldByAnotherClient => 3,
        Reachability::Silent { .. } => 4,
        Reachability::NotAGdbStub(_) => 5,
        Reachability::OtherProcess { .. } => 6,
        _ => 7,
    }
}

/// `None` when only the usage was asked for.
fn read_options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut endpoint = None;
    let mut wait = None;
    let mut probe = false;
    let mut details = ProbeOptions::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--pid" => {
                details = details.owner(value()?.parse().map_err(|_| "--pid: not a process id")?)
            }
            "--wait" => {
                let seconds: f64 = value()?
                    .parse()
                    .map_err(|_| "--wait: not a number of seconds")?;
                wait =
                    Some(Duration::try_from_secs_f64(seconds).map_err(|_| "--wait: out of range")?);
            }
            "--probe" => probe = true,
            "--run-on" => details = details.leave(Leave::RunOn),
            "--was-running" => details = details.guest(GuestState::Running),
            "--was-stopped" => details = details.guest(GuestState::Stopped),
            "--free" => details = details.nobody_attached(),
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            text if endpoint.is_none() => {
                endpoint = Some(
                    text.parse::<StubAddress>()
                        .map_err(|error| error.to_string())?,
                );
            }
            text => return Err(format!("a second endpoint: {text}")),
        }
    }
    let endpoint = endpoint.ok_or("no endpoint")?;
    if !probe
        && (details.leave != Leave::Paused || details.guest.is_some() || details.nobody_attached)
    {
        return Err("--run-on, --was-running, --was-stopped and --free are for --probe".to_owned());
    }
    Ok(Some(Options {
        endpoint,
        wait,
        probe,
        details,
    }))
}
