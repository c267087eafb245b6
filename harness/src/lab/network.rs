//! The lab's own Docker network. Its label marks what belongs to a lab, because kind offers no label for its containers.

use bollard::{Docker, models::NetworkCreateRequest};

use super::ledger::LAB_LABEL;

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
