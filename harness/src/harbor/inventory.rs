//! What the registry holds. Taken before the fault and after the repair; the difference is what was lost.
//!
//! Nothing that Harbor answers amiss is an error here: it is what the inventory is there to show.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    HarborError,
    api::{self, Api},
    exec,
    registry::Registry,
    seed::digest,
};
use crate::lab::Lab;

/// The tables whose rows are counted.
const TABLES: [&str; 6] = ["project", "repository", "artifact", "tag", "blob", "harbor_user"];
/// Where the registry keeps blobs, each in a folder that bears its digest.
const BLOBS: &str = "/storage/docker/registry/v2/blobs/sha256";

/// What the registry holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// What Harbor says of its own health.
    pub health: String,
    /// `repository@digest` of every artifact, with its tags, as the API lists them.
    pub artifacts: BTreeMap<String, Vec<String>>,
    /// `repository:tag` -> digest, as `/v2/` answers; an error's words where it does not.
    pub tags: BTreeMap<String, String>,
    /// `repository@digest` of every manifest and blob -> its size in bytes, read whole through `/v2/` and hashed; an error's words
    /// where it cannot be. A `HEAD` would prove nothing: the registry answers it from a cache.
    pub content: BTreeMap<String, String>,
    /// The digest of every blob in the registry's storage -> its size in bytes.
    pub storage: BTreeMap<String, u64>,
    /// The digest of every blob that the database knows -> its size in bytes.
    pub database: BTreeMap<String, u64>,
    /// Rows of the tables that matter.
    pub rows: BTreeMap<String, u64>,
    /// Whether each account can log in.
    pub logins: BTreeMap<String, bool>,
    /// The SHA-256 of the certificate authority's PEM. A new one loses nothing, but nodes trust the old one.
    pub ca: String,
    /// What could not be looked at, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreadable: BTreeMap<String, String>,
}

/// What an artifact's manifest refers to.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

/// One difference between two inventories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is about, such as `tag library/app:v1`.
    pub what: String,
    /// As it was; absent where it is new.
    pub was: Option<String>,
    /// As it is; absent where it is gone.
    pub is: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.was, &self.is) {
            (Some(was), Some(is)) => write!(f, "{}: was {was}, is {is}", self.what),
            (Some(was), None) => write!(f, "{}: was {was}, is gone", self.what),
            (None, Some(is)) => write!(f, "{}: new, {is}", self.what),
            (None, None) => f.write_str(&self.what),
        }
    }
}

/// What became of an inventory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// What the registry no longer holds, or holds otherwise.
    pub lost: Vec<Change>,
    /// What is otherwise, and no loss: something new, another certificate authority.
    pub changed: Vec<Change>,
}

impl Diff {
    /// The diff as a person reads it: a line each, losses first.
    pub fn text(&self) -> String {
        let line = |mark: char| move |change: &Change| format!("{mark} {change}\n");
        if self.lost.is_empty() && self.changed.is_empty() {
            return "the inventory is what it was\n".to_owned();
        }
        self.lost.iter().map(line('-')).chain(self.changed.iter().map(line('~'))).collect()
    }

    /// The losses in a line: the first few by name, the rest counted.
    pub fn losses(&self) -> Option<String> {
        const SHOWN: usize = 6;
        if self.lost.is_empty() {
            return None;
        }
        let mut words: Vec<String> = self.lost.iter().take(SHOWN).map(ToString::to_string).collect();
        if self.lost.len() > SHOWN {
            words.push(format!("and {} more", self.lost.len() - SHOWN));
        }
        Some(words.join("; "))
    }
}

impl Inventory {
    /// Takes the inventory of the lab's Harbor.
    pub async fn take(lab: &Lab) -> Self {
        let (served, database, storage, ca) =
            tokio::join!(Self::served(lab), database(lab), storage_blobs(lab), lab.harbor.ca(&lab.client));
        let mut unreadable = BTreeMap::new();
        let mut inventory = keep("the API", served, &mut unreadable);
        (inventory.rows, inventory.database) = keep("the database", database, &mut unreadable);
        inventory.storage = keep("the registry's storage", storage, &mut unreadable);
        inventory.ca = digest(keep("the certificate authority", ca, &mut unreadable).trim().as_bytes());
        inventory.unreadable = unreadable;
        inventory
    }

