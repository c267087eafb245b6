//! Harbor's registry: pushing images and reading back what it holds.

use oci_client::{
    Client, Reference, RegistryOperation,
    client::{Certificate, CertificateEncoding, ClientConfig},
    secrets::RegistryAuth,
};

use super::{
    Account, Harbor, HarborError,
    seed::{Artifact, INDEX, MANIFEST, digest},
};

/// A registry client for one Harbor, logged in as one account and trusting one certificate authority.
pub struct Registry {
    client: Client,
    auth: RegistryAuth,
    host: String,
}

impl Registry {
    /// A client that trusts `ca` (PEM) and nothing else.
    pub fn new(harbor: &Harbor, ca: &str, account: &Account) -> Self {
        let config = ClientConfig {
            tls_certs_only: vec![Certificate { encoding: CertificateEncoding::Pem, data: ca.as_bytes().to_vec() }],
            // Harbor is reached directly, as by `Api`: a proxy that nothing goes through takes the place of the environment's.
            https_proxy: Some("http://proxy.invalid".to_owned()),
            no_proxy: Some("0.0.0.0/0,::/0,*".to_owned()),
            ..Default::default()
        };
        Self {
            client: Client::new(config),
            auth: RegistryAuth::Basic(account.name.clone(), account.secret.clone()),
            host: harbor.host.clone(),
        }
    }

    /// Pushes an image, or an index with its images, and reads its digest back.
    pub async fn push(&self, artifact: &Artifact) -> Result<String, HarborError> {
        for child in &artifact.children {
            Box::pin(self.push(child)).await?;
        }
        let pushed = artifact.digest();
        let reference = match &artifact.tag {
            Some(tag) => Reference::with_tag(self.host.clone(), artifact.repository.clone(), tag.clone()),
            None => Reference::with_digest(self.host.clone(), artifact.repository.clone(), pushed.clone()),
        };
        let wrong = |doing| {
            let reference = reference.to_string();
            move |source| HarborError::Registry { doing, reference, source: Box::new(source) }
        };
        self.client.auth(&reference, &self.auth, RegistryOperation::Push).await.map_err(wrong("log in to push"))?;
        for blob in artifact.blobs() {
            let digest = digest(blob);
            self.client.push_blob(&reference, blob.to_vec(), &digest).await.map_err(wrong("push a blob of"))?;
        }
        let kind = artifact.media_type.parse().map_err(|_| HarborError::Reference(artifact.media_type.to_owned()))?;
        self.client
            .push_manifest_raw(&reference, artifact.manifest.clone(), kind)
            .await
            .map_err(wrong("push the manifest of"))?;
        let read = self.digest(&reference).await?;
        if read != pushed {
            return Err(HarborError::ReadBack { reference: reference.to_string(), read, pushed });
        }
        Ok(read)
    }

    /// The digest that a tag names.
    pub async fn tag(&self, repository: &str, tag: &str) -> Result<String, HarborError> {
        self.digest(&Reference::with_tag(self.host.clone(), repository.to_owned(), tag.to_owned())).await
    }

    async fn digest(&self, reference: &Reference) -> Result<String, HarborError> {
        self.client.fetch_manifest_digest(reference, &self.auth).await.map_err(|source| HarborError::Registry {
            doing: "read the digest of",
            reference: reference.to_string(),
            source: Box::new(source),
        })
    }

    /// The bytes of a manifest, by digest.
    pub async fn manifest(&self, repository: &str, digest: &str) -> Result<Vec<u8>, HarborError> {
        let reference = Reference::with_digest(self.host.clone(), repository.to_owned(), digest.to_owned());
        let accepted = [
            MANIFEST,
            INDEX,
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ];
        let (bytes, _) = self.client.pull_manifest_raw(&reference, &self.auth, &accepted).await.map_err(|source| {
            HarborError::Registry {
                doing: "read the manifest of",
                reference: reference.to_string(),
                source: Box::new(source),
            }
        })?;
        Ok(bytes.to_vec())
    }

    /// Reads a blob whole and returns the digest and size of the bytes that came.
    pub async fn blob(&self, repository: &str, blob: &str) -> Result<(String, usize), HarborError> {
        let reference = Reference::with_digest(self.host.clone(), repository.to_owned(), blob.to_owned());
        let wrong = |source| HarborError::Registry {
            doing: "read a blob of",
            reference: reference.to_string(),
            source: Box::new(source),
        };
        // A token is asked for once per repository then, and not once per blob.
        self.client.store_auth_if_needed(&self.host, &self.auth).await;
        let mut bytes = Vec::new();
        self.client.pull_blob(&reference, blob, &mut bytes).await.map_err(wrong)?;
        Ok((digest(&bytes), bytes.len()))
    }
}
