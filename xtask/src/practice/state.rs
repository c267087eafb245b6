//! What is known of a practice: a file in its lab's folder, so that every command finds it and it outlives a terminal.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use harness::{
    harbor::inventory::Inventory,
    lab::ledger::{self, LabState, Listed},
    nearest::{did_you_mean, list},
    paths::Paths,
    run::practice,
    scenario::{CellResult, Drill, Verdict},
};
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

const FILE: &str = "practice.json";
const LOCK: &str = "practice.lock";

/// A practice, from its hand-over on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The scenario.
    pub scenario: String,
    /// The variant.
    pub variant: String,
    /// The folder for the report.
    pub report: PathBuf,
    /// Whether the lab stays when its user leaves.
    pub keep: bool,
    /// What Harbor held before the fault.
    pub before: Inventory,
    /// When the broken lab was handed over.
    pub handed_over: DateTime<Utc>,
    /// For how long nobody was there since, in seconds.
    pub away: f64,
    /// When the user left, while nobody is there.
    pub left: Option<DateTime<Utc>>,
    /// Whether the user means to come back.
    pub paused: bool,
    /// How many hints were given.
    pub hints: usize,
    /// Whether the runbook was shown.
    pub gave_up: bool,
    /// Every check, in order.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The verdict.
    pub verdict: Verdict,
    /// What decided it.
    pub reason: String,
    /// From the hand-over to the pull of the last node, in seconds, without the time that nobody was there; none where it had not
    /// healed.
    pub recovery_seconds: Option<f64>,
}

impl State {
    /// The state of a broken lab as it is handed over now; `before` is what Harbor held before the fault.
    pub fn handed_over(scenario: String, variant: String, report: PathBuf, keep: bool, before: Inventory) -> Self {
        Self {
            scenario,
            variant,
            report,
            keep,
            before,
            handed_over: Utc::now(),
            away: 0.0,
            left: None,
            paused: false,
            hints: 0,
            gave_up: false,
            checks: Vec::new(),
        }
    }

    /// The state of the practice in a lab's folder.
    pub fn read(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(FILE);
        let read = || Ok(serde_json::from_slice(&std::fs::read(&path)?)?);
        read().map_err(|error: io::Error| Failure::lab(anyhow::anyhow!("read {}: {error}", path.display())))
    }

    /// Writes it whole.
    pub fn write(&self, dir: &Path) -> Result<(), Failure> {
        let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        let write = || {
            std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
            std::fs::rename(&new, &path)
        };
        write().map_err(|error: io::Error| Failure::lab(anyhow::anyhow!("write {}: {error}", path.display())))
    }

    /// Changes what is in a lab's folder.
    pub fn change(dir: &Path, change: impl FnOnce(&mut Self)) -> Result<Self, Failure> {
        let mut state = Self::read(dir)?;
        change(&mut state);
        state.write(dir)?;
        Ok(state)
    }

    /// How long after the hand-over `at` is, in seconds, without the time that nobody was there.
    pub fn seconds_until(&self, at: DateTime<Utc>) -> f64 {
        ((at - self.handed_over).as_seconds_f64() - self.away).max(0.0)
    }

    /// How it went until now. What was never checked has no verdict.
    pub fn result(&self, now: DateTime<Utc>) -> CellResult {
        let plan = practice::cell(&self.scenario, &self.variant);
        let seconds = self.seconds_until(self.left.unwrap_or(now));
        let helped = match (self.hints, self.gave_up) {
            (0, false) => String::new(),
            (0, true) => ", after the runbook was shown".to_owned(),
            (hints, false) => format!(", with {hints} hint(s)"),
            (hints, true) => format!(", with {hints} hint(s) and the runbook shown"),
        };
        let Some(last) = self.checks.last() else {
            return plan.result(Verdict::Skipped, seconds, format!("left before the first check{helped}"));
        };
        // The first of the checks since which it has been healed.
        let broken =
            self.checks.iter().rposition(|check| check.verdict != Verdict::Healed).map_or(0, |index| index + 1);
        let recovery_seconds = self.checks.get(broken).and_then(|check| check.recovery_seconds);
        let reason = format!("{}; {} check(s){helped}", last.reason, self.checks.len());
        let drill = Drill { recovery_seconds, ..Drill::default() };
        CellResult { drill: Some(drill), ..plan.result(last.verdict, seconds, reason) }
    }
}

/// Held by a command that looks at the lab: two at once would remove each other's pods.
pub fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(LOCK);
    let open = || File::options().create(true).truncate(false).write(true).open(&path);
    let file = open().map_err(|error| Failure::lab(anyhow::anyhow!("open {}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Failure::input(anyhow::anyhow!("another check of this practice is under way; wait for its end")))
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(Failure::lab(anyhow::anyhow!("lock {}: {error}", path.display())))
        }
    }
}

