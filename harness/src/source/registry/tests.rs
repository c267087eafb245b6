//! Against a server on loopback that does as it is told: what no real registry does on demand.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{TimeZone, Utc};
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    error::{Unanswered, said},
    *,
};
use crate::run::events::{EventKind, Events};

/// A request as it came.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What is to be answered.
#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Where the body breaks off.
    cut: Option<usize>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }

    /// A registry's error.
    fn error(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, json!({"errors": [{"code": code, "message": message}]}).to_string())
    }
}

type Behaviour = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// A plain HTTP server that does as it is told, and remembers what it was asked.
struct Server {
    host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    behaviour: Arc<Mutex<Behaviour>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn new(behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let behaviour = Arc::new(Mutex::new(Arc::new(behaviour) as Behaviour));
        let (log, told) = (asked.clone(), behaviour.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, told) = (log.clone(), told.clone());
                tokio::spawn(async move { serve(stream, &log, &told).await });
            }
        });
        Self { host, asked, behaviour, task }
    }

    fn now(&self, behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
        self.asked.lock().unwrap().clear();
    }

    /// What was asked: paths without their beginning, with the range.
    fn paths(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let path = |asked: &Asked| {
            let path = asked.path.replace("/v2/hub/library/busybox/", "");
            format!("{path} {}", asked.header("range")).trim().to_owned()
        };
        asked.iter().map(path).collect()
    }

    fn client(&self, config: Option<&str>) -> (Registry, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let docker = DockerFiles { config: dir.path().join("config.json"), certificates: vec![dir.path().to_owned()] };
        if let Some(config) = config {
            fs::write(&docker.config, config.replace("HOST", &self.host)).unwrap();
        }
        let mirror = format!("{}/hub", self.host).parse().unwrap();
        (Registry::new(Some(mirror), docker).unwrap(), dir)
    }
}

async fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, told: &Mutex<Behaviour>) -> Option<()> {
    let mut read = vec![0; 16 * 1024];
    let length = stream.read(&mut read).await.ok()?;
    if !read[..length].first()?.is_ascii_uppercase() {
        // TLS: answered as Go's and others' plain servers do.
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.ok()?;
        return None;
    }
    let text = String::from_utf8_lossy(&read[..length]).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let headers = lines.filter_map(|line| line.split_once(": "));
    let asked = Asked {
        method: words.next()?,
        path: words.next()?,
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    };
    let behaviour = told.lock().unwrap().clone();
    let answer = behaviour(&asked);
    log.lock().unwrap().push(asked);
    let mut head =
        format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.ok()?;
    stream.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())]).await.ok()?;
    stream.shutdown().await.ok()
}

fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// An image for this machine and one for another, below an index.
#[derive(Clone)]
struct Image {
    blobs: Vec<Vec<u8>>,
    manifest: String,
    index: String,
}

