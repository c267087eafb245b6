//! Asking registries for the digests of what `fixtures/versions.toml` pins: those that it lacks are filled in, the others are
//! checked.

use std::{collections::BTreeMap, fmt};

use futures::{Stream, StreamExt, stream};
use serde::Deserialize;

use super::{
    registry::{self, Registry, RegistryError},
    upstream::{self, without_digest},
    versions::Versions,
};

/// How many images are asked for at once.
const AT_ONCE: usize = 4;

/// Something that is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An image, as the file has it.
    Image(String),
    /// Harbor's chart, by its version.
    Chart(String),
}

/// What came of looking it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is what the file says.
    Same,
    /// It is there by the digest that the file says; its tag names this one by now.
    TagMoved(String),
    /// The file says no digest; this is it.
    New(String),
    /// It is another than the file says, or could not be looked up: why.
    Amiss(String),
}

/// What is pinned, and what came of looking it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What is pinned.
    pub what: What,
    /// What came of it.
    pub found: Found,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(name) => f.write_str(name),
            Self::Chart(version) => write!(f, "Harbor's chart {version}"),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        match &self.found {
            Found::Same => write!(f, " same  {what}"),
            Found::TagMoved(now) => write!(f, " same  {what} (its tag names {now} by now)"),
            Found::New(digest) => write!(f, "  new  {what} is {digest}"),
            Found::Amiss(why) => write!(f, "amiss  {what}: {why}"),
        }
    }
}

/// Looks up all that is pinned, the images first.
pub fn look_up<'a>(versions: &'a Versions, client: &'a Registry) -> impl Stream<Item = Pin> + 'a {
    let images = stream::iter(versions.images()).map(move |name| image(client, name)).buffered(AT_ONCE);
    images.chain(stream::once(charts(versions)).flat_map(stream::iter))
}

async fn image(client: &Registry, name: &str) -> Pin {
    let tag = without_digest(name);
    let asked = async {
        let now = registry::digest(client, tag).await?;
        Ok(match name.strip_prefix(tag).and_then(|rest| rest.strip_prefix('@')) {
            None => Found::New(now),
            Some(pinned) if pinned == now => Found::Same,
            Some(_) => registry::digest(client, name).await.map(|_| Found::TagMoved(now))?,
        })
    };
    let found = asked.await.unwrap_or_else(|error| {
        Found::Amiss(match error {
            // The image is named beside it.
            RegistryError::Fetch { problem, .. } => problem.to_string(),
            error => error.to_string(),
        })
    });
    Pin { what: What::Image(name.to_owned()), found }
}

/// A Helm repository's list of charts (<https://helm.sh/docs/topics/chart_repository/#the-index-file>).
#[derive(Deserialize)]
struct Index {
    entries: BTreeMap<String, Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    version: String,
    digest: Option<String>,
}

async fn charts(versions: &Versions) -> Vec<Pin> {
    let url = format!("{}/index.yaml", versions.harbor_chart.repository);
    let text = upstream::text(&url).await.map_err(|error| error.to_string());
    compare_charts(versions, &text.and_then(|text| index(&url, &text)), &url)
}

fn index(url: &str, text: &str) -> Result<Index, String> {
    serde_saphyr::from_str(text).map_err(|error| format!("read {url}: {error}"))
}

fn compare_charts(versions: &Versions, index: &Result<Index, String>, url: &str) -> Vec<Pin> {
    let found = |version: &str, pinned: Option<&str>| {
        let index = match index {
            Ok(index) => index,
            Err(why) => return Found::Amiss(why.clone()),
        };
        let entry = index.entries.get("harbor").into_iter().flatten().find(|entry| entry.version == version);
        match (entry.and_then(|entry| entry.digest.as_deref()), pinned) {
            (None, _) => Found::Amiss(format!("{url} has no digest of it")),
            (Some(now), None) => Found::New(now.to_owned()),
            (Some(now), Some(pinned)) if now == pinned => Found::Same,
            (Some(now), Some(pinned)) => Found::Amiss(format!("its SHA-256 is {now} by now, pinned is {pinned}")),
        }
    };
    let pin = |version: &str, pinned| Pin { what: What::Chart(version.to_owned()), found: found(version, pinned) };
    versions.all_harbor().map(|harbor| pin(&harbor.chart, harbor.chart_sha256.as_deref())).collect()
}

