//! What each call does to its machine.

use std::time::Duration;

use qemu_controller::AfterLoad;
use qemu_controller::debug::{Debugger, Stop, StopReason, Until};
use tokio::time::timeout;

use super::answer::{Answer, Found, Register, Stopped, Trace, digits, hex};
use super::call::Call;
use super::error::{CallError, CallErrorKind};
use super::machine::Machine;
use super::place::{address, bytes, number};
use super::printed::Printed;
use super::start::record;

/// The longest wait that a call may name.
const LONGEST: Duration = Duration::from_secs(60);

/// How many bytes of memory a call reads or writes.
const MEMORY: u64 = 4096;

/// How many bytes of what the firmware printed a call shows, and how many it sends.
const TEXT: usize = 16 * 1024;

/// How many instructions a call steps, and for how long.
const STEPS: u32 = 1000;
const STEPPING: Duration = Duration::from_secs(10);

/// How long a save, a load or a fork may take: a machine may have much memory.
const STATE: Duration = Duration::from_secs(20);

/// How many breakpoints and watchpoints, registers or symbols a call has.
const PLACES: usize = 32;
const NAMES: usize = 128;
const SYMBOLS: usize = 50;

/// How long the firmware may take to read what is sent to it.
const SENDING: Duration = Duration::from_secs(5);

/// How much of what it printed is shown where a text did not come.
const LATEST: usize = 512;

/// The wait that a call names.
pub(crate) fn deadline(call: &Call) -> Result<Duration, CallError> {
    let wait = match call {
        Call::RunUntil { deadline_ms, .. }
        | Call::StepOver { deadline_ms }
        | Call::Finish { deadline_ms }
        | Call::RunTests { deadline_ms, .. }
        | Call::Expect { deadline_ms, .. } => Duration::from_millis(*deadline_ms),
        Call::StepInstruction { .. } => STEPPING,
        _ => Duration::ZERO,
    };
    if wait > LONGEST {
        return Err(CallError::invalid(format!(
            "deadline_ms is at most {}",
            LONGEST.as_millis()
        )));
    }
    Ok(wait)
}

/// A call for one machine.
pub(crate) async fn on(machine: &Machine, name: &str, call: Call) -> Result<Answer, CallError> {
    let session = &machine.session;
    let wait = deadline(&call)?;
    match call {
        Call::Status {} => Ok(Answer::Status(machine.status(name).await)),
        Call::Pause {} | Call::Resume {} | Call::Reset {} => {
            match call {
                Call::Pause {} => session.pause().await?,
                Call::Resume {} => session.resume().await?,
                _ => session.reset().await?,
            }
            Ok(Answer::Status(machine.status(name).await))
        }
        Call::RunUntil { .. } => run_until(machine, &call, wait).await,
        Call::StepInstruction { count } => {
            let stop = step(&mut *machine.debugger().await?, count).await?;
            Ok(Answer::Stopped(Stopped::new(&stop, &[])))
        }
        Call::StepOver { .. } => {
            let stop = machine.debugger().await?.step_over(wait).await?;
            Ok(Answer::Stopped(Stopped::new(&stop, &[])))
        }
        Call::Finish { .. } => {
            let stop = machine.debugger().await?.finish(wait).await?;
            Ok(Answer::Stopped(Stopped::new(&stop, &[])))
        }
        Call::ReadRegisters { names } => read_registers(machine, &names).await,
        Call::WriteRegister { name, value } => {
            let value = number(&value)?;
            machine
                .debugger()
                .await?
                .write_register(&name, value)
                .await?;
            Ok(Answer::done(format!("{name} is {value:#x}")))
        }
        Call::ReadMemory { at, length, core } => read_memory(machine, &at, length, core).await,
        Call::WriteMemory { at, hex: text } => {
            let bytes = bytes(&text)?;
            bounded("the number of bytes", bytes.len() as u64, MEMORY)?;
            let address = address(session, &at)?;
            machine
                .debugger()
                .await?
                .write_memory(address, &bytes)
                .await?;
            Ok(Answer::done(format!(
                "{} bytes written at {address:#x}",
                bytes.len()
            )))
        }
        Call::Backtrace {} => {
            let backtrace = machine.debugger().await?.backtrace().await?;
            Ok(Answer::Trace(Trace::new(&backtrace)))
        }
        Call::CoreReports {} => {
            let reports = machine.debugger().await?.core_reports().await?;
            Ok(Answer::cores(&reports))
        }
        Call::SelectCore { core } => select_core(machine, core).await,
        Call::SaveSnapshot { name, overwrite } => save_snapshot(machine, &name, overwrite).await,
        Call::LoadSnapshot { name } => {
            session
                .with_deadline(STATE)
                .load_snapshot(&name)
                .then(AfterLoad::AsBefore)
                .await?;
            Ok(Answer::done(format!("{name} is loaded")))
        }
        Call::ListSnapshots {} => Ok(Answer::snapshots(session.list_snapshots().await?)),
        Call::DeleteSnapshot { name } => {
            session.delete_snapshot(&name).await?;
            Ok(Answer::done(format!("{name} is deleted")))
        }
        Call::Output { from, length } => {
            bounded("length", length as u64, TEXT as u64)?;
            Ok(Answer::output(&machine.printed.piece(from, length)))
        }
        Call::Expect { text, .. } => expect(machine, &text, wait).await,
        Call::Send { text } => send(machine, &text).await,
        Call::Symbols { wanted } => symbols(machine, &wanted),
        Call::SourceLines { .. }
        | Call::Start(_)
        | Call::OpenBundle { .. }
        | Call::ListTests { .. }
        | Call::RunTests { .. }
        | Call::List {}
        | Call::Fork { .. }
        | Call::Stop {} => Err(CallError::invalid("this call is for no single machine")),
    }
}

