//! What the registry holds. Taken before the fault and after the repair; the difference is what was lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Harbor, HarborError, api::Api, registry::Registry};
use crate::lab::Lab;

/// The tables whose rows are counted.
const TABLES: [&str; 6] = ["project", "repository", "artifact", "tag", "blob", "harbor_user"];

/// What the registry holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// `repository@digest` of every artifact, with its tags, as the API lists them.
    pub artifacts: BTreeMap<String, Vec<String>>,
    /// `repository:tag` -> digest, as `/v2/` answers; an error's words where it does not.
    pub tags: BTreeMap<String, String>,
    /// `repository@digest` of every blob -> its size in bytes, read whole and hashed; an error's words where it cannot be.
    pub blobs: BTreeMap<String, String>,
    /// Rows of the tables that matter.
    pub rows: BTreeMap<String, u64>,
}

/// What an artifact's manifest refers to.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

impl Inventory {
    /// Takes the inventory of the lab's Harbor.
    pub async fn take(lab: &Lab) -> Result<Self, HarborError> {
        let ca = lab.harbor.ca(&lab.client).await?;
        let api = Api::new(&lab.harbor, &ca)?;
        let registry = Registry::new(&lab.harbor, &ca);
        let mut inventory = Self::default();
        let rows = rows(lab, &lab.harbor);
        let content = async {
            for project in api.projects().await? {
                for repository in api.repositories(&project.name).await? {
                    for artifact in api.artifacts(&repository.name).await? {
                        inventory.add(&registry, &repository.name, artifact).await;
                    }
                }
            }
            Ok::<_, HarborError>(())
        };
        let (content, rows) = tokio::join!(content, rows);
        content?;
        inventory.rows = rows?;
        Ok(inventory)
    }

    async fn add(&mut self, registry: &Registry, repository: &str, artifact: super::api::Artifact) {
        let tags: Vec<String> = artifact.tags.unwrap_or_default().into_iter().map(|tag| tag.name).collect();
        for tag in &tags {
            let digest = registry.digest(repository, tag).await.unwrap_or_else(|error| error.to_string());
            self.tags.insert(format!("{repository}:{tag}"), digest);
        }
        let key = format!("{repository}@{}", artifact.digest);
        match registry.manifest(repository, &artifact.digest).await {
            Ok(bytes) => {
                let manifest = serde_json::from_slice::<Manifest>(&bytes);
                for part in manifest.into_iter().flat_map(|manifest| manifest.config.into_iter().chain(manifest.layers))
                {
                    let read = match registry.blob(repository, &part.digest).await {
                        Ok((digest, size)) if digest == part.digest => format!("{size} bytes"),
                        Ok((digest, size)) => format!("{size} bytes that hash to {digest}"),
                        Err(error) => error.to_string(),
                    };
                    self.blobs.insert(format!("{repository}@{}", part.digest), read);
                }
            }
            Err(error) => {
                self.blobs.insert(key.clone(), error.to_string());
            }
        }
        self.artifacts.insert(key, tags);
    }

    /// What `self` has that `after` has not, or has otherwise: a line each. Empty when nothing was lost.
    pub fn lost(&self, after: &Self) -> Vec<String> {
        let mut lost = Vec::new();
        compare("artifact", &self.artifacts, &after.artifacts, |tags| format!("tags {}", tags.join(", ")), &mut lost);
        compare("tag", &self.tags, &after.tags, Clone::clone, &mut lost);
        compare("blob", &self.blobs, &after.blobs, Clone::clone, &mut lost);
        compare("rows of", &self.rows, &after.rows, u64::to_string, &mut lost);
        lost
    }
}

fn compare<T: PartialEq>(
    what: &str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
    words: impl Fn(&T) -> String,
    lost: &mut Vec<String>,
) {
    for (name, value) in before {
        match after.get(name) {
            Some(now) if now == value => {}
            Some(now) => lost.push(format!("{what} {name}: was {}, is {}", words(value), words(now))),
            None => lost.push(format!("{what} {name}: was {}, is gone", words(value))),
        }
    }
}

/// Counts rows in the database itself: the API answers from it, but not for every table.
async fn rows(lab: &Lab, harbor: &Harbor) -> Result<BTreeMap<String, u64>, HarborError> {
    let query = TABLES.map(|table| format!("select '{table}', count(*) from {table}")).join(" union all ");
    let output = lab
        .kubectl()
        .args(["exec", "-n", &harbor.namespace, &format!("{}-database-0", harbor.release), "-c", "database", "--"])
        .args(["psql", "-U", "postgres", "-d", "registry", "-tA", "-F", " ", "-c", &query])
        .run()
        .await
        .map_err(|error| HarborError::Rows(error.to_string()))?;
    output
        .stdout
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (table, count) = line.split_once(' ').ok_or(line)?;
            Ok((table.to_owned(), count.trim().parse().map_err(|_| line)?))
        })
        .collect::<Result<_, &str>>()
        .map_err(|line| HarborError::Rows(format!("psql printed `{line}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Inventory {
        Inventory {
            artifacts: [("library/app@sha256:aa".to_owned(), vec!["v1".to_owned()])].into(),
            tags: [("library/app:v1".to_owned(), "sha256:aa".to_owned())].into(),
            blobs: [("library/app@sha256:bb".to_owned(), "12 bytes".to_owned())].into(),
            rows: [("artifact".to_owned(), 1)].into(),
        }
    }

    #[test]
    fn nothing_is_lost_between_equal_inventories() {
        assert!(some().lost(&some()).is_empty());
    }

    #[test]
    fn every_part_is_compared() {
        let lost = some().lost(&Inventory::default());
        assert_eq!(lost.len(), 4, "{lost:?}");
        let mut other = some();
        other.blobs.insert("library/app@sha256:bb".to_owned(), "0 bytes that hash to sha256:e3".to_owned());
        assert_eq!(
            some().lost(&other),
            ["blob library/app@sha256:bb: was 12 bytes, is 0 bytes that hash to sha256:e3"]
        );
    }
}
