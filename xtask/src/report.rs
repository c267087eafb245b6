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

#[derive(Args)]
pub struct ReportArgs {
    /// The report folder
    ///
    /// Its report.html, report.md, report.json and junit.xml are written again from its events.jsonl. Exit code 0 also for a
    /// run that did not pass: that it can be rendered is all that is asked.
    #[arg(value_name = "RUN", default_value = "report")]
    run: PathBuf,
    /// Tell what changed from the run in A to the run in B instead; exit code 1 when something is worse
    ///
    /// Verdicts, versions, and times that differ by more than a quarter and 5 s. Worse is a cell that was as expected and is not
    /// or did not run, a new cell that is not, or a run that broke. A time makes nothing worse, and neither does a cell that
    /// was not planned in B.
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
        let (record, truncated) = report::record(dir).map_err(|error| refused(error, dir))?;
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

#[cfg(test)]
mod tests {
    use harness::{
        run::events::{Event, EventKind},
        scenario::{CellPlan, Role, Verdict},
    };

    use super::*;

    /// A report folder of a run of one control, with this verdict.
    fn run(dir: &Path, verdict: Verdict) {
        let plan = CellPlan {
            scenario: "s".to_owned(),
            variant: "v".to_owned(),
            procedure: "no-op".to_owned(),
            role: Role::Control,
            expected: Some(Verdict::NotHealed),
            why: None,
            runbooks: Vec::new(),
            stops_at: None,
            part: None,
        };
        let cell = plan.result(verdict, 1.0, "seen");
        let passed = cell.as_expected;
        let kinds = [
            EventKind::RunStarted { run: "r".to_owned(), cells: vec![plan] },
            EventKind::CellFinished { cell },
            EventKind::RunFinished { passed, seconds: 1.0, error: None },
        ];
        let lines = kinds
            .map(|kind| serde_json::to_string(&Event { at: "2026-03-01T12:00:00Z".parse().unwrap(), kind }).unwrap());
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("events.jsonl"), lines.join("\n") + "\n").unwrap();
    }

    fn compared(was: &Path, is: &Path) -> u8 {
        let compare = Some(vec![was.to_owned(), is.to_owned()]);
        report(&ReportArgs { run: PathBuf::new(), compare, format: Format::Text }).unwrap()
    }

    fn rendered(dir: &Path) -> Result<u8, (u8, String)> {
        let args = ReportArgs { run: dir.to_owned(), compare: None, format: Format::Text };
        report(&args).map_err(|failure| (failure.code(), failure.to_string()))
    }

    #[test]
    fn what_is_worse_is_told_by_the_exit_code_and_rendering_never_is() {
        let dir = tempfile::tempdir().unwrap();
        let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
        run(&good, Verdict::NotHealed);
        run(&bad, Verdict::Healed);
        assert_eq!([compared(&good, &bad), compared(&bad, &good), compared(&bad, &bad)], [1, 0, 0]);
        assert_eq!(rendered(&bad), Ok(0));
        assert!(std::fs::read_to_string(bad.join("report.html")).unwrap().contains("1 of 1 is not as expected"));
    }

    #[test]
    fn what_is_no_report_folder_is_told_with_what_to_name_instead() {
        let dir = tempfile::tempdir().unwrap();
        run(&dir.path().join("monday"), Verdict::NotHealed);
        let told = |name: &str| {
            let (code, said) = rendered(&dir.path().join(name)).unwrap_err();
            assert_eq!(code, exit::BAD_INPUT, "{said}");
            said.replace(&dir.path().display().to_string(), "DIR")
        };
        assert!(told("modnay").ends_with("; did you mean `monday`?"));
        assert!(told("monday/events.jsonl").ends_with("is a file: name the report folder that it is in"));
        std::fs::write(dir.path().join("monday/events.jsonl"), "<html>\n").unwrap();
        assert!(told("monday").starts_with("read DIR/monday/events.jsonl, line 1: expected value"));
    }
}
