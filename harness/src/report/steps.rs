//! The steps of a run: when each was, what it waited for, and what it is in the story of its variant.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::run::{
    chapter::Chapter,
    events::{Event, EventKind, StepId},
};

/// All steps of a run, as its events tell them.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    all: BTreeMap<StepId, Taken>,
    within: BTreeMap<Option<StepId>, Vec<StepId>>,
    first_error: Option<StepId>,
}

/// One step.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// The step it is part of.
    pub parent: Option<StepId>,
    /// As it was announced.
    pub name: String,
    /// When it began.
    pub began: DateTime<Utc>,
    /// How long it took, in seconds; none when its end was not told.
    pub seconds: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
    /// What it said that it waits for, in order.
    pub waits: Vec<Wait>,
    /// What it is, and what it found.
    pub chapters: Vec<Chapter>,
}

/// Something that a step waited for. That a wait has ended is not told: it ends at the latest when the step says something
/// else, or ends itself.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    /// What it waited for.
    pub what: String,
    /// What it last saw of it, where it said so.
    pub seen: Option<String>,
    /// When it was first told.
    pub from: DateTime<Utc>,
    /// When it was over; none when that was not told.
    pub until: Option<DateTime<Utc>>,
}

impl Steps {
    /// Adds what `event` says.
    pub fn apply(&mut self, event: &Event) {
        match &event.kind {
            EventKind::StepStarted { step, parent, name, .. } => {
                let taken = Taken {
                    parent: *parent,
                    name: name.clone(),
                    began: event.at,
                    seconds: None,
                    error: None,
                    waits: Vec::new(),
                    chapters: Vec::new(),
                };
                if self.all.insert(*step, taken).is_none() {
                    self.within.entry(*parent).or_default().push(*step);
                }
            }
            EventKind::StepWaiting { step, status } => {
                if let Some(taken) = self.all.get_mut(step) {
                    taken.waits_for(event.at, status);
                }
            }
            EventKind::StepFinished { step, seconds, error } => {
                if let Some(taken) = self.all.get_mut(step) {
                    taken.seconds = Some(*seconds);
                    taken.error.clone_from(error);
                    taken.stops_waiting(event.at);
                    if error.is_some() {
                        self.first_error.get_or_insert(*step);
                    }
                }
            }
            EventKind::Told { step, chapter } => {
                if let Some(taken) = self.all.get_mut(step) {
                    taken.chapters.push(chapter.clone());
                }
            }
            _ => {}
        }
    }

    /// One step.
    pub fn get(&self, step: StepId) -> Option<&Taken> {
        self.all.get(&step)
    }

    /// The steps within `parent`, or the outermost, in the order in which they began.
    pub fn within(&self, parent: Option<StepId>) -> impl Iterator<Item = (StepId, &Taken)> {
        let ids = self.within.get(&parent).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| Some((*id, self.all.get(id)?)))
    }

    /// The step that failed first: the innermost, because it ends before those around it.
    pub fn first_failed(&self) -> Option<(StepId, &Taken)> {
        self.first_error.and_then(|id| Some((id, self.all.get(&id)?)))
    }

    /// The names of the steps around this one, outermost first, then its own.
    pub fn path(&self, step: StepId) -> Vec<&str> {
        let mut path = Vec::new();
        let mut at = self.all.get(&step);
        // A record whose steps contain each other is damaged, and must not keep us here.
        while let Some(taken) = at
            && path.len() < self.all.len()
        {
            path.push(taken.name.as_str());
            at = taken.parent.and_then(|parent| self.all.get(&parent));
        }
        path.reverse();
        path
    }
}

impl Taken {
    /// When it ended, as far as that was told.
    pub fn ended(&self) -> Option<DateTime<Utc>> {
        let millis = (self.seconds? * 1000.0) as i64;
        self.began.checked_add_signed(chrono::TimeDelta::try_milliseconds(millis)?)
    }

