//! Judging on what was recorded from runs, of each Kubernetes that is pinned.

#![allow(clippy::unwrap_used)]

use harness::{
    observe::{Observation, recorded, symptom::Judgement},
    run::judge::Known,
};
use rstest::rstest;
use untrusted_ca::{unknown_authority, unknown_authority_in_pods};

fn known() -> Known {
    recorded::known().unwrap()
}

fn recorded(kubernetes: &str, name: &str) -> Observation {
    recorded::read("untrusted-ca", kubernetes, name).unwrap()
}

#[rstest]
fn every_variant_shows_the_symptom_and_is_not_healed(
    #[values("1.32", "1.33", "1.34")] kubernetes: &str,
    #[values("no-trust", "config-path-missing", "wrong-host-dir", "store-not-reloaded", "ca-rotated")] variant: &str,
) {
    let seen = recorded(kubernetes, variant);
    let symptom = unknown_authority(&known(), &seen);
    assert!(symptom.holds(), "{symptom:?}");
    assert!(!known().primary_pulled(&seen).holds());
}

#[rstest]
fn the_baseline_is_healed_and_shows_no_symptom(#[values("1.32", "1.33", "1.34")] kubernetes: &str) {
    let seen = recorded(kubernetes, "baseline");
    assert!(known().all_pulled(&seen).holds(), "{:?}", known().all_pulled(&seen));
    assert!(!unknown_authority(&known(), &seen).holds());
}

#[test]
fn one_repaired_node_is_neither_healed_nor_the_whole_symptom() {
    let seen = recorded("1.34", "one-node-only");
    let healed = known().primary_pulled(&seen);
    assert!(matches!(&healed, Judgement::DoesNot(why) if !why.contains("worker2-gpu")), "{healed:?}");
    let symptom = unknown_authority(&known(), &seen);
    assert!(
        matches!(&symptom, Judgement::DoesNot(why) if why.contains("worker2-gpu, library/app:v1: pulled")),
        "{symptom:?}"
    );
}

/// What a kubelet that was restarted in the back-off has left of the cause: its own words in the status, the cause in the
/// events.
#[test]
fn the_cause_is_found_in_the_events_too() {
    let mut seen = recorded("1.34", "no-trust");
    for pull in &mut seen.pulls {
        pull.waiting_reason = Some("ImagePullBackOff".to_owned());
        pull.waiting_message = Some(format!("Back-off pulling image \"{}\"", pull.image));
    }
    assert!(unknown_authority_in_pods(&known(), &seen).holds());
    for pull in &mut seen.pulls {
        pull.events = vec!["Failed to pull image: connection refused".to_owned()];
    }
    assert!(!unknown_authority_in_pods(&known(), &seen).holds());
}

#[test]
fn the_pod_alone_does_not_convince() {
    let mut seen = recorded("1.34", "no-trust");
    let primary = known().primary;
    for pull in seen.pulls.iter_mut().filter(|pull| pull.image == primary) {
        pull.containerd = Some("h:30003/library/app@sha256:1234".to_owned());
    }
    let judgement = unknown_authority(&known(), &seen);
    assert!(matches!(&judgement, Judgement::DoesNot(why) if why.contains("containerd says")), "{judgement:?}");
    assert!(unknown_authority_in_pods(&known(), &seen).holds());
}

#[test]
fn another_digest_is_not_healed() {
    let mut seen = recorded("1.34", "baseline");
    seen.pulls[2].digest = Some("sha256:0000".to_owned());
    assert!(!known().all_pulled(&seen).holds());
}

#[test]
fn a_node_without_a_pod_is_neither() {
    for name in ["baseline", "no-trust"] {
        let mut seen = recorded("1.34", name);
        seen.pulls.retain(|pull| pull.node != "worker1");
        assert!(!known().primary_pulled(&seen).holds());
        assert!(!unknown_authority(&known(), &seen).holds());
    }
    assert!(!Known::default().all_pulled(&Observation::default()).holds());
    assert!(!unknown_authority(&Known::default(), &Observation::default()).holds());
}
