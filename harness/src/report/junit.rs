//! `junit.xml`: a suite per variant, a test case per cell.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestSuite};

use super::{
    record::Record,
    text::{one_line, verdict},
};
use crate::scenario::{CellResult, Verdict};

/// The text of `junit.xml`.
///
/// A cell that is not as expected is a failure, a broken lab an error. Readers of JUnit take a skipped case for a good one,
/// so a run that did not come to its end has one more suite, `run`, with an error.
///
/// # Errors
/// The text could not be put together.
pub fn junit(record: &Record) -> Result<String, SerializeError> {
    let mut report = Report::new("drydock");
    report.set_time(duration(record.seconds()));
    let cells = record.cells();
    let same_variant = |a: &CellResult, b: &CellResult| a.scenario == b.scenario && a.variant == b.variant;
    for (index, first) in cells.iter().enumerate() {
        if cells[..index].iter().any(|earlier| same_variant(earlier, first)) {
            continue;
        }
        let name = format!("{}/{}", first.scenario, first.variant);
        let mut suite = TestSuite::new(name.as_str());
        add_facts(&mut suite, record);
        let mut seconds = 0.0;
        for cell in cells.iter().filter(|cell| same_variant(cell, first)) {
            let mut case = TestCase::new(xml(&cell.procedure), status(cell));
            case.set_classname(name.as_str()).set_time(duration(cell.seconds));
            suite.add_test_case(case);
            seconds += cell.seconds;
        }
        suite.set_time(duration(seconds));
        report.add_test_suite(suite);
    }
    let skipped = record.counts().skipped;
    let broken = match record.error() {
        Some(error) => Some(one_line(error)),
        None if skipped > 0 => Some(format!("cells planned and not run: {skipped}")),
        None => None,
    };
    if let Some(message) = broken {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_type("run").set_message(xml(&message));
        let mut suite = TestSuite::new("run");
        add_facts(&mut suite, record);
        let mut case = TestCase::new("comes to its end", status);
        case.set_classname("run").set_time(Duration::ZERO);
        suite.set_time(Duration::ZERO).add_test_case(case);
        report.add_test_suite(suite);
    }
    // The schema that Jenkins checks with has no such number here, and one for every suite.
    Ok(report.to_string()?.replacen(&format!(" skipped=\"{skipped}\""), "", 1))
}

fn status(cell: &CellResult) -> TestCaseStatus {
    if cell.verdict == Verdict::Skipped {
        let mut status = TestCaseStatus::skipped();
        status.set_message(xml(&one_line(&cell.reason)));
        return status;
    }
    if cell.as_expected {
        return TestCaseStatus::success();
    }
    let kind = match cell.verdict {
        Verdict::LabBroken => NonSuccessKind::Error,
        _ => NonSuccessKind::Failure,
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(cell.verdict.to_string()).set_message(xml(&verdict(cell))).set_description(xml(&cell.reason));
    status
}

fn add_facts(suite: &mut TestSuite, record: &Record) {
    if let Some(started) = record.started() {
        suite.set_timestamp(started);
    }
    if let Some(lab) = &record.lab {
        suite.add_properties([
            Property::new("source", &lab.source),
            Property::new("kubernetes", &lab.kubernetes),
            Property::new("containerd", &lab.containerd),
            Property::new("harbor.kind", lab.harbor.kind.to_string()),
            Property::new("harbor.version", &lab.harbor.version),
        ]);
    }
}

/// `text` without the two characters that XML forbids and quick-junit lets through.
fn xml(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "")
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
