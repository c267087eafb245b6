//! Uses the private engine of the cache folder that it is given, until its standard input ends. Tests kill it.

use std::{error::Error, process::ExitCode};

use harness::{
    lab::engine::{ConnectOptions, Engine, oci_runtime},
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
        let options = ConnectOptions { provision: true, candidates: Vec::new(), runtime: None };
        let events = Events::discard();
        let engine = Engine::connect(&options, &Paths::at(cache), &events).await?;
        println!("{}", engine.host());
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        Ok(engine.leave(&events).await?)
    })
}
