//! The failure in which nodes do not trust the authority that signed Harbor's certificate.
//!
//! Pulls end with `tls: failed to verify certificate: x509: certificate signed by unknown authority`. Which part of a node's
//! configuration containerd reads, and when, decides each variant: see [`harness::lab::certs`].

use futures::{FutureExt, future::BoxFuture};
use harness::{
    harbor::seed::SeedImage,
    lab::{
        Lab, LabError,
        certs::{self, NodeTrust},
        cluster, node,
    },
    observe::{pods::PullObservation, pull, symptom::Judgement},
    run::{
        events::Step,
        runner::{Observation, Scenario},
    },
    scenario::{ScenarioSpec, SpecError},
};

/// The scenario.
pub struct UntrustedCa {
    spec: ScenarioSpec,
}

/// The procedures, as Markdown beside the fixtures.
const RUNBOOKS: [(&str, &str); 5] = [
    ("no-op", include_str!("../../../fixtures/runbooks/untrusted-ca/no-op.md")),
    ("redeploy-pods", include_str!("../../../fixtures/runbooks/untrusted-ca/redeploy-pods.md")),
    ("restart-kubelet", include_str!("../../../fixtures/runbooks/untrusted-ca/restart-kubelet.md")),
    ("one-node-only", include_str!("../../../fixtures/runbooks/untrusted-ca/one-node-only.md")),
    ("documented", include_str!("../../../fixtures/runbooks/untrusted-ca/documented.md")),
];

impl UntrustedCa {
    /// The scenario, with its cells as `scenario.toml` has them.
    ///
    /// # Errors
    /// A mistake in that file.
    pub fn new() -> Result<Self, SpecError> {
        let spec = ScenarioSpec::parse("scenarios/untrusted-ca/scenario.toml", include_str!("../scenario.toml"))?;
        Ok(Self { spec })
    }
}

impl Scenario for UntrustedCa {
    fn spec(&self) -> &ScenarioSpec {
        &self.spec
    }

    fn runbook(&self, procedure: &str) -> Option<&'static str> {
        RUNBOOKS.iter().find(|(name, _)| *name == procedure).map(|(_, text)| *text)
    }

    /// Every node trusts Harbor's authority, in every way there is.
    fn baseline<'a>(&'a self, lab: &'a Lab, _variant: &'a str, _step: &'a Step) -> BoxFuture<'a, Result<(), LabError>> {
        certs::trust_harbor(lab).boxed()
    }

    fn fault<'a>(&'a self, lab: &'a Lab, variant: &'a str, step: &'a Step) -> BoxFuture<'a, Result<(), LabError>> {
        async move {
            let host = &lab.harbor.host;
            let ca = lab.harbor.ca(&lab.client).await?;
            match variant {
                "no-trust" => certs::apply(&lab.nodes, &NodeTrust::default()).await,
                "config-path-missing" => {
                    let trust = NodeTrust { certs_d: Some((host.clone(), ca)), ..NodeTrust::default() };
                    certs::apply(&lab.nodes, &trust).await
                }
                "wrong-host-dir" => {
                    let without_port = host.split(':').next().unwrap_or(host).to_owned();
                    let trust =
                        NodeTrust { certs_d: Some((without_port, ca)), config_path: true, ..NodeTrust::default() };
                    certs::apply(&lab.nodes, &trust).await
                }
                "store-not-reloaded" => store_not_reloaded(lab, &ca).await,
                "ca-rotated" => rotate(lab, step).await,
                other => Err(LabError::NotInOrder(format!("untrusted-ca has no fault for the variant {other}"))),
            }
        }
        .boxed()
    }

    fn observe<'a>(
        &'a self,
        lab: &'a Lab,
        image: &'a SeedImage,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Observation, LabError>> {
        async move {
            pull::clear(lab, step, image).await?;
            // Harbor itself is in order throughout this scenario. Its pods are not Ready for some seconds after a procedure
            // restarts their kubelet, and a pull that meets that would wait out a back-off.
            cluster::wait_for_harbor(lab, step).await?;
            let mut pulls = pull::everywhere(lab, step, image, |pull| pull.says(UNKNOWN_AUTHORITY)).await?;
            let name = lab.harbor.image(&image.repository, &image.tag);
            // The pod tells the kubelet's side; the node's containerd is asked itself.
            let asked = futures::future::try_join_all(pulls.iter().map(|pull| async {
                match lab.nodes.iter().find(|node| node.name == pull.node && pull.failed()) {
                    Some(node) => pull::ask_containerd(node, &name).await.map(Some),
                    None => Ok(None),
                }
            }))
            .await?;
            for (pull, answer) in pulls.iter_mut().zip(asked) {
                pull.containerd = answer;
            }
            Ok(pulls)
        }
        .boxed()
    }

    fn symptom(&self, nodes: &[String], seen: &[PullObservation]) -> Judgement {
        unknown_authority(nodes, seen)
    }
}

