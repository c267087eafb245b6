//! A look at a cluster that is there already, before anything in it is changed: what is there, what a lab would change, and whether
//! it can. Looking and judging are apart.

use std::{collections::BTreeMap, fmt, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::{ConfigMap, Namespace, Node, Service},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
    storage::v1::StorageClass,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, PostParams},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{access, target::Target};
use crate::{
    lab::{
        LabError,
        cluster::{HARBOR, HARBOR_PORT},
        order::GPU_TAINT,
        preflight::{Check, Outcome},
    },
    nearest::list as words,
    observe::{placement::taints, pull::APP},
};

/// The StorageClass that Harbor's volumes have, and runbooks name.
const CLASS: &str = "local-path";
/// Who makes its volumes.
const PROVISIONER: &str = "rancher.io/local-path";
/// The provisioner's namespace, where a lab installs it.
pub(super) const STORAGE_NAMESPACE: &str = "local-path-storage";
/// Where that provisioner makes volumes, and where a scenario makes a folder of its own.
const VOLUMES: &str = "/opt/local-path-provisioner";
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// A kubelet tells of no more of its images, by default.
const IMAGES_TOLD: usize = 50;
/// How long Harbor's address may take to answer or to refuse.
const ANSWER: Duration = Duration::from_secs(3);

/// The cluster as it was: on the disk before anything is changed, so that it can be put back by whoever comes later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// The context's name.
    pub context: String,
    /// The API server's address.
    pub server: String,
    /// The UID of its namespace `kube-system`: another cluster at that address has another.
    pub cluster: String,
    /// Its Kubernetes.
    pub kubernetes: String,
    /// The control plane first, then the workers; the gpu node is the last.
    pub nodes: Vec<NodeBefore>,
    /// The node that gets the taint.
    pub gpu_node: String,
    /// The address at which nodes and the workstation reach Harbor's NodePort.
    pub address: String,
    /// What the lab adds for Harbor's volumes.
    pub storage: Storage,
    /// The folders on nodes in which volumes are made.
    pub volume_folders: Vec<String>,
    /// The image of the pods that give access to nodes.
    pub helper: String,
}

/// A node as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeBefore {
    /// Its name.
    pub name: String,
    /// Whether it runs the control plane.
    pub control_plane: bool,
    /// Its taints, as `key=value:effect`.
    pub taints: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What a lab adds to a cluster for Harbor's volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// Nothing: the StorageClass is there.
    Nothing,
    /// The StorageClass; its provisioner is there.
    Class,
    /// Provisioner and StorageClass; the flag says whether the provisioner's namespace is there.
    Provisioner {
        /// Whether the namespace was there before.
        namespace_is_there: bool,
    },
}

/// What is there.
#[derive(Debug)]
pub struct Seen {
    context: String,
    server: String,
    kubernetes: String,
    nodes: Vec<Node>,
    namespaces: Vec<Namespace>,
    services: Vec<Service>,
    classes: Vec<StorageClass>,
    /// The provisioner's deployments and its objects without a namespace, as `kind name`.
    provisioners: Vec<String>,
    /// The provisioner's settings.
    settings: Vec<ConfigMap>,
    may_all: bool,
}

/// What the lab's pods run.
#[derive(Debug, Clone, Default)]
pub struct Images {
    /// What gives access to a node: busybox.
    pub helper: String,
    /// The storage provisioner's.
    pub provisioner: String,
    /// Harbor's, where they cannot be pulled and a node must have them.
    pub harbor: Vec<String>,
    /// Whether nodes can pull them.
    pub pullable: bool,
}

