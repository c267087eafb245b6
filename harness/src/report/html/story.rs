//! Each variant's story: baseline, fault, symptom, controls, runbook, healed, what became of the inventory.

use std::{collections::BTreeMap, path::Path};

use super::{
    super::{
        evidence::file_name,
        record::Record,
        steps::Taken,
        text::{exact, human, one_line, plain},
    },
    Link, Names, State,
    timeline::{self, Timeline},
};
use crate::{
    run::{chapter::Chapter, events::StepId},
    scenario::{CellResult, DrillStep, Role, Verdict},
};

/// So many differences of an inventory are shown; the rest is in its file.
const DIFFERENCES: usize = 12;

/// Of a run with more cells than these, what is as expected is told in brief, so that the page still opens at once: steps,
/// losses and waits are a click further away, in the evidence.
const MANY: usize = 500;

/// What stories are told from: the record, looked up once.
pub(super) struct Source<'a> {
    pub record: &'a Record,
    pub cells: Vec<CellResult>,
    /// Whether what is as expected is told in brief.
    pub brief: bool,
    dir: &'a Path,
    /// The folder `evidence/scenario/variant/phase` -> the paths in it.
    evidence: BTreeMap<String, Vec<&'a str>>,
    /// Scenario and variant -> the steps in which it was told.
    tellings: BTreeMap<[String; 2], Vec<StepId>>,
    /// Cell -> the name of its part of the page.
    anchors: BTreeMap<[String; 3], String>,
    pub names: Names,
}

impl<'a> Source<'a> {
    pub fn new(record: &'a Record, dir: &'a Path, cells: Vec<CellResult>) -> Self {
        let mut evidence: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for path in record.all_evidence() {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            evidence.entry(folder.to_owned()).or_default().push(path);
        }
        let mut tellings: BTreeMap<_, Vec<StepId>> = BTreeMap::new();
        for (id, step) in record.steps.within(None) {
            if let Some((scenario, variant, ..)) = variant(step) {
                tellings.entry([scenario.to_owned(), variant.to_owned()]).or_default().push(id);
            }
        }
        let mut names = Names::default();
        let anchors = cells
            .iter()
            .map(|cell| {
                let wanted = format!("{}.{}.{}", cell.scenario, cell.variant, cell.procedure);
                (key(cell), names.unique(&wanted))
            })
            .collect();
        Self { record, brief: cells.len() > MANY, cells, dir, evidence, tellings, anchors, names }
    }

    /// The cells of a variant.
    pub fn cells_of(&self, scenario: &str, variant: &str) -> Vec<&CellResult> {
        self.cells.iter().filter(|cell| cell.variant == variant && cell.scenario == scenario).collect()
    }

    /// Where on the page a cell is told.
    pub fn href(&self, cell: &CellResult) -> String {
        format!("#{}", self.anchor(cell))
    }

    fn anchor(&self, cell: &CellResult) -> &str {
        self.anchors.get(&key(cell)).map(String::as_str).unwrap_or_default()
    }

    /// The evidence of a cell's procedure.
    pub fn of_cell(&self, cell: &CellResult) -> Vec<Link> {
        let folder = folder(cell);
        let procedure = file_name(&cell.procedure);
        [format!("{folder}/{procedure}-failed"), format!("{folder}/{procedure}")]
            .iter()
            .flat_map(|folder| self.links(folder))
            .collect()
    }

    /// What a lab that failed says of itself.
    pub fn of_labs(&self) -> Vec<Link> {
        let labs = self.evidence.keys().filter(|folder| folder.starts_with("evidence/lab/"));
        labs.flat_map(|folder| self.links(folder)).collect()
    }

    /// The evidence of a variant that belongs to none of its cells.
    fn of_variant(&self, cells: &[&CellResult]) -> Vec<Link> {
        let Some(first) = cells.first() else { return Vec::new() };
        let within = format!("{}/", folder(first));
        let procedures: Vec<String> = cells.iter().map(|cell| file_name(&cell.procedure)).collect();
        let is_of_cell = |phase: &str| {
            let phase = phase.strip_suffix("-failed").unwrap_or(phase);
            procedures.iter().any(|procedure| procedure == phase)
        };
        let folders =
            self.evidence.keys().filter(|folder| folder.strip_prefix(&within).is_some_and(|phase| !is_of_cell(phase)));
        folders.flat_map(|folder| self.links(folder)).collect()
    }