/// A second machine that continues from where this one is.
pub(crate) async fn fork(machine: &Machine) -> Result<Machine, CallError> {
    let (printed, transcript) = (Printed::default(), Printed::default());
    let has_semihosting = machine.has_semihosting;
    let session = machine.session.with_deadline(STATE);
    let forks = session.fork_with(1, |config| {
        let config = config.qmp_transcript_to(transcript.clone());
        record(config, &printed, has_semihosting)
    });
    let fork = forks.await?.into_iter().next();
    let fork =
        fork.ok_or_else(|| CallError::new(CallErrorKind::Failed, "no machine was forked"))?;
    Ok(Machine::new(fork, printed, transcript, has_semihosting))
}

fn bounded(what: &str, number: u64, most: u64) -> Result<(), CallError> {
    match number {
        0 => Err(CallError::invalid(format!("{what} is 0"))),
        _ if number > most => Err(CallError::invalid(format!("{what} is at most {most}"))),
        _ => Ok(()),
    }
}

async fn run_until(machine: &Machine, call: &Call, wait: Duration) -> Result<Answer, CallError> {
    let Call::RunUntil {
        reaches,
        writes,
        reads,
        bytes,
        faults,
        panics,
        skip,
        ..
    } = call
    else {
        return Err(CallError::invalid("this call runs nothing"));
    };
    if reaches.len() + writes.len() + reads.len() > PLACES {
        return Err(CallError::invalid(format!(
            "at most {PLACES} breakpoints and watchpoints"
        )));
    }
    bounded("bytes", u64::from(*bytes), MEMORY)?;
    let session = &machine.session;
    let (mut until, mut words) = (Vec::new(), Vec::new());
    for place in reaches {
        until.push(Until::reaches(address(session, place)?));
        words.push(place.clone());
    }
    for place in writes {
        until.push(Until::writes(address(session, place)?, *bytes));
        words.push(format!("write to {place}"));
    }
    for place in reads {
        until.push(Until::reads(address(session, place)?, *bytes));
        words.push(format!("read of {place}"));
    }
    until.extend(faults.then(Until::faults));
    until.extend(panics.then(Until::panics));
    let until: Vec<_> = until.into_iter().map(|until| until.skip(*skip)).collect();
    let mut debugger = machine.debugger_for_run().await?;
    let before = session.guest_resets().count;
    let stop = debugger.run_until(until, wait).await?;
    let mut stopped = Stopped::new(&stop, &words);
    stopped.guest_resets = session.guest_resets();
    stopped.guest_resets.count -= before;
    Ok(Answer::Stopped(stopped))
}

async fn step(debugger: &mut Debugger, count: u32) -> Result<Stop, CallError> {
    bounded("count", u64::from(count), u64::from(STEPS))?;
    let since = tokio::time::Instant::now();
    let mut stop = debugger.step_instruction().await?;
    for _ in 1..count {
        if !matches!(stop.reason, StopReason::Stepped) || since.elapsed() > STEPPING {
            break;
        }
        stop = debugger.step_instruction().await?;
    }
    Ok(stop)
}

async fn read_registers(machine: &Machine, names: &[String]) -> Result<Answer, CallError> {
    if names.len() > NAMES {
        return Err(CallError::invalid(format!("at most {NAMES} registers")));
    }
    let mut debugger = machine.debugger().await?;
    let mut registers = Vec::new();
    if names.is_empty() {
        let all = debugger.read_registers().await?;
        for name in all.names().take(NAMES) {
            let value = match (all.get(name), all.bytes(name)) {
                (Some(value), _) => hex(value),
                (None, Some(bytes)) => format!("bytes {}", digits(bytes)),
                (None, None) => continue,
            };
            let name = name.to_owned();
            registers.push(Register { name, value });
        }
    }
    for name in names {
        let value = hex(debugger.read_register(name).await?);
        let name = name.clone();
        registers.push(Register { name, value });
    }
    Ok(Answer::Registers { registers })
}