impl Image {
    fn new() -> Self {
        let layer = |seed: u32| (0..20_000_u32).map(|n| (n.wrapping_mul(seed) >> 7) as u8).collect::<Vec<u8>>();
        let blobs = vec![layer(2_654_435_761), layer(40_503), b"{\"os\":\"linux\"}".to_vec()];
        let described =
            |kind: &str, blob: &[u8]| json!({"mediaType": kind, "digest": digest(blob), "size": blob.len()});
        let layer = |blob: &[u8]| described("application/vnd.oci.image.layer.v1.tar+gzip", blob);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE_MEDIA_TYPE,
            "config": described("application/vnd.oci.image.config.v1+json", &blobs[2]),
            // The second is there twice, as an empty layer often is.
            "layers": [layer(&blobs[0]), layer(&blobs[1]), layer(&blobs[1])],
        })
        .to_string();
        let entry = |arch: &str, digest: &str| json!({"mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": arch}});
        let other = digest(b"another machine's");
        let index = json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE,
            "manifests": [entry("s390x", &other), entry(architecture(), &digest(manifest.as_bytes()))],
        })
        .to_string();
        Self { blobs, manifest, index }
    }

    /// What a registry answers that has this image as `hub/library/busybox:1`.
    fn answer(&self, asked: &Asked) -> Answer {
        let Some(path) = asked.path.strip_prefix("/v2/hub/library/busybox/") else {
            return Answer::error(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let manifest = |text: &str| Answer::new(200, text).header("docker-content-digest", digest(text.as_bytes()));
        if path == "manifests/1" || path == format!("manifests/{}", digest(self.index.as_bytes())) {
            return manifest(&self.index);
        }
        if path == format!("manifests/{}", digest(self.manifest.as_bytes())) {
            return manifest(&self.manifest);
        }
        let Some(blob) = self.blobs.iter().find(|blob| path == format!("blobs/{}", digest(blob))) else {
            return Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        match asked.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')) {
            Some(start) => {
                let start: usize = start.parse().unwrap();
                let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
                Answer::new(206, &blob[start..]).header("content-range", range)
            }
            None => Answer::new(200, blob.clone()),
        }
    }

    /// The path of its first layer, as the server logs it.
    fn layer(&self) -> String {
        format!("blobs/{}", digest(&self.blobs[0]))
    }

    fn whole(&self, dir: &Path) -> bool {
        let files = self.blobs.iter().map(Vec::as_slice).chain([self.manifest.as_bytes(), self.index.as_bytes()]);
        files.into_iter().all(|bytes| fs::read(Digest::of(bytes).path(dir)).is_ok_and(|read| read == bytes))
    }
}

const IMAGE: &str = "busybox:1";

/// Fetches as a step, and gives the notes too.
async fn fetching(client: &Registry, image: &str, dir: &Path) -> (Result<Fetched, RegistryError>, Vec<String>) {
    let (events, receiver) = Events::channel();
    let fetched = events.step("fetch", |step| async move { fetch(client, image, dir, &step).await }).await;
    drop(events);
    let notes = receiver.iter().filter_map(|event| match event.kind {
        EventKind::Note { text } => Some(text),
        _ => None,
    });
    (fetched, notes.collect())
}

async fn fetched(client: &Registry, dir: &Path) -> Fetched {
    fetching(client, IMAGE, dir).await.0.unwrap()
}

async fn error(client: &Registry, image: &str, dir: &Path) -> RegistryError {
    fetching(client, image, dir).await.0.unwrap_err()
}

/// Where what has come of a blob is.
fn partial(blob: &[u8], dir: &Path) -> PathBuf {
    Digest::of(blob).path(dir).with_extension("partial")
}

fn partials(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some()).collect()
}

#[tokio::test]
async fn an_image_is_fetched_whole_for_this_machine_and_not_again() {
    let image = Image::new();
    let registry = image.clone();
    let server = Server::new(move |asked| registry.answer(asked)).await;
    let (client, dir) = server.client(None);
    let expected = Fetched {
        name: "docker.io/library/busybox:1".to_owned(),
        media_type: OCI_IMAGE_MEDIA_TYPE.to_owned(),
        digest: digest(image.manifest.as_bytes()),
        size: image.manifest.len() as u64,
    };
    assert_eq!(fetched(&client, dir.path()).await, expected);
    assert!(image.whole(dir.path()));
    assert!(partials(dir.path()).is_empty());
    assert_eq!(server.paths().len(), 2 + 3, "index, manifest, two layers, config: {:?}", server.paths());

    server.asked.lock().unwrap().clear();
    assert_eq!(fetched(&client, dir.path()).await, expected);
    assert_eq!(server.paths(), ["manifests/1"], "a tag may have moved; all else is there");

    // By digest nothing is asked at all, whichever digest it is.
    server.now(|_| Answer::new(500, ""));
    for named in [digest(image.index.as_bytes()), digest(image.manifest.as_bytes())] {
        let (again, _) = fetching(&client, &format!("busybox:1@{named}"), dir.path()).await;
        assert_eq!(
            again.unwrap(),
            Fetched { name: format!("docker.io/library/busybox:1@{named}"), ..expected.clone() }
        );
    }
    assert_eq!(server.paths(), [""; 0]);
}