    /// The files of an evidence folder, called by phase and name.
    fn links(&self, folder: &str) -> Vec<Link> {
        let paths = self.evidence.get(folder).map(Vec::as_slice).unwrap_or_default();
        let name = |path: &&str| {
            let mut parts = path.rsplitn(3, '/');
            let (file, phase) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{phase}/{file}")
        };
        paths.iter().map(|path| Link::to(self.dir, path, &name(path))).collect()
    }

    /// The steps in which a variant was told, one for each lab.
    fn tellings(&self, cell: &CellResult) -> &[StepId] {
        let of = [cell.scenario.clone(), cell.variant.clone()];
        self.tellings.get(&of).map(Vec::as_slice).unwrap_or_default()
    }

    /// The step in which a cell's procedure was run last.
    fn procedure(&self, cell: &CellResult) -> Option<&Taken> {
        let is = |step: &Taken| {
            step.chapters
                .iter()
                .any(|chapter| matches!(chapter, Chapter::Procedure { procedure } if *procedure == cell.procedure))
        };
        let tellings = self.tellings(cell).iter().rev();
        tellings
            .flat_map(|telling| self.record.steps.within(Some(*telling)))
            .map(|(_, step)| step)
            .find(|step| is(step))
    }

    /// The last words of the block that failed.
    pub fn failed_output(&self, cell: &CellResult) -> Option<String> {
        let said = self.procedure(cell)?.chapters.iter().find_map(|chapter| match chapter {
            Chapter::Runbook { said, .. } => said.as_deref(),
            _ => None,
        });
        said.map(plain).filter(|said| !said.trim().is_empty())
    }
}

fn key(cell: &CellResult) -> [String; 3] {
    [cell.scenario.clone(), cell.variant.clone(), cell.procedure.clone()]
}

fn folder(cell: &CellResult) -> String {
    format!("evidence/{}/{}", file_name(&cell.scenario), file_name(&cell.variant))
}

/// Scenario, variant, summary and lab of the step that a variant is told in.
pub(super) fn variant(step: &Taken) -> Option<(&str, &str, &str, &str)> {
    step.chapters.iter().find_map(|chapter| match chapter {
        Chapter::Variant { scenario, variant, summary, lab } => Some((&**scenario, &**variant, &**summary, &**lab)),
        _ => None,
    })
}

/// The variants of one scenario.
pub(super) struct Scenario {
    pub id: String,
    pub name: String,
    pub variants: Vec<Variant>,
}

/// One way into a failure.
pub(super) struct Variant {
    pub id: String,
    pub name: String,
    pub summary: String,
    pub state: State,
    pub score: String,
    pub took: String,
    pub open: bool,
    pub phases: Vec<Phase>,
    pub controls: Vec<Cell>,
    pub repairs: Vec<Cell>,
    pub timelines: Vec<Timeline>,
    pub evidence: Vec<Link>,
}

impl Variant {
    /// Every cell, controls first.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.controls.iter().chain(&self.repairs)
    }
}

/// What was done before any procedure.
pub(super) struct Phase {
    pub name: &'static str,
    pub state: State,
    pub words: String,
    pub took: String,
}

/// One procedure.
pub(super) struct Cell {
    pub id: String,
    pub procedure: String,
    pub state: State,
    pub verdict: String,
    pub expected: Option<String>,
    pub took: String,
    pub open: bool,
    pub reasons: Vec<String>,
    pub why: Option<String>,
    pub runbooks: String,
    pub blocks: Vec<Block>,
    pub output: Option<String>,
    pub inventory: Option<InventoryDiff>,
    pub recovery: Option<String>,
    pub findings: Vec<String>,
    pub evidence: Vec<Link>,
}

/// One block of a runbook in one place.
pub(super) struct Block {
    pub state: State,
    pub step: String,
    pub at: String,
    pub place: String,
    pub ended: String,
    pub took: String,
}

/// What became of the inventory.
pub(super) struct InventoryDiff {
    pub words: String,
    pub lines: Vec<String>,
    pub more: usize,
}

/// A variant's name and its cells.
type OfVariant<'a> = (&'a str, Vec<&'a CellResult>);

