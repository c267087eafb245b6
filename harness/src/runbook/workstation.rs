//! The workstation of a runbook: a shell in a work folder of its own, whose tools reach the lab and nothing else.
//!
//! Each block is a shell process of its own, so that one ends with its time; what a terminal would keep from one block to the next
//! (variables, functions, the folder) is kept, and so are processes that a block leaves in the background, until the runbook's end.

use std::{
    os::{fd::OwnedFd, unix::fs::PermissionsExt, unix::fs::symlink, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::Pid;
use tokio::{io::AsyncReadExt, net::unix::pipe, process::Command, task::JoinHandle};

use super::{
    run::{Ended, Job, Ran},
    variables,
};
use crate::{
    cmd::{Bounded, GroupGuard, quote},
    lab::{BACKUP, IMAGES, KUBECONFIG, LabError, WORK, tool_env},
};

/// How long what was printed is still read after the shell has ended: a process in the background may hold the pipe for ever.
const REST: Duration = Duration::from_millis(300);
/// Programs that lead out of the lab: to this machine itself, which a block that was meant for nodes would change; to other
/// machines; to other users' homes, engines and clusters.
pub(super) const ELSEWHERE: [&str; 29] = [
    "ssh",
    "scp",
    "sftp",
    "rsync",
    "docker",
    "podman",
    "nerdctl",
    "kind",
    "minikube",
    "su",
    "runuser",
    "doas",
    "machinectl",
    "systemctl",
    "service",
    "journalctl",
    "ctr",
    "crictl",
    "kubeadm",
    "kubelet",
    "k3s",
    "microk8s",
    "nsenter",
    "chroot",
    "update-ca-certificates",
    "update-ca-trust",
    "reboot",
    "shutdown",
    "poweroff",
];
/// Marks every process that a runbook starts on the workstation, whatever process group it goes to.
pub(super) const MARK: &str = "DRYDOCK_RUNBOOK";
/// Variables that a shell has of its own.
const SHELLS_OWN: &str = "BASH|BASHOPTS|BASHPID|BASH_*|COMP_WORDBREAKS|DIRSTACK|EPOCHREALTIME|EPOCHSECONDS|EUID|FUNCNAME|\
                          GROUPS|HISTCMD|HOSTTYPE|LINENO|MACHTYPE|OPTARG|OPTERR|OPTIND|OSTYPE|PIPESTATUS|PPID|PS4|PWD|\
                          OLDPWD|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|TERM|UID|_";

/// A shell's place.
pub(super) struct Workstation {
    /// Where commands run.
    work: PathBuf,
    /// The lab's kubeconfig.
    kubeconfig: PathBuf,
    /// What lies beside it: the home, and what keeps the shell's state.
    own: PathBuf,
    env: Vec<(String, String)>,
    /// What still reads the output of processes that a block has left running.
    background: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Workstation {
    fn drop(&mut self) {
        self.end_all();
    }
}

impl Workstation {
    /// In the folder of a lab, an empty work folder with the values that Harbor was installed with, and the images as their build machine has them;
    /// and an empty home. The chart lies at `harbor/harbor`, as documents call it: Helm takes a path before it asks a repository.
    pub fn new(lab: &Path, tools: &Path, chart: &Path) -> Result<Self, LabError> {
        let there = Self::there(lab, tools);
        let (work, own) = (&there.work, &there.own);
        make_anew(work)?;
        make_anew(own)?;
        let write = |path: PathBuf, doing, done: std::io::Result<()>| {
            done.map_err(|source| LabError::File { doing, path, source })
        };
        let values = lab.join("values.yaml");
        write(values.clone(), "copy", std::fs::copy(&values, work.join("values.yaml")).map(drop))?;
        // Empty until a fault has left something there.
        write(lab.join(BACKUP), "make", std::fs::create_dir_all(lab.join(BACKUP)))?;
        for name in [IMAGES, BACKUP] {
            write(lab.join(name), "link to", symlink(lab.join(name), work.join(name)))?;
        }
        // A copy: who changes it changes neither other labs' nor the original.
        let place = work.join("harbor");
        write(
            place.clone(),
            "copy the chart to",
            std::fs::create_dir(&place).and_then(|()| copy(chart, &place.join("harbor"))),
        )?;
        for folder in ["home/.kube", "home/.docker", "tmp", "bin"] {
            write(own.join(folder), "make", std::fs::create_dir_all(own.join(folder)))?;
        }
        let elsewhere = ELSEWHERE.map(|name| (name, include_str!("elsewhere.sh")));
        for (name, script) in [("sudo", include_str!("sudo.sh"))].into_iter().chain(elsewhere) {
            let path = own.join("bin").join(name);
            write(path.clone(), "write", write_program(&path, script))?;
        }
        Ok(there)
    }

    /// The one that is there already.
    pub fn there(lab: &Path, tools: &Path) -> Self {
        let own = lab.join("shell");
        let mut env = tool_env(lab);
        env.extend(own_env(&own, tools));
        Self { work: lab.join(WORK), kubeconfig: lab.join(KUBECONFIG), own, env, background: Mutex::default() }
    }

    /// Where commands run.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// A folder of the workstation's own, beside the work folder.
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// What every command has in its environment.
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// Adds a program, in the place of one of its name.
    pub fn add_program(&self, name: &str, script: &str) -> Result<(), LabError> {
        let path = self.own.join("bin").join(name);
        write_program(&path, script).map_err(|source| LabError::File { doing: "write", path, source })
    }

    /// Lays the kubeconfig anew: some tools write themselves into it.
    pub fn lay_kubeconfig(&self) -> Result<(), LabError> {
        let config = self.own.join("home/.kube/config");
        let copied = std::fs::copy(&self.kubeconfig, &config);
        copied.map(drop).map_err(|source| LabError::File { doing: "copy the kubeconfig to", path: config, source })
    }

    /// A new shell: without the state of an earlier one and without what it left running. `names` are variables that are set
    /// anew for each block, beside Drydock's own.
    pub fn begin<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), LabError> {
        self.end_all();
        let failed = |path: PathBuf| move |source| LabError::File { doing: "write", path, source };
        let state = self.own.join("state");
        std::fs::write(&state, "").map_err(failed(state.clone()))?;
        let path = self.prelude();
        std::fs::write(&path, prelude(&state, names)).map_err(failed(path.clone()))
    }

    /// Ends every process that the runbook has started and that lives. `timeout`, `setsid` and job control leave the process
    /// group of their block, so they are known by their environment.
    pub fn end_all(&self) {
        for reader in self.background.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            reader.abort();
        }
        let mark = format!("{MARK}={}", self.own.display());
        // One that was just starting another may have been missed.
        for _ in 0..5 {
            let mut left = marked(&mark).peekable();
            if left.peek().is_none() {
                return;
            }
            left.for_each(|pid| {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            });
        }
    }

    /// The chart, as an absolute path.
    pub fn chart(&self) -> String {
        chart(&self.work)
    }

    fn prelude(&self) -> PathBuf {
        self.own.join("prelude")
    }

    /// Runs a script in the work folder, or where the block before has gone.
    pub async fn run(&self, job: Job<'_>) -> Result<Ran, LabError> {
        let failed = |source| LabError::File { doing: "start bash in", path: self.work.clone(), source };
        self.lay_kubeconfig()?;
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", job.script])
            .current_dir(&self.work)
            .env_clear()
            .envs(self.env.iter().chain(job.env).map(|(name, value)| (name, value)))
            .env("BASH_ENV", self.prelude())
            .env(MARK, &self.own)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer)
            .process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        // It holds the writing end, without which the pipe would never end.
        drop(command);
        let group = child.id().map(GroupGuard);
        let output = Arc::new(Mutex::new(Bounded::default()));
        let mut reading =
            tokio::spawn(read(pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(failed)?, output.clone()));
        let ended = match tokio::time::timeout(job.limit, child.wait()).await {
            Ok(status) => {
                let status = status.map_err(failed)?;
                if let Some(group) = group {
                    group.keep();
                }
                if tokio::time::timeout(REST, &mut reading).await.is_err() {
                    self.background.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
                }
                match (status.code(), status.signal()) {
                    (Some(code), _) => Ended::Exit(code.into()),
                    (None, signal) => Ended::Signal(signal.unwrap_or_default()),
                }
            }
            Err(_) => {
                drop(group);
                reading.abort();
                self.end_all();
                Ended::Stopped(job.limit)
            }
        };
        let output = output.lock().unwrap_or_else(PoisonError::into_inner).text();
        Ok(Ran { ended, output })
    }
}

