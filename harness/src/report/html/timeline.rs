//! Time-lines: where the time of a run and of each variant went, and what waited on what. Every number that a bar draws is
//! also in the table around it.

use chrono::{DateTime, Utc};

use super::{
    super::{
        record::Record,
        steps::Taken,
        text::{human, one_line},
    },
    since,
    story::{Source, took, variant},
};
use crate::{
    run::{chapter::Chapter, events::StepId},
    scenario::{CellResult, Role},
};

/// A bar is so many units long; the drawing stretches them to the width that there is.
pub(super) const WIDTH: f64 = 1000.0;

/// Steps and waits that are shorter than this, in seconds, are not worth a line unless they failed.
const SHORTEST: f64 = 0.5;

/// So many waits of one step are told: its longest.
const WAITS: usize = 5;

/// What was seen is told in so many characters at most: all of it is in the record.
const SEEN: usize = 160;

/// Steps over a stretch of time.
pub(super) struct Timeline {
    /// What it is of.
    pub caption: String,
    /// Its length in words.
    pub length: String,
    pub rows: Vec<Row>,
    /// How many steps were too short to have a row.
    pub short: usize,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

/// One step.
pub(super) struct Row {
    pub name: String,
    pub href: Option<String>,
    pub lab: String,
    pub bars: Vec<Bar>,
    pub begins: String,
    pub took: String,
    pub waits: Vec<Waited>,
    pub error: Option<String>,
}

/// What is drawn of a step.
pub(super) struct Bar {
    pub kind: Kind,
    pub x: u32,
    pub width: u32,
}

/// Something that a step waited for.
pub(super) struct Waited {
    pub what: String,
    pub seen: Option<String>,
    pub took: String,
    pub x: u32,
    pub width: u32,
}

/// What time was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Prepare,
    Lab,
    Baseline,
    Fault,
    Symptom,
    Control,
    Repair,
    InOrder,
    Evidence,
    Other,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Prepare,
        Self::Lab,
        Self::Baseline,
        Self::Fault,
        Self::Symptom,
        Self::Control,
        Self::Repair,
        Self::InOrder,
        Self::Evidence,
        Self::Other,
    ];

    pub fn class(self) -> &'static str {
        match self {
            Kind::Prepare => "k-prepare",
            Kind::Lab => "k-lab",
            Kind::Baseline => "k-baseline",
            Kind::Fault => "k-fault",
            Kind::Symptom => "k-symptom",
            Kind::Control => "k-control",
            Kind::Repair => "k-repair",
            Kind::InOrder => "k-order",
            Kind::Evidence => "k-evidence",
            Kind::Other => "k-other",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Prepare => "engine, tools and images",
            Kind::Lab => "making labs",
            Kind::Baseline => "baselines",
            Kind::Fault => "making faults",
            Kind::Symptom => "looking for symptoms",
            Kind::Control => "controls, judged",
            Kind::Repair => "repairs, judged",
            Kind::InOrder => "putting in order again",
            Kind::Evidence => "gathering evidence",
            Kind::Other => "the rest",
        }
    }

    /// What a step is within a variant of which `cells` are known.
    fn of(step: &Taken, cells: &[&CellResult]) -> Self {
        let of = |chapter: &Chapter| match chapter {
            Chapter::Lab { .. } => Some(Kind::Lab),
            Chapter::Baseline => Some(Kind::Baseline),
            Chapter::Fault => Some(Kind::Fault),
            Chapter::Symptom { .. } => Some(Kind::Symptom),
            Chapter::InOrder => Some(Kind::InOrder),
            Chapter::Evidence => Some(Kind::Evidence),
            Chapter::Procedure { procedure } => {
                let control = cells.iter().any(|cell| cell.procedure == *procedure && cell.role == Role::Control);
                Some(if control { Kind::Control } else { Kind::Repair })
            }
            Chapter::Variant { .. }
            | Chapter::SeenBefore { .. }
            | Chapter::Runbook { .. }
            | Chapter::Inventory { .. } => None,
        };
        step.chapters.iter().find_map(of).unwrap_or(Kind::Other)
    }
}

