//! Drydock's command line: `cargo xtask COMMAND`.

mod bench;
mod bundle;
mod completions;
mod doctor;
mod e2e;
mod exit;
mod explain;
mod gc;
mod guest;
mod pin;
mod plan;
mod practice;
#[cfg(test)]
mod readmes;
mod report;
mod runbook;
mod session;
mod test;
mod up;
#[cfg(test)]
mod workflows;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use harness::source::{SourceChoice, mirror::Mirror};

use crate::exit::Failure;

/// Breaks a Harbor on a real Kubernetes the way production does, and proves whether a repair brings image pulls back.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 as expected; 1 some cell not, a test failed, a pin is amiss, or a runbook of yours did not heal; 2 bad input, or a machine that cannot \
run a lab, and nothing was created; 3 the lab broke; 130 interrupted, and cleaned up.";

#[derive(Subcommand)]
enum Command {
    /// Run scenarios: make a lab, break it, repair it, judge
    E2e(e2e::E2eArgs),
    /// List scenarios, their variants and procedures
    List(plan::ListArgs),
    /// Tell what breaks and why, how one meets it, what does not help and what does
    Explain(explain::ExplainArgs),
    /// Tell what a run would do, without doing it
    Plan(plan::PlanArgs),
    /// Practise: a lab broken and left to you, with a shell in it, hints and the judgement of e2e
    Practice(practice::PracticeArgs),
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
    /// One file with all that a run needs, for machines that reach no registry
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Ask the registries for the digests of what fixtures/versions.toml pins: fill in what lacks, check the rest
    Pin(pin::PinArgs),
    /// Render a run's report again, or compare two runs
    Report(report::ReportArgs),
    /// Measure the phases of a run
    Bench(bench::BenchArgs),
    /// Print completions of this command line for a shell
    Completions(completions::CompletionsArgs),
    /// Print a manual page
    Man(completions::ManArgs),
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
    /// The file of the bundle, for `--source bundle`
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Fetch nothing, and fail when anything tries to leave this machine, naming what asked for what
    #[arg(long)]
    offline: bool,
    /// The Kubernetes version, one of those in fixtures/versions.toml
    #[arg(long, value_name = "VERSION")]
    k8s: Option<String>,
    /// The Harbor version, one of those in fixtures/versions.toml; the packages source has a stand-in for the first
    #[arg(long, value_name = "VERSION")]
    harbor: Option<String>,
    /// Rewrite the nodes' containerd configuration in version 3, as containerd 2 writes it; the node image's is of version 2
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u8).range(2..=3))]
    containerd_config: Option<u8>,
    /// Fetch upstream images from a mirror of Docker Hub, with the credentials and CAs that Docker has for it
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    mirror: Option<Mirror>,
}

impl LabArgs {
    /// Which source is asked for. Who names a bundle wants it used.
    fn source(&self) -> Result<SourceChoice, Failure> {
        let kubernetes = self.k8s.clone();
        match (self.source, &self.bundle) {
            (_, Some(_)) if self.harbor.is_some() => {
                Err(Failure::input(anyhow::anyhow!("`--harbor` is not for a bundle, which has one Harbor")))
            }
            (_, Some(_)) if self.mirror.is_some() => {
                Err(Failure::input(anyhow::anyhow!("`--mirror` is not for a bundle, which has its images")))
            }
            (Source::Auto | Source::Bundle, Some(file)) => Ok(SourceChoice::Bundle { file: file.clone(), kubernetes }),
            (Source::Bundle, None) => Err(Failure::input(anyhow::anyhow!("`--source bundle` needs `--bundle FILE`"))),
            _ if self.mirror.is_some() && matches!(self.source, Source::Packages) => {
                Err(Failure::input(anyhow::anyhow!("`--mirror` is not for `--source packages`, which pulls no image")))
            }
            (source, Some(_)) => {
                Err(Failure::input(anyhow::anyhow!("`--bundle` is not for `--source {}`", source.name())))
            }
            (Source::Auto, None) => Ok(SourceChoice::Auto),
            (Source::Upstream, None) if self.offline => Err(Failure::input(anyhow::anyhow!(
                "`--offline` and `--source upstream` exclude each other: make a bundle of upstream, and use that"
            ))),
            (Source::Upstream, None) => Ok(SourceChoice::Upstream),
            (Source::Packages, None) => Ok(SourceChoice::Packages),
        }
    }
}

impl Default for LabArgs {
    fn default() -> Self {
        Self {
            provision: false,
            source: Source::Auto,
            bundle: None,
            offline: false,
            k8s: None,
            harbor: None,
            containerd_config: None,
            mirror: None,
        }
    }
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
    /// A file that `bundle create` made, or that was made by hand
    Bundle,
}

impl Source {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
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

/// The folder that the workspace is in: where cargo runs this from, else where it was built.
pub fn root() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    // Another project's cargo may have started this.
    let is_ours = |xtask: &PathBuf| xtask.join("../fixtures/versions.toml").is_file();
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).filter(is_ours).unwrap_or(built);
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
            Command::Explain(args) => explain::explain(&args),
            Command::Plan(args) => plan::plan(&args),
            Command::Practice(args) => practice::practice(args).await,
            Command::Test(args) => test::test(args).await,
            Command::Up(args) => up::up(args).await,
            Command::Down(args) => up::down(args).await,
            Command::Gc(args) => gc::gc(args).await,
            Command::Doctor(args) => doctor::doctor(args).await,
            Command::Runbook(command) => runbook::runbook(&command),
            Command::Bundle(command) => bundle::bundle(command).await,
            Command::Pin(args) => pin::pin(args).await,
            Command::Report(args) => report::report(&args),
            Command::Bench(args) => bench::bench(args).await,
            Command::Completions(args) => completions::completions(&args),
            Command::Man(args) => completions::man(&args),
        }
    });
    ExitCode::from(code.unwrap_or_else(|failure| failure.report()))
}