#[tokio::test]
async fn what_is_there_damaged_is_fetched_again() {
    let image = Image::new();
    let registry = image.clone();
    let server = Server::new(move |asked| registry.answer(asked)).await;
    let (client, dir) = server.client(None);
    fetched(&client, dir.path()).await;
    let mut damaged = image.blobs[0].clone();
    damaged[7] ^= 1;
    fs::write(Digest::of(&image.blobs[0]).path(dir.path()), damaged).unwrap();
    fs::write(Digest::of(image.manifest.as_bytes()).path(dir.path()), "{}").unwrap();
    server.asked.lock().unwrap().clear();
    fetched(&client, dir.path()).await;
    assert!(image.whole(dir.path()));
    assert_eq!(server.paths().len(), 3, "{:?}", server.paths());
}

#[tokio::test]
async fn a_cut_connection_is_resumed_from_what_came_and_a_note_says_so() {
    let image = Image::new();
    let registry = image.clone();
    let server = Server::new(move |asked| {
        let answer = registry.answer(asked);
        let first = asked.path.ends_with(&registry.layer()) && asked.header("range").is_empty();
        if first { answer.cut(12_345) } else { answer }
    })
    .await;
    let (client, dir) = server.client(None);
    let (fetched, notes) = fetching(&client, IMAGE, dir.path()).await;
    fetched.unwrap();
    assert!(image.whole(dir.path()));
    let layer: Vec<String> = server.paths().into_iter().filter(|path| path.starts_with(&image.layer())).collect();
    assert_eq!(layer, [image.layer(), format!("{} bytes=12345-", image.layer())]);
    assert_eq!(notes.len(), 1, "{notes:?}");
    let note = format!("{} cut the connection at 12345 of 20000 bytes (", server.host);
    assert!(notes[0].contains(&note) && notes[0].ends_with("); it is resumed"), "{notes:?}");
}

#[tokio::test]
async fn without_ranges_it_starts_again() {
    let image = Image::new();
    let registry = image.clone();
    let tries = Mutex::new(0);
    let server = Server::new(move |asked| {
        let plain = Asked { headers: BTreeMap::new(), ..asked.clone() };
        let answer = registry.answer(&plain);
        let mut tries = tries.lock().unwrap();
        if asked.path.ends_with(&registry.layer()) {
            *tries += 1;
            if *tries == 1 {
                return answer.cut(5_000);
            }
        }
        answer
    })
    .await;
    let (client, dir) = server.client(None);
    fetched(&client, dir.path()).await;
    assert!(image.whole(dir.path()));
    assert!(server.paths().contains(&format!("{} bytes=5000-", image.layer())), "{:?}", server.paths());
}

#[tokio::test]
async fn a_range_that_is_refused_or_is_another_one_is_not_believed() {
    let image = Image::new();
    for odd in [Answer::new(416, ""), Answer::new(206, "x").header("content-range", "bytes 0-0/20000")] {
        let registry = image.clone();
        let server = Server::new(
            move |asked| {
                if asked.header("range").is_empty() { registry.answer(asked) } else { odd.clone() }
            },
        )
        .await;
        let (client, dir) = server.client(None);
        let partial = partial(&image.blobs[0], dir.path());
        fs::create_dir_all(partial.parent().unwrap()).unwrap();
        fs::write(&partial, &image.blobs[0][..100]).unwrap();
        fetched(&client, dir.path()).await;
        let layer: Vec<String> = server.paths().into_iter().filter(|path| path.starts_with(&image.layer())).collect();
        assert_eq!(layer, [format!("{} bytes=100-", image.layer()), image.layer()]);
        assert!(image.whole(dir.path()));
    }
}

#[tokio::test]
async fn resuming_ends_and_what_came_is_kept_for_the_next_time() {
    let image = Image::new();
    let registry = image.clone();
    let server = Server::new(move |asked| {
        let answer = registry.answer(asked);
        if asked.path.ends_with(&registry.layer()) { answer.cut(1_000) } else { answer }
    })
    .await;
    let (client, dir) = server.client(None);
    let error_text = error(&client, IMAGE, dir.path()).await.to_string();
    let kept = 1_000 * (1 + blob::RESUMES);
    assert!(error_text.contains(&format!("the connection was cut at {kept} of 20000 bytes (")), "{error_text}");
    let said = "), after it was resumed 5 times; what came is kept, and the next try goes on from there";
    assert!(error_text.ends_with(said), "{error_text}");
    assert_eq!(fs::metadata(partial(&image.blobs[0], dir.path())).unwrap().len(), u64::from(kept));

    let registry = image.clone();
    server.now(move |asked| registry.answer(asked));
    fetched(&client, dir.path()).await;
    assert!(image.whole(dir.path()));
    assert!(partials(dir.path()).is_empty());
    assert!(server.paths().contains(&format!("{} bytes={kept}-", image.layer())), "{:?}", server.paths());
}

