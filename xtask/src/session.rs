//! What the commands that need a lab share: reading what is pinned, finding an engine, preparing a source, making a lab, and
//! cleaning up after it, however it ended.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
};

use harness::{
    lab::{
        Lab,
        cluster::{self, LabSpec, Parts},
        diagnose,
        engine::{ConnectOptions, Engine},
        gate::Gate,
        gc,
        guest::{self, target::Target},
        ledger::{LAB_LABEL, Ledger, NewLab, Thing},
        preflight::{self, Wanted},
    },
    paths::Paths,
    report::evidence::Evidence,
    run::{
        cancel::{Cancel, Ended},
        events::{Events, LabFacts},
    },
    source::{
        self, Pins, Prepared, Site, SourceChoice, SourceError, SourceKind, bundle::BundleError, engine::EngineRef,
        mirror::Mirror, packages::PackagesError, store::StoreError, versions::Versions,
    },
};

use crate::{LabArgs, exit::Failure};

/// What is known before anything is created.
#[derive(Clone)]
pub struct Setup {
    pub root: PathBuf,
    pub paths: Paths,
    pub pins: Pins,
    pub source: SourceChoice,
    pub mirror: Option<Mirror>,
    pub provision: bool,
    pub offline: bool,
    pub containerd_config_3: bool,
    /// The cluster to make the lab in, where it is there already.
    pub guest: Option<Target>,
}

impl Setup {
    /// Reads what is pinned and where things are kept.
    pub fn read(args: &LabArgs) -> Result<Self, Failure> {
        let versions = Versions::load(&crate::root().join("fixtures/versions.toml")).map_err(Failure::input)?;
        let source = args.source()?;
        let asked = match source {
            // It has one of its own, which need not be pinned.
            SourceChoice::Bundle { .. } => None,
            _ => args.k8s.as_deref(),
        };
        let kubernetes = versions.kubernetes(asked).map_err(Failure::input)?;
        let harbor = versions.harbor(args.harbor.as_deref()).map_err(Failure::input)?;
        Ok(Self {
            root: crate::root(),
            paths: Paths::from_env().map_err(Failure::input)?,
            pins: Pins::new(&versions, kubernetes, harbor),
            source,
            mirror: args.mirror.clone(),
            provision: args.provision,
            offline: args.offline,
            containerd_config_3: args.containerd_config == Some(3),
            guest: None,
        })
    }

    /// Where a lab is prepared.
    pub fn site<'a>(&'a self, events: &'a Events) -> Site<'a> {
        Site {
            root: &self.root,
            paths: &self.paths,
            pins: &self.pins,
            mirror: self.mirror.as_ref(),
            offline: self.offline,
            events,
        }
    }

    /// How an engine is found.
    pub fn connect(&self) -> ConnectOptions {
        ConnectOptions { offline: self.offline, ..ConnectOptions::from_env(self.provision) }
    }
}

/// A session: what was started and has to be ended. Cheap to clone; every clone is the same session, so that what the work
/// has started can be ended by someone else when the work is dropped half way.
#[derive(Clone)]
pub struct Session {
    setup: Setup,
    events: Events,
    held: Arc<Mutex<Held>>,
    /// The engine of all sessions side by side, as long as one of them holds it.
    engine: Arc<tokio::sync::Mutex<Weak<Engine>>>,
    /// Prepared once: all labs of a run are made of the same parts.
    prepared: Arc<tokio::sync::OnceCell<(SourceKind, Prepared)>>,
    /// What lets nothing out, where the run is offline.
    gate: Arc<tokio::sync::OnceCell<Gate>>,
}

#[derive(Default)]
struct Held {
    engine: Option<Arc<Engine>>,
    ledger: Option<Ledger>,
}

/// What of a lab a command asks for.
pub struct LabWish {
    /// The lab's id.
    pub id: String,
    /// A port of 127.0.0.1 that leads to Harbor.
    pub port: Option<u16>,
    /// How many labs are made at once, this one among them.
    pub at_once: usize,
}

impl Session {
    /// A session that has started nothing yet.
    pub fn new(setup: Setup, events: Events) -> Self {
        Self {
            setup,
            events,
            held: Arc::default(),
            engine: Arc::default(),
            prepared: Arc::default(),
            gate: Arc::default(),
        }
    }

