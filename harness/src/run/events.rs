//! Everything that happens in a run is one serialisable event. The terminal, `events.jsonl`, and the reports
//! are folds of the stream, so a run can be rendered again from its folder.
//!
//! To add an event: add the variant here, then handle it in `report::terminal`, and in `report::record`, which the
//! reports and the summary are made from. `events.jsonl` holds it without further work.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::chapter::Chapter;
use crate::scenario::{CellPlan, CellResult};

/// One thing that happened, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Wall-clock time.
    pub at: DateTime<Utc>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Names one step within a run.
pub type StepId = u64;

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// The run began; these cells are planned.
    RunStarted {
        /// The run's id, also in the names of what it creates.
        run: String,
        /// The cells in the order in which they will run. Empty for `up`.
        cells: Vec<CellPlan>,
    },
    /// A step began. Steps nest.
    StepStarted {
        /// The step.
        step: StepId,
        /// The step it is part of.
        parent: Option<StepId>,
        /// A sentence fragment such as `build the node image`.
        name: String,
        /// How long it usually takes, in seconds, where that is worth saying.
        usual_seconds: Option<u64>,
    },
    /// A step waits, and this is what it last saw.
    StepWaiting {
        /// The step.
        step: StepId,
        /// What it waits for and what was last seen.
        status: String,
    },
    /// A step of known size came forward.
    StepProgress {
        /// The step.
        step: StepId,
        /// How much is done, in units of `total`.
        done: u64,
        /// The whole.
        total: u64,
    },
    /// A step ended.
    StepFinished {
        /// The step.
        step: StepId,
        /// How long it took, in seconds.
        seconds: f64,
        /// Why it failed; absent when it did not.
        error: Option<String>,
    },
    /// What a step is in the story of its variant, or what it found.
    Told {
        /// The step.
        step: StepId,
        /// What it is.
        chapter: Chapter,
    },
    /// Something worth a line of its own, for example which source was taken and why.
    Note {
        /// The line.
        text: String,
    },
    /// The lab is ready; these are the facts about it that a report names.
    LabReady {
        /// The facts.
        lab: LabFacts,
    },
    /// A piece of evidence was written to the report folder.
    Evidence {
        /// The step that it belongs to.
        step: Option<StepId>,
        /// Path relative to the report folder.
        path: String,
    },
    /// A cell has its verdict.
    CellFinished {
        /// The verdict with all that belongs to it.
        cell: CellResult,
    },
    /// The run ended.
    RunFinished {
        /// Whether every cell was as expected and none is missing.
        passed: bool,
        /// How long it took, in seconds.
        seconds: f64,
        /// What broke the run as a whole (a lab fault, an interruption), if anything did.
        error: Option<String>,
    },
}

/// What a report says of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabFacts {
    /// `upstream`, `packages` or `bundle`.
    pub source: String,
    /// The API server's version, such as `v1.34.4`.
    pub kubernetes: String,
    /// The nodes' containerd version.
    pub containerd: String,
    /// Which Harbor it is.
    pub harbor: HarborFacts,
}

/// Which Harbor a lab runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarborFacts {
    /// Harbor itself, or what stands in for it.
    pub kind: HarborKind,
    /// As its `systeminfo` says.
    pub version: String,
}

/// Harbor itself, or what stands in for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HarborKind {
    /// The real Harbor.
    Harbor,
    /// Drydock's stand-in.
    StandIn,
}

impl std::fmt::Display for HarborKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            HarborKind::Harbor => "harbor",
            HarborKind::StandIn => "stand-in",
        })
    }
}

/// Where events go. Cheap to clone; every clone feeds the same stream.
#[derive(Debug, Clone)]
pub struct Events {
    sender: mpsc::Sender<Event>,
    next_step: Arc<AtomicU64>,
    parent: Option<StepId>,
}

impl Events {
    /// A stream and its receiving end.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        Self::channel_after(0)
    }

    /// A stream that goes on after the step `last` of an earlier one.
    pub fn channel_after(last: StepId) -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel();
        let events = Self { sender, next_step: Arc::new(AtomicU64::new(last + 1)), parent: None };
        (events, receiver)
    }

    /// A stream that nobody reads, for code that runs outside a run.
    pub fn discard() -> Self {
        Self::channel().0
    }

    /// Adds an event. A reader that is gone is no error: reporting never stops the work.
    pub fn emit(&self, kind: EventKind) {
        let _ = self.sender.send(Event { at: Utc::now(), kind });
    }

    /// Adds a line.
    pub fn note(&self, text: impl Into<String>) {
        self.emit(EventKind::Note { text: text.into() });
    }

    /// Runs `work` as a step named `name`; steps that `work` starts from the [`Step`] it is given nest in it.
    pub async fn step<T, E, W, F>(&self, name: impl Into<String>, work: W) -> Result<T, E>
    where
        E: std::fmt::Display,
        W: FnOnce(Step) -> F,
        F: Future<Output = Result<T, E>>,
    {
        self.step_usually(name, None, work).await
    }

    /// Like [`Events::step`], and says how long the step usually takes.
    pub async fn step_usually<T, E, W, F>(
        &self,
        name: impl Into<String>,
        usually: Option<Duration>,
        work: W,
    ) -> Result<T, E>
    where
        E: std::fmt::Display,
        W: FnOnce(Step) -> F,
        F: Future<Output = Result<T, E>>,
    {
        let id = self.next_step.fetch_add(1, Ordering::Relaxed);
        self.emit(EventKind::StepStarted {
            step: id,
            parent: self.parent,
            name: name.into(),
            usual_seconds: usually.map(|usual| usual.as_secs()),
        });
        let started = Instant::now();
        let mut finish = FinishStep { events: self, id, started, error: Some("interrupted".to_owned()) };
        let step = Step { id, events: Events { parent: Some(id), ..self.clone() } };
        let result = work(step).await;
        finish.error = result.as_ref().err().map(ToString::to_string);
        result
    }
}

/// Closes a step also when its future is dropped half way.
struct FinishStep<'a> {
    events: &'a Events,
    id: StepId,
    started: Instant,
    error: Option<String>,
}

impl Drop for FinishStep<'_> {
    fn drop(&mut self) {
        self.events.emit(EventKind::StepFinished {
            step: self.id,
            seconds: self.started.elapsed().as_secs_f64(),
            error: self.error.take(),
        });
    }
}

/// A step under way.
#[derive(Debug, Clone)]
pub struct Step {
    id: StepId,
    events: Events,
}

impl Step {
    /// The stream, for steps within this one.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// This step's id.
    pub fn id(&self) -> StepId {
        self.id
    }

    /// Says what the step waits for, and what it last saw.
    pub fn waiting(&self, status: impl Into<String>) {
        self.events.emit(EventKind::StepWaiting { step: self.id, status: status.into() });
    }

    /// Says what the step is in the story of its variant, or what it found.
    pub fn tell(&self, chapter: Chapter) {
        self.events.emit(EventKind::Told { step: self.id, chapter });
    }

    /// Says how far the step is.
    pub fn progress(&self, done: u64, total: u64) {
        self.events.emit(EventKind::StepProgress { step: self.id, done, total });
    }
}
