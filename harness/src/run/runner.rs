//! Running the cells of a scenario: baseline, fault, symptom, then per cell its procedure and the judgement.

use std::{sync::Mutex, time::Instant};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

use super::{
    chapter::Chapter,
    events::{EventKind, Events, Step},
    judge::{self, Known},
};
use crate::{
    harbor::inventory::Inventory,
    lab::{Lab, LabError, diagnose, order::Brought},
    observe::{Observation, placement::Placement, pull, symptom::Judgement},
    report::evidence::{Evidence, EvidenceError, Phase},
    runbook::{self, Runbook, library::Library, lint::Finding, transcript::Transcript},
    scenario::{CellPlan, CellResult, Drill, Role, ScenarioSpec, Verdict},
};

/// One documented failure.
pub trait Scenario: Send + Sync {
    /// Its variants and cells.
    fn spec(&self) -> &ScenarioSpec;

    /// Brings the lab in order for a variant, whatever was done to it before.
    fn baseline<'a>(
        &'a self,
        lab: &'a Lab,
        variant: &'a str,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Brought, LabError>>;

    /// Breaks a lab that is in order.
    fn fault<'a>(&'a self, lab: &'a Lab, variant: &'a str, step: &'a Step) -> BoxFuture<'a, Result<(), LabError>>;

    /// Whether the fault leaves the same lab whatever a procedure did before it: then nothing needs to be put in order first.
    fn fault_is_absolute(&self) -> bool {
        false
    }

    /// Whether its baseline and its faults restart containerd. A pod that runs meanwhile takes up to a quarter of a minute to go
    /// afterwards, so the workload is removed first; elsewhere it stays, as in production.
    fn restarts_containerd(&self) -> bool {
        false
    }

    /// Looks at the lab: a real pull of every image on every node, and what else the symptom is judged on.
    fn observe<'a>(
        &'a self,
        lab: &'a Lab,
        variant: &'a str,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Observation, LabError>>;

    /// Whether the variant's failure shows, on every node of the lab that is `known`.
    fn symptom(&self, variant: &str, known: &Known, seen: &Observation) -> Judgement;

    /// Whether the failure's cause is gone too, where pulls and inventory alone do not tell.
    fn repaired(&self, _variant: &str, _seen: &Observation) -> Judgement {
        Judgement::Holds(String::new())
    }
}

/// Runs cells in one lab.
pub struct Runner<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// What cells may be of.
    pub scenarios: &'a [Box<dyn Scenario>],
    /// Where their runbooks are.
    pub library: &'a Library,
    /// Where it is told.
    pub events: &'a Events,
    /// Where evidence is kept.
    pub evidence: &'a Evidence,
    /// The result of each cell, kept also when a run is dropped half way.
    pub results: &'a Mutex<Vec<CellResult>>,
    /// What the lab looked like last, where nothing was done to it since.
    pub last: Option<LastLook>,
}

/// What was seen after a cell.
pub struct LastLook {
    /// The cell, as `scenario/variant/procedure`.
    cell: String,
    seen: Observation,
}

impl Runner<'_> {
    /// Runs `cells`, which are in the order of their scenarios and variants, and emits the result of each. A lab fault ends the
    /// run: the cell at hand is `lab broken`, what comes after it is left out.
    ///
    /// # Errors
    /// The lab fault.
    pub async fn run(&mut self, cells: &[CellPlan]) -> Result<(), LabError> {
        for group in cells.chunk_by(|a, b| (&a.scenario, &a.variant) == (&b.scenario, &b.variant)) {
            let Some(first) = group.first() else { continue };
            let Some(scenario) = self.scenarios.iter().find(|scenario| scenario.spec().name == first.scenario) else {
                continue;
            };
            let last = self.last.take();
            let Self { lab, library, evidence, results, .. } = *self;
            let told = self.events.step(format!("{}/{}", first.scenario, first.variant), |step| async move {
                let scenario = scenario.as_ref();
                let summary = scenario.spec().variants.iter().find(|variant| variant.name == first.variant);
                step.tell(Chapter::Variant {
                    scenario: first.scenario.clone(),
                    variant: first.variant.clone(),
                    summary: summary.map(|variant| variant.summary.clone()).unwrap_or_default(),
                    lab: lab.id.clone(),
                });
                let known = Known::new(lab.node_names(), &lab.seed);
                let part = (first.role == Role::Yours).then(|| first.procedure.clone());
                let story = Story { lab, known, scenario, variant: &first.variant, library, evidence, results, part };
                story.tell(group, last, &step).await
            });
            self.last = told.await?;
        }
        Ok(())
    }
}

