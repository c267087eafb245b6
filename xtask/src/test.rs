//! `cargo xtask test`: all tests, with the engine and the images that they need.

use std::process::Stdio;

use clap::Args;
use harness::{
    report::{ReportOptions, Reporter, TerminalMode},
    run::events::Events,
    source::{self, browser::BrowserError},
};

use crate::{
    LabArgs,
    exit::{self, Failure},
    session::{self, Session, Setup},
};

#[derive(Args)]
pub struct TestArgs {
    #[command(flatten)]
    lab: LabArgs,
    /// Arguments for `cargo test`
    #[arg(last = true)]
    cargo: Vec<String>,
}

pub async fn test(args: TestArgs) -> Result<u8, Failure> {
    let setup = Setup::read(&args.lab)?;
    let (events, receiver) = Events::channel();
    let reporter =
        Reporter::start(receiver, ReportOptions { dir: None, terminal: TerminalMode::Auto }).map_err(Failure::input)?;
    let session = Session::new(setup.clone(), events.clone());
    let work = {
        let (session, events) = (session.clone(), events.clone());
        async move {
            let engine = session.engine().await?;
            let image = source::stand_in_image_in_engine(
                &session::engine_ref(&engine),
                &crate::root(),
                &setup.paths,
                &setup.pins,
                &events,
            )
            .await
            .map_err(Failure::lab)?
            .ok_or_else(|| Failure::input(anyhow::anyhow!("fixtures/images/harbor is missing from this checkout")))?;
            let actionlint =
                source::actionlint(&crate::root(), &setup.paths, &setup.pins, &events).await.map_err(Failure::lab)?;
            let (chromium, axe) = browser(&setup, &events).await?;
            let network = session.test_network(&engine).await?;
            let host = engine.host().to_owned();
            drop(engine);
            let env = [
                ("DOCKER_HOST", host),
                ("DRYDOCK_STAND_IN_IMAGE", image),
                ("DRYDOCK_TEST_NETWORK", network),
                ("DRYDOCK_ACTIONLINT", actionlint.display().to_string()),
                ("DRYDOCK_CHROMIUM", chromium),
                ("DRYDOCK_AXE", axe),
            ];
            events.step("cargo test", async |_| run_tests(&args.cargo, &env).await).await
        }
    };
    let outcome = session::guarded(&events, work).await;
    let cleaned = session.end(false).await;
    drop(events);
    reporter.finish().map_err(Failure::lab)?;
    outcome.and(cleaned)?;
    Ok(exit::AS_EXPECTED)
}

/// The browser and axe-core's script, for the test of the report page; nothing for either where that test is to be left out.
async fn browser(setup: &Setup, events: &Events) -> Result<(String, String), Failure> {
    match source::browser::browser(setup.provision, &setup.paths, &setup.pins, events).await {
        Ok(browser) => Ok((browser.program.display().to_string(), browser.axe.display().to_string())),
        Err(missing @ BrowserError::Missing(_)) if !setup.provision => {
            events.note(format!("warning: the test in a browser is left out: {missing}"));
            Ok(Default::default())
        }
        Err(error) => Err(Failure::lab(error)),
    }
}

/// The tests' own lines go to this process's output as they come.
async fn run_tests(arguments: &[String], env: &[(&str, String)]) -> Result<(), Failure> {
    let status = tokio::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--workspace", "--locked"])
        .args(arguments)
        .current_dir(crate::root())
        .envs(env.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(Failure::lab)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::tests(anyhow::anyhow!("`cargo test --workspace` ended with {status}")))
}
