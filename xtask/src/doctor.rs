//! `cargo xtask doctor`: can this machine run a lab?

use clap::Args;
use harness::{
    lab::{
        engine::Engine,
        preflight::{self, Outcome, Wanted},
    },
    run::events::Events,
    source,
};

use crate::{
    LabArgs,
    exit::{self, Failure},
    session::Setup,
};

#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    lab: LabArgs,
}

pub async fn doctor(args: DoctorArgs) -> Result<u8, Failure> {
    let setup = Setup::read(&args.lab)?;
    let events = Events::discard();
    let engine = Engine::connect(&setup.connect(), &setup.paths, &events).await;
    let wanted = Wanted { cold: !setup.paths.artifacts().exists(), ..Wanted::default() };
    let checks = preflight::checks(engine.as_ref(), &setup.paths, &wanted).await;
    for check in &checks {
        let mark = match check.outcome {
            Outcome::Ok => "ok  ",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        println!("{mark}  {check}");
    }
    let chosen = source::choose(&setup.source, setup.site(&Events::discard())).await;
    println!("ok    source: {}, because {}", chosen.kind, chosen.why);
    if let Ok(engine) = engine {
        engine.leave(&events).await.map_err(Failure::lab)?;
    }
    Ok(if preflight::refuse_on_failure(&checks).is_ok() { exit::AS_EXPECTED } else { exit::BAD_INPUT })
}
