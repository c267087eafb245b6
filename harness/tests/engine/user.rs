//! Uses the private engine of the cache folder that it is given, until its standard input ends; given a name too, it makes a
//! lab of that name from the image `tool`. Tests kill it.

use std::{collections::HashMap, error::Error, process::ExitCode};

use harness::{
    lab::{
        engine::{ConnectOptions, Engine, oci_runtime},
        gc::KIND_LABEL,
        ledger::{LAB_LABEL, Ledger, NewLab, Thing},
    },
    paths::Paths,
    run::events::Events,
};
use tokio::io::AsyncReadExt;

fn main() -> ExitCode {
    if oci_runtime::is_called() {
        return oci_runtime::main();
    }
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<(), Box<dyn Error>> {
    let cache = std::env::args_os().nth(1).ok_or("usage: engine-user CACHE")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let options = ConnectOptions { provision: true, ..ConnectOptions::default() };
        let events = Events::discard();
        let paths = Paths::at(cache);
        let engine = Engine::connect(&options, &paths, &events).await?;
        let _lab = match std::env::args().nth(2) {
            Some(lab) => Some(make_lab(&engine, &paths, &lab).await?),
            None => None,
        };
        println!("{}", engine.host());
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        Ok(engine.leave(&events).await?)
    })
}

/// A lab as far as its things go: a network, a container on it as kind's nodes are, one of our own, a volume, a folder.
async fn make_lab(engine: &Engine, paths: &Paths, lab: &str) -> Result<Ledger, Box<dyn Error>> {
    let name = format!("drydock-{lab}");
    let new = NewLab {
        lab: lab.to_owned(),
        cluster: name.clone(),
        docker_host: engine.host().to_owned(),
        network: name.clone(),
        keep: false,
    };
    let mut ledger = Ledger::create(paths, new)?;
    let folder = paths.cache().join("work");
    ledger.add(Thing::Folder { path: folder.clone() })?;
    std::fs::create_dir_all(folder.join("deep"))?;
    ledger.add(Thing::Network { name: name.clone() })?;
    engine.create_network(&name, HashMap::from([(LAB_LABEL.to_owned(), lab.to_owned())])).await?;
    ledger.add(Thing::Volume { name: name.clone() })?;
    engine.cmd("docker").args(["volume", "create", &name]).run().await?;
    ledger.add(Thing::Cluster { name: name.clone() })?;
    let node = format!("{KIND_LABEL}={name}");
    for (container, label) in [("node", node), ("helper", format!("{LAB_LABEL}={lab}"))] {
        let container = format!("{name}-{container}");
        let run = engine.cmd("docker").args(["run", "--detach", "--privileged", "--network", &name]);
        let volume = format!("{name}:/data");
        run.args(["--name", &container, "--label", &label, "--volume", &volume, "tool", "/tool"]).run().await?;
    }
    Ok(ledger)
}
