//! `cargo xtask explain`: what breaks and why, how one meets it, what does not help and what does. Nothing is created.

use clap::Args;
use harness::{
    report::text::wrap,
    runbook::library::Library,
    scenario::{CellPlan, Role, ScenarioSpec, See, VariantSpec, Verdict},
    selection,
};
use serde::Serialize;

use crate::{
    e2e,
    exit::{self, Failure},
    plan::{Format, json},
};

#[derive(Args)]
pub struct ExplainArgs {
    /// SCENARIO or SCENARIO/VARIANT
    pub what: String,
    /// How it is told
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Columns that the text is broken at.
const WIDTH: usize = 80;
/// By how many columns an item's further lines are indented more than its first.
const HANG: usize = 4;

#[derive(Serialize)]
struct Explained<'a> {
    name: String,
    summary: &'a str,
    /// What breaks, and why.
    about: Vec<&'a str>,
    see: &'a [See],
    variants: Vec<ExplainedVariant<'a>>,
    procedures: Vec<ExplainedProcedure<'a>>,
}

#[derive(Serialize)]
struct ExplainedVariant<'a> {
    name: &'a str,
    summary: &'a str,
}

#[derive(Serialize)]
struct ExplainedProcedure<'a> {
    name: &'a str,
    role: Role,
    /// How it is known to end, in each variant.
    outcomes: Vec<Outcome<'a>>,
    runbooks: Vec<ExplainedRunbook<'a>>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    variant: &'a str,
    verdict: Verdict,
    why: Option<&'a str>,
    stops_at: Option<&'a str>,
}

#[derive(Serialize)]
struct ExplainedRunbook<'a> {
    file: &'a str,
    title: &'a str,
    steps: Vec<&'a str>,
}

pub fn explain(args: &ExplainArgs) -> Result<u8, Failure> {
    let (scenarios, library) = e2e::scenarios()?;
    let specs: Vec<&ScenarioSpec> = scenarios.iter().map(|scenario| scenario.spec()).collect();
    let (spec, variant) = find(&specs, &args.what)?;
    let explained = explained(spec, variant, &library)?;
    match args.format {
        Format::Json => println!("{}", json(&explained)?),
        Format::Text => print!("{}", text(&explained, variant.is_some())),
    }
    Ok(exit::AS_EXPECTED)
}

/// The scenario, and the variant where one is named.
pub fn find<'a>(
    specs: &[&'a ScenarioSpec],
    what: &str,
) -> Result<(&'a ScenarioSpec, Option<&'a VariantSpec>), Failure> {
    if what.matches('/').count() > 1 {
        let error = anyhow::anyhow!("`{what}` names a procedure: write SCENARIO or SCENARIO/VARIANT");
        return Err(Failure::input(error));
    }
    let known: Vec<CellPlan> = specs.iter().flat_map(|spec| spec.cells()).collect();
    let cells = selection::select(&known, &[what], false).map_err(Failure::input)?;
    let named = cells.first().and_then(|cell| {
        let spec = specs.iter().find(|spec| spec.name == cell.scenario)?;
        let variant = spec.variants.iter().find(|variant| what.contains('/') && variant.name == cell.variant);
        Some((*spec, variant))
    });
    named.ok_or_else(|| Failure::input(anyhow::anyhow!("`{what}` names nothing")))
}

fn explained<'a>(
    spec: &'a ScenarioSpec,
    variant: Option<&'a VariantSpec>,
    library: &'a Library,
) -> Result<Explained<'a>, Failure> {
    let variants: Vec<&VariantSpec> = spec.variants.iter().filter(|one| variant.is_none_or(|it| it == *one)).collect();
    let mut procedures: Vec<ExplainedProcedure<'_>> = Vec::new();
    for cell in variants.iter().flat_map(|variant| &variant.cells) {
        let outcome = cell.expected.map(|verdict| Outcome {
            variant: &cell.variant,
            verdict,
            why: cell.why.as_deref(),
            stops_at: cell.stops_at.as_deref(),
        });
        // Under one name a procedure may be made of other runbooks in another variant.
        let files = library.all(&cell.runbooks).map_err(Failure::input)?;
        let same = |known: &&mut ExplainedProcedure<'_>| {
            let same_files =
                known.runbooks.iter().map(|runbook| runbook.file).eq(files.iter().map(|it| it.file.as_str()));
            known.name == cell.procedure && known.role == cell.role && same_files
        };
        match procedures.iter_mut().find(same) {
            Some(known) => known.outcomes.extend(outcome),
            None => procedures.push(ExplainedProcedure {
                name: &cell.procedure,
                role: cell.role,
                outcomes: outcome.into_iter().collect(),
                runbooks: files
                    .into_iter()
                    .map(|runbook| ExplainedRunbook {
                        file: &runbook.file,
                        title: &runbook.title,
                        steps: runbook.steps.iter().map(|step| step.title.as_str()).collect(),
                    })
                    .collect(),
            }),
        }
    }
    Ok(Explained {
        name: variant.map_or_else(|| spec.name.clone(), |variant| format!("{}/{}", spec.name, variant.name)),
        summary: variant.map_or(&spec.summary, |variant| &variant.summary),
        about: std::iter::once(spec.about.as_str()).chain(variant.map(|variant| variant.about.as_str())).collect(),
        see: variant.map_or(&spec.see, |variant| &variant.see),
        variants: variants.iter().map(|it| ExplainedVariant { name: &it.name, summary: &it.summary }).collect(),
        procedures,
    })
}

