//! What a runbook did, block by block.

use serde::{Deserialize, Serialize};

use crate::scenario::DrillStep;

/// What one block did in one place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The runbook's file.
    pub file: String,
    /// The step's heading.
    pub step: String,
    /// The line of the block in its file.
    pub line: usize,
    /// `workstation`, or the node; empty where it did not run.
    pub place: String,
    /// The commands.
    pub script: String,
    /// How it ended: its exit status, that it was stopped, or that it was left out.
    pub ended: String,
    /// Whether it ended as meant.
    pub ok: bool,
    /// How often it was tried.
    pub tries: u32,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What it printed, standard output and standard error in the order in which they came.
    pub output: String,
}

/// What became of a runbook.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// Each block in each place, in order. It ends with the first block that failed.
    pub records: Vec<Record>,
}

/// So many lines of what a block has printed last are told, and at most so many bytes of them.
const LAST_LINES: usize = 40;
const LAST_BYTES: usize = 4096;

impl Record {
    /// The last lines of what it printed: why it failed is mostly there.
    pub fn last_words(&self) -> String {
        let output = self.output.trim_end();
        let from = output.len().saturating_sub(LAST_BYTES);
        let from = (from..=output.len()).find(|at| output.is_char_boundary(*at)).unwrap_or(output.len());
        let lines: Vec<&str> = output[from..].lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

/// What is told of a last line at most, in characters: the whole of it is in the transcript.
const LONGEST: usize = 400;

impl Transcript {
    /// How each block went in each place, without what it printed.
    pub fn blocks(&self) -> Vec<DrillStep> {
        let block = |record: &Record| DrillStep {
            step: record.step.clone(),
            file: record.file.clone(),
            line: record.line,
            place: record.place.clone(),
            ended: record.ended.clone(),
            ok: record.ok,
            seconds: record.seconds,
        };
        self.records.iter().map(block).collect()
    }

    /// What failed, if anything did.
    pub fn failed(&self) -> Option<&Record> {
        self.records.iter().find(|record| !record.ok)
    }

    /// The step at which it failed.
    pub fn stopped_at(&self) -> Option<String> {
        self.failed().map(|record| record.step.clone())
    }

    /// The first command that failed, in words.
    pub fn failure(&self) -> Option<String> {
        let record = self.failed()?;
        let last = record.output.trim().lines().last().unwrap_or("nothing");
        let last = last.char_indices().nth(LONGEST).map_or(last.to_owned(), |(at, _)| format!("{} …", &last[..at]));
        let Record { step, file, line, ended, .. } = record;
        // What never began did so nowhere.
        if record.place.is_empty() {
            return Some(format!("step `{step}` ({file}:{line}) failed: {ended}"));
        }
        Some(format!("step `{step}` ({file}:{line}) failed on {}: {ended}; it said: {last}", record.place))
    }

    /// The transcript as a person reads it: Markdown, as the runbook is.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for record in &self.records {
            let tries = if record.tries > 1 { format!(", {} tries", record.tries) } else { String::new() };
            text.push_str(&format!(
                "## {} ({}:{}){}: {}{tries}, {:.1} s\n\n{}\n{}\n",
                record.step,
                record.file,
                record.line,
                if record.place.is_empty() { String::new() } else { format!(" on {}", record.place) },
                record.ended,
                record.seconds,
                indented(&record.script),
                fenced(&record.output),
            ));
        }
        text
    }
}

/// As an indented code block.
fn indented(script: &str) -> String {
    script.lines().map(|line| format!("    {line}\n")).collect()
}

/// As a fenced block whose fence the text cannot close.
fn fenced(output: &str) -> String {
    let output = output.trim_end();
    if output.is_empty() {
        return String::new();
    }
    let longest = output.lines().map(|line| line.chars().take_while(|c| *c == '`').count()).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{output}\n{fence}\n")
}