/// One variant from its baseline to its last cell.
pub(super) struct Story<'a> {
    pub(super) lab: &'a Lab,
    pub(super) known: Known,
    pub(super) scenario: &'a dyn Scenario,
    pub(super) variant: &'a str,
    pub(super) library: &'a Library,
    pub(super) evidence: &'a Evidence,
    pub(super) results: &'a Mutex<Vec<CellResult>>,
    /// The procedure, where it is a runbook that someone brings.
    pub(super) part: Option<String>,
}

fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64()
}

/// What came of a cell.
struct Judged {
    verdict: Verdict,
    reason: String,
    stopped_at: Option<String>,
    drill: Option<Drill>,
}

/// How the lab stands before a cell.
enum State {
    /// In order.
    Whole,
    /// This failure was seen on every node, and nothing was changed since.
    Broken(Box<Observation>),
    /// Something was done to it.
    Unknown,
}

impl Story<'_> {
    async fn tell(
        &self,
        cells: &[CellPlan],
        last: Option<LastLook>,
        step: &Step,
    ) -> Result<Option<LastLook>, LabError> {
        let events = step.events();
        let first = cells.first();
        let begun = Instant::now();
        let before = match self.baseline(last, events).await {
            Ok(before) => before,
            Err(error) => {
                if let Some(cell) = first {
                    let why = format!("before the fault: {error}");
                    self.finish(events, cell.result(Verdict::LabBroken, since(begun), why));
                }
                return Err(error);
            }
        };
        let (mut state, mut last) = (State::Whole, None);
        for cell in cells {
            let begun = Instant::now();
            match self.cell(cell, &before, &mut state, events).await {
                Ok((judged, seen)) => {
                    let Judged { verdict, reason, stopped_at, drill } = judged;
                    // What a runbook of somebody's has left behind is not known.
                    last = (cell.role != Role::Yours).then(|| LastLook { cell: cell.path(), seen });
                    let result = CellResult { drill, ..cell.result_of(verdict, since(begun), reason, stopped_at) };
                    let unexpected = !result.as_expected;
                    self.finish(events, result);
                    if unexpected {
                        self.gather(events, &cell.procedure).await;
                    }
                }
                Err(error) => {
                    self.finish(events, cell.result(Verdict::LabBroken, since(begun), error.to_string()));
                    return Err(error);
                }
            }
        }
        Ok(last)
    }

    /// What the cluster and the nodes say of a cell that went otherwise than expected.
    async fn gather(&self, events: &Events, procedure: &str) {
        let phase = self.phase(procedure);
        let gathered = events.step("gather evidence", |step| async move {
            step.tell(Chapter::Evidence);
            diagnose::gather(&self.lab.dir, &self.lab.nodes, &phase, &step).await;
            Ok::<_, LabError>(())
        });
        // It cannot fail: what does not answer is told in its file.
        let _ = gathered.await;
    }

    fn finish(&self, events: &Events, mut result: CellResult) {
        // A command's last words may be in it.
        result.reason = self.evidence.redact(&result.reason);
        if let Ok(mut results) = self.results.lock() {
            results.push(result.clone());
        }
        events.emit(EventKind::CellFinished { cell: result });
    }

    /// The lab in order, a real pull of every image on every node, and the inventory. What was seen after the cell before is
    /// taken for it where all was well then, and nothing had to be done since.
    pub(super) async fn baseline(&self, last: Option<LastLook>, events: &Events) -> Result<Inventory, LabError> {
        events
            .step("baseline", |step| async move {
                step.tell(Chapter::Baseline);
                let last = last.filter(|last| self.known.all_pulled(&last.seen).holds());
                let seen = match last {
                    Some(last) if self.stands(&step).await? => {
                        step.tell(Chapter::SeenBefore { cell: last.cell });
                        self.keep(&step, "baseline", "observation.json", &last.seen);
                        last.seen
                    }
                    Some(_) => self.observe("baseline", &step).await?,
                    None => {
                        self.in_order(&step).await?;
                        self.observe("baseline", &step).await?
                    }
                };
                let green = self.known.all_pulled(&seen);
                if !green.holds() {
                    return Err(LabError::NotInOrder(format!("the baseline's pulls: {}", green.words())));
                }
                let inventory = match seen.inventory {
                    Some(inventory) => inventory,
                    None => Inventory::take(self.lab).await,
                };
                self.keep(&step, "baseline", "inventory.json", &inventory);
                match self.lab.reference.diff(&inventory).losses() {
                    None => Ok(inventory),
                    Some(losses) => Err(LabError::NotInOrder(format!("the baseline's inventory: {losses}"))),
                }
            })
            .await
    }

    /// Whether the lab in which every image was just pulled is in order for this variant as it is; else it is brought so.
    async fn stands(&self, step: &Step) -> Result<bool, LabError> {
        if self.scenario.fault_is_absolute() {
            return Ok(true);
        }
        Ok(self.scenario.baseline(self.lab, self.variant, step).await? == Brought::Untouched)
    }

    async fn in_order(&self, step: &Step) -> Result<(), LabError> {
        let baseline = self.scenario.baseline(self.lab, self.variant, step);
        if self.scenario.restarts_containerd() {
            pull::clear(self.lab, step).await?;
            baseline.await?;
            return Ok(());
        }
        futures::try_join!(pull::clear(self.lab, step), baseline)?;
        Ok(())
    }

    async fn cell(
        &self,
        cell: &CellPlan,
        before: &Inventory,
        state: &mut State,
        events: &Events,
    ) -> Result<(Judged, Observation), LabError> {
        if matches!(state, State::Unknown) {
            if !self.scenario.fault_is_absolute() {
                let again = |step: Step| async move {
                    step.tell(Chapter::InOrder);
                    self.in_order(&step).await
                };
                events.step("put in order again", again).await?;
            }
            *state = State::Whole;
        }
        if matches!(state, State::Whole) {
            *state = State::Unknown;
            let (seen, symptom) = self.break_it(events).await?;
            if !symptom.holds() {
                let reason = symptom.words().to_owned();
                let judged = Judged { verdict: Verdict::NotReproduced, reason, stopped_at: None, drill: None };
                return Ok((judged, seen));
            }
            *state = State::Broken(Box::new(seen));
        }
        let broken_at = Utc::now();
        let broken = match std::mem::replace(state, State::Unknown) {
            State::Broken(seen) => seen,
            State::Whole | State::Unknown => Box::default(),
        };
        let runbooks = self.library.all(&cell.runbooks).map_err(|error| LabError::NotInOrder(error.to_string()))?;
        let (judged, seen) = events
            .step(format!("{} {}", cell.role, cell.procedure), |step| async move {
                self.procedure(cell, &runbooks, before, broken_at, &step).await
            })
            .await?;
        let still = self.scenario.symptom(self.variant, &self.known, &seen).holds();
        let same = match (&seen.inventory, &broken.inventory) {
            (Some(now), Some(then)) => now.says_the_same(then),
            _ => true,
        };
        // What a runbook of somebody's has left behind is not known.
        if still && same && cell.role != Role::Yours {
            *state = State::Broken(broken);
        }
        Ok((judged, seen))
    }

    /// Runs the cell's procedure on the broken lab, looks at what came of it, and judges.
    async fn procedure(
        &self,
        cell: &CellPlan,
        runbooks: &[&Runbook],
        before: &Inventory,
        broken_at: DateTime<Utc>,
        step: &Step,
    ) -> Result<(Judged, Observation), LabError> {
        let procedure = cell.procedure.as_str();
        let yours = cell.role == Role::Yours;
        step.tell(Chapter::Procedure { procedure: cell.procedure.clone() });
        let transcript = runbook::run::in_lab(runbooks, self.lab, step).await?;
        step.tell(Chapter::Runbook {
            blocks: transcript.blocks(),
            said: transcript.failed().map(|record| self.evidence.redact(&record.last_words())),
        });
        let kept = self.phase(procedure).text(step, "transcript.md", &transcript.text());
        self.say_if_lost(step, kept);
        // What a failed step has left is seen before anything else changes it.
        let left = match transcript.failed() {
            Some(_) if yours => {
                self.gather(step.events(), &format!("{procedure}-failed")).await;
                Placement::take(self.lab).await?.amiss()
            }
            _ => None,
        };
        let mut seen = self.observe(procedure, step).await?;
        let (verdict, mut reason) = self.judge(&transcript, &mut seen, before, procedure, step).await;
        if let Some(left) = left {
            reason = format!("{reason}; when the step failed, {left}");
        }
        let broken_at = (verdict == Verdict::Healed).then_some(broken_at);
        let drill = yours.then(|| self.drill(&transcript, runbooks, &seen, before, broken_at));
        Ok((Judged { verdict, reason, stopped_at: transcript.stopped_at(), drill }, seen))
    }

    /// What is told of a runbook that someone brings; `broken_at` is when the symptom was seen, if it healed.
    fn drill(
        &self,
        transcript: &Transcript,
        runbooks: &[&Runbook],
        seen: &Observation,
        before: &Inventory,
        broken_at: Option<DateTime<Utc>>,
    ) -> Drill {
        let mut findings: Vec<Finding> = runbooks.iter().flat_map(|runbook| runbook::lint::lint(runbook)).collect();
        findings.extend(runbook::findings::in_folder(&self.lab.work(), runbooks, before));
        findings.extend(runbook::findings::of_trust(runbooks, seen, before));
        findings.sort_by(|a, b| (&a.file, a.line, &a.what).cmp(&(&b.file, b.line, &b.what)));
        findings.dedup();
        let pulls = seen.pulls.iter().filter(|pull| pull.image == self.known.primary);
        let recovered = pulls.filter_map(|pull| pull.done).max();
        Drill {
            steps: transcript.blocks(),
            recovery_seconds: broken_at.zip(recovered).map(|(from, to)| (to - from).as_seconds_f64()),
            findings,
        }
    }

    /// Makes the fault and looks for its symptom.
    pub(super) async fn break_it(&self, events: &Events) -> Result<(Observation, Judgement), LabError> {
        events
            .step("fault", |step| async move {
                step.tell(Chapter::Fault);
                if self.scenario.restarts_containerd() {
                    pull::clear(self.lab, &step).await?;
                }
                self.scenario.fault(self.lab, self.variant, &step).await
            })
            .await?;
        events
            .step("symptom", |step| async move {
                let seen = self.observe("symptom", &step).await?;
                let symptom = self.scenario.symptom(self.variant, &self.known, &seen);
                let words = self.evidence.redact(symptom.words());
                step.tell(Chapter::Symptom { shows: symptom.holds(), words });
                Ok((seen, symptom))
            })
            .await
    }

    /// Takes the inventory where the scenario has not, and judges.
    pub(super) async fn judge(
        &self,
        transcript: &Transcript,
        seen: &mut Observation,
        before: &Inventory,
        procedure: &str,
        step: &Step,
    ) -> (Verdict, String) {
        if seen.inventory.is_none() && self.known.primary_pulled(seen).holds() {
            seen.inventory = Some(Inventory::take(self.lab).await);
        }
        if let Some(after) = &seen.inventory {
            self.keep(step, procedure, "inventory.json", after);
            let diff = before.diff(after);
            let (lost, diff) = (diff.lost.len(), diff.text());
            let lines = self.evidence.redact(&diff).lines().map(str::to_owned).collect();
            step.tell(Chapter::Inventory { lost, lines });
            self.say_if_lost(step, self.phase(procedure).text(step, "inventory.diff", &diff));
        }
        let repaired = self.scenario.repaired(self.variant, seen);
        judge::verdict(&self.known, seen, before, &repaired, transcript.failure())
    }

    pub(super) async fn observe(&self, phase: &str, step: &Step) -> Result<Observation, LabError> {
        pull::clear(self.lab, step).await?;
        let seen = self.scenario.observe(self.lab, self.variant, step).await?;
        self.keep(step, phase, "observation.json", &seen);
        Ok(seen)
    }

    fn keep(&self, step: &Step, phase: &str, name: &str, value: &impl serde::Serialize) {
        self.say_if_lost(step, self.phase(phase).json(step, name, value));
    }

    fn phase(&self, phase: &str) -> Phase {
        // Each part of a runbook that was taken apart has a lab of its own, beside others.
        let phase = match &self.part {
            Some(part) if !phase.starts_with(part.as_str()) => &format!("{part}-{phase}"),
            _ => phase,
        };
        self.evidence.phase(&self.scenario.spec().name, self.variant, phase)
    }

    /// Evidence that cannot be written is said, but changes no verdict.
    fn say_if_lost(&self, step: &Step, kept: Result<(), EvidenceError>) {
        if let Err(error) = kept {
            step.events().note(error.to_string());
        }
    }
}
