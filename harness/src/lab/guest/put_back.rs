//! Putting back what a lab changed in a cluster that was there before: at the lab's end, and after a kill. It asks for nothing but the
//! lab's folder, does what is still to do, and may be done again. One thing that fails does not stop the others.

use std::{fmt::Debug, path::Path, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode, PersistentVolume, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::watcher,
};
use serde::de::DeserializeOwned;

use super::{
    access, client, node_folder, recall,
    survey::{Before, NodeBefore, all_taints},
};
use crate::{
    cmd::Cmd,
    lab::{
        KUBECONFIG, LabError,
        cluster::HARBOR,
        gc::GcReport,
        ledger::LAB_LABEL,
        node::{Node, NodeError},
        order::GPU_TAINT,
        tool_env,
    },
    observe::{
        placement::{is_of, is_provisioned},
        pull::APP,
        watch,
    },
    run::{events::Step, poll::Look},
};

/// How long a namespace, with all in it, or a volume may take to go.
const GONE: Duration = Duration::from_secs(180);
/// How long a node may take: it hashes /etc and restarts containerd.
const ON_NODE: Duration = Duration::from_secs(180);

/// What is to be put back, and what came of it.
struct Work<'a> {
    lab: &'a str,
    dir: &'a Path,
    before: &'a Before,
    client: Client,
    step: &'a Step,
    report: GcReport,
}

/// Puts back what the lab in `dir` changed. What could not be is in the report, with what to do by hand.
pub async fn put_back(lab: &str, dir: &Path, step: &Step) -> GcReport {
    let mut report = GcReport::default();
    let before = match recall(dir) {
        Ok(before) => before,
        Err(error) => {
            report.leave(format!("what the lab {lab} changed in a cluster"), error.to_string());
            return report;
        }
    };
    let what = format!("what Drydock changed in {} ({})", before.context, before.server);
    let found = async {
        let client = client(dir).await?;
        let namespaces = Api::<Namespace>::all(client.clone());
        let system = namespaces.get("kube-system").await.map_err(LabError::kube("tell which cluster it is"))?;
        let access = namespaces.get_opt(access::NAMESPACE).await.map_err(LabError::kube("tell which lab is there"))?;
        let there = access.and_then(|namespace| namespace.labels().get(LAB_LABEL).cloned());
        Ok::<_, LabError>((client, system.metadata.uid.unwrap_or_default(), there))
    };
    match found.await {
        Err(error) => {
            let if_gone = format!("if that cluster is gone, remove the folder {}", dir.display());
            report.leave(what, format!("{error}; {if_gone}"));
            report
        }
        Ok((_, cluster, _)) if cluster != before.cluster => {
            report.spare(what, "that cluster is gone: another one answers there, and was not touched");
            report
        }
        Ok((_, _, Some(other))) if other != lab => {
            report.leave(what, format!("the lab {other} is there just now, and nothing was touched: wait for its end"));
            report
        }
        Ok((client, ..)) => {
            let mut work = Work { lab, dir, before: &before, client, step, report };
            work.all().await;
            work.report
        }
    }
}

