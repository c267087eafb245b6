//! The one proof that pulling works: a new pod on every node, after the image and its content were removed from that node's
//! containerd. The pods are a DaemonSet, as a workload that an on-call would see.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::try_join_all;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Event as KubeEvent, Namespace, Pod, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::watcher,
};
use serde_json::{Value, json};

use super::{pods::PullObservation, symptom::first_of, watch};
use crate::{
    harbor::seed::{PRIVATE_PROJECT, Seed},
    lab::{
        Lab, LabError,
        node::{Node, NodeError, on_each},
    },
    run::{
        events::Step,
        poll::{Look, WaitError, poll},
    },
};

/// Namespace and name of the workload.
pub const APP: &str = "app";
/// How long a pull may take before it counts as not coming.
const PULL: Duration = Duration::from_secs(60);
/// Pods go within four seconds where no pull of theirs hangs.
const SOON: Duration = Duration::from_secs(8);
/// A pull that hangs because Harbor's pods were replaced under it is given up after a minute, and its pod goes no sooner.
const GONE: Duration = Duration::from_secs(150);

/// The secret that pods pull private images with.
const PULL_SECRET: &str = "robot";

/// Removes the workload, and the images from every node, so that the next pull is a real one.
pub async fn clear(lab: &Lab, step: &Step) -> Result<(), LabError> {
    remove(lab, step).await?;
    let script = purge_script(&lab.seed);
    try_join_all(lab.nodes.iter().map(|node| purge(node, step, &script))).await?;
    Ok(())
}

/// Pulls every image on every node of the lab, which [`clear`] has cleared, and tells what each pod came to. A failure that is not
/// `decisive` may pass by itself, as the 502 while Harbor's pods are not Ready again after a restart of their kubelet: such
/// a pod has its whole time, in which the kubelet tries again. A pod that comes to nothing in time is told as it stands;
/// only a cluster that cannot be asked is an error.
pub async fn everywhere(
    lab: &Lab,
    step: &Step,
    decisive: impl Fn(&PullObservation) -> bool,
) -> Result<Vec<PullObservation>, LabError> {
    create(lab).await?;
    let mut seen = BTreeMap::new();
    let wanted = lab.nodes.len() * lab.seed.artifacts.len();
    let settled = |pull: &PullObservation| pull.digest.is_some() || (pull.failed() && decisive(pull));
    let outcome = watch::until(step, "a pull on every node", PULL, pods(lab), selector(), |pods| {
        for pod in pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            for now in PullObservation::of(pod) {
                seen.entry((now.pod.clone(), now.image.clone()))
                    .and_modify(|before: &mut PullObservation| {
                        if !settled(before) {
                            *before = now.clone();
                        }
                    })
                    .or_insert(now);
            }
        }
        let open: Vec<String> = seen.values().filter(|pull| !settled(pull)).map(PullObservation::words).collect();
        if seen.len() >= wanted && open.is_empty() {
            return Ok(Look::Ready(()));
        }
        Ok(Look::NotYet(format!("{} of {wanted} came to something; {}", seen.len() - open.len(), first_of(&open))))
    })
    .await;
    match outcome {
        Ok(()) => {}
        Err(WaitError::TimedOut { .. }) if !seen.is_empty() => {}
        Err(error) => return Err(error.into()),
    }
    let mut seen: Vec<_> = seen.into_values().collect();
    if seen.iter().any(PullObservation::failed) {
        add_events(lab, &mut seen).await?;
    }
    Ok(seen)
}

/// Adds to each failed pull what the events of its pod say.
async fn add_events(lab: &Lab, seen: &mut [PullObservation]) -> Result<(), LabError> {
    let failed = ListParams::default().fields("involvedObject.kind=Pod,reason=Failed");
    let events = Api::<KubeEvent>::namespaced(lab.client.clone(), APP)
        .list(&failed)
        .await
        .map_err(LabError::kube("list the events of the test workload"))?;
    for pull in seen.iter_mut().filter(|pull| pull.failed()) {
        let own = events.iter().filter(|event| event.involved_object.name.as_ref() == Some(&pull.pod));
        // An event names its container by a path in the pod.
        let path = format!("{{{}}}", container_name(&pull.image));
        let own = own.filter(|event| event.involved_object.field_path.as_ref().is_some_and(|at| at.ends_with(&path)));
        pull.events = own.filter_map(|event| event.message.clone()).collect();
    }
    Ok(())
}

