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
                let whole = whole(cells, &variant).map(|cell| cell.verdict);
                // Beside a whole that does not heal either, a part tells nothing.
                let needed = if whole == Some(Verdict::Healed) { healed(cell, "no", "yes") } else { "not known" };
                without.entry(variant).or_default().push([step.clone(), needed.to_owned(), wrong(cell)]);
            }
            Some(Part::CutAfter(step)) => {
                let converges = healed(cell, "yes", "no").to_owned();
                cuts.entry(variant).or_default().push([step.clone(), converges, wrong(cell)]);
            }
            None => {}
        }
    }
    let mut out = String::new();
    for (variant, rows) in without {
        let whole = whole(cells, &variant);
        let whole = whole.map_or("was not run".to_owned(), |cell| format!("ended in `{}`", cell.verdict));
        out += &format!("\n{variant}: each step left out; the whole runbook {whole}\n");
        out += &table(["step", "needed", "what goes wrong without it"], rows);
    }
    for (variant, rows) in cuts {
        out += &format!("\n{variant}: interrupted after each step, and run again from the start\n");
        out += &table(["after step", "converges", "what goes wrong"], rows);
    }
    out
}

/// The runbook as it is, in this variant.
fn whole<'a>(cells: &'a [(CellResult, Option<CellPlan>)], variant: &str) -> Option<&'a CellResult> {
    let is = |(cell, plan): &&(CellResult, Option<CellPlan>)| {
        format!("{}/{}", cell.scenario, cell.variant) == variant
            && plan.as_ref().is_some_and(|plan| plan.part.is_none())
    };
    cells.iter().find(is).map(|(cell, _)| cell)
}

/// One answer where it healed, the other where it did not.
fn healed(cell: &CellResult, yes: &'static str, no: &'static str) -> &'static str {
    match cell.verdict {
        Verdict::Healed => yes,
        Verdict::NotHealed | Verdict::DataLost => no,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        runbook::lint::{Finding, Level},
        scenario::Role,
    };

    fn ran(step: &str, line: usize, place: &str, ended: &str, ok: bool) -> DrillStep {
        DrillStep {
            step: step.to_owned(),
            file: "ours.md".to_owned(),
            line,
            place: place.to_owned(),
            ended: ended.to_owned(),
            ok,
            seconds: 1.25,
        }
    }

    #[test]
    fn a_block_is_one_line_whatever_its_places() {
        let drill = Drill {
            steps: vec![
                ran("Back up", 3, "workstation", "exit status 0", true),
                ran("Back up", 9, "", "left out", true),
                ran("Lay the CA", 12, "worker1", "exit status 0", true),
                ran("Lay the CA", 12, "worker2-gpu", "exit status 7", false),
            ],
            recovery_seconds: Some(75.4),
            findings: vec![Finding {
                file: "ours.md".to_owned(),
                line: 4,
                level: Level::Warning,
                what: "`a.sql` is not complete".to_owned(),
            }],
        };
        insta::assert_snapshot!(lines(&drill, Paint { colour: false }).join("\n"));
    }

    #[test]
    fn the_tables_answer_which_steps_are_needed_and_where_it_may_stop() {
        let cell = |procedure: &str, part: Option<Part>, verdict, reason: &str| {
            let plan = CellPlan {
                scenario: "s".to_owned(),
                variant: "v".to_owned(),
                procedure: procedure.to_owned(),
                role: Role::Yours,
                expected: None,
                why: None,
                runbooks: Vec::new(),
                stops_at: None,
                part,
            };
            (plan.result(verdict, 1.0, reason), Some(plan))
        };
        let (without, cut) =
            (|step: &str| Some(Part::Without(step.to_owned())), |step: &str| Some(Part::CutAfter(step.to_owned())));
        let long = format!("worker1: {}", "pulled nothing, ".repeat(20));
        let cells = [
            cell("ours", None, Verdict::Healed, "all pulled"),
            cell("ours-without-1", without("Back up"), Verdict::DataLost, "the tag is gone"),
            cell("ours-without-2", without("Lay the CA"), Verdict::NotHealed, &long),
            cell("ours-without-3", without("Look"), Verdict::Healed, "all pulled"),
            cell("ours-without-4", without("Look again"), Verdict::LabBroken, "a node is gone"),
            cell("ours-cut-after-1", cut("Back up"), Verdict::Healed, "all pulled"),
            cell("ours-cut-after-2", cut("Lay the CA"), Verdict::NotHealed, "containerd does not start"),
        ];
        insta::assert_snapshot!(tables(&cells));
        // A question that has its answer is as expected; a runbook that does not converge is not.
        let as_expected: Vec<bool> = cells.iter().map(|(cell, _)| cell.as_expected).collect();
        assert_eq!(as_expected, [true, true, true, true, false, true, false]);
        assert_eq!(tables(&cells[..1]), "");
    }
}
