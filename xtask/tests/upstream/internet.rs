//! What upstream fetches from, in small: pages of releases, a repository of charts, Docker Hub with its tokens and redirects. All
//! of it is reached through a proxy as a company has one, which speaks for every host with a certificate of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The hosts that it speaks for.
pub const HOSTS: [&str; 10] = [
    "github.com",
    "release-assets.githubusercontent.com",
    "dl.k8s.io",
    "cdn.dl.k8s.io",
    "get.helm.sh",
    "helm.goharbor.io",
    "registry-1.docker.io",
    "auth.docker.io",
    "production.cloudflare.docker.com",
    "registry.k8s.io",
];

pub struct Internet {
    /// `blobs/sha256`, and by their names `files` and `charts`.
    pub dir: PathBuf,
    /// `repository:tag` -> digest, whatever the registry.
    pub tags: BTreeMap<String, String>,
    /// The hosts that were asked for.
    pub asked: Mutex<BTreeSet<String>>,
}

type Answer = Response<Full<Bytes>>;

impl Internet {
    /// Answers at the address that comes back, with the certificate (PEM) that comes back, as long as the runtime lives.
    pub async fn serve(self: Arc<Self>) -> anyhow::Result<(SocketAddr, String)> {
        let issued = rcgen::generate_simple_self_signed(HOSTS.map(str::to_owned))?;
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)?;
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (internet, tls) = (self.clone(), tls.clone());
                let service = service_fn(move |request| {
                    let answer = internet.clone().connect(request, tls.clone());
                    async { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection.with_upgrades());
            }
        });
        Ok((address, issued.cert.pem()))
    }

    /// A tunnel, at whose other end it speaks for the host itself.
    fn connect(self: Arc<Self>, request: Request<Incoming>, tls: TlsAcceptor) -> Answer {
        let host = request.uri().host().unwrap_or_default().to_owned();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone());
        if request.method() != Method::CONNECT || !HOSTS.contains(&host.as_str()) {
            return answer(StatusCode::FORBIDDEN, "not through this proxy");
        }
        tokio::spawn(async move {
            let tunnel = hyper::upgrade::on(request).await?;
            let stream = tls.accept(TokioIo::new(tunnel)).await?;
            let service = service_fn(move |request| {
                let answer = self.answer(&host, &request);
                async { Ok::<_, Infallible>(answer) }
            });
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
            anyhow::Ok(())
        });
        answer(StatusCode::OK, "")
    }

    fn answer(&self, host: &str, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let name = path.rsplit('/').next().unwrap_or_default();
        match host {
            // Releases are elsewhere than their pages.
            "github.com" => moved(&format!("https://release-assets.githubusercontent.com/{name}")),
            "dl.k8s.io" => moved(&format!("https://cdn.dl.k8s.io{path}")),
            "release-assets.githubusercontent.com" | "cdn.dl.k8s.io" | "get.helm.sh" => self.file("files", name),
            "helm.goharbor.io" => self.file("charts", name),
            "auth.docker.io" => answer(StatusCode::OK, r#"{"token":"anonymous"}"#),
            "production.cloudflare.docker.com" => self.file("blobs/sha256", name),
            "registry.k8s.io" => self.registry(path),
            // Docker Hub lets nobody in without a token, and has blobs elsewhere.
            _ if request.headers().get(header::AUTHORIZATION).is_none_or(|token| token != "Bearer anonymous") => {
                let realm = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
                with(answer(StatusCode::UNAUTHORIZED, "{}"), header::WWW_AUTHENTICATE, realm)
            }
            _ => match path.split_once("/blobs/sha256:") {
                Some((_, blob)) => moved(&format!("https://production.cloudflare.docker.com/{blob}")),
                None => self.registry(path),
            },
        }
    }

    /// The distribution API: manifests by tag or digest, and blobs.
    fn registry(&self, path: &str) -> Answer {
        if let Some((_, blob)) = path.split_once("/blobs/sha256:") {
            return self.file("blobs/sha256", blob);
        }
        let Some((repository, reference)) = path.trim_start_matches("/v2/").split_once("/manifests/") else {
            return answer(StatusCode::OK, "{}");
        };
        let named = self.tags.get(&format!("{repository}:{reference}")).map_or(reference, String::as_str);
        let found = fs::read(self.dir.join("blobs/sha256").join(named.trim_start_matches("sha256:")));
        let Ok(manifest) = found else { return answer(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN") };
        let kind = serde_json::from_slice::<serde_json::Value>(&manifest).unwrap_or_default();
        let kind = kind["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json");
        let answer = with(answer(StatusCode::OK, manifest), header::CONTENT_TYPE, kind);
        with(answer, header::HeaderName::from_static("docker-content-digest"), named)
    }

    fn file(&self, folder: &str, name: &str) -> Answer {
        match fs::read(self.dir.join(folder).join(name)) {
            Ok(content) => answer(StatusCode::OK, content),
            Err(_) => answer(StatusCode::NOT_FOUND, "there is no such file"),
        }
    }
}

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

fn moved(to: &str) -> Answer {
    with(answer(StatusCode::TEMPORARY_REDIRECT, ""), header::LOCATION, to)
}

fn with(mut answer: Answer, name: header::HeaderName, value: &str) -> Answer {
    if let Ok(value) = value.parse() {
        answer.headers_mut().insert(name, value);
    }
    answer
}
