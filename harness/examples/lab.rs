use harness::{lab::cluster::*, run::events::*};
#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (events, rx) = Events::channel();
    std::thread::spawn(move || { for e in rx { println!("{}", serde_json::to_string(&e).unwrap()); } });
    let host = "unix:///tmp/lab/dev/docker.sock";
    let docker = bollard::Docker::connect_with_unix("/tmp/lab/dev/docker.sock", 600, bollard::API_DEFAULT_VERSION).unwrap().negotiate_version().await.unwrap();
    let dir = std::path::PathBuf::from("/tmp/lab/mylab"); std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all("/tmp/lab/tools").unwrap();
    let a: Vec<String> = std::env::args().collect();
    let parts = Parts { source: "packages".into(), kind: "/tmp/lab/pk/out/kind".into(), tools: "/tmp/lab/tools".into(), node_image: a[1].clone(), own_network: true,
        local_path: std::fs::read_to_string("/tmp/lab/pk/c/lp.yaml").unwrap(), chart: Chart::Folder("/work/main/fixtures/charts/harbor-stand-in".into()),
        extra_values: format!("standIn:\n  image: {}\n", a[2]), harbor_kind: HarborKind::StandIn };
    let spec = LabSpec { id: "mylab".into(), dir, docker_host: host.into(), port: None, restricted: true };
    match create(&docker, &parts, &spec, &events).await { Ok((_, f)) => println!("{f:?}"), Err(e) => println!("ERR {e}") }
}
