//! What is told of runbooks that someone brings: the steps, the time to recovery, findings; and which steps are needed.

use std::collections::BTreeMap;

use super::text::{Paint, exact, human, one_line};
use crate::{
    runbook::derive::Part,
    scenario::{CellPlan, CellResult, Drill, DrillStep, Verdict},
};

/// The lines below a cell's own.
pub(super) fn lines(drill: &Drill, paint: Paint) -> Vec<String> {
    let mut lines: Vec<String> = by_block(&drill.steps).into_iter().map(|steps| step(&steps, paint)).collect();
    if let Some(seconds) = drill.recovery_seconds {
        let time = human(seconds.round().max(0.0) as u64);
        lines.push(format!("pulls were back everywhere {time} after the failure was seen"));
    }
    lines.extend(drill.findings.iter().map(|finding| one_line(&finding.to_string())));
    lines
}

/// The places of one block together.
fn by_block(steps: &[DrillStep]) -> Vec<Vec<&DrillStep>> {
    let same =
        |a: &DrillStep, b: &DrillStep| (&a.file, a.line, &a.step) == (&b.file, b.line, &b.step) && a.place != b.place;
    steps.chunk_by(same).map(|chunk| chunk.iter().collect()).collect()
}

fn step(steps: &[&DrillStep], paint: Paint) -> String {
    let bad: Vec<&&DrillStep> = steps.iter().filter(|step| !step.ok).collect();
    let Some(first) = steps.first() else { return String::new() };
    let seconds = steps.iter().map(|step| step.seconds).fold(0.0, f64::max);
    let mark = if bad.is_empty() { paint.green("  ok") } else { paint.red("FAIL") };
    let ended = match bad.first() {
        Some(bad) if bad.place.is_empty() => format!(" {}", bad.ended),
        Some(bad) => format!(" {} on {}", bad.ended, bad.place),
        None if first.place.is_empty() => format!(" {}", first.ended),
        None => String::new(),
    };
    format!("{mark} {:>8}  {} ({}:{}){ended}", exact(seconds), one_line(&first.step), first.file, first.line)
}

/// The tables of a run that took a runbook apart: one line per step that was left out, or after which it was interrupted.
pub(super) fn tables(cells: &[(CellResult, Option<CellPlan>)]) -> String {
    let mut without: BTreeMap<String, Vec<[String; 3]>> = BTreeMap::new();
    let mut cuts: BTreeMap<String, Vec<[String; 3]>> = BTreeMap::new();
    for (cell, plan) in cells {
        let variant = format!("{}/{}", cell.scenario, cell.variant);
        match plan.as_ref().and_then(|plan| plan.part.as_ref()) {
            Some(Part::Without(step)) => {
                without.entry(variant).or_default().push([step.clone(), needed(cell).to_owned(), wrong(cell)]);
            }
            Some(Part::CutAfter(step)) => {
                cuts.entry(variant).or_default().push([step.clone(), converges(cell).to_owned(), wrong(cell)]);
            }
            None => {}
        }
    }
    let mut out = String::new();
    for (variant, rows) in without {
        let whole = cells.iter().find(|(cell, plan)| {
            format!("{}/{}", cell.scenario, cell.variant) == variant
                && plan.as_ref().is_some_and(|plan| plan.part.is_none())
        });
        let whole = whole.map_or("was not run".to_owned(), |(cell, _)| format!("ended in `{}`", cell.verdict));
        out += &format!("\n{variant}: each step left out; the whole runbook {whole}\n");
        out += &table(["step", "needed", "what goes wrong without it"], rows);
    }
    for (variant, rows) in cuts {
        out += &format!("\n{variant}: interrupted after each step, and run again from the start\n");
        out += &table(["after step", "converges", "what goes wrong"], rows);
    }
    out
}

/// Whether a step is needed: not by itself, where the rest heals without it.
fn needed(cell: &CellResult) -> &'static str {
    match cell.verdict {
        Verdict::Healed => "no",
        Verdict::NotHealed | Verdict::DataLost => "yes",
        Verdict::NotReproduced | Verdict::LabBroken | Verdict::Skipped => "not known",
    }
}

fn converges(cell: &CellResult) -> &'static str {
    match cell.verdict {
        Verdict::Healed => "yes",
        Verdict::NotHealed | Verdict::DataLost => "no",
        Verdict::NotReproduced | Verdict::LabBroken | Verdict::Skipped => "not known",
    }
}

fn wrong(cell: &CellResult) -> String {
    match cell.verdict {
        Verdict::Healed => "nothing".to_owned(),
        verdict => format!("{verdict}: {}", one_line(&cell.reason)),
    }
}

/// The longest that a table says of a row's reason, in characters: the rest is with the cell.
const LONGEST: usize = 200;

fn table(head: [&str; 3], rows: Vec<[String; 3]>) -> String {
    let rows: Vec<[String; 3]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let line = |[step, answer, wrong]: &[String; 3]| {
        let short: String = wrong.chars().take(LONGEST).collect();
        let more = if short.len() < wrong.len() { " …" } else { "" };
        format!("  {step:<first$}  {answer:<second$}  {short}{more}\n")
    };
    rows.iter().map(line).collect()
}
