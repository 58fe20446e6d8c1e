//! `cargo xtask <verb>`: dispatch only; one file a verb.

mod api;
mod audit;
mod bench;
mod coverage;
mod demo;
mod firmware;
mod fuzz;
mod interrupts;
mod layers;
mod qemus;
mod robustness;
mod setup;
mod soak;
mod steps;
mod test;
#[cfg(test)]
#[path = "../../qemu-launch/tests/fake/program.rs"]
mod test_program;
mod tidy;
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
    Fuzz(fuzz::Args),
    Setup(setup::Args),
    Soak(soak::Args),
    Layers(layers::Args),
    Api(api::Args),
    Audit(audit::Args),
    Coverage(coverage::Args),
    Robustness(robustness::Args),
    Tidy(tidy::Args),
    Transcripts(transcripts::Args),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Bench(args) => bench::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Test(args) => test::run(args),
        Verb::Firmware(args) => firmware::run(args).map(success),
        Verb::Fuzz(args) => fuzz::run(args),
        Verb::Setup(args) => setup::run(args).map(success),
        Verb::Soak(args) => soak::run(args),
        Verb::Layers(args) => layers::run(args).map(success),
        Verb::Api(args) => api::run(args).map(success),
        Verb::Audit(args) => audit::run(args),
        Verb::Coverage(args) => coverage::run(args).map(success),
        Verb::Robustness(args) => robustness::run(args).map(success),
        Verb::Tidy(args) => tidy::run(args).map(success),
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
