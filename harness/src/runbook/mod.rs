//! Runbooks: Markdown files whose fenced shell blocks are the repair procedure.

pub mod library;
pub mod parse;
pub mod run;

use std::time::Duration;

/// A procedure, as its Markdown file tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runbook {
    /// The file, for messages.
    pub file: String,
    /// The first-level heading.
    pub title: String,
    /// The other headings, in order, with what is to be run under each.
    pub steps: Vec<RunbookStep>,
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
    /// The commands.
    pub script: String,
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
