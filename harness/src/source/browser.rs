//! What the tests of the report page need: a browser, and axe-core, which looks for barriers in a page.

use std::{fs::File, io::Read, path::PathBuf, time::Duration};

use flate2::read::GzDecoder;

use super::{
    Pins,
    store::{Building, Inputs, Recipe, Store, StoreError},
};
use crate::{
    cmd::{Cmd, CmdError},
    lab::engine::{
        EngineError,
        programs::{self, Needed},
    },
    paths::Paths,
    run::events::Events,
};

/// What Chromium is called, in the order in which it is looked for.
const BROWSERS: [&str; 4] = ["chromium", "google-chrome-stable", "google-chrome", "chromium-browser"];

/// What is installed where it is missing.
const CHROMIUM: Needed = Needed { program: "chromium", package: "chromium" };
const NPM: Needed = Needed { program: "npm", package: "npm" };

/// The part of axe-core's package that is used.
const SCRIPT: &str = "axe.min.js";
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// Why a page cannot be tested.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// A program is missing and may not be installed.
    #[error("test the report page: there is no {0} on PATH; install it, or run with --provision")]
    Missing(&'static str),
    /// It could not be installed.
    #[error("prepare a browser: {0}")]
    Install(#[from] EngineError),
    /// The package could not be fetched.
    #[error("fetch axe-core from its npm package: {0}")]
    Fetch(#[from] CmdError),
    /// The package is not as it is known to be.
    #[error("unpack axe-core {version}: {why}")]
    Package {
        /// Its version.
        version: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store of artifacts failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A browser and axe-core's script.
#[derive(Debug, Clone)]
pub struct Browser {
    /// Chromium.
    pub program: PathBuf,
    /// The script.
    pub axe: PathBuf,
}

/// Finds Chromium and fetches axe-core; with `provision` installs from Debian's packages what is missing for it.
///
/// # Errors
/// See [`BrowserError`].
pub async fn browser(provision: bool, paths: &Paths, pins: &Pins, events: &Events) -> Result<Browser, BrowserError> {
    // One that comes as a snap does not see the folders in which tests put their pages.
    let is_snap = |program: &PathBuf| program.canonicalize().is_ok_and(|program| program.ends_with("snap"));
    let chromium = || BROWSERS.iter().filter_map(|name| programs::find(name)).find(|program| !is_snap(program));
    let recipe = Recipe {
        name: "axe-core".to_owned(),
        key: Inputs::new(1).text("version", &pins.axe_core).key(),
        step: format!("fetch axe-core {} from its npm package", pins.axe_core),
        usually: Duration::from_secs(5),
    };
    let store = Store::new(paths);
    let fetched = store.get(&recipe, &[], events).await?;
    let mut needed = Vec::new();
    needed.extend(chromium().is_none().then_some(CHROMIUM));
    needed.extend((fetched.is_none() && programs::find(NPM.program).is_none()).then_some(NPM));
    if let Some(first) = needed.first() {
        if !provision {
            return Err(BrowserError::Missing(first.program));
        }
        let dir = paths.cache().to_owned();
        let install = |step| async move { programs::install(&step, &dir, &needed).await };
        events.step("install what the tests of the report page need", install).await?;
    }
    let program = chromium().ok_or(BrowserError::Missing(CHROMIUM.program))?;
    let fetch = |building: Building| async move { fetch(&building, &pins.axe_core).await };
    let axe = store.ensure(&recipe, &[], events, fetch).await?.file(SCRIPT);
    Ok(Browser { program, axe })
}

/// npm knows where packages come from here, and checks what it fetches against the registry's checksum.
async fn fetch(building: &Building, version: &str) -> Result<(), BrowserError> {
    let packed = Cmd::new("npm")
        .args(["pack", "--silent", "--ignore-scripts", "--cache"])
        .arg(building.scratch.join("cache"))
        .arg(format!("axe-core@{version}"))
        .dir(&building.scratch)
        .limit(FETCH_LIMIT)
        .run()
        .await?;
    let wrong = |why: String| BrowserError::Package { version: version.to_owned(), why };
    let file = building.scratch.join(packed.stdout.trim());
    let opened = File::open(&file).map_err(|error| wrong(format!("open {}: {error}", file.display())))?;
    let mut script = Vec::new();
    let mut archive = tar::Archive::new(GzDecoder::new(opened));
    for entry in archive.entries().map_err(|error| wrong(error.to_string()))? {
        let mut entry = entry.map_err(|error| wrong(error.to_string()))?;
        if entry.path().is_ok_and(|path| path.ends_with(SCRIPT)) {
            entry.read_to_end(&mut script).map_err(|error| wrong(error.to_string()))?;
        }
    }
    if script.is_empty() {
        return Err(wrong(format!("its package has no {SCRIPT}")));
    }
    let out = building.out.join(SCRIPT);
    std::fs::write(&out, script).map_err(|error| wrong(format!("write {}: {error}", out.display())))
}
