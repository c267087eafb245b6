//! `report.html`: the run as one page, that opens from disk, needs no network and no script, and prints.
//!
//! The page's own policy forbids scripts and everything from elsewhere: whatever a log says, it stays text.

mod story;
mod timeline;

use std::{collections::BTreeSet, path::Path};

use askama::Template;
use chrono::{DateTime, Utc};

use self::{
    story::{Scenario, Source},
    timeline::{Share, Timeline},
};
use super::{
    EVENTS, JSON, JUNIT, MARKDOWN, drill,
    evidence::file_name,
    record::{NOT_RUN, Record},
    summary,
    text::{human, one_line, plain},
};
use crate::{
    run::events::HarborKind,
    scenario::{CellResult, Verdict},
};

/// The text of `report.html` for the report folder `dir`. Evidence that is not there is named, and not linked to.
///
/// # Errors
/// None is known; the template's signature has one.
pub(super) fn html(record: &Record, dir: &Path) -> askama::Result<String> {
    Page::of(record, dir).render()
}

/// So many cells that are not as expected are named at the top; the rest is below.
const NAMED: usize = 5;

#[derive(Template)]
#[template(path = "report.html", whitespace = "minimize")]
struct Page {
    title: String,
    state: State,
    sentence: String,
    because: Vec<Because>,
    more: usize,
    cut: Option<String>,
    facts: Vec<Fact>,
    stand_in: bool,
    wrong: Option<Wrong>,
    scenarios: Vec<Scenario>,
    brief: bool,
    shares: Vec<Share>,
    shares_of: String,
    run: Timeline,
    run_open: bool,
    notes: Vec<Note>,
    lab_evidence: Vec<Link>,
    taken_apart: String,
    files: Vec<Link>,
}

/// How the whole, or a part of it, went. Never told by its colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Bad,
    Open,
}

impl State {
    fn of(cell: &CellResult) -> Self {
        match cell {
            CellResult { verdict: Verdict::Skipped, .. } => State::Open,
            CellResult { as_expected: true, .. } => State::Good,
            CellResult { .. } => State::Bad,
        }
    }

    /// Of several: bad if one is, else open if one is.
    fn worst(states: impl IntoIterator<Item = Self>) -> Self {
        states.into_iter().fold(State::Good, |worst, state| match (worst, state) {
            (State::Bad, _) | (_, State::Bad) => State::Bad,
            (State::Open, _) | (_, State::Open) => State::Open,
            _ => State::Good,
        })
    }

    fn class(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Bad => "bad",
            State::Open => "open",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            State::Good => "✓",
            State::Bad => "✗",
            State::Open => "–",
        }
    }

    fn words(self) -> &'static str {
        match self {
            State::Good => "as expected",
            State::Bad => "not as expected",
            State::Open => "not run",
        }
    }
}

/// A cell that is not as expected, and why.
struct Because {
    href: String,
    path: String,
    what: String,
}

struct Fact {
    name: &'static str,
    value: String,
}

/// The first thing that went wrong.
struct Wrong {
    when: String,
    what: String,
    href: Option<String>,
    reasons: Vec<String>,
    expected: Option<String>,
    output: Option<String>,
    evidence: Vec<Link>,
    again: Option<String>,
}

struct Note {
    when: String,
    text: String,
}

/// Something in the report folder; without an address where it is not there.
#[derive(Debug, Clone)]
struct Link {
    name: String,
    href: Option<String>,
}

impl Link {
    /// A link to `path` in the report folder `dir`. A record may come from anywhere: only a plain path that leads to a file
    /// below the folder is linked to.
    fn to(dir: &Path, path: &str, name: &str) -> Self {
        let stays = path.split('/').all(|part| !part.is_empty() && part == file_name(part));
        let href = (stays && dir.join(path).is_file()).then(|| path.to_owned());
        Self { name: plain(name), href }
    }
}

