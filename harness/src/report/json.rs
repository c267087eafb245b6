//! `report.json`: what others may build on. Its form is fixed by `schema`.

use serde::Serialize;

use super::record::Record;
use crate::{
    run::events::HarborFacts,
    runbook::derive::Part,
    scenario::{CellResult, Drill, Role, Verdict},
};

#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: u32,
    passed: bool,
    source: Option<&'a str>,
    kubernetes: Option<&'a str>,
    containerd: Option<&'a str>,
    harbor: Option<&'a HarborFacts>,
    seconds: f64,
    cells: Vec<Cell<'a>>,
}

#[derive(Debug, Serialize)]
struct Cell<'a> {
    scenario: &'a str,
    variant: &'a str,
    procedure: &'a str,
    role: Role,
    verdict: Verdict,
    expected: Option<Verdict>,
    as_expected: bool,
    seconds: f64,
    reason: &'a str,
    /// Of a runbook that someone brings: its steps, the time to recovery, findings.
    #[serde(skip_serializing_if = "Option::is_none")]
    drill: Option<&'a Drill>,
    /// Which step of it was left out, or after which it was interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'a Part>,
}

/// The text of `report.json`.
///
/// # Errors
/// None is known; serde's signature has one.
pub fn json(record: &Record) -> serde_json::Result<String> {
    let cells = record.cells();
    let lab = record.lab.as_ref();
    let report = Report {
        schema: 1,
        passed: record.passed(),
        source: lab.map(|lab| lab.source.as_str()),
        kubernetes: lab.map(|lab| lab.kubernetes.as_str()),
        containerd: lab.map(|lab| lab.containerd.as_str()),
        harbor: lab.map(|lab| &lab.harbor),
        seconds: rounded(record.seconds()),
        cells: cells.iter().map(|one| cell(one, record)).collect(),
    };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

fn cell<'a>(cell: &'a CellResult, record: &'a Record) -> Cell<'a> {
    Cell {
        scenario: &cell.scenario,
        variant: &cell.variant,
        procedure: &cell.procedure,
        role: cell.role,
        verdict: cell.verdict,
        expected: cell.expected,
        as_expected: cell.as_expected,
        seconds: rounded(cell.seconds),
        reason: &cell.reason,
        drill: cell.drill.as_ref(),
        part: record.plan(cell).and_then(|plan| plan.part.as_ref()),
    }
}

/// To milliseconds: more is noise.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
