//! The workstation with a person at it: a shell in the work folder whose tools reach the lab and nothing else.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use tokio::process::Command;

use super::{
    variables,
    workstation::{self, MARK, Workstation},
};
use crate::{
    cmd::quote,
    lab::{Lab, LabError, engine::programs},
};

/// The shell's place.
pub struct Terminal {
    workstation: Workstation,
    env: Vec<(String, String)>,
}

/// A program that the shell finds beside the lab's tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The shell script.
    pub script: String,
}

impl Terminal {
    /// In a work folder made anew, with all that a runbook finds there.
    ///
    /// # Errors
    /// A file cannot be written, or the cluster not be asked.
    pub async fn new(lab: &Lab, docker_host: &str, programs: &[Program]) -> Result<Self, LabError> {
        Self::at(Workstation::new(&lab.dir, &lab.tools, &lab.chart)?, lab, docker_host, programs).await
    }

    /// In the work folder as it was left.
    ///
    /// # Errors
    /// As of [`Terminal::new`].
    pub async fn again(lab: &Lab, docker_host: &str, programs: &[Program]) -> Result<Self, LabError> {
        Self::at(Workstation::there(&lab.dir, &lab.tools), lab, docker_host, programs).await
    }

    async fn at(
        workstation: Workstation,
        lab: &Lab,
        docker_host: &str,
        programs: &[Program],
    ) -> Result<Self, LabError> {
        let nodes: Vec<(&str, &str)> =
            lab.nodes.iter().filter_map(|node| Some((node.name.as_str(), node.container()?))).collect();
        let docker = programs::find("docker").unwrap_or_else(|| PathBuf::from("docker"));
        workstation.add_program("ssh", &ssh(&nodes, docker_host, &docker))?;
        for program in programs {
            workstation.add_program(&program.name, &program.script)?;
        }
        let env = of_shell(workstation.chart(), lab).await?;
        Ok(Self { workstation, env })
    }

    /// Opens the shell and waits for its end. Dropped half way, it ends the shell and all that was started in it.
    ///
    /// # Errors
    /// There is no bash, or a file cannot be written.
    pub async fn sit(&self) -> Result<ExitStatus, LabError> {
        let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let mut command = self.command(interactive)?;
        let status = command.status().await.map_err(|source| LabError::File {
            doing: "start bash in",
            path: self.workstation.work().to_owned(),
            source,
        });
        self.workstation.end_all();
        status
    }

    fn command(&self, interactive: bool) -> Result<Command, LabError> {
        self.workstation.lay_kubeconfig()?;
        let rc = self.workstation.own().join("practice.bashrc");
        std::fs::write(&rc, include_str!("practice.bashrc")).map_err(|source| LabError::File {
            doing: "write",
            path: rc.clone(),
            source,
        })?;
        let mut command = Command::new("bash");
        command
            .current_dir(self.workstation.work())
            .env_clear()
            .envs(self.workstation.env().iter().chain(&self.env).map(|(name, value)| (name, value)))
            .env(MARK, self.workstation.own())
            .kill_on_drop(true);
        for name in ["TERM", "NO_COLOR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if interactive {
            command.arg("--rcfile").arg(&rc).arg("-i");
        } else {
            // Commands come from a file or a program.
            command.env("BASH_ENV", &rc);
        }
        Ok(command)
    }
}

/// The variables of a runbook's commands as they are now, as shell commands that set them: pods change their names.
///
/// # Errors
/// The cluster cannot be asked.
pub async fn exports(lab: &Lab) -> Result<String, LabError> {
    // No workstation is made for this: with it would end whatever runs there, and that is the shell that asks.
    let found = of_shell(workstation::chart(&lab.work()), lab).await?;
    let gone = variables::VARIABLES.iter().filter(|(name, _)| !found.iter().any(|(known, _)| known == name));
    let unset = gone.map(|(name, _)| format!("unset {name}\n"));
    Ok(found.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).chain(unset).collect())
}

