//! The runbooks that scenarios name, read from `fixtures/runbooks/<scenario>/<procedure>.md`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Runbook,
    parse::{RunbookError, parse_bytes},
};
use crate::nearest::{did_you_mean, list};

/// Every runbook, by `scenario/procedure`.
#[derive(Debug, Clone, Default)]
pub struct Library {
    runbooks: BTreeMap<String, Runbook>,
}

/// Why a runbook cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A file or folder cannot be read.
    #[error("read the runbooks in {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is no runbook.
    #[error(transparent)]
    Parse(#[from] RunbookError),
    /// There is none of that name.
    #[error("there is no runbook `{name}`{suggestion} (there are: {known})")]
    Unknown {
        /// As it was asked for.
        name: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
        /// All that there are, as a list.
        known: String,
    },
    /// A cell is known to stop at a step that its runbooks do not have.
    #[error("{cell} is known to stop at `{step}`, but its runbooks have no such step")]
    NoStep {
        /// The cell.
        cell: String,
        /// The step.
        step: String,
    },
}

impl Library {
    /// Reads all runbooks under `dir`, whose folders are scenarios. `root` is what errors leave out of paths.
    ///
    /// # Errors
    /// A file cannot be read or is no runbook.
    pub fn read(root: &Path, dir: &Path) -> Result<Self, LibraryError> {
        let mut runbooks = BTreeMap::new();
        for folder in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
            for file in entries(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
                let bytes = std::fs::read(&file).map_err(io(&file))?;
                let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
                let name = file.strip_prefix(dir).unwrap_or(&file).with_extension("").display().to_string();
                runbooks.insert(name, parse_bytes(&shown, &bytes)?);
            }
        }
        Ok(Self { runbooks })
    }

    /// Adds a runbook, in the place of an earlier one of this name.
    pub fn add(&mut self, name: &str, runbook: Runbook) {
        self.runbooks.insert(name.to_owned(), runbook);
    }

    /// All runbooks, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Runbook> {
        self.runbooks.values()
    }

    /// A runbook by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<&Runbook, LibraryError> {
        let known = || self.runbooks.keys().map(String::as_str);
        self.runbooks.get(name).ok_or_else(|| LibraryError::Unknown {
            name: name.to_owned(),
            suggestion: did_you_mean(name, known()),
            known: list(known()),
        })
    }

    /// Several, in this order.
    ///
    /// # Errors
    /// One is not there.
    pub fn all(&self, names: &[String]) -> Result<Vec<&Runbook>, LibraryError> {
        names.iter().map(|name| self.get(name)).collect()
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    let listed = std::fs::read_dir(dir).map_err(io(dir))?;
    listed.map(|entry| entry.map(|entry| entry.path()).map_err(io(dir))).collect()
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> LibraryError {
    let path = path.to_owned();
    move |source| LibraryError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_runbook_is_found_by_its_folder_and_name() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "books/pv-drift/no-op.md", "# Nothing\n");
        let library = Library::read(dir.path(), &dir.path().join("books")).unwrap();
        assert_eq!(library.get("pv-drift/no-op").unwrap().title, "Nothing");
        let error = library.get("pv-drift/noop").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no runbook `pv-drift/noop`; did you mean `pv-drift/no-op`? (there are: pv-drift/no-op)"
        );
    }

    #[test]
    fn a_file_that_is_no_runbook_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "books/pv-drift/bad.md", "```sh\nls\n```\n");
        let error = Library::read(dir.path(), &dir.path().join("books")).unwrap_err().to_string();
        assert!(error.starts_with("books/pv-drift/bad.md:1: "), "{error}");
    }
}