/// Looks at what is there. Nothing is changed.
///
/// # Errors
/// The API server cannot be reached, or refuses to tell.
pub async fn look(target: &Target, client: &kube::Client) -> Result<Seen, LabError> {
    let version = client.apiserver_version().await.map_err(LabError::kube("tell its version"))?;
    let deployments: Vec<Deployment> = all(client).await?;
    let roles: Vec<ClusterRole> = all(client).await?;
    let bindings: Vec<ClusterRoleBinding> = all(client).await?;
    let deployments = deployments
        .iter()
        .filter(|it| it.name_any() == "local-path-provisioner")
        .map(|it| format!("deployment {}/{}", it.namespace().unwrap_or_default(), it.name_any()));
    let roles = roles.iter().map(|role| format!("clusterrole {}", role.name_any()));
    let bindings = bindings.iter().map(|binding| format!("clusterrolebinding {}", binding.name_any()));
    let own = |name: &String| {
        name.ends_with(" local-path-provisioner-role") || name.ends_with(" local-path-provisioner-bind")
    };
    let provisioners = deployments.chain(roles.chain(bindings).filter(own)).collect();
    let settings = Api::<ConfigMap>::all(client.clone())
        .list(&ListParams::default().fields("metadata.name=local-path-config"))
        .await
        .map_err(LabError::kube("list the provisioner's settings"))?
        .items;
    Ok(Seen {
        context: target.context.clone(),
        server: target.server.clone(),
        kubernetes: version.git_version,
        nodes: all(client).await?,
        namespaces: all(client).await?,
        services: all(client).await?,
        classes: all(client).await?,
        provisioners,
        settings,
        may_all: may_all(client).await?,
    })
}

async fn all<K>(client: &kube::Client) -> Result<Vec<K>, LabError>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug,
    K::DynamicType: Default,
{
    let kind = K::plural(&K::DynamicType::default()).into_owned();
    let found = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    Ok(found.map_err(LabError::kube(format!("list {kind}")))?.items)
}

/// Whether this user may do everything: a lab installs, taints, and makes privileged pods.
async fn may_all(client: &kube::Client) -> Result<bool, LabError> {
    let every = |text: &str| Some(text.to_owned());
    let attributes = ResourceAttributes {
        group: every("*"),
        resource: every("*"),
        verb: every("*"),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone())
        .create(&PostParams::default(), &review)
        .await
        .map_err(LabError::kube("tell what this user may do"))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Whether Harbor's address can be reached from here: nothing listens there yet, so it refuses.
pub async fn reach(address: &str) -> Check {
    let name = format!("Harbor's address {address}:{HARBOR_PORT}");
    let asked = tokio::net::TcpStream::connect((address, HARBOR_PORT));
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Check::ok(name, "free, and reached"),
        Ok(Ok(_)) => Check::not(Outcome::Fail, name, "something answers there", "free the NodePort"),
        Ok(Err(error)) => Check::not(Outcome::Fail, name, error.to_string(), REACH),
        Err(_) => Check::not(Outcome::Fail, name, format!("no answer within {} s", ANSWER.as_secs()), REACH),
    }
}

const REACH: &str =
    "runbooks reach Harbor from this machine: run where the nodes' addresses and NodePorts can be reached";

impl Seen {
    /// What is to be remembered of the cluster, and the checks of whether a lab can be in it. There is nothing to remember when the
    /// nodes are too few.
    pub fn judge(&self, images: Option<&Images>) -> (Vec<Check>, Option<Before>) {
        let mut checks = vec![self.judge_rights(), self.judge_names(), self.judge_port()];
        checks.extend(self.nodes.iter().filter_map(judge_node));
        let (storage, check) = self.judge_storage();
        checks.push(check);
        if let Some(images) = images
            && !images.pullable
        {
            let wanted: Vec<&String> = [&images.helper]
                .into_iter()
                .chain(matches!(storage, Storage::Provisioner { .. }).then_some(&images.provisioner))
                .chain(&images.harbor)
                .collect();
            checks.push(self.judge_images(&wanted));
        }
        let helper = images.map(|images| images.helper.clone()).unwrap_or_default();
        let before = self.before(storage, helper);
        if before.is_none() {
            checks.push(Check::not(
                Outcome::Fail,
                "workers",
                format!("there are fewer than two that take every pod: {}", words(self.workers())),
                "add one, or lift a taint: the scenarios move Harbor between two",
            ));
        }
        (checks, before)
    }

    /// The workers that take every pod, by name.
    fn workers(&self) -> Vec<&str> {
        let free = self.nodes.iter().filter(|node| !is_control_plane(node) && taints(node).is_empty());
        let mut names: Vec<&str> = free.filter_map(|node| node.metadata.name.as_deref()).collect();
        names.sort_unstable();
        names
    }