/// The stories of all variants.
pub(super) fn scenarios(source: &mut Source<'_>) -> Vec<Scenario> {
    // By first sight: parts of a run may come back to a variant.
    let mut order: Vec<(&str, Vec<OfVariant<'_>>)> = Vec::new();
    for cell in &source.cells {
        let scenario = match order.iter().position(|(name, _)| *name == cell.scenario) {
            Some(at) => at,
            None => {
                order.push((&cell.scenario, Vec::new()));
                order.len() - 1
            }
        };
        let variants = &mut order[scenario].1;
        match variants.iter_mut().find(|(name, _)| *name == cell.variant) {
            Some((_, cells)) => cells.push(cell),
            None => variants.push((&cell.variant, vec![cell])),
        }
    }
    let mut names = std::mem::take(&mut source.names);
    let mut told = Vec::new();
    for (scenario, variants) in &order {
        let id = names.unique(&format!("scenario-{scenario}"));
        let tell = |(variant, cells): &OfVariant<'_>| {
            story(source, names.unique(&format!("{scenario}.{variant}")), variant, cells)
        };
        told.push(Scenario { id, name: plain(scenario), variants: variants.iter().map(tell).collect() });
    }
    told
}

fn story(source: &Source<'_>, id: String, name: &str, cells: &[&CellResult]) -> Variant {
    let states = || cells.iter().map(|cell| State::of(cell));
    let state = State::worst(states());
    let good = states().filter(|state| *state == State::Good).count();
    let tellings = cells.first().map(|cell| source.tellings(cell)).unwrap_or_default();
    let steps = &source.record.steps;
    let summary = tellings.iter().filter_map(|id| variant(steps.get(*id)?)).map(|(_, _, summary, _)| summary).next();
    let seconds: f64 = cells.iter().map(|cell| cell.seconds).sum();
    let (controls, repairs): (Vec<Cell>, Vec<Cell>) = {
        let (controls, repairs): (Vec<&CellResult>, Vec<&CellResult>) =
            cells.iter().copied().partition(|cell| cell.role == Role::Control);
        let told = |cells: Vec<&CellResult>| cells.into_iter().map(|one| cell(source, one)).collect();
        (told(controls), told(repairs))
    };
    Variant {
        id,
        name: plain(name),
        summary: one_line(summary.unwrap_or_default()),
        state,
        score: format!("{good} of {} as expected", cells.len()),
        took: if seconds > 0.0 { took(seconds) } else { String::new() },
        open: state == State::Bad,
        phases: phases(source, tellings, cells),
        controls,
        repairs,
        timelines: tellings.iter().filter_map(|id| timeline::of_variant(source, *id)).collect(),
        evidence: source.of_variant(cells),
    }
}

/// Baseline, fault and symptom as they were seen first; what came of later ones is told with their cells.
fn phases(source: &Source<'_>, tellings: &[StepId], cells: &[&CellResult]) -> Vec<Phase> {
    let Some(telling) = tellings.first() else { return Vec::new() };
    let steps: Vec<&Taken> = source.record.steps.within(Some(*telling)).map(|(_, step)| step).collect();
    let find = |is: fn(&Chapter) -> bool| steps.iter().copied().find(|step| step.chapters.iter().any(is));
    let phase = |name, step: &Taken, words: String, shows: bool| {
        let (state, words) = match (&step.error, step.seconds) {
            (Some(error), _) => (State::Bad, one_line(error)),
            (None, None) => (State::Open, "its end was not told".to_owned()),
            (None, Some(_)) => (if shows { State::Good } else { State::Bad }, words),
        };
        Phase { name, state, words, took: step.seconds.map(took).unwrap_or_default() }
    };
    let mut phases = Vec::new();
    if let Some(step) = find(|chapter| matches!(chapter, Chapter::Baseline)) {
        let before = step.chapters.iter().find_map(|chapter| match chapter {
            Chapter::SeenBefore { cell } => Some(format!("nothing was done since {cell}, after which ")),
            _ => None,
        });
        let words = format!("{}every node pulled every image, and the inventory is whole", before.unwrap_or_default());
        phases.push(phase("Baseline", step, words, true));
    }
    if let Some(step) = find(|chapter| matches!(chapter, Chapter::Fault)) {
        phases.push(phase("Fault", step, "the lab was broken".to_owned(), true));
    }
    let symptom = |chapter: &Chapter| match chapter {
        Chapter::Symptom { shows, words } => Some((*shows, one_line(words))),
        _ => None,
    };
    if let Some(step) = find(|chapter| matches!(chapter, Chapter::Symptom { .. }))
        && let Some((shows, words)) = step.chapters.iter().find_map(symptom)
    {
        // Where the fault is known not to show, it is as expected that it does not.
        let known = cells.iter().any(|cell| cell.verdict == Verdict::NotReproduced && cell.as_expected);
        let words = if shows { words } else { format!("did not show: {words}") };
        phases.push(phase("Symptom", step, words, shows || known));
    }
    phases
}