impl Page {
    fn of(record: &Record, dir: &Path) -> Self {
        let cells = record.cells();
        let mut source = Source::new(record, dir, cells);
        let scenarios = story::scenarios(&mut source);
        let state = match (record.passed(), record.counts().failed) {
            (true, _) => State::Good,
            (false, 0) if record.error().is_none() => State::Open,
            (false, _) => State::Bad,
        };
        let unexpected: Vec<&CellResult> =
            source.cells.iter().filter(|cell| !cell.as_expected && cell.reason != NOT_RUN).collect();
        let because = unexpected.iter().take(NAMED).map(|cell| Because {
            href: source.href(cell),
            path: cell_path(cell),
            what: because(cell),
        });
        let with_plans: Vec<_> = source.cells.iter().map(|cell| (cell.clone(), record.plan(cell).cloned())).collect();
        let (shares, shares_of) = timeline::shares(&source);
        let run = timeline::of_run(&source);
        Self {
            title: title(record),
            state,
            sentence: sentence(record),
            because: because.collect(),
            more: unexpected.len().saturating_sub(NAMED),
            cut: broke(record),
            facts: facts(record),
            stand_in: record.lab.as_ref().is_some_and(|lab| lab.harbor.kind == HarborKind::StandIn),
            wrong: wrong(record, &source),
            run_open: run.rows.len() <= MOST_ROWS_OPEN,
            brief: source.brief,
            scenarios,
            shares,
            shares_of,
            run,
            notes: record
                .notes()
                .iter()
                .map(|(at, text)| Note { when: since(record, *at), text: one_line(text) })
                .collect(),
            lab_evidence: source.of_labs(),
            taken_apart: drill::tables(&with_plans).trim().to_owned(),
            files: [
                (EVENTS, "every event"),
                (JSON, "the result for programs"),
                (MARKDOWN, "the result for a pull request"),
                (JUNIT, "the result for CI"),
            ]
            .iter()
            .map(|(file, what)| Link::to(dir, file, &format!("{file}, {what}")))
            .filter(|link| link.href.is_some())
            .collect(),
        }
    }
}

/// A time-line with more rows than these is a click away.
const MOST_ROWS_OPEN: usize = 40;

fn title(record: &Record) -> String {
    let word = match record.passed() {
        true => "passed",
        false if !record.ended() => "without an end",
        false => "not passed",
    };
    format!("Drydock: {word}{}", if record.run.is_empty() { String::new() } else { format!(" ({})", record.run) })
}

/// The verdict of the whole in words.
fn sentence(record: &Record) -> String {
    let counts = record.counts();
    let total = counts.passed + counts.failed + counts.skipped;
    let is = |count: usize| if count == 1 { "is" } else { "are" };
    let skipped = match counts.skipped {
        0 => String::new(),
        count => format!("{count} did not run"),
    };
    match (counts.failed, counts.skipped) {
        _ if total == 0 => "No cell was planned".to_owned(),
        (0, 0) if record.passed() => format!("{total} of {total} as expected"),
        (0, 0) => format!("{total} of {total} as expected, and yet the run did not pass"),
        (0, _) => format!("{} of {total} as expected, {skipped}", counts.passed),
        (failed, 0) => format!("{failed} of {total} {} not as expected", is(failed)),
        (failed, _) => format!("{failed} of {total} {} not as expected, {skipped}", is(failed)),
    }
}

/// What broke the run as a whole, unless it is what a cell says anyway.
fn broke(record: &Record) -> Option<String> {
    let error = one_line(record.error()?);
    let told = record.cells().iter().any(|cell| !cell.as_expected && one_line(&cell.reason) == error);
    (!told).then_some(error)
}

/// Why a cell is not as expected.
fn because(cell: &CellResult) -> String {
    let reason = one_line(&cell.reason);
    match cell.expected {
        Some(expected) if expected != cell.verdict => {
            format!("{}, expected {expected}, because {reason}", cell.verdict)
        }
        _ => format!("{}, because {reason}", cell.verdict),
    }
}