#[tokio::test]
async fn a_connection_that_brings_nothing_new_is_not_tried_for_ever() {
    let image = Image::new();
    let registry = image.clone();
    // Without ranges it is cut at the same place each time.
    let server = Server::new(move |asked| {
        let answer = registry.answer(&Asked { headers: BTreeMap::new(), ..asked.clone() });
        if asked.path.ends_with(&registry.layer()) { answer.cut(1_000) } else { answer }
    })
    .await;
    let (client, dir) = server.client(None);
    let text = error(&client, IMAGE, dir.path()).await.to_string();
    assert!(text.contains("cut at 1000 of 20000 bytes (") && text.contains("resumed 1 times"), "{text}");
    assert_eq!(server.paths().iter().filter(|path| path.starts_with(&image.layer())).count(), 2);
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_thrown_away() {
    let image = Image::new();
    let registry = image.clone();
    let server = Server::new(move |asked| {
        let mut answer = registry.answer(asked);
        if asked.path.ends_with(&registry.layer()) {
            answer.body[0] ^= 1;
        }
        answer
    })
    .await;
    let (client, dir) = server.client(None);
    let text = error(&client, IMAGE, dir.path()).await.to_string();
    let wanted = digest(&image.blobs[0]);
    assert!(text.contains(&format!("not {wanted}; it was thrown away")), "{text}");
    assert!(!Digest::of(&image.blobs[0]).path(dir.path()).exists());
    // The other layers were under way, and what came of them is kept.
    assert_eq!(fs::metadata(partial(&image.blobs[0], dir.path())).unwrap().len(), 0);

    // More than the manifest says.
    let registry = image.clone();
    server.now(move |asked| {
        let mut answer = registry.answer(asked);
        if asked.path.ends_with(&registry.layer()) {
            answer.body.push(0);
        }
        answer
    });
    let text = error(&client, IMAGE, dir.path()).await.to_string();
    assert!(text.ends_with("gives more than 20000 bytes; it was thrown away"), "{text}");

    // A manifest, by digest and by tag.
    let registry = image.clone();
    server.now(move |asked| {
        let mut answer = registry.answer(asked);
        answer.body.push(b' ');
        answer
    });
    for name in [IMAGE.to_owned(), format!("busybox@{}", digest(b"of an index"))] {
        let elsewhere = tempfile::tempdir().unwrap();
        let registry = image.clone();
        server.now(move |asked| {
            let tag = Asked { path: "/v2/hub/library/busybox/manifests/1".to_owned(), ..asked.clone() };
            let mut answer = registry.answer(&tag);
            answer.body.push(b' ');
            answer
        });
        let error = error(&client, &name, elsewhere.path()).await;
        let RegistryError::Fetch { problem, .. } = &error else { panic!("{error}") };
        assert!(matches!(**problem, Problem::Digest { .. }), "{error}");
        assert!(!elsewhere.path().join("blobs").exists());
    }
}

#[tokio::test]
async fn two_fetches_at_once_fetch_each_layer_once() {
    let image = Image::new();
    let registry = image.clone();
    let server = Server::new(move |asked| registry.answer(asked)).await;
    let ((one, dir), (two, _dir)) = (server.client(None), server.client(None));
    tokio::join!(fetched(&one, dir.path()), fetched(&two, dir.path()));
    assert!(image.whole(dir.path()));
    for blob in &image.blobs {
        let path = format!("blobs/{}", digest(blob));
        assert_eq!(server.paths().iter().filter(|asked| **asked == path).count(), 1, "{:?}", server.paths());
    }
}

#[tokio::test]
async fn a_password_is_sent_where_it_is_asked_for() {
    let image = Image::new();
    let registry = image.clone();
    let right = format!("Basic {}", BASE64_STANDARD.encode("alice:secret"));
    let server = Server::new(move |asked| {
        if asked.header("authorization") == right {
            return registry.answer(asked);
        }
        Answer::error(401, "UNAUTHORIZED", "authentication required").header("www-authenticate", "Basic realm=\"r\"")
    })
    .await;
    let config = json!({"auths": {"HOST": {"auth": BASE64_STANDARD.encode("alice:secret")}}}).to_string();
    let (client, dir) = server.client(Some(&config));
    fetched(&client, dir.path()).await;
    let refused = server.asked.lock().unwrap().iter().filter(|asked| asked.header("authorization").is_empty()).count();
    assert_eq!(refused, 1, "only the first request is sent without");
}

#[tokio::test]
async fn content_elsewhere_is_fetched_without_the_password() {
    let image = Image::new();
    let registry = image.clone();
    let store = Server::new(move |asked| {
        let answer = registry.answer(asked);
        let first = asked.path.ends_with(&registry.layer()) && asked.header("range").is_empty();
        if first { answer.cut(5_000) } else { answer }
    })
    .await;
    let (registry, elsewhere) = (image.clone(), store.host.clone());
    let server = Server::new(move |asked| {
        if asked.header("authorization").is_empty() {
            return Answer::new(401, "").header("www-authenticate", "Basic realm=\"r\"");
        }
        if asked.path.contains("/blobs/") {
            return Answer::new(307, "").header("location", format!("http://{elsewhere}{}", asked.path));
        }
        registry.answer(asked)
    })
    .await;
    let config = json!({"auths": {"HOST": {"auth": BASE64_STANDARD.encode("alice:secret")}}}).to_string();
    let (client, dir) = server.client(Some(&config));
    fetched(&client, dir.path()).await;
    assert!(image.whole(dir.path()));
    assert!(store.paths().contains(&format!("{} bytes=5000-", image.layer())), "{:?}", store.paths());
    assert!(store.asked.lock().unwrap().iter().all(|asked| asked.header("authorization").is_empty()));

    // What is wrong there is said of there.
    store.now(|_| Answer::error(403, "DENIED", "the link has expired"));
    let text = error(&client, IMAGE, &dir.path().join("another")).await.to_string();
    assert!(
        text.ends_with(&format!(": {} answers 403 Forbidden (DENIED: the link has expired)", store.host)),
        "{text}"
    );
}

/// A registry with a token server, whose tokens are good for some requests.
async fn with_tokens(image: &Image, good_for: usize) -> Server {
    let registry = image.clone();
    let issued = Mutex::new((0, 0));
    Server::new(move |asked| {
        let mut issued = issued.lock().unwrap();
        if asked.path.starts_with("/token") {
            let name = format!("Basic {}", BASE64_STANDARD.encode("alice:secret"));
            if asked.header("authorization") != name && !asked.body.contains("refresh_token=t0ken") {
                return Answer::error(401, "UNAUTHORIZED", "no such user");
            }
            *issued = (issued.0 + 1, 0);
            return Answer::new(200, format!("{{\"access_token\": \"t{}\", \"expires_in\": 300}}", issued.0));
        }
        issued.1 += 1;
        if asked.header("authorization") == format!("Bearer t{}", issued.0) && issued.1 <= good_for + 1 {
            return registry.answer(asked);
        }
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s, t\"", asked.header("host"));
        Answer::error(401, "UNAUTHORIZED", "authentication required").header("www-authenticate", challenge)
    })
    .await
}

