//! A lab as a guest in a cluster that is there already and stays. Nothing in it is Drydock's but what it brings: it is looked at
//! before anything is changed ([`survey`]), what it was like is on the disk and on its nodes before that ([`Before`], `keep.sh`), and
//! all of it is put back afterwards, by whoever comes ([`put_back`]).

pub mod access;
pub mod put_back;
pub mod survey;
pub mod target;

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::config::Kubeconfig;

use super::{
    KUBECONFIG, Lab, LabError,
    cluster::{self, HARBOR, HARBOR_PORT, Parts, Place},
    ledger::LAB_LABEL,
    node::{Node, NodeError},
};
use crate::{
    observe::pull::APP,
    run::events::{Events, LabFacts},
    source::ingredients::Network,
};
use access::PodAccess;
use survey::{Before, Images, Storage};
use target::Target;

/// In the lab's folder: what the cluster was like.
const BEFORE: &str = "before.json";
/// In the lab's folder: what is made for Harbor's volumes.
const STORAGE: &str = "storage.yaml";
const KEEP: &str = include_str!("keep.sh");
const PUT_BACK: &str = include_str!("put_back.sh");
const WATCH: &str = include_str!("watch.sh");
/// How long a node may take to save what is on it: it hashes /etc.
const KEPT: Duration = Duration::from_secs(120);

/// Where a node keeps what it was like. Not in a temporary folder: it outlives a restart of the node.
fn node_folder(lab: &str) -> String {
    format!("/var/lib/drydock/{lab}")
}

/// What the pods of a lab that is made of these parts run.
pub fn images(parts: &Parts) -> Images {
    let image = |line: &str| line.trim().strip_prefix("image: ").map(str::to_owned);
    let lines: Vec<&str> = parts.local_path.lines().collect();
    let after = |name: &str| {
        let at = lines.iter().position(|line| line.trim() == format!("- name: {name}"))?;
        lines[at..].iter().find_map(|line| image(line))
    };
    Images {
        helper: after("helper-pod").unwrap_or_default(),
        provisioner: after("local-path-provisioner").unwrap_or_default(),
        harbor: parts.extra_values.lines().filter_map(value_image).collect(),
        pullable: parts.network == Network::Kind,
    }
}

/// The image in a line of chart values such as `standIn: {"image":"x/harbor:1"}`.
fn value_image(line: &str) -> Option<String> {
    let (_, value) = line.split_once(": ")?;
    let value: serde_json::Value = serde_json::from_str(value).ok()?;
    value["image"].as_str().map(str::to_owned)
}

/// Lays into the lab's folder what it takes to put the cluster back. When this returns it is on the disk.
///
/// # Errors
/// A file cannot be written.
pub fn remember(lab: &str, dir: &Path, target: &Target, before: &Before, parts: &Parts) -> Result<(), LabError> {
    let text = serde_json::to_string_pretty(before).unwrap_or_default();
    for (name, content) in [(KUBECONFIG, target.text()), (BEFORE, text), (STORAGE, storage(lab, before, parts))] {
        let path = dir.join(name);
        let write = || {
            // The kubeconfig holds somebody's credentials.
            let mut file =
                std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| LabError::File { doing: "write", path: path.clone(), source })?;
    }
    // kubectl is needed when the cache may have dropped what it was linked to.
    let tools = cluster::lay_tools(parts, dir)?;
    let kubectl = tools.join("kubectl");
    let lay = || {
        std::fs::remove_file(&kubectl)?;
        std::fs::hard_link(&parts.kubectl, &kubectl).or_else(|_| std::fs::copy(&parts.kubectl, &kubectl).map(drop))
    };
    lay().map_err(|source| LabError::File { doing: "lay", path: kubectl.clone(), source })
}

