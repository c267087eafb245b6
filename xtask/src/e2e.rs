//! `cargo xtask e2e`: run scenarios.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use clap::Args;
use futures::future::join_all;
use harness::{
    report::{ReportOptions, Reporter, TerminalMode, evidence::Evidence},
    run::{
        events::{EventKind, Events},
        runner::{self, Scenario},
    },
    runbook::library::Library,
    scenario::{CellPlan, CellResult},
    selection,
};

use crate::{
    Keep, LabArgs,
    exit::{self, Failure},
    session::{self, LabWish, Session, Setup},
};

#[derive(Args)]
pub struct E2eArgs {
    /// SCENARIO, SCENARIO/VARIANT or SCENARIO/VARIANT/PROCEDURE; all when none is given
    selection: Vec<String>,
    /// Only the documented and recommended repairs and the no-op control
    #[arg(long)]
    quick: bool,
    /// Run so many labs side by side, each with variants of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
    /// What stays of the lab
    #[arg(long, value_enum, default_value_t = Keep::Never)]
    keep: Keep,
    /// The folder for the report
    #[arg(long, default_value = "report")]
    report: PathBuf,
    #[command(flatten)]
    lab: LabArgs,
}

/// All scenarios, and the runbooks that their cells name.
pub fn scenarios() -> Result<(Vec<Box<dyn Scenario>>, Library), Failure> {
    let root = crate::root();
    let read = |folder: &str| Library::read(&root, &root.join("fixtures").join(folder)).map_err(Failure::input);
    let (runbooks, faults) = (read("runbooks")?, read("faults")?);
    let scenarios: Vec<Box<dyn Scenario>> = vec![
        Box::new(untrusted_ca::UntrustedCa::new().map_err(Failure::input)?),
        Box::new(pv_drift::PvDrift::new(&faults).map_err(Failure::input)?),
        Box::new(affinity_conflict::AffinityConflict::new(&faults, &runbooks).map_err(Failure::input)?),
    ];
    for scenario in &scenarios {
        scenario.spec().check(&runbooks).map_err(Failure::input)?;
    }
    Ok((scenarios, runbooks))
}

pub async fn e2e(args: E2eArgs) -> Result<u8, Failure> {
    let (scenarios, library) = scenarios()?;
    let known: Vec<CellPlan> = scenarios.iter().flat_map(|scenario| scenario.spec().cells()).collect();
    let cells = selection::select(&known, &args.selection, args.quick).map_err(Failure::input)?;
    let setup = Setup::read(&args.lab)?;
    let id = session::new_id();

    let (events, receiver) = Events::channel();
    let options = ReportOptions { dir: Some(args.report.clone()), terminal: TerminalMode::Auto };
    let reporter = Reporter::start(receiver, options).map_err(Failure::input)?;
    let evidence = Evidence::new(Some(args.report)).map_err(Failure::input)?;
    events.emit(EventKind::RunStarted { run: id.clone(), cells: cells.clone() });
    let begun = Instant::now();

    let results = Arc::new(Mutex::new(Vec::new()));
    let groups: VecDeque<Vec<CellPlan>> =
        cells.chunk_by(|a, b| (&a.scenario, &a.variant) == (&b.scenario, &b.variant)).map(<[_]>::to_vec).collect();
    let labs = usize::from(args.jobs).min(groups.len());
    let first = Session::new(setup, events.clone(), labs);
    let sessions: Vec<Session> = [first.clone()].into_iter().chain((1..labs).map(|_| first.beside())).collect();
    let reach = Arc::new(Mutex::new(Vec::new()));
    let worker = Worker {
        scenarios: scenarios.into(),
        library: Arc::new(library),
        left: Arc::new(Mutex::new(groups)),
        events: events.clone(),
        evidence: Arc::new(evidence),
        results: results.clone(),
        reach: reach.clone(),
    };
    let work = {
        let sessions = sessions.clone();
        async move {
            let workers = sessions.iter().enumerate().map(|(number, session)| {
                let id = if number == 0 { id.clone() } else { format!("{id}-{}", number + 1) };
                worker.work(session, id)
            });
            // A lab that broke does not stop the others.
            join_all(workers).await.into_iter().collect()
        }
    };
    let outcome = session::guarded(&events, work).await;

    let as_expected = results.lock().is_ok_and(|results| results.iter().all(|cell| cell.as_expected));
    let keep = match args.keep {
        Keep::Always => true,
        // Who interrupts a run wants it gone.
        Keep::OnFailure => !as_expected || outcome.as_ref().is_err_and(|failure| failure.code() != exit::INTERRUPTED),
        Keep::Never => false,
    };
    drop(first);
    let ended = join_all(sessions.into_iter().map(|session| session.end(keep))).await;
    let outcome = ended.into_iter().fold(outcome, |outcome, ended| match (outcome, ended) {
        (Ok(()), ended) => ended,
        (Err(failure), Ok(())) => Err(failure),
        (Err(failure), Err(cleaning)) => Err(failure.and(&cleaning)),
    });
    events.emit(EventKind::RunFinished {
        passed: as_expected && outcome.is_ok(),
        seconds: begun.elapsed().as_secs_f64(),
        error: outcome.as_ref().err().map(ToString::to_string),
    });
    let report = reporter.finish().map_err(Failure::lab)?;
    if keep && let Ok(reach) = reach.lock() {
        reach.iter().for_each(|lines| println!("\n{lines}"));
    }
    Ok(match outcome {
        Err(failure) => failure.code(),
        Ok(()) if report.passed => exit::AS_EXPECTED,
        Ok(()) => exit::NOT_AS_EXPECTED,
    })
}