#[tokio::test]
async fn a_token_is_got_for_pulling_and_renewed_when_it_is_no_longer_good() {
    let image = Image::new();
    let server = with_tokens(&image, 2).await;
    let config = json!({"auths": {"HOST": {"auth": BASE64_STANDARD.encode("alice:secret")}}}).to_string();
    let (client, dir) = server.client(Some(&config));
    fetched(&client, dir.path()).await;
    assert!(image.whole(dir.path()));
    let tokens: Vec<String> = server.paths().into_iter().filter(|path| path.starts_with("/token")).collect();
    assert!(tokens.len() >= 2, "{:?}", server.paths());
    assert_eq!(tokens[0], "/token?scope=repository%3Ahub%2Flibrary%2Fbusybox%3Apull&service=s%2C+t");
}

#[tokio::test]
async fn an_identity_token_is_exchanged_and_no_password_is_sent() {
    let image = Image::new();
    let server = with_tokens(&image, 100).await;
    let config = json!({"auths": {"HOST": {"auth": BASE64_STANDARD.encode("alice:x"), "identitytoken": "t0ken"}}});
    let (client, dir) = server.client(Some(&config.to_string()));
    fetched(&client, dir.path()).await;
    let asked = server.asked.lock().unwrap();
    let exchange = asked.iter().find(|asked| asked.path == "/token").unwrap();
    assert_eq!(exchange.method, "POST");
    assert_eq!(
        exchange.body,
        "scope=repository%3Ahub%2Flibrary%2Fbusybox%3Apull&service=s%2C+t&grant_type=refresh_token&client_id=drydock\
         &refresh_token=t0ken"
    );
    assert!(asked.iter().all(|asked| !asked.header("authorization").starts_with("Basic")));
}

