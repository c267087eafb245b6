//! Event streams for tests, at fixed times.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    run::chapter::Chapter,
    run::events::{Event, EventKind, HarborFacts, HarborKind, LabFacts},
    scenario::{CellPlan, CellResult, DrillStep, Role, Verdict},
};

/// So many seconds after the fixed beginning.
pub fn at(seconds: f64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_366_400, 0).unwrap() + TimeDelta::milliseconds((seconds * 1000.0) as i64)
}

pub fn event(seconds: f64, kind: EventKind) -> Event {
    Event { at: at(seconds), kind }
}

pub fn plan(path: &str, role: Role, expected: Option<Verdict>, why: Option<&str>) -> CellPlan {
    let [scenario, variant, procedure] = path.split('/').collect::<Vec<_>>()[..] else { panic!("{path}") };
    CellPlan {
        scenario: scenario.to_owned(),
        variant: variant.to_owned(),
        procedure: procedure.to_owned(),
        role,
        expected,
        why: why.map(str::to_owned),
        runbooks: Vec::new(),
        stops_at: None,
        part: None,
    }
}

pub fn plans() -> Vec<CellPlan> {
    use Verdict::{Healed, NotHealed};
    vec![
        plan("untrusted-ca/no-trust/no-op", Role::Control, Some(NotHealed), Some("nothing was done")),
        plan("untrusted-ca/no-trust/restart-kubelet", Role::Control, Some(NotHealed), Some("containerd verifies")),
        plan("untrusted-ca/no-trust/documented", Role::Documented, Some(Healed), None),
        plan("pv-drift/blobs-deleted/no-op", Role::Control, Some(NotHealed), None),
        plan(
            "pv-drift/blobs-deleted/documented",
            Role::Documented,
            Some(NotHealed),
            Some(
                "the registry's cache in Redis still believes in the blobs, so the push uploads nothing and says that it succeeded",
            ),
        ),
        plan("pv-drift/blobs-deleted/our-own.md", Role::Yours, None, None),
    ]
}

pub fn lab() -> LabFacts {
    LabFacts {
        source: "packages".to_owned(),
        kubernetes: "v1.34.4".to_owned(),
        containerd: "2.1.5".to_owned(),
        harbor: HarborFacts { kind: HarborKind::StandIn, version: "2.13.1".to_owned() },
    }
}

pub fn started(seconds: f64, step: u64, parent: Option<u64>, name: &str, usual_seconds: Option<u64>) -> Event {
    event(seconds, EventKind::StepStarted { step, parent, name: name.to_owned(), usual_seconds })
}

pub fn waiting(seconds: f64, step: u64, status: &str) -> Event {
    event(seconds, EventKind::StepWaiting { step, status: status.to_owned() })
}

pub fn ended(seconds: f64, step: u64, took: f64, error: Option<&str>) -> Event {
    event(seconds, EventKind::StepFinished { step, seconds: took, error: error.map(str::to_owned) })
}

pub fn result(seconds: f64, cell: CellResult) -> Event {
    event(seconds, EventKind::CellFinished { cell })
}

pub fn told(seconds: f64, step: u64, chapter: Chapter) -> Event {
    event(seconds, EventKind::Told { step, chapter })
}

