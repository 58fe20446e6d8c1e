//! `debug`: machines for a debugger, one after another, each held at its reset; one address where
//! the debugger of an editor finds them.
//!
//! ```text
//!  editor's gdb or lldb ◄─► server, relay ◄─► the session's socket ◄─► QEMU's stub
//!   comes and goes           one address       one machine after another
//! ```
//!
//! A machine is replaced by a new one when its firmware has ended, the debugger has killed it, or
//! the firmware's file was written since: who edits, builds and starts the debugger again always
//! debugs what was built.

mod editors;
mod gdb_ui;
mod monitor;
mod relay;
mod server;
mod slot;
mod write;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use qemu_controller::Endpoint;
use qemu_controller::qemu_launch::Argv;
use serde_json::Value;

use crate::args::{Run, gdb};
use crate::config_file;
use crate::failure::Failure;
use crate::input::Stdin;
use crate::machine;
use crate::outcome::{OWN_FAILURE, Outcome};
use crate::reporter::Reporter;
use crate::run::in_qemu;
use crate::runtime;
use crate::settings::Settings;
use crate::signals::Signals;
use editors::{Editor, Entry};
use server::Server;
pub(crate) use slot::Slot;

/// What follows when a machine has gone.
const ANEW: &str = "a new machine holds the firmware at its reset";

/// An option, by its id, and whether it is given.
type Given = (&'static str, fn(&Settings) -> bool);

/// Options that mean nothing while a debugger has the firmware.
const OF_RUN: [Given; 4] = [
    ("timeout", |settings| settings.timeout.is_some()),
    ("on_fault", |settings| settings.on_fault.is_some()),
    ("bundle", |settings| settings.bundle.is_some()),
    ("bundle_dir", |settings| settings.bundle_dir.is_some()),
];

/// Hold a firmware in QEMU for the debugger of an editor, as long as you like
///
/// The firmware is held at its reset until a debugger lets it run. The debugger may detach and come
/// back: the machine stays as it left it. `monitor reset` takes it back to the reset; `kill`, the
/// firmware's own end, and a firmware that was built anew bring a new machine, held at its reset.
/// What the firmware prints goes to stdout, as of `run`.
///
/// It ends by Ctrl-C, `monitor quit` or a closed terminal. The debugger sees faults, and may take its
/// time: `timeout`, `on-fault` and `bundle` of a configuration file are for `run`.
#[derive(Args, Debug)]
#[command(args_override_self = true)]
#[command(mut_args(|option| match OF_RUN.iter().any(|(id, _)| option.get_id() == id) {
    // A variable that CI sets is no word of the user's.
    true => option.hide(true).env(None::<&str>),
    false => option,
}))]
pub(crate) struct Debug {
    /// The firmware, an ELF file
    #[arg(value_name = "FIRMWARE")]
    firmware: PathBuf,
    /// Further arguments for QEMU, after `--`
    #[arg(value_name = "QEMU ARGUMENT", last = true)]
    qemu_args: Vec<OsString>,

    /// Where the debugger connects: a loopback port or address, `free` for any free port, or
    /// `unix:PATH`
    ///
    /// Nobody but you (and root) is let in.
    #[arg(long, value_name = "ADDRESS", default_value = "1234", value_parser = gdb)]
    gdb: Endpoint,
    /// Print the entry by which this editor's debugger connects, and end
    #[arg(long, value_name = "EDITOR", conflicts_with_all = ["write", "gdb_ui"])]
    print: Option<Editor>,
    /// Put the entry for this editor into the project, which is this folder, and begin
    ///
    /// What somebody wrote into the editor's file stays, and an entry of the same name too. Several:
    /// `--write cortex-debug,zed`.
    #[arg(long, value_name = "EDITOR", value_delimiter = ',')]
    write: Vec<Editor>,
    /// Start gdb in this terminal, and end with it [default program: gdb-multiarch, or another one that
    /// is installed]
    #[arg(long, value_name = "PROGRAM", num_args = 0..=1, require_equals = true)]
    gdb_ui: Option<Option<PathBuf>>,
    /// Read this configuration file [default: as of `run`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An ELF file with more symbols, where the firmware starts another program; may be given again
    #[arg(long, value_name = "ELF")]
    symbols: Vec<PathBuf>,
    /// Load the firmware without a check that this board can run it
    #[arg(long)]
    unchecked: bool,
    /// Show QEMU's command line, and what QEMU itself writes to stderr
    #[arg(long, short)]
    verbose: bool,

