//! The lab's own Docker network. Its label marks what belongs to a lab, because kind offers no label for its containers.

use bollard::{Docker, models::NetworkCreateRequest};

/// The label on everything that Drydock makes; its value is the lab's id.
pub const LAB_LABEL: &str = "io.drydock.lab";

/// Makes the network, named like the cluster, for the lab `lab`.
///
/// # Errors
/// The engine's, among them that a network of this name exists.
pub async fn create(docker: &Docker, name: &str, lab: &str) -> Result<(), bollard::errors::Error> {
    let request = NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        labels: Some([(LAB_LABEL.to_owned(), lab.to_owned())].into()),
        options: Some([("com.docker.network.bridge.enable_ip_masquerade".to_owned(), "true".to_owned())].into()),
        ..Default::default()
    };
    docker.create_network(request).await.map(|_| ())
}

/// Removes the network; one that is not there is no error.
pub async fn remove(docker: &Docker, name: &str) -> Result<(), bollard::errors::Error> {
    match docker.remove_network(name).await {
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        other => other,
    }
}
