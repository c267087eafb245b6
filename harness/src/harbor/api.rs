//! Harbor's API v2.0, as far as the lab asks it.

use std::time::Duration;

use reqwest::{Certificate, Client};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Harbor, HarborError};

/// Asks one Harbor, trusting one certificate authority.
#[derive(Debug, Clone)]
pub struct Api {
    url: String,
    password: String,
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
    /// An API client that trusts `ca` (PEM) and nothing else, logged in as the administrator.
    pub fn new(harbor: &Harbor, ca: &str) -> Result<Self, HarborError> {
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
        Ok(Self { url, password: harbor.admin_password.clone(), client })
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
        let request = |source| HarborError::Request { url: url.clone(), source };
        let answer = self.client.get(&url).basic_auth("admin", Some(&self.password)).send().await.map_err(request)?;
        let status = answer.status();
        if !status.is_success() {
            let body: String = answer.text().await.unwrap_or_default().chars().take(500).collect();
            return Err(HarborError::Status { method: "GET", url, status: status.as_u16(), body });
        }
        answer.json().await.map_err(request)
    }
}
