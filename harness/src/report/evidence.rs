//! Evidence: what was seen, kept per phase under the report folder, without secrets and bounded in size.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use super::{EVIDENCE, redact::Redactor};
use crate::run::events::{EventKind, Step};

/// The most that one piece of evidence holds, in bytes; what is dropped is the middle.
pub const LIMIT: usize = 1024 * 1024;

/// Why evidence could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// It could not be written.
    #[error("write the evidence {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It could not be put into JSON.
    #[error("put the evidence `{name}` into JSON: {source}")]
    Json {
        /// Its name.
        name: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// Secrets cannot be told from the rest.
    #[error("prepare to take secrets out of evidence: {0}; this is a fault of drydock")]
    Redact(#[from] regex::Error),
}

/// Where evidence goes. Cheap to clone; clones share what they know of secrets.
#[derive(Debug, Clone)]
pub struct Evidence {
    dir: Option<PathBuf>,
    redactor: Arc<Mutex<Redactor>>,
}

impl Evidence {
    /// Evidence under the report folder `dir`; none is kept where there is no folder.
    ///
    /// # Errors
    /// A fault of drydock.
    pub fn new(dir: Option<PathBuf>) -> Result<Self, EvidenceError> {
        Ok(Self { dir, redactor: Arc::new(Mutex::new(Redactor::new()?)) })
    }

    /// Keeps `secret` out of all that is written from now on.
    pub fn hide(&self, secret: &str) {
        self.redactor.lock().unwrap_or_else(PoisonError::into_inner).add(secret);
    }

    /// `text` without the secrets that are known by now.
    pub fn redact(&self, text: &str) -> String {
        self.redactor.lock().unwrap_or_else(PoisonError::into_inner).redact(text)
    }

    /// Where one phase's evidence goes: `evidence/<scenario>/<variant>/<phase>/`.
    pub fn phase(&self, scenario: &str, variant: &str, phase: &str) -> Phase {
        let folder: PathBuf = [EVIDENCE, &file_name(scenario), &file_name(variant), &file_name(phase)].iter().collect();
        Phase { evidence: self.clone(), folder }
    }
}

/// Where one phase's evidence goes.
#[derive(Debug, Clone)]
pub struct Phase {
    evidence: Evidence,
    folder: PathBuf,
}

impl Phase {
    /// Keeps a text as `name`, in the place of an earlier one of this name. A longer one than [`LIMIT`] loses its middle, and
    /// says so there.
    ///
    /// # Errors
    /// It could not be written.
    pub fn text(&self, step: &Step, name: &str, text: &str) -> Result<(), EvidenceError> {
        let Some(dir) = &self.evidence.dir else { return Ok(()) };
        // Secrets first: half a key would not be known for one.
        let text = self.evidence.redact(text);
        let relative = self.folder.join(file_name(name));
        write(&dir.join(&relative), &bounded(&text, LIMIT))?;
        let path = relative.to_string_lossy().into_owned();
        step.events().emit(EventKind::Evidence { step: Some(step.id()), path });
        Ok(())
    }

    /// Keeps a value as JSON, as `name`; as `name.cut` where that is too long to stay JSON.
    ///
    /// # Errors
    /// It could not be put into JSON or not be written.
    pub fn json(&self, step: &Step, name: &str, value: &impl Serialize) -> Result<(), EvidenceError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|source| EvidenceError::Json { name: name.to_owned(), source })?;
        if text.len() > LIMIT { self.text(step, &format!("{name}.cut"), &text) } else { self.text(step, name, &text) }
    }
}

fn write(path: &Path, text: &str) -> Result<(), EvidenceError> {
    let write = || {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, text)
    };
    write().map_err(|source| EvidenceError::Write { path: path.to_owned(), source })
}

/// `name` as one part of a path: what could lead elsewhere or is awkward in a shell becomes `_`.
pub(super) fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.chars().take(200).map(plain).collect();
    match name.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None if name.is_empty() => "_".to_owned(),
        None => name,
    }
}

/// The beginning and the end of `text`, together with a line between them of at most about `limit` bytes.
fn bounded(text: &str, limit: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    let boundary = |index: &usize| text.is_char_boundary(*index);
    let head = (0..=limit / 2).rev().find(boundary).unwrap_or(0);
    let tail = (text.len() - limit / 2..=text.len()).find(boundary).unwrap_or(text.len());
    format!("{}\n[... {} bytes left out ...]\n{}", &text[..head], tail - head, &text[tail..]).into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::run::events::Events;

    /// Runs `work` in a step; returns the evidence that it announced.
    async fn announced(work: impl AsyncFnOnce(&Step) -> Result<(), EvidenceError>) -> Vec<String> {
        let (events, receiver) = Events::channel();
        events.step("collect", async |step| work(&step).await).await.unwrap();
        drop(events);
        receiver
            .iter()
            .filter_map(|event| match event.kind {
                EventKind::Evidence { path, step: Some(1) } => Some(path),
                _ => None,
            })
            .collect()
    }

    #[tokio::test]
    async fn evidence_is_kept_per_phase_and_announced() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence::new(Some(dir.path().to_owned())).unwrap();
        let phase = evidence.phase("untrusted-ca", "no-trust", "symptom");
        evidence.hide("Harbor12345");
        let paths = announced(async |step| {
            phase.text(step, "pod harbor/app.log", "it said Harbor12345")?;
            phase.json(step, "pod.json", &serde_json::json!({ "secret": "abc" }))
        })
        .await;
        assert_eq!(
            paths,
            [
                "evidence/untrusted-ca/no-trust/symptom/pod_harbor_app.log",
                "evidence/untrusted-ca/no-trust/symptom/pod.json"
            ]
        );
        let kept: Vec<String> =
            paths.iter().map(|path| std::fs::read_to_string(dir.path().join(path)).unwrap()).collect();
        assert_eq!(kept, ["it said [redacted]", "{\n  \"secret\": \"[redacted]\"\n}"]);
    }

    #[tokio::test]
    async fn json_that_had_to_be_cut_does_not_pass_for_json() {
        let dir = tempfile::tempdir().unwrap();
        let phase = Evidence::new(Some(dir.path().to_owned())).unwrap().phase("s", "v", "p");
        let paths = announced(async |step| phase.json(step, "big.json", &"é".repeat(LIMIT))).await;
        assert_eq!(paths, ["evidence/s/v/p/big.json.cut"]);
        let kept = std::fs::read_to_string(dir.path().join(&paths[0])).unwrap();
        assert!(kept.len() < LIMIT + 100 && kept.contains("bytes left out"), "{}", kept.len());
    }

    #[tokio::test]
    async fn without_a_folder_nothing_is_kept() {
        let phase = Evidence::new(None).unwrap().phase("s", "v", "p");
        assert!(announced(async |step| phase.text(step, "a.log", "a")).await.is_empty());
    }

    #[rstest]
    #[case("../../etc/passwd", "_._.._etc_passwd")]
    #[case("..", "_.")]
    #[case("", "_")]
    #[case("10.0.0.1:30003.json", "10.0.0.1_30003.json")]
    fn a_name_stays_within_its_folder(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(file_name(name), expected);
    }

    #[test]
    fn the_middle_is_what_is_left_out() {
        assert_eq!(bounded("abcdefghij", 4), "ab\n[... 6 bytes left out ...]\nij");
        assert_eq!(bounded("abcd", 4), "abcd");
    }
}
