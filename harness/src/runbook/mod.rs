//! Runbooks: Markdown files whose fenced shell blocks are the repair procedure.

pub mod derive;
pub mod findings;
mod front;
pub mod library;
pub mod lint;
pub mod parse;
pub mod places;
pub mod run;
mod shell;
pub mod terminal;
pub mod transcript;
pub mod variables;
mod workstation;

use std::time::Duration;

/// How long a block may take where neither it nor the front matter says so.
pub const BLOCK_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How long a whole runbook may take where its front matter does not say so.
pub const RUNBOOK_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A procedure, as its Markdown file tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runbook {
    /// The file, for messages.
    pub file: String,
    /// The front matter's title, else the first first-level heading.
    pub title: String,
    /// The front matter's `SCENARIO` or `SCENARIO/VARIANT`: what it is run against where nothing else is said.
    pub scenario: Option<String>,
    /// How long all of it may take.
    pub limit: Duration,
    /// The front matter's variables, which every command has.
    pub variables: Vec<(String, String)>,
    /// The headings that have commands, in order.
    pub steps: Vec<RunbookStep>,
    /// Code blocks that are not run, because they do not say that they are shell.
    pub unmarked: Vec<Unmarked>,
}

/// What is under one heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunbookStep {
    /// The heading.
    pub title: String,
    /// Its commands, in order.
    pub blocks: Vec<Block>,
}

/// One fenced block of shell commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of the opening fence, counted from 1.
    pub line: usize,
    /// Where the commands run.
    pub on: Place,
    /// How long they may take.
    pub timeout: Duration,
    /// Whether they are meant to fail.
    pub fails: bool,
    /// For how long they are tried again until they end as meant.
    pub retry: Option<Duration>,
    /// Whether they are left out.
    pub skip: bool,
    /// The commands.
    pub script: String,
}

/// A code block without a language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmarked {
    /// Its line, counted from 1.
    pub line: usize,
    /// Its first line.
    pub first: String,
}

/// Where commands run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where the on-call sits: `kubectl` and `helm` reach the lab, and `crane` its Harbor.
    Workstation,
    /// On every node, in its container, as root.
    EachNode,
    /// On every node but the control plane.
    Workers,
    /// On the node with the taint `gpu=true:NoSchedule`.
    GpuNode,
}

impl Place {
    /// The name of every place, as an info string has it after `on=`.
    pub const NAMES: [(&'static str, Place); 4] = [
        ("workstation", Place::Workstation),
        ("each-node", Place::EachNode),
        ("workers", Place::Workers),
        ("gpu-node", Place::GpuNode),
    ];
}

impl Runbook {
    /// All blocks with the step that they belong to, in order.
    pub fn blocks(&self) -> impl Iterator<Item = (&RunbookStep, &Block)> {
        self.steps.iter().flat_map(|step| step.blocks.iter().map(move |block| (step, block)))
    }
}
