//! Where Harbor's pods and volumes are, and which nodes take what. Plain data, judged by structure: the scheduler's words
//! change from version to version.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, Toleration,
};
use kube::{Api, Resource, ResourceExt, api::ListParams, runtime::watcher};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    pods::{is_ready, unscheduled},
    watch,
};
use crate::{
    lab::{Lab, LabError},
    run::{
        events::Step,
        poll::{Look, WaitError},
    },
};

/// Pods, the volumes behind their claims, and the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Harbor's pods.
    pub pods: Vec<PodPlacement>,
    /// The volumes that Harbor's claims are bound to, by claim.
    pub volumes: BTreeMap<String, VolumePlacement>,
    /// Harbor's volumes that no claim is bound to any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<String>,
    /// The taints of each node that keep pods away, as `key=value:effect`; `unschedulable` for a cordoned one.
    pub nodes: BTreeMap<String, Vec<String>>,
}

/// One pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlacement {
    /// Its name.
    pub name: String,
    /// Harbor's component, such as `registry`.
    pub component: String,
    /// The node it runs on; empty while it has none.
    pub node: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// The claims that it mounts.
    pub claims: Vec<String>,
    /// The taints that it tolerates, as `key=value:effect`, or `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerates: Vec<String>,
    /// The reason of `PodScheduled=False`, such as `Unschedulable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscheduled: Option<String>,
    /// The scheduler's words for it: evidence, never judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_says: Option<String>,
}

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePlacement {
    /// The PersistentVolume's name; empty while the claim is bound to none.
    pub volume: String,
    /// The nodes that its nodeAffinity names; empty where it names none.
    pub nodes: Vec<String>,
    /// The folder on the node.
    pub path: String,
    /// Whether the provisioner made it; otherwise somebody did by hand.
    pub provisioned: bool,
}

impl PodPlacement {
    fn of(pod: &Pod) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let (unscheduled, scheduler_says) = unscheduled(pod).unzip();
        let claims = spec.volumes.unwrap_or_default().into_iter();
        let tolerates = spec.tolerations.unwrap_or_default();
        Self {
            name: pod.name_any(),
            component: pod.labels().get("component").cloned().unwrap_or_default(),
            node: spec.node_name.unwrap_or_default(),
            ready: pod.metadata.deletion_timestamp.is_none() && is_ready(pod),
            claims: claims.filter_map(|volume| Some(volume.persistent_volume_claim?.claim_name)).collect(),
            tolerates: tolerates.iter().filter_map(tolerated).collect(),
            unscheduled,
            scheduler_says,
        }
    }

    /// Whether a node with these taints takes it.
    fn may_go_to(&self, taints: &[String]) -> bool {
        taints.iter().all(|taint| self.tolerates.iter().any(|tolerated| tolerated == taint || tolerated == "*"))
    }
}

/// A toleration of a taint that keeps pods away for good; the ones that Kubernetes adds itself are for a while only.
fn tolerated(toleration: &Toleration) -> Option<String> {
    if toleration.toleration_seconds.is_some() {
        return None;
    }
    let Some(key) = &toleration.key else { return Some("*".to_owned()) };
    let value = toleration.value.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    Some(format!("{key}={value}:{effect}"))
}

/// Kubernetes' annotation on volumes that a provisioner has made.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Whether a volume is or was a claim's of this namespace. One that was let go of by hand names no claim any more; its folder, which
/// the provisioner has called `pvc-UID_NAMESPACE_CLAIM`, still does.
pub fn is_of(volume: &PersistentVolume, namespace: &str) -> bool {
    let Some(spec) = &volume.spec else { return false };
    match &spec.claim_ref {
        Some(claim) => claim.namespace.as_deref() == Some(namespace),
        None => path(spec).rsplit('/').next().is_some_and(|folder| folder.split('_').nth(1) == Some(namespace)),
    }
}

