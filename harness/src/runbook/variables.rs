//! What every command of a runbook finds in its environment, on the workstation and on nodes.

use super::{Place, places};
use crate::{
    lab::{Lab, LabError},
    observe::placement::Placement,
};

/// Every variable with its meaning.
pub const VARIABLES: [(&str, &str); 11] = [
    ("HARBOR_HOST", "Harbor's host and port, as image names begin: `10.0.0.2:30003`"),
    ("HARBOR_URL", "Harbor's address, with https://"),
    ("HARBOR_NAMESPACE", "the namespace that Harbor is installed in"),
    ("HARBOR_RELEASE", "the name of Harbor's Helm release"),
    (
        "HARBOR_CHART",
        "the chart that Harbor was installed from, for helm install and upgrade; harbor/harbor in the folder is the same",
    ),
    ("HARBOR_CA", "the certificate of the authority that signed Harbor's, as PEM; not set while Harbor is uninstalled"),
    ("HARBOR_ADMIN_PASSWORD", "the password of Harbor's user admin"),
    (
        "HARBOR_REGISTRY_POD",
        "the name of a registry pod, one that is Ready where there is one; not set while there is none",
    ),
    ("HARBOR_DATABASE_POD", "the name of the database's pod; not set while there is none"),
    ("GPU_NODE", "the node with the taint gpu=true:NoSchedule"),
    ("WORKERS", "the workers' names, between spaces"),
];

/// What reaches the lab's cluster, beside those variables.
pub const REACHES: [(&str, &str); 4] = [
    ("HOME", "a folder of the lab's own"),
    ("KUBECONFIG", "~/.kube/config: a copy of the lab's, with one context, laid anew for each block"),
    ("DOCKER_CONFIG, HELM_*", "where crane and Helm keep their state, within the lab"),
    ("PATH", "kubectl, helm and crane of the lab first, then this machine's programs"),
];

/// Whether it may be the name of a variable.
pub(super) fn is_name(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether Drydock sets this variable itself.
pub(super) fn is_own(name: &str) -> bool {
    VARIABLES.iter().any(|(own, _)| *own == name)
        || matches!(name, "HOME" | "KUBECONFIG" | "DOCKER_CONFIG" | "PATH")
        || matches!(name, "HELM_CACHE_HOME" | "HELM_CONFIG_HOME" | "HELM_DATA_HOME")
}

/// Whether a variable holds a secret, by its name. A short value is none that could be taken out of texts: `true` and `30` are in
/// many.
pub fn is_secret(name: &str, value: &str) -> bool {
    const SHORTEST: usize = 6;
    let name = name.to_uppercase();
    let parts = ["PASS", "PWD", "SECRET", "TOKEN", "PRIVATE", "CREDENTIAL", "KEY", "AUTH"];
    value.len() >= SHORTEST && parts.iter().any(|part| name.contains(part))
}

/// The variables as they are now: pods change their names.
pub(super) async fn look_up(lab: &Lab) -> Result<Vec<(String, String)>, LabError> {
    let harbor = &lab.harbor;
    let workers: Vec<&str> =
        lab.nodes.iter().filter(|node| !node.control_plane).map(|node| node.name.as_str()).collect();
    let mut variables = vec![
        ("HARBOR_HOST", harbor.host.clone()),
        ("HARBOR_URL", harbor.url()),
        ("HARBOR_NAMESPACE", harbor.namespace.clone()),
        ("HARBOR_RELEASE", harbor.release.clone()),
        ("HARBOR_ADMIN_PASSWORD", harbor.accounts.admin.secret.clone()),
        ("WORKERS", workers.join(" ")),
    ];
    if let Some(gpu) = places::nodes(lab, Place::GpuNode).next() {
        variables.push(("GPU_NODE", gpu.name.clone()));
    }
    let (placement, ca) = tokio::join!(Placement::take(lab), harbor.ca(&lab.client));
    let placement = placement?;
    for (name, component) in [("HARBOR_REGISTRY_POD", "registry"), ("HARBOR_DATABASE_POD", "database")] {
        // One that runs, where an old and a new one are there.
        let pods = placement.pods.iter().filter(|pod| pod.component == component);
        if let Some(pod) = pods.max_by_key(|pod| (pod.ready, !pod.node.is_empty())) {
            variables.push((name, pod.name.clone()));
        }
    }
    if let Ok(ca) = ca {
        variables.push(("HARBOR_CA", ca));
    }
    Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
