//! The node image, a Debian root file system with an init, Kubernetes and containerd; and every image that a lab runs.

use std::fs;

use super::{Kitchen, PackagesError, Parts, go::CNI_PLUGINS};
use crate::source::{
    image::{Files, Image, Layer},
    store::{Artifact, Inputs, Recipe},
};

/// What the node image is called where it has a name of its own.
const NAME: &str = "docker.io/drydock/node";

/// The applets of busybox that the helper image has by name; all are there as `busybox NAME`.
const APPLETS: [&str; 27] = [
    "awk", "cat", "chmod", "chown", "cp", "df", "du", "echo", "env", "find", "grep", "head", "id", "ln", "ls", "mkdir",
    "mv", "nslookup", "ping", "rm", "sed", "sh", "sleep", "stat", "tail", "test", "wget",
];
/// The names under which kube-proxy calls iptables.
const IPTABLES: [&str; 6] =
    ["ip6tables", "ip6tables-restore", "ip6tables-save", "iptables", "iptables-restore", "iptables-save"];

/// Images that containerd must have under the names that Kubernetes knows them by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterImages {
    apiserver: String,
    controller_manager: String,
    scheduler: String,
    proxy: String,
    coredns: String,
    pause: String,
    etcd: String,
}

impl ClusterImages {
    /// From what `kubeadm config images list` says.
    pub(super) fn parse(list: &str) -> Result<Self, PackagesError> {
        let named = |name: &str| {
            let of_name =
                |image: &&str| image.rsplit('/').next().is_some_and(|last| last.starts_with(&format!("{name}:")));
            let image = list.lines().map(str::trim).find(of_name).map(str::to_owned);
            image.ok_or_else(|| PackagesError::ImageList { missing: name.to_owned(), list: list.trim().to_owned() })
        };
        Ok(Self {
            apiserver: named("kube-apiserver")?,
            controller_manager: named("kube-controller-manager")?,
            scheduler: named("kube-scheduler")?,
            proxy: named("kube-proxy")?,
            coredns: named("coredns")?,
            pause: named("pause")?,
            etcd: named("etcd")?,
        })
    }
}

/// The images of the storage provisioner. What is built here is not called what others have built.
pub(super) struct StorageImages {
    pub(super) provisioner: String,
    pub(super) helper: String,
}

impl StorageImages {
    pub(super) fn new(version: &str) -> Self {
        Self {
            provisioner: format!("docker.io/drydock/local-path-provisioner:{version}"),
            helper: format!("docker.io/drydock/local-path-helper:{version}"),
        }
    }
}

/// All that the node image, with the images in it, is made of.
pub(super) fn inputs(
    kitchen: &Kitchen<'_>,
    parts: &[&Recipe],
    stand_in: Option<&str>,
) -> Result<Inputs, PackagesError> {
    let mut inputs = Inputs::new(2)
        .files("containerd", &kitchen.images().join("node/containerd.toml"))?
        .files("base", &kitchen.images().join("base"))?
        .text("stand-in", stand_in.unwrap_or_default());
    for part in parts {
        inputs = inputs.text(&part.name, &part.key);
    }
    Ok(inputs)
}

/// The node image: two layers, the root file system and the programs.
pub(super) fn image(kitchen: &Kitchen<'_>, parts: &Parts) -> Result<Image, PackagesError> {
    let images = cluster_images(parts)?;
    let path = kitchen.images().join("node/containerd.toml");
    let text = fs::read_to_string(&path).map_err(|source| PackagesError::Io { doing: "read", path, source })?;
    let mut files = Files::new()
        .text("etc/containerd/config.toml", text.replace("@PAUSE_IMAGE@", &images.pause), 0o644)
        .text("kind/version", kitchen.pins.kubernetes.clone(), 0o644)
        .program("usr/local/bin/cri-pull", parts.kubernetes.file("cri-pull"));
    for program in ["kubeadm", "kubectl", "kubelet"] {
        files = files.program(&format!("usr/bin/{program}"), parts.kubernetes.file(program));
    }
    for program in ["containerd", "containerd-shim-runc-v2", "ctr"] {
        files = files.program(&format!("usr/local/bin/{program}"), parts.containerd.file(program));
    }
    for (_, plugin) in CNI_PLUGINS {
        files = files.program(&format!("opt/cni/bin/{plugin}"), parts.cni_plugins.file(plugin));
    }
    let layers = vec![Layer::Tar(parts.node_rootfs.file("rootfs.tar")), Layer::Files(files)];
    let name = format!("{NAME}:{}", kitchen.pins.kubernetes);
    let mut image = Image::new(name, layers, &["/usr/local/bin/drydock-node", "/sbin/init"]);
    // Both are what systemd goes by in a container.
    image.env.push("container=docker".to_owned());
    image.stop_signal = Some("SIGRTMIN+3".to_owned());
    Ok(image)
}

