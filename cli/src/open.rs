//! `open`: a failure that `--bundle` wrote down, started again at that instant.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use qemu_controller::bundle::{Bundle, BundleError};
use qemu_controller::debug::DebugError;
use qemu_controller::qemu_launch::SpawnError;
use qemu_controller::{Endpoint, QemuConfig, Session, StartError};

use crate::args;
use crate::calls::{Defaults, Machine, Machines, Policy, Printed, record};
use crate::debugger;
use crate::escape;
use crate::failure::{chain, chain_with_advice};
use crate::runtime;
use crate::serve::{DEFAULT, SessionSocket, hold, steering};
use crate::settings::SemihostingMode;
use crate::signals::Signals;

/// Start a machine that failed again, at the instant of its failure
///
/// Says how it failed and where it is, and holds the machine, paused there, for the calls of
/// `qemu-controller ctl` (or, with --gdb, for a debugger). It ends as `serve` does.
///
/// A bundle of somebody else runs nothing on this machine but QEMU: the machine is made of names
/// and numbers that are checked, and no argument for QEMU is taken from it.
#[derive(Args, Debug)]
pub(crate) struct Open {
    /// The folder that --bundle wrote
    folder: PathBuf,
    /// Say how it failed, and start nothing
    #[arg(long)]
    show: bool,
    /// Hold it for a debugger instead, and print the line that attaches one; ADDRESS as of `run`
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true,
          default_missing_value = "1234", value_parser = args::gdb)]
    gdb: Option<Endpoint>,
    /// A name for `ctl --session`
    #[arg(long, value_name = "NAME", default_value = DEFAULT)]
    session: String,
    /// End when nothing was asked for this long, such as 30m
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = humantime::parse_duration)]
    idle: Duration,
    /// The firmware, where it is not in the bundle
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// The QEMU [default: the first one of the name that ran; it has to have the same version]
    #[arg(long, value_name = "PROGRAM")]
    qemu: Option<PathBuf>,
    /// What the firmware reaches by semihosting
    ///
    /// QEMU has nothing that keeps a firmware with semihosting from your files, `console` included.
    #[arg(long, value_name = "WHAT", default_value = "off")]
    semihosting: SemihostingMode,
    /// Further arguments for QEMU, after `--`: those that the machine had and that are no plain names
    #[arg(value_name = "QEMU ARGUMENT", last = true)]
    qemu_args: Vec<String>,
}

/// Opens it, and holds the machine; the exit status.
pub(crate) fn open(open: Open) -> u8 {
    runtime::status_of(run(open))
}

async fn run(open: Open) -> Result<u8, String> {
    let mut signals = Signals::listen().map_err(|error| error.to_string())?;
    let folder = open.folder.clone();
    let bundle = tokio::task::spawn_blocking(move || Bundle::open(&folder)).await;
    let bundle = bundle.map_err(|error| error.to_string())?;
    let mut bundle = bundle.map_err(|error| chain(&error))?;
    if let Some(firmware) = &open.firmware {
        bundle = bundle.firmware(firmware);
    }
    if let Some(qemu) = &open.qemu {
        bundle = bundle.qemu(qemu);
    }
    let is_whole = open.show || bundle.state().is_err();
    say(&account(&bundle, is_whole));
    if open.show {
        return Ok(0);
    }
    // Before anything is started: the name may be taken.
    let place = match open.gdb {
        Some(_) => None,
        None => Some(SessionSocket::take(&open.session)?),
    };
    let (printed, transcript) = (Printed::default(), Printed::default());
    let config = |config| configured(config, &open, &printed, &transcript);
    let started = tokio::select! {
        started = bundle.start_with(config) => started.map_err(|error| refusal(&error, &bundle))?,
        signal = signals.next() => return Ok(128 + signal),
    };
    let has_semihosting = open.semihosting != SemihostingMode::Off;
    let looked = look(&bundle, &started, has_semihosting).await;
    say(&looked.map_err(|error| chain(&error))?);
    let status = match (place, &open.gdb) {
        (Some(place), _) => {
            let machine = Machine::new(started, printed, transcript, has_semihosting);
            let machines = Arc::new(Machines::new(Policy {
                project: open.folder.clone(),
                confined: false,
                semihosting: open.semihosting,
                defaults: Defaults::default(),
            }));
            machines.adopt(machine);
            say(&steering(&open.session));
            hold(place, &machines, open.idle, &mut signals).await
        }
        (None, endpoint) => {
            let endpoint = endpoint.clone().unwrap_or(Endpoint::free_port());
            hand_over(&started, &endpoint, &mut signals).await?
        }
    };
    Ok(status)
}

fn configured(
    config: QemuConfig,
    open: &Open,
    printed: &Printed,
    transcript: &Printed,
) -> QemuConfig {
    let config = config
        .extra_args(&open.qemu_args)
        .qmp_transcript_to(transcript.clone());
    let has_semihosting = open.semihosting != SemihostingMode::Off;
    record(open.semihosting.of(config), printed, has_semihosting)
}