#[tokio::test]
async fn what_a_registry_refuses_is_said_with_what_to_do() {
    let basic = |answer: Answer| answer.header("www-authenticate", "Basic realm=\"r\"");
    let unauthorized = || basic(Answer::error(401, "UNAUTHORIZED", "authentication required"));
    let too_many = || Answer::error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.");
    let wrong_password = json!({"auths": {"HOST": {"auth": BASE64_STANDARD.encode("alice:wrong")}}}).to_string();
    let index = |platform: serde_json::Value| {
        let entry = json!({"mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": digest(b"x"), "size": 1, "platform": platform});
        Answer::new(200, json!({"schemaVersion": 2, "manifests": [entry]}).to_string())
    };
    let manifest = |digest: &str, size: i64| {
        let blob = json!({"mediaType": "x", "digest": digest, "size": size});
        Answer::new(200, json!({"schemaVersion": 2, "config": blob, "layers": []}).to_string())
    };
    let mut texts = Vec::new();
    for (what, config, answer) in [
        ("no configuration", None, unauthorized()),
        ("no entry", Some("{}"), unauthorized()),
        ("a wrong password", Some(&*wrong_password), unauthorized()),
        ("no right to it", Some(&*wrong_password), Answer::error(403, "DENIED", "requested access is denied")),
        ("an unknown scheme", None, Answer::new(401, "").header("www-authenticate", "Negotiate")),
        ("no scheme", None, Answer::new(401, "")),
        ("no such image", None, Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown")),
        ("a limit with a time", None, too_many().header("retry-after", "5400")),
        ("a limit with a window", None, too_many().header("ratelimit-limit", "100;w=21600")),
        ("a limit", None, Answer::new(429, "")),
        ("a fault", None, Answer::new(502, "<html>\n<title>Bad Gateway</title>")),
        ("a fault in words", None, Answer::new(503, "the database is being migrated\nmore")),
        ("another machine's", None, index(json!({"os": "linux", "architecture": "riscv64"}))),
        ("nobody's", None, index(json!({"os": "unknown", "architecture": "unknown"}))),
        ("a page", None, Answer::new(200, "<html>log in</html>").header("content-type", "text/html")),
        (
            "an old manifest",
            None,
            Answer::new(200, json!({"schemaVersion": 1, "name": "x"}).to_string())
                .header("content-type", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ),
        ("a chart", None, Answer::new(200, json!({"mediaType": "application/x-chart"}).to_string())),
        ("a digest that is a path", None, manifest("sha256:../../x", 1)),
        ("a size below nothing", None, manifest(&digest(b"x"), -1)),
        ("no layers", None, Answer::new(200, json!({"schemaVersion": 2, "config": {}}).to_string())),
    ] {
        let server = Server::new(move |_| answer.clone()).await;
        let (client, dir) = server.client(config);
        let text = error(&client, IMAGE, &dir.path().join("layout")).await.to_string();
        let text = text.replace(&server.host, "HOST").replace(dir.path().to_str().unwrap(), "DIR");
        let text = text.replace(&format!("linux/{}", architecture()), "linux/THIS");
        texts.push(format!("{what}:\n  {text}"));
    }
    insta::assert_snapshot!(texts.join("\n"));
}

#[tokio::test]
async fn a_limit_at_the_token_server_is_said_too() {
    let server = Server::new(|asked| {
        if asked.path.starts_with("/token") {
            return Answer::new(429, "").header("retry-after", "7");
        }
        let challenge = format!("Bearer realm=\"http://{}/token\"", asked.header("host"));
        Answer::new(401, "").header("www-authenticate", challenge)
    })
    .await;
    let (client, dir) = server.client(None);
    let text = error(&client, IMAGE, dir.path()).await.to_string();
    assert!(text.contains("429 Too Many Requests; it says to wait 7 s; "), "{text}");
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_before_anything_is_asked() {
    let server = Server::new(|_| Answer::new(500, "")).await;
    let (client, dir) = server.client(None);
    let mut texts = Vec::new();
    for name in [
        "",
        "Busybox",
        "busybox:1 ",
        "https://mirror.test/busybox",
        "busybox@sha256:00",
        &format!("busybox@sha512:{}", "0".repeat(128)),
    ] {
        texts.push(error(&client, name, dir.path()).await.to_string());
    }
    assert_eq!(server.paths(), [""; 0]);
    insta::assert_snapshot!(texts.join("\n"));
}

#[tokio::test]
async fn a_registry_that_gives_no_answer_is_said_with_the_reason() {
    let server = Server::new(|_| Answer::new(200, "")).await;
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut seen = Vec::new();
    for url in [format!("https://{}", server.host), format!("https://{refused}"), "https://host.invalid".to_owned()] {
        seen.push(Unanswered::of(&reqwest::get(url).await.unwrap_err()));
    }
    assert!(matches!(&seen[0], Unanswered::NotTls(reason) if reason.contains("InvalidContentType")), "{seen:?}");
    assert_eq!(seen[1], Unanswered::Refused);
    assert!(matches!(&seen[2], Unanswered::Unknown(_)), "{seen:?}");

    let mirror = format!("{refused}/hub").parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let docker = DockerFiles { config: dir.path().join("none"), certificates: Vec::new() };
    let client = Registry::new(Some(mirror), docker).unwrap();
    let text = error(&client, IMAGE, dir.path()).await.to_string();
    let said = format!("nothing listens at {refused} (connection refused); see that the port is right");
    assert!(text.ends_with(&said), "{text}");
}

#[test]
fn the_time_to_wait_is_read_in_every_way_it_is_said() {
    let now = Utc.with_ymd_and_hms(2026, 3, 1, 12, 0, 0).unwrap();
    let limit = |headers: &[(&'static str, &str)]| {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Limit::of(&HeaderMap::from_iter(headers), now).to_string()
    };
    assert_eq!(limit(&[("retry-after", "61")]), "it says to wait 1 min 1 s");
    assert_eq!(limit(&[("retry-after", "Sun, 01 Mar 2026 14:00:05 GMT")]), "it says to wait 2 h 5 s");
    assert_eq!(limit(&[("retry-after", "Sun, 01 Mar 2026 11:00:00 GMT")]), "it says to wait 0 s");
    assert_eq!(limit(&[("ratelimit-reset", "30")]), "it says to wait 30 s");
    assert_eq!(limit(&[("x-ratelimit-reset", &(now.timestamp() + 600).to_string())]), "it says to wait 10 min");
    assert_eq!(limit(&[("ratelimit-limit", "100;w=21600")]), "it allows 100 requests in 6 h");
    assert_eq!(limit(&[("retry-after", "soon")]), "it does not say how long to wait");
    assert_eq!(limit(&[]), "it does not say how long to wait");
}

#[test]
fn what_an_answer_says_fits_into_a_sentence() {
    assert_eq!(said(br#"{"errors":[{"code":"A","message":"b"},{"code":"C"}]}"#), "A: b; C");
    assert_eq!(said(b"\n  one\x1b[31m line \nmore"), "one[31m line");
    assert_eq!(said(b"<!doctype html>"), "");
    assert_eq!(said("x".repeat(500).as_bytes()).len(), 200);
}
