//! A bundle: one file with all that a run needs, for machines that reach no registry.
//!
//! It is a tar archive compressed by Zstandard. In it are an OCI image layout (`oci-layout`, `index.json`, `blobs/`), the
//! programs under `tools/`, Harbor's chart, `drydock.json`, which says what is what, and `SHA256SUMS`, which lists every file
//! but itself as `sha256sum` does. `fixtures/bundles/README.md` tells how to make one by hand.

mod create;
mod open;
mod sbom;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::{create::create, open::Bundle};
use super::{ingredients::Facts, layout::LayoutError, node::NodeError, store::StoreError};

/// The format that this Drydock writes, and the newest that it reads.
const FORMAT: u64 = 1;
/// What says what is in a bundle.
const DESCRIPTION: &str = "drydock.json";
/// The list of checksums.
const SUMS: &str = "SHA256SUMS";
/// The software bill of materials, in CycloneDX's form.
const SBOM: &str = "sbom.cdx.json";
/// Where layers and other blobs are.
const BLOBS: &str = "blobs/";
/// The programs, by the names of their files.
const TOOLS: [&str; 4] = ["tools/kind", "tools/helm", "tools/kubectl", "tools/crane"];

/// What is in a bundle: `drydock.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Description {
    /// The format of the bundle.
    pub format: u64,
    /// The architecture that its programs and images are for, as images name it.
    pub architecture: String,
    /// What a lab needs to know.
    pub lab: Facts,
    /// The name of the node image in the layout. Every other image there is one that a lab runs.
    pub node: String,
    /// Harbor's chart: a folder of the bundle, or a packed chart.
    pub chart: String,
    /// The version of each part, for people.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
}

/// Why a bundle could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
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
    /// There is something where the bundle is to be.
    #[error("make the bundle {}: there is a file of this name; remove it, or choose another name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("read the bundle {}: it is none: {why}; nothing was changed", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was seen.
        why: String,
    },
    /// It ends in the middle.
    #[error(
        "read the bundle {}: it ends in the middle, after {size} bytes; copy it again, nothing was changed",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// What is in it is not what its list of checksums says.
    #[error("read the bundle {}: {what}; it was altered, or damaged on its way: nothing was changed", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Its description has a mistake.
    #[error("read {DESCRIPTION} of the bundle {}: {why}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        why: String,
    },
    /// A newer Drydock made it.
    #[error(
        "read the bundle {}: it has format {format}, and this Drydock reads up to {FORMAT}; use a newer Drydock, or make \
         the bundle with this one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The bundle's format.
        format: u64,
    },
    /// It is for other machines.
    #[error("read the bundle {}: it is for {theirs}, and this machine is {ours}", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The bundle's architecture.
        theirs: String,
        /// This machine's.
        ours: &'static str,
    },
    /// Something that its description names is not in it.
    #[error("read the bundle {}: {DESCRIPTION} names {what}, and it is not there", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What is not there.
        what: String,
    },
    /// It has another Kubernetes than was asked for.
    #[error("use the bundle {}: it has Kubernetes {theirs}, asked for was {asked}", path.display())]
    OtherKubernetes {
        /// The file.
        path: PathBuf,
        /// The bundle's.
        theirs: String,
        /// What was asked for.
        asked: String,
    },
    /// Its images.
    #[error("read the bundle {}: {source}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: LayoutError,
    },
    /// The artifact store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node image.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl BundleError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}
