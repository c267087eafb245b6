//! Harbor: its API, its registry, and what it holds.

pub mod api;
pub mod inventory;
pub mod registry;
pub mod seed;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

/// Harbor in the lab.
#[derive(Debug, Clone)]
pub struct Harbor {
    /// Host and port, as images are named after it.
    pub host: String,
    /// The namespace of its release.
    pub namespace: String,
    /// The release's name.
    pub release: String,
    /// The administrator's password.
    pub admin_password: String,
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
        method: &'static str,
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
    /// A row count cannot be read from the database.
    #[error("count rows in Harbor's database: {0}")]
    Rows(String),
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

    /// An image's full name.
    pub fn image(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.host)
    }

    /// The certificate authority as the chart keeps it (`ca.crt` of the nginx secret), in PEM. Read from the cluster, not from
    /// Harbor: who does not trust Harbor yet cannot ask it.
    pub async fn ca(&self, client: &kube::Client) -> Result<String, HarborError> {
        let secret = format!("{}-nginx", self.release);
        let wrong = |why: String| HarborError::Ca { secret: secret.clone(), namespace: self.namespace.clone(), why };
        let found = Api::<Secret>::namespaced(client.clone(), &self.namespace)
            .get(&secret)
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let bytes =
            found.data.unwrap_or_default().remove("ca.crt").ok_or_else(|| wrong("there is no such key".into()))?;
        String::from_utf8(bytes.0).map_err(|_| wrong("it is not text".into()))
    }
}