/// Removes the workload and waits until its pods are gone.
async fn remove(lab: &Lab, step: &Step) -> Result<(), LabError> {
    let sets = Api::<DaemonSet>::namespaced(lab.client.clone(), APP);
    match sets.delete(APP, &DeleteParams::background()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(source) => return Err(LabError::Kube { doing: format!("delete daemonset {APP}/{APP}"), source }),
    }
    let gone = |limit| {
        watch::until(step, "the old pods to go", limit, pods(lab), selector(), |pods| {
            Ok(if pods.is_empty() { Look::Ready(()) } else { Look::NotYet(format!("{} left", pods.len())) })
        })
    };
    match gone(SOON).await {
        Err(WaitError::TimedOut { .. }) => {
            cut_pulls(lab).await?;
            gone(GONE).await?;
        }
        soon => soon?,
    }
    Ok(())
}

/// Ends what connections the nodes have to Harbor: a pull that hangs on one of them fails at once, and nobody waits for it any
/// more. Where a node has no `ss`, or its kernel cannot (`CONFIG_INET_DIAG_DESTROY`), containerd gives up by itself later.
async fn cut_pulls(lab: &Lab) -> Result<(), LabError> {
    let script = format!("ss -K dst {} >/dev/null 2>&1 || true", lab.harbor.host);
    on_each(&lab.nodes, |_| script.clone()).await?;
    Ok(())
}

async fn create(lab: &Lab) -> Result<(), LabError> {
    let apply = PatchParams::apply("drydock").force();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": APP}});
    Api::<Namespace>::all(lab.client.clone())
        .patch(APP, &apply, &Patch::Apply(namespace))
        .await
        .map_err(LabError::kube("make the namespace of the test workload"))?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": PULL_SECRET, "namespace": APP},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": pull_secret(lab).to_string()},
    });
    Api::<Secret>::namespaced(lab.client.clone(), APP)
        .patch(PULL_SECRET, &apply, &Patch::Apply(secret))
        .await
        .map_err(LabError::kube("make the image pull secret of the test workload"))?;
    let containers: Vec<Value> = lab
        .seed
        .artifacts
        .iter()
        .map(|artifact| {
            let name = artifact.name();
            let image = format!("{}/{name}", lab.harbor.host);
            // A kubelet waits for no more than a second to see a pull secret, and pulls without it then. It does not start a
            // pod before it has seen a secret that is mounted.
            json!({
                "name": container_name(&name), "image": image, "imagePullPolicy": "Always",
                "volumeMounts": [{"name": PULL_SECRET, "mountPath": "/run/secrets/robot", "readOnly": true}],
            })
        })
        .collect();
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": APP, "namespace": APP},
        "spec": {
            "selector": {"matchLabels": {"app": APP}},
            "template": {
                "metadata": {"labels": {"app": APP}},
                "spec": {
                    "tolerations": [{"operator": "Exists"}],
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 1,
                    "imagePullSecrets": [{"name": PULL_SECRET}],
                    "containers": containers,
                    "volumes": [{"name": PULL_SECRET, "secret": {"secretName": PULL_SECRET}}],
                },
            },
        },
    });
    Api::<DaemonSet>::namespaced(lab.client.clone(), APP)
        .patch(APP, &apply, &Patch::Apply(set))
        .await
        .map_err(LabError::kube("make the test workload"))?;
    Ok(())
}

/// The robot's secret, for the private project only: public images are pulled as anybody.
fn pull_secret(lab: &Lab) -> Value {
    let robot = lab.harbor.accounts.robot();
    let auth = STANDARD.encode(format!("{}:{}", robot.name, robot.secret));
    let place = format!("{}/{PRIVATE_PROJECT}", lab.harbor.host);
    json!({"auths": {place: {"username": robot.name, "password": robot.secret, "auth": auth}}})
}