async fn of_shell(chart: String, lab: &Lab) -> Result<Vec<(String, String)>, LabError> {
    let mut env = variables::look_up(lab).await?;
    env.push(("HARBOR_CHART".to_owned(), chart));
    Ok(env)
}

/// A program that leads to these nodes (name, container) by their names.
fn ssh(nodes: &[(&str, &str)], docker_host: &str, docker: &Path) -> String {
    let names: Vec<&str> = nodes.iter().map(|(name, _)| *name).collect();
    let case = |(name, container): &(&str, &str)| format!("  {name}) container={container} ;;");
    include_str!("ssh.sh")
        .replace("{nodes}", &names.join(", "))
        .replace("{cases}", &nodes.iter().map(case).collect::<Vec<_>>().join("\n"))
        .replace("{host}", docker_host)
        .replace("{docker}", &docker.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, process::Stdio};

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::lab::KUBECONFIG;

    /// A workstation in a folder that looks like a lab's, with a docker that tells how it was called.
    fn terminal(dir: &Path) -> Terminal {
        std::fs::write(dir.join("values.yaml"), "a: b\n").unwrap();
        std::fs::write(dir.join(KUBECONFIG), "the lab's\n").unwrap();
        std::fs::create_dir_all(dir.join("chart")).unwrap();
        let docker = dir.join("docker");
        std::fs::write(&docker, "#!/bin/sh\necho \"$DOCKER_HOST|$*\"\n").unwrap();
        std::fs::set_permissions(&docker, PermissionsExt::from_mode(0o755)).unwrap();
        let workstation = Workstation::new(dir, &dir.join("tools"), &dir.join("chart")).unwrap();
        let nodes = [("worker1", "lab-worker"), ("worker2-gpu", "lab-worker2")];
        workstation.add_program("ssh", &ssh(&nodes, "unix:///x.sock", &docker)).unwrap();
        workstation.add_program("practice", "#!/bin/sh\necho \"practice $*\"\n").unwrap();
        Terminal { workstation, env: vec![("HARBOR_HOST".to_owned(), "10.0.0.2:30003".to_owned())] }
    }

    /// What a shell that reads these lines says, and how it ends.
    async fn typed(terminal: &Terminal, lines: &str) -> (Option<i32>, String) {
        let mut command = terminal.command(false).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(lines.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    }

    #[tokio::test]
    async fn a_person_s_shell_has_the_lab_s_environment_and_nothing_of_the_user_s() {
        let dir = tempfile::tempdir().unwrap();
        let terminal = terminal(dir.path());
        let ask = "echo $HARBOR_HOST ${HOME##*/} ${PWD##*/}; cat $KUBECONFIG values.yaml; env | grep -c ^CARGO";
        let (_, said) = typed(&terminal, ask).await;
        assert_eq!(said, "10.0.0.2:30003 home work\nthe lab's\na: b\n0\n");
    }

    #[tokio::test]
    async fn a_person_leaves_or_pauses_and_what_was_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        let terminal = terminal(dir.path());
        assert_eq!(
            typed(&terminal, "false\necho on; touch mine\nleave\necho not here").await,
            (Some(0), "on\n".into())
        );
        assert_eq!(typed(&terminal, "pause\necho not here").await, (Some(0), "practice pause\n".into()));
        let again = Terminal { workstation: Workstation::there(dir.path(), dir.path()), env: Vec::new() };
        assert_eq!(typed(&again, "ls mine").await, (Some(0), "mine\n".into()));
    }

    #[tokio::test]
    async fn ssh_leads_to_nodes_of_the_lab_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let terminal = terminal(dir.path());
        let said = typed(
            &terminal,
            "ssh -o StrictHostKeyChecking=no root@worker1 'systemctl restart containerd'\nssh worker2-gpu ls -l\nssh worker1\nssh prod\necho $?\nssh\n",
        )
        .await;
        insta::assert_snapshot!(said.1);
    }
}