/// containerd reads the system store at its first TLS check: it must have made one before the certificate comes.
async fn store_not_reloaded(lab: &Lab, ca: &str) -> Result<(), LabError> {
    certs::apply(&lab.nodes, &NodeTrust::default()).await?;
    let image = lab.harbor.image("library/any", "any");
    futures::future::try_join_all(lab.nodes.iter().map(|node| pull::ask_containerd(node, &image))).await?;
    node::on_each(&lab.nodes, |_| certs::system_store_script(ca)).await?;
    Ok(())
}

/// `helm upgrade` with the same values makes the chart issue a new authority; the nodes keep the old one.
async fn rotate(lab: &Lab, step: &Step) -> Result<(), LabError> {
    let old = lab.harbor.ca(&lab.client).await?;
    lab.helm()
        .args(["upgrade", &lab.harbor.release])
        .arg(&lab.chart)
        .args(["-n", &lab.harbor.namespace, "-f", "values.yaml"])
        .run()
        .await?;
    cluster::wait_for_harbor(lab, step).await?;
    if lab.harbor.ca(&lab.client).await? == old {
        return Err(LabError::NotInOrder("helm upgrade did not make a new authority".to_owned()));
    }
    Ok(())
}

/// The words of Go's x509 package, the same in every Kubernetes and containerd release so far.
const UNKNOWN_AUTHORITY: &str = "x509: certificate signed by unknown authority";

/// Whether on every node the pod failed to pull for an unknown authority, and the node's containerd says the same.
pub fn unknown_authority(nodes: &[String], seen: &[PullObservation]) -> Judgement {
    let mut wrong = Vec::new();
    for node in nodes {
        let Some(pull) = seen.iter().find(|pull| &pull.node == node) else {
            wrong.push(format!("{node}: no pod ran there"));
            continue;
        };
        let pod_says = pull.says(UNKNOWN_AUTHORITY);
        let node_says = pull.containerd.as_deref().is_some_and(|answer| answer.contains(UNKNOWN_AUTHORITY));
        match (pull.failed(), pod_says, node_says) {
            (true, true, true) => {}
            (true, true, false) => wrong.push(format!(
                "{node}: the pod fails for an unknown authority, but containerd says: {}",
                pull.containerd.as_deref().unwrap_or("nothing")
            )),
            _ => wrong.push(pull.words()),
        }
    }
    if nodes.is_empty() {
        return Judgement::DoesNot("there is no node to look at".to_owned());
    }
    if wrong.is_empty() {
        return Judgement::Holds(format!("{UNKNOWN_AUTHORITY} on {}", nodes.join(", ")));
    }
    Judgement::DoesNot(wrong.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_runbook_that_can_be_read() {
        let scenario = UntrustedCa::new().unwrap();
        for cell in scenario.spec().cells() {
            let text = scenario.runbook(&cell.procedure).unwrap_or_else(|| panic!("{} has no runbook", cell.path()));
            harness::runbook::parse::parse(&cell.procedure, text).unwrap();
        }
    }
}