/// `library/app:v1` as a container may be called.
fn container_name(image: &str) -> String {
    let name: String = image.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    name.trim_end_matches('-').to_owned()
}

fn pods(lab: &Lab) -> Api<Pod> {
    Api::namespaced(lab.client.clone(), APP)
}

fn selector() -> watcher::Config {
    watcher::Config::default().labels("app=app")
}

/// Removes the images from a node: their names, their content, and the snapshots of their lowest layers, without which
/// containerd would not fetch the layers again. A dead container holds its snapshot; the kubelet removes it with its pod or,
/// after a restart of containerd, up to a minute later: what has no task is removed here. A pull that a restart of containerd
/// cut off has left a lease, which holds what it had fetched for a day; one that expires and is older than the process is such.
fn purge_script(seed: &Seed) -> String {
    let mut repositories: Vec<&str> = seed.artifacts.iter().map(|artifact| artifact.repository.as_str()).collect();
    repositories.dedup();
    format!(
        r#"
ctr="ctr -n k8s.io"
for container in $($ctr containers ls | awk '$2 ~ /\/({repositories})[:@]/ {{ print $1 }}'); do
  if ! $ctr tasks ls -q | grep -qxF "$container"; then
    # The kubelet may be quicker.
    $ctr containers rm "$container" || ! $ctr containers ls -q | grep -qxF "$container"
  fi
done
content='{content}'
names=$($ctr images ls -q | grep -E "/({repositories})[:@]|^($content)\$" || true)
[ -z "$names" ] || $ctr images rm --sync $names >/dev/null
$ctr leases ls | awk '/containerd.io\/gc.expire/ {{ print $1, $2 }}' | while read -r lease created; do
  since=$(date -d "$(systemctl show -P ActiveEnterTimestamp containerd)" +%s)
  [ "$(date -d "$created" +%s)" -ge "$since" ] || $ctr leases rm --sync "$lease" >/dev/null
done
{{ $ctr content ls -q; $ctr snapshots ls; }} | grep -oE "$content" | sort -u || true
"#,
        repositories = repositories.join("|").replace('/', r"\/"),
        content = seed.content().join("|"),
    )
}

async fn purge(node: &Node, step: &Step, script: &str) -> Result<(), LabError> {
    let what = format!("the images to be gone from {}", node.name);
    poll(step, &what, GONE, Duration::from_millis(300), || async {
        let left = node.sh(script).await.map_err(|error| error.to_string())?;
        let left = left.trim();
        Ok(if left.is_empty() {
            Look::Ready(())
        } else {
            Look::NotYet(format!("still there: {}", left.replace('\n', ", ")))
        })
    })
    .await?;
    Ok(())
}

/// Asks a node's containerd itself to pull `image`, as the kubelet would, and returns its answer.
///
/// # Errors
/// The node has no program to ask with: stock kind nodes have `crictl`, Drydock's own have `cri-pull`.
pub async fn ask_containerd(node: &Node, image: &str) -> Result<String, LabError> {
    let script = format!("if command -v crictl >/dev/null; then crictl pull '{image}'; else cri-pull '{image}'; fi");
    let answer = node.exec(&script, &[], PULL).await?;
    // The shell's own status for a program that is not there.
    if answer.code == 127 {
        return Err(NodeError::Failed { node: node.name.clone(), code: answer.code, said: answer.output }.into());
    }
    Ok(answer.output.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_called_after_its_image() {
        assert_eq!(container_name("library/app:v1"), "library-app-v1");
        let long = container_name(&format!("library/app@sha256:{}", "a".repeat(64)));
        assert!(long.len() <= 63 && long.starts_with("library-app-sha256-aaa"), "{long}");
    }

    #[test]
    fn what_is_removed_from_a_node_is_all_that_was_pulled_and_nothing_else() {
        let seed = Seed::new().unwrap();
        let script = purge_script(&seed);
        for digest in seed.content() {
            assert!(script.contains(&digest), "{digest} is not in {script}");
        }
        assert!(script.contains(r"/\/(library\/app|library\/multi|team\/api)[:@]/"), "{script}");
    }
}