/// The chart in a work folder, as an absolute path.
pub(super) fn chart(work: &Path) -> String {
    work.join("harbor/harbor").display().to_string()
}

/// What is the workstation's own in the environment. Nothing of the user's is: a variable there may lead to another cluster.
fn own_env(own: &Path, tools: &Path) -> Vec<(String, String)> {
    let at = |name: &str| own.join(name).to_string_lossy().into_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    [
        ("HOME", at("home")),
        ("KUBECONFIG", at("home/.kube/config")),
        ("DOCKER_CONFIG", at("home/.docker")),
        ("TMPDIR", at("tmp")),
        ("LANG", "C.UTF-8".to_owned()),
        ("TERM", "dumb".to_owned()),
        ("PATH", format!("{}:{}:{path}", at("bin"), tools.display())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// What bash reads before a block: the state that the block before has left, and how to leave it to the next.
fn prelude<'n>(state: &Path, names: impl Iterator<Item = &'n str>) -> String {
    let own = variables::VARIABLES.iter().map(|(name, _)| *name).chain(names);
    let own = own.map(|name| format!("{name}|")).collect::<String>();
    let state = quote(&state.to_string_lossy());
    // The name of a variable is never looked for in the value of another: `declare -p` tells one at a time.
    format!(
        r#"unset BASH_ENV
. {state}
__drydock_keep() {{
  local __drydock_status=$? __drydock_name IFS=$'\n'
  set +eu
  builtin trap - EXIT
  eval "$__drydock_own_trap"
  for __drydock_name in $(compgen -v); do
    case $__drydock_name in
      {own}IFS|HOME|KUBECONFIG|DOCKER_CONFIG|HELM_CACHE_HOME|HELM_CONFIG_HOME|HELM_DATA_HOME|{MARK}|__drydock_*|{SHELLS_OWN}) continue ;;
    esac
    [[ ${{!__drydock_name@a}} == *r* ]] || declare -p "$__drydock_name"
  done > {state} 2>/dev/null
  declare -f >> {state}
  printf 'cd -- %q\n' "$PWD" >> {state}
  exit "$__drydock_status"
}}
__drydock_own_trap=
trap() {{
  if [ $# -eq 2 ] && [[ $2 == EXIT || $2 == 0 ]]; then
    if [ "$1" = - ]; then __drydock_own_trap=; else __drydock_own_trap=$1; fi
  else
    builtin trap "$@"
  fi
}}
builtin trap __drydock_keep EXIT
"#
    )
}

async fn read(mut pipe: pipe::Receiver, output: Arc<Mutex<Bounded>>) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        output.lock().unwrap_or_else(PoisonError::into_inner).add(&chunk[..read]);
    }
}

