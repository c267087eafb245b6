//! `report.md`: the run for a pull request or a job's summary on GitHub.

use super::{
    drill,
    record::{NOT_RUN, Record},
    summary::on,
    text::{Paint, exact, human, one_line},
};
use crate::scenario::{CellResult, Verdict};

/// The text of `report.md`.
pub(super) fn markdown(record: &Record) -> String {
    let cells = record.cells();
    let verdict = if record.passed() { "passed" } else { "**not passed**" };
    let mut out = format!("# Drydock: {verdict}\n\n");
    if !cells.is_empty() {
        out += &format!("{}, in {}", record.counts(), human(record.seconds().round() as u64));
    }
    if let Some(lab) = &record.lab {
        out += &format!(". {}.", on(lab));
    }
    out += "\n";
    if let Some(error) = record.error() {
        out += &format!("\n> {}\n", escaped(error));
    }
    // What went wrong comes first.
    let wrong: Vec<&CellResult> = cells.iter().filter(|cell| !cell.as_expected && cell.reason != NOT_RUN).collect();
    if !wrong.is_empty() {
        out += "\n## Not as expected\n\n";
        for cell in wrong {
            out += &format!("- `{}/{}/{}`: {}\n", cell.scenario, cell.variant, cell.procedure, escaped(&cell.reason));
        }
    }
    for group in cells.chunk_by(|a, b| a.scenario == b.scenario) {
        let Some(first) = group.first() else { continue };
        out += &format!(
            "\n## {}\n\n| | variant | procedure | role | verdict | time |\n|---|---|---|---|---|---:|\n",
            first.scenario
        );
        for cell in group {
            out += &row(cell);
        }
    }
    for (cell, drill) in cells.iter().filter_map(|cell| Some((cell, cell.drill.as_ref()?))) {
        if record.plan(cell).is_some_and(|plan| plan.part.is_some()) && cell.as_expected {
            continue;
        }
        out += &format!("\n## {}/{} with {}\n\n```text\n", cell.scenario, cell.variant, cell.procedure);
        for line in drill::lines(drill, Paint { colour: false }) {
            out += &format!("{}\n", line.replace("```", "'''"));
        }
        out += "```\n";
    }
    let with_plans: Vec<_> = cells.iter().map(|cell| (cell.clone(), record.plan(cell).cloned())).collect();
    let tables = drill::tables(&with_plans);
    if !tables.is_empty() {
        out += &format!("\n## Taken apart\n\n```text{}```\n", tables.replace("```", "'''"));
    }
    out
}

fn row(cell: &CellResult) -> String {
    let mark = match cell {
        CellResult { verdict: Verdict::Skipped, .. } => "skipped",
        CellResult { as_expected: true, .. } => "ok",
        CellResult { .. } => "**FAIL**",
    };
    let expected = match cell.expected {
        Some(expected) if !cell.as_expected => format!(", expected {expected}"),
        _ => String::new(),
    };
    format!(
        "| {mark} | {} | {} | {} | {}{expected} | {} |\n",
        cell.variant,
        cell.procedure,
        cell.role,
        cell.verdict,
        exact(cell.seconds)
    )
}

/// One line in which nothing is Markdown or HTML.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in one_line(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '`' | '*' | '_' | '|' | '[' | ']' | '\\' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{bad, good, killed},
        *,
    };

    #[test]
    fn a_good_run_a_bad_one_and_one_that_was_killed() {
        insta::assert_snapshot!("markdown_good", markdown(&Record::of(&good())));
        insta::assert_snapshot!("markdown_bad", markdown(&Record::of(&bad())));
        insta::assert_snapshot!("markdown_killed", markdown(&Record::of(&killed())));
    }
}