/// As a core sees it; as the current one where none is named.
async fn read_memory(
    machine: &Machine,
    at: &str,
    length: u64,
    core: Option<usize>,
) -> Result<Answer, CallError> {
    bounded("length", length, MEMORY)?;
    let address = address(&machine.session, at)?;
    let core = match core {
        Some(core) => core,
        None => machine.current_core().await?,
    };
    let session = machine.session.with_core(core);
    let bytes = session.read_memory(address, length).await?;
    Ok(Answer::Memory {
        address: hex(address),
        hex: digits(&bytes),
    })
}

async fn save_snapshot(
    machine: &Machine,
    name: &str,
    overwrite: bool,
) -> Result<Answer, CallError> {
    let session = machine.session.with_deadline(STATE);
    let save = session.save_snapshot(name);
    let lost = match overwrite {
        true => save.overwrite().await?,
        false => save.await?,
    };
    let lost: Vec<_> = lost.iter().map(ToString::to_string).collect();
    let saved = format!("{name} is saved");
    Ok(Answer::done(match &lost[..] {
        [] => saved,
        lost => format!("{saved}; a load does not bring back {}", lost.join(", ")),
    }))
}

async fn select_core(machine: &Machine, core: usize) -> Result<Answer, CallError> {
    let mut debugger = machine.debugger().await?;
    let threads = debugger.threads().await?;
    let Some(&thread) = threads.get(core) else {
        let count = threads.len();
        return Err(CallError::invalid(format!(
            "there is no core {core}: it has {count}"
        )));
    };
    debugger.select_thread(thread).await?;
    Ok(Answer::done(format!("core {core} is selected")))
}

async fn expect(machine: &Machine, text: &str, wait: Duration) -> Result<Answer, CallError> {
    bounded("the text's length", text.len() as u64, TEXT as u64)?;
    let printed = &machine.printed;
    let came = tokio::select! {
        came = timeout(wait, printed.expect(text.as_bytes())) => came.ok(),
        // What it has printed last may still come.
        _ = machine.session.ended() => {
            timeout(Duration::from_millis(200), printed.expect(text.as_bytes())).await.ok()
        }
    };
    if let Some(end) = came {
        return Ok(Answer::done(format!(
            "the firmware has printed the text that was expected; it ends at byte {end}"
        )));
    }
    let state = machine.status("the machine").await;
    let latest = Answer::output(&printed.piece(None, LATEST)).words();
    let kind = if state.state == "ended" {
        CallErrorKind::Ended
    } else {
        CallErrorKind::Deadline
    };
    let message = format!(
        "the firmware has not printed the text that was expected within {wait:?}; the machine is \
         {}; {latest}",
        state.state
    );
    Err(CallError::new(kind, message))
}

async fn send(machine: &Machine, text: &str) -> Result<Answer, CallError> {
    bounded("the text's length", text.len() as u64, TEXT as u64)?;
    let serial = machine.session.serial(0);
    let serial =
        serial.ok_or_else(|| CallError::new(CallErrorKind::Failed, "there is no serial port"))?;
    match timeout(SENDING, serial.write(text.as_bytes())).await {
        Ok(Ok(())) => Ok(Answer::done(format!("{} bytes sent", text.len()))),
        Ok(Err(error)) => Err(CallError::failed(&error)),
        Err(_) => {
            let message = format!(
                "the firmware has not read all of it within {SENDING:?}; how much it has read is \
                 not known"
            );
            Err(CallError::new(CallErrorKind::Deadline, message))
        }
    }
}

fn symbols(machine: &Machine, wanted: &str) -> Result<Answer, CallError> {
    let firmware = machine.session.firmware_info();
    let firmware = firmware.map_err(|error| CallError::failed(&error))?;
    if wanted.starts_with(|character: char| character.is_ascii_digit()) {
        let found = firmware.symbol_at(number(wanted)?);
        let found = found.map(|found| Found::new(found.symbol, Some(found.offset)));
        return Ok(Answer::Symbols {
            symbols: found.into_iter().collect(),
            more: false,
        });
    }
    let matching = firmware
        .symbols()
        .filter(|symbol| symbol.name.contains(wanted));
    let mut symbols: Vec<_> = matching.take(SYMBOLS + 1).collect();
    let more = symbols.len() > SYMBOLS;
    symbols.truncate(SYMBOLS);
    let symbols = symbols.into_iter().map(|symbol| Found::new(symbol, None));
    Ok(Answer::Symbols {
        symbols: symbols.collect(),
        more,
    })
}
