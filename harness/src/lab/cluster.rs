//! Making a lab: cluster, storage, Harbor, and the proof that it is in order.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bollard::Docker;
use k8s_openapi::api::core::v1::{Node as KubeNode, Pod};
use kube::{Api, config::KubeConfigOptions, runtime::watcher};

use super::{Lab, LabError, certs, engine::Engine, ledger::LAB_LABEL, node::Node, order::GpuNode, preflight, tool_env};
use crate::{
    cmd::Cmd,
    harbor::{Accounts, Harbor, api, drift::Drift, fill, inventory::Inventory, layout, seed::Seed},
    observe::{pods::is_ready, watch},
    run::{
        chapter::Chapter,
        events::{Events, HarborFacts, HarborKind, LabFacts, Step},
        poll::{Look, WaitError, poll},
    },
    source::{ingredients::Network, upstream::STOCK_STORAGE},
};

const CONFIG: &str = include_str!("../../../fixtures/clusters/lab.yaml");
const VALUES: &str = include_str!("../../../fixtures/values/harbor.yaml");

/// Harbor's namespace, and its release.
pub(super) const HARBOR: &str = "harbor";
/// Harbor's NodePort for HTTPS.
pub(super) const HARBOR_PORT: u16 = 30003;
/// The administrator's password that the lab's Harbor is installed with, the chart's own default. It is changed at once, as
/// an administrator does.
const INITIAL_PASSWORD: &str = "Harbor12345";

/// What a lab is made from.
#[derive(Debug, Clone)]
pub struct Parts {
    /// `upstream`, `packages` or `bundle`, for the report.
    pub source: String,
    /// The `kind` program.
    pub kind: PathBuf,
    /// The `kubectl` program.
    pub kubectl: PathBuf,
    /// The `helm` program.
    pub helm: PathBuf,
    /// The `crane` program.
    pub crane: PathBuf,
    /// The node image, present in the engine.
    pub node_image: String,
    /// Whose pod network and storage the node image brings.
    pub network: Network,
    /// Whether containerd's configuration is rewritten in version 3.
    pub containerd_config_3: bool,
    /// local-path-provisioner's manifest.
    pub local_path: String,
    /// Harbor's chart: a folder or a packed chart.
    pub chart: PathBuf,
    /// Lines added to `values.yaml`, such as the stand-in's image.
    pub extra_values: String,
    /// Which Harbor the chart installs.
    pub harbor_kind: HarborKind,
}

#[cfg(test)]
impl Parts {
    /// Parts that are only named.
    pub fn named() -> Self {
        Self {
            source: "packages".into(),
            kind: "kind".into(),
            kubectl: "kubectl".into(),
            helm: "helm".into(),
            crane: "crane".into(),
            node_image: "node".into(),
            network: Network::Drydock,
            containerd_config_3: false,
            local_path: String::new(),
            chart: "chart".into(),
            extra_values: String::new(),
            harbor_kind: HarborKind::StandIn,
        }
    }
}

/// How the lab is to be.
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// The lab's id; the cluster, the network and the work folder are named so.
    pub id: String,
    /// The work folder, which exists.
    pub dir: PathBuf,
    /// A host port on 127.0.0.1 that leads to Harbor.
    pub port: Option<u16>,
}

/// Makes a lab. It is ready when Harbor's health endpoint says so and an image could be pushed and its digest read back.
pub async fn create(
    engine: &Engine,
    parts: &Parts,
    spec: &LabSpec,
    events: &Events,
) -> Result<(Lab, LabFacts), LabError> {
    events
        .step("make the lab", |step| async move {
            step.tell(Chapter::Lab { lab: spec.id.clone() });
            let events = step.events();
            let tools = lay_tools(parts, &spec.dir)?;
            events.step("create the cluster", |step| create_cluster(engine, parts, spec, step)).await?;
            let docker = engine.docker();
            let (client, nodes) = connect(docker, &spec.id, &spec.dir).await?;
            if parts.containerd_config_3 {
                certs::configure_version_3(&nodes).await?;
            }
            let place = Place { id: &spec.id, dir: &spec.dir, address: address(docker, spec).await?, tools };
            let lab = place.lab(parts, client, nodes)?;
            let lab_ref = &lab;
            events.step("install storage", |_| install_storage(lab_ref, parts)).await?;
            furnish(lab, parts, events).await
        })
        .await
}

