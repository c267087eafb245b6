//! Everything built here: programs from Go packages, root file systems from Debian packages, images from both. No image
//! registry is asked for anything.

pub mod debian;
pub mod go;
mod node;
mod stand_in;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use self::{
    debian::{DebianError, Distribution, Rootfs},
    go::{Go, GoError, KubernetesPins, Module, ToolPins},
};
use super::{
    Pins, Prepared,
    engine::{EngineError, EngineRef},
    image::Image,
    ingredients::{Facts, Harbor, Ingredients, LocalPath, Network, Tools},
    node::{self as node_image, Dock, NodeError},
    of_minor,
    store::{Artifact, Building, Inputs, Recipe, Store, StoreError},
};
use crate::{
    cmd::{Cmd, CmdError},
    paths::Paths,
    run::events::{Events, HarborKind},
};

/// Why the tools and images could not be built here.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// The artifact store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Go packages.
    #[error(transparent)]
    Go(#[from] GoError),
    /// Debian packages.
    #[error(transparent)]
    Debian(#[from] DebianError),
    /// The Docker engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The node image.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A tool failed.
    #[error(transparent)]
    Command(#[from] CmdError),
    /// A file could not be handled.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// kubeadm's list of images has not the form that it is known to have.
    #[error("read which images the control plane needs: kubeadm names no image {missing}; it names: {list}")]
    ImageList {
        /// The image.
        missing: String,
        /// The list.
        list: String,
    },
}

/// What everything here is made with.
pub(super) struct Kitchen<'a> {
    pub(super) root: &'a Path,
    pub(super) paths: &'a Paths,
    pub(super) pins: &'a Pins,
    pub(super) events: &'a Events,
    store: Store,
    go: Go,
    host: Distribution,
}

impl<'a> Kitchen<'a> {
    /// Looks at what builds need of the host, before anything is built.
    async fn new(
        root: &'a Path,
        paths: &'a Paths,
        pins: &'a Pins,
        offline: bool,
        events: &'a Events,
    ) -> Result<Self, PackagesError> {
        let go = Go::find(paths, &pins.go).await?;
        let host = Distribution::of_host()?;
        Ok(Self { root, paths, pins, events, store: Store::new(paths).closed(offline), go, host })
    }

    /// What has node images in an engine.
    fn dock(&self, engine: &'a EngineRef) -> Dock<'a> {
        Dock { root: self.root, paths: self.paths, engine, events: self.events }
    }

    fn images(&self) -> PathBuf {
        self.root.join("fixtures/images")
    }

    fn recipes(&self) -> Result<Recipes, PackagesError> {
        let pins = self.pins;
        let own = self.images().join("go");
        let go = || Inputs::new(1).text("go", self.go.version());
        let recipe = |name: &str, inputs: Inputs, step: String, seconds| Recipe {
            name: name.to_owned(),
            key: inputs.key(),
            step,
            usually: Duration::from_secs(seconds),
        };
        let of_module = |pins: &KubernetesPins<'_>| {
            let inputs = go().text("kubernetes", pins.kubernetes).text("etcd", pins.etcd);
            let Some(tools) = &pins.tools else { return inputs };
            inputs.text("helm", tools.helm).text("local-path", tools.local_path)
        };
        let kubernetes = of_module(&self.kubernetes_pins())
            .files("pause", &own.join("pause"))?
            .files("cri-pull", &own.join("cri-pull"))?;
        let coredns = go().text("version", &pins.coredns).files("main", &own.join("coredns"))?;
        let rootfs = |name: &str, folder: &str, step: &str, seconds| {
            let inputs = Inputs::new(3).text("host", &self.host.id).text("suite", &self.host.suite);
            let folder = self.images().join(folder);
            let mut inputs = inputs.files("packages", &folder.join("packages.txt"))?;
            for part in ["rootfs", "setup.sh"].map(|part| folder.join(part)) {
                if part.exists() {
                    inputs = inputs.files("part", &part)?;
                }
            }
            Ok::<_, StoreError>(recipe(name, inputs, step.to_owned(), seconds))
        };
        Ok(Recipes {
            kind: recipe(
                "kind",
                go().text("version", &pins.kind),
                format!("build kind {} from its Go package", pins.kind),
                12,
            ),
            crane: recipe(
                "crane",
                go().text("version", &pins.crane),
                format!("build crane {} from its Go package", pins.crane),
                20,
            ),
            cni_plugins: recipe(
                "cni-plugins",
                go().text("version", &pins.cni_plugins),
                format!("build the CNI plugins {} from their Go package", pins.cni_plugins),
                15,
            ),
            containerd: recipe(
                "containerd",
                go().text("version", &pins.containerd),
                format!("build containerd {} from its Go package", pins.containerd),
                150,
            ),
            coredns: recipe("coredns", coredns, format!("build coredns {} from its Go package", pins.coredns), 75),
            kubernetes: recipe(
                &of_minor("kubernetes", &pins.kubernetes),
                kubernetes,
                format!("build Kubernetes {} and etcd {} from their Go packages", pins.kubernetes, pins.etcd),
                360,
            ),
            tools: recipe(
                "tools",
                of_module(&self.default_pins()),
                format!("build helm {} and the storage provisioner from their Go packages", pins.helm),
                15,
            ),
            mmdebstrap: recipe(
                "mmdebstrap",
                Inputs::new(1).text("suite", &self.host.suite),
                "fetch mmdebstrap, which unpacks Debian packages".to_owned(),
                8,
            ),
            node_rootfs: rootfs("node-rootfs", "node", "make the node's root file system from Debian packages", 65)?,
            base_rootfs: rootfs("base-rootfs", "base", "unpack what kube-proxy calls from Debian packages", 10)?,
            harbor_rootfs: match self.images().join("harbor/packages.txt").exists() {
                true => Some(rootfs(
                    "harbor-rootfs",
                    "harbor",
                    "make the Harbor stand-in's root file system from Debian packages",
                    75,
                )?),
                false => None,
            },
        })
    }

    async fn go_artifact<F>(&self, recipe: &Recipe, files: &[&str], module: F) -> Result<Artifact, PackagesError>
    where
        F: AsyncFnOnce(&Building) -> Result<Module, PackagesError>,
    {
        let build = |building: Building| async move {
            let module = module(&building).await?;
            self.go.build(&module, &building.scratch, &building.out).await?;
            Ok(())
        };
        self.store.ensure(recipe, files, self.events, build).await
    }

    async fn kind(&self, recipe: &Recipe) -> Result<Artifact, PackagesError> {
        self.go_artifact(recipe, &[], async |_| Ok(Module::kind(&self.pins.kind))).await
    }

    async fn crane(&self, recipe: &Recipe) -> Result<Artifact, PackagesError> {
        self.go_artifact(recipe, &[], async |_| Ok(Module::crane(&self.pins.crane))).await
    }

    async fn containerd(&self, recipe: &Recipe) -> Result<Artifact, PackagesError> {
        self.go_artifact(recipe, &[], async |_| Ok(Module::containerd(&self.pins.containerd))).await
    }

    async fn cni_plugins(&self, recipe: &Recipe) -> Result<Artifact, PackagesError> {
        self.go_artifact(recipe, &[], async |_| Ok(Module::cni_plugins(&self.pins.cni_plugins))).await
    }

    async fn coredns(&self, recipe: &Recipe) -> Result<Artifact, PackagesError> {
        let own = self.images().join("go");
        self.go_artifact(recipe, &[], async |_| Ok(Module::coredns(&self.pins.coredns, &own))).await
    }

    /// The default Kubernetes, with the tools that are built with its packages.
    fn default_pins(&self) -> KubernetesPins<'_> {
        let pins = self.pins;
        let tools = ToolPins { helm: &pins.helm, local_path: &pins.local_path_packages };
        KubernetesPins { kubernetes: &pins.default_kubernetes, etcd: &pins.default_etcd, tools: Some(tools) }
    }

    /// The lab's Kubernetes.
    fn kubernetes_pins(&self) -> KubernetesPins<'_> {
        match self.pins.kubernetes == self.pins.default_kubernetes {
            true => self.default_pins(),
            false => KubernetesPins { kubernetes: &self.pins.kubernetes, etcd: &self.pins.etcd, tools: None },
        }
    }

    /// helm and the storage provisioner. `files` as for [`Kitchen::kubernetes`].
    async fn tools(&self, recipe: &Recipe, files: &[&str]) -> Result<Artifact, PackagesError> {
        let build = |building: Building| async move {
            let pins = self.default_pins();
            let go_mod = self.go.kubernetes_module(pins.kubernetes, &building.scratch).await?;
            self.go.build(&Module::tools(&pins, &go_mod)?, &building.scratch, &building.out).await?;
            Ok(())
        };
        self.store.ensure(recipe, files, self.events, build).await
    }

    /// `files` are those that will be used; all, where none is named.
    async fn kubernetes(&self, recipe: &Recipe, files: &[&str]) -> Result<Artifact, PackagesError> {
        let pins = self.kubernetes_pins();
        let build = |building: Building| async move {
            let go_mod = self.go.kubernetes_module(pins.kubernetes, &building.scratch).await?;
            let module = Module::kubernetes(&pins, &go_mod, &self.images().join("go"))?;
            self.go.build(&module, &building.scratch, &building.out).await?;
            let kubeadm = building.out.join("kubeadm");
            let list = Cmd::new(&kubeadm)
                .args(["config", "images", "list", "--kubernetes-version", pins.kubernetes])
                .run()
                .await?
                .stdout;
            let path = building.out.join("images.txt");
            fs::write(&path, list).map_err(|source| PackagesError::Io { doing: "write", path, source })
        };
        self.store.ensure(recipe, files, self.events, build).await
    }

    async fn rootfs(
        &self,
        recipe: &Recipe,
        folder: &str,
        variant: &'static str,
        mmdebstrap: &Recipe,
    ) -> Result<Artifact, PackagesError> {
        let build = |building: Building| async move {
            debian::require_root()?;
            let tool = self.mmdebstrap(mmdebstrap).await?;
            let rootfs = Rootfs::of_folder(&self.images().join(folder), variant)?;
            let out = building.out.join("rootfs.tar");
            rootfs.make(&self.host, &tool.file("mmdebstrap"), &building.scratch, &out).await?;
            Ok(())
        };
        self.store.ensure(recipe, &[], self.events, build).await
    }

    async fn mmdebstrap(&self, recipe: &Recipe) -> Result<Artifact, PackagesError> {
        let fetch = |building: Building| async move {
            debian::fetch_mmdebstrap(&self.host, &building.scratch, &building.out).await?;
            Ok(())
        };
        self.store.ensure(recipe, &[], self.events, fetch).await
    }

    async fn node_rootfs(&self, recipes: &Recipes) -> Result<Artifact, PackagesError> {
        self.rootfs(&recipes.node_rootfs, "node", "essential", &recipes.mmdebstrap).await
    }

    async fn base_rootfs(&self, recipes: &Recipes) -> Result<Artifact, PackagesError> {
        self.rootfs(&recipes.base_rootfs, "base", "extract", &recipes.mmdebstrap).await
    }

    async fn harbor_rootfs(&self, recipes: &Recipes) -> Result<Option<Artifact>, PackagesError> {
        match &recipes.harbor_rootfs {
            Some(recipe) => self.rootfs(recipe, "harbor", "essential", &recipes.mmdebstrap).await.map(Some),
            None => Ok(None),
        }
    }

    /// The stand-in's image and its name; `None` where its folder of Debian packages is missing.
    async fn stand_in(&self, recipes: &Recipes) -> Result<Option<Image>, PackagesError> {
        let Some(name) = self.stand_in_name(recipes)? else { return Ok(None) };
        let (rootfs, program) = tokio::try_join!(self.harbor_rootfs(recipes), stand_in::program(self))?;
        Ok(rootfs.map(|rootfs| stand_in::image(&name, &rootfs, &program)))
    }

    fn stand_in_name(&self, recipes: &Recipes) -> Result<Option<String>, PackagesError> {
        let program = stand_in::program_recipe(self.root)?;
        Ok(recipes.harbor_rootfs.as_ref().map(|rootfs| stand_in::name(rootfs, &program)))
    }
}

