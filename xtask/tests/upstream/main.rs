//! A lab from upstream, all of it fetched: through a proxy, from what stands for its hosts. What it fetches are the parts that are
//! built from packages, in the form in which upstream has them; so no registry is asked, and whether the official images do what
//! these do is not seen here.
#![allow(clippy::unwrap_used, reason = "a test's helper fails as the test does")]

mod internet;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use harness::source::{Pins, versions::Versions};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::internet::Internet;

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const NAME: &str = "io.containerd.image.name";
/// What kind installs unless it is told not to; nodes that are built here need no network of pods.
const CNI: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: cni, namespace: kube-system}, data: {subnet: '{{ .PodSubnet }}'}}\n";
/// What kind installs for storage, by the names that its own manifest has.
const STORAGE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: local-path-storage}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}
provisioner: rancher.io/local-path
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: local-path-provisioner, namespace: local-path-storage}
spec:
  replicas: 1
  selector: {matchLabels: {app: stock}}
  template:
    metadata: {labels: {app: stock}}
    spec: {containers: [{name: stock, image: docker.io/kindest/local-path-provisioner:v1}]}
";

fn ran(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    println!("{command:?}: {}", output.status);
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

fn done(command: &mut Command) {
    assert!(ran(command).status.success());
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A bundle that was unpacked: images that are built from packages, as blobs.
struct Parts(PathBuf);

impl Parts {
    fn build(dir: &Path) -> Self {
        let (file, parts) = (dir.join("parts.tar.zst"), dir.join("parts"));
        done(Command::new(XTASK).args(["bundle", "create", "--source", "packages", "--output"]).arg(&file));
        fs::create_dir(&parts).unwrap();
        done(Command::new("tar").args(["--zstd", "-xf"]).arg(&file).arg("-C").arg(&parts));
        fs::remove_file(file).unwrap();
        Self(parts)
    }

    /// The names of its images, with their digests.
    fn images(&self) -> Vec<(String, String)> {
        let index = read(&self.0.join("index.json"));
        let words = |value: &Value| value.as_str().unwrap().to_owned();
        let of = |image: &Value| (words(&image["annotations"][NAME]), words(&image["digest"]));
        index["manifests"].as_array().unwrap().iter().map(of).collect()
    }

    fn digest(&self, name: &str) -> String {
        self.images().into_iter().find(|(known, _)| known == name).unwrap().1
    }

    fn blob(&self, digest: &str) -> Value {
        read(&self.0.join("blobs/sha256").join(digest.trim_start_matches("sha256:")))
    }

    /// Adds a blob, and describes it.
    fn add(&self, kind: &str, content: &[u8]) -> Value {
        let digest = hex::encode(Sha256::digest(content));
        fs::write(self.0.join("blobs/sha256").join(&digest), content).unwrap();
        json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": content.len()})
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.0.join("tools").join(name)
    }

    /// The node image as kind's own are: for more than one architecture, with manifests for network and storage. Returns the
    /// digest that it is pinned by.
    fn node(&self, name: &str) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        for (file, text) in [("default-cni.yaml", CNI), ("default-storage.yaml", STORAGE)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("kind/manifests/{file}"), text.as_bytes()).unwrap();
        }
        let layer = self.add(LAYER, &tar.into_inner().unwrap());
        let mut manifest = self.blob(&self.digest(name));
        let mut config = self.blob(manifest["config"]["digest"].as_str().unwrap());
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(layer["digest"].clone());
        manifest["layers"].as_array_mut().unwrap().push(layer);
        let kind = manifest["config"]["mediaType"].as_str().unwrap().to_owned();
        manifest["config"] = self.add(&kind, config.to_string().as_bytes());
        let of = |platform: &str, mut image: Value| {
            image["platform"] = json!({"os": "linux", "architecture": platform});
            image
        };
        let own = self.add("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        let architecture = config["architecture"].as_str().unwrap();
        let other = json!({"mediaType": own["mediaType"], "digest": format!("sha256:{}", "0".repeat(64)), "size": 1});
        let list = "application/vnd.docker.distribution.manifest.list.v2+json";
        let images = [of("s390x", other), of(architecture, own)];
        let index = json!({"schemaVersion": 2, "mediaType": list, "manifests": images});
        self.add(list, index.to_string().as_bytes())["digest"].as_str().unwrap().to_owned()
    }

    /// The chart as the official one is: every component has an image of its own. It names those of the control plane too, which
    /// kind's own node images have.
    fn chart(&self, version: &str, harbor: &str) {
        let templates = self.0.join("chart/templates");
        for template in fs::read_dir(&templates).unwrap() {
            let path = template.unwrap().path();
            let component = path.file_stem().unwrap().to_str().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let image = format!("goharbor/harbor-{component}:v{harbor}");
            fs::write(&path, text.replace("{{ .Values.standIn.image }}", &image)).unwrap();
        }
        let control_plane = self.images().into_iter().filter(|(name, _)| name.starts_with("registry.k8s.io/"));
        let lines: String = control_plane.map(|(name, _)| format!("    image: {name}\n")).collect();
        let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: images}}\ndata:\n  names: |\n{lines}");
        fs::write(templates.join("images.yaml"), map).unwrap();
        let charts = self.0.join("charts");
        let helm = || {
            let mut helm = Command::new(self.tool("helm"));
            helm.env("HELM_CACHE_HOME", self.0.join("helm")).env("HELM_CONFIG_HOME", self.0.join("helm"));
            helm
        };
        done(helm().args(["package", "--version", version]).arg("-d").arg(&charts).arg(templates.parent().unwrap()));
        done(helm().args(["repo", "index", "--url", "https://helm.goharbor.io"]).arg(&charts));
    }

    /// The programs as their projects release them, with their checksums.
    fn releases(&self, helm: &str) {
        let files = self.0.join("files");
        fs::create_dir(&files).unwrap();
        let sum = |name: &str| hex::encode(Sha256::digest(fs::read(files.join(name)).unwrap()));
        let (arch, other) = if cfg!(target_arch = "aarch64") { ("arm64", "arm64") } else { ("amd64", "x86_64") };
        let kind = format!("kind-linux-{arch}");
        for (tool, name) in [("kind", kind.as_str()), ("kubectl", "kubectl")] {
            fs::copy(self.tool(tool), files.join(name)).unwrap();
        }
        fs::write(files.join(format!("{kind}.sha256sum")), format!("{}  {kind}\n", sum(&kind))).unwrap();
        fs::write(files.join("kubectl.sha256"), sum("kubectl")).unwrap();
        let packed = |name: &str, member: &str, tool: &str| {
            fs::create_dir_all(self.0.join("packed").join(member).parent().unwrap()).unwrap();
            fs::copy(self.tool(tool), self.0.join("packed").join(member)).unwrap();
            let mut tar = Command::new("tar");
            done(tar.arg("-czf").arg(files.join(name)).arg("-C").arg(self.0.join("packed")).arg(member));
        };
        let name = format!("helm-{helm}-linux-{arch}.tar.gz");
        packed(&name, &format!("linux-{arch}/helm"), "helm");
        fs::write(files.join(format!("{name}.sha256sum")), format!("{}  {name}\n", sum(&name))).unwrap();
        let name = format!("go-containerregistry_Linux_{other}.tar.gz");
        packed(&name, "crane", "crane");
        fs::write(files.join("checksums.txt"), format!("{}  other.tar.gz\n{}  {name}\n", "0".repeat(64), sum(&name)))
            .unwrap();
    }
}

