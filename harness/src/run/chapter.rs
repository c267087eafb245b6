//! What a step is in the story that a report tells, and what was found in it. A step's name is for people; this is for reports,
//! which must tell the steps of labs side by side apart.

use serde::{Deserialize, Serialize};

use crate::scenario::DrillStep;

/// What a step is, or what it found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Chapter {
    /// The step makes a lab.
    Lab {
        /// The lab's id.
        lab: String,
    },
    /// Everything of one variant in one lab is in the step.
    Variant {
        /// The scenario's name.
        scenario: String,
        /// The variant's name.
        variant: String,
        /// What is wrong in it, in one line.
        summary: String,
        /// The lab's id.
        lab: String,
    },
    /// The lab is brought in order, and what it holds is looked at.
    Baseline,
    /// Nothing was done to the lab since it was looked at after another cell: what was seen then is the baseline.
    SeenBefore {
        /// The cell, as `scenario/variant/procedure`.
        cell: String,
    },
    /// The lab is brought in order between two procedures.
    InOrder,
    /// The lab is broken.
    Fault,
    /// The failure was looked for.
    Symptom {
        /// Whether it shows.
        shows: bool,
        /// What was seen.
        words: String,
    },
    /// A cell's procedure is run and judged in the step.
    Procedure {
        /// The procedure's name.
        procedure: String,
    },
    /// A runbook was run.
    Runbook {
        /// Each block in each place, in order.
        blocks: Vec<DrillStep>,
        /// The last lines of what the block that failed printed, without secrets.
        said: Option<String>,
    },
    /// What the registry holds was compared with what it held before the fault.
    Inventory {
        /// How many of the lines are losses.
        lost: usize,
        /// A line for each difference, losses first.
        lines: Vec<String>,
    },
    /// What the cluster and the nodes say is gathered.
    Evidence,
}