    /// What Harbor serves: its API and `/v2/`.
    async fn served(lab: &Lab) -> Result<Self, HarborError> {
        let (harbor, accounts) = (&lab.harbor, &lab.harbor.accounts);
        let ca = harbor.ca(&lab.client).await?;
        let mut admin = accounts.admin.clone();
        let mut api = Api::new(harbor, &ca, &admin)?;
        let mut served = Self { health: health(&api).await, ..Self::default() };
        for account in [&accounts.admin, &accounts.member, &accounts.robot()] {
            served.logins.insert(account.name.clone(), api.as_account(account).logs_in().await?);
        }
        // A database that was made anew knows the chart's password only; what it holds is to be seen all the same.
        if served.logins.get(&admin.name) == Some(&false) {
            admin = accounts.initial_admin();
            api = api.as_account(&admin);
        }
        let registry = Registry::new(harbor, &ca, &admin);
        for project in api.projects().await? {
            for repository in api.repositories(&project.name).await? {
                for artifact in api.artifacts(&repository.name).await? {
                    served.add(&registry, &repository.name, artifact).await;
                }
            }
        }
        Ok(served)
    }

    async fn add(&mut self, registry: &Registry, repository: &str, artifact: api::Artifact) {
        let tags: Vec<String> = artifact.tags.unwrap_or_default().into_iter().map(|tag| tag.name).collect();
        for tag in &tags {
            let digest = registry.tag(repository, tag).await.unwrap_or_else(|error| error.to_string());
            self.tags.insert(format!("{repository}:{tag}"), digest);
        }
        self.artifacts.insert(format!("{repository}@{}", artifact.digest), tags);
        let mut manifests = vec![artifact.digest];
        while let Some(listed) = manifests.pop() {
            let key = format!("{repository}@{listed}");
            let bytes = match registry.manifest(repository, &listed).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.content.insert(key, error.to_string());
                    continue;
                }
            };
            self.content.insert(key, size_if(&listed, &digest(&bytes), bytes.len()));
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { continue };
            manifests.extend(manifest.manifests.into_iter().map(|child| child.digest));
            for part in manifest.config.into_iter().chain(manifest.layers) {
                let key = format!("{repository}@{}", part.digest);
                if self.content.contains_key(&key) {
                    continue;
                }
                let read = match registry.blob(repository, &part.digest).await {
                    Ok((digest, size)) => size_if(&part.digest, &digest, size),
                    Err(error) => error.to_string(),
                };
                self.content.insert(key, read);
            }
        }
    }

    /// Whether both say the same of what Harbor holds. Why a part could not be read is told in words with pods' names in them.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let without_words = |inventory: &Self| {
            let mut inventory = inventory.clone();
            inventory.unreadable.values_mut().for_each(String::clear);
            inventory
        };
        without_words(self) == without_words(other)
    }

    /// What became of this inventory in `after`.
    pub fn diff(&self, after: &Self) -> Diff {
        let mut diff = Diff::default();
        // What people have names for comes first.
        compare("artifact", &self.artifacts, &after.artifacts, |tags| format!("tags [{}]", tags.join(", ")), &mut diff);
        compare("tag", &self.tags, &after.tags, Clone::clone, &mut diff);
        let login = |good: &bool| if *good { "good" } else { "refused" }.to_owned();
        compare("login of", &self.logins, &after.logins, login, &mut diff);
        for (table, count) in &self.rows {
            let now = after.rows.get(table);
            if now == Some(count) {
                continue;
            }
            let change =
                Change { what: format!("rows of {table}"), was: Some(count.to_string()), is: now.map(u64::to_string) };
            // More rows than before are no loss.
            if now.is_some_and(|now| now > count) { diff.changed.push(change) } else { diff.lost.push(change) }
        }
        compare("content", &self.content, &after.content, Clone::clone, &mut diff);
        compare("blob in storage", &self.storage, &after.storage, |size| format!("{size} bytes"), &mut diff);
        for (what, why) in &after.unreadable {
            diff.lost.push(Change { what: format!("{what} cannot be read: {why}"), was: None, is: None });
        }
        if self.ca != after.ca {
            let (was, is) = (Some(self.ca.clone()), Some(after.ca.clone()));
            diff.changed.push(Change { what: "certificate authority".to_owned(), was, is });
        }
        diff
    }
}