/// Who can log in to a lab's Harbor, before the robot's secret is known.
pub(super) fn accounts() -> Accounts {
    fill::accounts(INITIAL_PASSWORD)
}

/// In the lab's folder `dir`: the programs that procedures call.
pub(super) fn tools(dir: &Path) -> PathBuf {
    dir.join("bin")
}

/// Where a lab is.
pub(super) struct Place<'a> {
    /// The lab's id.
    pub id: &'a str,
    /// The work folder.
    pub dir: &'a Path,
    /// Where Harbor's NodePort is reached.
    pub address: String,
    /// The folder with the tools.
    pub tools: PathBuf,
}

impl Place<'_> {
    /// The lab there, whose last node is the gpu node. Harbor is not installed yet; its values are laid.
    pub fn lab(self, parts: &Parts, client: kube::Client, nodes: Vec<Node>) -> Result<Lab, LabError> {
        let Self { id, dir, address, tools } = self;
        let values = VALUES.replace("{address}", &address).replace("{password}", INITIAL_PASSWORD);
        write(&dir.join("values.yaml"), &format!("{values}{}", parts.extra_values))?;
        Ok(Lab {
            id: id.to_owned(),
            dir: dir.to_owned(),
            client,
            gpu_node: GpuNode::last_of(&nodes),
            nodes,
            harbor: Harbor {
                host: format!("{address}:{HARBOR_PORT}"),
                namespace: HARBOR.to_owned(),
                release: HARBOR.to_owned(),
                accounts: accounts(),
            },
            tools,
            chart: parts.chart.clone(),
            seed: Arc::new(Seed::new().map_err(|error| LabError::NotInOrder(error.to_string()))?),
            reference: Inventory::default(),
        })
    }
}

/// Installs Harbor in a lab that has storage, fills it, and proves that it is in order.
pub(super) async fn furnish(mut lab: Lab, parts: &Parts, events: &Events) -> Result<(Lab, LabFacts), LabError> {
    let images = lab.images();
    layout::lay_out(&lab.seed, &images).map_err(|source| LabError::File { doing: "lay", path: images, source })?;
    let lab_ref = &lab;
    events.step("install Harbor", |step| async move { install_harbor(lab_ref, &step).await }).await?;
    let (facts, reference) = events.step("fill Harbor", |step| prove(lab_ref, parts, step)).await?;
    lab.reference = reference;
    events.emit(crate::run::events::EventKind::LabReady { lab: facts.clone() });
    Ok((lab, facts))
}

/// A folder in the lab's with the programs that procedures call, under the names by which they call them.
pub(super) fn lay_tools(parts: &Parts, lab: &Path) -> Result<PathBuf, LabError> {
    let dir = tools(lab);
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| LabError::File { doing: "make", path, source }
    };
    std::fs::create_dir_all(&dir).map_err(wrong(&dir))?;
    for (name, program) in [("kubectl", &parts.kubectl), ("helm", &parts.helm), ("crane", &parts.crane)] {
        let link = dir.join(name);
        std::os::unix::fs::symlink(program, &link).map_err(wrong(&link))?;
    }
    Ok(dir)
}

async fn create_cluster(engine: &Engine, parts: &Parts, spec: &LabSpec, step: Step) -> Result<(), LabError> {
    // The network's label marks what belongs to a lab, because kind offers no label for its containers.
    engine.create_network(&spec.id, [(LAB_LABEL.to_owned(), spec.id.clone())].into()).await?;
    let config = spec.dir.join("kind.yaml");
    write(&config, &kind_config(parts, spec, engine.restricted(), !preflight::cgroup_v2()))?;
    step.waiting("kind");
    kind(engine, parts, spec)
        .args(["create", "cluster", "--name", &spec.id, "--image", &parts.node_image, "--retain", "--config"])
        .arg(&config)
        .arg("--kubeconfig")
        .arg(spec.dir.join("kubeconfig"))
        .run()
        .await?;
    Ok(())
}

/// `kind` on the lab's engine and network, with nothing of the user's in reach.
fn kind(engine: &Engine, parts: &Parts, spec: &LabSpec) -> Cmd {
    let cmd = engine
        .cmd(&parts.kind)
        .env("KIND_EXPERIMENTAL_PROVIDER", "docker")
        .env("KIND_EXPERIMENTAL_DOCKER_NETWORK", &spec.id)
        .limit(Duration::from_secs(420));
    tool_env(&spec.dir).into_iter().fold(cmd, |cmd, (name, value)| cmd.env(&name, value))
}