/// How each artifact is made; nothing is made yet.
struct Recipes {
    kind: Recipe,
    crane: Recipe,
    cni_plugins: Recipe,
    containerd: Recipe,
    coredns: Recipe,
    kubernetes: Recipe,
    tools: Recipe,
    mmdebstrap: Recipe,
    node_rootfs: Recipe,
    base_rootfs: Recipe,
    harbor_rootfs: Option<Recipe>,
}

/// What the node image is made of, beside the images in it.
struct Parts {
    kubernetes: Artifact,
    tools: Artifact,
    containerd: Artifact,
    cni_plugins: Artifact,
    node_rootfs: Artifact,
}

/// Makes whatever is missing, and has the node image in the engine.
pub(super) async fn prepare(
    root: &Path,
    paths: &Paths,
    pins: &Pins,
    engine: &EngineRef,
    offline: bool,
    events: &Events,
) -> Result<Prepared, PackagesError> {
    let kitchen = Kitchen::new(root, paths, pins, offline, events).await?;
    let (kitchen, dock) = (&kitchen, &kitchen.dock(engine));
    let recipes = &kitchen.recipes()?;
    let stand_in_name = kitchen.stand_in_name(recipes)?;
    let of_node = [
        &recipes.node_rootfs,
        &recipes.base_rootfs,
        &recipes.kubernetes,
        &recipes.tools,
        &recipes.containerd,
        &recipes.cni_plugins,
        &recipes.coredns,
    ];
    let inputs = node::inputs(kitchen, &of_node, stand_in_name.as_deref())?;
    let node = &dock.recipe(&of_minor("node", &pins.kubernetes), inputs)?;
    let name = node_image::name(&pins.kubernetes, node);
    let state = match dock.in_engine(node, &name).await? {
        Some(state) => state,
        None => {
            if kitchen.store.get(node, &[], &Events::discard()).await?.is_none() {
                build_all(kitchen, recipes).await?;
            }
            let preload = |building: Building| async move {
                let (node_image, images) = images(kitchen, recipes).await?;
                Ok::<_, PackagesError>(dock.preload(node, node_image, images, &building).await?)
            };
            // Nothing is fetched for it but its parts.
            let state = Store::new(paths).ensure(node, &[], events, preload).await?;
            let image = node::image(kitchen, &parts(kitchen, recipes).await?)?;
            dock.load(node, &name, image, &state).await?;
            state
        }
    };
    let (tools, mut in_use) = tools(kitchen, recipes).await?;
    in_use.push(state);
    let facts = facts(pins, stand_in_name);
    let none = Ingredients {
        facts,
        tools,
        node: Image::new("", Vec::new(), &[]),
        images: Vec::new(),
        chart: chart(root),
        versions: versions(pins),
        in_use,
    };
    Ok(dock.prepared(none, name)?)
}

