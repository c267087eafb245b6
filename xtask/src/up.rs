//! `cargo xtask up` and `down`: a lab to play in.

use std::sync::{Arc, Mutex};

use clap::Args;
use harness::{
    lab::{
        engine::{ConnectOptions, Engine},
        gc,
        ledger::Ledger,
    },
    paths::Paths,
    report::{ReportOptions, Reporter, TerminalMode},
    run::events::{EventKind, Events},
};

use crate::{
    LabArgs,
    exit::{self, Failure},
    session::{self, LabWish, Session, Setup},
};

#[derive(Args)]
pub struct UpArgs {
    /// The lab's name
    #[arg(default_value = "drydock")]
    name: String,
    /// Also publish Harbor on this port of 127.0.0.1
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    lab: LabArgs,
}

pub async fn up(args: UpArgs) -> Result<u8, Failure> {
    let setup = Setup::read(&args.lab)?;
    let (events, receiver) = Events::channel();
    let reporter =
        Reporter::start(receiver, ReportOptions { dir: None, terminal: TerminalMode::Auto }).map_err(Failure::input)?;
    let session = Session::new(setup, events.clone());
    let reach = Arc::new(Mutex::new(None));
    let work = {
        let (session, reach) = (session.clone(), reach.clone());
        async move {
            let (lab, facts) = session.lab(&LabWish { id: args.name, port: args.port, at_once: 1 }).await?;
            if let Ok(mut reach) = reach.lock() {
                *reach = Some(session::how_to_reach(&lab, &facts));
            }
            Ok(())
        }
    };
    let outcome = session::guarded(&events, work).await;
    let cleaned = session.end(outcome.is_ok()).await;
    let outcome = outcome.and(cleaned);
    drop(events);
    reporter.finish().map_err(Failure::lab)?;
    outcome?;
    if let Some(lines) = reach.lock().ok().and_then(|mut reach| reach.take()) {
        println!("{lines}");
    }
    Ok(exit::AS_EXPECTED)
}

#[derive(Args)]
pub struct DownArgs {
    /// The lab's name
    #[arg(default_value = "drydock")]
    name: String,
}

pub async fn down(args: DownArgs) -> Result<u8, Failure> {
    let paths = Paths::from_env().map_err(Failure::input)?;
    let ledger = Ledger::open(&paths, &args.name).map_err(Failure::input)?;
    let (events, receiver) = Events::channel();
    let reporter =
        Reporter::start(receiver, ReportOptions { dir: None, terminal: TerminalMode::Auto }).map_err(Failure::input)?;
    let engine = Engine::attach(&ledger.record().docker_host, &ConnectOptions::from_env(false), &paths, &events)
        .await
        .map_err(Failure::lab)?;
    let report = gc::remove_lab(&engine, &paths, ledger, &events).await;
    let left = engine.leave(&events).await;
    events.emit(EventKind::Note { text: report.to_string() });
    drop(events);
    reporter.finish().map_err(Failure::lab)?;
    left.map_err(Failure::lab)?;
    Ok(if report.left.is_empty() { exit::AS_EXPECTED } else { exit::LAB_BROKEN })
}
