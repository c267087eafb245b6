//! Judging what was seen. Pure: a judgement is a function of an observation, so it is tested on recorded ones.

use std::collections::BTreeMap;

use super::pods::{PullObservation, short};

/// The words of Go's x509 package, the same in every Kubernetes and containerd release so far.
pub const UNKNOWN_AUTHORITY: &str = "x509: certificate signed by unknown authority";

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

/// Whether every one of `nodes` pulled each of `images` (name -> digest).
pub fn pulled_everywhere(nodes: &[String], images: &BTreeMap<String, String>, seen: &[PullObservation]) -> Judgement {
    let mut wrong = Vec::new();
    for node in nodes {
        for (image, digest) in images {
            match seen.iter().find(|pull| &pull.node == node && &pull.image == image) {
                None => wrong.push(format!("{node}: no pod with {image} ran there")),
                Some(PullObservation { digest: Some(pulled), .. }) if pulled == digest => {}
                Some(PullObservation { digest: Some(pulled), .. }) => {
                    wrong.push(format!("{node}: pulled {} as {image}, not {}", short(pulled), short(digest)));
                }
                Some(pull) => wrong.push(pull.words()),
            }
        }
    }
    if nodes.is_empty() || images.is_empty() {
        return Judgement::DoesNot("there is no node to pull on, or nothing to pull".to_owned());
    }
    if wrong.is_empty() {
        let images: Vec<&str> = images.keys().map(String::as_str).collect();
        return Judgement::Holds(format!("{} pulled on {}", named(&images), nodes.join(", ")));
    }
    Judgement::DoesNot(first_of(&wrong))
}

/// One image by its name, more by their number.
fn named(images: &[&str]) -> String {
    match images {
        [image] => (*image).to_owned(),
        many => format!("all {} images", many.len()),
    }
}

/// The first few of many like sentences, the rest counted.
pub fn first_of(sentences: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = sentences.get(..SHOWN).unwrap_or(sentences).join("; ");
    match sentences.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
