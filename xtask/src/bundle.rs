//! `cargo xtask bundle`: one file with all that a run needs.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::{Args, Subcommand};
use harness::{
    paths::Paths,
    report::{ReportOptions, Reporter, TerminalMode},
    run::events::Events,
    source::{self, SourceChoice, bundle},
};

use crate::{
    LabArgs,
    exit::{self, Failure},
    session::{self, Setup},
};

#[derive(Subcommand)]
pub enum BundleCommand {
    /// Make a bundle from another source
    Create(CreateArgs),
    /// Read a bundle through and say what is in it
    Show(ShowArgs),
}

#[derive(Args)]
pub struct CreateArgs {
    /// The file to make
    #[arg(short, long, value_name = "FILE", default_value = "drydock.tar.zst")]
    output: PathBuf,
    #[command(flatten)]
    lab: LabArgs,
}

#[derive(Args)]
pub struct ShowArgs {
    /// The bundle
    file: PathBuf,
}

pub async fn bundle(command: BundleCommand) -> Result<u8, Failure> {
    let (events, receiver) = Events::channel();
    let options = ReportOptions { dir: None, terminal: TerminalMode::Auto };
    let reporter = Reporter::start(receiver, options).map_err(Failure::input)?;
    let told = events.clone();
    let (sender, said) = tokio::sync::oneshot::channel();
    let outcome = session::guarded(&events, async move {
        let lines = match command {
            BundleCommand::Create(args) => create(&args, &told).await,
            BundleCommand::Show(args) => show(&args, &told).await,
        }?;
        // The receiver is held until this is done.
        let _ = sender.send(lines);
        Ok(())
    })
    .await;
    drop(events);
    reporter.finish().map_err(Failure::lab)?;
    outcome?;
    if let Ok(lines) = said.await {
        println!("{lines}");
    }
    Ok(exit::AS_EXPECTED)
}

async fn create(args: &CreateArgs, events: &Events) -> Result<String, Failure> {
    let setup = Setup::read(&args.lab)?;
    if matches!(setup.source, SourceChoice::Bundle { .. }) {
        return Err(Failure::input(anyhow::anyhow!("a bundle is made from `--source upstream` or `packages`")));
    }
    let out = args.output.clone();
    if out.exists() {
        return Err(Failure::input(bundle::BundleError::Exists { path: out }));
    }
    let ingredients = source::ingredients(&setup.source, setup.site(events)).await.map_err(session::refused)?;
    let written = events.step(format!("write {}", out.display()), |_| async {
        let out = out.clone();
        // A thread does not end with the work that waits for it.
        let unwanted = Arc::new(AtomicBool::new(false));
        let _until_then = SetOnDrop(unwanted.clone());
        let write = tokio::task::spawn_blocking(move || bundle::create(&ingredients, &out, &unwanted));
        write.await.map_err(Failure::lab)?.map_err(Failure::lab)
    });
    let (size, sha256) = written.await?;
    Ok(format!("{sha256}  {}\n{:.0} MB; `cargo xtask e2e --bundle {0}` runs from it", out.display(), size as f64 / 1e6))
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn show(args: &ShowArgs, events: &Events) -> Result<String, Failure> {
    let paths = Paths::from_env().map_err(Failure::input)?;
    let bundle = bundle::Bundle::open(&args.file, &paths, events).await.map_err(Failure::input)?;
    let description = bundle.description();
    let lab = &description.lab;
    let mut lines = vec![
        format!("sha256        {}", bundle.sha256()),
        format!("architecture  {}", description.architecture),
        format!("Kubernetes    {}", lab.kubernetes),
        format!("Harbor        {}", lab.harbor.kind),
        format!("node image    {}", description.node),
    ];
    lines.extend(description.versions.iter().map(|(name, version)| format!("version       {name} {version}")));
    lines.extend(bundle.image_names().map_err(Failure::input)?.into_iter().map(|name| format!("image         {name}")));
    Ok(lines.join("\n"))
}
