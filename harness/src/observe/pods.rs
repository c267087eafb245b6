//! What can be seen of a pod that pulls an image. Plain data, so that it can be recorded and judged without a cluster.

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

/// Whether the pod's `Ready` condition holds.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// One container's attempt to pull its image, as its pod's status tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullObservation {
    /// The node on which the pod was placed.
    pub node: String,
    /// The pod's name.
    pub pod: String,
    /// The image without its registry: `library/app:v1`.
    pub image: String,
    /// `ErrImagePull`, `ImagePullBackOff`, `ContainerCreating`, …; absent when the container does not wait.
    pub waiting_reason: Option<String>,
    /// The kubelet's words for it.
    pub waiting_message: Option<String>,
    /// The digest of the image that the container runs from, `sha256:…`; absent until it runs.
    pub digest: Option<String>,
    /// Why the pod is not on a node, where the scheduler says so.
    pub unschedulable: Option<String>,
    /// The events that say why the pull failed. From the back-off on, the status of older kubelets no longer has the cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// What the node's containerd answered when it was asked itself; absent where nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containerd: Option<String>,
    /// When the pull was first seen done; absent where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<DateTime<Utc>>,
}

impl PullObservation {
    /// Reads each container of a pod. A pod that no node has yet is on node "".
    pub fn of(pod: &Pod) -> Vec<Self> {
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let unschedulable = unscheduled(pod).map(|(reason, message)| format!("{reason}: {message}"));
        let statuses = status.container_statuses.unwrap_or_default();
        spec.containers
            .iter()
            .map(|container| {
                let status = statuses.iter().find(|status| status.name == container.name);
                let state = status.and_then(|status| status.state.clone()).unwrap_or_default();
                let waiting = state.waiting.unwrap_or_default();
                let ran = state.running.is_some() || state.terminated.is_some();
                let image = container.image.as_deref().unwrap_or_default();
                Self {
                    node: spec.node_name.clone().unwrap_or_default(),
                    pod: pod.metadata.name.clone().unwrap_or_default(),
                    image: image.split_once('/').map_or(image, |(_, name)| name).to_owned(),
                    waiting_reason: waiting.reason,
                    waiting_message: waiting.message,
                    digest: status
                        .filter(|_| ran)
                        .and_then(|status| status.image_id.rsplit_once('@').map(|(_, digest)| digest.to_owned())),
                    unschedulable: unschedulable.clone(),
                    events: Vec::new(),
                    containerd: None,
                    done: ran.then(Utc::now),
                }
            })
            .collect()
    }

    /// Whether the kubelet has tried to pull and failed.
    pub fn failed(&self) -> bool {
        matches!(self.waiting_reason.as_deref(), Some("ErrImagePull" | "ImagePullBackOff"))
    }

    /// Whether the kubelet's words for the failure, in the status or an event, have `words` in them.
    pub fn says(&self, words: &str) -> bool {
        self.waiting_message.iter().chain(&self.events).any(|said| said.contains(words))
    }

    /// Whether the failure is one of a Harbor that is on its way up, which passes by itself: nobody listens, or nginx finds no
    /// core behind it.
    pub fn may_pass(&self) -> bool {
        ["connection refused", "502 Bad Gateway", "503 Service"].iter().any(|words| self.says(words))
    }

    /// The attempt in a few words.
    pub fn words(&self) -> String {
        let node = if self.node.is_empty() { "no node" } else { &self.node };
        let node = format!("{node}, {}", self.image);
        if let Some(digest) = &self.digest {
            return format!("{node}: pulled {}", short(digest));
        }
        match (&self.waiting_reason, &self.waiting_message, &self.unschedulable) {
            (Some(reason), Some(message), _) => format!("{node}: {reason}: {message}"),
            (Some(reason), None, _) => format!("{node}: {reason}"),
            (None, _, Some(why)) => format!("{node}: {why}"),
            (None, _, None) => format!("{node}: not started"),
        }
    }
}

/// Reason and message of a pod that the scheduler has found no node for.
pub fn unscheduled(pod: &Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition =
        conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    Some((condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default()))
}

/// A digest cut to the length that people compare.
pub fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}