    /// A session for another lab on the same engine. The last one that ends leaves it.
    pub fn beside(&self) -> Self {
        Self {
            held: Arc::new(Mutex::new(Held { engine: self.hold(|held| held.engine.clone()), ledger: None })),
            ..self.clone()
        }
    }

    /// This session, told of elsewhere from now on.
    pub fn with_events(&self, events: Events) -> Self {
        Self { events, ..self.clone() }
    }

    /// Where things are kept.
    pub fn paths(&self) -> &Paths {
        &self.setup.paths
    }

    /// Takes over a lab that was kept, and reaches its engine.
    pub async fn take_over(&self, lab: &str) -> Result<Arc<Engine>, Failure> {
        let paths = &self.setup.paths;
        let ledger = Ledger::open(paths, lab).map_err(Failure::input)?;
        let host = ledger.record().docker_host.clone();
        let engine = Engine::attach(&host, &self.setup.connect(), paths, &self.events).await.map_err(Failure::lab)?;
        let engine = Arc::new(engine);
        self.hold(|held| (held.engine, held.ledger) = (Some(engine.clone()), Some(ledger)));
        Ok(engine)
    }

    /// The engine, found or started.
    pub async fn engine(&self) -> Result<Arc<Engine>, Failure> {
        if let Some(engine) = self.hold(|held| held.engine.clone()) {
            return Ok(engine);
        }
        // Sessions side by side begin at once, and only one of them may install what is missing.
        let mut shared = self.engine.lock().await;
        let engine = match shared.upgrade() {
            Some(engine) => engine,
            None => {
                let engine = Engine::connect(&self.setup.connect(), &self.setup.paths, &self.events).await;
                let engine = Arc::new(engine.map_err(Failure::input)?);
                *shared = Arc::downgrade(&engine);
                engine
            }
        };
        self.hold(|held| held.engine = Some(engine.clone()));
        Ok(engine)
    }

    /// Tools and images, fetched or built where missing.
    async fn prepare(&self, engine: &Engine) -> Result<(SourceKind, Prepared), Failure> {
        source::prepare(&self.setup.source, &engine_ref(engine), self.setup.site(&self.events)).await.map_err(refused)
    }

    /// Checks this machine, prepares the source and makes a lab. Whatever is created is in the ledger first.
    pub async fn lab(&self, wish: &LabWish) -> Result<(Lab, LabFacts), Failure> {
        let setup = &self.setup;
        let engine = self.engine().await?;
        if let Some(target) = &setup.guest {
            return self.guest_lab(&engine, target, &wish.id).await;
        }
        let wanted = Wanted {
            cold: !setup.paths.artifacts().exists(),
            ports: wish.port.into_iter().collect(),
            cluster: Some(wish.id.clone()),
            labs: wish.at_once,
        };
        if setup.provision
            && let Some(raised) = preflight::raise_inotify_instances(wish.at_once).map_err(|error| {
                Failure::input(anyhow::anyhow!(
                    "raise the limit of inotify instances for {} lab(s): {error}",
                    wish.at_once
                ))
            })?
        {
            self.events.note(raised);
        }
        let checks = preflight::checks(Ok(&engine), &setup.paths, &wanted).await;
        for check in checks.iter().filter(|check| check.outcome == preflight::Outcome::Warn) {
            self.events.note(format!("warning: {check}"));
        }
        preflight::refuse_on_failure(&checks).map_err(Failure::input)?;
        let (kind, prepared) = self.prepared.get_or_try_init(|| self.prepare(&engine)).await?.clone();
        let dir = self.begin(&engine, &wish.id, &[Thing::Cluster { name: wish.id.clone() }])?;
        if setup.offline {
            let gate = self.gate.get_or_try_init(|| Gate::shut(&self.events)).await.map_err(Failure::lab)?;
            gate.stand_before(&dir).map_err(Failure::lab)?;
        }
        let spec = LabSpec { id: wish.id.clone(), dir, port: wish.port };
        cluster::create(&engine, &parts(kind, prepared, setup.containerd_config_3), &spec, &self.events)
            .await
            .map_err(Failure::lab)
    }

    /// Sees, where the run is offline, what of the lab has pulled images.
    pub async fn look_at_pulls(&self, lab: &Lab) -> Result<(), Failure> {
        match self.gate.get() {
            Some(gate) => gate.look_at_pulls(lab).await.map_err(Failure::lab),
            None => Ok(()),
        }
    }