/// Part of the time that the labs of a run took together.
pub(super) struct Share {
    pub kind: Kind,
    pub name: &'static str,
    pub took: String,
    pub percent: String,
    pub x: u32,
    pub width: u32,
}

/// What the time went into, and how much it was together: more than the run took where labs stood side by side.
pub(super) fn shares(source: &Source<'_>) -> (Vec<Share>, String) {
    let record = source.record;
    let mut spent = [0.0; Kind::ALL.len()];
    let mut spend = |kind: Kind, seconds: f64| {
        if let Some(at) = Kind::ALL.iter().position(|one| *one == kind) {
            spent[at] += seconds;
        }
    };
    let mut prepared: Option<(DateTime<Utc>, DateTime<Utc>)> = None;
    for (id, step) in record.steps.within(None) {
        let Some((scenario, name, ..)) = variant(step) else {
            match (Kind::of(step, &[]), end(record, step)) {
                // Steps of preparation stand side by side: what counts is from the first one's beginning to the last one's end.
                (Kind::Other, Some(ended)) if prepared_before_labs(record, step) => {
                    let (from, to) = prepared.unwrap_or((step.began, ended));
                    prepared = Some((from.min(step.began), to.max(ended)));
                }
                (kind, Some(ended)) => spend(kind, seconds(step.began, ended)),
                (_, None) => {}
            }
            continue;
        };
        let of_variant = source.cells_of(scenario, name);
        for (_, step) in record.steps.within(Some(id)) {
            if let Some(ended) = end(record, step) {
                spend(Kind::of(step, &of_variant), seconds(step.began, ended));
            }
        }
    }
    if let Some((from, to)) = prepared {
        spend(Kind::Prepare, seconds(from, to));
    }
    let total: f64 = spent.iter().sum();
    if total <= 0.0 {
        return (Vec::new(), String::new());
    }
    let mut from = 0.0;
    let shares = Kind::ALL.iter().zip(spent).filter(|(_, seconds)| *seconds >= SHORTEST).map(|(kind, seconds)| {
        let (x, width) = units(from, seconds, total);
        from += seconds;
        let percent = format!("{:.0} %", seconds / total * 100.0);
        Share { kind: *kind, name: kind.words(), took: took(seconds), percent, x, width }
    });
    (shares.collect(), human(total.round() as u64))
}

/// Whether a step that is no lab's began before the first variant did: later ones clean up.
fn prepared_before_labs(record: &Record, step: &Taken) -> bool {
    let first = record.steps.within(None).map(|(_, other)| other).find(|other| variant(other).is_some());
    first.is_none_or(|first| step.began < first.began)
}

/// The whole run: its outermost steps, and of a variant what it was made of.
pub(super) fn of_run(source: &Source<'_>) -> Timeline {
    let record = source.record;
    let (from, to) = (record.started().unwrap_or_default(), record.last().unwrap_or_default());
    let mut timeline = Timeline::new("The run, step by step".to_owned(), from, to);
    for (id, step) in record.steps.within(None) {
        let Some((scenario, name, ..)) = variant(step) else {
            let kind = match Kind::of(step, &[]) {
                Kind::Other if prepared_before_labs(record, step) => Kind::Prepare,
                kind => kind,
            };
            timeline.add(record, step, &[(step, kind)]);
            continue;
        };
        let cells = source.cells_of(scenario, name);
        let parts: Vec<(&Taken, Kind)> =
            record.steps.within(Some(id)).map(|(_, part)| (part, Kind::of(part, &cells))).collect();
        if let Some(row) = timeline.add(record, step, &parts) {
            row.href = cells.first().map(|cell| source.href(cell));
        }
    }
    timeline
}

fn lab(chapter: &Chapter) -> Option<&str> {
    match chapter {
        Chapter::Lab { lab } | Chapter::Variant { lab, .. } => Some(lab),
        _ => None,
    }
}

