//! `cargo xtask e2e`: run scenarios.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use clap::Args;
use harness::{
    report::{ReportOptions, Reporter, TerminalMode, evidence::Evidence},
    run::{
        events::{EventKind, Events},
        runner::{self, Scenario},
    },
    scenario::CellPlan,
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
    let options = ReportOptions { dir: Some(args.report.clone()), terminal: TerminalMode::Auto };
    let reporter = Reporter::start(receiver, options).map_err(Failure::input)?;
    let evidence = Evidence::new(Some(args.report)).map_err(Failure::input)?;
    events.emit(EventKind::RunStarted { run: id.clone(), cells: cells.clone() });
    let begun = Instant::now();

    let session = Session::new(setup, events.clone());
    let results = Arc::new(Mutex::new(Vec::new()));
    let reach = Arc::new(Mutex::new(None));
    let work = {
        let (session, events, results, reach) = (session.clone(), events.clone(), results.clone(), reach.clone());
        async move {
            let run = async {
                let (lab, facts) = session.lab(&LabWish { id, port: None }).await?;
                evidence.hide(&lab.harbor.admin_password);
                if let Ok(mut reach) = reach.lock() {
                    *reach = Some(session::how_to_reach(&lab, &facts));
                }
                runner::run(&lab, &scenarios, &cells, &events, &evidence, &results).await.map_err(Failure::lab)
            };
            let result = run.await;
            if result.is_err() {
                session.gather(&evidence).await;
            }
            result
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
    let outcome = match (outcome, session.end(keep).await) {
        (Ok(()), cleaned) => cleaned,
        (Err(failure), Ok(())) => Err(failure),
        (Err(failure), Err(cleaning)) => Err(failure.and(&cleaning)),
    };
    events.emit(EventKind::RunFinished {
        passed: as_expected && outcome.is_ok(),
        seconds: begun.elapsed().as_secs_f64(),
        error: outcome.as_ref().err().map(ToString::to_string),
    });
    let report = reporter.finish().map_err(Failure::lab)?;
    if keep && let Some(lines) = reach.lock().ok().and_then(|mut reach| reach.take()) {
        println!("\n{lines}");
    }
    Ok(match outcome {
        Err(failure) => failure.code(),
        Ok(()) if report.passed => exit::AS_EXPECTED,
        Ok(()) => exit::NOT_AS_EXPECTED,
    })
}
