//! What can go wrong with a registry, and the words for it.

use std::{error::Error, fmt, io, path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::{StatusCode, header::HeaderMap};

use super::host::{CONNECT_LIMIT, SILENCE_LIMIT};

/// Why an image could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Docker's configuration cannot be read.
    #[error("read Docker's configuration {}: {reason}; mend it, or name the folder of another with DOCKER_CONFIG", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate for a registry cannot be read.
    #[error("read the certificates for {host} in {}: {reason}", path.display())]
    Certificate {
        /// The registry.
        host: String,
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no client for a registry.
    #[error("prepare to talk to {host}: {reason}")]
    Client {
        /// The registry.
        host: String,
        /// The library's reason.
        reason: String,
    },
    /// The name is not one of an image.
    #[error("fetch the image `{image}`: {reason}; its name is [REGISTRY/]PATH[:TAG][@sha256:DIGEST]")]
    Name {
        /// What was given.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something went wrong on the way.
    #[error("fetch {image}: {doing} {what}: {problem}")]
    Fetch {
        /// The upstream name.
        image: String,
        /// What was being done.
        doing: &'static str,
        /// To what, by the name that it has where it was asked for.
        what: String,
        /// What was seen.
        problem: Box<Problem>,
    },
}

/// What was seen of a registry or of what it gave.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// 401 or 403.
    #[error("{host} answers {status}{}; {login}; log in with `{command}`{}", Said(said), if *absent { ", unless there is no such image: some registries answer so then" } else { "" })]
    Denied {
        /// Who answers.
        host: String,
        /// The status.
        status: StatusCode,
        /// What the answer says.
        said: String,
        /// Which credentials there are, and where they were looked for.
        login: String,
        /// What logs in.
        command: String,
        /// Whether an image that is not there may look so.
        absent: bool,
    },
    /// 404.
    #[error("{host} answers 404 Not Found{}{}", Said(said), if let Some(mirror) = mirror { format!("; see that the mirror {mirror} serves docker.io under this path, and has this image") } else { "; see that it is spelt right".to_owned() })]
    NotFound {
        /// Who answers.
        host: String,
        /// What the answer says.
        said: String,
        /// The mirror, where one was asked.
        mirror: Option<String>,
    },
    /// 429.
    #[error("{host} answers 429 Too Many Requests{}; {limit}; {advice}", Said(said))]
    TooMany {
        /// Who answers.
        host: String,
        /// What the answer says.
        said: String,
        /// How long to wait.
        limit: Limit,
        /// What to do.
        advice: String,
    },
    /// Any other answer than was asked for.
    #[error("{host} answers {status}{}", Said(said))]
    Status {
        /// Who answers.
        host: String,
        /// The status.
        status: StatusCode,
        /// What the answer says.
        said: String,
    },
    /// It wants to be told who asks in a way that is not known, or gives no token.
    #[error("{host} wants a login that cannot be given: {reason}")]
    Challenge {
        /// Who answers.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The credentials cannot be had.
    #[error("read the credentials for {host}, as {} says: {reason}", config.display())]
    Credentials {
        /// For whom.
        host: String,
        /// Docker's configuration.
        config: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No known authority signed the certificate.
    #[error("the certificate of {host} is not trusted ({reason}); looked at {looked}; put the certificate of its authority, as PEM, at {}", put.display())]
    Untrusted {
        /// Whose certificate.
        host: String,
        /// The TLS library's reason.
        reason: String,
        /// The places with certificates of authorities.
        looked: String,
        /// The place for another.
        put: PathBuf,
    },
    /// The certificate is not good for the host, or not now.
    #[error(
        "the certificate of {host} is not valid ({reason}); use the name that it is made out to, or have it renewed"
    )]
    Certificate {
        /// Whose certificate.
        host: String,
        /// The TLS library's reason.
        reason: String,
    },
    /// No TLS comes back.
    #[error(
        "{host} does not speak TLS ({reason}): is it plain HTTP? That is used with a registry on this machine only; name its TLS port"
    )]
    NotTls {
        /// Who answers.
        host: String,
        /// The TLS library's reason.
        reason: String,
    },
    /// The name has no address.
    #[error("{host} cannot be found ({reason}); see that the name is right, and that this machine can look it up")]
    Unknown {
        /// The host.
        host: String,
        /// The system's reason.
        reason: String,
    },
    /// Nothing listens.
    #[error("nothing listens at {host} (connection refused); see that the port is right")]
    Refused {
        /// The host.
        host: String,
    },
    /// No answer for any other reason.
    #[error("{host} does not answer ({reason})")]
    Silent {
        /// The host.
        host: String,
        /// The innermost reason.
        reason: String,
    },
    /// The connection broke again and again.
    #[error("the connection was cut at {done} of {size} bytes ({reason}){}; what came is kept, and the next try goes on from there", if *resumed > 0 { format!(", after it was resumed {resumed} times") } else { String::new() })]
    Cut {
        /// Bytes that came.
        done: u64,
        /// Bytes that there are.
        size: u64,
        /// How it broke.
        reason: String,
        /// How often it was resumed.
        resumed: u32,
    },
    /// What came is not what was asked for.
    #[error(
        "what {host} gave has the digest {seen}, not {wanted}; it was thrown away; a registry that serves other content than it names is broken, or not to be trusted"
    )]
    Digest {
        /// Who gave it.
        host: String,
        /// The digest of what came.
        seen: String,
        /// The digest that was asked for.
        wanted: String,
    },
    /// More came than there should be.
    #[error("{host} gives more than {limit} bytes; it was thrown away")]
    TooLong {
        /// Who gave it.
        host: String,
        /// The most that it may be.
        limit: u64,
    },
    /// The image is for other machines.
    #[error("there is no image for {wanted} in it, only for {}", seen.join(", "))]
    Platform {
        /// This machine's.
        wanted: String,
        /// What there is.
        seen: Vec<String>,
    },
    /// It is no image, or not one of today's.
    #[error("it is `{seen}`, and not an image's manifest or index that is known here")]
    MediaType {
        /// What it says that it is.
        seen: String,
    },
    /// The manifest says something that cannot be.
    #[error("it cannot be read: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// A file of this machine.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another run did not get done.
    #[error("{reason}; `fuser {}` names the process", path.display())]
    Locked {
        /// What was waited for, for how long.
        reason: String,
        /// The file that it holds.
        path: PathBuf,
    },
}