fn facts(record: &Record) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |name, value| facts.push(Fact { name, value });
    match &record.lab {
        Some(lab) => {
            let harbor = match lab.harbor.kind {
                HarborKind::Harbor => lab.harbor.version.clone(),
                HarborKind::StandIn => format!("{}, a stand-in, not Harbor itself", lab.harbor.version),
            };
            add("Harbor", harbor);
            add("Kubernetes", lab.kubernetes.clone());
            add("containerd", lab.containerd.clone());
            add("Source", lab.source.clone());
        }
        None => add("Lab", "none was ready".to_owned()),
    }
    if let Some(started) = record.started() {
        add("Began", started.format("%Y-%m-%d %H:%M:%S UTC").to_string());
    }
    add("Took", human(record.seconds().round().max(0.0) as u64));
    if !record.run.is_empty() {
        add("Run", record.run.clone());
    }
    facts
}

/// What went wrong first: a step that failed, or a cell that was not as expected, whichever came before the other.
fn wrong(record: &Record, source: &Source<'_>) -> Option<Wrong> {
    if record.passed() {
        return None;
    }
    let cell = record.first_unexpected();
    let step = record.steps.first_failed();
    let failed_at = step.as_ref().and_then(|(_, step)| step.ended());
    match (cell, step) {
        (Some((cell, at)), step) if step.is_none() || failed_at.is_some_and(|failed| at < failed) => Some(Wrong {
            when: since(record, at),
            what: cell_path(cell),
            href: Some(source.href(cell)),
            reasons: story::sentences(&cell.reason),
            expected: Some(match cell.expected.filter(|expected| *expected != cell.verdict) {
                Some(expected) => format!("The verdict is “{}”, and “{expected}” was expected.", cell.verdict),
                None => format!("The verdict is “{}”.", cell.verdict),
            }),
            output: source.failed_output(cell),
            evidence: source.of_cell(cell),
            again: Some(summary::again(cell)),
        }),
        (cell, Some((id, step))) => {
            let seen = step.waits.last().map(|wait| match &wait.seen {
                Some(seen) => format!("It last waited for {}, and saw: {}", one_line(&wait.what), one_line(seen)),
                None => format!("It was last at: {}", one_line(&wait.what)),
            });
            Some(Wrong {
                when: failed_at.map(|at| since(record, at)).unwrap_or_default(),
                what: record.steps.path(id).into_iter().map(one_line).collect::<Vec<_>>().join(" › "),
                href: cell.map(|(cell, _)| source.href(cell)),
                reasons: story::sentences(step.error.as_deref().unwrap_or_default()),
                expected: seen,
                output: cell.and_then(|(cell, _)| source.failed_output(cell)),
                evidence: cell.map(|(cell, _)| source.of_cell(cell)).unwrap_or_default(),
                again: cell.map(|(cell, _)| summary::again(cell)),
            })
        }
        (_, None) => None,
    }
}

/// `scenario/variant with procedure`.
fn cell_path(cell: &CellResult) -> String {
    one_line(&format!("{}/{} with {}", cell.scenario, cell.variant, cell.procedure))
}

/// `+5 min 12 s` after the run's beginning.
fn since(record: &Record, at: DateTime<Utc>) -> String {
    let seconds = record.started().map_or(0, |started| (at - started).num_seconds().max(0));
    format!("+{}", human(seconds.unsigned_abs()))
}

/// Names for parts of the page, each once.
#[derive(Debug, Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn unique(&mut self, wanted: &str) -> String {
        let wanted = file_name(wanted);
        let mut name = wanted.clone();
        let mut number = 1;
        while !self.0.insert(name.clone()) {
            number += 1;
            name = format!("{wanted}-{number}");
        }
        name
    }
}

#[cfg(test)]
mod browser;
#[cfg(test)]
mod tests;
