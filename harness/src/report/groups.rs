//! GitHub's group markers: what lies between them can be folded. Groups do not nest, and what comes between two markers belongs to
//! the group: of labs side by side one is told at a time, and the others' lines wait.

use crate::run::events::{Event, EventKind, StepId};

/// The groups of a run.
#[derive(Debug, Default)]
pub(super) struct Groups {
    open: Option<StepId>,
    /// Outermost steps that have begun while another was open, in that order.
    waiting: Vec<Waiting>,
    /// What is told outside of groups, after the open one.
    outside: Vec<String>,
}

#[derive(Debug)]
struct Waiting {
    step: StepId,
    lines: Vec<String>,
    ended: bool,
}

impl Groups {
    /// The lines to write now, for the lines of `event`; `root` is the outermost step that it belongs to.
    pub(super) fn apply(&mut self, event: &Event, root: Option<StepId>, lines: Vec<String>) -> Vec<String> {
        match (&event.kind, root) {
            (EventKind::StepStarted { step, name, .. }, Some(root)) if *step == root => {
                let marked = std::iter::once(marker(name)).chain(lines);
                if self.open.is_none() {
                    self.open = Some(root);
                    return marked.collect();
                }
                self.waiting.push(Waiting { step: root, lines: marked.collect(), ended: false });
                Vec::new()
            }
            (EventKind::StepFinished { step, .. }, Some(root)) if *step == root => {
                if self.open == Some(root) {
                    return lines.into_iter().chain(self.close()).collect();
                }
                if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.step == root) {
                    waiting.lines.extend(lines);
                    waiting.ended = true;
                }
                Vec::new()
            }
            (EventKind::CellFinished { .. }, _) if self.open.is_some() => {
                self.outside.extend(lines);
                Vec::new()
            }
            (EventKind::RunFinished { .. }, _) => {
                let mut all = Vec::new();
                while self.open.is_some() {
                    all.extend(self.close());
                }
                all.extend(lines);
                all
            }
            (_, Some(root)) if self.open != Some(root) => {
                match self.waiting.iter_mut().find(|waiting| waiting.step == root) {
                    Some(waiting) => {
                        waiting.lines.extend(lines);
                        Vec::new()
                    }
                    None => lines,
                }
            }
            _ => lines,
        }
    }

    /// Ends the open group, tells those that have ended meanwhile, and begins the next that goes on.
    fn close(&mut self) -> Vec<String> {
        self.open = None;
        let mut told = vec![END.to_owned()];
        told.append(&mut self.outside);
        while !self.waiting.is_empty() {
            let next = self.waiting.remove(0);
            told.extend(next.lines);
            if !next.ended {
                self.open = Some(next.step);
                break;
            }
            told.push(END.to_owned());
        }
        told
    }
}

const END: &str = "::endgroup::";

fn marker(name: &str) -> String {
    format!("::group::{}", super::text::one_line(name))
}