/// The lab of the practice that is meant: the one that is named, or the only one.
pub fn find(paths: &Paths, name: Option<&str>) -> Result<Listed, Failure> {
    let labs = ledger::list(paths).map_err(Failure::lab)?;
    let mut labs: Vec<Listed> = labs.into_iter().filter(|lab| lab.dir.join(FILE).exists()).collect();
    let names: Vec<String> = labs.iter().map(|lab| lab.lab.clone()).collect();
    let known = || list(names.iter().map(String::as_str));
    match name {
        Some(name) => match labs.into_iter().find(|lab| lab.lab == name) {
            Some(lab) => Ok(lab),
            None => {
                let suggestion = did_you_mean(name, names.iter().map(String::as_str));
                Err(Failure::input(anyhow::anyhow!(
                    "there is no practice `{name}`{suggestion} (there are: {})",
                    known()
                )))
            }
        },
        None if labs.len() == 1 => Ok(labs.remove(0)),
        None if labs.is_empty() => {
            Err(Failure::input(anyhow::anyhow!("there is no practice; `cargo xtask practice SCENARIO` begins one")))
        }
        None => Err(Failure::input(anyhow::anyhow!("which practice? Name it (there are: {})", known()))),
    }
}

/// Refuses a practice at which somebody sits.
pub fn must_be_free(lab: &Listed) -> Result<(), Failure> {
    if lab.state == LabState::Live {
        let error = anyhow::anyhow!("the practice {} goes on in another terminal; leave it there first", lab.lab);
        return Err(Failure::input(error));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn state() -> State {
        let new = State::handed_over(
            "pv-drift".into(),
            "blobs-lost".into(),
            "/reports/one".into(),
            false,
            Inventory::default(),
        );
        State { handed_over: at(100), ..new }
    }

    fn check(verdict: Verdict, recovery_seconds: Option<f64>) -> Check {
        Check { verdict, reason: format!("{verdict} it is"), recovery_seconds }
    }

    #[test]
    fn what_was_never_checked_has_no_verdict_and_is_no_success() {
        let result = State { hints: 2, ..state() }.result(at(130));
        assert_eq!((result.verdict, result.as_expected, result.seconds), (Verdict::Skipped, false, 30.0));
        assert_eq!(result.reason, "left before the first check, with 2 hint(s)");
    }

    #[test]
    fn the_last_check_is_the_verdict_and_recovery_is_told_of_what_healed_and_stayed_so() {
        let not = check(Verdict::NotHealed, None);
        let result = State { checks: vec![not.clone()], ..state() }.result(at(200));
        assert_eq!((result.verdict, result.drill.unwrap().recovery_seconds), (Verdict::NotHealed, None));
        let checks = vec![
            check(Verdict::Healed, Some(5.0)),
            not,
            check(Verdict::Healed, Some(60.0)),
            check(Verdict::Healed, Some(80.0)),
        ];
        let result = State { checks, gave_up: true, ..state() }.result(at(200));
        assert!(result.as_expected);
        assert_eq!(result.reason, "healed it is; 4 check(s), after the runbook was shown");
        assert_eq!(result.drill.unwrap().recovery_seconds, Some(60.0));
    }

    #[test]
    fn time_in_which_nobody_was_there_does_not_count() {
        let state = State { away: 40.0, ..state() };
        assert_eq!(state.seconds_until(at(160)), 20.0);
        assert_eq!(State { left: Some(at(150)), ..state }.result(at(900)).seconds, 10.0);
    }

    #[test]
    fn what_is_written_is_read_again_and_two_checks_at_once_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        state().write(dir.path()).unwrap();
        let changed = State::change(dir.path(), |state| state.hints += 1).unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), changed);
        let _held = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).unwrap_err().to_string().starts_with("another check"));
    }

    #[test]
    fn the_practice_that_is_meant_is_the_only_one_or_the_named_one() {
        let cache = tempfile::tempdir().unwrap();
        let paths = Paths::at(cache.path());
        let told = |name| find(&paths, name).map(|lab| lab.lab).unwrap_or_else(|error| error.to_string());
        assert!(told(None).starts_with("there is no practice; "));
        for lab in ["drydock-1", "drydock-2", "other"] {
            std::fs::create_dir_all(paths.labs().join(lab)).unwrap();
        }
        state().write(&paths.labs().join("drydock-1")).unwrap();
        assert_eq!(told(None), "drydock-1");
        state().write(&paths.labs().join("drydock-2")).unwrap();
        assert_eq!(told(None), "which practice? Name it (there are: drydock-1, drydock-2)");
        assert_eq!(told(Some("drydock-2")), "drydock-2");
        assert!(told(Some("drydok-2")).contains("; did you mean `drydock-2`?"), "{}", told(Some("drydok-2")));
        assert!(told(Some("other")).starts_with("there is no practice `other`"));
    }
}
