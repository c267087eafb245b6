//! What a run's last lines say.

use std::path::Path;

use super::{
    HTML, drill,
    record::{NOT_RUN, Record},
    text::{Paint, exact, human, lines, one_line, path, verdict, wrap},
};
use crate::{
    cmd::quote,
    run::events::{HarborKind, LabFacts},
    scenario::{CellResult, Role, Verdict},
};

/// How a summary looks.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Colours, or none.
    pub paint: Paint,
    /// Columns to break long sentences at; none where nothing is to be broken.
    pub width: Option<usize>,
}

/// Below the marks of the table.
const INDENT: &str = "      ";

/// The summary of a run: its cells, their number (alone on a line, for CI to read), what it ran on, where the report is, and
/// after a failure what to do next.
pub fn summary(record: &Record, dir: Option<&Path>, look: Look) -> String {
    let mut out = String::new();
    let cells = record.cells();
    // Where none ran, their number says it all.
    if cells.iter().any(|cell| cell.verdict != Verdict::Skipped) {
        table(&mut out, record, &cells, look);
    }
    let with_plans: Vec<_> = cells.iter().map(|cell| (cell.clone(), record.plan(cell).cloned())).collect();
    out += &drill::tables(&with_plans);
    if !cells.is_empty() {
        out += &format!("\n{}\n\n", record.counts());
    }
    if let Some(lab) = &record.lab {
        out += &wrapped(&on(lab), look.width);
    }
    out += &format!("took {}\n", human(record.seconds().round() as u64));
    if let Some(dir) = dir {
        out += &format!("report: {}\n", dir.join(HTML).display());
    }
    if !record.passed() {
        failure(&mut out, record, &cells, dir, look);
    }
    out
}