/// The story of one variant whose cells are `plans`, told from `from` on with steps from `first` on: what each cell says is
/// `words`. A cell takes 10 s, and all before the first 20 s. Returns the first step that is free.
pub fn story(events: &mut Vec<Event>, from: f64, first: u64, plans: &[CellPlan], words: &str) -> u64 {
    let of = &plans[0];
    let (scenario, variant) = (of.scenario.clone(), of.variant.clone());
    let summary = format!("one way into it: {words}");
    let lab = "drydock-7f3a".to_owned();
    events.extend([
        started(from, first, None, &format!("{scenario}/{variant}"), None),
        told(from, first, Chapter::Variant { scenario, variant, summary, lab }),
    ]);
    for (step, name, chapter, begins, takes) in [
        (first + 1, "baseline", Chapter::Baseline, 0.0, 9.0),
        (first + 2, "fault", Chapter::Fault, 9.0, 5.0),
        (first + 3, "symptom", Chapter::Symptom { shows: true, words: words.to_owned() }, 14.0, 6.0),
    ] {
        events.extend([
            started(from + begins, step, Some(first), name, None),
            waiting(from + begins + 1.0, step, &format!("pulls on every node: 3 of 9 done, {words}")),
            waiting(from + begins + 3.0, step, "Harbor to be healthy: unhealthy: core"),
            evidence(from + begins + 3.5, step, of, name, "observation.json"),
            told(from + begins + takes, step, chapter),
            ended(from + begins + takes, step, takes, None),
        ]);
    }
    let mut step = first + 4;
    for (at, plan) in plans.iter().enumerate() {
        let begins = from + 20.0 + 10.0 * at as f64;
        let verdict = plan.expected.unwrap_or(Verdict::Healed);
        let fails = plan.role == Role::Control;
        events.extend([
            started(begins, step, Some(first), &format!("{} {}", plan.role, plan.procedure), None),
            told(begins, step, Chapter::Procedure { procedure: plan.procedure.clone() }),
        ]);
        let blocks: Vec<DrillStep> = (0..6).map(|number| block(plan, number, words, !(fails && number == 5))).collect();
        for block in &blocks {
            let at = begins + block.line as f64 / 10.0;
            events.push(waiting(at, step, &format!("{} ({}:{})", block.step, block.file, block.line)));
        }
        let said = fails.then(|| format!("running\n\t{words}\nexit"));
        let lines = (0..8).map(|number| format!("- tag library/app:v{number}: was {words}, is gone"));
        events.extend([
            told(begins + 6.5, step, Chapter::Runbook { blocks, said }),
            evidence(begins + 6.6, step, plan, &plan.procedure, "transcript.md"),
            evidence(begins + 8.0, step, plan, &plan.procedure, "observation.json"),
            evidence(begins + 9.0, step, plan, &plan.procedure, "inventory.json"),
            told(begins + 9.0, step, Chapter::Inventory { lost: 8, lines: lines.collect() }),
            evidence(begins + 9.0, step, plan, &plan.procedure, "inventory.diff"),
            ended(begins + 10.0, step, 10.0, None),
            result(begins + 10.0, plan.result(verdict, 10.0, words)),
        ]);
        step += 1;
    }
    let took = 20.0 + 10.0 * plans.len() as f64;
    events.push(ended(from + took, first, took, None));
    step
}

fn block(plan: &CellPlan, number: usize, words: &str, ok: bool) -> DrillStep {
    DrillStep {
        step: format!("Step {number}: {}", words.chars().take(40).collect::<String>()),
        file: format!("fixtures/runbooks/{}/{}.md", plan.scenario, plan.procedure),
        line: 10 + number * 10,
        place: if number == 3 { String::new() } else { "workstation".to_owned() },
        ended: if ok { "exit status 0".to_owned() } else { "exit status 1".to_owned() },
        ok,
        seconds: 1.0,
    }
}

fn evidence(seconds: f64, step: u64, plan: &CellPlan, phase: &str, name: &str) -> Event {
    let path = format!("evidence/{}/{}/{phase}/{name}", plan.scenario, plan.variant);
    event(seconds, EventKind::Evidence { step: Some(step), path })
}

/// A run of so many variants, six cells each, in which all is as expected; `words` are what everything says.
pub fn many(variants: usize, words: &str) -> Vec<Event> {
    use Verdict::{Healed, NotHealed};
    let why = Some("what is known of it is data beside the scenario, with the reason");
    let plans: Vec<Vec<CellPlan>> = (0..variants)
        .map(|number| {
            let cell = |procedure: &str, role, expected| {
                plan(&format!("scenario-{}/variant-{number}/{procedure}", number / 20), role, Some(expected), why)
            };
            vec![
                cell("no-op", Role::Control, NotHealed),
                cell("redeploy-pods", Role::Control, NotHealed),
                cell("restart-kubelet", Role::Control, NotHealed),
                cell("one-node-only", Role::Control, NotHealed),
                cell("documented", Role::Documented, Healed),
                cell("recommended", Role::Recommended, Healed),
            ]
        })
        .collect();
    let mut events = beginning();
    events[0] = event(0.0, EventKind::RunStarted { run: "drydock-7f3a".to_owned(), cells: plans.concat() });
    let (mut from, mut step) = (201.0, 100);
    for plans in &plans {
        step = story(&mut events, from, step, plans, words);
        from += 81.0;
    }
    events.push(event(from, EventKind::RunFinished { passed: true, seconds: from, error: None }));
    events
}

