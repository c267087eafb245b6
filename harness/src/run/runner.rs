//! Running the cells of a scenario: baseline, fault, symptom, then per cell its procedure and the judgement.

use std::{sync::Mutex, time::Instant};

use futures::future::BoxFuture;

use super::events::{EventKind, Events, Step};
use crate::{
    harbor::{inventory::Inventory, registry::Registry, seed::SeedImage},
    lab::{Lab, LabError, cluster, diagnose},
    observe::{
        pods::PullObservation,
        pull,
        symptom::{Judgement, pulled_everywhere},
    },
    report::evidence::{Evidence, EvidenceError, Phase},
    runbook::{self, run::Transcript},
    scenario::{CellPlan, CellResult, ScenarioSpec, Verdict},
};

/// What was seen of every node's pull.
pub type Observation = Vec<PullObservation>;

/// One documented failure.
pub trait Scenario: Send + Sync {
    /// Its variants and cells.
    fn spec(&self) -> &ScenarioSpec;

    /// The Markdown of a procedure.
    fn runbook(&self, procedure: &str) -> Option<&'static str>;

    /// Brings the lab in order, whatever the variant before left.
    fn baseline<'a>(&'a self, lab: &'a Lab, variant: &'a str, step: &'a Step) -> BoxFuture<'a, Result<(), LabError>>;

    /// Breaks the lab. Also called on a lab that a procedure changed: what it leaves is the variant's fault, nothing else.
    fn fault<'a>(&'a self, lab: &'a Lab, variant: &'a str, step: &'a Step) -> BoxFuture<'a, Result<(), LabError>>;

    /// Looks at the lab: a real pull on every node, and what else the symptom is judged on.
    fn observe<'a>(
        &'a self,
        lab: &'a Lab,
        image: &'a SeedImage,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Observation, LabError>>;

    /// Whether the failure shows on every one of `nodes`.
    fn symptom(&self, nodes: &[String], seen: &[PullObservation]) -> Judgement;
}

/// Runs `cells`, which are in the order of their scenarios and variants, emits the result of each and adds it to `results`,
/// which keeps them also when the run is dropped half way. A lab fault ends the run: the cell at hand is `lab broken`, what
/// comes after it is left out.
///
/// # Errors
/// The lab fault.
pub async fn run(
    lab: &Lab,
    scenarios: &[Box<dyn Scenario>],
    cells: &[CellPlan],
    events: &Events,
    evidence: &Evidence,
    results: &Mutex<Vec<CellResult>>,
) -> Result<(), LabError> {
    let image = SeedImage::build("library/app", "v1", 256 * 1024)
        .map_err(|error| LabError::NotInOrder(format!("build the image under test: {error}")))?;
    let image = &image;
    events.step("seed images", |_| seed(lab, image)).await?;
    for group in cells.chunk_by(|a, b| (&a.scenario, &a.variant) == (&b.scenario, &b.variant)) {
        let Some(first) = group.first() else { continue };
        let Some(scenario) = scenarios.iter().find(|scenario| scenario.spec().name == first.scenario) else {
            continue;
        };
        let name = format!("{}/{}", first.scenario, first.variant);
        events
            .step(name, |step| async move {
                let story =
                    Story { lab, scenario: scenario.as_ref(), variant: &first.variant, image, evidence, results };
                story.tell(group, &step).await
            })
            .await?;
    }
    Ok(())
}

async fn seed(lab: &Lab, image: &SeedImage) -> Result<(), LabError> {
    let ca = lab.harbor.ca(&lab.client).await?;
    Registry::new(&lab.harbor, &ca).push(image).await?;
    Ok(())
}

/// One variant from its baseline to its last cell.
struct Story<'a> {
    lab: &'a Lab,
    scenario: &'a dyn Scenario,
    variant: &'a str,
    image: &'a SeedImage,
    evidence: &'a Evidence,
    results: &'a Mutex<Vec<CellResult>>,
}

/// How the lab stands before a cell.
enum State {
    /// The failure was seen on every node, and nothing was changed since.
    Broken,
    /// The fault must be made (again).
    Unknown,
}