/// What [`remember`] has laid.
///
/// # Errors
/// It is not there, or not what this version writes.
pub fn recall(dir: &Path) -> Result<Before, LabError> {
    let path = dir.join(BEFORE);
    let text = std::fs::read_to_string(&path).map_err(|source| LabError::File {
        doing: "read",
        path: path.clone(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|error| LabError::NotInOrder(format!("{}: {error}", path.display())))
}

/// What is made for Harbor's volumes: with the lab's label, not as the default, and where nobody sees the cluster's control plane,
/// on any node.
fn storage(lab: &str, before: &Before, parts: &Parts) -> String {
    let class = "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: local-path\n\
                 provisioner: rancher.io/local-path\nreclaimPolicy: Delete\nvolumeBindingMode: WaitForFirstConsumer\n";
    let mut manifest = match before.storage {
        Storage::Nothing => return String::new(),
        Storage::Class => class.to_owned(),
        Storage::Provisioner { namespace_is_there } => {
            let documents = parts.local_path.split("\n---\n");
            let wanted: Vec<&str> = documents
                .filter(|document| !(namespace_is_there && document.contains("\nkind: Namespace\n")))
                .collect();
            wanted.join("\n---\n").replace("is-default-class: \"true\"", "is-default-class: \"false\"")
        }
    };
    if !before.nodes.iter().any(|node| node.control_plane) {
        let selector = "      nodeSelector:\n        node-role.kubernetes.io/control-plane: \"\"\n";
        manifest = manifest.replace(selector, "");
    }
    manifest.replace("\nmetadata:\n", &format!("\nmetadata:\n  labels: {{{LAB_LABEL}: {lab}}}\n"))
}

/// The client of a lab's folder.
pub(super) async fn client(dir: &Path) -> Result<kube::Client, LabError> {
    let path = dir.join(KUBECONFIG);
    let bad = |why: String| LabError::Kubeconfig { path: path.clone(), why };
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|error| bad(error.to_string()))?;
    target::client(kubeconfig, &path).await.map_err(|error| bad(error.to_string()))
}

/// The nodes of the lab in `dir`.
pub fn nodes(dir: &Path, before: &Before) -> Vec<Node> {
    let node = |node: &survey::NodeBefore| {
        Node::through_pod(PodAccess { node: node.name.clone(), lab: dir.to_owned() }, node.control_plane)
    };
    before.nodes.iter().map(node).collect()
}

/// Makes a lab in the cluster that [`remember`] has laid down in `dir`. It is ready when [`cluster::create`]'s is.
///
/// # Errors
/// Part of it may be there then, for [`put_back`].
pub async fn create(
    id: &str,
    dir: PathBuf,
    before: &Before,
    parts: &Parts,
    events: &Events,
) -> Result<(Lab, LabFacts), LabError> {
    events
        .step(format!("make a lab in {}", before.context), |step| async move {
            let events = step.events();
            let (client, nodes) = (client(&dir).await?, nodes(&dir, before));
            let place = Place { id, dir: &dir, address: before.address.clone(), tools: dir.join("bin") };
            let lab = place.lab(parts, client, nodes)?;
            let (lab_ref, images) = (&lab, &images(parts));
            let names = &lab.node_names();
            events
                .step("reach the nodes", |step| async move {
                    access::open(&lab_ref.client, id, names, &before.helper, &step).await
                })
                .await?;
            events.step("save what is on the nodes", |_| keep(lab_ref, before, images)).await?;
            events.step("install storage", |_| install_storage(lab_ref, before)).await?;
            make_namespaces(lab_ref).await?;
            cluster::furnish(lab, parts, events).await
        })
        .await
}

/// Saves on each node what a lab changes there.
async fn keep(lab: &Lab, before: &Before, images: &Images) -> Result<(), LabError> {
    let script = keep_script(&lab.id, before, images);
    futures::future::try_join_all(lab.nodes.iter().map(|node| async {
        let done = node.exec(&script, &[], KEPT).await?;
        if done.code != 0 {
            return Err(NodeError::Failed { node: node.name.clone(), code: done.code, said: done.output });
        }
        Ok(())
    }))
    .await?;
    Ok(())
}

fn keep_script(lab: &str, before: &Before, images: &Images) -> String {
    let plain = |text: &str| text.replace('.', r"\.");
    let own = [
        format!("^{}/", plain(&format!("{}:{HARBOR_PORT}", before.address))),
        "/goharbor/".to_owned(),
        format!("^(docker.io/(library/)?)?{}$", plain(&images.helper)),
        format!("^(docker.io/(library/)?)?{}$", plain(&images.provisioner)),
    ];
    // awk would take a backslash from a variable that is assigned to it, but not from the environment.
    let put_back = PUT_BACK.replace("@IMAGES@", &own.join("|")).replace("@NAMESPACE@", HARBOR);
    let (dir, folders) = (node_folder(lab), before.volume_folders.join(" "));
    format!(
        "dir={dir}\nfolders='{folders}'\n{}",
        KEEP.replace("@PUT_BACK@", put_back.trim_end()).replace("@WATCH@", WATCH.trim_end())
    )
}

async fn install_storage(lab: &Lab, before: &Before) -> Result<(), LabError> {
    if before.storage != Storage::Nothing {
        lab.kubectl().args(["apply", "--server-side", "-f", STORAGE]).run().await?;
    }
    Ok(())
}

/// The namespaces bear the lab's label: one that somebody makes after the lab is gone is not mistaken for the lab's.
async fn make_namespaces(lab: &Lab) -> Result<(), LabError> {
    for name in [HARBOR, APP] {
        access::make_namespace(&lab.client, &lab.id, name, &[(LAB_LABEL, &lab.id)]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        let manifest = include_str!("../../../../fixtures/manifests/local-path-storage.yaml");
        let manifest =
            manifest.replace("@PROVISIONER_IMAGE@", "x/provisioner:1").replace("@HELPER_IMAGE@", "x/helper:1");
        Parts { local_path: manifest, extra_values: "standIn: {\"image\":\"x/harbor:1\"}\n".into(), ..Parts::named() }
    }

    fn before(storage: Storage, control_plane: bool) -> Before {
        let node = |name: &str, control_plane| survey::NodeBefore {
            name: name.into(),
            control_plane,
            taints: Vec::new(),
            labels: [].into(),
        };
        Before {
            context: "theirs".into(),
            server: "https://10.0.0.1:6443".into(),
            cluster: "uid".into(),
            kubernetes: "v1.34.4".into(),
            nodes: vec![node("a", control_plane), node("b", false)],
            gpu_node: "b".into(),
            address: "10.0.0.1".into(),
            storage,
            volume_folders: vec!["/opt/local-path-provisioner".into()],
            helper: "x/helper:1".into(),
        }
    }

    #[test]
    fn the_images_of_a_lab_are_those_of_its_parts() {
        let images = images(&parts());
        assert_eq!((images.helper.as_str(), images.provisioner.as_str()), ("x/helper:1", "x/provisioner:1"));
        assert_eq!((images.harbor, images.pullable), (vec!["x/harbor:1".to_owned()], false));
    }

    #[test]
    fn all_that_is_made_for_volumes_bears_the_label_by_which_it_is_removed() {
        let made = |namespace_is_there, control_plane| {
            storage("drydock-1", &before(Storage::Provisioner { namespace_is_there }, control_plane), &parts())
        };
        let text = made(false, true);
        let objects = text.matches("\nkind: ").count();
        assert_eq!(text.matches("\n  labels: {io.drydock.lab: drydock-1}\n").count(), objects);
        assert!(text.contains("is-default-class: \"false\"") && text.contains("nodeSelector:"), "{text}");
        // What is there already is not taken over.
        let text = made(true, false);
        assert_eq!(text.matches("\nkind: ").count(), objects - 1);
        assert!(!text.contains("kind: Namespace\n") && !text.contains("nodeSelector:"), "{text}");
        assert_eq!(storage("drydock-1", &before(Storage::Nothing, true), &parts()), "");
        insta::assert_snapshot!(storage("drydock-1", &before(Storage::Class, true), &parts()));
    }

    #[test]
    fn a_cluster_is_told_what_happens_to_it() {
        insta::assert_snapshot!(before(Storage::Provisioner { namespace_is_there: false }, true));
    }

    #[test]
    fn what_is_remembered_is_recalled() {
        let dir = tempfile::tempdir().unwrap();
        let before = before(Storage::Class, false);
        std::fs::write(dir.path().join(BEFORE), serde_json::to_string(&before).unwrap()).unwrap();
        assert_eq!(recall(dir.path()).unwrap(), before);
        std::fs::write(dir.path().join(BEFORE), "{}").unwrap();
        assert!(recall(dir.path()).is_err());
    }

    #[test]
    fn the_scripts_of_a_node_have_no_placeholder_left_and_are_shell() {
        let script = keep_script("drydock-1", &before(Storage::Nothing, true), &images(&parts()));
        for placeholder in ["@PUT_BACK@", "@WATCH@", "@IMAGES@", "@NAMESPACE@"] {
            assert!(!script.contains(placeholder), "{placeholder} in {script}");
        }
        assert!(script.contains(r"^10\.0\.0\.1:30003/"), "{script}");
        let parsed = std::process::Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
        assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
    }
}