/// Kubernetes 1.35 and later refuse a cgroup v1 host unless they are told not to (KEP-5573).
fn kind_config(parts: &Parts, spec: &LabSpec, restricted: bool, cgroup_v1: bool) -> String {
    let ports = spec.port.map_or_else(
        || "[]".to_owned(),
        |port| format!("[{{containerPort: {HARBOR_PORT}, hostPort: {port}, listenAddress: 127.0.0.1}}]"),
    );
    CONFIG
        .replace("{disable_default_cni}", if parts.network == Network::Kind { "false" } else { "true" })
        .replace("{feature_gates}", if restricted { "{KubeletInUserNamespace: true}" } else { "{}" })
        .replace("{kubelet}", if cgroup_v1 { r#"["kind: KubeletConfiguration\nfailCgroupV1: false\n"]"# } else { "[]" })
        .replace("{port_mappings}", &ports)
}

/// A client of the cluster of the lab `id` in `dir`, and its nodes.
pub(super) async fn connect(docker: &Docker, id: &str, dir: &Path) -> Result<(kube::Client, Vec<Node>), LabError> {
    let path = dir.join("kubeconfig");
    let bad = |why: String| LabError::Kubeconfig { path: path.clone(), why };
    let kubeconfig = kube::config::Kubeconfig::read_from(&path).map_err(|error| bad(error.to_string()))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| bad(error.to_string()))?;
    // The API server is on this machine, whatever proxy the environment names.
    config.proxy_url = None;
    let client = kube::Client::try_from(config).map_err(|error| bad(error.to_string()))?;
    Ok((client, nodes(docker, id)))
}

/// The nodes of the lab `id`, as its kind configuration names them.
pub fn nodes(docker: &Docker, id: &str) -> Vec<Node> {
    let control_plane = format!("{id}-control-plane");
    let node = |name: &str, container: &str, control| Node::new(docker.clone(), name, container, control);
    vec![
        node(&control_plane, &control_plane, true),
        node("worker1", &format!("{id}-worker"), false),
        node("worker2-gpu", &format!("{id}-worker2"), false),
    ]
}

/// The control plane's address on the lab's network, where Harbor's NodePort is reached by nodes and by the workstation.
async fn address(docker: &Docker, spec: &LabSpec) -> Result<String, LabError> {
    let container = format!("{}-control-plane", spec.id);
    let found = docker
        .inspect_container(&container, None)
        .await
        .map_err(|source| LabError::Docker { doing: format!("inspect {container}"), source })?;
    found
        .network_settings
        .and_then(|settings| settings.networks)
        .and_then(|mut networks| networks.remove(&spec.id))
        .and_then(|endpoint| endpoint.ip_address)
        .filter(|address| !address.is_empty())
        .ok_or_else(|| LabError::NotInOrder(format!("{container} has no address on the network {}", spec.id)))
}

async fn install_storage(lab: &Lab, parts: &Parts) -> Result<(), LabError> {
    if parts.network == Network::Kind {
        for stock in STOCK_STORAGE {
            lab.kubectl().args(["delete", "--ignore-not-found"]).args(stock).run().await?;
        }
    }
    lab.kubectl().args(["apply", "--server-side", "-f", "-"]).stdin(parts.local_path.as_str()).run().await?;
    Ok(())
}

/// Installs Harbor as people do, and waits until its pods are Ready.
pub(super) async fn install_harbor(lab: &Lab, step: &Step) -> Result<(), LabError> {
    lab.helm()
        .args(["install", &lab.harbor.release])
        .arg(&lab.chart)
        .args(["-n", &lab.harbor.namespace, "--create-namespace", "-f", "values.yaml"])
        .run()
        .await?;
    wait_for_pods(lab, step).await
}

/// How long Harbor may think about its health before it is asked again. Just after a pod was replaced, its core may be asking
/// the old one, which never answers.
const HEALTH: Duration = Duration::from_secs(5);

/// Waits until every pod of Harbor is Ready, and Harbor says that it is healthy.
pub async fn wait_for_harbor(lab: &Lab, step: &Step) -> Result<(), LabError> {
    wait_for_pods(lab, step).await?;
    let ca = lab.harbor.ca(&lab.client).await?;
    let api = api::Api::new(&lab.harbor, &ca, &lab.harbor.accounts.admin)?;
    poll(step, "Harbor to be healthy", Duration::from_secs(180), Duration::from_millis(250), || async {
        Ok::<_, String>(match tokio::time::timeout(HEALTH, api.health()).await {
            Ok(Ok(health)) if health.status == "healthy" => Look::Ready(()),
            Ok(Ok(health)) => Look::NotYet(format!("unhealthy: {}", health.amiss().join(", "))),
            Ok(Err(error)) => Look::NotYet(error.to_string()),
            Err(_) => Look::NotYet(format!("no answer within {} s", HEALTH.as_secs())),
        })
    })
    .await?;
    Ok(())
}

/// Harbor's components, one pod each.
const COMPONENTS: usize = 7;

async fn wait_for_pods(lab: &Lab, step: &Step) -> Result<(), LabError> {
    let pods = Api::<Pod>::namespaced(lab.client.clone(), &lab.harbor.namespace);
    let harbor = watcher::Config::default().labels("app=harbor");
    watch::until(step, "Harbor's pods to be Ready", Duration::from_secs(300), pods, harbor, |pods| {
        let (ready, rest): (Vec<_>, Vec<_>) =
            pods.values().partition(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod));
        if ready.len() >= COMPONENTS && rest.is_empty() {
            return Ok(Look::Ready(()));
        }
        let rest: Vec<String> = rest.into_iter().map(|pod| pod.metadata.name.clone().unwrap_or_default()).collect();
        Ok(Look::NotYet(format!("{} Ready, not yet: {}", ready.len(), rest.join(", "))))
    })
    .await?;
    Ok(())
}

