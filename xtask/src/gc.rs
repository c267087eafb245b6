//! `cargo xtask gc`: remove what dead runs have left.

use clap::Args;
use harness::{
    lab::{
        engine::ConnectOptions,
        gc::{self, GcOptions},
    },
    paths::Paths,
    run::events::Events,
};

use crate::exit::{self, Failure};

#[derive(Args)]
pub struct GcArgs {
    /// Also labs that `up` made or a run kept, and labs in use
    #[arg(long)]
    all: bool,
}

pub async fn gc(args: GcArgs) -> Result<u8, Failure> {
    let paths = Paths::from_env().map_err(Failure::input)?;
    let options = GcOptions { all: args.all, connect: ConnectOptions::from_env(false) };
    let report = gc::gc(&paths, &options, &Events::discard()).await.map_err(Failure::lab)?;
    println!("{report}");
    Ok(if report.left.is_empty() { exit::AS_EXPECTED } else { exit::LAB_BROKEN })
}
