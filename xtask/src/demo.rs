//! `cargo xtask demo`: the main job on a firmware, step by step, with the time each step took.

mod show;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use qemu_controller::{Endpoint, GdbCheck, QemuConfig, SerialError, Session, StatusInfo};
use qemu_launch::discover::Qemu;
use serde_json::json;

use self::show::Show;
use crate::{interrupts::Interrupts, setup, workspace};

/// How long each thing may take, the firmware's output among them: the processors may be busy with
/// a build.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a firmware that this repository does not know is listened to.
const LISTEN: Duration = Duration::from_secs(1);

/// A firmware that prints nothing for so long sits at a breakpoint.
const A_DAY: Duration = Duration::from_secs(86_400);

/// The boards that the demo has firmware for.
const FIRMWARE: [(&str, &str); 2] = [("lm3s6965evb", "tick"), ("mps2-an385", "tick-mps2")];

/// Show the main job: start QEMU with a firmware, ask, pause, resume, reset, stop
///
/// Exit status 0 when every step worked, 1 when one did not, 128 + the signal's number after
/// Ctrl-C, SIGTERM or SIGHUP. No QEMU is left behind in any case.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Firmware to run, an ELF file [default: this repository's own for the machine]
    #[arg(long, value_name = "PATH")]
    firmware: Option<PathBuf>,
    /// QEMU's name of the board
    #[arg(long, value_name = "NAME", default_value = "lm3s6965evb")]
    machine: String,
    /// CPU model [default: cortex-m3 on lm3s6965evb, else the board's own]
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// Memory, such as 64K or 16M [default: 64K on lm3s6965evb, else the board's own]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Loopback address of the GDB stub, such as 127.0.0.1:1234; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    gdb: SocketAddr,
    /// The QEMU to run, a name or a path
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-arm")]
    qemu: PathBuf,
    /// Leave the machine running for a debugger until Ctrl-C, and print the line that attaches one
    #[arg(long)]
    wait: bool,
    /// Print one JSON object a step
    #[arg(long)]
    json: bool,
    /// Do not install QEMU where it is missing
    #[arg(long)]
    no_install: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.qemu == Path::new("qemu-system-arm") {
        setup::ensure_qemu(args.no_install)?;
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(demo(args))
}

async fn demo(args: Args) -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::listen()?;
    let mut show = Show::new(args.json);
    let mut session = None;
    let ended = tokio::select! {
        result = steps(&args, &mut show, &mut session) => result.map(|()| ExitCode::SUCCESS),
        code = interrupts.next() => Ok(ExitCode::from(code)),
    };
    // A start that was interrupted has ended its QEMU by itself.
    let Some(session) = session else {
        return ended;
    };
    let stopped = session.stop().await?;
    show.step(
        "stop",
        &stopped,
        json!({ "by": stopped.by.to_string(), "exit": stopped.exit.as_ref().map(ToString::to_string) }),
    )?;
    ended
}

