//! A lab in a cluster that is there already leaves it as it was: after a run, after an interruption, and after a kill, with a
//! kind cluster that Drydock did not make, and that has things of its own in it.
#![allow(clippy::unwrap_used, reason = "a test's helper fails as the test does")]

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use futures::FutureExt;
use harness::{
    cmd::Cmd,
    lab::{
        engine::{ConnectOptions, Engine},
        node::Node,
    },
    paths::Paths,
    run::events::Events,
    source::{self, Pins, Prepared, Site, SourceChoice, engine::EngineRef, versions::Versions},
};
use tokio::process::{Child, Command};

/// The cluster, and its network.
const NAME: &str = "standing";
const CONTEXT: &str = "kind-standing";
/// As somebody would write it; the node image brings its pod network itself. On a machine that is busy a lease is lost now and then,
/// and with one control plane nobody needs it.
const CONFIG: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {disableDefaultCNI: true}\n\
                      featureGates: GATES\nnodes: [{role: control-plane}, {role: worker}, {role: worker}]\n\
                      kubeadmConfigPatches:\n  - |\n    kind: ClusterConfiguration\n    \
                      controllerManager: {extraArgs: {leader-elect: \"false\"}}\n    \
                      scheduler: {extraArgs: {leader-elect: \"false\"}}\n";
/// What somebody has in that cluster.
const THEIRS: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n\
    apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: shop}\ndata: {a: b}\n---\n\
    apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: shop-data}\nspec:\n  capacity: {storage: 1Gi}\n  \
    accessModes: [ReadWriteOnce]\n  persistentVolumeReclaimPolicy: Retain\n  storageClassName: by-hand\n  \
    hostPath: {path: /srv/shop}\n";
/// What somebody has on its nodes.
const ON_NODE: &str = "mkdir -p /etc/containerd/certs.d/mirror.example:5000 /opt/local-path-provisioner/pvc-1_shop_data\n\
    echo 'server = \"https://mirror.example:5000\"' > /etc/containerd/certs.d/mirror.example:5000/hosts.toml\n\
    cp /etc/kubernetes/pki/ca.crt /usr/local/share/ca-certificates/company.crt\n\
    update-ca-certificates >/dev/null 2>&1; systemctl restart containerd\n\
    echo kept > /opt/local-path-provisioner/pvc-1_shop_data/file\n";
/// All that a lab changes on a node, and more. Two folders are the node's own pod network's, which makes them with the first pod.
const FILES: &str = r#"
find /etc /opt /usr/local/share /srv /root -xdev | LC_ALL=C sort | while IFS= read -r path; do
  content=
  if [ -L "$path" ]; then content=$(readlink "$path"); elif [ -f "$path" ]; then content=$(md5sum < "$path" | cut -c1-12); fi
  echo "$path $(stat -c '%F %a %u:%g' "$path") $content"
