//! What changed from one run to another: verdicts, versions, times.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    record::{Counts, Record},
    text::{human, one_line, path},
};
use crate::scenario::{CellResult, Verdict};

/// A time changed where it is longer or shorter by more than this part of what it was,
const PART: f64 = 0.25;
/// and by more than so many seconds.
const SECONDS: f64 = 5.0;

/// What changed from a run to a later one. Its JSON is of a fixed form, by `schema`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    schema: u32,
    /// Whether something is worse: a cell that was as expected and is not, a new cell that is not, or the run itself broke.
    pub worse: bool,
    was: Side,
    is: Side,
    versions: Vec<Version>,
    cells: Vec<CellChange>,
    times: Vec<TimeChange>,
    /// How many cells ended as before.
    unchanged: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Side {
    run: String,
    began: Option<DateTime<Utc>>,
    passed: bool,
    as_expected: usize,
    cells: usize,
    seconds: f64,
    error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Version {
    of: &'static str,
    was: Option<String>,
    is: Option<String>,
}

/// How a cell changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    Worse,
    Better,
    Otherwise,
    New,
    Gone,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct CellChange {
    cell: String,
    how: How,
    was: Option<CellSide>,
    is: Option<CellSide>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct CellSide {
    verdict: Verdict,
    as_expected: bool,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct TimeChange {
    of: String,
    was: f64,
    is: f64,
}

impl Comparison {
    /// What changed from `was` to `is`.
    pub fn of(was: &Record, is: &Record) -> Self {
        let (before, after) = (was.cells(), is.cells());
        let by_path = |cells: &[CellResult]| -> BTreeMap<String, CellResult> {
            cells.iter().map(|cell| (path(cell), cell.clone())).collect()
        };
        let (earlier, later) = (by_path(&before), by_path(&after));
        let mut cells: Vec<CellChange> = after
            .iter()
            .filter_map(|cell| change(earlier.get(&path(cell)), Some(cell)))
            .chain(
                before
                    .iter()
                    .filter(|cell| !later.contains_key(&path(cell)))
                    .filter_map(|cell| change(Some(cell), None)),
            )
            .collect();
        // What is worse comes first; within, the order of the runs.
        cells.sort_by_key(|change| change.how);
        let worse = cells.iter().any(|change| {
            change.how == How::Worse
                || change.how == How::New && change.is.as_ref().is_some_and(|cell| !cell.as_expected)
        });
        let unchanged = after.len() - cells.iter().filter(|change| change.how != How::Gone).count();
        Self {
            schema: 1,
            worse: worse || was.error().is_none() && is.error().is_some(),
            was: side(was),
            is: side(is),
            versions: versions(was, is),
            cells,
            times: times(was, is, &earlier, &after),
            unchanged,
        }
    }

    /// As a person reads it; `names` are what the two runs are called.
    pub fn text(&self, names: [&str; 2]) -> String {
        let mut out = String::new();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for (name, side) in names.iter().zip([&self.was, &self.is]) {
            let began = side.began.map(|began| began.format("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default();
            let Side { as_expected, cells, seconds, .. } = side;
            let took = human(seconds.round().max(0.0) as u64);
            out += &format!("{name:<width$}  {began}  {as_expected} of {cells} as expected, in {took}\n");
            if let Some(error) = &side.error {
                out += &format!("{:<width$}  {error}\n", "");
            }
        }
        if !self.versions.is_empty() {
            out += "\nversions\n";
        }
        for version in &self.versions {
            let of = |version: &Option<String>| version.clone().unwrap_or_else(|| "not known".to_owned());
            out += &format!("  {:<10}  {} -> {}\n", version.of, of(&version.was), of(&version.is));
        }
        for changes in self.cells.chunk_by(|a, b| a.how == b.how) {
            let Some(first) = changes.first() else { continue };
            out += &format!("\n{}\n", first.how.words());
            for change in changes {
                let verdict = |side: &Option<CellSide>| side.as_ref().map(|side| side.verdict.to_string());
                let verdicts = match (verdict(&change.was), verdict(&change.is)) {
                    (Some(was), Some(is)) => format!("{was} -> {is}"),
                    (was, is) => was.or(is).unwrap_or_default(),
                };
                out += &format!("  {}  {verdicts}\n", change.cell);
                let told = change.is.as_ref().filter(|side| change.how != How::Better && !side.reason.is_empty());
                if let Some(side) = told {
                    out += &format!("      {}\n", side.reason);
                }
            }
        }
        if !self.times.is_empty() {
            out += "\nlonger or shorter by more than a quarter\n";
        }
        let longest = self.times.iter().map(|time| time.of.chars().count()).max().unwrap_or(0);
        for TimeChange { of, was, is } in &self.times {
            let percent = (is / was - 1.0) * 100.0;
            out += &format!("  {of:<longest$}  {was:>7.1} s -> {is:>7.1} s  {percent:+.0} %\n");
        }
        let count = |how: How| self.cells.iter().filter(|change| change.how == how).count();
        out += &format!("\n{} worse, {} better", count(How::Worse), count(How::Better));
        for (how, word) in [(How::Otherwise, "otherwise"), (How::New, "new"), (How::Gone, "gone")] {
            match count(how) {
                0 => {}
                number => out += &format!(", {number} {word}"),
            }
        }
        out + &format!(", {} as before\n", self.unchanged)
    }

    /// As JSON.
    ///
    /// # Errors
    /// None is known; serde's signature has one.
    pub fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl How {
    fn words(self) -> &'static str {
        match self {
            How::Worse => "worse: was as expected, and is not",
            How::Better => "better: is as expected, and was not",
            How::Otherwise => "otherwise",
            How::New => "new: only the second run has it",
            How::Gone => "gone: only the first run has it",
        }
    }
}

fn side(record: &Record) -> Side {
    let Counts { passed, failed, skipped } = record.counts();
    Side {
        run: record.run.clone(),
        began: record.started(),
        passed: record.passed(),
        as_expected: passed,
        cells: passed + failed + skipped,
        seconds: record.seconds(),
        error: record.error().map(one_line),
    }
}

fn versions(was: &Record, is: &Record) -> Vec<Version> {
    let of = |record: &Record| {
        let lab = record.lab.as_ref();
        [
            ("Harbor", lab.map(|lab| format!("{} ({})", lab.harbor.version, lab.harbor.kind))),
            ("Kubernetes", lab.map(|lab| lab.kubernetes.clone())),
            ("containerd", lab.map(|lab| lab.containerd.clone())),
            ("source", lab.map(|lab| lab.source.clone())),
        ]
    };
    let both = of(was).into_iter().zip(of(is));
    both.filter(|(was, is)| was != is).map(|((of, was), (_, is))| Version { of, was, is }).collect()
}

/// How a cell changed, if it did. What is expected of it is each run's own.
fn change(was: Option<&CellResult>, is: Option<&CellResult>) -> Option<CellChange> {
    let how = match (was, is) {
        (Some(was), Some(is)) => match (was.as_expected, is.as_expected) {
            (true, false) => How::Worse,
            (false, true) => How::Better,
            _ if was.verdict != is.verdict || was.stopped_at != is.stopped_at => How::Otherwise,
            _ => return None,
        },
        (None, _) => How::New,
        (_, None) => How::Gone,
    };
    let side = |cell: &CellResult| CellSide {
        verdict: cell.verdict,
        as_expected: cell.as_expected,
        reason: one_line(&cell.reason),
    };
    Some(CellChange { cell: path(was.or(is)?), how, was: was.map(side), is: is.map(side) })
}

/// The run's time and its cells', where they changed; the greatest change first.
fn times(was: &Record, is: &Record, earlier: &BTreeMap<String, CellResult>, after: &[CellResult]) -> Vec<TimeChange> {
    let both_ran =
        |was: &CellResult, is: &CellResult| was.verdict != Verdict::Skipped && is.verdict != Verdict::Skipped;
    let cells = after.iter().filter_map(|cell| {
        let was = earlier.get(&path(cell)).filter(|was| both_ran(was, cell))?;
        Some(TimeChange { of: path(cell), was: was.seconds, is: cell.seconds })
    });
    let changed = |time: &TimeChange| {
        let by = (time.is - time.was).abs();
        time.was > 0.0 && by > SECONDS && by > time.was * PART
    };
    let mut times: Vec<TimeChange> = cells.filter(changed).collect();
    times.sort_by(|a, b| (b.is - b.was).abs().total_cmp(&(a.is - a.was).abs()));
    let run = TimeChange { of: "the run".to_owned(), was: was.seconds(), is: is.seconds() };
    // The runs' times say something only where both had the same to do.
    let same_work = earlier.len() == after.len() && after.iter().all(|cell| earlier.contains_key(&path(cell)));
    if same_work && changed(&run) {
        times.insert(0, run);
    }
    times
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{bad, event, good, killed, plans, result},
        *,
    };
    use crate::run::events::{Event, EventKind, HarborKind};

    fn compared(was: &[Event], is: &[Event]) -> Comparison {
        Comparison::of(&Record::of(was), &Record::of(is))
    }

    #[test]
    fn a_run_is_as_itself() {
        let same = compared(&good(), &good());
        assert!(!same.worse);
        assert!(same.cells.is_empty() && same.versions.is_empty() && same.times.is_empty());
        assert_eq!(same.unchanged, plans().len());
    }

    #[test]
    fn from_a_good_run_to_a_bad_one_and_back() {
        let there = compared(&good(), &bad());
        assert!(there.worse);
        insta::assert_snapshot!("good_to_bad", there.text(["monday", "tuesday"]));
        let back = compared(&bad(), &good());
        assert!(!back.worse);
        insta::assert_snapshot!("bad_to_good", back.text(["monday", "tuesday"]));
    }

    #[test]
    fn versions_times_new_cells_and_cells_that_are_gone_are_told() {
        let mut later = good();
        for event in &mut later {
            match &mut event.kind {
                EventKind::LabReady { lab } => {
                    lab.kubernetes = "v1.33.1".to_owned();
                    lab.harbor.kind = HarborKind::Harbor;
                }
                EventKind::RunStarted { cells, .. } => {
                    cells.remove(5);
                    cells[4].procedure = "documented-again".to_owned();
                }
                EventKind::CellFinished { cell } if cell.procedure == "restart-kubelet" => cell.seconds = 90.0,
                EventKind::CellFinished { cell }
                    if cell.variant == "blobs-deleted" && cell.procedure == "documented" =>
                {
                    cell.procedure = "documented-again".to_owned();
                }
                _ => {}
            }
        }
        later
            .retain(|event| !matches!(&event.kind, EventKind::CellFinished { cell } if cell.procedure == "our-own.md"));
        let compared = compared(&good(), &later);
        assert!(!compared.worse);
        insta::assert_snapshot!("versions_and_times", compared.text(["a", "b"]));
        insta::assert_snapshot!("versions_and_times_json", compared.json().unwrap());
    }

    #[test]
    fn a_new_cell_that_is_not_as_expected_and_a_run_without_an_end_are_worse() {
        let plans = plans();
        let one = |cells: usize, verdict| {
            let started = event(0.0, EventKind::RunStarted { run: "r".to_owned(), cells: plans[..cells].to_vec() });
            let ended = event(9.0, EventKind::RunFinished { passed: true, seconds: 9.0, error: None });
            let results = plans[..cells].iter().map(|plan| result(1.0, plan.result(verdict, 1.0, "seen")));
            [started].into_iter().chain(results).chain([ended]).collect::<Vec<_>>()
        };
        assert!(!compared(&one(1, Verdict::NotHealed), &one(2, Verdict::NotHealed)).worse);
        assert!(compared(&one(1, Verdict::NotHealed), &one(2, Verdict::Healed)).worse);
        let mut cut = good();
        cut.pop();
        assert!(compared(&good(), &cut).worse, "no end");
        assert!(compared(&good(), &killed()).worse, "nothing ran");
    }
}