async fn steps(args: &Args, show: &mut Show, started: &mut Option<Session>) -> anyhow::Result<()> {
    let qemu = Qemu::find(&args.qemu)?;
    let qemu_launch::discover::QemuVersion {
        major,
        minor,
        micro,
        package,
        ..
    } = qemu.version()?;
    let version = format!("{major}.{minor}.{micro}");
    show.step(
        "qemu",
        format!(
            "{version} {} at {}",
            package.as_deref().unwrap_or_default(),
            qemu.path().display()
        ),
        json!({ "version": version, "package": package, "path": qemu.path() }),
    )?;
    let (firmware, ours) = firmware(args).map_err(|error| explain(error, args, &qemu))?;
    let start = Session::start(config(args, &firmware)?).await;
    let session = &*started.insert(start.map_err(|error| explain(error.into(), args, &qemu))?);
    let process = session.process().context("no process")?;
    show.fact(
        "argv",
        process.argv(),
        json!({ "argv": process.argv().to_string(), "pid": process.pid() }),
    )?;
    show.step(
        "ready",
        "from nothing to an answered query-status",
        json!({}),
    )?;
    show_state(show, session).await?;
    show_cpus(show, session).await?;
    show_gdb(show, session).await?;
    if ours {
        show_boot(show, session).await?;
        let printed = show_line(show, session, PATIENCE).await?;
        ensure!(printed, "the firmware printed no line within {PATIENCE:?}");
    } else if !show_line(show, session, LISTEN).await? {
        show.step(
            "serial",
            format!("the firmware printed no line within {LISTEN:?}"),
            json!({ "line": null }),
        )?;
    }
    session.pause().await?;
    show_run_state(show, "pause", &session.query_status().await?)?;
    session.resume().await?;
    show_run_state(show, "resume", &session.query_status().await?)?;
    session.reset().await?;
    show_run_state(show, "reset", &session.query_status().await?)?;
    if ours {
        show_boot(show, session).await?;
    }
    if args.wait {
        wait(show, session, &firmware).await?;
    }
    Ok(())
}

/// Says first that QEMU does not know the board, where that is so: its own words name no board.
fn explain(error: anyhow::Error, args: &Args, qemu: &Qemu) -> anyhow::Error {
    match qemu.machines() {
        Ok(machines) if machines.iter().all(|machine| machine.name != args.machine) => {
            let (program, machine) = (args.qemu.display(), &args.machine);
            error.context(format!(
                "{program} knows no machine '{machine}'; `{program} -machine help` lists those it knows"
            ))
        }
        _ => error,
    }
}

/// The firmware to run, and whether it is one of ours.
fn firmware(args: &Args) -> anyhow::Result<(PathBuf, bool)> {
    if let Some(path) = &args.firmware {
        return Ok((path.clone(), false));
    }
    let Some((_, image)) = FIRMWARE
        .iter()
        .find(|(machine, _)| *machine == args.machine)
    else {
        let known = FIRMWARE.map(|(machine, _)| machine).join(", ");
        bail!(
            "this repository has no firmware for machine '{}', only for {known}; name one with --firmware",
            args.machine
        );
    };
    Ok((
        workspace::root().join(format!("xtask/firmware/{image}/{image}.elf")),
        true,
    ))
}

fn config(args: &Args, firmware: &Path) -> anyhow::Result<QemuConfig> {
    if !args.gdb.ip().is_loopback() {
        bail!(
            "--gdb {}: whoever reaches a GDB stub can run commands on this machine, so the demo takes loopback addresses only, such as 127.0.0.1:{}",
            args.gdb,
            args.gdb.port()
        );
    }
    let gdb = if args.gdb.is_ipv4() {
        Endpoint::loopback(args.gdb.port())
    } else {
        Endpoint::Exposed(args.gdb)
    };
    let mut config = QemuConfig::default()
        .qemu(&args.qemu)
        .machine(&args.machine)
        .firmware(firmware)
        .gdb(gdb);
    config = config
        .start_deadline(PATIENCE)
        .command_deadline(PATIENCE)
        .stop_policy(PATIENCE, PATIENCE, PATIENCE);
    if let Some(cpu) = &args.cpu {
        config = config.cpu(cpu);
    }
    if let Some(memory) = &args.memory {
        config = config.memory(memory);
    }
    Ok(config)
}

async fn show_state(show: &mut Show, session: &Session) -> anyhow::Result<()> {
    Ok(show_run_state(
        show,
        "state",
        &session.query_status().await?,
    )?)
}

fn show_run_state(show: &mut Show, step: &str, state: &StatusInfo) -> io::Result<()> {
    show.step(
        step,
        format!("run state {}", state.status),
        json!({ "run_state": state.status.as_str() }),
    )
}

