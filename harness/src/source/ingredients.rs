//! All that a lab is made of, wherever it comes from.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{image::Image, store::Artifact};
use crate::run::events::HarborKind;

/// All that a lab is made of, before any of it is in an engine.
#[derive(Debug, Clone)]
pub struct Ingredients {
    /// What it is.
    pub facts: Facts,
    /// The programs.
    pub tools: Tools,
    /// The node image, without the images that a lab runs.
    pub node: Image,
    /// Every image that a lab runs, beside those that the node image has.
    pub images: Vec<Image>,
    /// Harbor's chart: a folder or a packed chart.
    pub chart: PathBuf,
    /// The version of each part that has no image of its own to tell it, by the part's name.
    pub versions: BTreeMap<String, String>,
    /// While these live, no other run drops what this one uses.
    pub in_use: Vec<Artifact>,
}

/// The programs that a lab is made with, and that procedures call.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The kind program.
    pub kind: PathBuf,
    /// The helm program.
    pub helm: PathBuf,
    /// The kubectl program.
    pub kubectl: PathBuf,
    /// The crane program.
    pub crane: PathBuf,
}

/// What a lab needs to know of its ingredients, as a bundle's `drydock.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Facts {
    /// The version of Kubernetes, such as `v1.34.4`.
    pub kubernetes: String,
    /// Whose network the node image brings.
    pub network: Network,
    /// The registry.
    pub harbor: Harbor,
    /// The storage provisioner.
    pub local_path: LocalPath,
}

/// The registry of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Harbor {
    /// Harbor itself, or its stand-in.
    pub kind: HarborKind,
    /// Values for its chart beside those of every lab, by their top-level keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Value>,
}

/// The images of local-path-provisioner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LocalPath {
    /// Its own.
    pub provisioner: String,
    /// Its helper pods', which has a shell.
    pub helper: String,
}

/// Whose pod network and storage a node image brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// kind's own, as every `kindest/node` has them.
    Kind,
    /// None: it is one of Drydock's, which lays its routes itself.
    Drydock,
}
