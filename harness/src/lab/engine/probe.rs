//! Asking whether an engine answers at an address, and what it is.

use std::{io, time::Duration};

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::caps::Bounding;

/// An engine under load answers late; one that is not there, at once.
const LIMIT: Duration = Duration::from_secs(10);

/// While an engine loads a node image it is silent, on a slow disk for minutes.
const REQUEST_SECONDS: u64 = 600;

/// What an engine said of itself.
#[derive(Debug)]
pub struct Answer {
    /// Its version.
    pub version: String,
    /// The newest API version that both sides speak.
    pub api: (usize, usize),
    /// What its process can have, if that is to be seen from here.
    pub bounding: Option<Bounding>,
    /// Whether it is podman, which answers as a Docker engine does.
    pub podman: bool,
}

impl Answer {
    /// A client that speaks the engine's API version.
    pub fn client(&self, host: &str) -> Result<Docker, bollard::errors::Error> {
        let version = ClientVersion { major_version: self.api.0, minor_version: self.api.1 };
        if host.starts_with("unix://") {
            Docker::connect_with_unix(host, REQUEST_SECONDS, &version)
        } else {
            Docker::connect_with_http(host, REQUEST_SECONDS, &version)
        }
    }
}

/// Why nothing useful answered.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// A connection, and then no sensible answer.
    #[error("it does not answer as a Docker engine does: {0}")]
    Answer(String),
    /// Silence.
    #[error("no answer within {} s", LIMIT.as_secs())]
    Silent,
    /// An address of a kind that is not spoken here.
    #[error("only unix:// and plain tcp:// addresses are supported")]
    Unsupported,
}

impl ProbeError {
    /// Whether something is there that this user may not talk to.
    pub fn is_denied(&self) -> bool {
        matches!(self, ProbeError::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
    api_version: String,
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: String,
}

/// Asks `/version` without naming an API version, the one question that engines of any age answer.
pub async fn probe(host: &str) -> Result<Answer, ProbeError> {
    match tokio::time::timeout(LIMIT, ask(host)).await {
        Ok(answer) => answer,
        Err(_) => Err(ProbeError::Silent),
    }
}

async fn ask(host: &str) -> Result<Answer, ProbeError> {
    if let Some(path) = host.strip_prefix("unix://") {
        let stream = UnixStream::connect(path).await.map_err(ProbeError::Connect)?;
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        // A peer of another process namespace has no id here, or 0.
        let bounding = pid.filter(|&pid| pid > 0).and_then(|pid| Bounding::of(pid).ok());
        return exchange(stream, bounding).await;
    }
    let address = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://"));
    match address.map(|address| address.trim_end_matches('/')) {
        Some(_) if std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty()) => {
            Err(ProbeError::Unsupported)
        }
        Some(address) => exchange(TcpStream::connect(address).await.map_err(ProbeError::Connect)?, None).await,
        None => Err(ProbeError::Unsupported),
    }
}

async fn exchange<S>(mut stream: S, bounding: Option<Bounding>) -> Result<Answer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = |error: io::Error| ProbeError::Answer(error.to_string());
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    stream.write_all(b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n").await.map_err(said)?;
    let mut bytes = Vec::new();
    stream.take(1 << 20).read_to_end(&mut bytes).await.map_err(said)?;
    parse(&String::from_utf8_lossy(&bytes), bounding)
}

fn parse(response: &str, bounding: Option<Bounding>) -> Result<Answer, ProbeError> {
    let first = || ProbeError::Answer(response.lines().next().unwrap_or("nothing at all").chars().take(200).collect());
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(first)?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(first());
    }
    let version: Version = serde_json::from_str(body).map_err(|error| ProbeError::Answer(error.to_string()))?;
    let theirs = version
        .api_version
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| ProbeError::Answer(format!("its API version is `{}`", version.api_version)))?;
    let ours = (API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version);
    let podman = version.components.iter().any(|component| component.name == "Podman Engine");
    Ok(Answer { version: version.version, api: ours.min(theirs), bounding, podman })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(api: &str) -> String {
        format!("HTTP/1.0 200 OK\r\nServer: x\r\n\r\n{{\"Version\":\"20.10.24\",\"ApiVersion\":\"{api}\"}}")
    }

    #[test]
    fn the_older_api_of_the_two_is_taken() {
        assert_eq!(parse(&response("1.41"), None).unwrap().api, (1, 41));
        let newest = (API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version);
        assert_eq!(parse(&response("1.999"), None).unwrap().api, newest);
    }

    #[test]
    fn podman_is_known_by_its_component() {
        let head = "HTTP/1.0 200 OK\r\n\r\n";
        let podman =
            r#"{"Components":[{"Name":"Podman Engine","Version":"4.3.1"}],"Version":"4.3.1","ApiVersion":"1.41"}"#;
        assert!(parse(&format!("{head}{podman}"), None).unwrap().podman);
        let docker = podman.replace("Podman Engine", "Engine");
        assert!(!parse(&format!("{head}{docker}"), None).unwrap().podman);
        assert!(!parse(&response("1.41"), None).unwrap().podman);
    }

    #[test]
    fn what_is_no_engine_is_an_error() {
        for text in ["", "SSH-2.0-x", "HTTP/1.0 404 Not Found\r\n\r\n{}", "HTTP/1.0 200 OK\r\n\r\n<html>"] {
            assert!(matches!(parse(text, None), Err(ProbeError::Answer(_))), "{text}");
        }
        assert!(parse(&response("new"), None).is_err());
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_says_so() {
        let error = probe("unix:///no/such/docker.sock").await.unwrap_err();
        assert_eq!(error.to_string(), "No such file or directory (os error 2)");
        assert_eq!(
            probe("ssh://far").await.unwrap_err().to_string(),
            "only unix:// and plain tcp:// addresses are supported"
        );
    }
}