/// What an answer says, in brackets, should it say anything.
struct Said<'a>(&'a String);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

/// What an answer says: the messages of a registry's error, else the first line of a text.
pub(super) fn said(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(body);
    let messages = serde_json::from_str::<oci_client::errors::OciEnvelope>(&text).ok().map(|envelope| {
        let message = |error: &oci_client::errors::OciError| {
            let code = serde_json::to_value(&error.code).ok();
            let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or_default().to_owned();
            if error.message.is_empty() { code } else { format!("{code}: {}", error.message) }
        };
        envelope.errors.iter().map(message).collect::<Vec<_>>().join("; ")
    });
    let said = messages.unwrap_or_else(|| {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        // A page is for browsers.
        if line.starts_with('<') { String::new() } else { line.to_owned() }
    });
    said.chars().filter(|letter| !letter.is_control()).take(LONGEST).collect()
}

/// What a registry says of its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// It says when to come again: after this.
    Wait(Duration),
    /// It says only in what time how many requests are allowed.
    Window {
        /// How many.
        requests: u64,
        /// In what time.
        window: Duration,
    },
    /// It says nothing.
    Unsaid,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Wait(wait) => write!(f, "it says to wait {}", spoken(*wait)),
            Limit::Window { requests, window } => write!(f, "it allows {requests} requests in {}", spoken(*window)),
            Limit::Unsaid => f.write_str("it does not say how long to wait"),
        }
    }
}

fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let parts = [(hours, "h"), (minutes, "min"), (rest, "s")];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n} {unit}")).collect();
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

