//! What sources ask of a Docker engine: is this image there, load it, run something in it.

use std::{collections::HashMap, future::Future, path::Path, time::Duration};

use bollard::{
    Docker, body_try_stream,
    errors::Error as DockerError,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{
        CreateContainerOptions, DownloadFromContainerOptionsBuilder, ImportImageOptionsBuilder,
        ListImagesOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
        StartContainerOptions, UploadToContainerOptionsBuilder, WaitContainerOptions,
    },
};
use futures::{StreamExt, TryStreamExt};
use tokio::{fs::File, io::AsyncWriteExt};

use super::image::{Archive, Image};
use crate::run::events::Step;

/// The label on all that this project makes in an engine.
pub const LABEL: &str = "io.drydock";
/// The label that names the cache folder that an image was made from.
pub const CACHE_LABEL: &str = "io.drydock.cache";
/// The label that names the artifact that an image was made from.
pub const ARTIFACT_LABEL: &str = "io.drydock.artifact";

/// Loading some gigabytes takes seconds; after this an engine is stuck.
const LOAD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Why an engine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It refused.
    #[error("{doing}: the Docker engine at {host} says: {source}")]
    Refused {
        /// What was asked for.
        doing: String,
        /// The engine.
        host: String,
        /// What it said.
        source: DockerError,
    },
    /// It took too long.
    #[error("{doing}: the Docker engine at {host} has not done it in {} s; is it overloaded, or stuck?", after.as_secs())]
    TimedOut {
        /// What was asked for.
        doing: String,
        /// The engine.
        host: String,
        /// The limit.
        after: Duration,
    },
    /// What ran in a container failed.
    #[error("{doing}: it ended with status {status} and said: {said}")]
    Failed {
        /// What was being done.
        doing: String,
        /// The exit status.
        status: i64,
        /// The end of its output.
        said: String,
    },
    /// A file on this side.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// A Docker engine.
#[derive(Debug, Clone)]
pub struct EngineRef {
    /// Its address, as in `DOCKER_HOST`.
    pub host: String,
    /// A client of it.
    pub docker: Docker,
}