fn text(explained: &Explained<'_>, one_variant: bool) -> String {
    let mut out = String::new();
    paragraph(&mut out, 0, &format!("{}: {}", explained.name, explained.summary));
    out += "\nWhat breaks, and why\n";
    for (index, about) in explained.about.iter().enumerate() {
        out += if index > 0 { "\n" } else { "" };
        paragraph(&mut out, 2, about);
    }
    out += "\nHow you meet it\n";
    for see in explained.see {
        // A command is one line, to be pasted whole.
        out += &format!("  $ {}\n", see.run);
        paragraph(&mut out, 6, &see.shows);
    }
    if !one_variant {
        out += "\nWays in\n";
        for variant in &explained.variants {
            item(&mut out, 2, &format!("{}: {}", variant.name, variant.summary));
        }
    }
    let (controls, repairs): (Vec<_>, Vec<_>) = explained.procedures.iter().partition(|it| it.role == Role::Control);
    for (heading, procedures) in [("Controls: what does not help", controls), ("Repairs", repairs)] {
        if !procedures.is_empty() {
            out += &format!("\n{heading}\n");
        }
        for procedure in procedures {
            procedure_text(&mut out, procedure, one_variant);
        }
    }
    if !one_variant && let Some(variant) = explained.variants.first() {
        out += &format!("\nWhy each ends so: cargo xtask explain {}/{}\n", explained.name, variant.name);
    }
    out
}

fn procedure_text(out: &mut String, procedure: &ExplainedProcedure<'_>, one_variant: bool) {
    let role = match procedure.role {
        Role::Control => String::new(),
        role if role.to_string() == procedure.name => String::new(),
        role => format!(" ({role})"),
    };
    let outcome = if one_variant {
        let told = procedure.outcomes.iter().map(|outcome| {
            let stops = outcome.stops_at.map(|at| format!(", stops at `{at}`")).unwrap_or_default();
            let why = outcome.why.map(|why| format!(": {why}")).unwrap_or_default();
            format!("{}{stops}{why}", outcome.verdict)
        });
        told.collect::<Vec<_>>().join("; ")
    } else {
        let mut verdicts: Vec<(Verdict, Vec<&str>)> = Vec::new();
        for outcome in &procedure.outcomes {
            match verdicts.iter_mut().find(|(verdict, _)| *verdict == outcome.verdict) {
                Some((_, variants)) => variants.push(outcome.variant),
                None => verdicts.push((outcome.verdict, vec![outcome.variant])),
            }
        }
        let told = verdicts.iter().map(|(verdict, variants)| format!("{verdict} ({})", variants.join(", ")));
        told.collect::<Vec<_>>().join("; ")
    };
    item(out, 2, &format!("{}{role}: {outcome}", procedure.name));
    if procedure.role == Role::Control {
        return;
    }
    for runbook in &procedure.runbooks {
        *out += &format!("      {}\n", runbook.file);
        for step in &runbook.steps {
            item(out, 8, &format!("- {step}"));
        }
    }
}

/// A text broken into lines that are indented by so many columns.
fn paragraph(out: &mut String, indent: usize, text: &str) {
    for line in wrap(text, WIDTH - indent) {
        *out += &format!("{}{line}\n", " ".repeat(indent));
    }
}

/// An item of a list: all of its lines but the first are indented further.
fn item(out: &mut String, indent: usize, text: &str) {
    for (index, line) in wrap(text, WIDTH - indent - HANG).iter().enumerate() {
        let hang = if index > 0 { HANG } else { 0 };
        *out += &format!("{}{line}\n", " ".repeat(indent + hang));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn told(what: &str) -> String {
        let (scenarios, library) = e2e::scenarios().unwrap();
        let specs: Vec<&ScenarioSpec> = scenarios.iter().map(|scenario| scenario.spec()).collect();
        match find(&specs, what) {
            Ok((spec, variant)) => text(&explained(spec, variant, &library).unwrap(), variant.is_some()),
            Err(failure) => format!("{}: {failure}\n", failure.code()),
        }
    }

    #[test]
    fn a_scenario_is_told_from_its_cause_to_its_repairs() {
        insta::assert_snapshot!(told("pv-drift"));
    }

    #[test]
    fn a_variant_is_told_with_the_reason_of_every_outcome() {
        insta::assert_snapshot!(told("affinity-conflict/rollout"));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is_like_it() {
        let said = ["pv-drfit", "pv-drift/blob-lost", "pv-drift/blobs-lost/no-op", "", "pv-drift/"].map(told);
        insta::assert_snapshot!(said.concat());
    }

    #[test]
    fn every_failure_is_told_within_80_columns_but_for_commands() {
        let (scenarios, library) = e2e::scenarios().unwrap();
        for spec in scenarios.iter().map(|scenario| scenario.spec()) {
            for variant in std::iter::once(None).chain(spec.variants.iter().map(Some)) {
                let explained = explained(spec, variant, &library).unwrap();
                json(&explained).unwrap();
                let text = text(&explained, variant.is_some());
                let long = text.lines().find(|line| line.chars().count() > 80 && !line.starts_with("  $ "));
                assert_eq!(long, None, "{}", explained.name);
            }
        }
    }

    #[test]
    fn every_command_to_look_with_is_one_of_kubectl_and_leaves_nothing_to_fill_in() {
        let (scenarios, _) = e2e::scenarios().unwrap();
        let specs = scenarios.iter().map(|scenario| scenario.spec());
        for see in specs.flat_map(|spec| spec.variants.iter().flat_map(|variant| &variant.see).chain(&spec.see)) {
            assert!(see.run.starts_with("kubectl ") && !see.run.contains(['<', '…']), "{}", see.run);
            let parsed = Command::new("bash").args(["-n", "-c", &see.run]).output().unwrap();
            assert!(parsed.status.success(), "{}", see.run);
        }
    }
}