    /// Fails where the run is offline and something tried to leave the machine.
    pub fn stayed(&self) -> Result<(), Failure> {
        let attempts = self.gate.get().map(Gate::attempts).unwrap_or_default();
        match attempts.is_empty() {
            true => Ok(()),
            false => Err(Failure::left(&attempts)),
        }
    }

    /// Makes a lab in a cluster that is there already, when it was looked at. Whatever is changed can be put back from the ledger's
    /// folder, and is named there first.
    async fn guest_lab(&self, engine: &Engine, target: &Target, id: &str) -> Result<(Lab, LabFacts), Failure> {
        let (kind, prepared) = self.prepared.get_or_try_init(|| self.prepare(engine)).await?.clone();
        let parts = parts(kind, prepared, self.setup.containerd_config_3);
        let before = crate::guest::look(target, &guest::images(&parts), &self.events).await?;
        let dir = self.open_ledger(engine, id)?;
        guest::remember(id, &dir, target, &before, &parts).map_err(Failure::lab)?;
        self.record(&[Thing::Guest { context: before.context.clone(), server: before.server.clone() }])?;
        guest::create(id, dir, &before, &parts, &self.events).await.map_err(Failure::lab)
    }

    /// A Docker network for the containers of tests. It goes with the session.
    pub async fn test_network(&self, engine: &Engine) -> Result<String, Failure> {
        let id = new_id();
        self.begin(engine, &id, &[])?;
        let labels = [(LAB_LABEL.to_owned(), id.clone())].into();
        engine.create_network(&id, labels).await.map_err(Failure::lab)?;
        Ok(id)
    }

    /// Opens a ledger for `id` with its network and `things`, before any of them is made, and returns its folder.
    fn begin(&self, engine: &Engine, id: &str, things: &[Thing]) -> Result<PathBuf, Failure> {
        let dir = self.open_ledger(engine, id)?;
        self.record(&[Thing::Network { name: id.to_owned() }])?;
        self.record(things)?;
        Ok(dir)
    }

    /// Opens a ledger for `id` and returns its folder.
    fn open_ledger(&self, engine: &Engine, id: &str) -> Result<PathBuf, Failure> {
        let new = NewLab {
            lab: id.to_owned(),
            cluster: id.to_owned(),
            docker_host: engine.host().to_owned(),
            network: id.to_owned(),
            // Only what was made whole is kept: see `keep_lab`.
            keep: false,
        };
        let ledger = Ledger::create(&self.setup.paths, new).map_err(Failure::input)?;
        let dir = ledger.dir().to_owned();
        self.hold(|held| held.ledger = Some(ledger));
        Ok(dir)
    }

    /// Writes down what is about to be made.
    fn record(&self, things: &[Thing]) -> Result<(), Failure> {
        let recorded = self.hold(|held| {
            let mut ledger = held.ledger.iter_mut();
            ledger.try_for_each(|ledger| things.iter().try_for_each(|thing| ledger.add(thing.clone())))
        });
        recorded.map_err(Failure::lab)
    }

    /// Keeps what a failed lab says of itself.
    pub async fn gather(&self, evidence: &Evidence) {
        let (engine, lab) = self.hold(|held| {
            let lab = held.ledger.as_ref().map(|ledger| (ledger.record().lab.clone(), ledger.dir().to_owned()));
            (held.engine.clone(), lab)
        });
        let (Some(engine), Some((id, dir))) = (engine, lab) else { return };
        let phase = evidence.phase("lab", &id, "failure");
        let nodes = match guest::recall(&dir) {
            Ok(before) => guest::nodes(&dir, &before),
            Err(_) => cluster::nodes(engine.docker(), &id),
        };
        let gathered = self.events.step("gather evidence", |step| async move {
            diagnose::gather(&dir, &nodes, &phase, &step).await;
            Ok::<_, Failure>(())
        });
        // It cannot fail: what does not answer is told in its file.
        let _ = gathered.await;
    }

    /// Ends what was started. With `keep` the lab stays, and with it the engine that it needs.
    pub async fn end(self, keep: bool) -> Result<(), Failure> {
        let removed = if keep { self.keep_lab() } else { self.remove_lab().await };
        let engine = self.hold(|held| held.engine.take());
        if let Some(engine) = engine.and_then(Arc::into_inner) {
            engine.leave(&self.events).await.map_err(Failure::lab)?;
        }
        removed
    }

