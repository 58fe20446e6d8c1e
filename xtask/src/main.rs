//! `cargo xtask <verb>`: dispatch only; one file a verb.

mod bench;
mod demo;
mod firmware;
mod interrupts;
mod qemus;
mod setup;
mod soak;
mod steps;
mod sweep;
mod test;
mod transcripts;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks. None of them is needed to use the libraries.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Bench(bench::Args),
    Demo(demo::Args),
    Test(test::Args),
    Firmware(firmware::Args),
    Setup(setup::Args),
    Soak(soak::Args),
    Sweep(sweep::Args),
    Transcripts(transcripts::Args),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Bench(args) => bench::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Test(args) => test::run(args),
        Verb::Firmware(args) => firmware::run(args).map(success),
        Verb::Setup(args) => setup::run(args).map(success),
        Verb::Soak(args) => soak::run(args),
        Verb::Sweep(args) => sweep::run(args),
        Verb::Transcripts(args) => transcripts::run(args).map(success),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn success((): ()) -> ExitCode {
    ExitCode::SUCCESS
}
