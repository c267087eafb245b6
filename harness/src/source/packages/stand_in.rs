//! The image that all of the stand-in's pods run: Debian's PostgreSQL, Redis, nginx and registry, and the program of
//! `fixtures/harbor-stand-in`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Kitchen, PackagesError};
use crate::{
    cmd::Cmd,
    source::{
        image::{Files, Image, Layer},
        store::{Artifact, Inputs, Recipe},
    },
};

/// What the crate and its program are called.
const NAME: &str = "harbor-stand-in";
/// Its dependencies take two minutes on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The recipe of the program: its sources, and what they are compiled with.
pub(super) fn program_recipe(root: &Path) -> Result<Recipe, PackagesError> {
    let crate_dir = root.join("fixtures").join(NAME);
    let inputs = Inputs::new(1)
        .files("crate", &crate_dir.join("src"))?
        .files("manifest", &crate_dir.join("Cargo.toml"))?
        .files("workspace", &root.join("Cargo.toml"))?
        .files("lock", &root.join("Cargo.lock"))?;
    Ok(Recipe {
        name: "harbor-stand-in".to_owned(),
        key: inputs.key(),
        step: "build the Harbor stand-in's program".to_owned(),
        usually: Duration::from_secs(120),
    })
}

/// The program.
pub(super) async fn program(kitchen: &Kitchen<'_>) -> Result<Artifact, PackagesError> {
    let recipe = program_recipe(kitchen.root)?;
    let target = kitchen.paths.cache().join("cargo");
    let build = |building: crate::source::store::Building| async move {
        let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Cmd::new(cargo)
            .args(["build", "--quiet", "--release", "--locked", "--package", NAME, "--target-dir"])
            .arg(&target)
            .dir(kitchen.root)
            .limit(BUILD_LIMIT)
            .run()
            .await?;
        let (from, to) = (target.join("release").join(NAME), building.out.join(NAME));
        fs::copy(&from, &to).map_err(|source| PackagesError::Io { doing: "copy", path: from, source })?;
        Ok(())
    };
    kitchen.store.ensure(&recipe, &[], kitchen.events, build).await
}

/// The image's name, from the keys of what it is made of.
pub(super) fn name(rootfs: &Recipe, program: &Recipe) -> String {
    let key = Inputs::new(1).text("rootfs", &rootfs.key).text("program", &program.key).key();
    format!("docker.io/drydock/{NAME}:{key}")
}

/// The image.
pub(super) fn image(name: &str, rootfs: &Artifact, program: &Artifact) -> Image {
    let files = Files::new().program(&format!("usr/local/bin/{NAME}"), program.file(NAME));
    Image::new(name, vec![Layer::Tar(rootfs.file("rootfs.tar")), Layer::Files(files)], &[])
}
