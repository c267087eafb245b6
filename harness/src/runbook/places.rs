//! The lab as a runbook meets it: a workstation and nodes.

use super::{
    Place, Runbook,
    run::{Ended, Job, Places, Ran},
    variables,
    workstation::Workstation,
};
use crate::lab::{
    Lab, LabError,
    node::{Node, NodeError},
};

/// The name of the place where the on-call sits.
const WORKSTATION: &str = "workstation";

/// The places of a lab, with a workstation that is made anew: what another procedure left there must not help this one.
pub struct LabPlaces<'a> {
    lab: &'a Lab,
    workstation: Workstation,
}

impl<'a> LabPlaces<'a> {
    /// The places of `lab`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(lab: &'a Lab) -> Result<Self, LabError> {
        Ok(Self { lab, workstation: Workstation::new(&lab.dir, &lab.tools, &lab.chart)? })
    }
}

impl Places for LabPlaces<'_> {
    fn names(&self, on: Place) -> Vec<String> {
        match on {
            Place::Workstation => vec![WORKSTATION.to_owned()],
            place => nodes(self.lab, place).map(|node| node.name.clone()).collect(),
        }
    }

    fn begin(&self, runbook: &Runbook) -> Result<(), LabError> {
        let names = runbook.variables.iter().map(|(name, _)| name.as_str());
        self.workstation.begin(names)
    }

    async fn variables(&self) -> Result<Vec<(String, String)>, LabError> {
        let mut variables = variables::look_up(self.lab).await?;
        variables.push(("HARBOR_CHART".to_owned(), self.workstation.chart()));
        Ok(variables)
    }

    async fn run(&self, job: Job<'_>) -> Result<Ran, LabError> {
        match self.lab.nodes.iter().find(|node| node.name == job.place) {
            Some(node) => on_node(node, job).await,
            None => self.workstation.run(job).await,
        }
    }
}

/// The nodes that a place stands for.
pub(super) fn nodes(lab: &Lab, place: Place) -> impl Iterator<Item = &Node> {
    let gpu_node = lab.gpu_node.name();
    lab.nodes.iter().filter(move |node| match place {
        Place::Workstation => false,
        Place::EachNode => true,
        Place::Workers => !node.control_plane,
        Place::GpuNode => node.name == gpu_node,
    })
}

async fn on_node(node: &Node, job: Job<'_>) -> Result<Ran, LabError> {
    match node.exec(job.script, job.env, job.limit).await {
        Ok(done) => Ok(Ran { ended: Ended::Exit(done.code), output: done.output }),
        Err(NodeError::TimedOut { after, said, .. }) => Ok(Ran { ended: Ended::Stopped(after), output: said }),
        Err(error) => Err(error.into()),
    }
}
