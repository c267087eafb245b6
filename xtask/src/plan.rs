//! `cargo xtask list` and `plan`: what there is, and what a run would do. Nothing is created.

use clap::{Args, ValueEnum};
use harness::{lab::preflight, runbook::library::Library, scenario::CellPlan};
use serde::Serialize;

use crate::{
    e2e::{self, Choice},
    exit::{self, Failure},
};

/// How something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a person
    Text,
    /// For a program
    Json,
}

#[derive(Args)]
pub struct ListArgs {
    /// How it is told
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Args)]
pub struct PlanArgs {
    #[command(flatten)]
    choice: Choice,
    /// How it is told
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct ListedScenario<'a> {
    name: &'a str,
    summary: &'a str,
    variants: Vec<ListedVariant<'a>>,
}

#[derive(Serialize)]
struct ListedVariant<'a> {
    name: &'a str,
    summary: &'a str,
    procedures: Vec<&'a CellPlan>,
}

/// Scenarios, their variants, and the procedures that are tried on each.
pub fn list(args: &ListArgs) -> Result<u8, Failure> {
    let (scenarios, _) = e2e::scenarios()?;
    let listed: Vec<ListedScenario<'_>> = scenarios
        .iter()
        .map(|scenario| {
            let spec = scenario.spec();
            let variants = spec.variants.iter().map(|variant| ListedVariant {
                name: &variant.name,
                summary: &variant.summary,
                procedures: variant.cells.iter().collect(),
            });
            ListedScenario { name: &spec.name, summary: &spec.summary, variants: variants.collect() }
        })
        .collect();
    match args.format {
        Format::Json => println!("{}", json(&listed)?),
        Format::Text => print!("{}", list_text(&listed)),
    }
    Ok(exit::AS_EXPECTED)
}

fn list_text(scenarios: &[ListedScenario<'_>]) -> String {
    let mut text = String::new();
    for scenario in scenarios {
        text += &format!("{}: {}\n", scenario.name, scenario.summary);
        for variant in &scenario.variants {
            let procedures: Vec<&str> = variant.procedures.iter().map(|cell| cell.procedure.as_str()).collect();
            text += &format!("  {}: {}\n    {}\n", variant.name, variant.summary, procedures.join(", "));
        }
    }
    text
}

#[derive(Serialize)]
struct Plan<'a> {
    labs: usize,
    cells: &'a [CellPlan],
}

/// The cells of a run, with what is expected of each and the runbooks that make it up.
pub fn plan(args: &PlanArgs) -> Result<u8, Failure> {
    let (scenarios, mut library) = e2e::scenarios()?;
    let cells = args.choice.cells(&scenarios, &mut library)?;
    let labs = preflight::labs_that_fit(false).min(e2e::groups(&cells).len());
    match args.format {
        Format::Json => println!("{}", json(&Plan { labs, cells: &cells })?),
        Format::Text => print!("{}{}", plan_text(&cells, &library)?, summary(&cells, labs)),
    }
    Ok(exit::AS_EXPECTED)
}

fn plan_text(cells: &[CellPlan], library: &Library) -> Result<String, Failure> {
    let mut text = String::new();
    for variant in cells.chunk_by(|a, b| (&a.scenario, &a.variant) == (&b.scenario, &b.variant)) {
        if let Some(first) = variant.first() {
            text += &format!("{}/{}\n", first.scenario, first.variant);
        }
        for cell in variant {
            let expected = cell.expected.map_or_else(|| "no verdict".to_owned(), |expected| expected.to_string());
            text += &format!("  {} ({}), expected: {expected}\n", cell.procedure, cell.role);
            for runbook in library.all(&cell.runbooks).map_err(Failure::input)? {
                let steps: Vec<&str> = runbook.steps.iter().map(|step| step.title.as_str()).collect();
                text += &format!(
                    "    {}: {}\n",
                    runbook.file,
                    if steps.is_empty() { "nothing".to_owned() } else { steps.join("; ") }
                );
            }
        }
    }
    Ok(text)
}

fn summary(cells: &[CellPlan], labs: usize) -> String {
    format!("\n{} cells, {labs} lab(s) side by side on this machine\n", cells.len())
}

/// A value for a program.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(Failure::lab)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_tells_each_cell_with_its_runbooks() {
        let (scenarios, mut library) = e2e::scenarios().unwrap();
        let mut choice = Choice::default();
        choice.selection.push("affinity-conflict/then-untrusted-ca".to_owned());
        let cells = choice.cells(&scenarios, &mut library).unwrap();
        insta::assert_snapshot!(plan_text(&cells, &library).unwrap() + &summary(&cells, 1));
    }

    #[test]
    fn nothing_that_is_listed_lacks_its_one_line() {
        let (scenarios, _) = e2e::scenarios().unwrap();
        for spec in scenarios.iter().map(|scenario| scenario.spec()) {
            assert!(!spec.summary.is_empty() && !spec.summary.contains('\n'));
            assert!(spec.variants.iter().all(|variant| !variant.summary.is_empty() && !variant.summary.contains('\n')));
        }
    }
}
