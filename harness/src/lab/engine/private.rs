//! The private engine: started by the first that needs it, shared, stopped by the last that leaves.
//!
//! Who uses it is known by locks, which the kernel gives up when their holder is killed: each user holds `users.lock`
//! shared, and who can take it exclusively is alone. Starting and stopping happen under `change.lock`. A file in `holds/`
//! keeps the engine for a lab that outlives its process.

use std::{
    fs::{File, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    EngineError,
    caps::Bounding,
    create_dir,
    net::{self, Net},
    oci_runtime, probe, programs, tail,
};
use crate::{
    hash,
    paths::Paths,
    run::{
        events::{Events, Step},
        poll::{Look, WaitError, poll},
    },
};

/// An engine is ready in five seconds; one that first has to end the containers of a life cut short takes longer.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Stopping ends the containers first, for which each is given ten seconds.
const STOP_LIMIT: Duration = Duration::from_secs(90);
/// Whoever holds the change lock may be installing Docker.
const CHANGE_LIMIT: Duration = Duration::from_secs(1200);
/// The longest of the socket paths below the engine's folder.
const LONGEST_SOCKET: &str = "exec/containerd/containerd-debug.sock";

/// A use of the private engine.
#[derive(Debug)]
pub struct Private {
    layout: Layout,
    /// The shared lock; absent after leaving.
    user: Option<File>,
    /// The lock under which it is started, for as long as that takes.
    change: Option<File>,
}

/// Where things are in the engine's folder.
#[derive(Debug, Clone)]
struct Layout {
    root: PathBuf,
}

impl Layout {
    fn socket(&self) -> PathBuf {
        self.root.join("docker.sock")
    }
    fn config(&self) -> PathBuf {
        self.root.join("daemon.json")
    }
    fn pidfile(&self) -> PathBuf {
        self.root.join("docker.pid")
    }
    fn log(&self) -> PathBuf {
        self.root.join("dockerd.log")
    }
    fn exec(&self) -> PathBuf {
        self.root.join("exec")
    }
    fn pool_file(&self) -> PathBuf {
        self.root.join("pool")
    }
    fn pool(&self) -> Option<String> {
        std::fs::read_to_string(self.pool_file()).ok()
    }
    fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }
    fn holds(&self) -> PathBuf {
        self.root.join("holds")
    }

    /// Tells this engine's names on the machine from those of other caches' engines.
    fn tag(&self) -> String {
        hex::encode(&Sha256::digest(self.root.as_os_str().as_encoded_bytes())[..4])
    }

    fn open(&self, name: &str) -> Result<File, EngineError> {
        create_dir(&self.root)?;
        let path = self.root.join(name);
        let open = std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        open.map_err(io_error("open the lock file", &path))
    }

    fn held_by(&self) -> Result<Vec<String>, EngineError> {
        let dir = self.holds();
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io_error("list", &dir))?,
        };
        let mut labs = Vec::new();
        for entry in entries {
            labs.push(entry.map_err(io_error("list", &dir))?.file_name().to_string_lossy().into_owned());
        }
        Ok(labs)
    }

    /// The running engine's process. Its configuration file is ours alone, so a process that has it is ours.
    fn process(&self) -> Option<i32> {
        let recorded = std::fs::read_to_string(self.pidfile()).ok().and_then(|text| text.trim().parse().ok());
        find_process(recorded, "dockerd", &self.config())
    }

    /// The engine's own containerd, which may outlive an engine that was killed.
    fn containerd(&self) -> Option<i32> {
        find_process(None, "containerd", &self.exec().join("containerd/containerd.toml"))
    }
}

impl Private {
    /// The private engine of a cache, not in use.
    pub fn at(paths: &Paths) -> Self {
        Self { layout: Layout { root: paths.engine() }, user: None, change: None }
    }

    /// Its address.
    pub fn host(&self) -> String {
        format!("unix://{}", self.layout.socket().display())
    }

    /// Uses it if it runs.
    pub async fn join_running(paths: &Paths, step: &Step) -> Result<Option<Self>, EngineError> {
        let mut private = Self::at(paths);
        if private.layout.process().is_none() {
            return Ok(None);
        }
        private.change = Some(change_lock(&private.layout, step).await?);
        // It may have been stopped while this waited for the lock.
        let Some(pid) = private.layout.process() else { return Ok(None) };
        private.user = Some(share(&private.layout)?);
        private.await_answer(pid, step).await?;
        private.change = None;
        Ok(Some(private))
    }