/// A workspace in `dir` with its own pins, for `xtask` to run in.
fn workspace(dir: &Path, kindest: &str, digest: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::create_dir_all(dir.join("workspace/xtask")).unwrap();
    done(Command::new("cp").arg("-r").arg(root.join("fixtures")).arg(dir.join("workspace")));
    let versions = dir.join("workspace/fixtures/versions.toml");
    let pins = fs::read_to_string(&versions).unwrap();
    let (before, after) = pins.split_once(&format!("{kindest}@sha256:")).unwrap();
    fs::write(&versions, format!("{before}{kindest}@{digest}{}", &after[64..])).unwrap();
    dir.join("workspace/xtask")
}

#[test]
#[ignore = "makes a lab: run by .ci/run"]
fn a_lab_is_made_of_what_upstream_has_behind_a_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let parts = Parts::build(dir);
    let versions = Versions::parse("versions.toml", include_str!("../../../fixtures/versions.toml")).unwrap();
    let pins = Pins::new(&versions, versions.kubernetes(None).unwrap(), versions.harbor(None).unwrap());
    let description = read(&parts.0.join("drydock.json"));
    let (kindest, _) = pins.node_image.split_once('@').unwrap();
    let node = parts.node(description["node"].as_str().unwrap());
    parts.chart(&pins.harbor_chart, &pins.harbor);
    parts.releases(&pins.helm);

    let stand_in = parts.images().into_iter().find(|(name, _)| name.contains("harbor-stand-in")).unwrap().1;
    let components = ["core", "database", "jobservice", "nginx", "portal", "redis", "registry"];
    let mut tags: BTreeMap<String, String> =
        components.map(|component| (format!("goharbor/harbor-{component}:v{}", pins.harbor), stand_in.clone())).into();
    for (image, of) in [(&pins.local_path_image, "provisioner"), (&pins.helper_image, "helper")] {
        let name = image.trim_start_matches("docker.io/").to_owned();
        tags.insert(name, parts.digest(description["lab"]["local-path"][of].as_str().unwrap()));
    }
    for (name, digest) in parts.images() {
        if let Some(name) = name.strip_prefix("registry.k8s.io/") {
            tags.insert(name.to_owned(), digest);
        }
    }
    let workspace = workspace(dir, kindest, &node);
    let internet = Arc::new(Internet { dir: parts.0, tags, asked: Mutex::default() });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (proxy, certificate) = runtime.block_on(internet.clone().serve()).unwrap();
    fs::write(dir.join("proxy.crt"), certificate).unwrap();

    // A repair that pushes into Harbor from the workstation, and pulls on every node: none of it goes through the proxy.
    let told = ran(Command::new(XTASK)
        .args(["e2e", "pv-drift/blobs-lost/recommended", "--provision", "--report"])
        .arg(dir.join("report"))
        .current_dir(dir)
        .env("CARGO_MANIFEST_DIR", workspace)
        .env("DRYDOCK_CACHE", dir.join("cache"))
        .env("SSL_CERT_FILE", dir.join("proxy.crt"))
        .envs(["HTTP_PROXY", "HTTPS_PROXY"].map(|name| (name, format!("http://{proxy}"))))
        .env_remove("NO_PROXY"));
    assert!(told.status.success());
    let seen = read(&dir.join("report/report.json"));
    assert_eq!((&seen["source"], &seen["harbor"]["kind"]), (&"upstream".into(), &"harbor".into()));
    let asked = internet.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|host| internet::HOSTS.contains(&host.as_str())), "{asked:?}");
    assert_eq!(asked.len(), internet::HOSTS.len(), "{asked:?}");
}
