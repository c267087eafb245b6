//! Looking at the lab: probes, and the pure judgement of what they saw.

pub mod placement;
pub mod pods;
pub mod pull;
pub mod recorded;
pub mod symptom;
pub mod watch;

use serde::{Deserialize, Serialize};

use self::{placement::Placement, pods::PullObservation};
use crate::harbor::inventory::Inventory;

/// What one look at the lab saw. Plain data, so that it can be recorded and judged without a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The pull of every image on every node.
    pub pulls: Vec<PullObservation>,
    /// What the registry holds, where the failure is judged on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// Where Harbor's pods and volumes are, where the failure is judged on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}
