//! Event streams for tests, at fixed times.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    run::events::{Event, EventKind, HarborFacts, HarborKind, LabFacts},
    scenario::{CellPlan, CellResult, Role, Verdict},
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
