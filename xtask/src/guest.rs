//! `--cluster`: a lab in a cluster that is there already. Nothing is changed there before its owner has named it.

use clap::Args;
use harness::{
    lab::{
        guest::{
            survey::{self, Before, Images, Seen},
            target::Target,
        },
        preflight::{Check, Outcome},
    },
    run::{events::Events, runner::Scenario},
    scenario::CellPlan,
};

use crate::exit::Failure;

#[derive(Args, Clone, Default)]
pub struct GuestArgs {
    /// Run in a cluster that is there already: a kubeconfig and one of its contexts; all that is changed there is put back
    #[arg(long, value_name = "KUBECONFIG:CONTEXT", conflicts_with_all = ["offline", "containerd_config"])]
    cluster: Option<String>,
    /// The context's name, from whoever knows that the run breaks that cluster for its time
    #[arg(long, value_name = "CONTEXT", requires = "cluster")]
    i_know_this_breaks: Option<String>,
}

impl GuestArgs {
    /// The cluster that is meant, if one is, and of `cells` those that can be undone there.
    ///
    /// # Errors
    /// It cannot be reached, its owner has not named it, or nothing that can be undone was selected.
    pub async fn target(
        &self,
        scenarios: &[Box<dyn Scenario>],
        selection: &[String],
        cells: Vec<CellPlan>,
    ) -> Result<(Option<Target>, Vec<CellPlan>), Failure> {
        let Some(argument) = &self.cluster else { return Ok((None, cells)) };
        let target = Target::read(argument).map_err(Failure::input)?;
        let cells = undoable(scenarios, selection, cells)?;
        if self.i_know_this_breaks.as_deref() != Some(&target.context) {
            return Err(self.refuse(&target).await);
        }
        Ok((Some(target), cells))
    }

    /// Why it is refused: what would happen to which cluster, and how to say that this is known.
    async fn refuse(&self, target: &Target) -> Failure {
        let told = match seen(target).await {
            Ok(seen) => match seen.judge(None) {
                (checks, Some(before)) => format!("{before}{}", failed(&checks, "\nBut not as it is: ")),
                (checks, None) => failed(&checks, "A lab cannot be there as it is: "),
            },
            Err(error) => format!("{} ({}): {error}", target.context, target.server),
        };
        let named = match &self.i_know_this_breaks {
            Some(other) => format!("--i-know-this-breaks names `{other}`, and --cluster `{}`", target.context),
            None => "--cluster alone changes nothing".to_owned(),
        };
        Failure::input(anyhow::anyhow!(
            "{told}\n{named}; who knows that this breaks the cluster for the time of the run adds --i-know-this-breaks {}",
            quoted(&target.context)
        ))
    }
}

/// The context as a word of a command line.
fn quoted(context: &str) -> String {
    let plain = context.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte));
    if plain { context.to_owned() } else { format!("'{}'", context.replace('\'', r"'\''")) }
}

/// The cells of variants that can be undone in a cluster that stays. Those of others are left out, and a selection that names one of
/// them is refused.
fn undoable(
    scenarios: &[Box<dyn Scenario>],
    selection: &[String],
    cells: Vec<CellPlan>,
) -> Result<Vec<CellPlan>, Failure> {
    let is = |cell: &CellPlan| {
        scenarios.iter().any(|it| it.spec().name == cell.scenario && it.spec().is_undoable(&cell.variant))
    };
    let (cells, others): (Vec<CellPlan>, Vec<CellPlan>) = cells.into_iter().partition(is);
    let mut variants: Vec<String> = others.iter().map(|cell| format!("{}/{}", cell.scenario, cell.variant)).collect();
    variants.dedup();
    let named = |variant: &&String| selection.iter().any(|it| it == *variant || it.starts_with(&format!("{variant}/")));
    if let Some(variant) = variants.iter().find(named) {
        let why = "cannot be undone in a cluster that stays, so it never runs there; leave --cluster out, and it runs in a lab";
        return Err(Failure::input(anyhow::anyhow!("{variant} {why}")));
    }
    if cells.is_empty() {
        let why = "nothing of what is selected can be undone in a cluster that stays";
        return Err(Failure::input(anyhow::anyhow!("{why}: {}", variants.join(", "))));
    }
    if !variants.is_empty() {
        eprintln!("left out, because it cannot be undone in a cluster that stays: {}", variants.join(", "));
    }
    Ok(cells)
}

async fn seen(target: &Target) -> Result<Seen, anyhow::Error> {
    Ok(survey::look(target, &target.client().await?).await?)
}

/// Looks at the cluster before anything is changed there.
///
/// # Errors
/// It cannot be reached, or a lab cannot be there.
pub async fn look(target: &Target, images: &Images, events: &Events) -> Result<Before, Failure> {
    let (mut checks, before) = seen(target).await.map_err(Failure::input)?.judge(Some(images));
    if let Some(before) = &before {
        checks.push(survey::reach(&before.address).await);
    }
    for check in checks.iter().filter(|check| check.outcome == Outcome::Warn) {
        events.note(format!("warning: {check}"));
    }
    let amiss = failed(&checks, "");
    match before {
        Some(before) if amiss.is_empty() => {
            events.note(format!("cluster: {before}"));
            Ok(before)
        }
        _ => Err(Failure::input(anyhow::anyhow!("look at {}: {amiss}; nothing was changed there", target.context))),
    }
}

/// The checks that failed, after `lead`; nothing when none did.
fn failed(checks: &[Check], lead: &str) -> String {
    let failed: Vec<String> =
        checks.iter().filter(|check| check.outcome == Outcome::Fail).map(ToString::to_string).collect();
    if failed.is_empty() { String::new() } else { format!("{lead}{}", failed.join("; ")) }
}
