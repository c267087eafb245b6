//! `cargo xtask e2e`: run scenarios.

use std::{path::PathBuf, sync::Mutex, time::Instant};

use clap::Args;
use harness::{
    report::{self, ReportOptions, Reporter, evidence::Evidence},
    run::{
        events::{EventKind, Events},
        runner::{self, Scenario},
    },
    scenario::{CellPlan, CellResult},
    selection,
};

use crate::{
    Keep, LabArgs,
    exit::{self, Failure},
    session::{self, Ended, Session, Setup},
};

#[derive(Args)]
pub struct E2eArgs {
    /// SCENARIO, SCENARIO/VARIANT or SCENARIO/VARIANT/PROCEDURE; all when none is given
    selection: Vec<String>,
    /// Only the documented and recommended repairs and the no-op control
    #[arg(long)]
    quick: bool,
    /// What stays of the lab
    #[arg(long, value_enum, default_value_t = Keep::Never)]
    keep: Keep,
    /// The folder for the report
    #[arg(long, default_value = "report")]
    report: PathBuf,
    #[command(flatten)]
    lab: LabArgs,
}

/// All scenarios.
pub fn scenarios() -> Result<Vec<Box<dyn Scenario>>, Failure> {
    Ok(vec![Box::new(untrusted_ca::UntrustedCa::new().map_err(Failure::input)?)])
}

pub async fn e2e(args: E2eArgs) -> Result<u8, Failure> {
    let scenarios = scenarios()?;
    let known: Vec<CellPlan> = scenarios.iter().flat_map(|scenario| scenario.spec().cells()).collect();
    let cells = selection::select(&known, &args.selection, args.quick).map_err(Failure::input)?;
    let setup = Setup::read(&args.lab)?;
    let id = session::new_id();

    let (events, receiver) = Events::channel();
    let reporter = Reporter::start(receiver, ReportOptions::new(&args.report)).map_err(Failure::input)?;
    let evidence = Evidence::new(&args.report, session::secrets());
    events.emit(EventKind::RunStarted { run: id.clone(), cells: cells.clone() });
    let begun = Instant::now();
    let results = Mutex::new(Vec::new());
    let ended = session::guarded(&events, async |session: &mut Session| {
        session.prepare(&setup, &events).await?;
        let (lab, _) = session.make_lab(&id, None, &events).await?;
        runner::run(&lab, &scenarios, &cells, &events, &evidence, &results).await.map_err(Failure::lab)
    })
    .await;
    let results = results.into_inner().unwrap_or_default();
    let as_expected = results.len() == cells.len() && results.iter().all(|cell: &CellResult| cell.as_expected);
    let Ended { session, outcome } = ended;
    let keep = match args.keep {
        Keep::Always => true,
        Keep::OnFailure => outcome.is_err() || !as_expected,
        Keep::Never => false,
    };
    let cleaned = session.end(keep, &events).await;
    let error = outcome.as_ref().err().or(cleaned.as_ref().err());
    events.emit(EventKind::RunFinished {
        passed: as_expected && error.is_none(),
        seconds: begun.elapsed().as_secs_f64(),
        error: error.map(Failure::words),
    });
    drop(events);
    reporter.finish().map_err(Failure::lab)?;
    match (outcome, cleaned) {
        (Err(failure), _) | (Ok(()), Err(failure)) => Ok(failure.code()),
        (Ok(()), Ok(())) if as_expected => Ok(exit::AS_EXPECTED),
        (Ok(()), Ok(())) => Ok(exit::NOT_AS_EXPECTED),
    }
}
