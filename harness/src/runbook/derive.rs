//! Runbooks made of one: without one of its steps, or interrupted after one.

use serde::{Deserialize, Serialize};

use super::Runbook;

/// What was done to a runbook before it was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// This step was left out.
    Without(String),
    /// It was ended after this step and run again from its start.
    CutAfter(String),
}

/// A runbook that was made of another, in the order in which its parts run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// What to add to the whole's name, such as `without-2`.
    pub suffix: String,
    /// What was done to it.
    pub part: Part,
    /// What runs, one after the other in one work folder.
    pub runbooks: Vec<Runbook>,
}

/// The runbook without each of its steps: which of them are needed?
pub fn ablated(runbook: &Runbook) -> Vec<Derived> {
    let each = runbook.steps.iter().enumerate().map(|(index, step)| {
        let mut steps = runbook.steps.clone();
        steps.remove(index);
        Derived {
            suffix: format!("without-{}", index + 1),
            part: Part::Without(step.title.clone()),
            runbooks: vec![Runbook { steps, ..runbook.clone() }],
        }
    });
    each.collect()
}

/// The runbook ended between any two steps and run again from its start: does it converge?
pub fn interrupted(runbook: &Runbook) -> Vec<Derived> {
    let cuts = runbook.steps.len().saturating_sub(1);
    let each = runbook.steps.iter().take(cuts).enumerate().map(|(index, step)| {
        let begun = Runbook { steps: runbook.steps[..=index].to_vec(), ..runbook.clone() };
        Derived {
            suffix: format!("cut-after-{}", index + 1),
            part: Part::CutAfter(step.title.clone()),
            runbooks: vec![begun, runbook.clone()],
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::parse::parse;

    /// `suffix: titles of each part`.
    fn told(derived: &[Derived]) -> Vec<String> {
        let steps = |runbook: &Runbook| runbook.steps.iter().map(|step| step.title.as_str()).collect::<String>();
        let one = |one: &Derived| {
            let parts: Vec<String> = one.runbooks.iter().map(steps).collect();
            format!("{}: {}", one.suffix, parts.join(" then "))
        };
        derived.iter().map(one).collect()
    }

    #[test]
    fn one_step_is_left_out_or_the_whole_begins_again() {
        let runbook = parse("r.md", "## A\n```sh\na\n```\n## B\n```sh\nb\n```\n## C\n```sh\nc\n```\n").unwrap();
        assert_eq!(told(&ablated(&runbook)), ["without-1: BC", "without-2: AC", "without-3: AB"]);
        assert_eq!(told(&interrupted(&runbook)), ["cut-after-1: A then ABC", "cut-after-2: AB then ABC"]);
        assert_eq!(ablated(&runbook)[1].part, Part::Without("B".to_owned()));
    }
}