    #[command(flatten)]
    settings: Settings,
}

impl Debug {
    /// The run of each of its machines.
    fn run(&self) -> Run {
        Run {
            firmware: Some(self.firmware.clone()),
            qemu_args: self.qemu_args.clone(),
            config: self.config.clone(),
            symbols: self.symbols.clone(),
            unchecked: self.unchecked,
            verbose: self.verbose,
            gdb: Some(self.gdb.clone()),
            settings: self.settings.clone(),
            ..Run::default()
        }
    }
}

/// Serves debuggers until that is to end; the exit status.
pub(crate) fn debug(debug: Debug) -> u8 {
    let since = Instant::now();
    // Without a thread for stderr there is nobody to say so.
    let Ok(reporter) = Reporter::new(None, &[]) else {
        return OWN_FAILURE;
    };
    let outcome = outcome(&debug, &reporter).unwrap_or_else(Outcome::Failed);
    reporter.end(&outcome, false, since.elapsed())
}

fn outcome(debug: &Debug, reporter: &Reporter) -> Result<Outcome, Failure> {
    refuse_options_of_run(&debug.settings)?;
    let folder = std::env::current_dir().map_err(Failure::Folder)?;
    if let Some(editor) = debug.print {
        return print(editor, debug, &folder);
    }
    for &editor in &debug.write {
        let words = with_entry(debug, &folder, |entry| write::write(editor, entry))??;
        reporter.say(Some(&words), &Value::Null)?;
    }
    let run = debug.run();
    let file = config_file::settings(run.config.as_deref(), &folder, reporter)?;
    let settings = run.settings.clone().or(file);
    let settings = machine::fitting(settings, &run, reporter)?;
    runtime::block_on(serve(debug, &run, &settings, reporter))
}

/// Refuses what would mean nothing, before it is relied on.
fn refuse_options_of_run(settings: &Settings) -> Result<(), Failure> {
    match OF_RUN.iter().find(|(_, is_given)| is_given(settings)) {
        Some((id, _)) => Err(Failure::Debug(format!(
            "--{} is an option of `run`: a debugger sees faults by itself, and takes its time",
            id.replace('_', "-")
        ))),
        None => Ok(()),
    }
}

/// Prints an editor's entry.
fn print(editor: Editor, debug: &Debug, folder: &Path) -> Result<Outcome, Failure> {
    let text = with_entry(debug, folder, |entry| editor.form(entry).text())?;
    match write!(io::stdout(), "{text}") {
        Ok(()) => Ok(Outcome::Met),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::StdoutClosed),
        Err(error) => Err(Failure::Stdout(error)),
    }
}

/// Puts the entries for VS Code into a new crate whose program is there once it is built.
pub(crate) fn write_for_vs_code(project: &Path, program: &Path) -> Result<(), Failure> {
    let entry = Entry {
        elf: &project.join(program),
        project,
        target: "127.0.0.1:1234",
        gdb: "gdb-multiarch",
    };
    for editor in [Editor::CortexDebug, Editor::LldbDap] {
        write::write(editor, &entry)?;
    }
    Ok(())
}

