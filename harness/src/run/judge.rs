//! What a cell's verdict is: a function of what was seen, so that it is tested on recorded observations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    harbor::{inventory::Inventory, seed::Seed},
    observe::{
        Observation,
        symptom::{Judgement, pulled_everywhere},
    },
    scenario::Verdict,
};

/// What a judgement knows of the lab: plain data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The names of all nodes, control plane first.
    pub nodes: Vec<String>,
    /// What every node pulls -> the digest that it must come to. The image under test is `primary`.
    pub images: BTreeMap<String, String>,
    /// The image that a pull check looks at.
    pub primary: String,
}

impl Known {
    /// What is known of a lab with these nodes, filled with `seed`.
    pub fn new(nodes: Vec<String>, seed: &Seed) -> Self {
        Self { nodes, images: seed.digests(), primary: seed.primary().name() }
    }

    /// Whether the image under test was pulled on every node.
    pub fn primary_pulled(&self, seen: &Observation) -> Judgement {
        let primary = self.images.get_key_value(&self.primary).map(|(name, digest)| (name.clone(), digest.clone()));
        pulled_everywhere(&self.nodes, &primary.into_iter().collect(), &seen.pulls)
    }

    /// Whether every image was pulled on every node.
    pub fn all_pulled(&self, seen: &Observation) -> Judgement {
        pulled_everywhere(&self.nodes, &self.images, &seen.pulls)
    }
}

/// Healed means that the image under test pulls on every node, that nothing of the inventory is lost - every image pulls
/// then - and that the cause is gone. `failure` tells the command of the procedure that failed, if one did.
pub fn verdict(
    known: &Known,
    seen: &Observation,
    before: &Inventory,
    repaired: &Judgement,
    failure: Option<String>,
) -> (Verdict, String) {
    let with_failure = |reason: &str| match &failure {
        Some(failure) => format!("{failure}; {reason}"),
        None => reason.to_owned(),
    };
    let pulled = known.primary_pulled(seen);
    if !pulled.holds() {
        return (Verdict::NotHealed, with_failure(pulled.words()));
    }
    let all = known.all_pulled(seen);
    let losses = match &seen.inventory {
        Some(after) => before.diff(after).losses(),
        None => Some("nobody looked at what the registry holds".to_owned()),
    };
    let lost: Vec<String> = losses.into_iter().chain((!all.holds()).then(|| all.words().to_owned())).collect();
    if !lost.is_empty() {
        return (Verdict::DataLost, with_failure(&format!("{} pulls, but {}", known.primary, lost.join("; "))));
    }
    if !repaired.holds() {
        return (Verdict::NotHealed, with_failure(repaired.words()));
    }
    let mut reason = vec![all.words().to_owned(), "nothing of the inventory is lost".to_owned()];
    reason.extend(Some(repaired.words().to_owned()).filter(|words| !words.is_empty()));
    reason.extend(failure.map(|failure| format!("but {failure}")));
    (Verdict::Healed, reason.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::pods::PullObservation;

    fn known() -> Known {
        Known {
            nodes: vec!["worker1".into()],
            images: [("library/app:v1", "sha256:a"), ("team/api:v1", "sha256:b")]
                .map(|(name, digest)| (name.to_owned(), digest.to_owned()))
                .into(),
            primary: "library/app:v1".into(),
        }
    }

    fn pull(image: &str, digest: Option<&str>) -> PullObservation {
        PullObservation {
            node: "worker1".into(),
            image: image.into(),
            digest: digest.map(str::to_owned),
            waiting_reason: digest.is_none().then(|| "ErrImagePull".to_owned()),
            ..PullObservation::default()
        }
    }

    fn inventory() -> Inventory {
        let tags = [("library/app:v1".to_owned(), "sha256:a".to_owned())].into();
        Inventory { tags, ..Inventory::default() }
    }

    fn healed() -> Observation {
        Observation {
            pulls: vec![pull("library/app:v1", Some("sha256:a")), pull("team/api:v1", Some("sha256:b"))],
            inventory: Some(inventory()),
            placement: None,
        }
    }

    fn judged(seen: &Observation, repaired: bool) -> (Verdict, String) {
        let repaired = match repaired {
            true => Judgement::Holds("the cause is gone".to_owned()),
            false => Judgement::DoesNot("the cause is there".to_owned()),
        };
        verdict(&known(), seen, &inventory(), &repaired, None)
    }

    #[test]
    fn healed_is_pulls_and_inventory_and_the_cause() {
        let (verdict, reason) = judged(&healed(), true);
        assert_eq!(verdict, Verdict::Healed);
        assert_eq!(reason, "all 2 images pulled on worker1; nothing of the inventory is lost; the cause is gone");
        assert_eq!(judged(&healed(), false), (Verdict::NotHealed, "the cause is there".to_owned()));
    }

    #[test]
    fn without_the_image_under_test_nothing_else_counts() {
        let mut seen = healed();
        seen.pulls[0] = pull("library/app:v1", None);
        assert_eq!(judged(&seen, true).0, Verdict::NotHealed);
        seen.pulls.remove(0);
        assert_eq!(judged(&seen, true).0, Verdict::NotHealed);
    }

    #[test]
    fn a_pull_alone_is_no_proof() {
        let mut other_image = healed();
        other_image.pulls[1] = pull("team/api:v1", None);
        let mut no_tag = healed();
        no_tag.inventory = Some(Inventory::default());
        let mut not_looked = healed();
        not_looked.inventory = None;
        for seen in [other_image, no_tag, not_looked] {
            let (verdict, reason) = judged(&seen, true);
            assert_eq!(verdict, Verdict::DataLost, "{reason}");
            assert!(reason.starts_with("library/app:v1 pulls, but "), "{reason}");
        }
    }

    #[test]
    fn a_failed_command_is_told_with_any_verdict() {
        let of = |seen: &Observation| {
            verdict(&known(), seen, &inventory(), &Judgement::Holds(String::new()), Some("step 1 failed".to_owned())).1
        };
        assert!(of(&healed()).ends_with("; but step 1 failed"));
        assert!(of(&Observation::default()).starts_with("step 1 failed; "));
    }
}
