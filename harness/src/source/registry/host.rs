//! One registry: how it is reached, whom it trusts, and whom it is told that we are.

use std::{collections::HashMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use docker_credential::DockerCredential;
use http_auth::{ChallengeRef, parse_challenges};
use oci_client::Reference;
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use super::{
    docker::{self, DockerFiles, Login, Trust},
    error::{Limit, Problem, RegistryError, Unanswered, said},
};
use crate::source::mirror::{DOCKER_HUB, api_host};

/// A registry that does not take a connection by then is not there.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A mirror may have to fetch a layer itself before its first byte comes; silence for longer is a cut.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// An answer that is no content is short.
const LONGEST_ANSWER: usize = 64 * 1024;

/// One registry.
pub(super) struct Host {
    /// As images name it.
    name: String,
    /// Where its API is: scheme, host and port.
    base: String,
    /// The mirror, should it be one.
    mirror: Option<String>,
    client: Client,
    trust: Trust,
    config: PathBuf,
    /// The text of Docker's configuration.
    credentials: Option<Arc<str>>,
    login: OnceCell<Login>,
    /// What is sent as `Authorization`, by repository.
    passes: Mutex<HashMap<String, HeaderValue>>,
}

/// What a token server gives.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Host {
    /// A client for the registry `name`, which is the `mirror` or an upstream registry.
    pub(super) async fn new(
        name: &str,
        mirror: Option<String>,
        docker: &DockerFiles,
        credentials: Option<Arc<str>>,
    ) -> Result<Self, RegistryError> {
        // Whoever comes first chooses; a second choice is refused and no matter.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let trust = docker.trust(name)?;
        let client = Client::builder()
            .user_agent("drydock")
            // A connection for each layer: with HTTP/2 a cut would hit all of them, those too of which nothing had come.
            .http1_only()
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(SILENCE_LIMIT)
            .tls_certs_merge(trust.certificates.clone())
            .build()
            .map_err(|error| RegistryError::Client { host: name.to_owned(), reason: error.to_string() })?;
        let api = api_host(name);
        let mut base = format!("https://{api}");
        // As Docker does: plain HTTP, should a registry of this machine not speak TLS.
        if is_loopback(name)
            && let Err(error) = client.get(format!("{base}/v2/")).send().await
            && matches!(Unanswered::of(&error), Unanswered::NotTls(_))
        {
            base = format!("http://{api}");
        }
        let (name, config) = (name.to_owned(), docker.config.clone());
        let (login, passes) = (OnceCell::new(), Mutex::default());
        Ok(Self { name, base, mirror, client, trust, config, credentials, login, passes })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Asks for `path` of a repository, and logs in where that is wanted. Whatever is no success is a problem.
    pub(super) async fn get(&self, at: &Reference, path: &str, headers: HeaderMap) -> Result<Response, Problem> {
        let repository = at.repository();
        let url = format!("{}/v2/{repository}/{path}", self.base);
        let ask = |pass: Option<HeaderValue>| {
            let mut headers = headers.clone();
            if let Some(pass) = pass {
                headers.insert(AUTHORIZATION, pass);
            }
            self.send(self.client.get(&url).headers(headers))
        };
        let sent = self.passes.lock().await.get(repository).cloned();
        let mut answer = ask(sent.clone()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.called(answer.url()) == self.name {
            let pass = self.pass(repository, sent, answer.headers()).await?;
            // Without credentials there is nothing else to say.
            if let Some(pass) = pass {
                answer = ask(Some(pass)).await?;
            }
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        let host = self.called(answer.url());
        if host != self.name && answer.status() != StatusCode::TOO_MANY_REQUESTS {
            // It sent us elsewhere for the content, where neither a login nor another name helps.
            let status = answer.status();
            return Err(Problem::Status { host, status, said: said(&short(answer).await) });
        }
        Err(self.problem(answer).await)
    }

    /// What to send instead of `sent`, which an answer with these `headers` refused; `None` where nothing else can be sent.
    async fn pass(
        &self,
        repository: &str,
        sent: Option<HeaderValue>,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, Problem> {
        // While it is held, whoever else was refused waits for what comes of this.
        let mut passes = self.passes.lock().await;
        if let Some(newer) = passes.get(repository).filter(|newer| Some(*newer) != sent.as_ref()) {
            return Ok(Some(newer.clone()));
        }
        let challenge = |reason: String| Problem::Challenge { host: self.name.clone(), reason };
        let texts: Vec<&str> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let wanted: Vec<ChallengeRef> = texts.iter().filter_map(|text| parse_challenges(text).ok()).flatten().collect();
        let is = |scheme: &str| wanted.iter().find(|wanted| wanted.scheme.eq_ignore_ascii_case(scheme));
        let login = self.login().await?;
        let pass = if let Some(bearer) = is("bearer") {
            format!("Bearer {}", self.token(repository, bearer, login).await?)
        } else if is("basic").is_some() {
            match &login.credential {
                Some(DockerCredential::UsernamePassword(name, secret)) => basic(name, secret),
                Some(DockerCredential::IdentityToken(_)) => {
                    return Err(challenge("it wants a name and a password, and there is a token".to_owned()));
                }
                None => return Ok(None),
            }
        } else {
            let seen = if texts.is_empty() { "nothing".to_owned() } else { format!("`{}`", texts.join(", ")) };
            return Err(challenge(format!("it answers 401 and asks for {seen}, not for a bearer token or a password")));
        };
        let mut pass = HeaderValue::from_str(&pass)
            .map_err(|_| challenge("what it is to be told has letters that no header may have".to_owned()))?;
        pass.set_sensitive(true);
        passes.insert(repository.to_owned(), pass.clone());
        Ok(Some(pass))
    }

    async fn login(&self) -> Result<&Login, Problem> {
        self.login.get_or_try_init(|| docker::login(&self.name, &self.config, self.credentials.as_deref())).await
    }

    /// A token for pulling, from the server that the challenge names: with a `GET` as whoever we are, or, with an identity token,
    /// by OAuth 2 (<https://distribution.github.io/distribution/spec/auth/>).
    async fn token(&self, repository: &str, challenge: &ChallengeRef<'_>, login: &Login) -> Result<String, Problem> {
        let wrong = |reason: String| Problem::Challenge { host: self.name.clone(), reason };
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").unwrap_or_default();
        let mut url =
            Url::parse(&realm).map_err(|error| wrong(format!("its token server is at `{realm}`: {error}")))?;
        if url.scheme() != "https" && !self.base.starts_with("http:") && login.credential.is_some() {
            return Err(wrong(format!("its token server {realm} would be sent the credentials without TLS")));
        }
        let scope = parameter("scope").unwrap_or_else(|| format!("repository:{repository}:pull"));
        let mut fields = vec![("scope", scope)];
        fields.extend(parameter("service").map(|service| ("service", service)));
        let request = match &login.credential {
            Some(DockerCredential::IdentityToken(token)) => {
                fields.extend(
                    [("grant_type", "refresh_token"), ("client_id", "drydock")].map(|(k, v)| (k, v.to_owned())),
                );
                fields.push(("refresh_token", token.clone()));
                let form = {
                    let mut form = url.clone();
                    form.set_query(None);
                    form.query_pairs_mut().extend_pairs(&fields);
                    form.query().unwrap_or_default().to_owned()
                };
                let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
                self.client.request(Method::POST, url).header(CONTENT_TYPE, form_type).body(form)
            }
            credential => {
                url.query_pairs_mut().extend_pairs(&fields);
                let request = self.client.get(url);
                match credential {
                    Some(DockerCredential::UsernamePassword(name, secret)) => request.basic_auth(name, Some(secret)),
                    _ => request,
                }
            }
        };
        let answer = self.send(request).await?;
        if !answer.status().is_success() {
            return Err(self.problem(answer).await);
        }
        let server = server_of(answer.url());
        let body = short(answer).await;
        let token = serde_json::from_slice::<Token>(&body).ok().and_then(|token| token.token.or(token.access_token));
        token.ok_or_else(|| wrong(format!("its token server {server} answers without a token")))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Problem> {
        request.send().await.map_err(|error| self.unanswered(&error))
    }

    fn unanswered(&self, error: &reqwest::Error) -> Problem {
        // Another's, where the content is elsewhere or the tokens are.
        let host = error.url().map_or_else(|| self.name.clone(), |url| self.called(url));
        match Unanswered::of(error) {
            Unanswered::Untrusted(reason) => {
                Problem::Untrusted { host, reason, looked: self.trust.looked.clone(), put: self.trust.put.clone() }
            }
            Unanswered::Certificate(reason) => Problem::Certificate { host, reason },
            Unanswered::NotTls(reason) => Problem::NotTls { host, reason },
            Unanswered::Unknown(reason) => Problem::Unknown { host, reason },
            Unanswered::Refused => Problem::Refused { host },
            Unanswered::Other(reason) => Problem::Silent { host, reason },
        }
    }

    /// What the host of an address is called: the registry by the name that images have.
    pub(super) fn called(&self, url: &Url) -> String {
        let own = Url::parse(&self.base).is_ok_and(|base| base.origin() == url.origin());
        if own { self.name.clone() } else { server_of(url) }
    }

    /// What to do where too much was asked.
    fn advice_on_limits(&self) -> String {
        let mut advice = Vec::new();
        if self.login.get().is_none_or(|login| login.credential.is_none()) {
            advice.push(format!("log in with `{}`", docker::login_command(&self.name)));
        }
        if self.mirror.is_some() {
            advice.push("ask whoever runs the mirror".to_owned());
        } else if self.name == DOCKER_HUB {
            advice.push("fetch from a mirror with `--mirror HOST[:PORT][/PREFIX]`".to_owned());
        }
        if advice.is_empty() { "come again then".to_owned() } else { advice.join(", or ") }
    }

    async fn problem(&self, answer: Response) -> Problem {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let host = self.called(answer.url());
        let said = said(&short(answer).await);
        let command = docker::login_command(&self.name);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => match self.login().await {
                Ok(login) => {
                    let absent = self.name == DOCKER_HUB || login.credential.is_none();
                    Problem::Denied { host, status, said, login: login.about.clone(), command, absent }
                }
                Err(problem) => problem,
            },
            StatusCode::NOT_FOUND => Problem::NotFound { host, said, mirror: self.mirror.clone() },
            StatusCode::TOO_MANY_REQUESTS => {
                Problem::TooMany { host, said, limit: Limit::of(&headers, Utc::now()), advice: self.advice_on_limits() }
            }
            _ => Problem::Status { host, status, said },
        }
    }
}

/// The beginning of a short answer; what cannot be read is left out.
async fn short(mut answer: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_ANSWER {
            break;
        }
    }
    body
}

fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{secret}")))
}

fn server_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether a registry's name, with or without a port, is one of this machine.
fn is_loopback(name: &str) -> bool {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_few_names() {
        for name in ["localhost", "localhost:5001", "127.0.0.1", "127.1.2.3:5000"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["mirror.test", "localhost.test:5000", "10.0.0.1:5000", "128.0.0.1"] {
            assert!(!is_loopback(name), "{name}");
        }
    }

    async fn host(name: &str, mirror: Option<&str>) -> Host {
        let docker = DockerFiles { config: PathBuf::new(), certificates: Vec::new() };
        Host::new(name, mirror.map(str::to_owned), &docker, None).await.unwrap()
    }

    #[tokio::test]
    async fn a_registry_is_known_by_its_name_whatever_its_address_looks_like() {
        for (name, url) in [
            ("mirror.test:443", "https://mirror.test/v2/x"),
            ("mirror.test:5000", "https://mirror.test:5000/v2/x"),
            ("docker.io", "https://registry-1.docker.io/v2/x"),
        ] {
            assert_eq!(host(name, None).await.called(&url.parse().unwrap()), name);
        }
        let other = host("mirror.test", None).await.called(&"https://mirror.test:5000/x".parse().unwrap());
        assert_eq!(other, "mirror.test:5000");
    }

    #[tokio::test]
    async fn what_to_do_about_a_limit_is_what_can_be_done() {
        let hub = host("docker.io", None).await;
        let mirrored = "fetch from a mirror with `--mirror HOST[:PORT][/PREFIX]`";
        assert_eq!(hub.advice_on_limits(), format!("log in with `docker login`, or {mirrored}"));
        let credential = Some(DockerCredential::IdentityToken("t".to_owned()));
        hub.login.set(Login { credential, about: String::new() }).ok().unwrap();
        assert_eq!(hub.advice_on_limits(), mirrored);
        let mirror = host("mirror.test", Some("mirror.test/hub")).await;
        let login = "log in with `docker login mirror.test`";
        assert_eq!(mirror.advice_on_limits(), format!("{login}, or ask whoever runs the mirror"));
        // The mirror serves Docker Hub's images only.
        assert_eq!(host("quay.test", None).await.advice_on_limits(), "log in with `docker login quay.test`");
    }

    #[tokio::test]
    async fn credentials_are_not_sent_to_a_token_server_without_tls() {
        let host = host("mirror.test", None).await;
        let challenges = parse_challenges("Bearer realm=\"http://127.0.0.1:1/token\"").unwrap();
        let credential = Some(DockerCredential::UsernamePassword("alice".to_owned(), "secret".to_owned()));
        let login = Login { credential, about: String::new() };
        let error = host.token("x", &challenges[0], &login).await.unwrap_err().to_string();
        let said = "its token server http://127.0.0.1:1/token would be sent the credentials without TLS";
        assert_eq!(error, format!("mirror.test wants a login that cannot be given: {said}"));
        // Without any there is nothing to lose.
        let login = Login { credential: None, about: String::new() };
        let error = host.token("x", &challenges[0], &login).await.unwrap_err();
        assert!(matches!(&error, Problem::Refused { host } if host == "127.0.0.1:1"), "{error}");
    }
}