fn cell(source: &Source<'_>, cell: &CellResult) -> Cell {
    let state = State::of(cell);
    let plan = source.record.plan(cell);
    let step = source.procedure(cell);
    let chapters = step.map(|step| step.chapters.as_slice()).unwrap_or_default();
    let blocks = chapters.iter().find_map(|chapter| match chapter {
        Chapter::Runbook { blocks, .. } => Some(blocks.as_slice()),
        _ => None,
    });
    let brief = source.brief && state == State::Good;
    let inventory = chapters.iter().find_map(|chapter| match chapter {
        Chapter::Inventory { lost, lines } => Some(difference(*lost, lines, if brief { 0 } else { DIFFERENCES })),
        _ => None,
    });
    let mut runbooks: Vec<&str> = blocks.unwrap_or_default().iter().map(|block| block.file.as_str()).collect();
    runbooks.dedup();
    Cell {
        id: source.anchor(cell).to_owned(),
        procedure: plain(&cell.procedure),
        state,
        verdict: cell.verdict.to_string(),
        expected: cell
            .expected
            .filter(|expected| *expected != cell.verdict && state != State::Open)
            .map(|expected| expected.to_string()),
        took: took(cell.seconds),
        open: state == State::Bad,
        reasons: sentences(&cell.reason),
        why: plan.and_then(|plan| plan.why.as_deref()).map(one_line),
        runbooks: plain(&runbooks.join(", ")),
        blocks: blocks.unwrap_or_default().iter().filter(|_| !brief).map(block).collect(),
        output: source.failed_output(cell),
        inventory,
        recovery: cell
            .drill
            .as_ref()
            .and_then(|drill| drill.recovery_seconds)
            .map(|seconds| human(seconds.round().max(0.0) as u64)),
        findings: cell
            .drill
            .iter()
            .flat_map(|drill| &drill.findings)
            .map(|finding| one_line(&finding.to_string()))
            .collect(),
        evidence: source.of_cell(cell),
    }
}

fn block(block: &DrillStep) -> Block {
    Block {
        state: match block {
            DrillStep { ok: false, .. } => State::Bad,
            DrillStep { place, .. } if place.is_empty() => State::Open,
            DrillStep { .. } => State::Good,
        },
        step: one_line(&block.step),
        at: format!("line {}", block.line),
        place: plain(&block.place),
        ended: one_line(&block.ended),
        took: exact(block.seconds),
    }
}

fn difference(lost: usize, lines: &[String], shown: usize) -> InventoryDiff {
    let changed = lines.len().saturating_sub(lost);
    let words = match (lost, changed) {
        (0, _) if lines.iter().all(|line| !line.starts_with('~')) => "the inventory is what it was".to_owned(),
        (0, 1) => "nothing is lost, 1 thing is otherwise".to_owned(),
        (0, changed) => format!("nothing is lost, {changed} things are otherwise"),
        (1, _) => "1 loss".to_owned(),
        (lost, _) => format!("{lost} losses"),
    };
    let differs = lines.iter().filter(|line| line.starts_with(['-', '~']));
    InventoryDiff {
        words,
        lines: differs.clone().take(shown).map(|line| one_line(line)).collect(),
        more: differs.count().saturating_sub(shown),
    }
}

/// A reason in its sentences: nodes, images and losses are strung together with semicolons.
pub(super) fn sentences(reason: &str) -> Vec<String> {
    one_line(reason).split("; ").map(str::to_owned).collect()
}

/// `12.3 s`, and from a minute on `5 min 12 s`.
pub(super) fn took(seconds: f64) -> String {
    if seconds < 60.0 { exact(seconds) } else { human(seconds.round() as u64) }
}