/// Makes whatever is missing, and nothing of it in an engine: for a bundle.
pub(super) async fn ingredients(
    root: &Path,
    paths: &Paths,
    pins: &Pins,
    offline: bool,
    events: &Events,
) -> Result<Ingredients, PackagesError> {
    let kitchen = Kitchen::new(root, paths, pins, offline, events).await?;
    let recipes = kitchen.recipes()?;
    build_all(&kitchen, &recipes).await?;
    let (node, images) = images(&kitchen, &recipes).await?;
    let (tools, in_use) = tools(&kitchen, &recipes).await?;
    let facts = facts(pins, kitchen.stand_in_name(&recipes)?);
    Ok(Ingredients { facts, tools, node, images, chart: chart(root), versions: versions(pins), in_use })
}

/// The versions of what is built here.
fn versions(pins: &Pins) -> BTreeMap<String, String> {
    let parts = [
        ("cni-plugins", &pins.cni_plugins),
        ("containerd", &pins.containerd),
        ("coredns", &pins.coredns),
        ("crane", &pins.crane),
        ("etcd", &pins.etcd),
        ("helm", &pins.helm),
        ("kind", &pins.kind),
        ("kubernetes", &pins.kubernetes),
        ("local-path-provisioner", &pins.local_path_packages),
    ];
    parts.map(|(name, version)| (name.to_owned(), version.clone())).into()
}

