//! A variant broken for a person to repair: the same fault, the same look and the same judgement as a cell's.

use std::sync::Mutex;

use chrono::{DateTime, Utc};

use super::{
    events::Events,
    judge::Known,
    runner::{Scenario, Story},
};
use crate::{
    harbor::inventory::Inventory,
    lab::{Lab, LabError},
    report::evidence::Evidence,
    runbook::{library::Library, transcript::Transcript},
    scenario::{CellPlan, Role, Verdict},
};

/// What the cell of a practice is called.
pub const PRACTICE: &str = "practice";

/// A lab as it is handed over.
#[derive(Debug, Clone)]
pub struct Broken {
    /// What Harbor held before the fault.
    pub before: Inventory,
    /// The symptom, in words.
    pub symptom: String,
}

/// What a look at the lab came to.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The verdict, as a cell's.
    pub verdict: Verdict,
    /// What was seen that decided it.
    pub reason: String,
    /// When the last node had pulled the image under test; none where one had not.
    pub pulled: Option<DateTime<Utc>>,
}

/// The cell of a practice. Whoever practises wants it to heal.
pub fn cell(scenario: &str, variant: &str) -> CellPlan {
    CellPlan {
        scenario: scenario.to_owned(),
        variant: variant.to_owned(),
        procedure: PRACTICE.to_owned(),
        role: Role::Practice,
        expected: None,
        why: None,
        runbooks: Vec::new(),
        stops_at: None,
        part: None,
    }
}

/// Brings the lab in order, takes the inventory, makes the fault and sees its symptom.
///
/// # Errors
/// The lab's; and a fault that does not show its symptom.
pub async fn break_it(
    lab: &Lab,
    scenario: &dyn Scenario,
    variant: &str,
    evidence: &Evidence,
    events: &Events,
) -> Result<Broken, LabError> {
    let (library, results) = (Library::default(), Mutex::default());
    let story = story(lab, scenario, variant, &library, evidence, &results);
    events
        .step(format!("{}/{variant}", scenario.spec().name), |step| async move {
            let before = story.baseline(None, step.events()).await?;
            let (_, symptom) = story.break_it(step.events()).await?;
            if !symptom.holds() {
                let why = format!("the fault of {variant} did not show its symptom: {}", symptom.words());
                return Err(LabError::NotInOrder(why));
            }
            Ok(Broken { before, symptom: symptom.words().to_owned() })
        })
        .await
}

/// Looks at the lab as after a procedure, and judges as of a cell. `name` is what the evidence goes under.
///
/// # Errors
/// The lab's.
pub async fn check(
    lab: &Lab,
    scenario: &dyn Scenario,
    variant: &str,
    before: &Inventory,
    name: &str,
    evidence: &Evidence,
    events: &Events,
) -> Result<Checked, LabError> {
    let (library, results) = (Library::default(), Mutex::default());
    let story = story(lab, scenario, variant, &library, evidence, &results);
    events
        .step(format!("{}/{variant} {name}", scenario.spec().name), |step| async move {
            let mut seen = story.observe(name, &step).await?;
            let (verdict, reason) = story.judge(&Transcript::default(), &mut seen, before, name, &step).await;
            let pulled = story.known.primary_pulled(&seen).holds();
            let primary = seen.pulls.iter().filter(|pull| pull.image == story.known.primary);
            let pulled = primary.filter_map(|pull| pull.done).max().filter(|_| pulled);
            Ok(Checked { verdict, reason: evidence.redact(&reason), pulled })
        })
        .await
}

fn story<'a>(
    lab: &'a Lab,
    scenario: &'a dyn Scenario,
    variant: &'a str,
    library: &'a Library,
    evidence: &'a Evidence,
    results: &'a Mutex<Vec<crate::scenario::CellResult>>,
) -> Story<'a> {
    let known = Known::new(lab.node_names(), &lab.seed);
    Story { lab, known, scenario, variant, library, evidence, results, part: None }
}
