//! Commands on the nodes of a cluster that was there before: through a privileged pod on each node.
//!
//! What runs on a node may restart its containerd or its kubelet, and either ends the stream that the command came through. So a
//! command is a unit of the node's own systemd, which nothing of this ends, and leaves its output and its exit status in a
//! folder; the stream only waits for them, and is opened again when it breaks.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::json;

use crate::{
    cmd::{Bounded, Cmd, CmdError, quote},
    lab::{
        LabError,
        ledger::LAB_LABEL,
        node::{NodeError, NodeOutput, timed_out},
        tool_env,
    },
    observe::watch,
    run::{events::Step, poll::Look},
};

/// The namespace of the pods.
pub const NAMESPACE: &str = "drydock-node-access";
/// How units and folders of commands are called.
const JOB: &str = "drydock-job";
/// How long a node may be silent after a command should have ended: its kubelet or its containerd starts again.
const SILENT: Duration = Duration::from_secs(90);
/// How long what a command printed is still read after its time.
const REST: Duration = Duration::from_secs(15);
const NOTHING: &str = "nothing yet";
const AGAIN: Duration = Duration::from_millis(500);
const PODS_READY: Duration = Duration::from_secs(120);

/// The way onto one node.
#[derive(Debug, Clone)]
pub struct PodAccess {
    /// The node, and its pod, which is called the same.
    pub node: String,
    /// The lab's folder, with `kubectl` and the kubeconfig.
    pub lab: PathBuf,
}

/// Begins a command, or finds it begun, and waits for its end. `$1` is its unit, `$2` the length of the script that comes by
/// standard input. The last line says the unit and the exit status: without it the stream broke.
const RUN: &str = r#"
set -eu
dir=/run/drydock/$1
if [ ! -e "$dir/job" ]; then
  find /run/drydock -name code -mmin +5 -printf '%h\0' 2>/dev/null | xargs -0r rm -rf
  mkdir -p -m 700 /run/drydock "$dir"
  head -c "$2" > "$dir/part"
  [ "$(stat -c %s "$dir/part")" = "$2" ]
  mv "$dir/part" "$dir/job"
fi
if [ ! -e "$dir/out" ]; then
  systemd-run --quiet --collect --unit="$1" bash "$dir/job" "$dir" || [ -e "$dir/out" ]
fi
while [ ! -e "$dir/code" ]; do
  if ! systemctl is-active --quiet "$1" && sleep 1 && [ ! -e "$dir/code" ]; then
    echo "its unit $1 was stopped" >> "$dir/out"
    echo 143 > "$dir/code"
  fi
  sleep 0.05
done
cat "$dir/out"
printf '\n%s %s\n' "$1" "$(cat "$dir/code")"
"#;

/// Ends every command that still runs on the node.
const STOP: &str = r#"
systemctl stop --no-block 'drydock-job-*'
while systemctl list-units --plain --no-legend 'drydock-job-*' | grep -q .; do sleep 0.1; done
rm -rf /run/drydock
"#;