    /// Uses it, and starts it if it does not run. `runtime`: see [`super::ConnectOptions::runtime`].
    pub async fn start(paths: &Paths, runtime: Option<&Path>, step: &Step) -> Result<Self, EngineError> {
        if !rustix::process::geteuid().is_root() {
            return Err(EngineError::NotRoot { doing: "start the private Docker engine" });
        }
        let mut private = Self::at(paths);
        let longest = private.layout.root.join(LONGEST_SOCKET);
        if longest.as_os_str().len() > 107 {
            return Err(EngineError::PathTooLong { path: longest });
        }
        private.change = Some(change_lock(&private.layout, step).await?);
        private.user = Some(share(&private.layout)?);
        match private.layout.process() {
            Some(pid) => private.await_answer(pid, step).await?,
            None => {
                let name = "start a private Docker engine";
                let usually = Some(Duration::from_secs(5));
                let work = |step| async move { private.launch(runtime, &step).await.map(|()| private) };
                private = step.events().step_usually(name, usually, work).await?;
            }
        }
        private.change = None;
        Ok(private)
    }

    async fn await_answer(&self, pid: i32, step: &Step) -> Result<(), EngineError> {
        let (host, log) = (self.host(), self.layout.log());
        let answer = poll(step, "the private engine to answer", START_LIMIT, Duration::from_millis(100), || async {
            Ok::<_, EngineError>(match probe::probe(&host).await {
                Ok(_) => Look::Ready(()),
                Err(error) => Look::NotYet(error.to_string()),
            })
        });
        match answer.await {
            Ok(()) => Ok(()),
            Err(WaitError::Failed(error)) => Err(error),
            Err(WaitError::TimedOut { after, .. }) => Err(EngineError::Hangs { pid, after, said: tail(&log, 12), log }),
        }
    }

