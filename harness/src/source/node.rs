//! The node image of a lab: a node image with every image that the lab runs already unpacked in its containerd, so that no
//! node pulls anything but the images under test.
//!
//! What is added is one layer, containerd's state. It is made by running containerd once in a container of the image.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Prepared,
    engine::{ARTIFACT_LABEL, CACHE_LABEL, EngineError, EngineRef, LABEL},
    image::{Archive, Files, Image, Layer},
    ingredients::Ingredients,
    local_path_manifest, of_minor,
    store::{Artifact, Building, Inputs, Recipe, Store, StoreError},
};
use crate::{hash, paths::Paths, run::events::Events};

/// What node images are called in the engine: in full, since an engine with containerd's image store, the default of Docker 29,
/// does not find what was loaded under a short name.
const REPOSITORY: &str = "docker.io/drydock/node";
/// The file that holds containerd's state, the image's top layer.
const STATE: &str = "state.tar";
/// The file that holds the digest of that layer.
const TOP: &str = "top-layer";
/// Importing the images takes seconds.
const PRELOAD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Why there is no node image.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The Docker engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The artifact store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be handled.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Puts node images together and has them in an engine.
pub(super) struct Dock<'a> {
    pub(super) root: &'a Path,
    pub(super) paths: &'a Paths,
    pub(super) engine: &'a EngineRef,
    pub(super) events: &'a Events,
}