/// The folder on the node; empty for a volume that is none.
fn path(spec: &PersistentVolumeSpec) -> &str {
    let host = spec.host_path.as_ref().map(|host| host.path.as_str());
    host.or(spec.local.as_ref().map(|local| local.path.as_str())).unwrap_or_default()
}

/// Whether a provisioner has made it, and removes it.
pub fn is_provisioned(volume: &PersistentVolume) -> bool {
    volume.annotations().contains_key(PROVISIONED_BY)
}

fn is_released(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound")
}

/// The taints of a node that keep new pods away.
pub fn taints(node: &Node) -> Vec<String> {
    let spec = node.spec.clone().unwrap_or_default();
    let taints = spec.taints.unwrap_or_default().into_iter();
    taints
        .filter(|taint| taint.effect != "PreferNoSchedule")
        .map(|taint| format!("{}={}:{}", taint.key, taint.value.unwrap_or_default(), taint.effect))
        .collect()
}

fn volume(claim: &PersistentVolumeClaim, volumes: &[PersistentVolume]) -> VolumePlacement {
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    let found = volumes.iter().find(|volume| volume.name_any() == name);
    let provisioned = found.is_some_and(is_provisioned);
    let Some(spec) = found.and_then(|volume| volume.spec.clone()) else {
        return VolumePlacement { volume: name, ..VolumePlacement::default() };
    };
    let path = path(&spec).to_owned();
    let terms = spec.node_affinity.and_then(|affinity| affinity.required).map(|required| required.node_selector_terms);
    let nodes = terms
        .unwrap_or_default()
        .into_iter()
        .flat_map(|term| term.match_expressions.unwrap_or_default())
        .filter(|expression| expression.key == "kubernetes.io/hostname" && expression.operator == "In")
        .flat_map(|expression| expression.values.unwrap_or_default())
        .collect();
    VolumePlacement { volume: name, nodes, path, provisioned }
}

impl Placement {
    /// Looks at the lab.
    pub async fn take(lab: &Lab) -> Result<Self, LabError> {
        let harbor = ListParams::default().labels("app=harbor");
        let all = ListParams::default();
        let namespace = &lab.harbor.namespace;
        let pods: Vec<Pod> = list(Api::namespaced(lab.client.clone(), namespace), &harbor).await?;
        let claims: Vec<PersistentVolumeClaim> = list(Api::namespaced(lab.client.clone(), namespace), &all).await?;
        let volumes: Vec<PersistentVolume> = list(Api::all(lab.client.clone()), &all).await?;
        let nodes: Vec<Node> = list(Api::all(lab.client.clone()), &all).await?;
        let mut pods: Vec<PodPlacement> = pods.iter().map(PodPlacement::of).collect();
        pods.sort_by(|a, b| (&a.component, &a.name).cmp(&(&b.component, &b.name)));
        Ok(Self {
            pods,
            volumes: claims.iter().map(|claim| (claim.name_any(), volume(claim, &volumes))).collect(),
            released: volumes
                .iter()
                .filter(|volume| is_of(volume, namespace) && is_released(volume))
                .map(ResourceExt::name_any)
                .collect(),
            nodes: nodes.iter().map(|node| (node.name_any(), taints(node))).collect(),
        })
    }

    /// The pods that wait for a node because of their volumes: the scheduler finds them none, every node that their
    /// volumes can be reached from has a taint that they do not tolerate, and every other node is none of those.
    pub fn stranded(&self) -> Vec<&PodPlacement> {
        self.pods.iter().filter(|pod| self.is_stranded(pod)).collect()
    }

    fn is_stranded(&self, pod: &PodPlacement) -> bool {
        if !pod.node.is_empty() || pod.unscheduled.as_deref() != Some("Unschedulable") {
            return false;
        }
        let bound: Vec<&VolumePlacement> =
            pod.claims.iter().filter_map(|claim| self.volumes.get(claim)).filter(|at| !at.nodes.is_empty()).collect();
        let reaches = |node: &String| bound.iter().all(|volume| volume.nodes.contains(node));
        !bound.is_empty() && self.nodes.iter().all(|(node, taints)| !reaches(node) || !pod.may_go_to(taints))
    }

