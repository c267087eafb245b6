//! Harbor's API v2.0, as far as the lab asks it.

use std::time::Duration;

use reqwest::{Certificate, Client, Method, Response};
use serde::{Deserialize, de::DeserializeOwned};

use serde_json::Value;

use super::{Account, Harbor, HarborError};

/// Asks one Harbor as one account, trusting one certificate authority.
#[derive(Debug, Clone)]
pub struct Api {
    url: String,
    account: Account,
    client: Client,
}

/// The answer of `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Health {
    /// `healthy` when every component is.
    pub status: String,
    /// Each component.
    #[serde(default)]
    pub components: Vec<ComponentHealth>,
}

/// One component's health.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ComponentHealth {
    /// Its name, such as `registry`.
    pub name: String,
    /// `healthy` or `unhealthy`.
    pub status: String,
}

impl Health {
    /// The components that are not healthy.
    pub fn amiss(&self) -> Vec<&str> {
        self.components.iter().filter(|part| part.status != "healthy").map(|part| part.name.as_str()).collect()
    }
}

/// A part of the answer of `GET /systeminfo`.
#[derive(Debug, Clone, Deserialize)]
pub struct SystemInfo {
    /// The version, given to those who are logged in.
    #[serde(default)]
    pub harbor_version: String,
}

/// A project.
#[derive(Debug, Clone, Deserialize)]
pub struct Project {
    /// Its name.
    pub name: String,
}

/// A robot account.
#[derive(Debug, Clone, Deserialize)]
pub struct Robot {
    /// What the API calls it by.
    pub id: i64,
    /// What it logs in as: `robot$team+ci`.
    pub name: String,
}

/// A repository.
#[derive(Debug, Clone, Deserialize)]
pub struct Repository {
    /// Its name with the project's: `library/app`.
    pub name: String,
}

/// An artifact.
#[derive(Debug, Clone, Deserialize)]
pub struct Artifact {
    /// The manifest's digest.
    pub digest: String,
    /// The tags on it; Harbor answers `null` for none.
    pub tags: Option<Vec<Tag>>,
}

/// A tag.
#[derive(Debug, Clone, Deserialize)]
pub struct Tag {
    /// Its name.
    pub name: String,
}

impl Api {
    /// An API client that trusts `ca` (PEM) and nothing else, logged in as `account`.
    pub fn new(harbor: &Harbor, ca: &str, account: &Account) -> Result<Self, HarborError> {
        let url = harbor.url();
        let request = |source| HarborError::Request { url: url.clone(), source };
        let ca = Certificate::from_pem(ca.as_bytes()).map_err(request)?;
        let client = Client::builder()
            .tls_certs_only([ca])
            .timeout(Duration::from_secs(20))
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build()
            .map_err(request)?;
        Ok(Self { url, account: account.clone(), client })
    }

    /// The same client, logged in as another account.
    pub fn as_account(&self, account: &Account) -> Self {
        Self { account: account.clone(), ..self.clone() }
    }

    /// Whether Harbor lets this account in. Asked at the registry's door, which users and robots go through alike.
    pub async fn logs_in(&self) -> Result<bool, HarborError> {
        match self.send(Method::GET, &format!("{}/v2/", self.url), None).await {
            Ok(_) => Ok(true),
            Err(HarborError::Status { status: 401, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Harbor's own word on its health.
    pub async fn health(&self) -> Result<Health, HarborError> {
        self.get("/api/v2.0/health").await
    }

    /// What Harbor says of itself.
    pub async fn system_info(&self) -> Result<SystemInfo, HarborError> {
        self.get("/api/v2.0/systeminfo").await
    }

    /// All projects.
    pub async fn projects(&self) -> Result<Vec<Project>, HarborError> {
        self.pages("/api/v2.0/projects").await
    }

    /// All robot accounts of a project.
    pub async fn robots(&self, project: &str) -> Result<Vec<Robot>, HarborError> {
        self.pages(&format!("/api/v2.0/projects/{project}/robots")).await
    }

    /// All repositories of a project.
    pub async fn repositories(&self, project: &str) -> Result<Vec<Repository>, HarborError> {
        self.pages(&format!("/api/v2.0/projects/{project}/repositories")).await
    }

    /// All artifacts of a repository, given with its project's name.
    pub async fn artifacts(&self, repository: &str) -> Result<Vec<Artifact>, HarborError> {
        let (project, name) = repository.split_once('/').unwrap_or((repository, ""));
        // Harbor wants a slash within the repository's name encoded twice.
        let name = name.replace('/', "%252F");
        self.pages(&format!("/api/v2.0/projects/{project}/repositories/{name}/artifacts?with_tag=true")).await
    }

    async fn pages<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, HarborError> {
        const SIZE: usize = 100;
        let mut all = Vec::new();
        for page in 1.. {
            let mark = if path.contains('?') { '&' } else { '?' };
            let some: Vec<T> = self.get(&format!("{path}{mark}page={page}&page_size={SIZE}")).await?;
            let last = some.len() < SIZE;
            all.extend(some);
            if last {
                break;
            }
        }
        Ok(all)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, HarborError> {
        let url = format!("{}{path}", self.url);
        let answer = self.send(Method::GET, &url, None).await?;
        answer.json().await.map_err(|source| HarborError::Request { url, source })
    }

    /// Creates what `body` describes and returns the answer; `None` where it is there already.
    pub async fn create(&self, path: &str, body: Value) -> Result<Option<Value>, HarborError> {
        let url = format!("{}/api/v2.0{path}", self.url);
        match self.send(Method::POST, &url, Some(body)).await {
            // Most answers to a creation are empty.
            Ok(answer) => Ok(Some(answer.json().await.unwrap_or_default())),
            Err(HarborError::Status { status: 409, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets what is at `path` to `body`.
    pub async fn put(&self, path: &str, body: Value) -> Result<(), HarborError> {
        self.send(Method::PUT, &format!("{}/api/v2.0{path}", self.url), Some(body)).await.map(|_| ())
    }

    /// Deletes what is at `path`.
    pub async fn delete(&self, path: &str) -> Result<(), HarborError> {
        self.send(Method::DELETE, &format!("{}/api/v2.0{path}", self.url), None).await.map(|_| ())
    }

    async fn send(&self, method: Method, url: &str, body: Option<Value>) -> Result<Response, HarborError> {
        let request = |source| HarborError::Request { url: url.to_owned(), source };
        let asked = self.client.request(method.clone(), url).basic_auth(&self.account.name, Some(&self.account.secret));
        let asked = body.iter().fold(asked, |asked, body| asked.json(body));
        let answer = asked.send().await.map_err(request)?;
        let status = answer.status();
        if !status.is_success() {
            let body: String = answer.text().await.unwrap_or_default().chars().take(500).collect();
            return Err(HarborError::Status { method, url: url.to_owned(), status: status.as_u16(), body });
        }
        Ok(answer)
    }
}
