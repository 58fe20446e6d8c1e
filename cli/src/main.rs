//! `qemu-controller run FIRMWARE`, `machines`, `debug`, `mcp`: firmware in QEMU from the command line, as
//! Cargo's runner, for editors and for agents; `serve` and `ctl`: call by call.
//!
//! Thin over the library: words to a configuration, bytes to stdout, a verdict to an exit status.

mod args;
mod bundle;
mod calls;
mod config_file;
mod coverage;
mod ctl;
mod debug;
mod debugger;
mod expectation;
mod failure;
mod input;
mod limit;
mod logs;
mod machine;
mod machines;
mod mcp;
mod new;
mod not_started;
mod open;
mod outcome;
mod output;
mod reporter;
mod run;
mod running;
mod runtime;
mod serve;
mod settings;
mod signals;
mod stderr;
mod test_run;
mod writer;
mod written;

use std::cell::Cell;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use qemu_controller::escape;

use self::args::Verb;
use self::outcome::OWN_FAILURE;

fn main() -> ExitCode {
    hush_panics();
    ExitCode::from(match args::parse(std::env::args_os()) {
        Ok(Verb::Run(run)) => run::run(*run),
        Ok(Verb::Machines(machines)) => machines::list(&machines.qemu),
        Ok(Verb::Coverage(verb)) => coverage::verb::run(verb),
        Ok(Verb::Mcp(mcp)) => mcp::serve(&mcp),
        Ok(Verb::Serve(serve)) => serve::serve(*serve),
        Ok(Verb::Ctl(ctl)) => ctl::ask(ctl),
        Ok(Verb::Open(open)) => open::open(*open),
        Ok(Verb::New(new)) => new::new(&new),
        Ok(Verb::Debug(debug)) => debug::debug(*debug),
        Err(error) => say(&error),
    })
}

thread_local! {
    /// A panic on this thread is caught, and said in other words.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics that are caught off stderr.
fn hush_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            loud(info);
        }
    }));
}

/// Does what may panic in a crate of others, where that is caught.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let before = QUIET.replace(true);
    let done = work();
    QUIET.set(before);
    done
}

/// Prints the help that was asked for, or what is wrong with the arguments, which it quotes.
fn say(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if error.print().is_ok() => 0,
        // Not clap's own 2, which a firmware may well exit with.
        _ => {
            let words = error.render().to_string();
            let lines: Vec<_> = words.lines().map(escape::line).collect();
            // Without a stderr there is nobody to say it to.
            let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
            OWN_FAILURE
        }
    }
}
