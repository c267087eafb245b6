//! The one proof that pulling works: a new pod on every node, after the image and its content were removed from that node's
//! containerd. The pods are a DaemonSet, as a workload that an on-call would see.

use std::{collections::BTreeMap, time::Duration};

use futures::future::try_join_all;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Event as KubeEvent, Namespace, Pod},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::watcher,
};
use serde_json::json;

use super::{pods::PullObservation, watch};
use crate::{
    harbor::seed::SeedImage,
    lab::{
        Lab, LabError,
        node::{Node, NodeError},
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
const GONE: Duration = Duration::from_secs(60);

/// Removes the workload, and the image from every node, so that the next pull is a real one.
pub async fn clear(lab: &Lab, step: &Step, image: &SeedImage) -> Result<(), LabError> {
    remove(lab, step).await?;
    try_join_all(lab.nodes.iter().map(|node| purge(node, step, image))).await?;
    Ok(())
}

/// Pulls `image` on every node of the lab, which [`clear`] has cleared, and tells what each pod came to. A failure that is not
/// `decisive` may pass by itself, as the 502 while Harbor's pods are not Ready again after a restart of their kubelet: such
/// a pod has its whole time, in which the kubelet tries again. A pod that comes to nothing in time is told as it stands;
/// only a cluster that cannot be asked is an error.
pub async fn everywhere(
    lab: &Lab,
    step: &Step,
    image: &SeedImage,
    decisive: impl Fn(&PullObservation) -> bool,
) -> Result<Vec<PullObservation>, LabError> {
    create(lab, &lab.harbor.image(&image.repository, &image.tag)).await?;
    let mut seen = BTreeMap::new();
    let nodes = lab.nodes.len();
    let settled = |pull: &PullObservation| pull.digest.is_some() || (pull.failed() && decisive(pull));
    let outcome = watch::until(step, "a pull on every node", PULL, pods(lab), selector(), |pods| {
        for pod in pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let now = PullObservation::of(pod);
            seen.entry(now.pod.clone())
                .and_modify(|before: &mut PullObservation| {
                    if !settled(before) {
                        *before = now.clone();
                    }
                })
                .or_insert(now);
        }
        let open: Vec<String> = seen.values().filter(|pull| !settled(pull)).map(PullObservation::words).collect();
        if seen.len() >= nodes && open.is_empty() {
            return Ok(Look::Ready(()));
        }
        Ok(Look::NotYet(format!("{} of {nodes} pods made; {}", seen.len(), open.join("; "))))
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
    watch::until(step, "the old pods to go", GONE, pods(lab), selector(), |pods| {
        Ok(if pods.is_empty() { Look::Ready(()) } else { Look::NotYet(format!("{} left", pods.len())) })
    })
    .await?;
    Ok(())
}

async fn create(lab: &Lab, image: &str) -> Result<(), LabError> {
    let apply = PatchParams::apply("drydock").force();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": APP}});
    Api::<Namespace>::all(lab.client.clone())
        .patch(APP, &apply, &Patch::Apply(namespace))
        .await
        .map_err(LabError::kube("make the namespace of the test workload"))?;
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
                    "containers": [{"name": APP, "image": image, "imagePullPolicy": "Always"}],
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

fn pods(lab: &Lab) -> Api<Pod> {
    Api::namespaced(lab.client.clone(), APP)
}

fn selector() -> watcher::Config {
    watcher::Config::default().labels("app=app")
}

/// Removes an image from a node: its names, its content, and the snapshot of its layer, without which containerd would not
/// fetch the layer again. A dead container holds its snapshot; the kubelet removes it with its pod or, after a restart of
/// containerd, up to a minute later: what has no task is removed here.
async fn purge(node: &Node, step: &Step, image: &SeedImage) -> Result<(), LabError> {
    let [manifest, config, layer] = image.content();
    let script = format!(
        r#"
ctr="ctr -n k8s.io"
for container in $($ctr containers ls | awk 'index($2, "/{repository}:") || index($2, "/{repository}@") {{ print $1 }}'); do
  $ctr tasks ls -q | grep -qxF "$container" || $ctr containers rm "$container"
done
names=$($ctr images ls -q | grep -E '/{repository}[:@]|^{config}$' || true)
[ -z "$names" ] || $ctr images rm --sync $names >/dev/null
{{ $ctr content ls -q; $ctr snapshots ls; }} | grep -oE '{manifest}|{config}|{layer}|{diff}' || true
"#,
        repository = image.repository,
        diff = image.diff_id,
    );
    let what = format!("the image to be gone from {}", node.name);
    poll(step, &what, GONE, Duration::from_millis(300), || async {
        let left = node.sh(&script).await.map_err(|error| error.to_string())?;
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