    async fn launch(&self, runtime: Option<&Path>, step: &Step) -> Result<(), EngineError> {
        let layout = &self.layout;
        let log = layout.log();
        let fail = |why: String| EngineError::Start { why, said: tail(&log, 12), log: log.clone() };
        let dockerd = programs::find("dockerd").ok_or_else(|| fail("there is no `dockerd` on this machine".into()))?;
        // What an engine that was killed has left: a new one takes no pid file that names a living process, and cannot talk
        // to the old one's containerd. The rest of the exec root stays: by it the new one finds the containers' processes.
        let takes_over = layout.exec().exists();
        if let Some(pid) = layout.containerd() {
            end_process(pid, &log).await?;
        }
        let containerd = layout.exec().join("containerd");
        for stale in
            [layout.socket(), layout.pidfile(), containerd.join("containerd.pid"), containerd.join("containerd.sock")]
        {
            remove_file(&stale)?;
        }
        let wrapper = match Bounding::own().map_err(io_error("read", Path::new("/proc/self/status")))?.is_restricted() {
            false => None,
            true => {
                step.events().note(
                    "this machine's capability bounding set lacks CAP_SYS_RESOURCE: the private engine runs its \
                     containers by a runtime that asks for no capability that cannot be had",
                );
                Some(install_runtime(layout, runtime)?)
            }
        };
        let choosing = net::lock(step).await?;
        let net = Net::choose(&layout.tag(), layout.pool().as_deref())?;
        std::fs::write(layout.pool_file(), net.pool()).map_err(io_error("write", &layout.pool_file()))?;
        net.up().await?;
        drop(choosing);
        let config = layout.config();
        let text = format!("{:#}\n", configuration(layout, &net, wrapper.as_deref()));
        std::fs::write(&config, text).map_err(io_error("write", &config))?;

        let out = File::create(&log).map_err(io_error("create", &log))?;
        let errors = out.try_clone().map_err(io_error("use", &log))?;
        let mut child = tokio::process::Command::new(&dockerd)
            .arg("--config-file")
            .arg(&config)
            // A system containerd that runs is used, so what is ours in it needs a name of its own. The configuration
            // file cannot say the second of these: its key there differs from the flag, and is refused.
            .args(["--containerd-namespace", &format!("drydock-{}", layout.tag())])
            .args(["--containerd-plugins-namespace", &format!("drydock-{}-plugins", layout.tag())])
            .current_dir(&layout.root)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            // Ctrl-C goes to the terminal's process group, and the engine must outlive it to be cleaned up.
            .process_group(0)
            .spawn()
            .map_err(io_error("start", &dockerd))?;
        let pid = child.id();
        let host = self.host();
        let answer = poll(step, "the engine to answer", START_LIMIT, Duration::from_millis(100), || {
            let ended = child.try_wait();
            let host = &host;
            async move {
                match ended.map_err(|error| error.to_string())? {
                    Some(status) => Err(format!("it ended with {status}")),
                    None => Ok(match probe::probe(host).await {
                        Ok(_) => Look::Ready(()),
                        Err(error) => Look::NotYet(error.to_string()),
                    }),
                }
            }
        })
        .await;
        match answer {
            Ok(()) => Ok(()),
            Err(error) => {
                let why = error.to_string();
                let error = fail(why);
                if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok())
                    && layout.process() == Some(pid)
                {
                    end_process(pid, &log).await?;
                }
                if !takes_over {
                    clean(layout).await?;
                }
                Err(error)
            }
        }
    }

    /// The bridge and the addresses that a network of this engine may have, for each a /24, the first left out: it is the
    /// default bridge's.
    pub fn subnets(&self) -> Vec<(String, String)> {
        self.layout.pool().and_then(|pool| Net::subnets(&self.layout.tag(), &pool)).unwrap_or_default()
    }

    /// Keeps the engine for the lab `lab`.
    pub fn hold(&self, lab: &str) -> Result<(), EngineError> {
        let dir = self.layout.holds();
        create_dir(&dir)?;
        let path = dir.join(lab);
        File::create(&path).and_then(|file| file.sync_all()).map_err(io_error("create the hold", &path))
    }

    /// Ends a hold.
    pub fn release(&self, lab: &str) -> Result<(), EngineError> {
        remove_file(&self.layout.holds().join(lab))
    }

    /// The labs that hold the engine.
    pub fn held_by(&self) -> Result<Vec<String>, EngineError> {
        self.layout.held_by()
    }

    /// Whether an engine runs, or something of one that was killed is left.
    pub fn has_remains(&self) -> bool {
        self.layout.process().is_some() || self.layout.containerd().is_some() || self.layout.exec().exists()
    }

    /// Ends the use; the last one stops the engine.
    pub async fn leave(mut self, events: &Events) -> Result<(), EngineError> {
        self.user = None;
        events
            .step("leave the private Docker engine", |step| async move {
                let _change = change_lock(&self.layout, &step).await?;
                let Some(_alone) = sole_user(&self.layout)? else {
                    step.events().note("the private Docker engine stays: another run uses it");
                    return Ok(());
                };
                let holds = self.layout.held_by()?;
                if !holds.is_empty() {
                    step.events().note(format!("the private Docker engine stays for the lab {}", holds.join(", ")));
                    return Ok(());
                }
                step.waiting("the engine to stop");
                match self.layout.process() {
                    Some(pid) => end_process(pid, &self.layout.log()).await?,
                    // Its containers may live on, and only an engine that finds its exec root can end them.
                    None if self.layout.exec().exists() => return Err(EngineError::Gone { log: self.layout.log() }),
                    None => {}
                }
                clean(&self.layout).await
            })
            .await
    }
}

impl Drop for Private {
    /// For a way out that did not pass through [`Private::leave`]: the engine is told to stop and not waited for, and what it
    /// leaves in its folder the next start takes over.
    fn drop(&mut self) {
        if self.user.take().is_none() {
            return;
        }
        let change = self.change.take().or_else(|| {
            let file = self.layout.open("change.lock").ok()?;
            file.try_lock().is_ok().then_some(file)
        });
        if change.is_some()
            && let Ok(Some(_alone)) = sole_user(&self.layout)
            && self.layout.held_by().is_ok_and(|labs| labs.is_empty())
            && let Some(pid) = self.layout.process()
            && let Ok(process) = open_process(pid)
        {
            let _ = pidfd_send_signal(&process, Signal::TERM);
        }
    }
}

fn io_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let (doing, path) = (doing.to_owned(), path.to_owned());
    |source| EngineError::Io { doing, path, source }
}