/// What every lab of a run works on: variants that are left, taken one at a time.
struct Worker {
    scenarios: Arc<[Box<dyn Scenario>]>,
    library: Arc<Library>,
    left: Arc<Mutex<VecDeque<Vec<CellPlan>>>>,
    events: Events,
    evidence: Arc<Evidence>,
    results: Arc<Mutex<Vec<CellResult>>>,
    reach: Arc<Mutex<Vec<String>>>,
}

impl Worker {
    /// Makes a lab and tells variants in it until none is left or the lab breaks.
    async fn work(&self, session: &Session, id: String) -> Result<(), Failure> {
        let result = self.tell(session, id).await;
        if result.is_err() {
            session.gather(&self.evidence).await;
        }
        result
    }

    async fn tell(&self, session: &Session, id: String) -> Result<(), Failure> {
        let (lab, facts) = session.lab(&LabWish { id, port: None }).await?;
        session::hide_secrets(&lab, &self.evidence);
        if let Ok(mut reach) = self.reach.lock() {
            reach.push(session::how_to_reach(&lab, &facts));
        }
        while let Some(cells) = self.next() {
            let Self { scenarios, library, events, evidence, results, .. } = self;
            runner::run(&lab, scenarios, library, &cells, events, evidence, results).await.map_err(Failure::lab)?;
        }
        Ok(())
    }

    fn next(&self) -> Option<Vec<CellPlan>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_cell_of_every_scenario_is_known_with_its_expectation() {
        let (scenarios, _) = scenarios().unwrap();
        let cells = scenarios.iter().flat_map(|scenario| scenario.spec().cells());
        let lines: Vec<String> = cells
            .map(|cell| {
                let expected = cell.expected.map(|expected| expected.to_string()).unwrap_or_default();
                let stops = cell.stops_at.as_ref().map(|at| format!(", stops at `{at}`")).unwrap_or_default();
                format!("{} ({}): {expected}{stops}", cell.path(), cell.role)
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn every_block_of_every_runbook_and_fault_is_shell() {
        let root = crate::root();
        let mut blocks = 0;
        for folder in ["runbooks", "faults"] {
            let library = Library::read(&root, &root.join("fixtures").join(folder)).unwrap();
            for runbook in library.iter() {
                for block in runbook.steps.iter().flat_map(|step| &step.blocks) {
                    let parsed = Command::new("bash").args(["-n", "-c", &block.script]).output().unwrap();
                    let said = String::from_utf8_lossy(&parsed.stderr);
                    assert!(parsed.status.success(), "{}:{}: {said}", runbook.file, block.line);
                    blocks += 1;
                }
            }
        }
        assert!(blocks > 0);
    }
}