    fn waits_for(&mut self, at: DateTime<Utc>, status: &str) {
        let (what, seen) = parts(status);
        let seen = seen.map(str::to_owned);
        match self.waits.last_mut() {
            Some(wait) if wait.what == what && wait.until.is_none() => wait.seen = seen.or(wait.seen.take()),
            _ => {
                self.stops_waiting(at);
                self.waits.push(Wait { what: what.to_owned(), seen, from: at, until: None });
            }
        }
    }

    fn stops_waiting(&mut self, at: DateTime<Utc>) {
        if let Some(wait) = self.waits.last_mut() {
            wait.until.get_or_insert(at);
        }
    }
}

/// What is waited for, and what was seen of it. A runbook's block is told as `Title (file:line)`, and its title may have colons.
fn parts(status: &str) -> (&str, Option<&str>) {
    let block = status.match_indices(')').map(|(at, _)| status.split_at(at + 1)).find(|(title, rest)| {
        let line = title.trim_end_matches(')').rsplit_once(':').map_or("", |(_, line)| line);
        !line.is_empty()
            && line.bytes().all(|byte| byte.is_ascii_digit())
            && (rest.is_empty() || rest.starts_with(": "))
    });
    match block {
        Some((block, seen)) => {
            let title = block.rsplit_once(" (").map_or(block, |(title, _)| title);
            (title, seen.strip_prefix(": "))
        }
        None => status.split_once(": ").map_or((status, None), |(what, seen)| (what, Some(seen))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{
        super::fixture::{ended, started, waiting},
        *,
    };

    fn steps(events: &[Event]) -> Steps {
        let mut steps = Steps::default();
        events.iter().for_each(|event| steps.apply(event));
        steps
    }

    #[test]
    fn a_wait_lasts_until_the_step_says_something_else_or_ends() {
        let steps = steps(&[
            started(0.0, 1, None, "install", None),
            waiting(1.0, 1, "pods: 3 Ready"),
            waiting(2.0, 1, "pods: 5 Ready"),
            waiting(4.0, 1, "Harbor: unhealthy"),
            ended(9.0, 1, 9.0, None),
        ]);
        let step = steps.get(1).unwrap();
        let waits: Vec<_> = step
            .waits
            .iter()
            .map(|wait| (wait.what.as_str(), wait.seen.as_deref(), (wait.until.unwrap() - wait.from).num_seconds()))
            .collect();
        assert_eq!(waits, [("pods", Some("5 Ready"), 3), ("Harbor", Some("unhealthy"), 5)]);
    }

    #[rstest]
    #[case("kind", "kind", None)]
    #[case("pods: 3 Ready, not yet: core", "pods", Some("3 Ready, not yet: core"))]
    #[case("Step 2: Restore (a/ours.md:14)", "Step 2: Restore", None)]
    #[case(
        "Step 2: Restore (all) (ours.md:14): exit status 1, tried 3 times",
        "Step 2: Restore (all)",
        Some("exit status 1, tried 3 times")
    )]
    #[case("a (b): c", "a (b)", Some("c"))]
    fn what_is_waited_for_is_told_from_what_is_seen(
        #[case] status: &str,
        #[case] what: &str,
        #[case] seen: Option<&str>,
    ) {
        assert_eq!(parts(status), (what, seen));
    }

    #[test]
    fn the_first_failure_is_the_innermost() {
        let steps = steps(&[
            started(0.0, 1, None, "v", None),
            started(0.0, 2, Some(1), "fault", None),
            ended(1.0, 2, 1.0, Some("no such node")),
            ended(1.0, 1, 1.0, Some("v: no such node")),
        ]);
        let (id, step) = steps.first_failed().unwrap();
        assert_eq!((id, step.error.as_deref()), (2, Some("no such node")));
        assert_eq!(steps.path(id), ["v", "fault"]);
    }

    #[test]
    fn steps_that_contain_each_other_do_not_keep_us() {
        let steps = steps(&[started(0.0, 1, Some(2), "a", None), started(0.0, 2, Some(1), "b", None)]);
        assert_eq!(steps.path(1).len(), 2);
    }
}
