//! Drydock's command line: `cargo xtask COMMAND`.

mod bench;
mod doctor;
mod e2e;
mod exit;
mod gc;
mod plan;
mod runbook;
mod session;
mod test;
mod up;
#[cfg(test)]
mod workflows;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Breaks a Harbor on a real Kubernetes the way production does, and proves whether a repair brings image pulls back.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run scenarios: make a lab, break it, repair it, judge
    E2e(e2e::E2eArgs),
    /// List scenarios, their variants and procedures
    List(plan::ListArgs),
    /// Tell what a run would do, without doing it
    Plan(plan::PlanArgs),
    /// Pass the tests
    Test(test::TestArgs),
    /// Make a lab to play in
    Up(up::UpArgs),
    /// Remove a lab that `up` made, or that a run kept
    Down(up::DownArgs),
    /// Remove all that runs which no longer live have left
    Gc(gc::GcArgs),
    /// Look whether this machine can run a lab
    Doctor(doctor::DoctorArgs),
    /// Look at a runbook without a lab
    #[command(subcommand)]
    Runbook(runbook::RunbookCommand),
    /// Measure the phases of a run
    Bench(bench::BenchArgs),
}

/// Where a lab comes from.
#[derive(Args, Clone)]
pub struct LabArgs {
    /// Permit system changes: install Docker where it is missing, start a private engine where none runs
    #[arg(long)]
    provision: bool,
    /// Where images and tools come from
    #[arg(long, value_enum, default_value_t = Source::Auto)]
    source: Source,
    /// The Kubernetes version, one of those in fixtures/versions.toml
    #[arg(long, value_name = "VERSION")]
    k8s: Option<String>,
}

/// Where images and tools come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// `upstream` where the image registries answer, else `packages`
    Auto,
    /// Official images and charts from their registries
    Upstream,
    /// Built here from Debian and Go packages
    Packages,
}

/// What is kept of a lab when a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// The lab stays, for `down` to remove
    Always,
    /// The lab stays when a cell was not as expected or the lab broke
    OnFailure,
    /// Nothing stays
    Never,
}

/// The folder that the workspace is in.
pub fn root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map(PathBuf::from).unwrap_or(xtask)
}

fn main() -> ExitCode {
    if harness::lab::engine::oci_runtime::is_called() {
        return harness::lab::engine::oci_runtime::main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::BAD_INPUT } else { exit::AS_EXPECTED });
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start: {error}");
            return ExitCode::from(exit::LAB_BROKEN);
        }
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let code = runtime.block_on(async {
        match cli.command {
            Command::E2e(args) => e2e::e2e(args).await,
            Command::List(args) => plan::list(&args),
            Command::Plan(args) => plan::plan(&args),
            Command::Test(args) => test::test(args).await,
            Command::Up(args) => up::up(args).await,
            Command::Down(args) => up::down(args).await,
            Command::Gc(args) => gc::gc(args).await,
            Command::Doctor(args) => doctor::doctor(args).await,
            Command::Runbook(command) => runbook::runbook(&command),
            Command::Bench(args) => bench::bench(args).await,
        }
    });
    ExitCode::from(code.unwrap_or_else(|failure| failure.report()))
}
