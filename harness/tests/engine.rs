//! The private engine, for real: these start Docker engines of their own, and need root and `dockerd`.
#![allow(clippy::unwrap_used, reason = "a test's helper fails as the test does")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use harness::{
    cmd::Output,
    lab::{
        engine::{ConnectOptions, Engine, programs},
        gc::{GcOptions, GcReport, KIND_LABEL, gc, remove_lab},
        ledger::{LAB_LABEL, Ledger},
    },
    paths::Paths,
    run::events::Events,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const ENGINE_USER: &str = env!("CARGO_BIN_EXE_engine-user");

/// A cache folder whose engine is ended with it, also when a test fails half way.
struct Cache(TempDir);

impl Cache {
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root() && programs::find("dockerd").is_some(),
            "these tests start a Docker engine, which needs root and `dockerd`: run `cargo xtask test --provision` as root"
        );
        Self(tempfile::Builder::new().prefix("dd").tempdir().unwrap())
    }

    fn paths(&self) -> Paths {
        Paths::at(self.0.path())
    }

    async fn connect(&self, provision: bool) -> Engine {
        let options = ConnectOptions { provision, runtime: Some(ENGINE_USER.into()), ..ConnectOptions::default() };
        Engine::connect(&options, &self.paths(), &Events::discard()).await.unwrap()
    }

    fn engine(&self) -> Option<Pid> {
        let pid = std::fs::read_to_string(self.paths().engine().join("docker.pid")).ok()?;
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw)?;
        Path::new(&format!("/proc/{}/cmdline", pid.as_raw_nonzero())).exists().then_some(pid)
    }

    /// Everything outside the engine's data that a running engine has.
    fn traces(&self) -> Vec<String> {
        let dir = self.paths().engine();
        let dir = dir.to_str().unwrap();
        let config = std::fs::read_to_string(self.paths().engine().join("daemon.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let bridge = config["bridge"].as_str().unwrap();
        let pool = std::fs::read_to_string(self.paths().engine().join("pool")).unwrap();
        let pool = pool.as_str();
        let processes = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(dir).then(|| format!("process {line}"))
        });
        let rules = output("iptables-save", &[]);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines = rules.lines().filter(|line| line.contains(pool)).map(|line| format!("rule {line}"));
        let mounts = mounts.lines().filter(|line| line.contains(dir)).map(|line| format!("mount {line}"));
        let files = ["docker.sock", "docker.pid", "exec"].map(|name| self.paths().engine().join(name));
        let files = files.iter().filter(|file| file.exists()).map(|file| format!("file {}", file.display()));
        let links = Path::new("/sys/class/net").join(bridge).exists().then(|| format!("bridge {bridge}"));
        processes.chain(lines).chain(mounts).chain(files).chain(links).collect()
    }

    /// What gc may do is the same as a user may.
    async fn gc(&self, all: bool) -> GcReport {
        let connect = ConnectOptions { runtime: Some(ENGINE_USER.into()), ..ConnectOptions::default() };
        gc(&self.paths(), &GcOptions { all, connect }, &Events::discard()).await.unwrap()
    }

    /// The names of all containers, networks and volumes, but for those that every engine has.
    async fn objects(&self) -> Vec<String> {
        let engine = self.connect(true).await;
        let mut names = Vec::new();
        for list in [&["ps", "--all", "--format", "{{.Names}}"][..], &["network", "ls", "--format", "{{.Name}}"]] {
            names.extend(docker(&engine, list).await.unwrap().stdout.lines().map(str::to_owned));
        }
        names.extend(docker(&engine, &["volume", "ls", "-q"]).await.unwrap().stdout.lines().map(str::to_owned));
        engine.leave(&Events::discard()).await.unwrap();
        names.retain(|name| !["bridge", "host", "none"].contains(&name.as_str()));
        names.sort();
        names
    }

    /// A process that uses the engine, once it does, with a lab of this name.
    fn user(&self, lab: Option<&str>) -> Child {
        let mut user = Command::new(ENGINE_USER)
            .arg(self.0.path())
            .args(lab)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut host = String::new();
        BufReader::new(user.stdout.take().unwrap()).read_line(&mut host).unwrap();
        assert!(host.starts_with("unix://"), "the user got no engine");
        user
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // Only after a failure is there one; its data cannot be removed while it runs.
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Some(pid) = self.engine().filter(|_| Instant::now() < deadline) {
            let _ = kill_process(pid, Signal::TERM);
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The bridge `docker0` of an engine that is not ours: the machine's, or a bare one where it has none.
struct UsersBridge {
    made: bool,
}

impl UsersBridge {
    fn new() -> Self {
        let made = !Path::new("/sys/class/net/docker0").exists();
        if made {
            output("ip", &["link", "add", "docker0", "type", "bridge"]);
        }
        Self { made }
    }

    fn index(&self) -> Option<String> {
        std::fs::read_to_string("/sys/class/net/docker0/ifindex").ok()
    }
}

impl Drop for UsersBridge {
    fn drop(&mut self) {
        if self.made {
            output("ip", &["link", "delete", "docker0"]);
        }
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(programs::find(program).unwrap()).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// An image of one static program: it prints its capabilities when asked for `caps`, and else waits for ever.
async fn import_image(engine: &Engine) {
    let dir = tempfile::tempdir().unwrap();
    let source = r#"
        #include <stdio.h>
        #include <string.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            if (argc < 2 || strcmp(argv[1], "caps") != 0) for (;;) pause();
            char line[256];
            FILE *status = fopen("/proc/self/status", "r");
            while (fgets(line, sizeof line, status)) if (!strncmp(line, "CapEff", 6)) fputs(line, stdout);
            return 0;
        }"#;
    std::fs::write(dir.path().join("tool.c"), source).unwrap();
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).current_dir(dir.path()).status().unwrap();
        assert!(status.success(), "{program} {args:?}");
    };
    run("cc", &["-static", "-O1", "-o", "tool", "tool.c"]);
    run("tar", &["cf", "image.tar", "tool"]);
    docker(engine, &["import", dir.path().join("image.tar").to_str().unwrap(), "tool"]).await.unwrap();
}

async fn docker(engine: &Engine, args: &[&str]) -> Result<Output, harness::cmd::CmdError> {
    engine.cmd("docker").args(args).run().await
}

#[tokio::test]
async fn two_users_share_one_engine_and_the_last_to_leave_stops_it() {
    let cache = Cache::new();
    let events = Events::discard();
    let one = cache.connect(true).await;
    let two = cache.connect(true).await;
    assert_eq!(one.info(), two.info());
    assert!(one.is_private() && one.host().contains(cache.0.path().to_str().unwrap()));
    one.leave(&events).await.unwrap();
    two.docker().ping().await.unwrap();
    two.leave(&events).await.unwrap();
    assert_eq!(cache.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn the_engine_outlives_a_killed_user_and_the_next_one_takes_it_over() {
    let cache = Cache::new();
    let mut user = cache.user(None);
    let engine = cache.engine().unwrap();
    user.kill().unwrap();
    user.wait().unwrap();
    let next = cache.connect(false).await;
    assert_eq!(cache.engine(), Some(engine));
    next.leave(&Events::discard()).await.unwrap();
    assert_eq!(cache.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_user_in_another_process_keeps_the_engine() {
    let cache = Cache::new();
    let mut user = cache.user(None);
    cache.connect(false).await.leave(&Events::discard()).await.unwrap();
    assert!(cache.engine().is_some());
    drop(user.stdin.take());
    assert!(user.wait().unwrap().success());
    assert_eq!(cache.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn an_engine_that_was_killed_is_started_anew_with_its_data() {
    let cache = Cache::new();
    let users_bridge = UsersBridge::new();
    let index = users_bridge.index();
    let first = cache.connect(true).await;
    import_image(&first).await;
    first.create_network("left", HashMap::new()).await.unwrap();
    first.create_network("left-too", HashMap::new()).await.unwrap();
    docker(&first, &["run", "--detach", "--network", "left", "--name", "left", "tool", "/tool"]).await.unwrap();
    kill_process(cache.engine().unwrap(), Signal::KILL).unwrap();
    drop(first);

    let next = cache.connect(true).await;
    let left = docker(&next, &["ps", "--all", "--format", "{{.Names}} {{.State}}"]).await.unwrap();
    assert_eq!(left.stdout, "left exited\n");
    docker(&next, &["rm", "--force", "left"]).await.unwrap();
    docker(&next, &["network", "rm", "left", "left-too"]).await.unwrap();
    assert_eq!(users_bridge.index(), index, "an engine that finds its networks again leaves docker0 alone");
    next.leave(&Events::discard()).await.unwrap();
    assert_eq!(cache.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn privileged_containers_run_with_what_the_machine_can_give() {
    let cache = Cache::new();
    let engine = cache.connect(true).await;
    import_image(&engine).await;
    // Docker 20.10 knows the first 38 capabilities and asks for no others.
    let known =
        |line: &str| u64::from_str_radix(line.split_once('\t').unwrap().1.trim(), 16).unwrap() & ((1 << 38) - 1);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let expected = known(status.lines().find(|line| line.starts_with("CapBnd:")).unwrap());
    let run = docker(&engine, &["run", "--rm", "--privileged", "tool", "/tool", "caps"]).await.unwrap();
    assert_eq!(known(&run.stdout), expected);
    docker(&engine, &["run", "--detach", "--privileged", "--name", "waits", "tool", "/tool"]).await.unwrap();
    let exec = docker(&engine, &["exec", "--privileged", "waits", "/tool", "caps"]).await.unwrap();
    assert_eq!(known(&exec.stdout), expected);
    docker(&engine, &["rm", "--force", "waits"]).await.unwrap();
    engine.leave(&Events::discard()).await.unwrap();
}

#[tokio::test]
async fn a_hold_keeps_the_engine_until_it_is_released() {
    let cache = Cache::new();
    let events = Events::discard();
    let engine = cache.connect(true).await;
    engine.hold("lab-1").unwrap();
    engine.leave(&events).await.unwrap();
    let engine = cache.connect(false).await;
    engine.release("lab-1").unwrap();
    engine.release("lab-1").unwrap();
    engine.leave(&events).await.unwrap();
    assert_eq!(cache.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn two_caches_have_engines_side_by_side() {
    let (here, there) = (Cache::new(), Cache::new());
    let events = Events::discard();
    let one = here.connect(true).await;
    let before = output("iptables-save", &["-t", "nat"]);
    let other = there.connect(true).await;
    import_image(&other).await;
    docker(&other, &["run", "--rm", "tool", "/tool", "caps"]).await.unwrap();
    other.leave(&events).await.unwrap();
    let chains = |save: &str| save.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    // Private engines of other tests come and go meanwhile.
    let of_others = |line: &String| line.starts_with("-A") && !line.contains("drydock private engine");
    let rules = |save: &str| chains(save).into_iter().filter(of_others).collect::<Vec<_>>();
    assert_eq!(rules(&output("iptables-save", &["-t", "nat"])), rules(&before), "the other engines' rules stay");
    one.docker().ping().await.unwrap();
    one.leave(&events).await.unwrap();
    assert_eq!(here.traces(), Vec::<String>::new());
}

/// A cache whose engine has the image, a container of someone else's on a cluster of the lab's name, and the lab `one` of
/// a process that lives.
async fn with_a_lab() -> (Cache, Child) {
    let cache = Cache::new();
    let engine = cache.connect(true).await;
    import_image(&engine).await;
    let node = format!("{KIND_LABEL}=drydock-one");
    docker(&engine, &["run", "--detach", "--label", &node, "--name", "not-ours", "tool", "/tool"]).await.unwrap();
    let user = cache.user(Some("one"));
    engine.leave(&Events::discard()).await.unwrap();
    (cache, user)
}

fn kill(mut process: Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

const ALL_AND_ENGINE: [&str; 7] = [
    "container drydock-one-node",
    "container drydock-one-helper",
    "network drydock-one",
    "folder CACHE/work",
    "volume drydock-one",
    "folder of lab one",
    "the private Docker engine (stopped; its images stay)",
];

fn expect_removed(report: &GcReport, cache: &Cache, expected: &[&str]) {
    let cache = cache.0.path().to_str().unwrap();
    let removed: Vec<String> = report.removed.iter().map(|what| what.replace(cache, "CACHE")).collect();
    assert_eq!(removed, expected, "{report}");
}

#[tokio::test]
async fn gc_leaves_a_live_run_alone_and_removes_what_it_left_when_it_was_killed() {
    let (cache, user) = with_a_lab().await;
    let report = cache.gc(false).await;
    assert_eq!(report.removed, Vec::<String>::new());
    assert_eq!(report.spared.len(), 1);
    assert!(report.spared[0].why.starts_with("in use by process "), "{report}");

    kill(user);
    let report = cache.gc(false).await;
    expect_removed(&report, &cache, &ALL_AND_ENGINE);
    assert_eq!(report.spared[0].what, "container not-ours");
    assert!(report.spared[0].why.starts_with("it is not on the lab's network drydock-one"), "{report}");
    assert!(report.left.is_empty(), "{report}");
    assert_eq!(cache.traces(), Vec::<String>::new());
    assert_eq!(cache.objects().await, ["not-ours"]);
}

#[tokio::test]
async fn gc_starts_a_killed_engine_to_remove_what_is_on_its_disk() {
    let (cache, user) = with_a_lab().await;
    let engine = cache.connect(false).await;
    docker(&engine, &["rm", "--force", "not-ours"]).await.unwrap();
    kill(user);
    kill_process(cache.engine().unwrap(), Signal::KILL).unwrap();
    drop(engine);
    let report = cache.gc(false).await;
    expect_removed(&report, &cache, &ALL_AND_ENGINE);
    assert_eq!(report.left, []);
    assert_eq!(cache.traces(), Vec::<String>::new());
    assert_eq!(cache.objects().await, Vec::<String>::new());
    assert_eq!(cache.gc(false).await.to_string(), "nothing to remove");
}

#[tokio::test]
async fn gc_leaves_a_kept_lab_and_its_engine_unless_told_otherwise() {
    let (cache, user) = with_a_lab().await;
    kill(user);
    let engine = cache.connect(false).await;
    docker(&engine, &["rm", "--force", "not-ours"]).await.unwrap();
    engine.hold("one").unwrap();
    Ledger::open(&cache.paths(), "one").unwrap().keep(true).unwrap();
    engine.leave(&Events::discard()).await.unwrap();
    let report = cache.gc(false).await;
    assert_eq!((report.removed.len(), report.spared[0].what.as_str()), (0, "lab one"), "{report}");
    let report = cache.gc(true).await;
    expect_removed(&report, &cache, &ALL_AND_ENGINE);
    assert_eq!(cache.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_lab_is_removed_with_all_that_it_has_made_and_strays_go_too() {
    let (cache, user) = with_a_lab().await;
    kill(user);
    let engine = cache.connect(false).await;
    docker(&engine, &["rm", "--force", "not-ours"]).await.unwrap();
    let label = format!("{LAB_LABEL}=gone");
    docker(&engine, &["run", "--detach", "--label", &label, "--name", "stray", "tool", "/tool"]).await.unwrap();
    let ledger = Ledger::open(&cache.paths(), "one").unwrap();
    let report = remove_lab(&engine, &cache.paths(), ledger, &Events::discard()).await;
    expect_removed(&report, &cache, &ALL_AND_ENGINE[..6]);
    let report = cache.gc(false).await;
    expect_removed(&report, &cache, &["container stray"]);
    engine.leave(&Events::discard()).await.unwrap();
    assert_eq!(cache.traces(), Vec::<String>::new());
}
