//! The Docker engine: the user's own where one answers, else a private one that lives as long as somebody uses it.
//!
//! The user's engine is only ever talked to. The private one has everything to itself: data, sockets, configuration,
//! bridge, address pool; two runs at once share it.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    Docker,
    models::{Ipam, IpamConfig, NetworkCreateRequest},
};
use serde::Serialize;

use crate::{
    cmd::{Cmd, CmdError},
    paths::Paths,
    run::{
        events::{Events, Step},
        poll::{Look, WaitError, poll},
    },
};

pub mod caps;
mod net;
pub mod oci_runtime;
mod private;
mod probe;
pub mod programs;
pub mod resolve;

use caps::Bounding;
use private::Private;
use probe::Answer;
use resolve::{Candidate, Origin};

/// The oldest API that will do: Docker 20.10's.
const OLDEST_API: (usize, usize) = (1, 41);

/// systemd starts a newly installed engine within a few seconds.
const AFTER_INSTALL: Duration = Duration::from_secs(20);

/// Why there is no engine to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine that `DOCKER_HOST` names does not answer.
    #[error("reach the Docker engine at {candidate}: {why}; start that engine, or unset DOCKER_HOST")]
    Unreachable {
        /// Where.
        candidate: String,
        /// What was seen.
        why: String,
    },
    /// No engine answers, and starting one was not permitted.
    #[error(
        "find a Docker engine: none answers ({tried}); start Docker, set DOCKER_HOST, or run this as root with \
         --provision, which installs the distribution's docker.io where it is missing and starts a private engine under {dir}"
    )]
    NoEngine {
        /// Each address with what was seen there.
        tried: String,
        /// Where a private engine would live.
        dir: PathBuf,
    },
    /// This user may not talk to the engine.
    #[error("talk to the Docker engine at {candidate}: permission denied; run as root or as a member of its group")]
    Denied {
        /// Where.
        candidate: String,
    },
    /// The engine is older than 20.10.
    #[error(
        "use the Docker engine at {candidate}: {version} (API {api}) is too old; 20.10 (API 1.41) or newer is needed"
    )]
    TooOld {
        /// Where.
        candidate: String,
        /// The engine's version.
        version: String,
        /// Its API's version.
        api: String,
    },
    /// kind is told to drive something else.
    #[error(
        "drive kind: KIND_EXPERIMENTAL_PROVIDER is `{0}`, and labs are made through a Docker engine's API only; unset it, and \
         for podman name its socket in DOCKER_HOST"
    )]
    OtherProvider(
        /// What.
        String,
    ),
    /// podman with cgroup v1. Seen with podman 4.3.1: of some hierarchies its containers have the root, and the kubelet
    /// misses its groups there.
    #[error(
        "use podman {version} at {candidate}: with cgroup v1 no kubelet starts in its containers; use Docker, or a machine \
         with cgroup v2"
    )]
    PodmanCgroupV1 {
        /// Where.
        candidate: String,
        /// podman's version.
        version: String,
    },
    /// The engine cannot run privileged containers.
    #[error(
        "use the Docker engine at {candidate}: its bounding set lacks CAP_SYS_RESOURCE and its default runtime is \
         `{runtime}`, so it cannot run the privileged containers that kind's nodes are; unset DOCKER_HOST if it is set \
         and run with --provision, which starts a private engine that can"
    )]
    CannotPrivilege {
        /// Where.
        candidate: String,
        /// The default runtime.
        runtime: String,
    },
    /// The engine answered a question with an error.
    #[error("ask the Docker engine at {host} {what}: {source}")]
    Api {
        /// Where.
        host: String,
        /// What was asked.
        what: &'static str,
        /// What it said.
        source: Box<bollard::errors::Error>,
    },
    /// Only root can do this.
    #[error("{doing}: only root can, and this is not root; run as root, or start Docker and run without --provision")]
    NotRoot {
        /// What was to be done.
        doing: &'static str,
    },
    /// Docker is missing, and nothing may be fetched.
    #[error(
        "install the Debian packages {packages}: a private engine needs them, and `--offline` lets nothing be fetched; \
         install them before"
    )]
    Offline {
        /// What is missing.
        packages: String,
    },
    /// This is no Debian.
    #[error("install {packages}: there is no apt-get here; install it in this system's own way")]
    NoPackageManager {
        /// What is missing.
        packages: String,
    },
    /// An installation failed.
    #[error("install packages: `{line}` {how}; what it installed so far stays; it said: {said}")]
    Install {
        /// The command.
        line: String,
        /// How it ended.
        how: String,
        /// The end of its output.
        said: String,
    },
    /// An installation went well and did not help.
    #[error("install packages: the package {package} is installed but there is no `{program}`")]
    StillMissing {
        /// The program.
        program: &'static str,
        /// The package that should have brought it.
        package: &'static str,
    },
    /// There is no docker command, by which kind drives the engine.
    #[error("find the `docker` command, by which kind drives the engine: it is not on PATH; install Docker's client")]
    NoClient,
    /// The private engine did not start.
    #[error("start the private Docker engine: {why}; nothing runs; its log {} ends: {said}", log.display())]
    Start {
        /// What was seen.
        why: String,
        /// The log file.
        log: PathBuf,
        /// The log's last lines.
        said: String,
    },
    /// A private engine of ours runs and does not answer.
    #[error(
        "use the private Docker engine: process {pid} runs but did not answer within {} s; its log {} ends: {said}",
        after.as_secs(), log.display()
    )]
    Hangs {
        /// Its process.
        pid: i32,
        /// How long it was given.
        after: Duration,
        /// The log file.
        log: PathBuf,
        /// The log's last lines.
        said: String,
    },
    /// The private engine did not stop.
    #[error(
        "stop the private Docker engine: process {pid} still runs {} s after SIGTERM; its log is {}; end that process, then \
         run `cargo xtask gc`",
        after.as_secs(), log.display()
    )]
    StillRuns {
        /// Its process.
        pid: i32,
        /// How long it was given.
        after: Duration,
        /// The log file.
        log: PathBuf,
    },
    /// The private engine died.
    #[error(
        "stop the private Docker engine: it is gone, and its containers may still run; its log is {}; run \
         `cargo xtask gc`, which starts it again to end them",
        log.display()
    )]
    Gone {
        /// The log file.
        log: PathBuf,
    },
    /// Another run holds the engine's start lock for too long.
    #[error("wait for another run to start or stop the private Docker engine: {0}")]
    Busy(String),
    /// A socket's path must fit 107 bytes.
    #[error(
        "place the private engine's sockets under {}: {} bytes is too long for a socket's path (107 at most); set \
         DRYDOCK_CACHE to a shorter one", path.display(), path.as_os_str().len()
    )]
    PathTooLong {
        /// The longest of them.
        path: PathBuf,
    },
    /// Every address pool is in use.
    #[error(
        "choose addresses for the private engine: this machine has routes into each of 10.200.0.0/16 to 10.239.0.0/16"
    )]
    NoSubnet,
    /// A system command failed.
    #[error("set up the private engine's network: {0}")]
    Network(#[from] CmdError),
    /// A file or process could not be dealt with.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: String,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// How to find an engine.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Whether the system may be changed: Docker installed, an engine started.
    pub provision: bool,
    /// Whether nothing may be fetched.
    pub offline: bool,
    /// Where an engine may answer, most wanted first.
    pub candidates: Vec<Candidate>,
    /// What kind is told to drive in place of Docker.
    pub other_provider: Option<String>,
    /// The program that is the restricted runtime when it is called [`oci_runtime::NAME`]; by default this one.
    pub runtime: Option<PathBuf>,
}

