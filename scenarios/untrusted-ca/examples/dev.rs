use harness::{
    harbor::*,
    lab::{node::*, *},
    report::evidence::Evidence,
    run::{
        events::*,
        runner::{self, Scenario},
    },
};
#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (events, rx) = Events::channel();
    std::thread::spawn(move || {
        for e in rx {
            if !matches!(e.kind, EventKind::StepWaiting { .. } | EventKind::Evidence { .. }) {
                println!("{}", serde_json::to_string(&e).unwrap());
            }
        }
    });
    let docker = bollard::Docker::connect_with_unix("/tmp/lab/dev/docker.sock", 600, bollard::API_DEFAULT_VERSION)
        .unwrap()
        .negotiate_version()
        .await
        .unwrap();
    let dir = std::path::PathBuf::from("/tmp/lab/mylab");
    let kc = kube::config::Kubeconfig::read_from(dir.join("kubeconfig")).unwrap();
    let client =
        kube::Client::try_from(kube::Config::from_custom_kubeconfig(kc, &Default::default()).await.unwrap()).unwrap();
    let values = std::fs::read_to_string(dir.join("values.yaml")).unwrap();
    let host = values.split("externalURL: https://").nth(1).unwrap().lines().next().unwrap().to_owned();
    let n = |a: &str, b: &str, c| Node::new(docker.clone(), a, b, c);
    let lab = Lab {
        id: "mylab".into(),
        dir,
        docker_host: "unix:///tmp/lab/dev/docker.sock".into(),
        client,
        nodes: vec![
            n("mylab-control-plane", "mylab-control-plane", true),
            n("worker1", "mylab-worker", false),
            n("worker2-gpu", "mylab-worker2", false),
        ],
        harbor: Harbor {
            host,
            namespace: "harbor".into(),
            release: "harbor".into(),
            admin_password: "Harbor12345".into(),
        },
        tools: "/tmp/lab/tools".into(),
        chart: "/work/main/fixtures/charts/harbor-stand-in".into(),
    };
    let s = untrusted_ca::UntrustedCa::new().unwrap();
    let a: Vec<String> = std::env::args().skip(1).collect();
    let cells: Vec<_> =
        s.spec().cells().into_iter().filter(|c| a.is_empty() || a.iter().any(|x| c.path().starts_with(x))).collect();
    let ev = Evidence::new(Some("/tmp/lab/ev".into())).unwrap();
    let results = std::sync::Mutex::new(vec![]);
    let all: Vec<Box<dyn Scenario>> = vec![Box::new(s)];
    let t = std::time::Instant::now();
    let r = runner::run(&lab, &all, &cells, &events, &ev, &results).await;
    println!("{:?} {:?}", r.map_err(|e| e.to_string()), t.elapsed());
    for c in results.into_inner().unwrap() {
        println!("{} {}/{} {} {:.1} {}", c.as_expected, c.variant, c.procedure, c.verdict, c.seconds, c.reason);
    }
}