fn remove_file(path: &Path) -> Result<(), EngineError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Waits for the right to start or stop the engine. Looking is all there is: a blocking lock could not be interrupted.
async fn change_lock(layout: &Layout, step: &Step) -> Result<File, EngineError> {
    let file = layout.open("change.lock")?;
    let path = layout.root.join("change.lock");
    let locked =
        poll(step, "another run's change of the private engine", CHANGE_LIMIT, Duration::from_millis(100), || {
            let locked = file.try_lock();
            let path = &path;
            async move {
                match locked {
                    Ok(()) => Ok(Look::Ready(())),
                    Err(TryLockError::WouldBlock) => Ok(Look::NotYet(format!("{} is held", path.display()))),
                    Err(TryLockError::Error(source)) => Err(io_error("lock", path)(source)),
                }
            }
        });
    match locked.await {
        Ok(()) => Ok(file),
        Err(WaitError::Failed(error)) => Err(error),
        Err(error @ WaitError::TimedOut { .. }) => Err(EngineError::Busy(error.to_string())),
    }
}

/// Becomes a user. Only who holds the change lock takes this one exclusively, so under the change lock it is free.
fn share(layout: &Layout) -> Result<File, EngineError> {
    let file = layout.open("users.lock")?;
    match file.try_lock_shared() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EngineError::Busy("the users' lock is held exclusively".to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &layout.root.join("users.lock"))(source)),
    }
}

/// The exclusive lock, if nobody uses the engine.
fn sole_user(layout: &Layout) -> Result<Option<File>, EngineError> {
    let file = layout.open("users.lock")?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &layout.root.join("users.lock"))(source)),
    }
}

/// What is *not* in it: `default-address-pools`, since an engine that has them deletes `docker0`, another engine's bridge,
/// when it finds its own bridge network from before (moby's `initNetworkController`); nor `bridge: none`, which does the
/// same at every start. So networks are given their addresses when they are made.
fn configuration(layout: &Layout, net: &Net, wrapper: Option<&Path>) -> Value {
    let mut config = json!({
        "data-root": layout.root.join("data"),
        "exec-root": layout.exec(),
        "pidfile": layout.pidfile(),
        "hosts": [format!("unix://{}", layout.socket().display())],
        "storage-driver": "overlay2",
        "bridge": net.bridge,
        "iptables": false,
        "ip6tables": false,
        "log-driver": "json-file",
        "log-opts": { "max-size": "20m", "max-file": "2" },
    });
    if let Some(path) = wrapper {
        config["runtimes"] = json!({ "drydock": { "path": path } });
        config["default-runtime"] = json!("drydock");
    }
    config
}

/// Puts a copy of this program where the engine finds it under the runtime's name. A copy, since a build may rewrite the
/// original while the engine runs.
fn install_runtime(layout: &Layout, program: Option<&Path>) -> Result<PathBuf, EngineError> {
    let program = match program {
        Some(program) => program.to_owned(),
        // Unlike its path, this link leads to the running program also when a build has replaced it.
        None => PathBuf::from("/proc/self/exe"),
    };
    let wanted = hash::of_file(&program).map_err(io_error("read", &program))?;
    let hash = wanted.1[..16].to_owned();
    let dir = layout.bin().join(&hash);
    let path = dir.join(oci_runtime::NAME);
    // Those of earlier programs: no engine runs now.
    for entry in std::fs::read_dir(layout.bin()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy() != hash {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    if hash::of_file(&path).is_ok_and(|there| there == wanted) {
        return Ok(path);
    }
    create_dir(&dir)?;
    let write = || -> io::Result<()> {
        let temp = tempfile::NamedTempFile::new_in(&dir)?;
        std::fs::copy(&program, temp.path())?;
        temp.as_file().set_permissions(std::fs::Permissions::from_mode(0o755))?;
        temp.persist(&path)?;
        Ok(())
    };
    write().map_err(io_error("write", &path))?;
    Ok(path)
}

/// The living process whose program is `name` and that was given `config`, `recorded` looked at first.
fn find_process(recorded: Option<i32>, name: &str, config: &Path) -> Option<i32> {
    let listed = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    recorded.into_iter().chain(pids).find(|&pid| is_process(pid, name, config))
}

fn is_process(pid: i32, name: &str, config: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    // A program that was upgraded under a running process reads `/usr/sbin/dockerd (deleted)`.
    let program = std::fs::read_link(proc.join("exe")).ok();
    let is_named = program
        .as_deref()
        .and_then(Path::file_name)
        .is_some_and(|file| file.to_string_lossy().trim_end_matches(" (deleted)") == name);
    is_named
        && std::fs::read(proc.join("cmdline"))
            .is_ok_and(|line| line.split(|&byte| byte == 0).any(|arg| arg == config.as_os_str().as_encoded_bytes()))
}

fn open_process(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends SIGTERM and watches the process end.
async fn end_process(pid: i32, log: &Path) -> Result<(), EngineError> {
    let path = PathBuf::from(format!("/proc/{pid}"));
    let process = match open_process(pid) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(()),
        Err(error) => return Err(io_error("open the process", &path)(error)),
    };
    match pidfd_send_signal(&process, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(io_error("send SIGTERM to", &path)(error.into())),
    }
    match tokio::task::spawn_blocking(move || await_end(&process, STOP_LIMIT)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(EngineError::StillRuns { pid, after: STOP_LIMIT, log: log.to_owned() }),
        Ok(Err(error)) => Err(io_error("watch", &path)(error)),
        Err(error) => Err(io_error("watch", &path)(io::Error::other(error))),
    }
}

/// Whether the process ends within `limit`: its descriptor becomes readable then.
fn await_end(process: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Removes what a stopped engine leaves, but for its data, its log, its configuration and its choice of addresses.
async fn clean(layout: &Layout) -> Result<(), EngineError> {
    if let Some(pid) = layout.containerd() {
        end_process(pid, &layout.log()).await?;
    }
    let exec = layout.exec();
    // The data folder is among them: the engine mounts it on itself.
    for mount in mounts_under(&layout.root)? {
        rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH)
            .map_err(|error| io_error("unmount", &mount)(error.into()))?;
    }
    match std::fs::remove_dir_all(&exec) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &exec)(error)),
        _ => {}
    }
    remove_file(&layout.socket())?;
    remove_file(&layout.pidfile())?;
    if let Some(net) = layout.pool().and_then(|pool| Net::known(&layout.tag(), &pool)) {
        net.down().await?;
    }
    Ok(())
}