/// How it failed, by what the bundle says; what a look at the machine will show again is left out
/// unless it is to be whole. Whoever wrote it chose the words.
pub(crate) fn account(bundle: &Bundle, is_whole: bool) -> String {
    let head = format!("{} ended: {}", bundle.name(), bundle.verdict());
    let mut lines = vec![escape::line(&head)];
    let said = if is_whole { usize::MAX } else { 1 };
    lines.extend(bundle.message().lines().take(said).map(escape::line));
    let missing = bundle.missing().iter();
    lines.extend(missing.map(|what| format!("the bundle lacks {}", escape::line(what))));
    if !bundle.beyond().is_empty() {
        let words = bundle.beyond().join(" ");
        lines.push(format!(
            "the machine also had these, which are not taken from a bundle: {}; where they matter, \
             give them after `--`",
            escape::line(&words)
        ));
    }
    lines.join("\n")
}

/// Where the machine is, looked at here.
pub(crate) async fn look(
    bundle: &Bundle,
    session: &Session,
    has_semihosting: bool,
) -> Result<String, DebugError> {
    let mut debugger = session.debugger().await?;
    let mut lines = Vec::new();
    if let Some(moment) = bundle.moment() {
        lines.push(format!("the machine is paused {}:", moment.words()));
    }
    match bundle.look(&mut debugger).await {
        Ok(report) => lines.push(format!("{report:#}")),
        Err(error) => lines.push(escape::line(&format!(
            "where that is, nobody can say: {}",
            chain(&error)
        ))),
    }
    let differing = bundle.differing_registers(&mut debugger).await;
    match differing {
        Ok(names) if names.is_empty() => {}
        Ok(names) => lines.push(format!(
            "these registers are not what they were: {}",
            escape::line(&names.join(", "))
        )),
        Err(error) => lines.push(escape::line(&chain(&error))),
    }
    if bundle.had_semihosting() && !has_semihosting {
        let words = "the firmware had semihosting, which is off here: --semihosting=console gives it \
                     that, and your files";
        lines.push(words.to_owned());
    }
    Ok(lines.join("\n"))
}

/// Why a bundle does not start, in words; `firmware` is what names its firmware's file.
pub(crate) fn bundle_refusal(error: &BundleError, firmware: &str) -> String {
    match error {
        BundleError::Start(StartError::Launch(SpawnError::Firmware(error))) => {
            let advice = format!("{firmware} names the file that ran");
            chain_with_advice(error, |_| &advice)
        }
        _ => chain(error),
    }
}

/// Why it does not start here, and what would do.
fn refusal(error: &BundleError, bundle: &Bundle) -> String {
    let words = bundle_refusal(error, "--firmware");
    match error {
        BundleError::Start(StartError::OtherMachine { mismatches }) => {
            let differs = |what: &str| mismatches.iter().any(|mismatch| mismatch.what == what);
            let advice = match () {
                () if differs("QEMU") => format!(
                    "; a state needs the very version that saved it: name a QEMU {} by --qemu",
                    bundle.qemu_version()
                ),
                () if differs("firmware") => "; --firmware names the file that ran".to_owned(),
                () => String::new(),
            };
            format!("the bundle does not fit here: {words}{advice}")
        }
        BundleError::NoFirmware { .. } => format!("{words}, by --firmware"),
        BundleError::Start(_) if !bundle.beyond().is_empty() => {
            format!(
                "{words}\nthe machine had further arguments: where they matter, give them after `--`"
            )
        }
        _ => words,
    }
}

/// Lets a debugger have it, and another one after that, until a signal or the debugger ends it.
async fn hand_over(
    session: &Session,
    endpoint: &Endpoint,
    signals: &mut Signals,
) -> Result<u8, String> {
    let mut hand_over = debugger::wait(session, endpoint, None)
        .await
        .map_err(|failure| failure.words())?;
    say(&format!(
        "attach a debugger with\n\n{}\n",
        hand_over.command()
    ));
    loop {
        // It fails where the machine ends.
        let left = tokio::select! {
            _ = session.wait() => return Ok(0),
            Ok(_) = hand_over.left() => "the debugger has left; another one can attach, and Ctrl-C ends the machine",
            signal = signals.next() => return Ok(ended(session, signal).await),
        };
        say(left);
        tokio::select! {
            _ = session.wait() => return Ok(0),
            Ok(()) = hand_over.attached() => {}
            signal = signals.next() => return Ok(ended(session, signal).await),
        }
    }
}

/// Ends the machine by a signal; the exit status.
async fn ended(session: &Session, signal: u8) -> u8 {
    // Dropped, it ends too.
    let _ = session.stop().await;
    128 + signal
}

fn say(words: &str) {
    // Who started it may not listen.
    let _ = writeln!(io::stdout(), "{words}");
}