    fn before(&self, storage: Storage, helper: String) -> Option<Before> {
        let workers = self.workers();
        let (gpu_node, others) = workers.split_last()?;
        let other = others.first()?;
        let mut nodes: Vec<NodeBefore> = self.nodes.iter().map(NodeBefore::of).collect();
        // The scenarios take the first worker for one that Harbor can go to.
        nodes.sort_by_key(|node| {
            let at = (!node.control_plane, node.name == *gpu_node, !node.taints.is_empty());
            (at, node.name.clone())
        });
        let stable = nodes.iter().find(|node| node.control_plane).map_or(*other, |node| node.name.as_str());
        let address = self.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(stable)).and_then(address)?;
        let uid = |namespace: &Namespace| namespace.metadata.uid.clone();
        let system = self.namespaces.iter().find(|namespace| namespace.name_any() == "kube-system");
        Some(Before {
            context: self.context.clone(),
            server: self.server.clone(),
            cluster: system.and_then(uid).unwrap_or_default(),
            kubernetes: self.kubernetes.clone(),
            gpu_node: (*gpu_node).to_owned(),
            nodes,
            address,
            storage,
            volume_folders: self.volume_folders(),
            helper,
        })
    }

    fn judge_rights(&self) -> Check {
        const NAME: &str = "rights";
        if self.may_all {
            return Check::ok(NAME, "this user may do everything");
        }
        Check::not(Outcome::Fail, NAME, "this user may not do everything", "take a context of a cluster-admin")
    }

    fn judge_names(&self) -> Check {
        let wanted = [HARBOR, APP, access::NAMESPACE];
        let there = self.namespaces.iter().map(ResourceExt::name_any).filter(|name| wanted.contains(&name.as_str()));
        let there: Vec<String> = there.collect();
        let name = format!("namespaces {}", wanted.join(", "));
        if there.is_empty() {
            return Check::ok(name, "free");
        }
        let remedy = "Drydock makes them, and removes them afterwards: it touches none that is there. If a killed run left them, \
                      `cargo xtask gc` puts that back";
        Check::not(Outcome::Fail, name, format!("there already: {}", there.join(", ")), remedy)
    }

    fn judge_port(&self) -> Check {
        let name = format!("NodePort {HARBOR_PORT}");
        let has = |service: &&Service| {
            let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
            ports.into_iter().flatten().any(|port| port.node_port == Some(HARBOR_PORT.into()))
        };
        match self.services.iter().find(has) {
            None => Check::ok(name, "free"),
            Some(service) => Check::not(
                Outcome::Fail,
                name,
                format!("the service {}/{} has it", service.namespace().unwrap_or_default(), service.name_any()),
                "Harbor's certificate and every image's name have this port: take another cluster",
            ),
        }
    }

    fn judge_storage(&self) -> (Storage, Check) {
        let name = format!("StorageClass {CLASS}");
        let fit = |class: &StorageClass| {
            class.provisioner == PROVISIONER
                && class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
                && class.reclaim_policy.as_deref() != Some("Retain")
        };
        let of = self.classes.iter().find(|class| class.name_any() == CLASS);
        if let Some(class) = of {
            let seen = format!(
                "provisioner {}, {}, {}",
                class.provisioner,
                class.volume_binding_mode.as_deref().unwrap_or("Immediate"),
                class.reclaim_policy.as_deref().unwrap_or("Delete"),
            );
            let check = if fit(class) {
                Check::ok(name, seen)
            } else {
                let remedy = format!("it must be {PROVISIONER}, WaitForFirstConsumer, Delete");
                Check::not(Outcome::Fail, name, seen, remedy)
            };
            return (Storage::Nothing, check);
        }
        if let Some(class) = self.classes.iter().find(|class| fit(class)) {
            return (Storage::Class, Check::ok(name, format!("free; its provisioner serves {}", class.name_any())));
        }
        let namespace_is_there = self.namespaces.iter().any(|namespace| namespace.name_any() == STORAGE_NAMESPACE);
        let storage = Storage::Provisioner { namespace_is_there };
        if self.provisioners.is_empty() {
            return (storage, Check::ok(name, "free, and so are the provisioner's names"));
        }
        let seen = format!("not there, and these of its provisioner's are: {}", self.provisioners.join(", "));
        let remedy = format!("make the StorageClass {CLASS} of that provisioner, or remove it");
        (storage, Check::not(Outcome::Fail, name, seen, remedy))
    }

    /// Images that cannot be pulled must be on every node.
    fn judge_images(&self, wanted: &[&String]) -> Check {
        const NAME: &str = "images";
        let lacking: Vec<(String, String, bool)> = self
            .nodes
            .iter()
            .map(|node| (node.name_any(), lacks(node, wanted)))
            .filter(|(_, (lacks, _))| !lacks.is_empty())
            .map(|(node, (lacks, all))| (node, lacks, all))
            .collect();
        let told: Vec<String> = lacking.iter().map(|(node, lacks, _)| format!("{node} lacks {lacks}")).collect();
        if told.is_empty() {
            return Check::ok(NAME, "every node has all that a lab runs");
        }
        let sure = lacking.iter().any(|(.., all)| *all);
        let seen = told.join("; ") + if sure { "" } else { ", or their kubelets do not tell" };
        let remedy = "they are built here and in no registry: load them with `ctr -n k8s.io images import`, make the cluster from \
                      Drydock's node image, or take --source upstream";
        Check::not(if sure { Outcome::Fail } else { Outcome::Warn }, NAME, seen, remedy)
    }

    /// The folders that the provisioner's settings name, and the lab's own.
    fn volume_folders(&self) -> Vec<String> {
        let read = |map: &ConfigMap| {
            let text = map.data.as_ref()?.get("config.json")?;
            serde_json::from_str::<serde_json::Value>(text).ok()
        };
        let of = |settings: serde_json::Value| {
            let nodes = settings["nodePathMap"].as_array().cloned().unwrap_or_default();
            nodes.into_iter().flat_map(|node| node["paths"].as_array().cloned().unwrap_or_default())
        };
        let paths = self.settings.iter().filter_map(read).flat_map(of);
        let mut folders: Vec<String> = paths.filter_map(|path| Some(path.as_str()?.to_owned())).collect();
        folders.push(VOLUMES.to_owned());
        // They become words of a shell script.
        folders.retain(|path| {
            path.starts_with('/') && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b))
        });
        folders.sort();
        folders.dedup();
        folders
    }
}