/// Harbor says that it is healthy, every node is Ready, and every image can be pushed and its digest read back.
async fn prove(lab: &Lab, parts: &Parts, step: Step) -> Result<(LabFacts, Inventory), LabError> {
    wait_for_harbor(lab, &step).await?;
    let nodes = wait_for_nodes(lab, &step).await?;
    let ca = lab.harbor.ca(&lab.client).await?;
    fill::fill(&lab.harbor, &ca, &lab.seed).await?;
    let info = api::Api::new(&lab.harbor, &ca, &lab.harbor.accounts.admin)?.system_info().await?;
    let reference = Inventory::take(lab).await;
    let (drift, unreadable) = (Drift::of(&reference), &reference.unreadable);
    if !drift.is_none() || !unreadable.is_empty() {
        let why = format!("a Harbor just filled: {}; {unreadable:?}", drift.words());
        return Err(LabError::NotInOrder(why));
    }
    let node = nodes.first().and_then(|node| node.status.as_ref()?.node_info.clone()).unwrap_or_default();
    let facts = LabFacts {
        source: parts.source.clone(),
        kubernetes: node.kubelet_version,
        containerd: node.container_runtime_version.trim_start_matches("containerd://").to_owned(),
        harbor: HarborFacts { kind: parts.harbor_kind, version: info.harbor_version },
    };
    Ok((facts, reference))
}

/// Waits until every node is Ready.
pub async fn wait_for_nodes(lab: &Lab, step: &Step) -> Result<Vec<KubeNode>, WaitError<String>> {
    let expected = lab.node_names();
    let nodes = Api::<KubeNode>::all(lab.client.clone());
    watch::until(step, "every node to be Ready", Duration::from_secs(120), nodes, watcher::Config::default(), |nodes| {
        let waiting: Vec<&str> =
            expected.iter().filter(|name| !nodes.get(*name).is_some_and(node_is_ready)).map(String::as_str).collect();
        Ok(if waiting.is_empty() {
            Look::Ready(nodes.values().cloned().collect())
        } else {
            Look::NotYet(format!("not yet: {}", waiting.join(", ")))
        })
    })
    .await
}

fn node_is_ready(node: &KubeNode) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(super) fn write(path: &Path, content: &str) -> Result<(), LabError> {
    std::fs::write(path, content).map_err(|source| LabError::File { doing: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(restricted: bool, port: Option<u16>) -> String {
        let spec = LabSpec { id: "lab".into(), dir: "lab".into(), port };
        kind_config(&Parts::named(), &spec, restricted, restricted)
    }

    #[test]
    fn no_placeholder_is_left_in_the_kind_configuration() {
        insta::assert_snapshot!(config(true, Some(30003)));
    }

    #[test]
    fn nothing_is_set_for_a_machine_as_they_are_today() {
        let config = config(false, None);
        assert!(config.contains("featureGates: {}") && config.contains("kubeadmConfigPatches: []"), "{config}");
    }
}
