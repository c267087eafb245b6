//! The failure in which nodes do not trust the authority that signed Harbor's certificate.
//!
//! Pulls end with `tls: failed to verify certificate: x509: certificate signed by unknown authority`. Which part of a node's
//! configuration containerd reads, and when, decides each variant: see [`harness::lab::certs`].

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use harness::{
    lab::{
        Lab, LabError,
        certs::{self, Config, NodeTrust},
        cluster, node,
        order::Brought,
    },
    observe::{
        Observation, pull,
        symptom::{Judgement, UNKNOWN_AUTHORITY, first_of},
    },
    run::{events::Step, judge::Known, runner::Scenario},
    scenario::{ScenarioSpec, SpecError},
};

/// The scenario.
pub struct UntrustedCa {
    spec: ScenarioSpec,
}

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

    /// Every node trusts Harbor's authority, in every way there is.
    fn baseline<'a>(
        &'a self,
        lab: &'a Lab,
        _variant: &'a str,
        _step: &'a Step,
    ) -> BoxFuture<'a, Result<Brought, LabError>> {
        certs::trust_harbor(lab).map_ok(|()| Brought::Changed).boxed()
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
                "config-version-3" => {
                    let certs_d = Some((host.clone(), ca));
                    certs::apply(&lab.nodes, &NodeTrust { certs_d, config: Config::Version3, ..NodeTrust::default() })
                        .await
                }
                "config-path-in-old-table" => {
                    let (certs_d, config) = (Some((host.clone(), ca)), Config::Version3WithOldTable);
                    certs::apply(&lab.nodes, &NodeTrust { certs_d, config, ..NodeTrust::default() }).await
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

    /// It says of every node what it trusts, and of Harbor which authority it has.
    fn fault_is_absolute(&self) -> bool {
        true
    }

    fn restarts_containerd(&self) -> bool {
        true
    }

    fn observe<'a>(
        &'a self,
        lab: &'a Lab,
        _variant: &'a str,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Observation, LabError>> {
        async move {
            // Harbor itself is in order throughout this scenario. Its pods are not Ready for some seconds after a procedure
            // restarts their kubelet, and a pull that meets that would wait out a back-off.
            cluster::wait_for_harbor(lab, step).await?;
            let mut pulls = pull::everywhere(lab, step, |pull| pull.says(UNKNOWN_AUTHORITY)).await?;
            let primary = lab.seed.primary().name();
            let name = format!("{}/{primary}", lab.harbor.host);
            // The pod tells the kubelet's side; the node's containerd is asked itself.
            let asked = futures::future::try_join_all(pulls.iter().map(|pull| async {
                let asks = pull.failed() && pull.image == primary;
                match lab.nodes.iter().find(|node| asks && node.name == pull.node) {
                    Some(node) => pull::ask_containerd(node, &name).await.map(Some),
                    None => Ok(None),
                }
            }))
            .await?;
            for (pull, answer) in pulls.iter_mut().zip(asked) {
                pull.containerd = answer;
            }
            Ok(Observation { pulls, ..Observation::default() })
        }
        .boxed()
    }

    fn symptom(&self, _variant: &str, known: &Known, seen: &Observation) -> Judgement {
        unknown_authority(known, seen)
    }
}

/// containerd reads the system store at its first TLS check: it must have made one before the certificate comes.
async fn store_not_reloaded(lab: &Lab, ca: &str) -> Result<(), LabError> {
    certs::apply(&lab.nodes, &NodeTrust::default()).await?;
    let image = format!("{}/library/any:any", lab.harbor.host);
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

/// Whether on every node the pod failed to pull every image for an unknown authority, and the node's containerd, asked for the
/// image under test, says the same.
pub fn unknown_authority(known: &Known, seen: &Observation) -> Judgement {
    let pod = unknown_authority_in_pods(known, seen);
    if !pod.holds() {
        return pod;
    }
    let mut wrong = Vec::new();
    for pull in seen.pulls.iter().filter(|pull| pull.image == known.primary) {
        let answer = pull.containerd.as_deref();
        if !answer.is_some_and(|answer| answer.contains(UNKNOWN_AUTHORITY)) {
            let answer = answer.unwrap_or("nothing");
            wrong.push(format!("{}: the pod fails for an unknown authority, but containerd says: {answer}", pull.node));
        }
    }
    if wrong.is_empty() { pod } else { Judgement::DoesNot(first_of(&wrong)) }
}

/// Whether on every node the pod failed to pull every image for an unknown authority.
pub fn unknown_authority_in_pods(known: &Known, seen: &Observation) -> Judgement {
    let mut wrong = Vec::new();
    for node in &known.nodes {
        for image in known.images.keys() {
            match seen.pulls.iter().find(|pull| &pull.node == node && &pull.image == image) {
                Some(pull) if pull.failed() && pull.says(UNKNOWN_AUTHORITY) => {}
                Some(pull) => wrong.push(pull.words()),
                None => wrong.push(format!("{node}: no pod with {image} ran there")),
            }
        }
    }
    if known.nodes.is_empty() || known.images.is_empty() {
        return Judgement::DoesNot("there is no node to look at, or nothing to pull".to_owned());
    }
    if wrong.is_empty() {
        return Judgement::Holds(format!("{UNKNOWN_AUTHORITY} on {}", known.nodes.join(", ")));
    }
    Judgement::DoesNot(first_of(&wrong))
}