/// The file with what is new filled in, and otherwise as it was.
pub fn fill(text: &str, pins: &[Pin]) -> String {
    pins.iter().fold(text.to_owned(), |text, Pin { what, found }| match (what, found) {
        (What::Image(name), Found::New(digest)) => {
            text.replace(&format!("\"{name}\""), &format!("\"{name}@{digest}\""))
        }
        (What::Chart(version), Found::New(digest)) => {
            let line = format!("\nchart = \"{version}\"\n");
            text.replace(&line, &format!("{line}chart-sha256 = \"{digest}\"\n"))
        }
        _ => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PINNED: &str = include_str!("../../../fixtures/versions.toml");

    /// The file as it was before anything was filled in.
    fn bare() -> String {
        let versions = Versions::parse("versions.toml", PINNED).unwrap();
        let text = versions
            .images()
            .into_iter()
            .fold(PINNED.to_owned(), |text, name| text.replace(name, without_digest(name)));
        text.split_inclusive('\n').filter(|line| !line.starts_with("chart-sha256")).collect()
    }

    #[test]
    fn what_is_new_is_filled_in_and_nothing_else_changes() {
        let bare = bare();
        let versions = Versions::parse("versions.toml", &bare).unwrap();
        let hex = "ab".repeat(32);
        let was = |what: &What, found| Pin { what: what.clone(), found };
        let image = What::Image(versions.local_path_provisioner.helper_image.to_string());
        let chart = What::Chart(versions.all_harbor().next().unwrap().chart.to_string());
        let filled =
            fill(&bare, &[was(&image, Found::New(format!("sha256:{hex}"))), was(&chart, Found::New(hex.clone()))]);
        let now = Versions::parse("versions.toml", &filled).unwrap();
        assert_eq!(*now.local_path_provisioner.helper_image, *format!("{image}@sha256:{hex}"));
        assert_eq!(now.all_harbor().next().unwrap().chart_sha256.as_deref(), Some(&*hex));
        assert_eq!(filled.lines().count(), bare.lines().count() + 1);
        for found in [Found::Same, Found::TagMoved(hex.clone()), Found::Amiss("gone".into())] {
            assert_eq!(fill(&bare, &[was(&image, found.clone()), was(&chart, found)]), bare);
        }
    }

    #[test]
    fn charts_are_compared_with_the_repository_s_list() {
        let (old, new) = ("ab".repeat(32), "cd".repeat(32));
        let list = format!(
            "apiVersion: v1\nentries:\n  harbor:\n  - {{version: 1.17.1, digest: {new}, urls: [harbor-1.17.1.tgz]}}\n  \
             - {{version: 1.18.4, digest: {new}}}\n  - {{version: 1.19.1, digest: {new}}}\n"
        );
        let text = bare()
            .replace("chart = \"1.18.4\"\n", &format!("chart = \"1.18.4\"\nchart-sha256 = \"{new}\"\n"))
            .replace("chart = \"1.19.1\"\n", &format!("chart = \"1.19.1\"\nchart-sha256 = \"{old}\"\n"));
        let versions = Versions::parse("versions.toml", &text).unwrap();
        let compared = compare_charts(&versions, &index("INDEX", &list), "INDEX");
        let mut lines: Vec<String> = compared.iter().map(ToString::to_string).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                format!("  new  Harbor's chart 1.17.1 is {new}"),
                " same  Harbor's chart 1.18.4".to_owned(),
                "amiss  Harbor's chart 1.16.4: INDEX has no digest of it".to_owned(),
                format!("amiss  Harbor's chart 1.19.1: its SHA-256 is {new} by now, pinned is {old}"),
            ]
        );
        let unread = compare_charts(&versions, &index("INDEX", "<html>"), "INDEX");
        assert!(unread.iter().all(|pin| matches!(&pin.found, Found::Amiss(why) if why.starts_with("read INDEX: "))));
    }
}