    /// Removes the lab, if there is one, and whatever of it was made.
    pub async fn remove_lab(&self) -> Result<(), Failure> {
        let (engine, ledger) = self.hold(|held| (held.engine.clone(), held.ledger.take()));
        let (Some(engine), Some(ledger)) = (engine, ledger) else { return Ok(()) };
        let report = gc::remove_lab(&engine, &self.setup.paths, ledger, &self.events).await;
        if report.left.is_empty() {
            return Ok(());
        }
        let left: Vec<String> = report.left.iter().map(|left| format!("{} ({})", left.what, left.why)).collect();
        let left = left.join("; ");
        Err(Failure::lab(anyhow::anyhow!("clean up: still there: {left}; `cargo xtask gc` tries again")))
    }

    fn keep_lab(&self) -> Result<(), Failure> {
        let (engine, ledger) = self.hold(|held| (held.engine.clone(), held.ledger.take()));
        let (Some(engine), Some(mut ledger)) = (engine, ledger) else { return Ok(()) };
        let lab = ledger.record().lab.clone();
        ledger.keep(true).and_then(|()| ledger.add(Thing::EngineHold)).map_err(Failure::lab)?;
        engine.hold(&lab).map_err(Failure::lab)
    }

    fn hold<T>(&self, access: impl FnOnce(&mut Held) -> T) -> T {
        access(&mut self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Runs `work` until it ends, panics, or a signal comes. What it started is still there afterwards, for [`Session::end`].
pub async fn guarded<W>(events: &Events, work: W) -> Result<(), Failure>
where
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let cancel = Cancel::on_signals(events).map_err(Failure::lab)?;
    match cancel.guard(work, async {}).await {
        Ended::Finished(result) => result,
        Ended::Interrupted(signal) => Err(Failure::interrupted(signal)),
        Ended::Panicked(message) => Err(Failure::lab(anyhow::anyhow!("a defect in Drydock: {message}"))),
    }
}

/// The engine, as the sources know it.
pub fn engine_ref(engine: &Engine) -> EngineRef {
    EngineRef { host: engine.host().to_owned(), docker: engine.docker().clone() }
}

fn parts(kind: SourceKind, prepared: Prepared, containerd_config_3: bool) -> Parts {
    let Prepared { tools, harbor, .. } = prepared;
    // JSON is YAML.
    let extra_values = harbor.values.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
    Parts {
        source: kind.to_string(),
        kind: tools.kind,
        kubectl: tools.kubectl,
        helm: tools.helm,
        crane: tools.crane,
        node_image: prepared.node_image,
        network: prepared.network,
        containerd_config_3,
        local_path: prepared.local_path_manifest,
        chart: prepared.chart,
        extra_values,
        harbor_kind: harbor.kind,
    }
}

/// A bundle that cannot be used is bad input; what else fails is the lab's.
pub fn refused(error: SourceError) -> Failure {
    match error {
        SourceError::Bundle(BundleError::Node(_) | BundleError::Store(_)) => Failure::lab(error),
        SourceError::Bundle(_) | SourceError::NoStandIn { .. } => Failure::input(error),
        SourceError::Packages(PackagesError::Store(StoreError::Offline { .. })) => Failure::input(error),
        _ => Failure::lab(error),
    }
}

/// Keeps the passwords and secrets of the lab's Harbor out of what is kept.
pub fn hide_secrets(lab: &Lab, evidence: &Evidence) {
    let accounts = &lab.harbor.accounts;
    for secret in
        [&accounts.admin.secret, &accounts.initial_password, &accounts.member.secret, &accounts.robot().secret]
    {
        evidence.hide(secret);
    }
}

/// A new lab's id. Two runs at once differ in the process, two runs after each other in the time.
pub fn new_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("drydock-{:x}-{:x}", now.as_secs() & 0xff_ffff, std::process::id())
}

/// Where a kept lab is, in lines for a person.
pub fn how_to_reach(lab: &Lab, facts: &LabFacts) -> String {
    let kubeconfig: PathBuf = lab.kubeconfig();
    format!(
        "lab        {}\n\
         kubeconfig {}\n\
         tools      {}\n\
         Harbor     {} ({}), admin / {}\n\
         remove it  cargo xtask down {}",
        lab.id,
        kubeconfig.display(),
        lab.tools.display(),
        lab.harbor.url(),
        facts.harbor.kind,
        lab.harbor.accounts.admin.secret,
        lab.id
    )
}