impl Story<'_> {
    async fn tell(&self, cells: &[CellPlan], step: &Step) -> Result<(), LabError> {
        let events = step.events();
        let first = cells.first();
        let begun = Instant::now();
        let before = match self.baseline(events).await {
            Ok(before) => before,
            Err(error) => {
                if let Some(cell) = first {
                    self.finish(events, cell, Verdict::LabBroken, begun, format!("before the fault: {error}"));
                }
                return Err(error);
            }
        };
        let mut state = State::Unknown;
        for cell in cells {
            let begun = Instant::now();
            match self.cell(cell, &before, &mut state, events).await {
                Ok((verdict, reason)) => {
                    self.finish(events, cell, verdict, begun, reason);
                    if cell.expected.is_some_and(|expected| verdict != expected) {
                        self.gather(events, &cell.procedure).await;
                    }
                }
                Err(error) => {
                    self.finish(events, cell, Verdict::LabBroken, begun, error.to_string());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// What the cluster and the nodes say of a cell that went otherwise than expected.
    async fn gather(&self, events: &Events, procedure: &str) {
        let phase = self.phase(procedure);
        let gathered = events.step("gather evidence", |step| async move {
            diagnose::gather(&self.lab.dir, &self.lab.nodes, &phase, &step).await;
            Ok::<_, LabError>(())
        });
        // It cannot fail: what does not answer is told in its file.
        let _ = gathered.await;
    }

    fn finish(&self, events: &Events, cell: &CellPlan, verdict: Verdict, begun: Instant, reason: String) {
        let result = cell.result(verdict, begun.elapsed().as_secs_f64(), reason);
        if let Ok(mut results) = self.results.lock() {
            results.push(result.clone());
        }
        events.emit(EventKind::CellFinished { cell: result });
    }

    /// The lab in order, a real pull on every node, and the inventory.
    async fn baseline(&self, events: &Events) -> Result<Inventory, LabError> {
        events
            .step("baseline", |step| async move {
                // A pod that runs while its containerd is restarted takes up to a quarter of a minute to go afterwards.
                pull::clear(self.lab, &step, self.image).await?;
                self.scenario.baseline(self.lab, self.variant, &step).await?;
                let seen = self.observe("baseline", &step).await?;
                let green = pulled_everywhere(&self.lab.node_names(), &self.image.digest(), &seen);
                if !green.holds() {
                    return Err(LabError::NotInOrder(format!("the baseline's pulls: {}", green.words())));
                }
                let inventory = Inventory::take(self.lab).await?;
                self.keep(&step, "baseline", "inventory.json", &inventory);
                Ok(inventory)
            })
            .await
    }

    async fn cell(
        &self,
        cell: &CellPlan,
        before: &Inventory,
        state: &mut State,
        events: &Events,
    ) -> Result<(Verdict, String), LabError> {
        if matches!(state, State::Unknown) {
            let symptom = self.break_it(events).await?;
            if !symptom.holds() {
                return Ok((Verdict::NotReproduced, symptom.words().to_owned()));
            }
            *state = State::Broken;
        }
        let procedure = cell.procedure.as_str();
        let Some(markdown) = self.scenario.runbook(procedure) else {
            return Err(LabError::NotInOrder(format!("there is no runbook {procedure}")));
        };
        let file = format!("fixtures/runbooks/{}/{procedure}.md", cell.scenario);
        let runbook =
            runbook::parse::parse(&file, markdown).map_err(|error| LabError::NotInOrder(error.to_string()))?;
        events
            .step(format!("{} {procedure}", cell.role), |step| async move {
                let transcript = runbook::run::run(&runbook, self.lab, &step).await?;
                let kept = self.phase(procedure).text(&step, "transcript.md", &transcript.text());
                self.say_if_lost(&step, kept);
                let seen = self.observe(procedure, &step).await?;
                let (verdict, reason) = self.judge(&transcript, &seen, before, procedure, &step).await?;
                let unchanged = self.scenario.symptom(&self.lab.node_names(), &seen).holds();
                *state = if unchanged { State::Broken } else { State::Unknown };
                Ok((verdict, reason))
            })
            .await
    }

    /// Makes the fault and looks for its symptom.
    async fn break_it(&self, events: &Events) -> Result<Judgement, LabError> {
        events
            .step("fault", |step| async move {
                pull::clear(self.lab, &step, self.image).await?;
                self.scenario.fault(self.lab, self.variant, &step).await
            })
            .await?;
        events
            .step("symptom", |step| async move {
                let seen = self.observe("symptom", &step).await?;
                Ok(self.scenario.symptom(&self.lab.node_names(), &seen))
            })
            .await
    }

    /// Healed means pulls and inventory.
    async fn judge(
        &self,
        transcript: &Transcript,
        seen: &Observation,
        before: &Inventory,
        procedure: &str,
        step: &Step,
    ) -> Result<(Verdict, String), LabError> {
        let pulls = pulled_everywhere(&self.lab.node_names(), &self.image.digest(), seen);
        if !pulls.holds() {
            let reason = match transcript.failure() {
                Some(failure) => format!("{failure}; pulls: {}", pulls.words()),
                None => pulls.words().to_owned(),
            };
            return Ok((Verdict::NotHealed, reason));
        }
        cluster::wait_for_harbor(self.lab, step).await?;
        let after = Inventory::take(self.lab).await?;
        self.keep(step, procedure, "inventory.json", &after);
        let lost = before.lost(&after);
        if !lost.is_empty() {
            return Ok((Verdict::DataLost, lost.join("; ")));
        }
        let reason = format!("{}; nothing of the inventory is lost", pulls.words());
        Ok((Verdict::Healed, transcript.failure().map_or(reason.clone(), |failure| format!("{reason}; but {failure}"))))
    }

    async fn observe(&self, phase: &str, step: &Step) -> Result<Observation, LabError> {
        let seen = self.scenario.observe(self.lab, self.image, step).await?;
        self.keep(step, phase, "pulls.json", &seen);
        Ok(seen)
    }

    fn keep(&self, step: &Step, phase: &str, name: &str, value: &impl serde::Serialize) {
        self.say_if_lost(step, self.phase(phase).json(step, name, value));
    }

    fn phase(&self, phase: &str) -> Phase {
        self.evidence.phase(&self.scenario.spec().name, self.variant, phase)
    }

    /// Evidence that cannot be written is said, but changes no verdict.
    fn say_if_lost(&self, step: &Step, kept: Result<(), EvidenceError>) {
        if let Err(error) = kept {
            step.events().note(error.to_string());
        }
    }
}