impl ConnectOptions {
    /// As the environment says.
    pub fn from_env(provision: bool) -> Self {
        Self {
            provision,
            offline: false,
            candidates: resolve::candidates(),
            other_provider: resolve::other_provider(),
            runtime: None,
        }
    }
}

/// What a report and `doctor` say of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineInfo {
    /// Its address.
    pub host: String,
    /// Whether Drydock started it.
    pub private: bool,
    /// Whether its containers cannot have `CAP_SYS_RESOURCE`.
    pub restricted: bool,
    /// Its version.
    pub version: String,
    /// The API version that is spoken with it.
    pub api: String,
    /// Its storage driver.
    pub storage_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// Its default runtime.
    pub default_runtime: String,
    /// Where it keeps its data, on its own machine.
    pub data_root: PathBuf,
    /// Whether it is on this machine, as far as its address tells.
    pub local: bool,
}

/// What there is of a private engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// Its address.
    pub host: String,
    /// Whether it runs, or was killed and has left processes, mounts or the like.
    pub on_machine: bool,
    /// The labs that hold it.
    pub held_by: Vec<String>,
}

/// An engine in use.
#[derive(Debug)]
pub struct Engine {
    docker: Docker,
    info: EngineInfo,
    private: Option<Private>,
}

impl Engine {
    /// The engine that the user means; a private one that runs already; with `provision` a private one started now.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn connect(options: &ConnectOptions, paths: &Paths, events: &Events) -> Result<Self, EngineError> {
        events.step("find a Docker engine", |step| async move { Self::find(options, paths, &step).await }).await
    }

    /// The engine of a lab that exists, at the address that its ledger names. A private engine of this cache that is down
    /// is started: it was permitted when the lab was made, and what is left is on its disk.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn attach(
        host: &str,
        options: &ConnectOptions,
        paths: &Paths,
        events: &Events,
    ) -> Result<Self, EngineError> {
        if host == Private::at(paths).host() {
            let runtime = options.runtime.as_deref();
            let start =
                |step: Step| async move { Self::of_private(Private::start(paths, runtime, &step).await?, &step).await };
            return events.step("reach the private Docker engine", start).await;
        }
        let candidate = Candidate { host: host.to_owned(), origin: Origin::Default };
        match probe::probe(host).await {
            Ok(answer) => Self::of_other(&candidate, answer).await,
            Err(error) => Err(EngineError::Unreachable { candidate: host.to_owned(), why: error.to_string() }),
        }
    }

    /// What there is of a cache's private engine, without using it.
    ///
    /// # Errors
    /// Its folder cannot be read.
    pub fn remains(paths: &Paths) -> Result<Remains, EngineError> {
        let private = Private::at(paths);
        Ok(Remains { host: private.host(), on_machine: private.has_remains(), held_by: private.held_by()? })
    }

    /// Ends the hold of a lab on a cache's private engine, without using it; one that is not there is no error.
    ///
    /// # Errors
    /// The marker file could not be removed.
    pub fn release_hold(paths: &Paths, lab: &str) -> Result<(), EngineError> {
        Private::at(paths).release(lab)
    }

    async fn find(options: &ConnectOptions, paths: &Paths, step: &Step) -> Result<Self, EngineError> {
        if let Some(provider) = &options.other_provider {
            return Err(EngineError::OtherProvider(provider.clone()));
        }
        let (engine, tried) = Self::first_that_answers(options, step).await?;
        let engine = match engine {
            Some(engine) => Some(engine),
            None => match Private::join_running(paths, step).await? {
                Some(private) => Some(Self::of_private(private, step).await?),
                None => None,
            },
        };
        let engine = match engine {
            Some(engine) => engine,
            None if options.provision => Self::provision(options, paths, step).await?,
            None => return Err(EngineError::NoEngine { tried: tried.join("; "), dir: paths.engine() }),
        };
        if programs::find("docker").is_none() {
            return Err(EngineError::NoClient);
        }
        Ok(engine)
    }

    async fn first_that_answers(
        options: &ConnectOptions,
        step: &Step,
    ) -> Result<(Option<Self>, Vec<String>), EngineError> {
        let mut tried = Vec::new();
        for candidate in &options.candidates {
            match probe::probe(&candidate.host).await {
                Ok(answer) => match Self::of_other(candidate, answer).await {
                    // A private one beside it can, unless the user insists on this one.
                    Err(error @ EngineError::CannotPrivilege { .. })
                        if options.provision && candidate.origin != Origin::Variable =>
                    {
                        step.events().note(error.to_string());
                        tried.push(error.to_string());
                    }
                    engine => return engine.map(|engine| (Some(engine), tried)),
                },
                Err(error) if error.is_denied() => {
                    return Err(EngineError::Denied { candidate: candidate.to_string() });
                }
                Err(error) if candidate.origin == Origin::Variable => {
                    return Err(EngineError::Unreachable { candidate: candidate.to_string(), why: error.to_string() });
                }
                Err(error) => tried.push(format!("{candidate}: {error}")),
            }
        }
        Ok((None, tried))
    }

    async fn provision(options: &ConnectOptions, paths: &Paths, step: &Step) -> Result<Self, EngineError> {
        if !rustix::process::geteuid().is_root() {
            return Err(EngineError::NotRoot { doing: "start a Docker engine" });
        }
        create_dir(&paths.engine())?;
        if programs::install_missing(step, &paths.engine(), options.offline).await?
            && Path::new("/run/systemd/system").is_dir()
            && let Some(engine) = Self::await_installed(step).await?
        {
            return Ok(engine);
        }
        let private = Private::start(paths, options.runtime.as_deref(), step).await?;
        Self::of_private(private, step).await
    }

    /// The engine that the package's own unit starts. On a machine without systemd there is none.
    async fn await_installed(step: &Step) -> Result<Option<Self>, EngineError> {
        let candidate = Candidate { host: resolve::DEFAULT_HOST.to_owned(), origin: Origin::Default };
        let host = &candidate.host;
        let answer = poll(step, "systemd to start the engine", AFTER_INSTALL, Duration::from_millis(250), || async {
            Ok::<_, EngineError>(match probe::probe(host).await {
                Ok(answer) => Look::Ready(answer),
                Err(error) => Look::NotYet(error.to_string()),
            })
        });
        match answer.await {
            Ok(answer) => match Self::of_other(&candidate, answer).await {
                Err(EngineError::CannotPrivilege { .. }) => Ok(None),
                engine => engine.map(Some),
            },
            Err(WaitError::TimedOut { .. }) => Ok(None),
            Err(WaitError::Failed(error)) => Err(error),
        }
    }

    async fn of_other(candidate: &Candidate, answer: Answer) -> Result<Self, EngineError> {
        let restricted = answer.bounding.is_some_and(Bounding::is_restricted);
        let engine = Self::new(&candidate.to_string(), &candidate.host, answer, restricted, None).await?;
        if restricted && engine.info.default_runtime == "runc" {
            let runtime = engine.info.default_runtime.clone();
            return Err(EngineError::CannotPrivilege { candidate: candidate.to_string(), runtime });
        }
        Ok(engine)
    }

    async fn of_private(private: Private, step: &Step) -> Result<Self, EngineError> {
        let host = private.host();
        let answer = probe::probe(&host)
            .await
            .map_err(|error| EngineError::Unreachable { candidate: host.clone(), why: error.to_string() })?;
        let restricted = answer.bounding.is_some_and(Bounding::is_restricted);
        let engine = Self::new(&host, &host, answer, restricted, Some(private)).await?;
        step.events().note(format!("using the private Docker engine {} at {host}", engine.info.version));
        Ok(engine)
    }

    async fn new(
        named: &str,
        host: &str,
        answer: Answer,
        restricted: bool,
        private: Option<Private>,
    ) -> Result<Self, EngineError> {
        let api = format!("{}.{}", answer.api.0, answer.api.1);
        if answer.api < OLDEST_API {
            return Err(EngineError::TooOld { candidate: named.to_owned(), version: answer.version, api });
        }
        let said = |source| EngineError::Api { host: host.to_owned(), what: "for its facts", source: Box::new(source) };
        let docker = answer.client(host).map_err(said)?;
        let facts = docker.info().await.map_err(said)?;
        let text = |field: Option<String>| field.unwrap_or_else(|| "unknown".to_owned());
        let cgroup_version = text(facts.cgroup_version.map(|version| version.to_string()));
        if answer.podman && cgroup_version == "1" {
            return Err(EngineError::PodmanCgroupV1 { candidate: named.to_owned(), version: answer.version });
        }
        let version = if answer.podman { format!("podman {}", answer.version) } else { answer.version };
        let info = EngineInfo {
            host: host.to_owned(),
            private: private.is_some(),
            restricted,
            version,
            api,
            storage_driver: text(facts.driver),
            cgroup_version,
            cgroup_driver: text(facts.cgroup_driver.map(|driver| driver.to_string())),
            default_runtime: text(facts.default_runtime),
            data_root: facts.docker_root_dir.map(PathBuf::from).unwrap_or_default(),
            local: host.starts_with("unix://"),
        };
        Ok(Self { docker, info, private })
    }

    /// The engine's address, in `DOCKER_HOST`'s form.
    pub fn host(&self) -> &str {
        &self.info.host
    }

    /// The engine's API.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// A command that uses this engine.
    pub fn cmd(&self, program: impl AsRef<Path>) -> Cmd {
        Cmd::new(program).env("DOCKER_HOST", self.host()).env_remove("DOCKER_CONTEXT")
    }

    /// Whether Drydock started it.
    pub fn is_private(&self) -> bool {
        self.info.private
    }

    /// Whether its containers cannot have `CAP_SYS_RESOURCE`, so that nodes must do without. Read from the engine's own
    /// process; of an engine whose process cannot be seen from here nothing is known, and this is false.
    pub fn restricted(&self) -> bool {
        self.info.restricted
    }

    /// What a report and `doctor` say of it.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// Creates a bridge network with these labels; in a private engine with addresses of its own pool, which alone reach
    /// the outside from there. Returns the network's id.
    ///
    /// # Errors
    /// The engine refused, or all addresses are in use.
    pub async fn create_network(&self, name: &str, labels: HashMap<String, String>) -> Result<String, EngineError> {
        let request = |own: Option<&(String, String)>| NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels.clone()),
            options: own.map(|(bridge, _)| [("com.docker.network.bridge.name".to_owned(), bridge.clone())].into()),
            ipam: own.map(|(_, subnet)| Ipam {
                config: Some(vec![IpamConfig { subnet: Some(subnet.clone()), ..Default::default() }]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let said = |source| EngineError::Api {
            host: self.host().to_owned(),
            what: "to create a network",
            source: Box::new(source),
        };
        let Some(private) = &self.private else {
            return Ok(self.docker.create_network(request(None)).await.map_err(said)?.id);
        };
        let mut refused = None;
        for own in private.subnets() {
            match self.docker.create_network(request(Some(&own))).await {
                Ok(network) => return Ok(network.id),
                // Another network has it; the engine is the one that knows.
                Err(error)
                    if ["overlaps", "same bridge name"].iter().any(|words| error.to_string().contains(words)) =>
                {
                    refused = Some(error);
                }
                Err(error) => return Err(said(error)),
            }
        }
        Err(refused.map_or(EngineError::NoSubnet, said))
    }

    /// Keeps a private engine running for the lab `lab` after this process has left.
    ///
    /// # Errors
    /// The marker file could not be written.
    pub fn hold(&self, lab: &str) -> Result<(), EngineError> {
        self.private.as_ref().map_or(Ok(()), |private| private.hold(lab))
    }

    /// Ends a hold; one that is not there is no error.
    ///
    /// # Errors
    /// The marker file could not be removed.
    pub fn release(&self, lab: &str) -> Result<(), EngineError> {
        self.private.as_ref().map_or(Ok(()), |private| private.release(lab))
    }

    /// Ends the use. A private engine that nobody else uses and no lab holds is stopped.
    ///
    /// # Errors
    /// It could not be stopped.
    pub async fn leave(mut self, events: &Events) -> Result<(), EngineError> {
        match self.private.take() {
            Some(private) => private.leave(events).await,
            None => Ok(()),
        }
    }
}

fn create_dir(path: &Path) -> Result<(), EngineError> {
    std::fs::create_dir_all(path).map_err(|source| EngineError::Io {
        doing: "create the folder".to_owned(),
        path: path.to_owned(),
        source,
    })
}

/// The last `count` lines of a file, or that there are none.
fn tail(path: &Path, count: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.trim().lines().collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines[lines.len().saturating_sub(count)..].join("\n") }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// An engine of which only the answers to `/version` and `/info` exist.
    fn fake_engine(dir: &Path, api: &'static str, runtime: &'static str) -> Candidate {
        let version = format!(r#"{{"Version":"0.0-fake","ApiVersion":"{api}"}}"#);
        answering(dir, version, format!(r#"{{"DefaultRuntime":"{runtime}","DockerRootDir":"/data"}}"#))
    }

    fn answering(dir: &Path, version: String, info: String) -> Candidate {
        let path = dir.join("docker.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let read = stream.read(&mut request).unwrap();
                let body = if request[..read].starts_with(b"GET /version") { &version } else { &info };
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        Candidate { host: format!("unix://{}", path.display()), origin: Origin::Variable }
    }

    async fn connect(dir: &Path, candidates: Vec<Candidate>) -> Result<Engine, String> {
        connect_with(dir, candidates, None).await
    }

    async fn connect_with(
        dir: &Path,
        candidates: Vec<Candidate>,
        other_provider: Option<String>,
    ) -> Result<Engine, String> {
        let options = ConnectOptions { candidates, other_provider, ..ConnectOptions::default() };
        let engine = Engine::connect(&options, &Paths::at(dir.join("cache")), &Events::discard()).await;
        engine.map_err(|error| error.to_string().replace(&dir.display().to_string(), "[dir]"))
    }

    #[tokio::test]
    async fn without_an_engine_the_error_names_the_flag() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = Candidate { host: format!("unix://{}/x.sock", dir.path().display()), origin: Origin::Default };
        insta::assert_snapshot!(connect(dir.path(), vec![nobody]).await.unwrap_err());
        assert!(!dir.path().join("cache").exists(), "looking creates nothing");
    }

    #[tokio::test]
    async fn an_unreachable_docker_host_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = Candidate { host: format!("unix://{}/x.sock", dir.path().display()), origin: Origin::Variable };
        insta::assert_snapshot!(connect(dir.path(), vec![nobody]).await.unwrap_err());
    }

    #[tokio::test]
    async fn an_engine_that_is_too_old_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let old = fake_engine(dir.path(), "1.40", "drydock");
        insta::assert_snapshot!(connect(dir.path(), vec![old]).await.unwrap_err());
    }

    #[tokio::test]
    async fn another_provider_of_kind_is_refused_and_podman_where_no_kubelet_starts_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let version =
            r#"{"Components":[{"Name":"Podman Engine","Version":"4.3.1"}],"Version":"4.3.1","ApiVersion":"1.41"}"#;
        let podman = |cgroups: &str| {
            let dir = dir.path().join(cgroups);
            std::fs::create_dir(&dir).unwrap();
            answering(&dir, version.to_owned(), format!(r#"{{"DefaultRuntime":"crun","CgroupVersion":"{cgroups}"}}"#))
        };
        let provider = Some("podman".to_owned());
        let said = [
            connect_with(dir.path(), Vec::new(), provider).await.unwrap_err(),
            connect(dir.path(), vec![podman("1")]).await.unwrap_err(),
            connect(dir.path(), vec![podman("2")]).await.unwrap().info().version.clone(),
        ];
        insta::assert_snapshot!(said.join("\n"));
    }

    #[tokio::test]
    async fn an_engine_that_cannot_run_privileged_containers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let engine = fake_engine(dir.path(), "1.41", "runc");
        let restricted = Bounding::own().unwrap().is_restricted();
        match connect(dir.path(), vec![engine]).await {
            Err(error) => {
                assert!(restricted, "{error}");
                assert!(error.contains("CAP_SYS_RESOURCE") && error.contains("--provision"), "{error}");
            }
            Ok(engine) => assert!(!restricted && !engine.restricted()),
        }
    }

    #[tokio::test]
    async fn the_users_engine_is_used_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let engine = connect(dir.path(), vec![fake_engine(dir.path(), "1.41", "with-help")]).await.unwrap();
        assert_eq!((engine.info().api.as_str(), engine.is_private()), ("1.41", false));
        let failed = engine.cmd("sh").args(["-c", "echo $DOCKER_HOST; exit 1"]).run().await.unwrap_err().to_string();
        assert!(failed.contains(&format!("it said: {}", engine.host())), "{failed}");
        assert!(!dir.path().join("cache").exists());
    }
}
