//! Fetching from a mirror, for real: a distribution registry with TLS by an authority of its own and a password, in a container
//! of the stand-in's image, that holds images under their upstream names.
//!
//! `cargo xtask test` builds the image, names it in `DRYDOCK_STAND_IN_IMAGE` and sets `DOCKER_HOST`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test's helper fails as the test does")]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::StreamExt;
use harness::{
    run::events::{EventKind, Events},
    source::{
        pin::{self, Found, Pin, What},
        registry::{DockerFiles, Fetched, Registry, RegistryError, fetch},
        versions::Versions,
    },
};
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{Certificate, CertificateEncoding, ClientConfig},
    manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE},
    secrets::RegistryAuth,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{ExecCommand, IntoContainerPort, WaitFor},
    runners::AsyncRunner,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const DEADLINE: Duration = Duration::from_secs(60);

const CONFIG: &str = "version: 0.1
storage:
  filesystem: {rootdirectory: /tmp/storage}
http: {addr: ':5000', tls: {certificate: /tmp/tls/server.crt, key: /tmp/tls/server.key}}
auth: {htpasswd: {realm: mirror, path: /etc/registry/passwd}}
validation: {disabled: true}
";
/// The password `harbor_registry_password`, hashed.
const HTPASSWD: &str = "harbor_registry_user:$2a$10$c4N4Rmyn52sTjRbDY6P9J.W3zY8TZNm2eMwVKWHoiEa.tWhqBaJem\n";
const NAME: &str = "harbor_registry_user";
const PASSWORD: &str = "harbor_registry_password";

/// An authority, and a certificate by it for this machine.
const CERTIFICATES: &str = "set -e
mkdir -p /tmp/tls && cd /tmp/tls
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=the mirror authority' -keyout ca.key -out ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=mirror' -keyout server.key -out server.csr
printf 'subjectAltName=IP:127.0.0.1' > names
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
exec docker-registry serve /etc/registry/config.yml";

/// A running registry.
struct Mirror {
    host: String,
    ca: String,
    _container: ContainerAsync<GenericImage>,
}

fn variable(name: &str) -> String {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.unwrap_or_else(|| panic!("{name} is not set: run `cargo xtask test`, which makes what it names and sets it"))
}

impl Mirror {
    async fn start() -> Self {
        let image = variable("DRYDOCK_STAND_IN_IMAGE");
        let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
        // Other tests of this process may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let container = GenericImage::new(name, tag)
            .with_wait_for(WaitFor::message_on_stderr("listening on"))
            .with_exposed_port(5000.tcp())
            .with_cmd(["sh", "-c", CERTIFICATES])
            .with_network(variable("DRYDOCK_TEST_NETWORK"))
            .with_user("10000")
            .with_startup_timeout(DEADLINE)
            .with_copy_to("/etc/registry/config.yml", CONFIG.as_bytes().to_vec())
            .with_copy_to("/etc/registry/passwd", HTPASSWD.as_bytes().to_vec())
            .start()
            .await
            .unwrap();
        let host = format!("127.0.0.1:{}", container.get_host_port_ipv4(5000.tcp()).await.unwrap());
        let mut read = container.exec(ExecCommand::new(["cat", "/tmp/tls/ca.crt"])).await.unwrap();
        let ca = String::from_utf8(read.stdout_to_vec().await.unwrap()).unwrap();
        Self { host, ca, _container: container }
    }

    /// Docker's files of someone who trusts the authority, and has this password.
    fn docker(&self, host: &str, password: &str, trusts: bool) -> (DockerFiles, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let docker =
            DockerFiles { config: dir.path().join("config.json"), certificates: vec![dir.path().join("certs.d")] };
        let auth = BASE64_STANDARD.encode(format!("{NAME}:{password}"));
        fs::write(&docker.config, json!({"auths": {host: {"auth": auth}}}).to_string()).unwrap();
        let folder = docker.certificates[0].join(host);
        fs::create_dir_all(&folder).unwrap();
        if trusts {
            fs::write(folder.join("ca.crt"), &self.ca).unwrap();
        }
        (docker, dir)
    }

    fn client(&self, host: &str, password: &str, trusts: bool) -> (Registry, TempDir) {
        let (docker, dir) = self.docker(host, password, trusts);
        let mirror = format!("{host}/hub").parse().unwrap();
        (Registry::new(Some(mirror), docker).unwrap(), dir)
    }

