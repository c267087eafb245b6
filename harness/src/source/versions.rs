//! What is pinned: `fixtures/versions.toml`, read strictly.
//!
//! To pin something new: add the key to the file, and a field of the same name here.

use std::{
    collections::BTreeSet,
    ops::Deref,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use crate::{
    nearest::{did_you_mean, list},
    strict::{self, TomlError},
};

/// Why the pinned versions could not be had.
#[derive(Debug, thiserror::Error)]
pub enum VersionsError {
    /// The file could not be read.
    #[error("read the pinned versions from {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not of the form that [`Versions`] has.
    #[error("read the pinned versions: {0}")]
    Malformed(#[from] TomlError),
    /// This Kubernetes is not pinned.
    #[error(
        "Kubernetes `{asked}` is not pinned{suggestion} (pinned: {pinned}; more can be added to fixtures/versions.toml)"
    )]
    UnknownKubernetes {
        /// What was asked for.
        asked: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
        /// What is pinned.
        pinned: String,
    },
    /// This Harbor is not pinned.
    #[error(
        "Harbor `{asked}` is not pinned{suggestion} (pinned: {pinned}; more can be added to fixtures/versions.toml)"
    )]
    UnknownHarbor {
        /// What was asked for.
        asked: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
        /// What is pinned.
        pinned: String,
    },
}

/// All that is pinned.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Versions {
    /// The Go toolchain that packages are built with.
    pub go: Go,
    /// kind.
    pub kind: Tool,
    /// helm.
    pub helm: Tool,
    /// crane.
    pub crane: Tool,
    /// actionlint, for tests.
    pub actionlint: Tool,
    /// axe-core, for tests.
    pub axe_core: NpmPackage,
    /// The Kubernetes versions; never empty, the first is the default. One of them is had by [`Versions::kubernetes`].
    kubernetes: Spanned<Vec<Spanned<Kubernetes>>>,
    /// containerd of the nodes that are built here.
    pub containerd: Tool,
    /// The CNI plugins of the nodes that are built here.
    pub cni_plugins: Tool,
    /// coredns that is built here.
    pub coredns: Tool,
    /// The storage provisioner.
    pub local_path_provisioner: LocalPath,
    /// Harbor's versions; never empty, the first is the default. One of them is had by [`Versions::harbor`].
    harbor: Spanned<Vec<Spanned<Harbor>>>,
    /// Where Harbor's chart is.
    pub harbor_chart: HarborChart,
}

/// The Go toolchain.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Go {
    /// The oldest that everything built here can be built with.
    pub minimum: Release,
}

/// Something of which only the version is pinned.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tool {
    /// Its version.
    pub version: Tag,
}

/// A package of npm.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NpmPackage {
    /// Its version.
    pub version: Release,
}

/// One Kubernetes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kubernetes {
    /// Its version.
    pub version: Tag,
    /// kind's node image, for the upstream source.
    pub node_image: Image,
    /// The etcd that it expects.
    pub etcd: Tag,
    /// The oldest Go that it can be built with, where that is newer than what all else needs.
    pub go: Option<Release>,
}

/// The storage provisioner.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LocalPath {
    /// The version whose manifest is used.
    pub version: Tag,
    /// The version that is built here.
    pub packages_version: Tag,
    /// Its image, for the upstream source.
    pub image: Image,
    /// The image of its helper pods, for the upstream source.
    pub helper_image: Image,
}

/// One Harbor.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Harbor {
    /// Its version.
    pub version: Release,
    /// The version of the chart that installs it.
    pub chart: Release,
    /// The SHA-256 of the packed chart, in hex, where it is known.
    pub chart_sha256: Option<Sha256>,
    /// The images that a lab runs of it, with their digests where those are known. What is not named here comes by the tag that the
    /// chart has for it.
    #[serde(default)]
    pub images: Vec<Image>,
}

/// Harbor's chart.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HarborChart {
    /// Its Helm repository.
    pub repository: String,
}

