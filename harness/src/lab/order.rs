//! Bringing a lab in order before a variant: Harbor as it was when the lab was made. Damage is undone in place where it can
//! be, by a new installation where it cannot, and the inventory says when it is done.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::watcher,
};
use serde::de::DeserializeOwned;

use super::{Lab, LabError, certs, cluster, node::Node};
use crate::{
    harbor::{fill, inventory::Inventory},
    observe::{
        placement::{Placement, is_of},
        watch,
    },
    run::{events::Step, poll::Look},
};

/// How nodes and volumes are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Harbor's volumes anywhere; the gpu node has its taint.
    Anywhere,
    /// Harbor's volumes on the gpu node, which has no taint.
    OnGpuNode,
}

/// The node with the taint. The workers are alike, so either may be it.
#[derive(Debug, Clone)]
pub struct GpuNode {
    name: Arc<Mutex<String>>,
    /// Whether it may be the other one for the next variant, where Harbor's volumes lie there already. Not for who was told of a
    /// node by its name.
    pub moves: bool,
}

impl GpuNode {
    /// The last of `nodes`, for good.
    pub fn last_of(nodes: &[Node]) -> Self {
        let name = nodes.last().map(|node| node.name.clone()).unwrap_or_default();
        Self { name: Arc::new(Mutex::new(name)), moves: false }
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, name: &str) {
        name.clone_into(&mut self.name.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Whether bringing a lab in order changed anything that pulls or the inventory depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// It was in order.
    Untouched,
    /// Harbor, what it holds, or what nodes trust was changed.
    Changed,
}

/// The taint of the gpu node.
pub const GPU_TAINT: &str = "gpu=true:NoSchedule";
/// Where Harbor's state lies: registry, jobservice, database, Redis.
const CLAIMS: usize = 4;
const GONE: Duration = Duration::from_secs(120);

/// Brings the lab in order.
///
/// # Errors
/// The cluster refuses, or Harbor does not hold what it should even after a new installation.
pub async fn bring(lab: &Lab, order: Order, step: &Step) -> Result<Brought, LabError> {
    if order == Order::OnGpuNode && lab.gpu_node.moves {
        follow_volumes(lab, step).await?;
    }
    set_nodes(lab, order).await?;
    let mut changed = true;
    match in_place(lab, order, step).await? {
        InPlace::Whole => changed = false,
        InPlace::Refilled => {}
        InPlace::Amiss(why) => {
            step.events().note(format!("installing Harbor anew: {why}"));
            reinstall(lab, order, step).await?;
            fill_again(lab).await?;
            if let Some(losses) = losses(lab).await {
                return Err(LabError::NotInOrder(format!("Harbor, just installed and filled: {losses}")));
            }
        }
    }
    changed |= certs::trust_renewed(lab).await?;
    Ok(if changed { Brought::Changed } else { Brought::Untouched })
}

/// Puts the taint on the gpu node.
pub async fn taint(lab: &Lab) -> Result<(), LabError> {
    lab.kubectl().args(["taint", "node", &lab.gpu_node.name(), GPU_TAINT, "--overwrite"]).run().await?;
    Ok(())
}

/// Makes the other worker the gpu node where all of Harbor's volumes lie on it, as after a repair: that spares a new installation.
async fn follow_volumes(lab: &Lab, step: &Step) -> Result<(), LabError> {
    let placement = Placement::take(lab).await?;
    let old = lab.gpu_node.name();
    let Some(new) = placement.node_of_all_volumes() else { return Ok(()) };
    if new == old || !lab.nodes.iter().any(|node| node.name == new && !node.control_plane) {
        return Ok(());
    }
    untaint(lab).await?;
    lab.kubectl().args(["label", "node", &old, "gpu-"]).run().await?;
    lab.kubectl().args(["label", "node", new, "gpu=true"]).run().await?;
    lab.gpu_node.set(new);
    step.events().note(format!("{new} is the gpu node of {} now: Harbor's volumes lie there already", lab.id));
    Ok(())
}

async fn set_nodes(lab: &Lab, order: Order) -> Result<(), LabError> {
    lab.kubectl().args(["uncordon"]).args(lab.node_names()).run().await?;
    match order {
        Order::Anywhere => taint(lab).await,
        Order::OnGpuNode => untaint(lab).await,
    }
}

async fn untaint(lab: &Lab) -> Result<(), LabError> {
    let gpu_node = lab.gpu_node.name();
    let taints = Placement::take(lab).await?.nodes.remove(&gpu_node).unwrap_or_default();
    // A cordon is a taint too, and another one.
    if taints.iter().any(|taint| taint == GPU_TAINT) {
        lab.kubectl().args(["taint", "node", &gpu_node, &format!("{GPU_TAINT}-")]).run().await?;
    }
    Ok(())
}

/// How Harbor stands.
enum InPlace {
    /// It holds what it should.
    Whole,
    /// It does since it was filled again.
    Refilled,
    /// It cannot stay as it is, for this reason.
    Amiss(String),
}

/// How Harbor stands, if need be after it was filled again.
async fn in_place(lab: &Lab, order: Order, step: &Step) -> Result<InPlace, LabError> {
    let placement = Placement::take(lab).await?;
    let bound = placement.volumes.values().filter(|volume| !volume.nodes.is_empty()).count();
    if bound != CLAIMS {
        return Ok(InPlace::Amiss(format!("{bound} of {CLAIMS} claims are bound")));
    }
    let gpu_node = lab.gpu_node.name();
    let elsewhere = |node: &String| order == Order::OnGpuNode && *node != gpu_node;
    if let Some((claim, _)) = placement.volumes.iter().find(|(_, volume)| volume.nodes.iter().any(elsewhere)) {
        return Ok(InPlace::Amiss(format!("{claim} is not on {gpu_node}")));
    }
    if let Some((claim, _)) = placement.volumes.iter().find(|(_, volume)| !volume.provisioned) {
        return Ok(InPlace::Amiss(format!("the volume of {claim} was made by hand")));
    }
    if order == Order::Anywhere && !placement.volumes_on_tainted_nodes().is_empty() {
        return Ok(InPlace::Amiss("a volume is on a node that takes no new pods".to_owned()));
    }
    if !placement.released.is_empty() {
        remove_volumes(lab, &placement.released, step).await?;
    }
    if let Err(error) = cluster::wait_for_harbor(lab, step).await {
        return Ok(InPlace::Amiss(error.to_string()));
    }
    if losses(lab).await.is_none() {
        return Ok(InPlace::Whole);
    }
    empty_registry_cache(lab).await?;
    if let Err(error) = fill_again(lab).await {
        return Ok(InPlace::Amiss(error.to_string()));
    }
    Ok(losses(lab).await.map_or(InPlace::Refilled, InPlace::Amiss))
}

async fn losses(lab: &Lab) -> Option<String> {
    lab.reference.diff(&Inventory::take(lab).await).losses()
}

async fn fill_again(lab: &Lab) -> Result<(), LabError> {
    let ca = lab.harbor.ca(&lab.client).await?;
    Ok(fill::fill(&lab.harbor, &ca, &lab.seed).await?)
}

/// With a cache that believes in lost blobs a push uploads nothing.
async fn empty_registry_cache(lab: &Lab) -> Result<(), LabError> {
    let redis = format!("{}-redis-0", lab.harbor.release);
    let exec = lab.kubectl().args(["exec", "-n", &lab.harbor.namespace, &redis, "--"]);
    exec.args(["redis-cli", "-n", "2", "flushdb"]).run().await?;
    Ok(())
}

async fn reinstall(lab: &Lab, order: Order, step: &Step) -> Result<(), LabError> {
    let namespace = lab.harbor.namespace.as_str();
    let volumes = own_volumes(lab).await?;
    lab.helm().args(["uninstall", &lab.harbor.release, "-n", namespace, "--ignore-not-found"]).run().await?;
    // What procedures made beside the release goes with it. What the pods hold is given up, so they need no time to save it.
    let kinds = ["pods,jobs,persistentvolumeclaims,secrets", "--all", "--wait=false", "--grace-period=1"];
    lab.kubectl().args(["delete", "-n", namespace]).args(kinds).run().await?;
    gone(step, "Harbor's pods to go", Api::<Pod>::namespaced(lab.client.clone(), namespace), |_| true).await?;
    let claims = Api::<PersistentVolumeClaim>::namespaced(lab.client.clone(), namespace);
    gone(step, "Harbor's claims to go", claims, |_| true).await?;
    let others: Vec<String> = match order {
        Order::Anywhere => Vec::new(),
        Order::OnGpuNode => lab.node_names().into_iter().filter(|node| *node != lab.gpu_node.name()).collect(),
    };
    if !others.is_empty() {
        lab.kubectl().arg("cordon").args(&others).run().await?;
    }
    // The new claims get volumes of other names, so nothing waits for the old ones' folders to be removed.
    futures::try_join!(remove_volumes(lab, &volumes, step), cluster::install_harbor(lab, step))?;
    if !others.is_empty() {
        lab.kubectl().arg("uncordon").args(&others).run().await?;
    }
    cluster::wait_for_harbor(lab, step).await
}

/// The names of Harbor's volumes. A cluster that is not the lab's own has others.
async fn own_volumes(lab: &Lab) -> Result<Vec<String>, LabError> {
    let api = Api::<PersistentVolume>::all(lab.client.clone());
    let volumes = api.list(&ListParams::default()).await.map_err(LabError::kube("list the volumes"))?;
    let own = volumes.iter().filter(|volume| is_of(volume, &lab.harbor.namespace));
    Ok(own.map(PersistentVolume::name_any).collect())
}

async fn remove_volumes(lab: &Lab, names: &[String], step: &Step) -> Result<(), LabError> {
    let api = Api::<PersistentVolume>::all(lab.client.clone());
    for name in names {
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.map_err(LabError::kube(format!("delete the volume {name}")))?),
        }
    }
    gone(step, "the old volumes to go", api, |name| names.iter().any(|old| old == name)).await
}

/// Waits until none of those that `counts`, by their name, is left.
async fn gone<K>(step: &Step, what: &str, api: Api<K>, counts: impl Fn(&str) -> bool) -> Result<(), LabError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watch::until(step, what, GONE, api, watcher::Config::default(), |left| {
        let names: Vec<&str> = left.keys().map(String::as_str).filter(|name| counts(name)).collect();
        Ok(if names.is_empty() { Look::Ready(()) } else { Look::NotYet(format!("still there: {}", names.join(", "))) })
    })
    .await?;
    Ok(())
}