    /// Pushes an index of two images, one for this machine, as `hub/REPOSITORY:TAG`, and gives the image's digest and the index's.
    async fn push(&self, repository: &str, tag: &str, layers: &[Vec<u8>]) -> (String, String) {
        let client = Client::new(ClientConfig {
            tls_certs_only: vec![Certificate {
                encoding: CertificateEncoding::Pem,
                data: self.ca.clone().into_bytes(),
            }],
            ..Default::default()
        });
        let at = Reference::with_tag(self.host.clone(), format!("hub/{repository}"), tag.to_owned());
        let auth = RegistryAuth::Basic(NAME.to_owned(), PASSWORD.to_owned());
        client.auth(&at, &auth, RegistryOperation::Push).await.unwrap();
        let mut entries = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let config = json!({"os": "linux", "architecture": architecture}).to_string().into_bytes();
            let mut described = Vec::new();
            for blob in layers.iter().chain([&config]) {
                client.push_blob(&at, blob.clone(), &digest(blob)).await.unwrap();
                let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
                described.push(json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()}));
            }
            let mut config = described.pop().unwrap();
            config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
            let manifest =
                json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_MEDIA_TYPE, "config": config, "layers": described});
            let manifest = manifest.to_string().into_bytes();
            let named = at.clone_with_digest(digest(&manifest));
            client.push_manifest_raw(&named, manifest.clone(), OCI_IMAGE_MEDIA_TYPE.parse().unwrap()).await.unwrap();
            entries.push(json!({
                "mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": digest(&manifest), "size": manifest.len(),
                "platform": {"os": "linux", "architecture": architecture}
            }));
        }
        let this = usize::from(std::env::consts::ARCH == "aarch64");
        let image = entries[this]["digest"].as_str().unwrap().to_owned();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": entries});
        let index = index.to_string().into_bytes();
        client.push_manifest_raw(&at, index.clone(), OCI_IMAGE_INDEX_MEDIA_TYPE.parse().unwrap()).await.unwrap();
        (image, digest(&index))
    }

    /// A way to the registry that breaks off once, after so many bytes of an answer.
    async fn broken_after(&self, bytes: u64) -> (String, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (host, to) = (listener.local_addr().unwrap().to_string(), self.host.clone());
        let cuts = Arc::new(AtomicU64::new(0));
        let counted = cuts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&to).await.unwrap();
                let cuts = counted.clone();
                tokio::spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                    let (mut passed, mut chunk) = (0, vec![0; 64 * 1024]);
                    while let Ok(read @ 1..) = from_server.read(&mut chunk).await {
                        passed += read as u64;
                        if passed > bytes && cuts.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                            return;
                        }
                        if to_client.write_all(&chunk[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (host, cuts)
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What no compression makes smaller.
fn noise(size: usize) -> Vec<u8> {
    std::iter::repeat_with(rand::random::<u64>).flat_map(u64::to_le_bytes).take(size).collect()
}

async fn fetched(client: &Registry, image: &str, dir: &Path) -> (Result<Fetched, RegistryError>, Vec<String>) {
    let (events, receiver) = Events::channel();
    let fetched = events.step("fetch", |step| async move { fetch(client, image, dir, &step).await }).await;
    drop(events);
    let notes = receiver.iter().filter_map(|event| match event.kind {
        EventKind::Note { text } => Some(text),
        _ => None,
    });
    (fetched, notes.collect())
}

fn holds(dir: &Path, bytes: &[u8]) -> bool {
    let path = dir.join("blobs").join(digest(bytes).replace(':', "/"));
    fs::read(path).is_ok_and(|read| read == bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_image_comes_from_the_mirror_by_tag_and_by_digest() {
    let mirror = Mirror::start().await;
    let layers = [noise(100_000), noise(200_000)];
    let (image, index) = mirror.push("goharbor/harbor-core", "v2.13.1", &layers).await;
    let (client, dir) = mirror.client(&mirror.host, PASSWORD, true);

    let upstream = "docker.io/goharbor/harbor-core:v2.13.1";
    for name in [upstream.to_owned(), format!("{upstream}@{index}"), format!("goharbor/harbor-core@{image}")] {
        let layout = dir.path().join(digest(name.as_bytes()));
        let (fetched, notes) = fetched(&client, &name, &layout).await;
        let fetched = fetched.unwrap();
        assert_eq!((&*fetched.media_type, &fetched.digest), (OCI_IMAGE_MEDIA_TYPE, &image), "{name}");
        assert!(fetched.name.starts_with("docker.io/goharbor/harbor-core"), "{}", fetched.name);
        assert!(layers.iter().all(|layer| holds(&layout, layer)), "{name}");
        assert_eq!(notes, [""; 0]);
    }

    // An official image, with its short name.
    let (image, index) = mirror.push("library/busybox", "1.36.1", &layers[..1]).await;
    let (busybox, _) = fetched(&client, &format!("busybox:1.36.1@{index}"), &dir.path().join("busybox")).await;
    assert_eq!(busybox.unwrap().digest, image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_resumed_where_it_broke_off() {
    let mirror = Mirror::start().await;
    let layer = noise(8 << 20);
    mirror.push("kindest/node", "v1.34.0", std::slice::from_ref(&layer)).await;
    let (host, cuts) = mirror.broken_after(3 << 20).await;
    let (client, dir) = mirror.client(&host, PASSWORD, true);

    let (fetched, notes) = fetched(&client, "kindest/node:v1.34.0", dir.path()).await;
    fetched.unwrap();
    assert_eq!(cuts.load(Ordering::SeqCst), 1, "the connection was not cut at all");
    assert!(holds(dir.path(), &layer));
    assert_eq!(notes.len(), 1, "{notes:?}");
    let at = notes[0].split_once("cut the connection at ").unwrap().1.split_once(' ').unwrap().0;
    let at: u64 = at.parse().unwrap();
    assert!((2 << 20..=3 << 20).contains(&at), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_is_looked_up_at_the_registry() {
    const PINNED: &str = include_str!("../../fixtures/versions.toml");
    let mirror = Mirror::start().await;
    let (_, core) = mirror.push("goharbor/harbor-core", "v2.13.1", &[noise(100)]).await;
    let (_, busybox) = mirror.push("library/busybox", "1.36.1", &[noise(100)]).await;
    let (_, old) = mirror.push("rancher/local-path-provisioner", "v0.0.31", &[noise(100)]).await;
    let (_, new) = mirror.push("rancher/local-path-provisioner", "v0.0.31", &[noise(100)]).await;
    let (client, _dir) = mirror.client(&mirror.host, PASSWORD, true);

    let versions = Versions::parse("versions.toml", PINNED).unwrap();
    let with_digest = |text: String, name: &str, digest: Option<&str>| {
        let pinned = versions.images().into_iter().find(|image| image.starts_with(name)).unwrap();
        let tag = pinned.split('@').next().unwrap();
        text.replace(pinned, &digest.map_or(tag.to_owned(), |digest| format!("{tag}@{digest}")))
    };
    // The charts' list is asked for too, and nobody answers.
    let text = PINNED.replace(&versions.harbor_chart.repository, "http://127.0.0.1:1");
    let text = with_digest(text, "docker.io/goharbor/harbor-core:v2.13.1", None);
    let text = with_digest(text, "docker.io/library/busybox:", Some(&busybox));
    let text = with_digest(text, "docker.io/rancher/", Some(&old));
    let pinned = Versions::parse("versions.toml", &text).unwrap();

    let found: Vec<Pin> = pin::look_up(&pinned, &client).collect().await;
    let of = |name: &str| {
        let what = |pin: &&Pin| matches!(&pin.what, What::Image(image) if image.contains(name));
        found.iter().find(what).unwrap().found.clone()
    };
    assert_eq!(of("goharbor/harbor-core:v2.13.1"), Found::New(core.clone()));
    assert_eq!(of("busybox"), Found::Same);
    assert_eq!(of("rancher"), Found::TagMoved(new));
    // It is not there at all.
    assert!(matches!(of("kindest/node:v1.34.0"), Found::Amiss(why) if why.contains("404")));
    let filled = pin::fill(&text, &found);
    assert_eq!(filled, text.replace("harbor-core:v2.13.1\"", &format!("harbor-core:v2.13.1@{core}\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mirror_refuses_is_said_with_what_to_do() {
    let mirror = Mirror::start().await;
    mirror.push("library/busybox", "1.36.1", &[noise(100)]).await;
    let mut texts = Vec::new();
    for (what, image, password, trusts) in [
        ("a wrong password", "busybox:1.36.1", "wrong", true),
        ("an unknown authority", "busybox:1.36.1", PASSWORD, false),
        ("an unknown tag", "busybox:1.37", PASSWORD, true),
        ("an unknown image", "kindest/node:v1.34.0", PASSWORD, true),
    ] {
        let (client, dir) = mirror.client(&mirror.host, password, trusts);
        let layout = dir.path().join("layout");
        let text = fetched(&client, image, &layout).await.0.unwrap_err().to_string();
        assert!(!layout.exists(), "{what}: something was written");
        let text = text.replace(&mirror.host, "HOST").replace(dir.path().to_str().unwrap(), "DIR");
        // The system's store is where this machine's variables say.
        let text = match (text.find("looked at "), text.find("DIR/certs.d")) {
            (Some(from), Some(to)) => format!("{}looked at SYSTEM, {}", &text[..from], &text[to..]),
            _ => text,
        };
        texts.push(format!("{what}:\n  {text}"));
    }
    // The certificate is made out to an address, not to this name.
    let (client, dir) = mirror.client(&mirror.host.replace("127.0.0.1", "localhost"), PASSWORD, true);
    let text = fetched(&client, "busybox:1.36.1", dir.path()).await.0.unwrap_err().to_string();
    let port = mirror.host.rsplit_once(':').unwrap().1;
    texts.push(format!("another name:\n  {}", text.replace(port, "PORT")));
    insta::assert_snapshot!(texts.join("\n"));
}