impl Versions {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold exactly what this type has.
    pub fn load(path: &Path) -> Result<Self, VersionsError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| VersionsError::Read { path: path.to_owned(), source })?;
        Ok(Self::parse(&path.display().to_string(), &text)?)
    }

    /// Reads `text`; `file` is what errors call it.
    ///
    /// # Errors
    /// The text does not hold exactly what this type has.
    pub fn parse(file: &str, text: &str) -> Result<Self, TomlError> {
        let versions: Self = strict::parse(file, text)?;
        let error = |at, problem: String| TomlError::at(file, text, at, problem);
        once_each("Kubernetes", &versions.kubernetes, |kubernetes| &kubernetes.version, error)?;
        once_each("Harbor", &versions.harbor, |harbor| &harbor.version, error)?;
        Ok(versions)
    }

    /// The Kubernetes that `asked` names, as `v1.34.4`, `1.34.4` or `1.34`; the default where nothing is asked.
    ///
    /// # Errors
    /// None is pinned that `asked` names.
    pub fn kubernetes(&self, asked: Option<&str>) -> Result<&Kubernetes, VersionsError> {
        pick(asked, self.all_kubernetes(), |kubernetes| &kubernetes.version).map_err(|(suggestion, pinned)| {
            VersionsError::UnknownKubernetes { asked: asked.unwrap_or_default().to_owned(), suggestion, pinned }
        })
    }

    /// The Harbor that `asked` names, as `2.13.1` or `2.13`; the default where nothing is asked.
    ///
    /// # Errors
    /// None is pinned that `asked` names.
    pub fn harbor(&self, asked: Option<&str>) -> Result<&Harbor, VersionsError> {
        pick(asked, self.all_harbor(), |harbor| &harbor.version).map_err(|(suggestion, pinned)| {
            VersionsError::UnknownHarbor { asked: asked.unwrap_or_default().to_owned(), suggestion, pinned }
        })
    }

    /// Every image that is pinned, once.
    pub fn images(&self) -> BTreeSet<&str> {
        let nodes = self.all_kubernetes().map(|kubernetes| &kubernetes.node_image);
        let storage = [&self.local_path_provisioner.image, &self.local_path_provisioner.helper_image];
        nodes.chain(storage).chain(self.all_harbor().flat_map(|harbor| &harbor.images)).map(Deref::deref).collect()
    }

    /// Every pinned Harbor, the default first.
    pub fn all_harbor(&self) -> impl Iterator<Item = &Harbor> + Clone {
        self.harbor.get_ref().iter().map(Spanned::get_ref)
    }

    /// Every pinned Kubernetes, the default first.
    pub fn all_kubernetes(&self) -> impl Iterator<Item = &Kubernetes> + Clone {
        self.kubernetes.get_ref().iter().map(Spanned::get_ref)
    }
}

/// Sees that a list has something, and nothing twice.
fn once_each<T>(
    what: &str,
    pinned: &Spanned<Vec<Spanned<T>>>,
    version: impl Fn(&T) -> &str,
    error: impl Fn(usize, String) -> TomlError,
) -> Result<(), TomlError> {
    let entries = pinned.get_ref();
    if entries.is_empty() {
        let problem =
            format!("the list `{}` is empty: a lab needs one, and the first is the default", what.to_lowercase());
        return Err(error(pinned.span().start, problem));
    }
    for (index, entry) in entries.iter().enumerate() {
        let own = version(entry.get_ref());
        if entries[..index].iter().any(|earlier| version(earlier.get_ref()) == own) {
            return Err(error(entry.span().start, format!("{what} {own} is pinned twice")));
        }
    }
    Ok(())
}

/// What `asked` names, as `v1.34.4`, `1.34.4` or `1.34`; the first where nothing is asked. The error has a suggestion and a list
/// of what is pinned.
fn pick<'a, T>(
    asked: Option<&str>,
    mut pinned: impl Iterator<Item = &'a T> + Clone,
    version: impl Fn(&T) -> &str,
) -> Result<&'a T, (String, String)> {
    let all = pinned.clone();
    let found = match asked.map(|asked| asked.trim_start_matches('v')) {
        None => pinned.next(),
        Some(asked) => pinned.find(|entry| {
            let version = version(entry).trim_start_matches('v');
            version == asked || version.rsplit_once('.').is_some_and(|(minor, _)| minor == asked)
        }),
    };
    found.ok_or_else(|| {
        let pinned: Vec<&str> = all.map(&version).collect();
        let with_v = pinned.iter().any(|version| version.starts_with('v'));
        let asked = asked.unwrap_or_default().trim_start_matches('v');
        let asked = if with_v { format!("v{asked}") } else { asked.to_owned() };
        (did_you_mean(&asked, pinned.iter().copied()), list(pinned.iter().copied()))
    })
}

/// A text that was checked when it was read.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:expr, $form:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(format!(concat!("`{}` is no ", $form), text)) }
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_text! {
    /// A version as tags have it, such as `v1.34.4`.
    Tag, |text| text.strip_prefix('v').is_some_and(is_version), "version tag such as `v1.34.4`"
}
checked_text! {
    /// A version as Harbor and its chart have it, such as `2.13.1`.
    Release, is_version, "version such as `2.13.1` (without a `v`)"
}
checked_text! {
    /// An image's name with its registry and tag, and where it is pinned by it its digest.
    Image, is_image, "image name such as `registry/path:tag` or `registry/path:tag@sha256:…`"
}

