//! Where things are kept. Outside these folders and the report folder a run leaves nothing.

use std::path::{Path, PathBuf};

/// The cache folder: `$DRYDOCK_CACHE`, or `drydock` in `$XDG_CACHE_HOME`, or `~/.cache/drydock`.
#[derive(Debug, Clone)]
pub struct Paths {
    cache: PathBuf,
}

impl Paths {
    /// The cache folder that the environment names.
    ///
    /// # Errors
    /// None of the three variables (`DRYDOCK_CACHE`, `XDG_CACHE_HOME`, `HOME`) is set.
    pub fn from_env() -> Result<Self, PathsError> {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = var("DRYDOCK_CACHE")
            .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("drydock")))
            .or_else(|| var("HOME").map(|home| home.join(".cache/drydock")))
            .ok_or(PathsError::NoHome)?;
        Ok(Self { cache: std::path::absolute(&cache).unwrap_or(cache) })
    }

    /// A cache folder at `cache`.
    pub fn at(cache: impl Into<PathBuf>) -> Self {
        Self { cache: cache.into() }
    }

    /// The cache folder itself.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Built and fetched artifacts, content-addressed.
    pub fn artifacts(&self) -> PathBuf {
        self.cache.join("artifacts")
    }

    /// The shared Go build and module caches.
    pub fn go(&self) -> PathBuf {
        self.cache.join("go")
    }

    /// The private Docker engine: data root, socket, configuration, log.
    pub fn engine(&self) -> PathBuf {
        self.cache.join("engine")
    }

    /// One folder per run or lab: ledger, kubeconfig, work folder. Removed when the run has cleaned up.
    pub fn labs(&self) -> PathBuf {
        self.cache.join("labs")
    }
}

/// Why there is no cache folder.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// No variable names one.
    #[error(
        "find the cache folder: neither DRYDOCK_CACHE, XDG_CACHE_HOME nor HOME is set; set DRYDOCK_CACHE to a folder"
    )]
    NoHome,
}
