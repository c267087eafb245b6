//! The failure in which Harbor's database and the registry's storage have parted, after a volume was changed.
//!
//! Harbor lists the image and says that it is healthy, and no node can pull it. The registry's cache of blob descriptors in
//! Redis decides which repair heals: while it believes in lost blobs, pushing again uploads nothing.

use futures::{FutureExt, future::BoxFuture};
use harness::{
    harbor::{drift::Drift, inventory::Inventory},
    lab::{
        Lab, LabError, cluster,
        order::{self, Brought, Order},
    },
    observe::{Observation, pods::PullObservation, pull, symptom::Judgement},
    run::{events::Step, judge::Known, runner::Scenario},
    runbook::{
        self, Runbook,
        library::{Library, LibraryError},
    },
    scenario::{ScenarioSpec, SpecError},
};

/// The scenario.
pub struct PvDrift {
    spec: ScenarioSpec,
    faults: Library,
}

/// What of Harbor's two halves is the one that lost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The registry's storage: the database knows blobs that are not there.
    Storage,
    /// The database: the storage has blobs that it does not know.
    Database,
}

impl PvDrift {
    /// The scenario, with its cells as `scenario.toml` has them and its faults from `faults`.
    ///
    /// # Errors
    /// A mistake in that file.
    pub fn new(faults: &Library) -> Result<Self, SpecError> {
        let spec = ScenarioSpec::parse("scenarios/pv-drift/scenario.toml", include_str!("../scenario.toml"))?;
        Ok(Self { spec, faults: faults.clone() })
    }

    /// What breaks each variant, one after the other.
    fn faults(&self, variant: &str) -> Result<Vec<&Runbook>, LibraryError> {
        let replaced = "pv-drift/registry-volume-replaced";
        match variant {
            "cache-gone-too" => {
                [replaced, "pv-drift/redis-volume-replaced"].map(|name| self.faults.get(name)).into_iter().collect()
            }
            other => Ok(vec![self.faults.get(&format!("pv-drift/{other}"))?]),
        }
    }
}

impl Scenario for PvDrift {
    fn spec(&self) -> &ScenarioSpec {
        &self.spec
    }

    fn baseline<'a>(
        &'a self,
        lab: &'a Lab,
        _variant: &'a str,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Brought, LabError>> {
        order::bring(lab, Order::Anywhere, step).boxed()
    }

    fn fault<'a>(&'a self, lab: &'a Lab, variant: &'a str, step: &'a Step) -> BoxFuture<'a, Result<(), LabError>> {
        async move {
            let faults = self.faults(variant).map_err(|error| LabError::NotInOrder(error.to_string()))?;
            runbook::run::must(&faults, lab, step).await?;
            cluster::wait_for_harbor(lab, step).await
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
            // Harbor's processes are in order throughout this scenario; what they hold is not.
            cluster::wait_for_harbor(lab, step).await?;
            let decisive = |pull: &PullObservation| !pull.may_pass();
            let (pulls, inventory) = futures::join!(pull::everywhere(lab, step, decisive), Inventory::take(lab));
            Ok(Observation { pulls: pulls?, inventory: Some(inventory), placement: None })
        }
        .boxed()
    }

    fn symptom(&self, variant: &str, known: &Known, seen: &Observation) -> Judgement {
        let lost = if variant == "database-lost" { Lost::Database } else { Lost::Storage };
        parted(lost, known, seen)
    }

    fn repaired(&self, _variant: &str, seen: &Observation) -> Judgement {
        agree(seen)
    }
}

/// Whether the image under test fails to pull on every node while Harbor calls itself healthy, and `lost` is the half that lost
/// something. From a pod the two look alike: `not found`.
pub fn parted(lost: Lost, known: &Known, seen: &Observation) -> Judgement {
    let Some(inventory) = &seen.inventory else {
        return Judgement::DoesNot("nobody looked at what the registry holds".to_owned());
    };
    let primary: Vec<_> = seen.pulls.iter().filter(|pull| pull.image == known.primary).collect();
    for node in &known.nodes {
        match primary.iter().find(|pull| &pull.node == node) {
            Some(pull) if pull.failed() => {}
            Some(pull) => return Judgement::DoesNot(pull.words()),
            None => return Judgement::DoesNot(format!("{node}: no pod with {} ran there", known.primary)),
        }
    }
    if known.nodes.is_empty() {
        return Judgement::DoesNot("there is no node to look at".to_owned());
    }
    if inventory.health != "healthy" {
        return Judgement::DoesNot(format!("Harbor itself says: {}", inventory.health));
    }
    let drift = Drift::of(inventory);
    let listed = inventory.tags.get(&known.primary);
    let shows = match lost {
        Lost::Storage => listed.is_some() && !drift.storage_lacks.is_empty() && drift.database_lacks.is_empty(),
        Lost::Database => listed.is_none() && !drift.database_lacks.is_empty() && drift.storage_lacks.is_empty(),
    };
    let words = format!(
        "Harbor says that it is healthy and {} {}; {}",
        if listed.is_some() { "lists" } else { "does not list" },
        known.primary,
        drift.words()
    );
    if shows { Judgement::Holds(words) } else { Judgement::DoesNot(words) }
}

/// Whether database and storage agree blob by blob.
pub fn agree(seen: &Observation) -> Judgement {
    match seen.inventory.as_ref().map(Drift::of) {
        None => Judgement::DoesNot("nobody looked at what the registry holds".to_owned()),
        Some(drift) if drift.is_none() => Judgement::Holds(drift.words()),
        Some(drift) => Judgement::DoesNot(drift.words()),
    }
}