/// A part of the inventory, or an empty one and the reason.
fn keep<T: Default>(what: &str, result: Result<T, HarborError>, unreadable: &mut BTreeMap<String, String>) -> T {
    result.unwrap_or_else(|error| {
        unreadable.insert(what.to_owned(), error.to_string());
        T::default()
    })
}

fn size_if(wanted: &str, found: &str, size: usize) -> String {
    if wanted == found { format!("{size} bytes") } else { format!("{size} bytes that hash to {found}") }
}

async fn health(api: &Api) -> String {
    match api.health().await {
        Ok(health) if health.amiss().is_empty() => health.status,
        Ok(health) => format!("{}: {}", health.status, health.amiss().join(", ")),
        Err(error) => error.to_string(),
    }
}

fn compare<T: PartialEq>(
    what: &str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
    words: impl Fn(&T) -> String,
    diff: &mut Diff,
) {
    for (name, value) in before {
        let now = after.get(name);
        if now != Some(value) {
            let (was, is) = (Some(words(value)), now.map(&words));
            diff.lost.push(Change { what: format!("{what} {name}"), was, is });
        }
    }
    for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        diff.changed.push(Change { what: format!("{what} {name}"), was: None, is: Some(words(value)) });
    }
}

/// The rows of tables and the blobs, from the database itself: the API answers from it, but not for every table.
async fn database(lab: &Lab) -> Result<(BTreeMap<String, u64>, BTreeMap<String, u64>), HarborError> {
    let counts = TABLES.map(|table| format!("select '{table}', count(*) from {table}")).join(" union all ");
    let query = format!("{counts} union all select digest, size from blob");
    let psql = ["psql", "-U", "postgres", "-d", "registry", "-tA", "-F", " ", "-c", &query];
    let pod = format!("{}-database-0", lab.harbor.release);
    let printed = exec::run(lab, &pod, "database", &psql).await.map_err(HarborError::Database)?;
    let pairs = pairs(&printed).map_err(|line| HarborError::Database(format!("psql printed `{line}`")))?;
    Ok(pairs.into_iter().partition(|(name, _)| TABLES.contains(&name.as_str())))
}