fn facts(pins: &Pins, stand_in: Option<String>) -> Facts {
    let storage = node::StorageImages::new(&pins.local_path_packages);
    let values = stand_in.map(|image| ("standIn".to_owned(), serde_json::json!({ "image": image })));
    Facts {
        kubernetes: pins.kubernetes.clone(),
        network: Network::Drydock,
        harbor: Harbor { kind: HarborKind::StandIn, values: values.into_iter().collect() },
        local_path: LocalPath { provisioner: storage.provisioner, helper: storage.helper },
    }
}

fn chart(root: &Path) -> PathBuf {
    root.join("fixtures/charts/harbor-stand-in")
}

async fn tools(kitchen: &Kitchen<'_>, recipes: &Recipes) -> Result<(Tools, Vec<Artifact>), PackagesError> {
    let kind = kitchen.kind(&recipes.kind).await?;
    let crane = kitchen.crane(&recipes.crane).await?;
    let kubernetes = kitchen.kubernetes(&recipes.kubernetes, &["kubectl"]).await?;
    let tools = kitchen.tools(&recipes.tools, &["helm"]).await?;
    let programs = Tools {
        kind: kind.file("kind"),
        helm: tools.file("helm"),
        kubectl: kubernetes.file("kubectl"),
        crane: crane.file("crane"),
    };
    Ok((programs, vec![kind, crane, kubernetes, tools]))
}

