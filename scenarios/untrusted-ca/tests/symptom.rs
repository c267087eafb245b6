//! Judging on what was recorded from runs: Kubernetes 1.34.4, containerd 2.1.5.

#![allow(clippy::unwrap_used)]

use harness::observe::{
    pods::PullObservation,
    symptom::{Judgement, pulled_everywhere},
};
use rstest::rstest;
use untrusted_ca::unknown_authority;

const DIGEST: &str = "sha256:a7a8bdba9cdd5fe1a7308fced8f6048a491f61a52de4ec43141a81b70c2e2049";

fn nodes() -> Vec<String> {
    ["control-plane", "worker1", "worker2-gpu"].map(str::to_owned).into()
}

fn recorded(name: &str) -> Vec<PullObservation> {
    let path = format!("{}/../../fixtures/observations/untrusted-ca/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[rstest]
#[case("no-trust")]
#[case("config-path-missing")]
#[case("wrong-host-dir")]
#[case("store-not-reloaded")]
#[case("ca-rotated")]
fn every_variant_shows_the_symptom_and_is_not_healed(#[case] variant: &str) {
    let seen = recorded(variant);
    assert!(unknown_authority(&nodes(), &seen).holds(), "{:?}", unknown_authority(&nodes(), &seen));
    assert!(!pulled_everywhere(&nodes(), DIGEST, &seen).holds());
}

#[test]
fn the_baseline_is_healed_and_shows_no_symptom() {
    let seen = recorded("baseline");
    assert!(pulled_everywhere(&nodes(), DIGEST, &seen).holds());
    assert!(!unknown_authority(&nodes(), &seen).holds());
}

#[test]
fn one_repaired_node_is_neither_healed_nor_the_whole_symptom() {
    let seen = recorded("one-node-only");
    let healed = pulled_everywhere(&nodes(), DIGEST, &seen);
    assert!(matches!(&healed, Judgement::DoesNot(why) if !why.contains("worker2-gpu")), "{healed:?}");
    let symptom = unknown_authority(&nodes(), &seen);
    assert!(matches!(&symptom, Judgement::DoesNot(why) if why.contains("worker2-gpu: pulled")), "{symptom:?}");
}

/// What kubelet puts around containerd's words, in each version: read from `pkg/kubelet/images/image_manager.go` of 1.32.2,
/// 1.33.13 and 1.34.4. In the back-off the cause stands behind the back-off's own words, unless the kubelet was restarted
/// meanwhile and has forgotten it; the events still have it.
#[rstest]
#[case::pulling("ErrImagePull", "{cause}", &[])]
#[case::backing_off("ImagePullBackOff", "Back-off pulling image \"h:30003/library/app:v1\": ErrImagePull: {cause}", &[])]
#[case::after_a_restart("ImagePullBackOff", "Back-off pulling image \"h:30003/library/app:v1\"", &["Failed to pull image \"h:30003/library/app:v1\": {cause}"])]
fn the_cause_is_found_wherever_the_kubelet_puts_it(
    #[values("1.32", "1.33", "1.34")] _kubernetes: &str,
    #[case] reason: &str,
    #[case] message: &str,
    #[case] events: &[&str],
) {
    let cause = recorded("no-trust")[0].waiting_message.clone().unwrap();
    let mut seen = recorded("no-trust");
    for pull in &mut seen {
        pull.waiting_reason = Some(reason.to_owned());
        pull.waiting_message = Some(message.replace("{cause}", &cause));
        pull.events = events.iter().map(|event| event.replace("{cause}", &cause)).collect();
    }
    assert!(unknown_authority(&nodes(), &seen).holds());
    let other = "connection refused";
    for pull in &mut seen {
        pull.waiting_message = Some(message.replace("{cause}", other));
        pull.events = events.iter().map(|event| event.replace("{cause}", other)).collect();
    }
    assert!(!unknown_authority(&nodes(), &seen).holds());
}

#[test]
fn the_pod_alone_does_not_convince() {
    let mut seen = recorded("no-trust");
    seen[1].containerd = Some("h:30003/library/app@sha256:1234".to_owned());
    let judgement = unknown_authority(&nodes(), &seen);
    assert!(matches!(&judgement, Judgement::DoesNot(why) if why.contains("containerd says")), "{judgement:?}");
}

#[test]
fn another_digest_is_not_healed() {
    let mut seen = recorded("baseline");
    seen[2].digest = Some("sha256:0000".to_owned());
    assert!(!pulled_everywhere(&nodes(), DIGEST, &seen).holds());
}

#[test]
fn a_node_without_a_pod_is_neither() {
    for name in ["baseline", "no-trust"] {
        let mut seen = recorded(name);
        seen.pop();
        assert!(!pulled_everywhere(&nodes(), DIGEST, &seen).holds());
        assert!(!unknown_authority(&nodes(), &seen).holds());
    }
    assert!(!pulled_everywhere(&[], DIGEST, &[]).holds());
    assert!(!unknown_authority(&[], &[]).holds());
}