fn cluster_images(parts: &Parts) -> Result<ClusterImages, PackagesError> {
    let path = parts.kubernetes.file("images.txt");
    let list = fs::read_to_string(&path).map_err(|source| PackagesError::Io { doing: "read", path, source })?;
    ClusterImages::parse(&list)
}

/// Every image that a lab runs.
pub(super) fn workloads(
    kitchen: &Kitchen<'_>,
    parts: &Parts,
    base: &Artifact,
    coredns: &Artifact,
    stand_in: Option<Image>,
) -> Result<Vec<Image>, PackagesError> {
    let names = cluster_images(parts)?;
    let storage = StorageImages::new(&kitchen.pins.local_path_packages);
    let kubernetes = &parts.kubernetes;
    let one = |name: &str, path: &str, from: &Artifact, program: &str, entrypoint: &[&str]| {
        let files = Files::new().program(path, from.file(program)).dir("tmp", 0o1777);
        Image::new(name, vec![Layer::Files(files)], entrypoint)
    };
    let kube = |name: &str, program: &str| one(name, &format!("usr/local/bin/{program}"), kubernetes, program, &[]);
    let applets = APPLETS
        .iter()
        .fold(Files::new().dir("tmp", 0o1777), |files, applet| files.link(&format!("usr/bin/{applet}"), "busybox"));
    let base = vec![Layer::Tar(base.file("rootfs.tar")), Layer::Files(applets)];
    let flavour = kitchen.images().join("base/iptables");
    let wrapper = Files::new().program("usr/local/lib/drydock/iptables", flavour);
    let iptables = IPTABLES
        .iter()
        .fold(wrapper, |files, name| files.link(&format!("usr/local/sbin/{name}"), "../lib/drydock/iptables"));
    let proxy = Files::new().program("usr/local/bin/kube-proxy", kubernetes.file("kube-proxy"));
    let proxy = [base.clone(), vec![Layer::Files(iptables), Layer::Files(proxy)]].concat();
    let mut images = vec![
        kube(&names.apiserver, "kube-apiserver"),
        kube(&names.controller_manager, "kube-controller-manager"),
        kube(&names.scheduler, "kube-scheduler"),
        kube(&names.etcd, "etcd"),
        Image::new(names.proxy, proxy, &[]),
        one(&names.coredns, "coredns", coredns, "coredns", &["/coredns"]),
        one(&names.pause, "pause", kubernetes, "pause", &["/pause"]),
        one(
            &storage.provisioner,
            "usr/bin/local-path-provisioner",
            &parts.tools,
            "local-path-provisioner",
            &["local-path-provisioner"],
        ),
        Image::new(storage.helper, base, &["sh"]),
    ];
    images.extend(stand_in);
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_of_a_cluster_are_those_that_kubeadm_names() {
        let list = "registry.k8s.io/kube-apiserver:v1.34.4\nregistry.k8s.io/kube-controller-manager:v1.34.4\n\
            registry.k8s.io/kube-scheduler:v1.34.4\nregistry.k8s.io/kube-proxy:v1.34.4\n\
            registry.k8s.io/coredns/coredns:v1.12.1\nregistry.k8s.io/pause:3.10.1\nregistry.k8s.io/etcd:3.6.5-0\n";
        let images = ClusterImages::parse(list).unwrap();
        assert_eq!(images.coredns, "registry.k8s.io/coredns/coredns:v1.12.1");
        assert_eq!(images.pause, "registry.k8s.io/pause:3.10.1");
        let error = ClusterImages::parse(&list.replace("etcd:", "etcd2:")).unwrap_err();
        assert!(error.to_string().contains("names no image etcd"), "{error}");
    }
}