/// A variant in one lab.
pub(super) fn of_variant(source: &Source<'_>, telling: StepId) -> Option<Timeline> {
    let record = source.record;
    let step = record.steps.get(telling)?;
    let (scenario, name, _, lab) = variant(step)?;
    let cells = source.cells_of(scenario, name);
    let caption = format!("{scenario}/{name} in the lab {lab}, begun {} into the run", since(record, step.began));
    let mut timeline = Timeline::new(one_line(&caption), step.began, end(record, step)?);
    for (_, step) in record.steps.within(Some(telling)) {
        timeline.add(record, step, &[(step, Kind::of(step, &cells))]);
    }
    if source.brief && cells.iter().all(|cell| cell.as_expected) {
        timeline.rows.iter_mut().for_each(|row| row.waits.clear());
    }
    Some(timeline)
}

impl Timeline {
    fn new(caption: String, from: DateTime<Utc>, to: DateTime<Utc>) -> Self {
        let length = human(seconds(from, to).round() as u64);
        Self { caption, length, rows: Vec::new(), short: 0, from, to }
    }

    /// Adds a row for `step`, drawn as its `parts`; none where it is too short for one.
    fn add(&mut self, record: &Record, step: &Taken, parts: &[(&Taken, Kind)]) -> Option<&mut Row> {
        let total = seconds(self.from, self.to);
        let ended = end(record, step).unwrap_or(self.to);
        if seconds(step.began, ended) < SHORTEST && step.error.is_none() {
            self.short += 1;
            return None;
        }
        let bars = parts.iter().map(|(part, kind)| {
            let ended = end(record, part).unwrap_or(self.to);
            let (x, width) = units(seconds(self.from, part.began), seconds(part.began, ended), total);
            Bar { kind: *kind, x, width }
        });
        self.rows.push(Row {
            name: one_line(&step.name),
            href: None,
            lab: one_line(step.chapters.iter().find_map(lab).unwrap_or_default()),
            bars: bars.collect(),
            begins: format!("+{}", human(seconds(self.from, step.began) as u64)),
            took: step.seconds.map_or("no end told".to_owned(), took),
            waits: waits(step, ended, self.from, total),
            error: step.error.as_deref().map(one_line),
        });
        self.rows.last_mut()
    }
}

/// The longest waits of a step, in the order in which they were.
fn waits(step: &Taken, ended: DateTime<Utc>, from: DateTime<Utc>, total: f64) -> Vec<Waited> {
    let mut waits: Vec<(f64, Waited)> = step
        .waits
        .iter()
        .map(|wait| {
            let lasted = seconds(wait.from, wait.until.unwrap_or(ended));
            let (x, width) = units(seconds(from, wait.from), lasted, total);
            // Of a wait that came to its end, what was seen half way says nothing.
            let open = step.error.is_some() || step.seconds.is_none();
            let seen = wait.seen.as_deref().filter(|_| open).map(|seen| short(&one_line(seen)));
            (lasted, Waited { what: one_line(&wait.what), seen, took: took(lasted), x, width })
        })
        .filter(|(lasted, _)| *lasted >= SHORTEST)
        .collect();
    if waits.len() > WAITS {
        let mut longest: Vec<f64> = waits.iter().map(|(lasted, _)| *lasted).collect();
        longest.sort_by(|a, b| b.total_cmp(a));
        let least = longest.get(WAITS - 1).copied().unwrap_or_default();
        waits.retain(|(lasted, _)| *lasted >= least);
        waits.truncate(WAITS);
    }
    waits.into_iter().map(|(_, wait)| wait).collect()
}

fn short(text: &str) -> String {
    text.char_indices().nth(SEEN).map_or(text.to_owned(), |(at, _)| format!("{} …", &text[..at]))
}

/// When a step ended; where that was not told, when something was last heard of the run.
fn end(record: &Record, step: &Taken) -> Option<DateTime<Utc>> {
    step.ended().or_else(|| record.last())
}

fn seconds(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).as_seconds_f64().max(0.0)
}

/// Where a bar begins and how long it is, within the drawing, and never so short that it cannot be seen.
fn units(begins: f64, lasts: f64, total: f64) -> (u32, u32) {
    let total = if total > 0.0 { total } else { 1.0 };
    let unit = |seconds: f64| (seconds / total * WIDTH).round().clamp(0.0, WIDTH);
    let width = unit(lasts).max(3.0);
    let x = unit(begins).min(WIDTH - width);
    (x as u32, width as u32)
}