impl NodeBefore {
    fn of(node: &Node) -> Self {
        Self {
            name: node.name_any(),
            control_plane: is_control_plane(node),
            taints: all_taints(node),
            labels: node.labels().clone(),
        }
    }
}

/// The taints of a node that people set. Kubernetes sets others itself, by what the node's state is.
pub(super) fn all_taints(node: &Node) -> Vec<String> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut taints: Vec<String> = taints
        .into_iter()
        .filter(|taint| !taint.key.starts_with("node.kubernetes.io/"))
        .map(|taint| format!("{}={}:{}", taint.key, taint.value.unwrap_or_default(), taint.effect))
        .collect();
    taints.sort();
    taints
}

fn is_control_plane(node: &Node) -> bool {
    node.labels().contains_key(CONTROL_PLANE)
}

fn address(node: &Node) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP");
    internal.map(|address| address.address.clone())
}

/// What is wrong with a node, if anything is.
fn judge_node(node: &Node) -> Option<Check> {
    let name = node.name_any();
    let status = node.status.clone().unwrap_or_default();
    let info = status.node_info.unwrap_or_default();
    let ready = status.conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let (seen, remedy) = if !ready {
        ("it is not Ready".to_owned(), "bring it up, or remove it from the cluster")
    } else if cordoned {
        (
            "it is cordoned".to_owned(),
            "uncordon it: Drydock cordons and uncordons nodes, and would not know whose it was",
        )
    } else if info.operating_system != "linux" || !info.container_runtime_version.starts_with("containerd://2.") {
        let seen = format!("it runs {} on {}", info.container_runtime_version, info.operating_system);
        (seen, "the scenarios need containerd 2 on Linux on every node")
    } else if node.labels().get(HOSTNAME) != Some(&name) {
        let label = node.labels().get(HOSTNAME).map_or("absent", String::as_str).to_owned();
        (format!("its label {HOSTNAME} is {label}"), "volumes are bound to that label, and it must be the node's name")
    } else if name.len() > 63 || address(node).is_none() {
        ("its name is longer than 63 characters, or it has no InternalIP".to_owned(), "take another cluster")
    } else if all_taints(node).iter().any(|taint| taint == GPU_TAINT) {
        (format!("it has the taint {GPU_TAINT}"), "lift it for the time of the run: the scenarios set and lift it")
    } else {
        return None;
    };
    Some(Check::not(Outcome::Fail, format!("node {name}"), seen, remedy))
}