/// What is mounted in `dir` or below, the innermost first.
fn mounts_under(dir: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(table).map_err(io_error("read", table))?;
    let fields = text.lines().filter_map(|line| line.split(' ').nth(4));
    let mut mounts: Vec<PathBuf> =
        fields.map(|field| PathBuf::from(field.replace("\\040", " "))).filter(|mount| mount.starts_with(dir)).collect();
    mounts.reverse();
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout { root: "/cache/engine".into() }
    }

    #[test]
    fn the_configuration_keeps_everything_to_itself() {
        let net = Net::known("00000001", "10.201.0.0/16").unwrap();
        insta::assert_json_snapshot!(configuration(&layout(), &net, Some(Path::new("/cache/engine/bin/x/rt"))));
        let plain = configuration(&layout(), &net, None);
        assert_eq!(plain.get("runtimes"), None);
        assert_eq!(plain.get("default-runtime"), None);
    }

    #[test]
    fn a_process_is_known_by_its_program_and_configuration_together() {
        let own = i32::try_from(std::process::id()).unwrap();
        let program = std::env::current_exe().unwrap();
        let name = program.file_name().unwrap().to_str().unwrap().to_owned();
        let first_arg = std::env::args_os().next().unwrap();
        assert!(is_process(own, &name, Path::new(&first_arg)));
        assert!(!is_process(own, "dockerd", Path::new(&first_arg)));
        assert!(!is_process(own, &name, Path::new("/another/daemon.json")));
    }

    #[test]
    fn the_runtime_is_a_copy_under_its_own_name_and_older_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { root: dir.path().to_owned() };
        let program = dir.path().join("program");
        std::fs::write(&program, "one").unwrap();
        let first = install_runtime(&layout, Some(&program)).unwrap();
        assert_eq!(first.file_name().unwrap(), oci_runtime::NAME);
        std::fs::write(&first, "damaged").unwrap();
        assert_eq!(install_runtime(&layout, Some(&program)).unwrap(), first);
        assert_eq!(std::fs::read_to_string(&first).unwrap(), "one");
        std::fs::write(&program, "two").unwrap();
        let second = install_runtime(&layout, Some(&program)).unwrap();
        assert!(!first.exists() && second.exists());
        assert_eq!(std::fs::metadata(&second).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn the_last_user_is_known_by_the_locks() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { root: dir.path().to_owned() };
        let (one, two) = (share(&layout).unwrap(), share(&layout).unwrap());
        assert!(sole_user(&layout).unwrap().is_none());
        drop(one);
        assert!(sole_user(&layout).unwrap().is_none());
        drop(two);
        assert!(sole_user(&layout).unwrap().is_some());
    }
}