fn beginning() -> Vec<Event> {
    vec![
        event(0.0, EventKind::RunStarted { run: "drydock-7f3a".to_owned(), cells: plans() }),
        event(
            0.1,
            EventKind::Note { text: "images come from packages: the image registries do not answer".to_owned() },
        ),
        started(0.2, 1, None, "make the lab", Some(65)),
        started(0.2, 2, Some(1), "build the node image", Some(290)),
        started(0.3, 3, Some(2), "build coredns", None),
        waiting(40.0, 3, "go build: 210 of 480 packages"),
        event(70.0, EventKind::StepProgress { step: 3, done: 240, total: 480 }),
        ended(130.0, 3, 129.7, None),
        ended(140.0, 2, 139.8, None),
        started(140.0, 4, Some(1), "wait for Harbor", None),
        waiting(150.0, 4, "core is not ready: start-up probe failed"),
        ended(200.3, 4, 60.3, None),
        ended(200.4, 1, 200.2, None),
        event(200.5, EventKind::LabReady { lab: lab() }),
    ]
}

/// A run in which every cell was as expected.
pub fn good() -> Vec<Event> {
    let plans = plans();
    let mut events = beginning();
    events.extend([
        started(201.0, 5, None, "untrusted-ca/no-trust", None),
        result(
            212.0,
            plans[0].result(Verdict::NotHealed, 11.04, "worker1: x509: certificate signed by unknown authority"),
        ),
        result(
            230.0,
            plans[1].result(Verdict::NotHealed, 18.0, "worker1: x509: certificate signed by unknown authority"),
        ),
        result(
            245.0,
            plans[2].result(Verdict::Healed, 15.26, "every node pulled the baseline's digest; nothing is missing"),
        ),
        ended(246.0, 5, 45.0, None),
        result(260.0, plans[3].result(Verdict::NotHealed, 9.0, "worker1: not found")),
        result(300.0, plans[4].result(Verdict::NotHealed, 33.5, "worker1: not found; the push uploaded no file")),
        result(
            340.0,
            plans[5].result(Verdict::Healed, 31.0, "every node pulled the baseline's digest; nothing is missing"),
        ),
        event(345.0, EventKind::RunFinished { passed: true, seconds: 345.0, error: None }),
    ]);
    events
}

/// A run in which a repair did not heal, a control did, and the lab broke before the rest.
pub fn bad() -> Vec<Event> {
    let plans = plans();
    let mut events = beginning();
    let broken =
        "pull on worker1: containerd does not answer:\nconnection \u{1b}[31mrefused\u{1b}[0m \u{0}\u{fffe}<&\"]]>";
    events.extend([
        started(201.0, 5, None, "untrusted-ca/no-trust", None),
        started(201.0, 6, Some(5), "documented", None),
        event(
            210.0,
            EventKind::Evidence {
                step: Some(6),
                path: "evidence/untrusted-ca/no-trust/documented/pods.json".to_owned(),
            },
        ),
        result(
            212.0,
            plans[0].result(Verdict::NotHealed, 11.04, "worker1: x509: certificate signed by unknown authority"),
        ),
        result(230.0, plans[1].result(Verdict::Healed, 18.0, "every node pulled the baseline's digest")),
        result(
            245.0,
            plans[2].result(
                Verdict::NotHealed,
                15.26,
                "worker2-gpu: tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
        ),
        started(246.0, 7, Some(6), "pull", None),
        ended(250.0, 7, 4.0, Some(broken)),
        ended(250.0, 6, 49.0, Some(broken)),
        ended(250.0, 5, 49.0, Some(&format!("untrusted-ca/no-trust: {broken}"))),
        result(251.0, plans[3].result(Verdict::LabBroken, 3.0, broken)),
        event(
            252.0,
            EventKind::RunFinished { passed: false, seconds: 252.0, error: Some(format!("the lab broke: {broken}")) },
        ),
    ]);
    events
}

/// A run that was killed while it made its lab.
pub fn killed() -> Vec<Event> {
    let mut events = beginning();
    events.truncate(9);
    events
}