    /// The nodes whose taints keep Harbor's pods away and that a volume of Harbor's is bound to, with the claim.
    pub fn volumes_on_tainted_nodes(&self) -> Vec<(&str, &str)> {
        let tainted = |node: &&String| self.nodes.get(*node).is_some_and(|taints| !taints.is_empty());
        self.volumes
            .iter()
            .flat_map(|(claim, volume)| {
                volume.nodes.iter().filter(tainted).map(move |node| (claim.as_str(), node.as_str()))
            })
            .collect()
    }

    /// The one node that every volume of Harbor's can be reached from; nothing where they lie on several, or one is bound to none.
    pub fn node_of_all_volumes(&self) -> Option<&str> {
        let (_, first) = self.volumes.first_key_value()?;
        let [node] = first.nodes.as_slice() else { return None };
        self.volumes.values().all(|volume| volume.nodes == first.nodes).then_some(node)
    }

    /// What of Harbor does not stand as it should, in words; nothing when all does.
    pub fn amiss(&self) -> Option<String> {
        let pods =
            self.pods.iter().filter(|pod| !pod.ready).map(|pod| match (&pod.scheduler_says, pod.node.as_str()) {
                (Some(says), "") => format!("{} had no node ({says})", pod.name),
                (None, "") => format!("{} had no node", pod.name),
                (_, node) => format!("{} on {node} was not Ready", pod.name),
            });
        let claims = self.volumes.iter().filter(|(_, volume)| volume.nodes.is_empty());
        let claims = claims.map(|(claim, _)| format!("the claim {claim} had no volume"));
        let mut words: Vec<String> = pods.chain(claims).collect();
        if self.pods.is_empty() {
            words.push("Harbor had no pods".to_owned());
        }
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// The first words of the scheduler's on a stranded pod.
    pub fn scheduler_says(&self) -> Option<&str> {
        self.stranded().first().and_then(|pod| pod.scheduler_says.as_deref())
    }
}

async fn list<K>(api: Api<K>, params: &ListParams) -> Result<Vec<K>, LabError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let kind = K::plural(&K::DynamicType::default()).into_owned();
    Ok(api.list(params).await.map_err(LabError::kube(format!("list {kind}")))?.items)
}

/// How long Harbor's pods may take to come to rest.
const SETTLED: Duration = Duration::from_secs(180);