fn table(out: &mut String, record: &Record, cells: &[CellResult], look: Look) {
    let rows: Vec<[String; 4]> = cells
        .iter()
        .map(|cell| {
            let role = if cell.role.to_string() == cell.procedure { String::new() } else { cell.role.to_string() };
            [cell.procedure.clone(), role, outcome(cell), exact(cell.seconds)]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut variant = None;
    for (cell, row) in cells.iter().zip(&rows) {
        if variant != Some((&cell.scenario, &cell.variant)) {
            variant = Some((&cell.scenario, &cell.variant));
            *out += &format!("\n{}/{}\n", cell.scenario, cell.variant);
        }
        *out += &format!(
            "{}  {:<procedure$}  {:<role$}  {:<outcome$}  {:>seconds$}\n",
            look.paint.mark(cell),
            row[0],
            row[1],
            row[2],
            row[3],
            procedure = widths[0],
            role = widths[1],
            outcome = widths[2],
            seconds = widths[3],
        );
        if let Some(words) = words(record, cell) {
            indented(out, &words, look);
        }
        // A runbook that was taken apart is told in the tables; its parts only where something went wrong.
        let whole = record.plan(cell).is_none_or(|plan| plan.part.is_none());
        for line in
            cell.drill.iter().filter(|_| whole || !cell.as_expected).flat_map(|drill| drill::lines(drill, look.paint))
        {
            *out += &format!("{INDENT}{line}\n");
        }
    }
}

/// The verdict and what it should have been.
fn outcome(cell: &CellResult) -> String {
    match cell.expected {
        Some(_) if cell.as_expected => format!("{}, as expected", cell.verdict),
        Some(expected) => format!("{}, expected {expected}", cell.verdict),
        None => cell.verdict.to_string(),
    }
}

/// What a cell's line does not say by itself.
fn words(record: &Record, cell: &CellResult) -> Option<String> {
    let repair = matches!(cell.role, Role::Documented | Role::Recommended);
    if !cell.as_expected {
        Some(cell.reason.clone())
    } else if repair && cell.verdict != Verdict::Healed {
        let why = record.plan(cell).and_then(|plan| plan.why.as_deref()).unwrap_or(&cell.reason);
        Some(format!("known not to heal: {why}"))
    } else if cell.expected.is_none() && record.plan(cell).is_none_or(|plan| plan.part.is_none()) {
        Some(cell.reason.clone())
    } else {
        None
    }
    .filter(|words| !words.trim().is_empty() && words != NOT_RUN)
}

fn indented(out: &mut String, text: &str, look: Look) {
    for line in lines(text) {
        for line in wrapped(&line, look.width.map(|width| width.saturating_sub(INDENT.len()))).lines() {
            *out += &format!("{INDENT}{}\n", look.paint.dim(line));
        }
    }
}

/// A sentence, broken into lines where there is a width.
fn wrapped(text: &str, width: Option<usize>) -> String {
    match width {
        Some(width) => wrap(text, width.max(20)).join("\n") + "\n",
        None => format!("{text}\n"),
    }
}

/// `Harbor 2.13.1 (stand-in, not Harbor itself), Kubernetes …`.
pub(super) fn on(lab: &LabFacts) -> String {
    let harbor = match lab.harbor.kind {
        HarborKind::Harbor => "",
        HarborKind::StandIn => " (stand-in, not Harbor itself)",
    };
    format!(
        "Harbor {}{harbor}, Kubernetes {}, containerd {}, source {}",
        lab.harbor.version, lab.kubernetes, lab.containerd, lab.source
    )
}

/// The one sentence that matters, and the command to look further.
fn failure(out: &mut String, record: &Record, cells: &[CellResult], dir: Option<&Path>, look: Look) {
    let broke = cells.iter().find(|cell| record.error().is_some() && cell.verdict == Verdict::LabBroken);
    let ran_badly = broke.or_else(|| cells.iter().find(|cell| !cell.as_expected && cell.verdict != Verdict::Skipped));
    let cell = ran_badly.or_else(|| cells.iter().find(|cell| !cell.as_expected));
    let sentence = match (record.error(), cell) {
        (Some(error), _) => one_line(error),
        (None, Some(cell)) => format!("{}: {}", path(cell), verdict(cell)),
        (None, None) => "the run says that it did not pass, and not why".to_owned(),
    };
    let sentence = wrapped(&format!("not passed: {sentence}"), look.width);
    *out += &format!("\n{}", sentence.replacen("not passed:", &look.paint.red("not passed:"), 1));
    match (dir, ran_badly.filter(|cell| record.evidence(cell).next().is_some())) {
        (Some(dir), Some(cell)) => {
            let folder = dir.join("evidence").join(&cell.scenario).join(&cell.variant);
            *out += &format!("look further: find {} -type f\n", quote(&folder.to_string_lossy()));
        }
        (Some(dir), None) => {
            *out += &format!("look further: less {}\n", quote(&dir.join("events.jsonl").to_string_lossy()));
        }
        (None, _) => *out += "to keep evidence: run again with --report DIR\n",
    }
    if let Some(cell) = ran_badly {
        *out += &match cell.role {
            Role::Practice => format!("again: cargo xtask practice {}/{}\n", cell.scenario, cell.variant),
            _ => format!("again, by itself: {}\n", again(cell)),
        };
    }
}

/// The command that runs this cell again, by itself.
pub(super) fn again(cell: &CellResult) -> String {
    format!("cargo xtask e2e {} --keep on-failure", selected(cell))
}

/// What selects this cell on the command line.
fn selected(cell: &CellResult) -> String {
    if cell.role != Role::Yours {
        return quote(&path(cell));
    }
    let file = cell.drill.iter().flat_map(|drill| &drill.steps).map(|step| step.file.as_str()).next().unwrap_or("FILE");
    format!("{} --runbook {}", quote(&format!("{}/{}", cell.scenario, cell.variant)), quote(file))
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{bad, good, killed},
        *,
    };
    use crate::run::events::{Event, EventKind};

    fn said(events: &[Event], dir: Option<&str>, width: Option<usize>) -> String {
        let look = Look { paint: Paint { colour: false }, width };
        summary(&Record::of(events), dir.map(Path::new), look)
    }

    #[test]
    fn of_a_good_run() {
        insta::assert_snapshot!(said(&good(), Some("reports/one"), None));
    }

    #[test]
    fn of_a_bad_run_on_80_columns() {
        let said = said(&bad(), Some("my reports"), Some(80));
        let fits = |line: &str| line.chars().count() <= 80 || line.starts_with("again, by itself: ");
        assert!(said.lines().all(fits), "a command alone is longer, to be pasted whole:\n{said}");
        insta::assert_snapshot!(said);
    }

    #[test]
    fn of_a_run_that_was_killed() {
        insta::assert_snapshot!(said(&killed(), None, None));
    }

    #[test]
    fn the_numbers_are_alone_on_their_line() {
        let line = |events: &[Event]| {
            let said = said(events, None, None);
            said.lines().filter(|line| line.contains(" passed, ")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line(&good()), ["6 passed, 0 failed"]);
        assert_eq!(line(&bad()), ["1 passed, 3 failed, 2 skipped"]);
    }

    #[test]
    fn a_run_that_never_began_says_why_and_lists_no_cell() {
        let mut events = bad();
        events.retain(|event| matches!(event.kind, EventKind::RunStarted { .. } | EventKind::RunFinished { .. }));
        let said = said(&events, None, None);
        assert!(said.contains("\n0 passed, 0 failed, 6 skipped\n") && said.contains("\nnot passed: "), "{said}");
        assert!(!said.contains("no-op"), "{said}");
    }

    #[test]
    fn without_cells_there_are_no_numbers() {
        let mut events = good();
        events.retain(|event| !matches!(event.kind, EventKind::RunStarted { .. } | EventKind::CellFinished { .. }));
        assert_eq!(
            said(&events, None, None),
            "Harbor 2.13.1 (stand-in, not Harbor itself), Kubernetes v1.34.4, containerd 2.1.5, source packages\n\
             took 5 min 45 s\n"
        );
    }
}
