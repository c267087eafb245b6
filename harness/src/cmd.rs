//! External commands: kind, helm, kubectl, go. A failed command carries what was run, with which variables, and its output.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// The most that is kept of each of a command's two outputs, in bytes; what is dropped is the middle.
const KEPT: usize = 256 * 1024;

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CmdError {
    /// It could not be started.
    #[error("start `{line}`: {source}")]
    Start {
        /// The command.
        line: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It ended with a failure.
    #[error("`{line}` ended with {status}; it said: {said}{ran_with}")]
    Failed {
        /// The command.
        line: String,
        /// The variables that were set for it, as a line of their own, if any were.
        ran_with: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        said: String,
    },
    /// It did not end in time, and was stopped with all that it had started.
    #[error("`{line}` did not end within {} s and was stopped; it said: {said}{ran_with}", after.as_secs())]
    TimedOut {
        /// The command.
        line: String,
        /// As with one that failed.
        ran_with: String,
        /// The limit.
        after: Duration,
        /// The end of its output.
        said: String,
    },
}

/// What a command printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, bytes that are no UTF-8 replaced.
    pub stdout: String,
    /// Standard error, bytes that are no UTF-8 replaced.
    pub stderr: String,
}

/// A command to run, in a process group of its own: a time-out or a dropped future ends all that it started.
#[derive(Debug, Clone)]
pub struct Cmd {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, Option<String>)>,
    clear_env: bool,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

impl Cmd {
    /// A command with no arguments and a limit of ten minutes.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            clear_env: false,
            dir: None,
            stdin: None,
            limit: Duration::from_secs(600),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Cmd::arg)
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), Some(value.as_ref().to_string_lossy().into_owned())));
        self
    }

    /// Gives it no variable of this process but `PATH`; those that are set for it stay.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// Unsets a variable.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.env.push((name.to_owned(), None));
        self
    }

    /// Runs it in `dir`.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Feeds it `bytes`.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Stops it after `limit`.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command as a line of a shell, without its variables.
    pub fn line(&self) -> String {
        let program = self.program.to_string_lossy();
        let words = [&*program].into_iter().chain(self.args.iter().map(String::as_str));
        words.map(quote).collect::<Vec<_>>().join(" ")
    }

    /// Told last: what a command said matters more.
    fn ran_with(&self) -> String {
        let set = self.env.iter().filter_map(|(name, value)| Some(format!(" {name}={}", quote(value.as_ref()?))));
        let set: String = set.collect();
        if set.is_empty() { set } else { format!("\nit ran with{set}") }
    }

    /// Runs it and returns what it printed; any exit status but 0 is an error.
    pub async fn run(&self) -> Result<Output, CmdError> {
        let output = self.output().await?;
        if output.status.success() {
            return Ok(output);
        }
        let said = said(&output.stdout, &output.stderr);
        Err(CmdError::Failed { line: self.line(), ran_with: self.ran_with(), status: output.status, said })
    }

    /// Runs it and returns what it printed, however it ended.
    pub async fn output(&self) -> Result<Output, CmdError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if self.clear_env {
            command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command.spawn().map_err(|source| CmdError::Start { line: self.line(), source })?;
        let _group = child.id().map(GroupGuard);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut kept_out = Bounded::default();
        let mut kept_err = Bounded::default();
        let work = async {
            let feed = async {
                if let (Some(mut pipe), Some(bytes)) = (stdin, &self.stdin) {
                    // A command that does not read all of its input says so itself, by its exit status.
                    let _ = pipe.write_all(bytes).await;
                }
            };
            tokio::join!(feed, collect(stdout, &mut kept_out), collect(stderr, &mut kept_err));
            child.wait().await
        };
        match tokio::time::timeout(self.limit, work).await {
            Ok(status) => Ok(Output {
                status: status.map_err(|source| CmdError::Start { line: self.line(), source })?,
                stdout: kept_out.text(),
                stderr: kept_err.text(),
            }),
            Err(_) => Err(CmdError::TimedOut {
                line: self.line(),
                ran_with: self.ran_with(),
                after: self.limit,
                said: said(&kept_out.text(), &kept_err.text()),
            }),
        }
    }
}

/// Ends a process group when dropped. For a group that has ended the signal finds nobody.
pub(crate) struct GroupGuard(pub(crate) u32);

impl GroupGuard {
    /// Lets the group live on.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }

    fn pid(&self) -> Option<rustix::process::Pid> {
        i32::try_from(self.0).ok().and_then(rustix::process::Pid::from_raw)
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The beginning and the end of what a command prints.
#[derive(Debug, Default)]
pub(crate) struct Bounded(Vec<u8>);

impl Bounded {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > KEPT * 2 {
            let tail = self.0.split_off(self.0.len() - KEPT / 2);
            self.0.truncate(KEPT / 2);
            self.0.extend_from_slice(b"\n[...]\n");
            self.0.extend_from_slice(&tail);
        }
    }

    /// As text, bytes that are no UTF-8 replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

async fn collect(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Bounded) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        kept.add(&chunk[..read]);
    }
}

/// The last lines of what a command said, standard error first choice.
fn said(stdout: &str, stderr: &str) -> String {
    let words = if stderr.trim().is_empty() { stdout } else { stderr };
    let lines: Vec<&str> = words.trim().lines().collect();
    let tail = lines[lines.len().saturating_sub(12)..].join("\n");
    if tail.is_empty() { "nothing".to_owned() } else { tail }
}

/// One word of a shell line.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_command_is_told_with_what_it_said_and_its_variables() {
        let cmd = Cmd::new("sh").args(["-c", "echo no such thing >&2; exit 3"]);
        let failed = "`sh -c 'echo no such thing >&2; exit 3'` ended with exit status: 3; it said: no such thing";
        assert_eq!(cmd.clone().run().await.unwrap_err().to_string(), failed);
        let with = cmd.env("A", "b c").env("D", "e").env_remove("F");
        assert_eq!(with.run().await.unwrap_err().to_string(), format!("{failed}\nit ran with A='b c' D=e"));
    }

    #[tokio::test]
    async fn a_time_out_ends_what_the_command_started() {
        let marker = tempfile::NamedTempFile::new().unwrap();
        let script = format!("(while :; do date >> {}; sleep 0.05; done) & wait", marker.path().display());
        let cmd = Cmd::new("sh").args(["-c", &script]).limit(Duration::from_millis(300));
        assert!(matches!(cmd.run().await, Err(CmdError::TimedOut { .. })));
        let size = || std::fs::metadata(marker.path()).unwrap().len();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = size();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(size(), before);
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let output =
            Cmd::new("sh").args(["-c", "head -c 5000000 /dev/zero | tr '\\0' x; echo end"]).run().await.unwrap();
        assert!(output.stdout.len() < 3 * KEPT);
        assert!(output.stdout.ends_with("end\n"));
    }
}
