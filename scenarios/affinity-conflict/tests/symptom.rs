//! Judging on what was recorded from runs, of each Kubernetes that is pinned: the scheduler's words differ, the structure does not.

#![allow(clippy::unwrap_used)]

use affinity_conflict::{placed, stranded};
use harness::{
    observe::{Observation, recorded, symptom::Judgement},
    run::judge::Known,
};
use rstest::rstest;

const MOVED: [&str; 2] = ["jobservice", "registry"];

fn known() -> Known {
    recorded::known().unwrap()
}

fn recorded(kubernetes: &str, name: &str) -> Observation {
    recorded::read("affinity-conflict", kubernetes, name).unwrap()
}

#[rstest]
#[case("1.32", "node(s) had volume node affinity conflict")]
#[case("1.33", "node(s) didn't match PersistentVolume's node affinity")]
#[case("1.34", "node(s) didn't match PersistentVolume's node affinity")]
fn pods_are_stranded_in_whatever_words_the_scheduler_has(
    #[case] kubernetes: &str,
    #[case] words: &str,
    #[values("rollout", "rescheduled")] variant: &str,
) {
    let seen = recorded(kubernetes, variant);
    let symptom = stranded(&MOVED, &seen);
    assert!(matches!(&symptom, Judgement::Holds(why) if why.contains(words)), "{symptom:?}");
    assert!(!placed(&seen).holds());
}

#[test]
fn in_a_rollout_pulls_go_on_because_the_old_pods_run() {
    assert!(known().all_pulled(&recorded("1.34", "rollout")).holds());
    assert!(!known().primary_pulled(&recorded("1.34", "rescheduled")).holds());
}

#[test]
fn the_database_is_stranded_only_where_it_was_made_anew() {
    let all = ["database", "jobservice", "registry"];
    assert!(stranded(&all, &recorded("1.34", "database-too")).holds());
    assert!(!stranded(&all, &recorded("1.34", "rescheduled")).holds());
}

#[rstest]
#[case("recommended")]
#[case("lift-taint")]
fn after_a_repair_no_pod_is_stranded_and_every_pod_is_placed(#[case] phase: &str) {
    let seen = recorded("1.34", phase);
    assert!(!stranded(&MOVED, &seen).holds());
    assert!(placed(&seen).holds(), "{:?}", placed(&seen));
    assert!(known().all_pulled(&seen).holds());
}

#[test]
fn a_restarted_node_strands_no_pod_but_its_volumes_are_still_on_it() {
    let seen = recorded("1.34", "node-restarted");
    assert!(!stranded(&MOVED, &seen).holds());
    let placed = placed(&seen);
    assert!(matches!(&placed, Judgement::DoesNot(why) if why.contains("harbor-registry on worker2-gpu")), "{placed:?}");
}

#[test]
fn nothing_is_judged_without_a_look_at_the_pods() {
    for judgement in [stranded(&MOVED, &Observation::default()), placed(&Observation::default())] {
        assert!(!judgement.holds());
    }
    assert!(!stranded(&[], &recorded("1.34", "rollout")).holds());
}