/// What an editor's entry is about.
fn with_entry<T>(
    debug: &Debug,
    project: &Path,
    work: impl FnOnce(&Entry<'_>) -> T,
) -> Result<T, Failure> {
    let target = match &debug.gdb {
        Endpoint::Loopback { port: 0 } => {
            let words = "an editor's entry needs the same address every time: not --gdb free";
            return Err(Failure::Debug(words.to_owned()));
        }
        Endpoint::Loopback { port } => format!("127.0.0.1:{port}"),
        Endpoint::Socket(path) => path.display().to_string(),
        Endpoint::Exposed(address) => address.to_string(),
        other => format!("{other:?}"),
    };
    let elf = debug.symbols.first().unwrap_or(&debug.firmware);
    let elf = std::path::absolute(elf).map_err(Failure::Folder)?;
    // An editor may have more of a PATH, so a name and no path.
    let gdb = gdb_ui::installed().unwrap_or_else(|| PathBuf::from("gdb-multiarch"));
    Ok(work(&Entry {
        elf: &elf,
        project,
        target: &target,
        gdb: &gdb.display().to_string(),
    }))
}

/// Starts one machine after another, and lets debuggers have them.
async fn serve(
    debug: &Debug,
    run: &Run,
    settings: &Settings,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let mut signals = Signals::listen().map_err(Failure::system("listen to signals"))?;
    let stdin = match debug.gdb_ui {
        Some(_) => Stdin::none(),
        None => Stdin::default(),
    };
    signals.ignores_interrupt = debug.gdb_ui.is_some();
    let (mut slot, machines) = Slot::new(&debug.firmware, stdin);
    let server = Server::bind(&debug.gdb, machines, reporter)?;
    let target = server.target();
    let greeting = debug.gdb_ui.is_none().then(|| greeting(&target, run));
    let gdb = async {
        match &debug.gdb_ui {
            Some(program) => gdb_ui::run(program.as_deref(), &target, elf(run)).await,
            None => std::future::pending().await,
        }
    };
    let machines = async {
        let mut is_first = true;
        loop {
            slot.next();
            let outcome = in_qemu(
                run,
                settings,
                reporter,
                Instant::now(),
                &mut signals,
                Some(&slot),
            );
            let outcome = outcome.await;
            if slot.quits() {
                return Ok(Outcome::Replaced);
            }
            match outcome {
                Ok(outcome @ Outcome::Ended { .. }) => {
                    let words = outcome
                        .words()
                        .unwrap_or_else(|| "the firmware has ended".to_owned());
                    reporter.say(Some(&format!("{words}\n{ANEW}")), &Value::Null)?;
                }
                Ok(Outcome::Replaced) => reporter.say(Some(ANEW), &Value::Null)?,
                Err(failure) if !is_first => {
                    let words = failure.words();
                    reporter.say(Some(&words), &Value::Null)?;
                    tokio::select! {
                        () = slot.is_down(words) => {}
                        signal = signals.next() => {
                            return Ok(Outcome::Interrupted { signal, place: None });
                        }
                    }
                }
                ended => return ended,
            }
            is_first = false;
        }
    };
    tokio::select! {
        outcome = machines => outcome,
        never = server.serve(greeting) => match never {},
        ended = gdb => ended.map(|()| Outcome::Met),
    }
}

/// Says how to attach a debugger.
fn greeting(target: &str, run: &Run) -> String {
    let words = ["-q".into(), elf(run).into(), "-ex".into()];
    let connect = OsString::from(format!("target extended-remote {target}"));
    let line = Argv::new(
        "gdb-multiarch".into(),
        words.into_iter().chain([connect]).collect(),
    )
    .to_string();
    format!(
        "the firmware is held at its reset for a debugger at {target}; attach one with\n\n{line}\n\n\
         `monitor help` lists more words, --print has the entry for an editor, and Ctrl-C ends this"
    )
}

/// The ELF file for the debugger.
fn elf(run: &Run) -> &Path {
    let elf = run
        .symbols
        .first()
        .map(PathBuf::as_path)
        .or(run.firmware.as_deref());
    elf.unwrap_or(Path::new(""))
}
