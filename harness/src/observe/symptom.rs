//! Judging what was seen. Pure: a judgement is a function of an observation, so it is tested on recorded ones.

use super::pods::{PullObservation, short};

/// What a look at an observation says, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It holds; these are the words for it.
    Holds(String),
    /// It does not, and this is what contradicts it.
    DoesNot(String),
}

impl Judgement {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        matches!(self, Judgement::Holds(_))
    }

    /// The words for it.
    pub fn words(&self) -> &str {
        match self {
            Judgement::Holds(words) | Judgement::DoesNot(words) => words,
        }
    }
}

/// Whether every one of `nodes` pulled the image with `digest`.
pub fn pulled_everywhere(nodes: &[String], digest: &str, seen: &[PullObservation]) -> Judgement {
    let mut wrong = Vec::new();
    for node in nodes {
        match seen.iter().find(|pull| &pull.node == node) {
            None => wrong.push(format!("{node}: no pod ran there")),
            Some(PullObservation { digest: Some(pulled), .. }) if pulled == digest => {}
            Some(PullObservation { digest: Some(pulled), .. }) => {
                wrong.push(format!("{node}: pulled {}, not the baseline's {}", short(pulled), short(digest)));
            }
            Some(pull) => wrong.push(pull.words()),
        }
    }
    if nodes.is_empty() {
        return Judgement::DoesNot("there is no node to pull on".to_owned());
    }
    if wrong.is_empty() {
        return Judgement::Holds(format!("{} pulled on {}", short(digest), nodes.join(", ")));
    }
    Judgement::DoesNot(wrong.join("; "))
}