impl EngineRef {
    /// Whether the engine has an image of this name that was made from this artifact, and, where it is known, whose top
    /// layer has this digest.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn has(&self, name: &str, artifact: &str, top: Option<&str>) -> Result<bool, EngineError> {
        let image = match self.docker.inspect_image(name).await {
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => return Ok(false),
            found => found.map_err(self.refused(&format!("look for the image {name}")))?,
        };
        let labels = image.config.and_then(|config| config.labels).unwrap_or_default();
        let layers = image.root_fs.and_then(|root| root.layers).unwrap_or_default();
        Ok(labels.get(ARTIFACT_LABEL).is_some_and(|label| label == artifact)
            && top.is_none_or(|top| layers.last().is_some_and(|layer| layer == top)))
    }

    /// Makes an image and loads it; `step` is told how far it is.
    ///
    /// # Errors
    /// A layer's file cannot be read, or the engine refuses.
    pub async fn load(&self, image: Image, step: &Step) -> Result<(), EngineError> {
        let doing = format!("load the image {} into the engine", image.name);
        let failed = |source| EngineError::Io { doing: doing.clone(), source };
        let measured = tokio::task::spawn_blocking(move || Archive::new(&[image])).await;
        let archive = measured.map_err(std::io::Error::other).flatten().map_err(failed)?;
        let options = ImportImageOptionsBuilder::new().quiet(true).build();
        let load =
            self.docker.import_image_stream(options, archive.stream(step), None).try_for_each(|info| async move {
                match info.error_detail.and_then(|detail| detail.message) {
                    Some(message) => Err(DockerError::DockerResponseServerError { status_code: 500, message }),
                    None => Ok(()),
                }
            });
        self.within(LOAD_LIMIT, &doing, load).await
    }

    /// Removes the images that were made from this cache folder and whose artifact `keep` does not want. One in use stays.
    /// Returns the names of those that are gone.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn drop_images(&self, cache: &Path, keep: impl Fn(&str) -> bool) -> Result<Vec<String>, EngineError> {
        let of_cache = format!("{CACHE_LABEL}={}", cache.display());
        let filters = HashMap::from([("label", vec![of_cache.as_str()])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let images =
            self.docker.list_images(Some(options)).await.map_err(self.refused("list the images of this cache"))?;
        let mut gone = Vec::new();
        for image in images.into_iter().filter(|image| !image.labels.get(ARTIFACT_LABEL).is_some_and(|id| keep(id))) {
            let options = RemoveImageOptionsBuilder::new().build();
            if self.docker.remove_image(&image.id, Some(options), None).await.is_ok() {
                gone.extend(image.repo_tags);
            }
        }
        Ok(gone)
    }

    /// Removes an image's name, if it is there. One in use stays.
    pub async fn forget(&self, name: &str) {
        let options = RemoveImageOptionsBuilder::new().build();
        // The image only takes space; whoever uses it still has the right to.
        let _ = self.docker.remove_image(name, Some(options), None).await;
    }

    /// Unpacks `import` to `/var/import` in a privileged container of `image` that has `/var` as a volume, runs a shell
    /// script there, and saves what is then in `/var/stage` as an archive. The container is gone afterwards.
    ///
    /// # Errors
    /// The engine refuses, or the script fails, or takes longer than `limit`.
    pub async fn stage(
        &self,
        image: &str,
        import: Archive,
        script: &str,
        limit: Duration,
        out: &Path,
        step: &Step,
    ) -> Result<(), EngineError> {
        let doing = format!("run a script in the image {image}");
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec()),
            labels: Some(HashMap::from([(LABEL.to_owned(), "true".to_owned())])),
            volumes: Some(vec!["/var".to_owned()]),
            host_config: Some(HostConfig {
                privileged: Some(true),
                network_mode: Some("none".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let create = self.docker.create_container(None::<CreateContainerOptions>, body);
        let container = create.await.map_err(self.refused(&doing))?.id;
        let staged = self.stage_in(&container, &doing, import, limit, out, step).await;
        let remove = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.docker.remove_container(&container, Some(remove)).await;
        staged?;
        removed.map_err(self.refused(&format!("remove the container {container}")))
    }

    async fn stage_in(
        &self,
        container: &str,
        doing: &str,
        import: Archive,
        limit: Duration,
        out: &Path,
        step: &Step,
    ) -> Result<(), EngineError> {
        let options = UploadToContainerOptionsBuilder::new().path("/var/import").build();
        let upload = self.docker.upload_to_container(container, Some(options), body_try_stream(import.stream(step)));
        self.within(limit, doing, upload).await?;
        // How long the script takes is not known.
        step.progress(0, 0);
        self.docker.start_container(container, None::<StartContainerOptions>).await.map_err(self.refused(doing))?;
        let wait = async {
            let mut ended = self.docker.wait_container(container, None::<WaitContainerOptions>);
            match ended.next().await {
                Some(Ok(end)) => Ok(end.status_code),
                Some(Err(DockerError::DockerContainerWaitError { code, .. })) => Ok(code),
                Some(Err(error)) => Err(error),
                None => Ok(0),
            }
        };
        let status = self.within(limit, doing, wait).await?;
        if status != 0 {
            let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("20").build();
            let said: Vec<String> = self
                .docker
                .logs(container, Some(options))
                .filter_map(|line| async { line.ok().map(|line| line.to_string()) })
                .collect()
                .await;
            return Err(EngineError::Failed { doing: doing.to_owned(), status, said: said.concat().trim().to_owned() });
        }
        let failed = |source| EngineError::Io { doing: format!("save {}", out.display()), source };
        let save = async {
            let mut file = File::create(out).await.map_err(failed)?;
            let options = DownloadFromContainerOptionsBuilder::new().path("/var/stage/.").build();
            let mut archive = self.docker.download_from_container(container, Some(options));
            while let Some(chunk) = archive.try_next().await.map_err(self.refused(doing))? {
                file.write_all(&chunk).await.map_err(failed)?;
            }
            file.flush().await.map_err(failed)
        };
        match tokio::time::timeout(limit, save).await {
            Ok(saved) => saved,
            Err(_) => Err(self.timed_out(limit, doing)),
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        doing: &str,
        work: impl Future<Output = Result<T, DockerError>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done.map_err(self.refused(doing)),
            Err(_) => Err(self.timed_out(limit, doing)),
        }
    }

    fn refused(&self, doing: &str) -> impl FnOnce(DockerError) -> EngineError + use<> {
        let (doing, host) = (doing.to_owned(), self.host.clone());
        move |source| EngineError::Refused { doing, host, source }
    }

    fn timed_out(&self, after: Duration, doing: &str) -> EngineError {
        EngineError::TimedOut { doing: doing.to_owned(), host: self.host.clone(), after }
    }
}