/// The registry's own folder, listed in its pod.
async fn storage_blobs(lab: &Lab) -> Result<BTreeMap<String, u64>, HarborError> {
    // Nothing was ever pushed where there is no folder.
    let list = format!(r#"cd {BLOBS} || exit 0; set -- */*/data; [ -f "$1" ] || exit 0; wc -c "$@""#);
    let pod = exec::running(lab, "registry").await.map_err(HarborError::Storage)?;
    let printed = exec::run(lab, &pod, "registry", &["sh", "-c", &list]).await.map_err(HarborError::Storage)?;
    sizes(&printed).map_err(|line| HarborError::Storage(format!("wc printed `{line}`")))
}

/// What `wc -c` prints of blobs: a size and a path each, and their total.
fn sizes(text: &str) -> Result<BTreeMap<String, u64>, &str> {
    let lines = text.lines().filter(|line| !line.trim_end().ends_with(" total"));
    lines
        .map(|line| {
            let (size, path) = line.trim().split_once(' ').ok_or(line)?;
            let folder = path.split('/').nth(1).ok_or(line)?;
            Ok((format!("sha256:{folder}"), size.parse().map_err(|_| line)?))
        })
        .collect()
}

fn pairs(text: &str) -> Result<BTreeMap<String, u64>, &str> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (name, number) = line.split_once(' ').ok_or(line)?;
            Ok((name.to_owned(), number.trim().parse().map_err(|_| line)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_blobs_are_read_whatever_wc_pads_them_with() {
        let printed = "    7 0a/0abc/data\n1234 ff/ff00/data\n 1241 total\n";
        let expected = [("sha256:0abc".to_owned(), 7), ("sha256:ff00".to_owned(), 1234)].into();
        assert_eq!(sizes(printed), Ok(expected));
        assert_eq!(sizes("5 0a/0abc/data\n").map(|sizes| sizes.len()), Ok(1));
        assert_eq!(sizes("wc: nothing there"), Err("wc: nothing there"));
    }

    fn map<T>(entries: impl IntoIterator<Item = (&'static str, T)>) -> BTreeMap<String, T> {
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn some() -> Inventory {
        Inventory {
            health: "healthy".to_owned(),
            artifacts: map([("library/app@sha256:aa", vec!["v1".to_owned()])]),
            tags: map([("library/app:v1", "sha256:aa".to_owned())]),
            content: map([("library/app@sha256:bb", "12 bytes".to_owned())]),
            storage: map([("sha256:bb", 12)]),
            database: map([("sha256:bb", 12)]),
            rows: map([("artifact", 1)]),
            logins: map([("admin", true)]),
            ca: "sha256:ca".to_owned(),
            unreadable: BTreeMap::new(),
        }
    }

    #[test]
    fn nothing_is_lost_between_equal_inventories() {
        assert_eq!(some().diff(&some()), Diff::default());
        assert_eq!(some().diff(&some()).losses(), None);
    }

    #[test]
    fn every_part_is_compared() {
        let gone = Inventory { ca: "sha256:cb".to_owned(), ..Inventory::default() };
        insta::assert_snapshot!(some().diff(&gone).text(), @r"
        - artifact library/app@sha256:aa: was tags [v1], is gone
        - tag library/app:v1: was sha256:aa, is gone
        - login of admin: was good, is gone
        - rows of artifact: was 1, is gone
        - content library/app@sha256:bb: was 12 bytes, is gone
        - blob in storage sha256:bb: was 12 bytes, is gone
        ~ certificate authority: was sha256:ca, is sha256:cb
        ");
    }

    #[test]
    fn a_blob_that_hashes_to_something_else_is_lost() {
        let mut other = some();
        other.content.insert("library/app@sha256:bb".to_owned(), size_if("sha256:bb", "sha256:e3", 0));
        let losses = some().diff(&other).losses().unwrap();
        assert_eq!(losses, "content library/app@sha256:bb: was 12 bytes, is 0 bytes that hash to sha256:e3");
    }

    #[test]
    fn what_is_new_or_otherwise_without_loss_is_a_change() {
        let mut after = some();
        after.rows.insert("artifact".to_owned(), 2);
        after.storage.insert("sha256:cc".to_owned(), 5);
        after.ca = "sha256:cb".to_owned();
        let diff = some().diff(&after);
        assert_eq!((diff.lost.len(), diff.changed.len()), (0, 3), "{}", diff.text());
    }

    #[test]
    fn what_cannot_be_read_is_lost() {
        let mut after = some();
        after.unreadable.insert("the API".to_owned(), "no answer".to_owned());
        assert_eq!(some().diff(&after).losses().unwrap(), "the API cannot be read: no answer");
    }

    #[test]
    fn the_words_for_what_cannot_be_read_are_no_difference() {
        let unreadable = |what: &str, why: &str| {
            let mut inventory = some();
            inventory.unreadable.insert(what.to_owned(), why.to_owned());
            inventory
        };
        let one = unreadable("the registry's storage", "pod harbor-registry-1 has no host");
        assert!(one.says_the_same(&unreadable("the registry's storage", "pod harbor-registry-2 has no host")));
        assert!(!one.says_the_same(&unreadable("the API", "pod harbor-registry-1 has no host")));
        assert!(!one.says_the_same(&some()));
    }

    #[test]
    fn losses_beyond_the_first_few_are_counted() {
        let lost = (0..9).map(|n| Change { what: format!("tag {n}"), was: Some("x".into()), is: None }).collect();
        let diff = Diff { lost, changed: vec![] };
        assert!(diff.losses().unwrap().ends_with("; and 3 more"));
    }

    #[test]
    fn a_line_that_is_no_pair_is_named() {
        assert_eq!(pairs("a 1\n\nb 22\n"), Ok(map([("a", 1), ("b", 22)])));
        assert_eq!(pairs("a one\n"), Err("a one"));
    }
}