/// Waits until each of Harbor's pods is Ready or cannot be scheduled. Pods that come to no rest in time are no error: they
/// are what is then seen.
pub async fn settled(lab: &Lab, step: &Step) -> Result<(), LabError> {
    let pods = Api::<Pod>::namespaced(lab.client.clone(), &lab.harbor.namespace);
    let harbor = watcher::Config::default().labels("app=harbor");
    let outcome = watch::until(step, "Harbor's pods to come to rest", SETTLED, pods, harbor, |pods| {
        let placed: Vec<PodPlacement> = pods.values().map(PodPlacement::of).collect();
        // What depends on a pod that has no node does not become Ready either.
        if placed.iter().any(|pod| pod.unscheduled.is_some()) {
            return Ok(Look::Ready(()));
        }
        let open: Vec<&str> = placed.iter().filter(|pod| !pod.ready).map(|pod| pod.name.as_str()).collect();
        Ok(if open.is_empty() { Look::Ready(()) } else { Look::NotYet(format!("not Ready: {}", open.join(", "))) })
    })
    .await;
    match outcome {
        Ok(()) | Err(WaitError::TimedOut { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = "gpu=true:NoSchedule";

    fn placement(unscheduled: Option<&str>, volume_on: &str, gpu_taints: &[&str]) -> Placement {
        let pod = PodPlacement {
            name: "harbor-registry-1".into(),
            component: "registry".into(),
            claims: vec!["harbor-registry".into()],
            unscheduled: unscheduled.map(str::to_owned),
            ..PodPlacement::default()
        };
        let volume = VolumePlacement {
            volume: "pvc-1".into(),
            nodes: vec![volume_on.into()],
            path: "/v".into(),
            provisioned: true,
        };
        let taints = |taints: &[&str]| taints.iter().map(|taint| (*taint).to_owned()).collect();
        Placement {
            pods: vec![pod],
            volumes: [("harbor-registry".to_owned(), volume)].into(),
            released: Vec::new(),
            nodes: [("worker1".to_owned(), taints(&[])), ("worker2-gpu".to_owned(), taints(gpu_taints))].into(),
        }
    }

    #[test]
    fn a_pod_is_stranded_when_its_volume_is_on_a_node_that_does_not_take_it() {
        assert_eq!(placement(Some("Unschedulable"), "worker2-gpu", &[GPU]).stranded().len(), 1);
        assert_eq!(placement(Some("Unschedulable"), "worker2-gpu", &[]).stranded().len(), 0);
        assert_eq!(placement(Some("Unschedulable"), "worker1", &[GPU]).stranded().len(), 0);
        assert_eq!(placement(Some("SchedulerError"), "worker2-gpu", &[GPU]).stranded().len(), 0);
        assert_eq!(placement(None, "worker2-gpu", &[GPU]).stranded().len(), 0);
    }

    #[test]
    fn a_pod_that_tolerates_the_taint_is_not_stranded() {
        let mut placement = placement(Some("Unschedulable"), "worker2-gpu", &[GPU]);
        placement.pods[0].tolerates = vec![GPU.to_owned()];
        assert!(placement.stranded().is_empty());
    }

    #[test]
    fn a_volume_is_harbor_s_by_its_claim_or_else_by_its_folder() {
        let volume = |spec: serde_json::Value| {
            let volume = serde_json::json!({"metadata": {"name": "v"}, "spec": spec});
            is_of(&serde_json::from_value(volume).unwrap(), "harbor")
        };
        let at = |path: &str| serde_json::json!({"hostPath": {"path": path}});
        assert!(volume(serde_json::json!({"claimRef": {"namespace": "harbor", "name": "harbor-registry"}})));
        assert!(!volume(serde_json::json!({"claimRef": {"namespace": "shop", "name": "harbor-registry"}})));
        assert!(volume(at("/opt/local-path-provisioner/pvc-1_harbor_harbor-registry")));
        assert!(!volume(at("/opt/local-path-provisioner/pvc-1_shop_harbor-registry")));
        assert!(!volume(at("/srv/harbor")));
    }

    #[test]
    fn all_volumes_are_on_one_node_only_when_each_is_bound_to_it_alone() {
        let mut all = placement(None, "worker1", &[GPU]);
        assert_eq!(all.node_of_all_volumes(), Some("worker1"));
        let mut second = all.volumes["harbor-registry"].clone();
        all.volumes.insert("data-harbor-redis-0".into(), second.clone());
        assert_eq!(all.node_of_all_volumes(), Some("worker1"));
        for nodes in [vec![], vec!["worker2-gpu".to_owned()], vec!["worker1".to_owned(), "worker2-gpu".to_owned()]] {
            second.nodes = nodes;
            all.volumes.insert("data-harbor-redis-0".into(), second.clone());
            assert_eq!(all.node_of_all_volumes(), None);
        }
        all.volumes.clear();
        assert_eq!(all.node_of_all_volumes(), None);
    }

    #[test]
    fn volumes_on_tainted_nodes_are_named() {
        let on = placement(None, "worker2-gpu", &[GPU]);
        assert_eq!(on.volumes_on_tainted_nodes(), [("harbor-registry", "worker2-gpu")]);
        assert!(placement(None, "worker1", &[GPU]).volumes_on_tainted_nodes().is_empty());
    }
}
