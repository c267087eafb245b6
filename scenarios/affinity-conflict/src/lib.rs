//! The failure in which Harbor's pods stay Pending: their volumes of local storage lie on a node whose taint keeps new pods
//! away, and the volumes' nodeAffinity keeps them off every other.
//!
//! The taint evicts nothing, so the failure begins when pods are made anew. The scheduler says it in words that changed
//! (up to Kubernetes 1.32 "volume node affinity conflict", later "didn't match PersistentVolume's node affinity"); it is judged
//! by structure: see [`harness::observe::placement`].

use futures::{FutureExt, future::BoxFuture};
use harness::{
    harbor::inventory::Inventory,
    lab::{
        Lab, LabError, cluster,
        node::restart,
        order::{self, Brought, GPU_TAINT, Order},
    },
    observe::{
        Observation,
        placement::{self, Placement},
        pods::PullObservation,
        pull,
        symptom::Judgement,
    },
    run::{events::Step, judge::Known, runner::Scenario},
    runbook::{self, library::Library},
    scenario::{ScenarioSpec, SpecError},
};
use pv_drift::Lost;

/// The scenario.
pub struct AffinityConflict {
    spec: ScenarioSpec,
    faults: Library,
    runbooks: Library,
}

impl AffinityConflict {
    /// The scenario, with its cells as `scenario.toml` has them, its faults from `faults`, and for its chains, in which one
    /// failure's repair is the next one's fault, the procedures from `runbooks`.
    ///
    /// # Errors
    /// A mistake in that file.
    pub fn new(faults: &Library, runbooks: &Library) -> Result<Self, SpecError> {
        let spec = ScenarioSpec::parse("scenarios/affinity-conflict/scenario.toml", include_str!("../scenario.toml"))?;
        Ok(Self { spec, faults: faults.clone(), runbooks: runbooks.clone() })
    }

    async fn run(&self, library: &Library, name: &str, lab: &Lab, step: &Step) -> Result<(), LabError> {
        let runbook = library.get(name).map_err(|error| LabError::NotInOrder(error.to_string()))?;
        runbook::run::must(&[runbook], lab, step).await
    }
}

impl Scenario for AffinityConflict {
    fn spec(&self) -> &ScenarioSpec {
        &self.spec
    }

    /// Harbor's volumes are on the gpu node before it gets its taint.
    fn baseline<'a>(
        &'a self,
        lab: &'a Lab,
        _variant: &'a str,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Brought, LabError>> {
        order::bring(lab, Order::OnGpuNode, step).boxed()
    }

    fn fault<'a>(&'a self, lab: &'a Lab, variant: &'a str, step: &'a Step) -> BoxFuture<'a, Result<(), LabError>> {
        async move {
            order::taint(lab).await?;
            match variant {
                "node-restarted" => {
                    restart(&lab.nodes, &lab.gpu_node.name()).await?;
                    cluster::wait_for_nodes(lab, step).await?;
                    cluster::wait_for_harbor(lab, step).await
                }
                "then-untrusted-ca" => {
                    self.run(&self.faults, "affinity-conflict/rollout", lab, step).await?;
                    self.run(&self.runbooks, "affinity-conflict/documented", lab, step).await
                }
                "naive-then-pv-drift" => {
                    self.run(&self.faults, "affinity-conflict/rollout", lab, step).await?;
                    self.run(&self.runbooks, "affinity-conflict/node-affinity-only", lab, step).await
                }
                other => self.run(&self.faults, &format!("affinity-conflict/{other}"), lab, step).await,
            }
        }
        .boxed()
    }

    fn observe<'a>(
        &'a self,
        lab: &'a Lab,
        _variant: &'a str,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Observation, LabError>> {
        async move {
            placement::settled(lab, step).await?;
            // While a pod of Harbor's has no node, or is gone, no failed pull passes by itself.
            let at_rest = Placement::take(lab).await?.pods;
            let up = !at_rest.is_empty() && at_rest.iter().all(|pod| pod.ready);
            let hopeless = !up || cluster::wait_for_harbor(lab, step).await.is_err();
            let decisive = |pull: &PullObservation| hopeless || !pull.may_pass();
            let (pulls, inventory) = futures::join!(pull::everywhere(lab, step, decisive), Inventory::take(lab));
            let placement = Some(Placement::take(lab).await?);
            Ok(Observation { pulls: pulls?, inventory: Some(inventory), placement })
        }
        .boxed()
    }

    fn symptom(&self, variant: &str, known: &Known, seen: &Observation) -> Judgement {
        match variant {
            "then-untrusted-ca" => untrusted_ca::unknown_authority_in_pods(known, seen),
            "naive-then-pv-drift" => pv_drift::parted(Lost::Storage, known, seen),
            "database-too" => stranded(&["database", "jobservice", "registry"], seen),
            _ => stranded(&["jobservice", "registry"], seen),
        }
    }

    fn repaired(&self, _variant: &str, seen: &Observation) -> Judgement {
        placed(seen)
    }
}

/// Whether pods of all of `components` have no node because of their volumes.
pub fn stranded(components: &[&str], seen: &Observation) -> Judgement {
    let Some(placement) = &seen.placement else {
        return Judgement::DoesNot("nobody looked at where the pods are".to_owned());
    };
    let stranded = placement.stranded();
    let missing: Vec<&str> = components
        .iter()
        .filter(|component| !stranded.iter().any(|pod| pod.component == **component))
        .copied()
        .collect();
    if !missing.is_empty() || components.is_empty() {
        return Judgement::DoesNot(format!("no pod of {} is kept Pending by its volume", missing.join(", ")));
    }
    let names: Vec<&str> = stranded.iter().map(|pod| pod.name.as_str()).collect();
    let says = placement.scheduler_says().unwrap_or("nothing");
    Judgement::Holds(format!(
        "no node takes {} and reaches their volumes; the scheduler says: {says}",
        names.join(", ")
    ))
}

/// Whether every pod of Harbor's is Ready and none of its volumes is left on a node that takes no new pods.
pub fn placed(seen: &Observation) -> Judgement {
    let Some(placement) = &seen.placement else {
        return Judgement::DoesNot("nobody looked at where the pods are".to_owned());
    };
    let stranded: Vec<&str> = placement.stranded().iter().map(|pod| pod.name.as_str()).collect();
    if !stranded.is_empty() {
        return Judgement::DoesNot(format!("no node takes {} and reaches their volumes", stranded.join(", ")));
    }
    if let Some(pod) = placement.pods.iter().find(|pod| !pod.ready) {
        return Judgement::DoesNot(format!("{} is not Ready", pod.name));
    }
    if placement.pods.is_empty() {
        return Judgement::DoesNot("Harbor has no pods".to_owned());
    }
    let left = placement.volumes_on_tainted_nodes();
    if !left.is_empty() {
        let left: Vec<String> = left.iter().map(|(claim, node)| format!("{claim} on {node}")).collect();
        return Judgement::DoesNot(format!("volumes are still on nodes that take no new pods: {}", left.join(", ")));
    }
    let tainted = placement.nodes.values().flatten().any(|taint| taint == GPU_TAINT);
    let taint = if tainted { "in place" } else { "lifted" };
    Judgement::Holds(format!("every pod is Ready where its volumes are; the taint is {taint}"))
}