done
ls -d /var/lib/* /run/drydock* 2>/dev/null | grep -vxE '/var/lib/cni|/run/drydock-pod-addresses'
ctr -n k8s.io images ls -q | sort
ctr -n k8s.io containers ls -q | wc -l
systemctl list-units --all --plain --no-legend 'drydock*'
systemctl is-active containerd kubelet
"#;

struct Standing {
    engine: Engine,
    tools: Prepared,
    dir: tempfile::TempDir,
    nodes: Vec<Node>,
}

impl Standing {
    async fn make(engine: Engine, tools: Prepared) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let docker = engine.docker();
        let node = |name: &str| Node::new(docker.clone(), name, name, name.ends_with("control-plane"));
        let nodes = ["standing-control-plane", "standing-worker", "standing-worker2"].map(node).into();
        Self { engine, tools, dir, nodes }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    fn kind(&self, args: &[&str]) -> Cmd {
        self.engine
            .cmd(&self.tools.tools.kind)
            .env("KIND_EXPERIMENTAL_DOCKER_NETWORK", NAME)
            .args(args)
            .args(["--name", NAME, "--kubeconfig"])
            .arg(self.kubeconfig())
    }

    fn kubectl(&self, args: &[&str]) -> Cmd {
        Cmd::new(&self.tools.tools.kubectl).arg("--kubeconfig").arg(self.kubeconfig()).args(args)
    }

    async fn fill(&self) {
        self.engine.create_network(NAME, [].into()).await.unwrap();
        let gates = if self.engine.restricted() { "{KubeletInUserNamespace: true}" } else { "{}" };
        let config = self.dir.path().join("kind.yaml");
        std::fs::write(&config, CONFIG.replace("GATES", gates)).unwrap();
        let config = config.display().to_string();
        let image = &self.tools.node_image;
        self.kind(&["create", "cluster", "--wait", "2m", "--image", image, "--config", &config]).run().await.unwrap();
        self.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=2m"]).run().await.unwrap();
        self.kubectl(&["apply", "-f", "-"]).stdin(THEIRS).run().await.unwrap();
        self.nodes[1].sh(ON_NODE).await.unwrap();
    }

    async fn remove(&self) {
        let _ = self.kind(&["delete", "cluster"]).run().await;
        let _ = self.engine.docker().remove_network(NAME).await;
    }

    /// All objects, all that is said of the nodes, and what is on them. Events, leases and the like come and go by themselves.
    async fn fingerprint(&self) -> BTreeSet<String> {
        let kinds = self.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).run().await.unwrap().stdout;
        let passing = ["events", "leases", "certificatesigningrequests", "componentstatuses"];
        let kinds: Vec<&str> =
            kinds.lines().filter(|kind| !passing.iter().any(|it| kind.split('.').next() == Some(it))).collect();
        let columns = "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name";
        let objects =
            self.kubectl(&["get", &kinds.join(","), "-A", "--no-headers", "-o", columns]).run().await.unwrap();
        let nodes = "jsonpath={range .items[*]}{.metadata.name} {.metadata.labels} {.spec.taints} {.spec.unschedulable}{\"\\n\"}{end}";
        let nodes = self.kubectl(&["get", "nodes", "-o", nodes]).run().await.unwrap();
        let mut all: BTreeSet<String> = objects.stdout.lines().chain(nodes.stdout.lines()).map(str::to_owned).collect();
        for node in &self.nodes {
            let files = node.sh(FILES).await.unwrap();
            // All of it was kept, and it looked where the things are.
            assert!(files.contains("/etc/containerd/config.toml regular file") && files.ends_with("active\nactive\n"));
            assert!(files.len() < 250_000, "{} bytes", files.len());
            all.extend(files.lines().map(|line| format!("{}: {line}", node.name)));
        }
        all
    }

    async fn assert_is(&self, before: &BTreeSet<String>, after: &str) {
        let now = self.fingerprint().await;
        let gone: Vec<_> = before.difference(&now).collect();
        let new: Vec<_> = now.difference(before).collect();
        assert!(gone.is_empty() && new.is_empty(), "after {after}: gone {gone:#?}, new {new:#?}");
    }

    fn xtask(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// A run there; its report goes to a folder that goes too.
    fn run(&self, cells: &[&str], named: Option<&str>) -> Command {
        let cluster = format!("{}:{CONTEXT}", self.kubeconfig().display());
        let report = self.dir.path().join("report").display().to_string();
        let mut args = vec!["e2e", "--source", "packages", "--report", &report, "--cluster", &cluster];
        args.extend(named.iter().flat_map(|name| ["--i-know-this-breaks", name]));
        args.extend(cells);
        self.xtask(&args)
    }

    /// Begins a run, and returns when the trust of the first worker was taken away: in the middle of it.
    async fn half_a_run(&self, cells: &[&str]) -> Child {
        let said = std::fs::File::create(self.dir.path().join("said")).unwrap();
        let mut child = self.run(cells, Some(CONTEXT)).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(300);
        while self.nodes[1].sh("! [ -e /etc/containerd/config.toml.before ]").await.is_ok() {
            let said = || std::fs::read_to_string(self.dir.path().join("said")).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "it ended: {}", said());
            assert!(Instant::now() < deadline, "no node was changed: {}", said());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        child
    }
}

/// Runs a command to its end, and returns its exit code and what it said.
async fn ends(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{said}");
    (output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it makes a cluster and several labs in it, a quarter of an hour: run it by hand"]
async fn a_cluster_that_is_there_already_is_left_as_it_was() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let versions = Versions::load(&root.join("fixtures/versions.toml")).unwrap();
    let pins = Pins::new(&versions, versions.kubernetes(None).unwrap(), versions.harbor(None).unwrap());
    let (paths, events) = (Paths::from_env().unwrap(), Events::discard());
    let runtime = Some(PathBuf::from(env!("CARGO_BIN_EXE_xtask")));
    let options = ConnectOptions { runtime, ..ConnectOptions::from_env(true) };
    let engine = Engine::connect(&options, &paths, &events).await.unwrap();
    let known = EngineRef { host: engine.host().to_owned(), docker: engine.docker().clone() };
    let site = Site { root: &root, paths: &paths, pins: &pins, mirror: None, offline: false, events: &events };
    let (_, tools) = source::prepare(&SourceChoice::Packages, &known, site).await.unwrap();

    let standing = Standing::make(engine, tools).await;
    let told = AssertUnwindSafe(async {
        standing.fill().await;
        tell(&standing).await;
    });
    let told = told.catch_unwind().await;
    standing.remove().await;
    standing.engine.leave(&events).await.unwrap();
    if let Err(panic) = told {
        std::panic::resume_unwind(panic);
    }
}

async fn tell(standing: &Standing) {
    let before = standing.fingerprint().await;

    // Nobody has said that this is known.
    for (named, cells, says) in [
        (None, vec![], "--i-know-this-breaks kind-standing"),
        (Some("kind-other"), vec![], "--i-know-this-breaks names `kind-other`"),
        (Some(CONTEXT), vec!["affinity-conflict/node-restarted"], "cannot be undone"),
    ] {
        let (code, said) = ends(standing.run(&cells, named)).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(says), "{said}");
    }
    standing.assert_is(&before, "refusals").await;

    // Something that Drydock needs is somebody's.
    standing.kubectl(&["create", "namespace", "app"]).run().await.unwrap();
    let (code, said) = ends(standing.run(&["untrusted-ca/no-trust"], Some(CONTEXT))).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there already: app") && said.contains("nothing was changed there"), "{said}");
    standing.kubectl(&["delete", "namespace", "app"]).run().await.unwrap();
    standing.assert_is(&before, "a refusal for a namespace").await;

    let cells = [
        "untrusted-ca/no-trust/documented",
        // A volume made by hand and one retained, with their folders.
        "pv-drift/volume-rebound/bind-old-volume",
        // A taint, cordons, and a volume's folder on another node than the provisioner's.
        "affinity-conflict/naive-then-pv-drift/no-op",
    ];
    let (code, said) = ends(standing.run(&cells, Some(CONTEXT))).await;
    assert_eq!(code, Some(0), "{said}");
    standing.assert_is(&before, "a run").await;

    let child = standing.half_a_run(&["untrusted-ca/no-trust"]).await;
    let pid = child.id().unwrap().to_string();
    Cmd::new("kill").args(["-INT", &pid]).run().await.unwrap();
    let ended = child.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(130));
    standing.assert_is(&before, "an interruption").await;

    let mut child = standing.half_a_run(&["untrusted-ca/no-trust"]).await;
    child.kill().await.unwrap();
    let (code, said) = ends(standing.xtask(&["gc"])).await;
    assert_eq!(code, Some(0), "{said}");
    standing.assert_is(&before, "a kill and gc").await;
}
