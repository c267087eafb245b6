//! What a lab that failed says of itself, gathered before it is removed.

use std::{path::Path, time::Duration};

use futures::future::join_all;

use super::{node::Node, tool_env};
use crate::{cmd::Cmd, report::evidence::Phase, run::events::Step};

/// What `kubectl` is asked, and the file that keeps the answer.
const QUESTIONS: [(&str, &str); 5] = [
    ("pods.txt", "get pods -A -o wide"),
    ("events.txt", "get events -A --sort-by=.lastTimestamp"),
    ("volumes.txt", "get pv,pvc -A -o wide"),
    ("nodes.txt", "describe nodes"),
    ("harbor.log", "logs -n harbor -l app=harbor --all-containers --prefix --tail=200 --ignore-errors"),
];
const LIMIT: Duration = Duration::from_secs(20);

/// Asks the cluster of the lab in `dir`, and each of `nodes`, what they know, and keeps the answers as evidence. What does not
/// answer is said in its file: this never fails.
pub async fn gather(dir: &Path, nodes: &[Node], phase: &Phase, step: &Step) {
    let cluster =
        join_all(QUESTIONS.map(|(name, question)| async move { (name.to_owned(), ask(dir, question).await) }));
    let journals = join_all(nodes.iter().map(|node| async move {
        let script = "journalctl -u containerd -u kubelet -n 400 --no-pager -o short-precise";
        let said = match node.exec(script, &[], LIMIT).await {
            Ok(done) => done.output,
            Err(error) => error.to_string(),
        };
        (format!("{}.journal", node.name), said)
    }));
    let (cluster, journals) = tokio::join!(cluster, journals);
    for (name, text) in cluster.into_iter().chain(journals) {
        if let Err(error) = phase.text(step, &name, &text) {
            step.events().note(error.to_string());
        }
    }
}

async fn ask(dir: &Path, question: &str) -> String {
    let kubectl = Cmd::new(dir.join("bin/kubectl")).args(question.split(' ')).limit(LIMIT);
    match tool_env(dir).iter().fold(kubectl, |cmd, (name, value)| cmd.env(name, value)).output().await {
        Ok(output) => format!("{}{}", output.stdout, output.stderr),
        Err(error) => error.to_string(),
    }
}