impl PodAccess {
    /// Runs a script with these variables, for no longer than `limit`, and tells how it ended.
    pub async fn run(&self, script: &str, env: &[(String, String)], limit: Duration) -> Result<NodeOutput, NodeError> {
        let unit = unit();
        let job = job(script, env, limit);
        let begun = Instant::now();
        let mut last = NOTHING.to_owned();
        let mut ticks = tokio::time::interval(AGAIN);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let left = (limit + SILENT).saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(NodeError::Silent {
                    node: self.node.clone(),
                    namespace: NAMESPACE,
                    after: begun.elapsed(),
                    said: last,
                });
            }
            // What a command leaves in the background keeps the stream open after its end.
            let own = (limit + REST).saturating_sub(begun.elapsed());
            let length = job.len().to_string();
            let asked = self
                .shell(RUN, &[&unit, &length], if own.is_zero() { left } else { own })
                .stdin(job.as_bytes())
                .output()
                .await;
            match asked {
                Ok(output) => match ended(&output.stdout, &unit) {
                    Some(done) => return Ok(done),
                    None => last = output.stderr.trim().to_owned(),
                },
                // After a broken stream it is not known whether the command or the node is slow.
                Err(CmdError::TimedOut { said, .. }) if last == NOTHING => {
                    return Err(timed_out(&self.node, begun.elapsed(), &said));
                }
                Err(CmdError::TimedOut { .. }) => {}
                Err(source) => return Err(NodeError::Cmd { node: self.node.clone(), source }),
            }
        }
    }

    /// Ends every command that still runs on the node.
    pub async fn stop_jobs(&self) -> Result<(), CmdError> {
        self.shell(STOP, &[], Duration::from_secs(60)).run().await.map(drop)
    }

    /// A shell in the node's own namespaces, which ends when the stream does.
    fn shell(&self, script: &str, args: &[&str], limit: Duration) -> Cmd {
        // `--` after nsenter's own options: what follows is the node's.
        let enter = ["busybox", "nsenter", "-t", "1", "-m", "-u", "-i", "-n", "-p", "--", "bash", "-c", script, "bash"];
        let cmd = Cmd::new(self.lab.join("bin/kubectl")).dir(&self.lab).limit(limit).clear_env();
        tool_env(&self.lab)
            .into_iter()
            .fold(cmd, |cmd, (name, value)| cmd.env(&name, value))
            .args(["exec", "-i", "-n", NAMESPACE, &self.node, "-c", "node", "--"])
            .args(enter)
            .args(args)
    }
}

/// The name of a unit, on any node by any process.
fn unit() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{JOB}-{}-{}-{number}", now.as_secs(), std::process::id())
}

/// What the unit runs, with its folder as `$1`. `timeout` ends the script's whole process group. It is a file: systemd would take
/// `${...}` on its command line for a variable of its own.
fn job(script: &str, env: &[(String, String)], limit: Duration) -> String {
    let seconds = limit.as_secs().max(1);
    let env = env.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect::<String>();
    format!(
        "cd /\nexport HOME=/root\n{env}timeout --kill-after=5 {seconds} bash -euo pipefail -c {} 2>&1 |\n  \
         {{ head -c 1000000; cat > /dev/null; }} > \"$1/out\"\n\
         echo \"${{PIPESTATUS[0]}}\" > \"$1/part\"\nmv \"$1/part\" \"$1/code\"\n",
        quote(script)
    )
}

/// What a command printed and how it ended, if its last line was read.
fn ended(output: &str, unit: &str) -> Option<NodeOutput> {
    let (printed, last) = output.trim_end_matches('\n').rsplit_once('\n')?;
    let code = last.strip_prefix(unit)?.trim().parse().ok()?;
    let mut kept = Bounded::default();
    kept.add(printed.as_bytes());
    Some(NodeOutput { code, output: kept.text() })
}

/// Makes the namespace and a pod on each of `nodes`, and waits until they run. The namespace is the lab's alone: of two that come at
/// once one fails here, before it has changed anything.
pub(super) async fn open(
    client: &kube::Client,
    lab: &str,
    nodes: &[String],
    image: &str,
    step: &Step,
) -> Result<(), LabError> {
    let labels = [(LAB_LABEL, lab), ("pod-security.kubernetes.io/enforce", "privileged")];
    make_namespace(client, lab, NAMESPACE, &labels).await?;
    // A pod is refused before its namespace has this.
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
    watch::until(
        step,
        "the namespace's service account",
        PODS_READY,
        accounts,
        watcher::Config::default(),
        |accounts| {
            Ok(if accounts.contains_key("default") { Look::Ready(()) } else { Look::NotYet("not there".to_owned()) })
        },
    )
    .await?;
    let apply = PatchParams::apply("drydock").force();
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    for node in nodes {
        pods.patch(node, &apply, &Patch::Apply(pod(node, lab, image)))
            .await
            .map_err(LabError::kube(format!("make the pod {NAMESPACE}/{node}")))?;
    }
    watch::until(step, "a pod on every node", PODS_READY, pods, watcher::Config::default(), |pods| {
        let open: Vec<String> =
            nodes.iter().filter_map(|node| Some(format!("{node} {}", amiss(pods.get(node))?))).collect();
        Ok(if open.is_empty() { Look::Ready(()) } else { Look::NotYet(open.join(", ")) })
    })
    .await?;
    Ok(())
}

