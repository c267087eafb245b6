//! What a run's events add up to.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use super::{steps::Steps, text::path};
use crate::{
    run::events::{Event, EventKind, LabFacts},
    scenario::{CellPlan, CellResult, Verdict},
};

/// Why a cell that was planned has no verdict, where nothing else was said.
pub(super) const NOT_RUN: &str = "the run ended before it";

/// The fold of a run's events: all that a report says.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The run's id.
    pub run: String,
    /// What is known of the lab; none before it was ready.
    pub lab: Option<LabFacts>,
    planned: Vec<CellPlan>,
    /// Where in `planned` a cell is: a run may have many.
    planned_at: HashMap<String, usize>,
    /// Each with the time at which it was told, in that order.
    results: Vec<(CellResult, DateTime<Utc>)>,
    /// Where in `results` a cell is.
    results_at: HashMap<String, usize>,
    evidence: BTreeSet<String>,
    notes: Vec<(DateTime<Utc>, String)>,
    pub(super) steps: Steps,
    first: Option<DateTime<Utc>>,
    last: Option<DateTime<Utc>>,
    end: Option<End>,
}

#[derive(Debug, Clone)]
struct End {
    passed: bool,
    seconds: f64,
    error: Option<String>,
}

/// How many cells went how. Every cell is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// As expected.
    pub passed: usize,
    /// Not as expected, or the lab broke.
    pub failed: usize,
    /// Planned and not run.
    pub skipped: usize,
}

/// `24 passed, 1 failed`, and `, 2 skipped` where some are.
impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

impl Record {
    /// The fold of `events`.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut record = Self::default();
        for event in events {
            record.apply(event);
        }
        record
    }

    /// Adds what `event` says.
    pub fn apply(&mut self, event: &Event) {
        self.first.get_or_insert(event.at);
        self.last = Some(event.at);
        self.steps.apply(event);
        match &event.kind {
            EventKind::RunStarted { run, cells } => {
                self.run.clone_from(run);
                self.planned.clone_from(cells);
                self.planned_at = cells.iter().enumerate().map(|(at, plan)| (plan.path(), at)).collect();
            }
            EventKind::LabReady { lab } => self.lab = Some(lab.clone()),
            EventKind::Evidence { path, .. } => {
                // What is looked at again is written in the place of what was seen before.
                self.evidence.insert(path.clone());
            }
            EventKind::CellFinished { cell } => {
                if let Some(earlier) = self.results_at.insert(path(cell), self.results.len()) {
                    self.results.remove(earlier);
                    self.results_at = self.results.iter().enumerate().map(|(at, (cell, _))| (path(cell), at)).collect();
                    self.results_at.insert(path(cell), self.results.len());
                }
                self.results.push((cell.clone(), event.at));
            }
            EventKind::RunFinished { passed, seconds, error } => {
                self.end = Some(End { passed: *passed, seconds: *seconds, error: error.clone() });
            }
            EventKind::Note { text } => self.notes.push((event.at, text.clone())),
            EventKind::StepStarted { .. }
            | EventKind::StepWaiting { .. }
            | EventKind::StepProgress { .. }
            | EventKind::StepFinished { .. }
            | EventKind::Told { .. } => {}
        }
    }

    /// When the run began.
    pub fn started(&self) -> Option<DateTime<Utc>> {
        self.first
    }

    /// When something was last heard of the run.
    pub fn last(&self) -> Option<DateTime<Utc>> {
        self.last
    }

    /// Whether the run came to its end, however that was.
    pub fn ended(&self) -> bool {
        self.end.is_some()
    }

    /// The lines that the run said, and when.
    pub fn notes(&self) -> &[(DateTime<Utc>, String)] {
        &self.notes
    }

    /// The first cell that was not as expected, of those that ran, in the order in which they ended; and when.
    pub fn first_unexpected(&self) -> Option<(&CellResult, DateTime<Utc>)> {
        let unexpected =
            |(cell, _): &&(CellResult, DateTime<Utc>)| !cell.as_expected && cell.verdict != Verdict::Skipped;
        self.results.iter().find(unexpected).map(|(cell, at)| (cell, *at))
    }

    /// How long the run took, in seconds; where it has not said so, from its first event to its last.
    pub fn seconds(&self) -> f64 {
        match (&self.end, self.first, self.last) {
            (Some(end), _, _) => end.seconds,
            (None, Some(first), Some(last)) => (last - first).as_seconds_f64(),
            (None, _, _) => 0.0,
        }
    }

    /// What broke the run as a whole, a missing end included.
    pub fn error(&self) -> Option<&str> {
        match &self.end {
            Some(end) => end.error.as_deref(),
            None => Some("the run stopped without an end: it was killed, or is still going on"),
        }
    }

    /// Every planned cell in the plan's order, those that did not run as skipped; then cells that nobody planned.
    pub fn cells(&self) -> Vec<CellResult> {
        let planned = self.planned.iter().map(|plan| {
            let result = self.results_at.get(&plan.path()).and_then(|at| self.results.get(*at));
            result.map(|(cell, _)| cell.clone()).unwrap_or_else(|| plan.result(Verdict::Skipped, 0.0, NOT_RUN))
        });
        let unplanned = self.results.iter().map(|(cell, _)| cell).filter(|cell| self.plan(cell).is_none());
        planned.chain(unplanned.cloned()).collect()
    }

    /// What was planned for a cell.
    pub fn plan(&self, cell: &CellResult) -> Option<&CellPlan> {
        self.planned_at.get(&path(cell)).and_then(|at| self.planned.get(*at))
    }

    /// How many cells went how.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for cell in self.cells() {
            match cell {
                CellResult { verdict: Verdict::Skipped, .. } => counts.skipped += 1,
                CellResult { as_expected: true, .. } => counts.passed += 1,
                CellResult { .. } => counts.failed += 1,
            }
        }
        counts
    }

    /// Whether the run ended, said that it passed, and nothing in it says otherwise.
    pub fn passed(&self) -> bool {
        let counts = self.counts();
        self.end.as_ref().is_some_and(|end| end.passed && end.error.is_none())
            && counts.failed == 0
            && counts.skipped == 0
    }

    /// All evidence, as paths relative to the report folder, each once.
    pub fn all_evidence(&self) -> impl Iterator<Item = &str> {
        self.evidence.iter().map(String::as_str)
    }

    /// The evidence of one variant, as paths relative to the report folder.
    pub fn evidence<'a>(&'a self, cell: &CellResult) -> impl Iterator<Item = &'a str> {
        let folder = format!("evidence/{}/{}/", cell.scenario, cell.variant);
        self.evidence.iter().map(String::as_str).filter(move |path| path.starts_with(&folder))
    }
}