impl Work<'_> {
    async fn all(&mut self) {
        // Others' pods wait for nodes that are cordoned or tainted.
        self.step.waiting("the nodes' taints");
        self.nodes_take_pods().await;
        self.step.waiting("commands on the nodes to end");
        let nodes = self.reach_nodes().await;
        // Both go at once; then each is waited for.
        join_all([APP, HARBOR].map(|name| self.begin_to_remove(name))).await;
        for name in [APP, HARBOR] {
            self.remove_namespace(name).await;
        }
        self.remove_volumes().await;
        self.step.waiting("what is on the nodes");
        self.put_nodes_back(&nodes).await;
        self.remove_storage().await;
        self.remove_namespace(access::NAMESPACE).await;
        self.compare_nodes().await;
    }

    fn kubectl(&self) -> Cmd {
        let cmd = Cmd::new(self.dir.join("bin/kubectl")).dir(self.dir).limit(GONE).clear_env();
        tool_env(self.dir).into_iter().fold(cmd, |cmd, (name, value)| cmd.env(&name, value))
    }

    /// A command for whoever finishes this by hand.
    fn by_hand(&self, command: &str) -> String {
        format!("by hand: kubectl --kubeconfig {} {command}", self.dir.join(KUBECONFIG).display())
    }

    async fn nodes_take_pods(&mut self) {
        let before = self.before;
        for node in &before.nodes {
            let Ok(Some(now)) = self.node(node).await else { continue };
            if now.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
                self.kubectl_on(&["uncordon", &node.name], &format!("cordon of node {}", node.name)).await;
            }
            if all_taints(&now).iter().any(|taint| taint == GPU_TAINT) {
                let lift = format!("{GPU_TAINT}-");
                let what = format!("taint {GPU_TAINT} of node {}", node.name);
                self.kubectl_on(&["taint", "node", &node.name, &lift], &what).await;
            }
        }
    }

    async fn kubectl_on(&mut self, args: &[&str], what: &str) {
        let by_hand = self.by_hand(&args.join(" "));
        let done = self.kubectl().args(args).run().await;
        self.report.remove(what, done.map(drop).map_err(|error| format!("{error}; {by_hand}")));
    }

    /// A node as it is; none where it is gone.
    async fn node(&mut self, node: &NodeBefore) -> Result<Option<KubeNode>, ()> {
        match Api::<KubeNode>::all(self.client.clone()).get_opt(&node.name).await {
            Ok(now) => Ok(now),
            Err(error) => {
                let by_hand = self.by_hand(&format!("uncordon {}", node.name));
                self.report.leave(format!("taints of node {}", node.name), format!("{error}; {by_hand}"));
                Err(())
            }
        }
    }

    /// The nodes that are still there, with all that a run had running on them ended.
    async fn reach_nodes(&mut self) -> Vec<Node> {
        let all: Vec<KubeNode> = match Api::<KubeNode>::all(self.client.clone()).list(&ListParams::default()).await {
            Ok(nodes) => nodes.items,
            Err(error) => {
                self.report.leave("what Drydock changed on the nodes", error.to_string());
                return Vec::new();
            }
        };
        let is_there = |name: &str| all.iter().any(|node| node.name_any() == name);
        for gone in self.before.nodes.iter().filter(|node| !is_there(&node.name)) {
            self.report.spare(format!("node {}", gone.name), "it is no longer in the cluster");
        }
        let nodes: Vec<Node> =
            super::nodes(self.dir, self.before).into_iter().filter(|node| is_there(&node.name)).collect();
        let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        if let Err(error) = access::open(&self.client, self.lab, &names, &self.before.helper, self.step).await {
            self.step.events().note(error.to_string());
        }
        for (node, stopped) in nodes.iter().zip(join_all(nodes.iter().map(Node::stop_jobs)).await) {
            if let Err(error) = stopped {
                self.step.events().note(format!("end what runs on {}: {error}", node.name));
            }
        }
        nodes
    }

    /// What comes of it is seen by [`Self::remove_namespace`].
    async fn begin_to_remove(&self, name: &str) {
        let api = Api::<Namespace>::all(self.client.clone());
        if let Ok(Some(found)) = api.get_opt(name).await
            && found.labels().get(LAB_LABEL).map(String::as_str) == Some(self.lab)
        {
            let _ = api.delete(name, &DeleteParams::background()).await;
            // Harbor's pods would have two minutes to end, and there is nothing that they could save.
            let at_once = DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() };
            let pods = Api::<Pod>::namespaced(self.client.clone(), name);
            let _ = pods.delete_collection(&at_once, &ListParams::default()).await;
        }
    }

    /// Only one that bears the lab's label: another is somebody else's by now.
    async fn remove_namespace(&mut self, name: &str) {
        let api = Api::<Namespace>::all(self.client.clone());
        let what = format!("namespace {name} of {}", self.before.context);
        let by_hand = self.by_hand(&format!("delete namespace {name}"));
        let found = match api.get_opt(name).await {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(error) => return self.report.leave(what, format!("{error}; {by_hand}")),
        };
        if found.labels().get(LAB_LABEL).map(String::as_str) != Some(self.lab) {
            let why = format!(
                "it lacks the label {LAB_LABEL}={}: somebody has made it since; if it is not wanted, {by_hand}",
                self.lab
            );
            return self.report.spare(what, why);
        }
        let gone = async {
            api.delete(name, &DeleteParams::background()).await.map_err(|error| error.to_string())?;
            self.gone(&what, api.clone(), |namespace| namespace.name_any() == name).await
        };
        let gone = gone.await;
        self.report.remove(what, gone.map_err(|error| format!("{error}; {by_hand}")));
    }

    async fn gone<K>(&self, what: &str, api: Api<K>, is: impl Fn(&K) -> bool) -> Result<(), String>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        watch::until(self.step, what, GONE, api, watcher::Config::default(), |left| {
            let names: Vec<&str> = left.iter().filter(|(_, it)| is(it)).map(|(name, _)| name.as_str()).collect();
            Ok(if names.is_empty() {
                Look::Ready(())
            } else {
                Look::NotYet(format!("still there: {}", names.join(", ")))
            })
        })
        .await
        .map_err(|error| error.to_string())
    }

    /// The provisioner removes those that were the claims'; some were retained, or made by hand.
    async fn remove_volumes(&mut self) {
        let api = Api::<PersistentVolume>::all(self.client.clone());
        let what = format!("Harbor's volumes of {}", self.before.context);
        let by_hand = self.by_hand("get persistentvolumes");
        let volumes = match api.list(&ListParams::default()).await {
            Ok(volumes) => volumes,
            Err(error) => return self.report.leave(what, format!("{error}; {by_hand}")),
        };
        let own = |volume: &PersistentVolume| is_of(volume, HARBOR);
        let kept = |volume: &PersistentVolume| {
            let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
            let released = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some());
            policy != Some("Delete") || !released || !is_provisioned(volume)
        };
        let own: Vec<&PersistentVolume> = volumes.iter().filter(|volume| own(volume)).collect();
        if own.is_empty() {
            return;
        }
        let delete = async |volume: &PersistentVolume| {
            let name = volume.name_any();
            if let Err(error) = api.delete(&name, &DeleteParams::default()).await {
                self.step.events().note(format!("delete the volume {name}: {error}"));
            }
        };
        for volume in own.iter().filter(|volume| kept(volume)) {
            delete(volume).await;
        }
        let is_own = |volume: &PersistentVolume| is_of(volume, HARBOR);
        let mut gone = self.gone(&what, api.clone(), is_own).await;
        if gone.is_err() {
            // The provisioner does not do it. Its folders go with what else is on the nodes.
            for volume in &own {
                delete(volume).await;
            }
            gone = self.gone(&what, api.clone(), is_own).await;
        }
        self.report.remove(what, gone.map_err(|error| format!("{error}; {by_hand}")));
    }

    async fn put_nodes_back(&mut self, nodes: &[Node]) {
        let folder = node_folder(self.lab);
        // Saving may have been cut off, and then nothing was changed.
        let script = &format!(
            "if [ -e {folder}/saved ]; then bash {folder}/put-back; else rm -rf {folder}; rmdir /var/lib/drydock 2>/dev/null || true; fi"
        );
        let put_back = |node| async move {
            let done = Node::exec(node, script, &[], ON_NODE).await?;
            // It was the last command: what commands have left of themselves goes too.
            if let Err(source) = node.stop_jobs().await {
                return Err(NodeError::Cmd { node: node.name.clone(), source });
            }
            Ok(done)
        };
        let done = join_all(nodes.iter().map(put_back)).await;
        for (node, done) in nodes.iter().zip(done) {
            let what = format!("Drydock's changes on node {}", node.name);
            let by_hand = format!("by hand, as root on {}: bash {folder}/put-back", node.name);
            let result = match done {
                Ok(done) => {
                    for others in done.output.lines().filter_map(|line| line.strip_prefix("others: ")) {
                        let why = format!("other than before, and what it was is not known: {others}");
                        self.report.spare(format!("/etc of node {}", node.name), why);
                    }
                    match done.code {
                        0 => Ok(()),
                        code => Err(NodeError::Failed { node: node.name.clone(), code, said: done.output }),
                    }
                }
                Err(error) => Err(error),
            };
            self.report.remove(what, result.map_err(|error| format!("{error}; {by_hand}")));
        }
    }

    async fn remove_storage(&mut self) {
        let label = format!("{LAB_LABEL}={}", self.lab);
        let selector = ["-l", &label, "--ignore-not-found", "-o", "name"];
        let within =
            ["delete", "deployments,configmaps,roles,rolebindings,serviceaccounts", "-n", "local-path-storage"];
        let without = ["delete", "storageclasses,clusterroles,clusterrolebindings"];
        for args in [within.as_slice(), without.as_slice()] {
            let args = [args, selector.as_slice()].concat();
            match self.kubectl().args(&args).run().await {
                Ok(output) => {
                    let names = output
                        .stdout
                        .lines()
                        .filter(|line| line.contains('/'))
                        .map(|name| format!("{name} of {}", self.before.context));
                    self.report.removed.extend(names);
                }
                Err(error) => {
                    let by_hand = self.by_hand(&args.join(" "));
                    self.report.leave(format!("storage of {}", self.before.context), format!("{error}; {by_hand}"));
                }
            }
        }
        let own = super::survey::STORAGE_NAMESPACE;
        let named = Api::<Namespace>::all(self.client.clone()).get_opt(own).await;
        if named.is_ok_and(|found| found.is_some_and(|found| found.labels().contains_key(LAB_LABEL))) {
            self.remove_namespace(own).await;
        }
    }

    /// Taints and labels that somebody else, or a procedure, has set or taken away: told, not touched.
    async fn compare_nodes(&mut self) {
        let before = self.before;
        for node in &before.nodes {
            let Ok(Some(now)) = self.node(node).await else { continue };
            let taints = all_taints(&now);
            if taints != node.taints {
                let why = format!("now {}, before {}", taints.join(", "), node.taints.join(", "));
                self.report.spare(format!("taints of node {}", node.name), why);
            }
            if now.labels() != &node.labels {
                let differ = |(name, value): &(&String, &String)| node.labels.get(*name) != Some(*value);
                let set: Vec<String> =
                    now.labels().iter().filter(differ).map(|(name, value)| format!("{name}={value}")).collect();
                let gone =
                    node.labels.keys().filter(|name| !now.labels().contains_key(*name)).map(|name| format!("{name}-"));
                let why = format!("other than before: {}", set.into_iter().chain(gone).collect::<Vec<_>>().join(", "));
                self.report.spare(format!("labels of node {}", node.name), why);
            }
        }
    }
}