checked_text! {
    /// A SHA-256 in hex.
    Sha256, is_sha256, "SHA-256 in hex"
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `1.2.3`, or `1.2.3-rc.1`.
fn is_version(text: &str) -> bool {
    let (numbers, label) = text.split_once('-').map_or((text, None), |(numbers, label)| (numbers, Some(label)));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+".contains(&b));
    numbers.split('.').count() == 3 && numbers.split('.').all(is_number) && label.is_none_or(is_label)
}

fn is_image(text: &str) -> bool {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let is_digest = |digest: &str| digest.strip_prefix("sha256:").is_some_and(is_sha256);
    let has_registry = name.split_once('/').is_some_and(|(registry, _)| registry.contains(['.', ':']));
    let has_tag = name
        .rsplit_once('/')
        .and_then(|(_, last)| last.split_once(':'))
        .is_some_and(|(image, tag)| !image.is_empty() && !tag.is_empty());
    !name.contains(char::is_whitespace) && has_registry && has_tag && digest.is_none_or(is_digest)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const PINNED: &str = include_str!("../../../fixtures/versions.toml");

    /// The file with these versions in the place of its own.
    fn pinned(kubernetes: &[&str]) -> String {
        let start = PINNED.find("[[kubernetes]]").unwrap();
        let end = PINNED[start..].find("\n[containerd]").map(|end| start + end).unwrap();
        let section = PINNED[start..end].split_inclusive("\n\n").next().unwrap();
        let line = section.lines().find(|line| line.starts_with("version = ")).unwrap();
        let sections: String =
            kubernetes.iter().map(|version| section.replace(line, &format!("version = \"{version}\"\n"))).collect();
        format!("{}{sections}{}", &PINNED[..start], &PINNED[end..])
    }

    fn error(text: &str) -> String {
        Versions::parse("versions.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_pinned_can_be_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/versions.toml");
        let versions = Versions::load(&path).unwrap();
        assert!(versions.kubernetes(None).unwrap().node_image.contains("@sha256:"));
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let text = PINNED.replacen("[helm]\n", "[helm]\nverison = \"v1.0.0\"\n", 1);
        assert_eq!(
            error(&text),
            "versions.toml:11:1: unknown key `verison`; did you mean `version`? (known here: version)"
        );
    }

    #[test]
    fn no_kubernetes_is_an_error() {
        let text = format!("kubernetes = []\n{}", pinned(&[]));
        assert_eq!(
            error(&text),
            "versions.toml:1:14: the list `kubernetes` is empty: a lab needs one, and the first is the default"
        );
        assert_eq!(error(&pinned(&[])), "versions.toml:1:1: the key `kubernetes` is missing here");
    }

    #[test]
    fn a_kubernetes_pinned_twice_is_an_error() {
        let error = error(&pinned(&["v1.34.4", "v1.33.2", "v1.34.4"]));
        assert!(error.ends_with(":1: Kubernetes v1.34.4 is pinned twice"), "{error}");
    }

    #[rstest]
    #[case("v1.34.4", true)]
    #[case("v1.35.0-rc.1", true)]
    #[case("1.34.4", false)]
    #[case("v1.34", false)]
    #[case("v1.34.x", false)]
    #[case("v1.34.4-", false)]
    #[case("v1..4", false)]
    #[case("", false)]
    fn a_tag_has_a_form(#[case] text: &str, #[case] good: bool) {
        assert_eq!(Tag::try_from(text.to_owned()).is_ok(), good);
    }

    #[rstest]
    #[case("2.13.1", true)]
    #[case("v2.13.1", false)]
    #[case("2.13", false)]
    fn a_release_has_a_form(#[case] text: &str, #[case] good: bool) {
        assert_eq!(Release::try_from(text.to_owned()).is_ok(), good);
    }

    #[rstest]
    #[case("registry.example/a/b:v1", true)]
    #[case("localhost:5000/b:v1", true)]
    #[case("registry.example/a/b", false)]
    #[case("a/b:v1", false)]
    #[case("registry.example/a/b:v1@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a", true)]
    #[case("registry.example/a/b:v1@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5", false)]
    #[case("registry.example/a/b:v1@sha256:7416A61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a", false)]
    fn an_image_has_a_form(#[case] text: &str, #[case] good: bool) {
        assert_eq!(Image::try_from(text.to_owned()).is_ok(), good);
    }

    #[test]
    fn a_malformed_version_is_named_with_its_place() {
        let error = error(&pinned(&["1.34.4"]));
        assert!(error.ends_with(":11: `1.34.4` is no version tag such as `v1.34.4`"), "{error}");
    }

    fn two() -> Versions {
        Versions::parse("versions.toml", &pinned(&["v1.34.4", "v1.33.2"])).unwrap()
    }

    #[rstest]
    #[case(None, "v1.34.4")]
    #[case(Some("v1.33.2"), "v1.33.2")]
    #[case(Some("1.33.2"), "v1.33.2")]
    #[case(Some("1.33"), "v1.33.2")]
    #[case(Some("v1.34"), "v1.34.4")]
    fn a_kubernetes_is_found(#[case] asked: Option<&str>, #[case] expected: &str) {
        assert_eq!(&*two().kubernetes(asked).unwrap().version, expected);
    }

    #[rstest]
    #[case("1.34.9", "did you mean `v1.34.4`?")]
    #[case("1", "(pinned: v1.34.4, v1.33.2;")]
    #[case("", "(pinned: v1.34.4, v1.33.2;")]
    fn an_unknown_kubernetes_is_an_error_that_lists_what_is_pinned(#[case] asked: &str, #[case] says: &str) {
        let error = two().kubernetes(Some(asked)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Versions::load(Path::new("no/such/versions.toml")).unwrap_err().to_string();
        assert!(error.starts_with("read the pinned versions from no/such/versions.toml: "), "{error}");
    }
}