impl Dock<'_> {
    fn store(&self) -> Store {
        Store::new(self.paths)
    }

    /// The recipe of containerd's state, and with it of the node image. `inputs` tell what it is made of.
    pub(super) fn recipe(&self, name: &str, inputs: Inputs) -> Result<Recipe, StoreError> {
        Ok(Recipe {
            name: name.to_owned(),
            key: inputs.files("preload", &self.script())?.key(),
            step: "put the images into the node image".to_owned(),
            usually: Duration::from_secs(40),
        })
    }

    fn script(&self) -> PathBuf {
        self.root.join("fixtures/images/node/preload.sh")
    }

    /// The node image's artifact, if the engine has the image that was made from it.
    pub(super) async fn in_engine(&self, recipe: &Recipe, name: &str) -> Result<Option<Artifact>, NodeError> {
        let Some(state) = self.store().get(recipe, &[TOP], self.events).await? else { return Ok(None) };
        let path = state.file(TOP);
        let top = fs::read_to_string(&path).map_err(|source| NodeError::Io { doing: "read", path, source })?;
        Ok(self.engine.has(name, &recipe.id(), Some(&top)).await?.then_some(state))
    }

    /// Makes containerd's state into `building`.
    pub(super) async fn preload(
        &self,
        recipe: &Recipe,
        mut node: Image,
        images: Vec<Image>,
        building: &Building,
    ) -> Result<(), NodeError> {
        let engine = self.engine;
        node.name = format!("{REPOSITORY}-system:{}", recipe.key);
        node.layers.push(Layer::Files(Files::new().dir("var/import", 0o755)));
        let name = node.name.clone();
        engine.load(self.labelled(node, &recipe.id()), &building.step).await?;
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| NodeError::Io { doing: "read", path, source }
        };
        let measured = tokio::task::spawn_blocking(move || Archive::new(&images)).await;
        let archive = measured.map_err(io::Error::other).flatten().map_err(read(&building.out))?;
        let script = fs::read_to_string(self.script()).map_err(read(&self.script()))?;
        let state = building.out.join(STATE);
        let staged = engine.stage(&name, archive, &script, PRELOAD_LIMIT, &state, &building.step).await;
        engine.forget(&name).await;
        staged?;
        let state_layer = Layer::Tar(state.clone());
        let digest = tokio::task::spawn_blocking(move || state_layer.digest()).await;
        let top = digest.map_err(io::Error::other).flatten().map_err(read(&state))?;
        let path = building.out.join(TOP);
        fs::write(&path, top).map_err(|source| NodeError::Io { doing: "write", path, source })
    }

    /// Loads the node image: `node` with containerd's state upon it.
    pub(super) async fn load(
        &self,
        recipe: &Recipe,
        name: &str,
        mut node: Image,
        state: &Artifact,
    ) -> Result<(), NodeError> {
        name.clone_into(&mut node.name);
        node.layers.push(Layer::Tar(state.file(STATE)));
        let node = self.labelled(node, &recipe.id());
        let usually = Some(Duration::from_secs(20));
        let load = self.events.step_usually("load the node image into the engine", usually, |step| async move {
            self.engine.load(node, &step).await
        });
        load.await?;
        self.drop_old_images().await
    }

    /// An image that can be found again, and dropped when its artifact is.
    pub(super) fn labelled(&self, mut image: Image, artifact: &str) -> Image {
        image.labels.insert(LABEL.to_owned(), "true".to_owned());
        image.labels.insert(CACHE_LABEL.to_owned(), self.paths.cache().display().to_string());
        image.labels.insert(ARTIFACT_LABEL.to_owned(), artifact.to_owned());
        image
    }

    /// Drops the images from the engine whose artifacts the store has dropped.
    pub(super) async fn drop_old_images(&self) -> Result<(), NodeError> {
        let store = self.store();
        let gone = self.engine.drop_images(self.paths.cache(), |id| store.has(id)).await?;
        if !gone.is_empty() {
            self.events.note(format!("dropped from the engine: {}; newer ones took their place", gone.join(", ")));
        }
        Ok(())
    }

    /// Has the node image of `ingredients` in the engine.
    pub(super) async fn prepare(&self, ingredients: Ingredients) -> Result<Prepared, NodeError> {
        let (recipe, name) = self.named(&ingredients)?;
        let (recipe, node, images) = (&recipe, &ingredients.node, &ingredients.images);
        let state = match self.in_engine(recipe, &name).await? {
            Some(state) => state,
            None => {
                let preload = |building: Building| async move {
                    self.preload(recipe, node.clone(), images.clone(), &building).await
                };
                let state = self.store().ensure(recipe, &[], self.events, preload).await?;
                self.load(recipe, &name, node.clone(), &state).await?;
                state
            }
        };
        let mut ingredients = ingredients;
        ingredients.in_use.push(state);
        self.prepared(ingredients, name)
    }

    /// The recipe and the name of a node image made of stored images, by their digests.
    pub(super) fn named(&self, ingredients: &Ingredients) -> Result<(Recipe, String), StoreError> {
        let kubernetes = &ingredients.facts.kubernetes;
        let mut inputs = Inputs::new(1).text("kubernetes", kubernetes).text("node", &digest(&ingredients.node));
        for image in &ingredients.images {
            inputs = inputs.text(&image.name, &digest(image));
        }
        let recipe = self.recipe(&of_minor("node-of-images", kubernetes), inputs)?;
        let name = name(kubernetes, &recipe);
        Ok((recipe, name))
    }

    /// What a lab is made from, with a node image that is in the engine.
    pub(super) fn prepared(&self, ingredients: Ingredients, node_image: String) -> Result<Prepared, NodeError> {
        let Ingredients { facts, tools, chart, in_use, .. } = ingredients;
        let local_path = &facts.local_path;
        let manifest = local_path_manifest(self.root, &local_path.provisioner, &local_path.helper)
            .map_err(|(path, source)| NodeError::Io { doing: "read", path, source })?;
        Ok(Prepared {
            tools,
            node_image,
            network: facts.network,
            chart,
            harbor: facts.harbor,
            local_path_manifest: manifest,
            in_use,
        })
    }
}

/// The node image's name in the engine.
pub(super) fn name(kubernetes: &str, recipe: &Recipe) -> String {
    format!("{REPOSITORY}:{kubernetes}-{}", recipe.key)
}

/// What tells a stored image apart.
fn digest(image: &Image) -> String {
    let manifest = image.upon.as_ref().map(|stored| stored.manifest.as_slice()).unwrap_or_default();
    hash::of_bytes(manifest)
}

#[cfg(test)]
mod tests {
    use oci_client::Reference;

    use super::*;

    #[test]
    fn the_node_image_has_its_name_in_full() {
        let recipe =
            Recipe { name: "node".into(), key: "0123".into(), step: String::new(), usually: Duration::default() };
        let name = name("v1.34.4", &recipe);
        assert_eq!(name.parse::<Reference>().unwrap().whole(), name);
    }
}