async fn show_cpus(show: &mut Show, session: &Session) -> anyhow::Result<()> {
    let cpus = session.query_cpus().await?;
    let text: Vec<_> = cpus
        .iter()
        .map(|cpu| format!("CPU {} is {}", cpu.cpu_index, cpu.qom_path))
        .collect();
    let paths: Vec<_> = cpus.iter().map(|cpu| &cpu.qom_path).collect();
    show.step("cpus", text.join(", "), json!({ "cpus": paths }))?;
    Ok(())
}

async fn show_gdb(show: &mut Show, session: &Session) -> anyhow::Result<()> {
    let look = session.check_gdb().await?;
    show_check(show, "gdb", &look)?;
    let probe = session.probe_gdb().await?;
    show_check(show, "probe", &probe)?;
    for check in [&look, &probe] {
        if !check.reachability.can_attach() || check.before.status != check.after.status {
            bail!(
                "a debugger could not attach to the GDB stub at {}: {}",
                check.endpoint,
                check.reachability
            );
        }
    }
    Ok(())
}

fn show_check(show: &mut Show, step: &str, check: &GdbCheck) -> io::Result<()> {
    let GdbCheck {
        endpoint,
        reachability,
        effect,
        before,
        after,
        ..
    } = check;
    show.step(
        step,
        format!(
            "{endpoint}: {reachability}; {effect}; run state {} before, {} after",
            before.status, after.status
        ),
        json!({
            "endpoint": endpoint.to_string(),
            "can_attach": reachability.can_attach(),
            "found": reachability.to_string(),
            "effect": effect.to_string(),
            "run_state_before": before.status.as_str(),
            "run_state_after": after.status.as_str(),
        }),
    )
}

/// Our own firmware says so whenever it starts over.
async fn show_boot(show: &mut Show, session: &Session) -> anyhow::Result<()> {
    let serial = session.serial(0).context("no serial port")?;
    serial.expect_within("boot", PATIENCE).await?;
    Ok(show.step(
        "serial",
        "the firmware printed 'boot'",
        json!({ "line": "boot" }),
    )?)
}

/// Shows the next line that is not empty; false when there was none in time.
async fn show_line(show: &mut Show, session: &Session, deadline: Duration) -> anyhow::Result<bool> {
    let serial = session.serial(0).context("no serial port")?;
    let until = Instant::now() + deadline;
    loop {
        match serial
            .line_within(until.saturating_duration_since(Instant::now()))
            .await
        {
            Ok(line) if line.is_empty() => {}
            Ok(line) => {
                show.step(
                    "serial",
                    format!("the firmware printed '{line}'"),
                    json!({ "line": line }),
                )?;
                return Ok(true);
            }
            Err(SerialError::Deadline { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Leaves the machine to a debugger, and shows what the firmware prints, until QEMU ends or the
/// caller is interrupted.
async fn wait(show: &mut Show, session: &Session, firmware: &Path) -> anyhow::Result<()> {
    let gdb = session.gdb().context("no GDB stub")?;
    let elf = shlex::try_quote(
        firmware
            .to_str()
            .context("the firmware's path is not Unicode")?,
    )?;
    let attach = format!("gdb-multiarch -q {elf} -ex 'target remote {gdb}'");
    show.step(
        "wait",
        format!("attach a debugger with\n\n  {attach}\n\nand end the demo with Ctrl-C"),
        json!({ "attach": attach }),
    )?;
    tokio::select! {
        ended = session.ended() => bail!("QEMU ended while a debugger was awaited: {ended}"),
        failed = show_lines(show, session) => failed,
    }
}

/// Shows what the firmware prints, for ever.
async fn show_lines(show: &mut Show, session: &Session) -> anyhow::Result<()> {
    loop {
        match show_line(show, session, A_DAY).await {
            // QEMU has ended, and who waits beside this says how.
            Err(error) if error.is::<SerialError>() => std::future::pending().await,
            shown => shown?,
        };
    }
}
