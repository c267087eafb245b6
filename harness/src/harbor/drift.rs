//! Whether Harbor's database and the registry's storage agree, and if not, in which direction they parted.
//!
//! From a pod both directions look alike: `not found`.

use serde::{Deserialize, Serialize};

use super::inventory::Inventory;

/// Where database and storage part. Empty when they agree blob by blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Digests of blobs that the database knows and the storage has not, or has in another size.
    pub storage_lacks: Vec<String>,
    /// Digests of blobs that the storage has and the database does not know.
    pub database_lacks: Vec<String>,
}

impl Drift {
    /// Compares the two sides of an inventory.
    pub fn of(inventory: &Inventory) -> Self {
        let (database, storage) = (&inventory.database, &inventory.storage);
        let storage_lacks = database.iter().filter(|(digest, size)| storage.get(*digest) != Some(size));
        let database_lacks = storage.keys().filter(|digest| !database.contains_key(*digest));
        Self {
            storage_lacks: storage_lacks.map(|(digest, _)| digest.clone()).collect(),
            database_lacks: database_lacks.cloned().collect(),
        }
    }

    /// Whether database and storage agree.
    pub fn is_none(&self) -> bool {
        self.storage_lacks.is_empty() && self.database_lacks.is_empty()
    }

    /// The drift in a few words.
    pub fn words(&self) -> String {
        match (self.storage_lacks.len(), self.database_lacks.len()) {
            (0, 0) => "database and storage agree blob by blob".to_owned(),
            (lost, 0) => format!("the storage lacks {lost} blobs that the database knows"),
            (0, unknown) => format!("the database lacks {unknown} blobs that the storage has"),
            (lost, unknown) => format!(
                "the storage lacks {lost} blobs that the database knows, and the database {unknown} that the storage has"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(database: &[(&str, u64)], storage: &[(&str, u64)]) -> Inventory {
        let map = |entries: &[(&str, u64)]| entries.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
        Inventory { database: map(database), storage: map(storage), ..Inventory::default() }
    }

    #[test]
    fn the_two_directions_are_told_apart() {
        let both = [("a", 1), ("b", 2)];
        assert!(Drift::of(&inventory(&both, &both)).is_none());
        let storage_lost = Drift::of(&inventory(&both, &[("a", 1)]));
        assert_eq!((storage_lost.storage_lacks.len(), storage_lost.database_lacks.len()), (1, 0));
        let database_lost = Drift::of(&inventory(&[], &both));
        assert_eq!((database_lost.storage_lacks.len(), database_lost.database_lacks.len()), (0, 2));
        assert_ne!(storage_lost.words(), database_lost.words());
    }

    #[test]
    fn a_blob_of_another_size_is_not_there() {
        let drift = Drift::of(&inventory(&[("a", 2)], &[("a", 1)]));
        assert_eq!(drift.storage_lacks, ["a"]);
    }
}
