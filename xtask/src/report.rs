//! `cargo xtask report`: render a run again, or compare two.

use std::path::{Path, PathBuf};

use clap::Args;
use harness::{
    nearest::did_you_mean,
    report::{self, ReportError, compare::Comparison},
};

use crate::{
    exit::{self, Failure},
    plan::Format,
};

/// Writes report.html, report.md, report.json and junit.xml of a report folder again, from its events.jsonl; exit code 0 also
/// for a run that did not pass.
///
/// With --compare, tells what changed from the run in A to the run in B: verdicts, versions, and times that differ by more than
/// a quarter and 5 s. Exit code 1 when something is worse: a cell that was as expected and is not or did not run, a new cell
/// that is not, or a run that broke. A time makes nothing worse, and nor does a cell that B had not planned.
#[derive(Args)]
pub struct ReportArgs {
    /// The report folder
    #[arg(value_name = "RUN", default_value = "report")]
    run: PathBuf,
    /// Compare two report folders instead
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "run")]
    compare: Option<Vec<PathBuf>>,
    /// How the comparison is told
    #[arg(long, value_enum, default_value_t = Format::Text, requires = "compare")]
    format: Format,
}

pub fn report(args: &ReportArgs) -> Result<u8, Failure> {
    match args.compare.as_deref() {
        Some([was, is]) => compare(was, is, args.format),
        _ => render(&args.run),
    }
}

fn render(dir: &Path) -> Result<u8, Failure> {
    let rendered = report::render(dir).map_err(|error| refused(error, dir))?;
    if let Some(truncated) = rendered.truncated {
        eprintln!("note: {truncated}");
    }
    print!("{}", rendered.summary);
    Ok(exit::AS_EXPECTED)
}

fn compare(was: &Path, is: &Path, format: Format) -> Result<u8, Failure> {
    let read = |dir: &Path| {
        let (record, truncated) = report::read(dir).map_err(|error| refused(error, dir))?;
        if let Some(truncated) = truncated {
            eprintln!("note: {truncated}");
        }
        Ok(record)
    };
    let compared = Comparison::of(&read(was)?, &read(is)?);
    match format {
        Format::Text => print!("{}", compared.text([&was.to_string_lossy(), &is.to_string_lossy()])),
        Format::Json => print!("{}", compared.json().map_err(Failure::input)?),
    }
    Ok(if compared.worse { exit::NOT_AS_EXPECTED } else { exit::AS_EXPECTED })
}

/// The error, with what to name instead.
fn refused(error: ReportError, dir: &Path) -> Failure {
    if dir.is_file() {
        return Failure::input(anyhow::anyhow!("{} is a file: name the report folder that it is in", dir.display()));
    }
    if dir.join("events.jsonl").exists() {
        return Failure::input(error);
    }
    let beside = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(beside).into_iter().flatten().flatten();
    let reports = entries.filter(|entry| entry.path().join("events.jsonl").exists());
    let names: Vec<String> = reports.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let wanted = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let hint = did_you_mean(&wanted, names.iter().map(String::as_str));
    Failure::input(anyhow::anyhow!("{error}; a report folder has its run's events.jsonl{hint}"))
}
