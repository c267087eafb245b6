//! Harbor: its API, its registry, and what it holds.

pub mod api;
pub mod drift;
mod exec;
pub mod fill;
pub mod inventory;
pub mod layout;
pub mod registry;
pub mod seed;

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::Api;
use reqwest::Method;

/// Harbor in the lab.
#[derive(Debug, Clone)]
pub struct Harbor {
    /// Host and port, as images are named after it.
    pub host: String,
    /// The namespace of its release.
    pub namespace: String,
    /// The release's name.
    pub release: String,
    /// Who can log in to it.
    pub accounts: Accounts,
}

/// Who can log in to the lab's Harbor.
#[derive(Debug, Clone)]
pub struct Accounts {
    /// The administrator, with the password that was set after the installation.
    pub admin: Account,
    /// The administrator's password that the chart sets when the database is new.
    pub initial_password: String,
    /// A member of the private project.
    pub member: Account,
    /// A robot of the private project. Harbor chooses its secret when it is made: known from then on.
    pub robot: Arc<Mutex<Account>>,
}

/// A name and what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// As it logs in.
    pub name: String,
    /// Its password or secret.
    pub secret: String,
}

impl Account {
    /// An account.
    pub fn new(name: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { name: name.into(), secret: secret.into() }
    }
}

impl Accounts {
    /// The administrator as the chart leaves it.
    pub fn initial_admin(&self) -> Account {
        Account::new(&self.admin.name, &self.initial_password)
    }

    /// The robot account as it is known now.
    pub fn robot(&self) -> Account {
        self.robot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why Harbor could not be asked, or what it answered amiss.
#[derive(Debug, thiserror::Error)]
pub enum HarborError {
    /// No answer.
    #[error("ask Harbor at {url}: {}", chain(source))]
    Request {
        /// The address.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// An answer with another status than success.
    #[error("Harbor answered {status} to {method} {url}: {body}")]
    Status {
        /// The method.
        method: Method,
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The body's beginning.
        body: String,
    },
    /// The registry part refused.
    #[error("{doing} {reference}: {source}")]
    Registry {
        /// What was being done.
        doing: &'static str,
        /// The image.
        reference: String,
        /// What was said.
        source: Box<oci_client::errors::OciDistributionError>,
    },
    /// An image's reference cannot be parsed.
    #[error("{0} is no image reference")]
    Reference(String),
    /// The certificate authority cannot be had from the cluster.
    #[error("read ca.crt from secret {secret} in namespace {namespace}: {why}")]
    Ca {
        /// The secret.
        secret: String,
        /// Its namespace.
        namespace: String,
        /// What is wrong.
        why: String,
    },
    /// What was pushed is not what is read back.
    #[error("{reference} reads back as {read}, pushed was {pushed}")]
    ReadBack {
        /// The image.
        reference: String,
        /// The digest read.
        read: String,
        /// The digest pushed.
        pushed: String,
    },
    /// The database does not answer.
    #[error("ask Harbor's database: {0}")]
    Database(String),
    /// The registry's storage cannot be listed.
    #[error("list the registry's storage: {0}")]
    Storage(String),
}

/// An error with its causes, since reqwest names only the outermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    words
}

impl Harbor {
    /// Harbor's address.
    pub fn url(&self) -> String {
        format!("https://{}", self.host)
    }

    /// The certificate authority of the certificate that nginx serves, in PEM. Read from the cluster, not from Harbor: who does
    /// not trust Harbor yet cannot ask it. The secret is the chart's own or one that someone gave it: nginx's pod names it.
    pub async fn ca(&self, client: &kube::Client) -> Result<String, HarborError> {
        let wrong = |secret: &str, why: String| HarborError::Ca {
            secret: secret.to_owned(),
            namespace: self.namespace.clone(),
            why,
        };
        let nginx = format!("{}-nginx", self.release);
        let found = Api::<Deployment>::namespaced(client.clone(), &self.namespace)
            .get(&nginx)
            .await
            .map_err(|error| wrong(&nginx, format!("read deployment {nginx}: {error}")))?;
        let volumes = found.spec.and_then(|spec| spec.template.spec?.volumes).unwrap_or_default();
        let secret = volumes
            .into_iter()
            .find(|volume| volume.name == "certificate")
            .and_then(|volume| volume.secret?.secret_name)
            .unwrap_or(nginx);
        let found = Api::<Secret>::namespaced(client.clone(), &self.namespace)
            .get(&secret)
            .await
            .map_err(|error| wrong(&secret, error.to_string()))?;
        let bytes = found
            .data
            .unwrap_or_default()
            .remove("ca.crt")
            .ok_or_else(|| wrong(&secret, "there is no such key".into()))?;
        String::from_utf8(bytes.0).map_err(|_| wrong(&secret, "it is not text".into()))
    }
}
