//! `cargo xtask bench`: how long the phases take.

use std::{
    collections::HashMap,
    sync::{Mutex, mpsc::Receiver},
};

use clap::Args;
use harness::{
    cmd::Cmd,
    harbor::inventory::Inventory,
    lab::{Lab, LabError},
    report::evidence::Evidence,
    run::{
        events::{Event, EventKind, Events, StepId},
        runner::Runner,
    },
    runbook::{self, parse::parse, places::LabPlaces},
    scenario::CellPlan,
    selection,
};

use crate::{
    LabArgs, e2e,
    exit::{self, Failure},
    session::{self, LabWish, Session, Setup},
};

#[derive(Args)]
pub struct BenchArgs {
    /// Cells to run in each lab, as for `e2e`; none runs only the lab
    selection: Vec<String>,
    /// How many labs to make, one after the other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    #[command(flatten)]
    lab: LabArgs,
}

pub async fn bench(args: BenchArgs) -> Result<u8, Failure> {
    let known: Vec<CellPlan> = e2e::scenarios()?.0.iter().flat_map(|scenario| scenario.spec().cells()).collect();
    let cells = match args.selection.as_slice() {
        [] => Vec::new(),
        some => selection::select(&known, some, false).map_err(Failure::input)?,
    };
    let setup = Setup::read(&args.lab)?;
    let (events, receiver) = Events::channel();
    let collector = std::thread::spawn(move || collect(&receiver));
    let session = Session::new(setup, events.clone());
    let work = {
        let (session, events) = (session.clone(), events.clone());
        async move {
            for run in 1..=args.runs {
                eprintln!("lab {run} of {}", args.runs);
                let wish = LabWish { id: session::new_id(), port: None, at_once: 1 };
                let (lab, _) = session.lab(&wish).await?;
                if !cells.is_empty() {
                    let (results, evidence) = (Mutex::default(), Evidence::new(None).map_err(Failure::lab)?);
                    let (scenarios, library) = e2e::scenarios()?;
                    let (lab, scenarios, library, events) = (&lab, &scenarios, &library, &events);
                    let mut runner =
                        Runner { lab, scenarios, library, events, evidence: &evidence, results: &results, last: None };
                    runner.run(&cells).await.map_err(Failure::lab)?;
                }
                run_blocks(&lab, &events).await?;
                take_inventory(&lab, &events).await?;
                drop(lab);
                session.remove_lab().await?;
            }
            Ok(())
        }
    };
    let outcome = session::guarded(&events, work).await;
    let cleaned = session.end(false).await;
    events.emit(EventKind::RunFinished { passed: outcome.is_ok(), seconds: 0.0, error: None });
    let phases = collector.join().unwrap_or_default();
    outcome.and(cleaned)?;
    print(&phases, args.runs);
    Ok(exit::AS_EXPECTED)
}

/// How many blocks are run to measure one, and how large a runbook is read, in bytes.
const BLOCKS: usize = 20;
const READ: usize = 1_000_000;

/// Reads a large runbook, and runs blocks that do nothing beside the same commands without Drydock.
async fn run_blocks(lab: &Lab, events: &Events) -> Result<(), Failure> {
    let block =
        "## A step of some length\n\nProse about it.\n\n```sh timeout=2m\nkubectl get pods -n harbor > pods\n```\n\n";
    let large = block.repeat(READ / block.len());
    events
        .step(format!("read a runbook of {} kB", large.len() / 1000), |_| async { parse("large.md", &large) })
        .await
        .map_err(Failure::lab)?;
    let nothing = parse("nothing.md", "## Nothing\n```sh\ntrue\n```\n").map_err(Failure::lab)?;
    let places = LabPlaces::new(lab).map_err(Failure::lab)?;
    for _ in 0..BLOCKS {
        events
            .step("run `true` as a runbook's block", |step| {
                let (nothing, places) = (&nothing, &places);
                async move { runbook::run::run(&[nothing], places, &step).await }
            })
            .await
            .map_err(Failure::lab)?;
        let plain = Cmd::new("bash").args(["-euo", "pipefail", "-c", "true"]);
        events.step("run `true` by bash alone", |_| async { plain.run().await }).await.map_err(Failure::lab)?;
    }
    Ok(())
}

/// How often the inventory is taken to measure it.
const INVENTORIES: usize = 10;

/// Takes the inventory, as every look at a lab does.
async fn take_inventory(lab: &Lab, events: &Events) -> Result<(), Failure> {
    for _ in 0..INVENTORIES {
        let take = |_| async {
            match lab.reference.diff(&Inventory::take(lab).await).losses() {
                None => Ok(()),
                Some(losses) => Err(LabError::NotInOrder(losses)),
            }
        };
        events.step("take the inventory", take).await.map_err(Failure::lab)?;
    }
    Ok(())
}

/// Each phase's name with its parents' and its times in seconds, in the order in which phases first ended.
type Phases = Vec<(String, Vec<f64>)>;

/// Reads events until the run's end: what waits for signals keeps the stream open for longer.
fn collect(receiver: &Receiver<Event>) -> Phases {
    let mut names: HashMap<StepId, String> = HashMap::new();
    let mut phases = Phases::new();
    for event in receiver {
        match event.kind {
            EventKind::StepStarted { step, parent, name, .. } => {
                let name = match parent.and_then(|parent| names.get(&parent)) {
                    Some(parent) => format!("{parent} > {name}"),
                    None => name,
                };
                names.insert(step, name);
            }
            EventKind::StepFinished { step, seconds, .. } => {
                let Some(name) = names.get(&step) else { continue };
                match phases.iter_mut().find(|(known, _)| known == name) {
                    Some((_, times)) => times.push(seconds),
                    None => phases.push((name.clone(), vec![seconds])),
                }
            }
            EventKind::Note { text } => eprintln!("{text}"),
            EventKind::RunFinished { .. } => break,
            _ => {}
        }
    }
    phases
}

fn print(phases: &Phases, runs: u8) {
    println!("{runs} runs; seconds: median, least, most, number of times");
    for (name, times) in phases {
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (times.first(), times.last()) else { continue };
        println!("{:9.3} {least:9.3} {most:9.3} {:4}  {}", median(&times), times.len(), name.replace('\n', " "));
    }
    if let Some(peak) = peak_memory() {
        println!("peak memory of this process: {peak} MiB");
    }
}

/// The median of sorted numbers; 0 of none.
fn median(sorted: &[f64]) -> f64 {
    match sorted {
        [] => 0.0,
        some if some.len() % 2 == 1 => some[some.len() / 2],
        some => f64::midpoint(some[some.len() / 2 - 1], some[some.len() / 2]),
    }
}

/// `VmHWM` of `/proc/self/status`, in MiB.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[tokio::test]
    async fn a_phase_is_named_with_its_parents_and_the_run_s_end_ends_the_reading() {
        let (events, receiver) = Events::channel();
        for _ in 0..2 {
            let _: Result<(), String> = events
                .step("lab", |step| async move { step.events().step("cluster", |_| async { Ok(()) }).await })
                .await;
        }
        events.emit(EventKind::RunFinished { passed: true, seconds: 0.0, error: None });
        let phases = collect(&receiver);
        let seen: Vec<_> = phases.iter().map(|(name, times)| (name.as_str(), times.len())).collect();
        assert_eq!(seen, [("lab > cluster", 2), ("lab", 2)]);
    }
}
