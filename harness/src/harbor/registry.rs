//! Harbor's registry: pushing images and reading back what it holds.

use oci_client::{
    Client, Reference, RegistryOperation,
    client::{Certificate, CertificateEncoding, ClientConfig},
    secrets::RegistryAuth,
};

use super::{
    Harbor, HarborError,
    seed::{MANIFEST, SeedImage, digest},
};

/// A registry client for one Harbor, logged in as the administrator and trusting one certificate authority.
pub struct Registry {
    client: Client,
    auth: RegistryAuth,
    host: String,
}

impl Registry {
    /// A client that trusts `ca` (PEM) and nothing else.
    pub fn new(harbor: &Harbor, ca: &str) -> Self {
        let config = ClientConfig {
            tls_certs_only: vec![Certificate { encoding: CertificateEncoding::Pem, data: ca.as_bytes().to_vec() }],
            ..Default::default()
        };
        Self {
            client: Client::new(config),
            auth: RegistryAuth::Basic("admin".to_owned(), harbor.admin_password.clone()),
            host: harbor.host.clone(),
        }
    }

    /// Pushes an image and reads its digest back.
    pub async fn push(&self, image: &SeedImage) -> Result<String, HarborError> {
        let reference = self.reference(&image.repository, &image.tag)?;
        let wrong = |doing| {
            let reference = reference.to_string();
            move |source| HarborError::Registry { doing, reference, source: Box::new(source) }
        };
        self.client.auth(&reference, &self.auth, RegistryOperation::Push).await.map_err(wrong("log in to push"))?;
        for blob in [&image.layer, &image.config] {
            self.client.push_blob(&reference, blob.clone(), &digest(blob)).await.map_err(wrong("push a blob of"))?;
        }
        let kind = MANIFEST.parse().map_err(|_| HarborError::Reference(MANIFEST.to_owned()))?;
        self.client
            .push_manifest_raw(&reference, image.manifest.clone(), kind)
            .await
            .map_err(wrong("push the manifest of"))?;
        let read = self.digest(&image.repository, &image.tag).await?;
        if read != image.digest() {
            return Err(HarborError::ReadBack { reference: reference.to_string(), read, pushed: image.digest() });
        }
        Ok(read)
    }

    /// The digest that a tag names.
    pub async fn digest(&self, repository: &str, tag: &str) -> Result<String, HarborError> {
        let reference = self.reference(repository, tag)?;
        self.client.fetch_manifest_digest(&reference, &self.auth).await.map_err(|source| HarborError::Registry {
            doing: "read the digest of",
            reference: reference.to_string(),
            source: Box::new(source),
        })
    }

    /// The bytes of a manifest, by digest or tag.
    pub async fn manifest(&self, repository: &str, digest: &str) -> Result<Vec<u8>, HarborError> {
        let reference = Reference::with_digest(self.host.clone(), repository.to_owned(), digest.to_owned());
        let accepted = [
            MANIFEST,
            "application/vnd.oci.image.index.v1+json",
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
        self.client.auth(&reference, &self.auth, RegistryOperation::Pull).await.map_err(wrong)?;
        let mut bytes = Vec::new();
        self.client.pull_blob(&reference, blob, &mut bytes).await.map_err(wrong)?;
        Ok((digest(&bytes), bytes.len()))
    }

    fn reference(&self, repository: &str, tag: &str) -> Result<Reference, HarborError> {
        let name = format!("{}/{repository}:{tag}", self.host);
        name.parse().map_err(|_| HarborError::Reference(name))
    }
}
