//! Scenarios, their cells, and what a cell's verdict is.

use serde::{Deserialize, Serialize};

/// What a cell's procedure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A plausible repair that must not heal: proof that the check can fail.
    Control,
    /// What the source document says.
    Documented,
    /// What works best.
    Recommended,
    /// A runbook that someone brought.
    Yours,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Control => "control",
            Role::Documented => "documented",
            Role::Recommended => "recommended",
            Role::Yours => "yours",
        })
    }
}

/// What became of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Image pulls came back on every node and nothing was lost.
    #[serde(rename = "healed")]
    Healed,
    /// Image pulls did not come back.
    #[serde(rename = "not healed")]
    NotHealed,
    /// Image pulls came back, or not, and the inventory lacks something.
    #[serde(rename = "data lost")]
    DataLost,
    /// The fault did not show its symptom.
    #[serde(rename = "not reproduced")]
    NotReproduced,
    /// The lab itself failed; nothing is said of the procedure.
    #[serde(rename = "lab broken")]
    LabBroken,
    /// The cell was planned and did not run.
    #[serde(rename = "skipped")]
    Skipped,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Healed => "healed",
            Verdict::NotHealed => "not healed",
            Verdict::DataLost => "data lost",
            Verdict::NotReproduced => "not reproduced",
            Verdict::LabBroken => "lab broken",
            Verdict::Skipped => "skipped",
        })
    }
}

/// One variant with one procedure, as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellPlan {
    /// The scenario's name, such as `untrusted-ca`.
    pub scenario: String,
    /// The variant's name, such as `no-trust`.
    pub variant: String,
    /// The procedure's name, such as `documented`.
    pub procedure: String,
    /// What the procedure is.
    pub role: Role,
    /// What the verdict is known to be; a runbook that someone brings has none.
    pub expected: Option<Verdict>,
    /// Why it is expected.
    pub why: Option<String>,
}

/// One variant with one procedure, as it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// The scenario's name.
    pub scenario: String,
    /// The variant's name.
    pub variant: String,
    /// The procedure's name.
    pub procedure: String,
    /// What the procedure is.
    pub role: Role,
    /// What became of it.
    pub verdict: Verdict,
    /// What the verdict is known to be.
    pub expected: Option<Verdict>,
    /// Whether the verdict is the expected one. A cell without an expectation is as expected unless it was skipped or the
    /// lab broke.
    pub as_expected: bool,
    /// How long the cell took, in seconds.
    pub seconds: f64,
    /// What was seen that decided the verdict, and for an expected failure why it is expected.
    pub reason: String,
}

impl CellPlan {
    /// `scenario/variant/procedure`.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.scenario, self.variant, self.procedure)
    }

    /// The result of this cell.
    pub fn result(&self, verdict: Verdict, seconds: f64, reason: impl Into<String>) -> CellResult {
        let as_expected = match self.expected {
            Some(expected) => verdict == expected,
            None => !matches!(verdict, Verdict::LabBroken | Verdict::Skipped),
        };
        CellResult {
            scenario: self.scenario.clone(),
            variant: self.variant.clone(),
            procedure: self.procedure.clone(),
            role: self.role,
            verdict,
            expected: self.expected,
            as_expected,
            seconds,
            reason: reason.into(),
        }
    }
}