/// The node image and the images in it.
async fn images(kitchen: &Kitchen<'_>, recipes: &Recipes) -> Result<(Image, Vec<Image>), PackagesError> {
    let parts = parts(kitchen, recipes).await?;
    let base = kitchen.base_rootfs(recipes).await?;
    let coredns = kitchen.coredns(&recipes.coredns).await?;
    let stand_in = kitchen.stand_in(recipes).await?;
    Ok((node::image(kitchen, &parts)?, node::workloads(kitchen, &parts, &base, &coredns, stand_in)?))
}

async fn parts(kitchen: &Kitchen<'_>, recipes: &Recipes) -> Result<Parts, PackagesError> {
    Ok(Parts {
        kubernetes: kitchen.kubernetes(&recipes.kubernetes, &[]).await?,
        tools: kitchen.tools(&recipes.tools, &[]).await?,
        containerd: kitchen.containerd(&recipes.containerd).await?,
        cni_plugins: kitchen.cni_plugins(&recipes.cni_plugins).await?,
        node_rootfs: kitchen.node_rootfs(recipes).await?,
    })
}

/// The actionlint program.
pub(super) async fn actionlint(
    root: &Path,
    paths: &Paths,
    pins: &Pins,
    events: &Events,
) -> Result<PathBuf, PackagesError> {
    let kitchen = Kitchen::new(root, paths, pins, false, events).await?;
    let recipe = Recipe {
        name: "actionlint".to_owned(),
        key: Inputs::new(1).text("go", kitchen.go.version()).text("version", &pins.actionlint).key(),
        step: format!("build actionlint {} from its Go package", pins.actionlint),
        usually: Duration::from_secs(10),
    };
    let program =
        kitchen.go_artifact(&recipe, &["actionlint"], async |_| Ok(Module::actionlint(&pins.actionlint))).await?;
    Ok(program.file("actionlint"))
}

/// Has the stand-in's image in the engine itself, for tests that run its parts as containers.
pub(super) async fn stand_in_in_engine(
    root: &Path,
    paths: &Paths,
    pins: &Pins,
    engine: &EngineRef,
    events: &Events,
) -> Result<Option<String>, PackagesError> {
    let kitchen = Kitchen::new(root, paths, pins, false, events).await?;
    let recipes = kitchen.recipes()?;
    let Some(name) = kitchen.stand_in_name(&recipes)? else { return Ok(None) };
    // The store has no artifact of the image as a whole: it goes with its program.
    let program = stand_in::program_recipe(root)?.id();
    let dock = kitchen.dock(engine);
    if engine.has(&name, &program, None).await? {
        return Ok(Some(name));
    }
    let Some(image) = kitchen.stand_in(&recipes).await? else { return Ok(None) };
    let image = dock.labelled(image, &program);
    let load = events.step_usually(
        "load the Harbor stand-in's image into the engine",
        Some(Duration::from_secs(8)),
        |step| async move { engine.load(image, &step).await },
    );
    load.await?;
    dock.drop_old_images().await?;
    Ok(Some(name))
}

/// Builds everything that is missing. What waits for a mirror runs beside what keeps the processors busy.
async fn build_all(kitchen: &Kitchen<'_>, recipes: &Recipes) -> Result<(), PackagesError> {
    let go = async {
        kitchen.kind(&recipes.kind).await?;
        kitchen.crane(&recipes.crane).await?;
        kitchen.cni_plugins(&recipes.cni_plugins).await?;
        kitchen.containerd(&recipes.containerd).await?;
        kitchen.coredns(&recipes.coredns).await?;
        kitchen.kubernetes(&recipes.kubernetes, &[]).await?;
        // After the default Kubernetes, whose packages it has then compiled.
        kitchen.tools(&recipes.tools, &[]).await?;
        Ok::<_, PackagesError>(())
    };
    let debian = async {
        kitchen.base_rootfs(recipes).await?;
        kitchen.node_rootfs(recipes).await?;
        kitchen.stand_in(recipes).await?;
        Ok(())
    };
    tokio::try_join!(go, debian).map(|_| ())
}
