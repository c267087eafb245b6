//! `cargo xtask doctor`: can this machine run a lab?

use clap::Args;
use harness::{
    lab::{
        engine::Engine,
        preflight::{self, Check, Outcome, Wanted},
    },
    run::events::Events,
    source,
};

use crate::{
    LabArgs,
    exit::{self, Failure},
    plan::{Format, json},
    session::Setup,
};

#[derive(Args)]
pub struct DoctorArgs {
    /// Also look whether this port of 127.0.0.1 is free, for `up --port`
    #[arg(long)]
    port: Option<u16>,
    /// How it is told
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    lab: LabArgs,
}

pub async fn doctor(args: DoctorArgs) -> Result<u8, Failure> {
    let setup = Setup::read(&args.lab)?;
    let events = Events::discard();
    let engine = Engine::connect(&setup.connect(), &setup.paths, &events).await;
    let wanted =
        Wanted { cold: !setup.paths.artifacts().exists(), ports: args.port.into_iter().collect(), ..Wanted::default() };
    let mut checks = preflight::checks(engine.as_ref(), &setup.paths, &wanted).await;
    let chosen = source::choose(&setup.source, setup.site(&events)).await;
    checks.push(preflight::tools(chosen.kind, &setup.paths, &setup.pins).await);
    checks.push(Check {
        name: "source".to_owned(),
        outcome: Outcome::Ok,
        seen: format!("{}, because {}", chosen.kind, chosen.why),
        remedy: None,
    });
    match args.format {
        Format::Json => println!("{}", json(&checks)?),
        Format::Text => print!("{}", text(&checks)),
    }
    if let Ok(engine) = engine {
        engine.leave(&events).await.map_err(Failure::lab)?;
    }
    Ok(if preflight::refuse_on_failure(&checks).is_ok() { exit::AS_EXPECTED } else { exit::BAD_INPUT })
}

fn text(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let mark = match check.outcome {
            Outcome::Ok => "ok  ",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        let remedy = check.remedy.as_ref().map(|remedy| format!("      {remedy}\n")).unwrap_or_default();
        format!("{mark}  {}: {}\n{remedy}", check.name, check.seen)
    };
    let failed = checks.iter().filter(|check| check.outcome == Outcome::Fail).count();
    let end = match failed {
        0 => "this machine can run a lab".to_owned(),
        1 => "1 check failed: a lab cannot run here as things are".to_owned(),
        more => format!("{more} checks failed: a lab cannot run here as things are"),
    };
    checks.iter().map(line).chain([format!("\n{end}\n")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_stands_below_what_was_seen() {
        let check = |name: &str, outcome, remedy: Option<&str>| Check {
            name: name.to_owned(),
            outcome,
            seen: "1.0 GiB".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let checks = [
            check("free disk", Outcome::Fail, Some("free some")),
            check("watches", Outcome::Warn, Some("raise the limit")),
            check("memory", Outcome::Ok, None),
        ];
        insta::assert_snapshot!(format!("{}---\n{}---\n{}", text(&checks), text(&checks[1..]), json(&checks).unwrap()));
    }
}
