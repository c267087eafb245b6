//! Judging on what was recorded from runs.

#![allow(clippy::unwrap_used)]

use harness::{
    observe::{Observation, recorded, symptom::Judgement},
    run::judge::Known,
};
use pv_drift::{Lost, agree, parted};
use rstest::rstest;

fn known() -> Known {
    recorded::known().unwrap()
}

fn recorded(name: &str) -> Observation {
    recorded::read("pv-drift", "1.34", name).unwrap()
}

#[rstest]
#[case("registry-volume-replaced", Lost::Storage)]
#[case("cache-gone-too", Lost::Storage)]
#[case("volume-rebound", Lost::Storage)]
#[case("blobs-lost", Lost::Storage)]
#[case("database-lost", Lost::Database)]
fn a_variant_shows_its_own_direction_and_not_the_other(#[case] variant: &str, #[case] lost: Lost) {
    let seen = recorded(variant);
    let other = if lost == Lost::Storage { Lost::Database } else { Lost::Storage };
    assert!(parted(lost, &known(), &seen).holds(), "{:?}", parted(lost, &known(), &seen));
    assert!(!parted(other, &known(), &seen).holds());
    assert!(!agree(&seen).holds());
    assert!(!known().primary_pulled(&seen).holds());
}

#[test]
fn from_the_pod_both_directions_look_alike() {
    for variant in ["registry-volume-replaced", "database-lost"] {
        let seen = recorded(variant);
        let primary = seen.pulls.iter().find(|pull| pull.image == known().primary).unwrap();
        assert!(primary.says("library/app:v1: not found"), "{}", primary.words());
    }
}

#[rstest]
#[case("baseline")]
#[case("recommended")]
fn what_is_in_order_or_healed_shows_neither_direction(#[case] phase: &str) {
    let seen = recorded(phase);
    for lost in [Lost::Storage, Lost::Database] {
        assert!(!parted(lost, &known(), &seen).holds());
    }
    assert!(known().all_pulled(&seen).holds());
    assert!(agree(&seen).holds());
}

#[test]
fn a_harbor_that_knows_it_is_unhealthy_is_another_failure() {
    let mut seen = recorded("registry-volume-replaced");
    seen.inventory.as_mut().unwrap().health = "unhealthy: registry".to_owned();
    let symptom = parted(Lost::Storage, &known(), &seen);
    assert!(matches!(&symptom, Judgement::DoesNot(why) if why.contains("unhealthy: registry")), "{symptom:?}");
}

#[test]
fn nothing_is_judged_without_a_look_at_the_registry() {
    let mut seen = recorded("registry-volume-replaced");
    seen.inventory = None;
    assert!(!parted(Lost::Storage, &known(), &seen).holds());
    assert!(!agree(&seen).holds());
    assert!(!parted(Lost::Storage, &Known::default(), &recorded("registry-volume-replaced")).holds());
}
