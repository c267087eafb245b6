//! Observations that were recorded from runs, for the tests of scenarios: `fixtures/observations/SCENARIO/KUBERNETES/NAME.json`.

use std::{io, path::Path};

use super::Observation;
use crate::{harbor::seed::Seed, run::judge::Known};

/// What is known of the labs in which they were recorded.
///
/// # Errors
/// The seed cannot be made: a fault of drydock.
pub fn known() -> io::Result<Known> {
    let seed = Seed::new().map_err(io::Error::other)?;
    Ok(Known::new(["control-plane", "worker1", "worker2-gpu"].map(str::to_owned).into(), &seed))
}

/// One observation.
///
/// # Errors
/// The file cannot be read, or holds none.
pub fn read(scenario: &str, kubernetes: &str, name: &str) -> io::Result<Observation> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/observations");
    let path = folder.join(scenario).join(kubernetes).join(name).with_extension("json");
    let named = |error: String| io::Error::other(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| named(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| named(error.to_string()))
}