/// What a node lacks of `wanted`, and whether its kubelet tells of all its images.
fn lacks(node: &Node, wanted: &[&String]) -> (String, bool) {
    let images = node.status.as_ref().and_then(|status| status.images.clone()).unwrap_or_default();
    let names: Vec<String> = images.iter().flat_map(|image| image.names.clone().unwrap_or_default()).collect();
    let lacks: Vec<&str> = wanted.iter().filter(|image| !names.contains(image)).map(|image| image.as_str()).collect();
    (lacks.join(", "), images.len() < IMAGES_TOLD)
}

/// What a run changes, in words for who owns the cluster.
impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let storage = match self.storage {
            Storage::Nothing => String::new(),
            Storage::Class => format!("\n  cluster      the StorageClass {CLASS}"),
            Storage::Provisioner { .. } => {
                format!("\n  cluster      local-path-provisioner and the StorageClass {CLASS}")
            }
        };
        write!(
            f,
            "{} ({}, Kubernetes {}, {} nodes). A run changes there, and puts back afterwards:\n  \
             each node    {}: /etc/containerd, the system's certificates, folders of Harbor's volumes, images;\n               \
             containerd and the kubelet are restarted, and a privileged pod runs\n  \
             {}: the taint {GPU_TAINT}; the other nodes are cordoned for moments\n  \
             namespaces   {HARBOR} (with Harbor, on NodePort {HARBOR_PORT}), {APP}, {}{storage}",
            self.context,
            self.server,
            self.kubernetes,
            self.nodes.len(),
            words(names),
            self.gpu_node,
            access::NAMESPACE,
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, change: impl Fn(&mut Value)) -> Node {
        let mut node = json!({
            "metadata": {"name": name, "labels": {HOSTNAME: name}},
            "spec": {},
            "status": {
                "addresses": [{"type": "InternalIP", "address": format!("10.0.0.{}", name.len())}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "images": [{"names": ["x/helper:1", "x/harbor:1"]}],
                "nodeInfo": {
                    "operatingSystem": "linux", "containerRuntimeVersion": "containerd://2.1.5", "architecture": "", "bootID": "",
                    "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "osImage": "",
                    "systemUUID": "",
                },
            },
        });
        change(&mut node);
        serde_json::from_value(node).unwrap()
    }

    fn seen(nodes: Vec<Node>) -> Seen {
        let named = |name: &str| serde_json::from_value(json!({"metadata": {"name": name, "uid": "uid"}})).unwrap();
        Seen {
            context: "theirs".into(),
            server: "https://10.0.0.1:6443".into(),
            kubernetes: "v1.34.4".into(),
            nodes,
            namespaces: ["default", "kube-system"].map(named).into(),
            services: Vec::new(),
            classes: Vec::new(),
            provisioners: Vec::new(),
            settings: Vec::new(),
            may_all: true,
        }
    }

    fn three() -> Vec<Node> {
        let control = |node: &mut Value| {
            node["metadata"]["labels"][CONTROL_PLANE] = json!("");
            node["spec"]["taints"] = json!([{"key": CONTROL_PLANE, "effect": "NoSchedule"}]);
        };
        vec![node("one", |_| {}), node("three", |_| {}), node("control", control)]
    }

    fn class(name: &str, provisioner: &str) -> StorageClass {
        let class = json!({
            "metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer",
        });
        serde_json::from_value(class).unwrap()
    }

    fn amiss(seen: &Seen, images: Option<&Images>) -> Vec<String> {
        let (checks, _) = seen.judge(images);
        checks.iter().filter(|check| check.outcome == Outcome::Fail).map(ToString::to_string).collect()
    }

    fn images() -> Images {
        let harbor = vec!["x/harbor:1".to_owned()];
        Images { helper: "x/helper:1".into(), provisioner: "x/provisioner:1".into(), harbor, pullable: false }
    }

    #[test]
    fn a_cluster_that_fits_has_its_nodes_in_order_and_the_last_worker_is_the_gpu_node() {
        let seen = seen(three());
        assert_eq!(amiss(&seen, None), Vec::<String>::new());
        let before = seen.judge(None).1.unwrap();
        let names: Vec<&str> = before.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["control", "one", "three"]);
        assert_eq!((before.gpu_node.as_str(), before.address.as_str()), ("three", "10.0.0.7"));
        assert_eq!(before.storage, Storage::Provisioner { namespace_is_there: false });
        assert_eq!(before.cluster, "uid");
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let mut other = seen(three());
        other.may_all = false;
        other.namespaces.push(serde_json::from_value(json!({"metadata": {"name": "harbor"}})).unwrap());
        let service = json!({
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"ports": [{"port": 443, "nodePort": 30003}]},
        });
        other.services.push(serde_json::from_value(service).unwrap());
        other.provisioners.push("deployment kube-system/local-path-provisioner".into());
        other.nodes = vec![
            node("cordoned", |node| node["spec"]["unschedulable"] = json!(true)),
            node("down", |node| node["status"]["conditions"] = json!([])),
            node("gpu", |node| {
                node["spec"]["taints"] = json!([{"key": "gpu", "value": "true", "effect": "NoSchedule"}]);
            }),
            node("named-otherwise", |node| node["metadata"]["labels"][HOSTNAME] = json!("host")),
            node("old", |node| node["status"]["nodeInfo"]["containerRuntimeVersion"] = json!("containerd://1.7.27")),
            node("tainted", |node| node["spec"]["taints"] = json!([{"key": "a", "effect": "NoExecute"}])),
        ];
        insta::assert_snapshot!(amiss(&other, Some(&images())).join("\n"));
        other.nodes.truncate(1);
        let (checks, before) = other.judge(None);
        assert!(before.is_none());
        insta::assert_snapshot!(checks.last().unwrap());
    }

    #[test]
    fn images_that_cannot_be_pulled_must_be_there() {
        let mut seen = seen(three());
        seen.classes.push(class("local-path", PROVISIONER));
        assert_eq!(amiss(&seen, Some(&images())), Vec::<String>::new());
        seen.classes.clear();
        let lacks = amiss(&seen, Some(&images()));
        let told = "images: one lacks x/provisioner:1; three lacks x/provisioner:1; control lacks";
        assert!(lacks.len() == 1 && lacks[0].starts_with(told), "{lacks:?}");
        assert_eq!(amiss(&seen, Some(&Images { pullable: true, ..images() })), Vec::<String>::new());
    }

    #[test]
    fn storage_that_is_there_is_used_and_none_is_made_twice() {
        let mut seen = seen(three());
        let storage = |seen: &Seen| seen.judge_storage().0;
        seen.classes = vec![class("standard", PROVISIONER)];
        assert_eq!(storage(&seen), Storage::Class);
        seen.classes = vec![class("standard", PROVISIONER), class("local-path", PROVISIONER)];
        assert_eq!(storage(&seen), Storage::Nothing);
        seen.classes = vec![class("local-path", "nfs")];
        assert_eq!(seen.judge_storage().1.outcome, Outcome::Fail);
        let settings = json!({"data": {"config.json": json!({"nodePathMap": [{"paths": ["/var/volumes", "no; rm"]}]}).to_string()}});
        seen.settings = vec![serde_json::from_value(settings).unwrap()];
        assert_eq!(seen.volume_folders(), [VOLUMES, "/var/volumes"]);
    }
}