impl Limit {
    /// From an answer's headers: `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); `RateLimit-Reset` in seconds
    /// (draft-ietf-httpapi-ratelimit-headers) and `X-RateLimit-Reset` in seconds since 1970 (Docker Hub's API,
    /// <https://docs.docker.com/reference/api/hub/latest/>); `RateLimit-Limit: 100;w=21600`, which is all that Docker Hub says at
    /// a pull (<https://docs.docker.com/docker-hub/usage/pulls/>).
    pub(super) fn of(headers: &HeaderMap, now: DateTime<Utc>) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let until = |then: DateTime<Utc>| Duration::from_secs((then - now).num_seconds().max(0).unsigned_abs());
        if let Some(retry) = header("retry-after") {
            if let Ok(seconds) = retry.parse() {
                return Limit::Wait(Duration::from_secs(seconds));
            }
            if let Ok(date) = DateTime::parse_from_rfc2822(retry) {
                return Limit::Wait(until(date.to_utc()));
            }
        }
        for name in ["ratelimit-reset", "x-ratelimit-reset"] {
            match header(name).and_then(|value| value.parse::<u32>().ok()) {
                // Nobody is sent away for thirty years.
                Some(seconds) if seconds < 1_000_000_000 => return Limit::Wait(Duration::from_secs(seconds.into())),
                Some(seconds) => {
                    return DateTime::from_timestamp(seconds.into(), 0)
                        .map_or(Limit::Unsaid, |date| Limit::Wait(until(date)));
                }
                None => {}
            }
        }
        let window = header("ratelimit-limit").and_then(|limit| {
            let (requests, window) = limit.split_once(";w=")?;
            Some(Limit::Window { requests: requests.parse().ok()?, window: Duration::from_secs(window.parse().ok()?) })
        });
        window.unwrap_or(Limit::Unsaid)
    }
}

/// Why a request got no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// No known authority signed the certificate.
    Untrusted(String),
    /// The certificate is not good for the host, or not now.
    Certificate(String),
    /// What came back is no TLS.
    NotTls(String),
    /// The name has no address.
    Unknown(String),
    /// Nothing listens.
    Refused,
    /// Anything else.
    Other(String),
}

impl Unanswered {
    /// The reason alone, where a connection that was there broke.
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Untrusted(reason) | Self::Certificate(reason) | Self::NotTls(reason) => reason,
            Self::Unknown(reason) | Self::Other(reason) => reason,
            Self::Refused => "connection refused".to_owned(),
        }
    }

    pub(super) fn of(error: &reqwest::Error) -> Self {
        let first: &(dyn Error + 'static) = error;
        let causes: Vec<_> = std::iter::successors(Some(first), |&cause| beneath(cause)).collect();
        let reason = causes.last().map(ToString::to_string).unwrap_or_default();
        if let Some(tls) = causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            use rustls::CertificateError::{
                Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
            };
            return match tls {
                rustls::Error::InvalidCertificate(
                    wrong @ (Expired | ExpiredContext { .. } | NotValidForName | NotValidForNameContext { .. }),
                ) => Self::Certificate(wrong.to_string()),
                rustls::Error::InvalidCertificate(UnknownIssuer) => {
                    Self::Untrusted("no authority that is known here signed it".to_owned())
                }
                rustls::Error::InvalidCertificate(wrong) => Self::Untrusted(wrong.to_string()),
                rustls::Error::InvalidMessage(_) => Self::NotTls(tls.to_string()),
                _ => Self::Other(tls.to_string()),
            };
        }
        let mut system = causes.iter().filter_map(|cause| cause.downcast_ref::<io::Error>());
        if system.any(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return Self::Refused;
        }
        // Neither library has a type for it.
        if causes.iter().any(|cause| cause.to_string() == "dns error") {
            return Self::Unknown(reason);
        }
        if error.is_timeout() {
            return Self::Other(match error.is_connect() {
                true => format!("no connection within {} s", CONNECT_LIMIT.as_secs()),
                false => format!("nothing came for {} s", SILENCE_LIMIT.as_secs()),
            });
        }
        Self::Other(reason)
    }
}

/// The next error down. An `io::Error` passes over what it wraps when it is asked for its source.
fn beneath<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
