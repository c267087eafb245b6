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
    lab::preflight,
    report::{ReportOptions, Reporter, TerminalMode, evidence::Evidence},
    run::{
        events::{EventKind, Events},
        runner::{Runner, Scenario},
    },
    runbook::{library::Library, variables},
    scenario::{CellPlan, CellResult, Role, ScenarioSpec},
    selection::{self, Shard},
};

use crate::{
    Keep, LabArgs,
    exit::{self, Failure},
    guest::GuestArgs,
    runbook::{self, Wish},
    session::{self, LabWish, Session, Setup},
};

/// Which cells a run has.
#[derive(Args, Clone, Default)]
pub struct Choice {
    /// SCENARIO, SCENARIO/VARIANT or SCENARIO/VARIANT/PROCEDURE; all when none is given
    pub selection: Vec<String>,
    /// Only the documented and recommended repairs and the no-op control
    #[arg(long, conflicts_with = "runbook")]
    quick: bool,
    /// Run this procedure, a Markdown file, instead of the scenarios' own; exit code 1 when it does not heal
    #[arg(long, value_name = "FILE")]
    runbook: Option<PathBuf>,
    /// Run the runbook also without each of its steps, in a lab of its own each time: which are needed?
    #[arg(long, requires = "runbook")]
    ablate: bool,
    /// End the runbook also after each of its steps and run it again from its start: does it converge?
    #[arg(long, requires = "runbook")]
    interrupt: bool,
    /// Run only the K-th of N like parts, for N machines that share the work
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
}

impl Choice {
    /// The cells; the runbooks that someone brings are added to the library.
    pub fn cells(&self, scenarios: &[Box<dyn Scenario>], library: &mut Library) -> Result<Vec<CellPlan>, Failure> {
        let specs: Vec<&ScenarioSpec> = scenarios.iter().map(|scenario| scenario.spec()).collect();
        let cells = match &self.runbook {
            Some(file) => {
                let wish = Wish { file, ablate: self.ablate, interrupt: self.interrupt };
                runbook::cells(&wish, &self.selection, &specs, library)?
            }
            None => {
                let known: Vec<CellPlan> = specs.iter().flat_map(|spec| spec.cells()).collect();
                selection::select(&known, &self.selection, self.quick).map_err(Failure::input)?
            }
        };
        match self.shard {
            Some(shard) => shard.of(&cells).map_err(Failure::input),
            None => Ok(cells),
        }
    }
}

#[derive(Args)]
pub struct E2eArgs {
    #[command(flatten)]
    choice: Choice,
    /// Run so many labs side by side, each with variants of its own; as many as fit this machine when it is not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8), conflicts_with = "cluster")]
    jobs: Option<u8>,
    /// What stays of the lab
    #[arg(long, value_enum, default_value_t = Keep::Never, conflicts_with = "cluster")]
    keep: Keep,
    /// The folder for the report
    #[arg(long, default_value = "report")]
    report: PathBuf,
    #[command(flatten)]
    cluster: GuestArgs,
    #[command(flatten)]
    lab: LabArgs,
}

/// The cells that share a lab as it is left, in order. What a runbook of somebody's does to a lab is not known, so each of its
/// runs has a lab of its own.
pub fn groups(cells: &[CellPlan]) -> VecDeque<Vec<CellPlan>> {
    let together =
        |a: &CellPlan, b: &CellPlan| (&a.scenario, &a.variant) == (&b.scenario, &b.variant) && a.role != Role::Yours;
    cells.chunk_by(together).map(<[_]>::to_vec).collect()
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
    let (scenarios, mut library) = scenarios()?;
    let cells = args.choice.cells(&scenarios, &mut library)?;
    let (guest, cells) = args.cluster.target(&scenarios, &args.choice.selection, cells).await?;
    let setup = Setup { guest, ..Setup::read(&args.lab)? };
    let id = session::new_id();

    let (events, receiver) = Events::channel();
    let options = ReportOptions { dir: Some(args.report.clone()), terminal: TerminalMode::Auto };
    let reporter = Reporter::start(receiver, options).map_err(Failure::input)?;
    let evidence = Evidence::new(Some(args.report)).map_err(Failure::input)?;
    for runbook in library.iter() {
        let secrets = runbook.variables.iter().filter(|(name, value)| variables::is_secret(name, value));
        secrets.for_each(|(_, value)| evidence.hide(value));
    }
    events.emit(EventKind::RunStarted { run: id.clone(), cells: cells.clone() });
    let begun = Instant::now();

    let results = Arc::new(Mutex::new(Vec::new()));
    let groups = groups(&cells);
    let labs = match &setup.guest {
        Some(_) => 1,
        None => args.jobs.map_or_else(|| preflight::labs_that_fit(setup.provision), usize::from).min(groups.len()),
    };
    // Who brings a runbook knows the gpu node by its name, and a cluster of somebody's is changed no more than was said.
    let gpu_node_moves = setup.guest.is_none() && args.choice.runbook.is_none();
    let first = Session::new(setup, events.clone());
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
        keep_broken: !matches!(args.keep, Keep::Never),
        at_once: labs,
        gpu_node_moves,
    };
    let work = {
        let sessions = sessions.clone();
        async move {
            // What the machine lacks is said once, not by each lab.
            if let Some(first) = sessions.first() {
                first.engine().await?;
            }
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
        Keep::OnFailure => match &outcome {
            Err(failure) => failure.code() != exit::INTERRUPTED,
            Ok(()) => !as_expected,
        },
        Keep::Never => false,
    };
    let outcome = outcome.and_then(|()| first.stayed());
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
        reach.iter().for_each(|(_, lines)| println!("\n{lines}"));
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
    /// How to reach each lab that is there, by its id.
    reach: Arc<Mutex<Vec<(String, String)>>>,
    /// Whether a lab that breaks stays for its user to look at.
    keep_broken: bool,
    /// How many labs begin at once.
    at_once: usize,
    /// Whether either worker may be the gpu node.
    gpu_node_moves: bool,
}