/// Makes a namespace, unless this lab has.
pub(super) async fn make_namespace(
    client: &kube::Client,
    lab: &str,
    name: &str,
    labels: &[(&str, &str)],
) -> Result<(), LabError> {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    let api = Api::<Namespace>::all(client.clone());
    match api.create(&PostParams::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let found = api.get(name).await.map_err(LabError::kube(format!("tell whose namespace {name} is")))?;
            match found.labels().get(LAB_LABEL) {
                Some(of) if of == lab => Ok(()),
                _ => Err(LabError::NotInOrder(format!(
                    "somebody has made the namespace {name} since the cluster was looked at"
                ))),
            }
        }
        Err(source) => Err(LabError::Kube { doing: format!("make the namespace {name}"), source }),
    }
}

/// Why a pod does not run yet.
fn amiss(pod: Option<&Pod>) -> Option<String> {
    let status = pod.and_then(|pod| pod.status.clone()).unwrap_or_default();
    if status.phase.as_deref() == Some("Running") {
        return None;
    }
    let waiting = status.container_statuses.into_iter().flatten().find_map(|container| container.state?.waiting);
    let why = waiting
        .map(|waiting| format!("{} {}", waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()));
    Some(why.unwrap_or_else(|| status.phase.unwrap_or_else(|| "has none".to_owned())))
}

/// It asks no scheduler, tolerates every taint, needs no pod network, and sees the node's processes.
fn pod(node: &str, lab: &str, image: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": node, "namespace": NAMESPACE, "labels": {LAB_LABEL: lab}},
        "spec": {
            "nodeName": node,
            "hostPID": true,
            "hostNetwork": true,
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "node",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "while :; do sleep 3600; done"],
                "securityContext": {"privileged": true},
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_command_has_ended_only_when_its_last_line_was_read() {
        let done = ended("a\nb\n\ndrydock-job-1 7\n", "drydock-job-1").unwrap();
        assert_eq!(done, NodeOutput { code: 7, output: "a\nb\n".into() });
        assert_eq!(ended("\ndrydock-job-1 0\n", "drydock-job-1").unwrap().output, "");
        for broken in ["", "a\nb\n", "a\ndrydock-job-2 0\n", "a\ndrydock-job-1\n"] {
            assert_eq!(ended(broken, "drydock-job-1"), None, "{broken}");
        }
    }

    #[test]
    fn a_job_has_its_variables_stops_at_its_first_failure_and_ends_in_time() {
        let run = |script: &str, limit| {
            let env = [("A".to_owned(), "it's\n$two `lines`".to_owned())];
            let dir = tempfile::tempdir().unwrap();
            let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
            let job = job(script, &env, limit);
            let ran = Command::new("bash").args(["-c", &job, "job"]).arg(dir.path()).status().unwrap();
            assert!(ran.success());
            (read("code").trim().parse().ok(), read("out"))
        };
        let minute = Duration::from_secs(60);
        assert_eq!(run("echo \"$A\"", minute), (Some(0), "it's\n$two `lines`\n".into()));
        assert_eq!(run("false; echo 'not here'", minute), (Some(1), String::new()));
        assert_eq!(run("sleep 30", Duration::from_secs(1)), (Some(124), String::new()));
    }
}