fn make_anew(dir: &Path) -> Result<(), LabError> {
    let wrong = |doing| move |source| LabError::File { doing, path: dir.to_owned(), source };
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(wrong("remove"))?;
    }
    std::fs::create_dir_all(dir).map_err(wrong("make"))
}

/// Copies a file, or a folder with all in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return std::fs::copy(from, to).map(drop);
    }
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The living processes that have `mark` in their environment.
fn marked(mark: &str) -> impl Iterator<Item = Pid> {
    let mark = mark.as_bytes().to_owned();
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(move |entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        // A process that has ended has an empty one.
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        environment.split(|byte| *byte == 0).any(|variable| variable == mark).then_some(pid)
    })
}

fn write_program(path: &Path, script: &str) -> std::io::Result<()> {
    std::fs::write(path, script)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workstation in a folder that looks like a lab's.
    fn workstation(dir: &Path) -> Workstation {
        std::fs::write(dir.join("values.yaml"), "a: b\n").unwrap();
        std::fs::write(dir.join(KUBECONFIG), "the lab's\n").unwrap();
        std::fs::create_dir_all(dir.join("chart/templates")).unwrap();
        std::fs::write(dir.join("chart/templates/x.yaml"), "x\n").unwrap();
        let workstation = Workstation::new(dir, &dir.join("tools"), &dir.join("chart")).unwrap();
        workstation.begin(std::iter::empty()).unwrap();
        workstation
    }

    async fn run_for(at: &Workstation, script: &str, env: &[(&str, &str)], limit: Duration) -> Ran {
        let env: Vec<(String, String)> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        at.run(Job { place: "workstation", script, env: &env, limit }).await.unwrap()
    }

    /// The exit status, and what was printed.
    async fn sh(at: &Workstation, script: &str) -> (Ended, String) {
        let ran = run_for(at, script, &[], Duration::from_secs(20)).await;
        (ran.ended, ran.output)
    }

    const GOOD: Ended = Ended::Exit(0);

    #[tokio::test]
    async fn a_script_stops_at_its_first_failure() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        assert_eq!(sh(&at, "cat values.yaml; echo e >&2; echo o").await, (GOOD, "a: b\ne\no\n".into()));
        assert_eq!(sh(&at, "false; echo not here").await, (Ended::Exit(1), String::new()));
        assert_eq!(sh(&at, "false | true; echo not here").await, (Ended::Exit(1), String::new()));
        let (ended, said) = sh(&at, "\necho \"$UNSET\"").await;
        assert_eq!((ended, said.as_str()), (Ended::Exit(1), "bash: line 2: UNSET: unbound variable\n"));
        assert_eq!(sh(&at, "kill -9 $$").await.0, Ended::Signal(9));
    }

    #[tokio::test]
    async fn what_a_terminal_keeps_is_kept_until_the_runbook_ends() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        let first = "A='x\n\"$y'; export B=b; L=(1 2); readonly R=r; f() { echo \"f $A\"; }; mkdir sub; cd sub";
        assert_eq!(sh(&at, first).await, (GOOD, String::new()));
        let second = "f; echo \"${L[1]} $(printenv B) ${PWD##*/} ${R-none}\"; printenv A || echo not exported";
        assert_eq!(sh(&at, second).await, (GOOD, "f x\n\"$y\n2 b sub none\nnot exported\n".into()));
        at.begin(std::iter::empty()).unwrap();
        assert_eq!(sh(&at, "echo ${A-none} ${PWD##*/}").await, (GOOD, "none work\n".into()));
    }

    #[tokio::test]
    async fn a_trap_of_the_block_s_own_runs_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        let first = "trap 'echo ended $A' EXIT; trap 'true' INT; A=1 OPTS=o IFS=,";
        assert_eq!(sh(&at, first).await, (GOOD, "ended 1\n".into()));
        assert_eq!(sh(&at, "echo $A $OPTS").await, (GOOD, "1 o\n".into()));
    }

    #[tokio::test]
    async fn what_a_block_changes_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        let changes = "echo prod > \"$KUBECONFIG\"; echo y > harbor/harbor/templates/x.yaml; cat $KUBECONFIG harbor/harbor/templates/x.yaml";
        assert_eq!(sh(&at, changes).await, (GOOD, "prod\ny\n".into()));
        assert_eq!(sh(&at, "cat $KUBECONFIG").await, (GOOD, "the lab's\n".into()));
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((read(KUBECONFIG).as_str(), read("chart/templates/x.yaml").as_str()), ("the lab's\n", "x\n"));
    }

    #[tokio::test]
    async fn what_leaves_its_process_group_ends_too() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        let script = "setsid sleep 600 & timeout 600 sleep 600 & set -m; sleep 600 & sleep 600";
        let ran = run_for(&at, script, &[], Duration::from_millis(700)).await;
        assert_eq!(ran.ended, Ended::Stopped(Duration::from_millis(700)));
        // Killed by now, and collected in a moment.
        let mark = format!("{MARK}={}", dir.path().join("shell").display());
        for _ in 0..100 {
            if marked(&mark).next().is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("processes live: {:?}", marked(&mark).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_failed_block_keeps_its_exit_status_and_its_variables() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        assert_eq!(sh(&at, "A=1; exit 7").await.0, Ended::Exit(7));
        assert_eq!(sh(&at, "echo $A").await, (GOOD, "1\n".into()));
    }

    #[tokio::test]
    async fn what_is_set_anew_for_each_block_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        at.begin(["TEAM"].into_iter()).unwrap();
        let limit = Duration::from_secs(20);
        let env = |pod| [("HARBOR_REGISTRY_POD", pod), ("TEAM", "sea")];
        let first = "HARBOR_REGISTRY_POD=x TEAM=y KUBECONFIG=/elsewhere; unset HOME; true";
        assert_eq!(run_for(&at, first, &env("pod-1"), limit).await.output, "");
        let second = "echo $HARBOR_REGISTRY_POD $TEAM ${KUBECONFIG##*/} ${HOME##*/}; cat ~/.kube/config";
        assert_eq!(run_for(&at, second, &env("pod-2"), limit).await.output, "pod-2 sea config home\nthe lab's\n");
    }

    #[tokio::test]
    async fn nothing_of_the_user_s_environment_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        let (_, names) = sh(&at, "env | cut -d= -f1 | sort | tr '\\n' ' '").await;
        assert_eq!(
            names,
            "DOCKER_CONFIG DRYDOCK_RUNBOOK HELM_CACHE_HOME HELM_CONFIG_HOME HELM_DATA_HOME HOME KUBECONFIG LANG PATH PWD SHLVL TERM TMPDIR _ "
        );
    }

    #[tokio::test]
    async fn sudo_keeps_the_environment_and_other_ways_out_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        let (ended, said) = sh(
            &at,
            "sudo -E -u postgres A=b sh -c 'echo $A ${KUBECONFIG##*/} ${HOME##*/}'; echo 'echo read' | sudo -iu root",
        )
        .await;
        assert_eq!((ended, said.as_str()), (GOOD, "b config home\nread\n"));
        for program in ["ssh", "docker", "systemctl", "su", "update-ca-certificates"] {
            let (ended, said) = sh(&at, &format!("{program} --version")).await;
            assert_eq!(ended, Ended::Exit(127));
            assert!(said.starts_with(&format!("{program}: not on the lab's workstation")), "{said}");
        }
    }

    #[tokio::test]
    async fn a_block_ends_with_its_shell_and_the_background_with_the_runbook() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        let begun = std::time::Instant::now();
        let (ended, _) = sh(&at, "(while :; do date >> ticks; sleep 0.05; done) & echo $! > pid").await;
        assert_eq!(ended, GOOD);
        assert!(begun.elapsed() < Duration::from_secs(10), "the block waited for its background");
        let (ended, _) = sh(&at, "kill -0 $(cat pid)").await;
        assert_eq!(ended, GOOD, "it lives in the next block");
        at.begin(std::iter::empty()).unwrap();
        // The signal is sent by now; the process is gone when it has been collected.
        let (ended, said) =
            sh(&at, "for i in $(seq 100); do kill -0 $(cat pid) 2>/dev/null || exit 0; sleep 0.05; done; exit 9").await;
        assert_eq!(ended, GOOD, "{said}");
    }

    #[tokio::test]
    async fn a_time_out_ends_the_whole_process_group_and_tells_what_was_printed() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        let script = "echo begun; (trap '' TERM; sleep 600) & echo $! > pid; sleep 600";
        let ran = run_for(&at, script, &[], Duration::from_millis(700)).await;
        assert_eq!((ran.ended, ran.output.as_str()), (Ended::Stopped(Duration::from_millis(700)), "begun\n"));
        let (ended, _) =
            sh(&at, "for i in $(seq 100); do kill -0 $(cat pid) 2>/dev/null || exit 0; sleep 0.05; done; exit 9").await;
        assert_eq!(ended, GOOD);
    }

    #[tokio::test]
    async fn output_is_bounded_and_may_be_anything() {
        let dir = tempfile::tempdir().unwrap();
        let at = workstation(dir.path());
        let (ended, said) = sh(&at, "head -c 20000000 /dev/zero | tr '\\0' x; printf '\\377end'").await;
        assert_eq!(ended, GOOD);
        assert!(said.len() < 1 << 20 && said.ends_with("\u{fffd}end"), "{} bytes", said.len());
    }
}