/// So many labs that break one after the other without any verdict are no accident.
const IN_VAIN: usize = 2;

impl Worker {
    /// Makes labs and tells variants in them until none is left. A lab that breaks ends with what it was at; the rest goes on
    /// in a new one.
    async fn work(&self, session: &Session, id: String) -> Result<(), Failure> {
        let (mut broke, mut in_vain, mut at_once) = (Ok(()), 0, self.at_once);
        for number in 1.. {
            if self.left().is_empty() {
                break;
            }
            let id = if number == 1 { id.clone() } else { format!("{id}-r{number}") };
            let told = self.tell(session, id.clone(), at_once).await;
            at_once = 1;
            let Err((failure, verdicts)) = told else {
                if self.keep_broken && self.went_wrong() {
                    break;
                }
                // One with nothing left to do makes room for the others.
                if !self.keep_broken || !self.left().is_empty() {
                    self.remove(session, &id).await?;
                }
                continue;
            };
            session.gather(&self.evidence).await;
            in_vain = if verdicts == 0 { in_vain + 1 } else { 0 };
            // What the machine or the wish lacks a second lab lacks too.
            let hopeless = in_vain == IN_VAIN || failure.code() == exit::BAD_INPUT;
            broke = Err(failure);
            if self.keep_broken || hopeless {
                break;
            }
            self.remove(session, &id).await?;
        }
        broke
    }

    async fn remove(&self, session: &Session, id: &str) -> Result<(), Failure> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner).retain(|(lab, _)| lab != id);
        session.remove_lab().await
    }

    /// Tells variants in one lab, until none is left or the lab is spent. When the lab breaks, the cells that have no result go back to what is left; the number is
    /// that of the verdicts that were reached in it.
    async fn tell(&self, session: &Session, id: String, at_once: usize) -> Result<(), (Failure, usize)> {
        let wish = LabWish { id, port: None, at_once };
        let (mut lab, facts) = session.lab(&wish).await.map_err(|failure| (failure, 0))?;
        lab.gpu_node.moves = self.gpu_node_moves;
        session::hide_secrets(&lab, &self.evidence);
        if let Ok(mut reach) = self.reach.lock() {
            reach.push((lab.id.clone(), session::how_to_reach(&lab, &facts)));
        }
        let Self { scenarios, library, events, evidence, results, .. } = self;
        let mut runner = Runner { lab: &lab, scenarios, library, events, evidence, results, last: None };
        let mut verdicts = 0;
        loop {
            let Some(cells) = self.left().pop_front() else { return Ok(()) };
            let ran = runner.run(&cells).await;
            let looked = session.look_at_pulls(&lab).await;
            let open = self.without_result(&cells);
            verdicts += cells.len() - open.len();
            if let Err(error) = ran {
                // The one that broke the lab has a result too.
                verdicts = verdicts.saturating_sub(1);
                if !open.is_empty() {
                    self.left().push_front(open);
                }
                return Err((Failure::lab(error), verdicts));
            }
            looked.map_err(|failure| (failure, verdicts))?;
            if cells.iter().any(|cell| cell.role == Role::Yours) {
                return Ok(());
            }
        }
    }

    fn went_wrong(&self) -> bool {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.iter().any(|result| !result.as_expected)
    }

    fn without_result(&self, cells: &[CellPlan]) -> Vec<CellPlan> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        cells.iter().filter(|cell| !results.iter().any(|result| result.is_of(cell))).cloned().collect()
    }

    fn left(&self) -> std::sync::MutexGuard<'_, VecDeque<Vec<CellPlan>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
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
