//! Filling a Harbor with what the lab's holds: projects, accounts and images. What is there already is left as it is.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    Account, Accounts, Harbor, HarborError,
    api::Api,
    registry::Registry,
    seed::{Artifact, PRIVATE_PROJECT, Seed, digest},
};

/// Harbor's number of the role `developer`.
const DEVELOPER: u8 = 2;
/// The robot's name within its project.
const ROBOT: &str = "ci";

/// The accounts of a lab. A database that is made anew knows none of them.
pub fn accounts(initial_password: &str) -> Accounts {
    Accounts {
        admin: Account::new("admin", "Drydock-Admin-1"),
        initial_password: initial_password.to_owned(),
        member: Account::new("dev", "Drydock-Dev-1"),
        robot: std::sync::Arc::new(std::sync::Mutex::new(Account::new(
            format!("robot${PRIVATE_PROJECT}+{ROBOT}"),
            "Drydock-Robot-1",
        ))),
    }
}

/// Makes the projects and accounts and pushes the images, where they are not there yet.
pub async fn fill(harbor: &Harbor, ca: &str, seed: &Seed) -> Result<(), HarborError> {
    let accounts = &harbor.accounts;
    let api = Api::new(harbor, ca, &accounts.admin)?;
    if !api.logs_in().await? {
        let change = json!({"old_password": accounts.initial_password, "new_password": accounts.admin.secret});
        api.as_account(&accounts.initial_admin()).put("/users/1/password", change).await?;
    }
    let project = json!({"project_name": PRIVATE_PROJECT, "metadata": {"public": "false"}});
    api.create("/projects", project).await?;
    let Account { name, secret } = &accounts.member;
    let user = json!({"username": name, "realname": name, "email": format!("{name}@example.com"), "password": secret});
    api.create("/users", user).await?;
    let member = json!({"role_id": DEVELOPER, "member_user": {"username": name}});
    api.create(&format!("/projects/{PRIVATE_PROJECT}/members"), member).await?;
    robot(harbor, &api).await?;
    let registry = Registry::new(harbor, ca, &accounts.admin);
    for artifact in &seed.artifacts {
        registry.push(artifact).await?;
    }
    Ok(())
}

/// A robot whose secret is not the known one is made anew: no one can ask Harbor for it.
async fn robot(harbor: &Harbor, api: &Api) -> Result<(), HarborError> {
    let known = harbor.accounts.robot();
    if api.as_account(&known).logs_in().await? {
        return Ok(());
    }
    for robot in api.robots(PRIVATE_PROJECT).await?.iter().filter(|robot| robot.name == known.name) {
        api.delete(&format!("/robots/{}", robot.id)).await?;
    }
    let access: Vec<Value> = ["pull", "push"].map(|action| json!({"resource": "repository", "action": action})).into();
    let body = json!({
        "name": ROBOT,
        "level": "project",
        "duration": -1,
        "secret": known.secret,
        "permissions": [{"kind": "project", "namespace": PRIVATE_PROJECT, "access": access}],
    });
    let made = api.create("/robots", body).await?.unwrap_or_default();
    // Harbor may have chosen another.
    if let (Some(secret), Ok(mut robot)) = (made["secret"].as_str(), harbor.accounts.robot.lock()) {
        secret.clone_into(&mut robot.secret);
    }
    Ok(())
}

/// Lays every image as an OCI image layout under `dir`, as a build machine has it that can push it again, and `list`: a line
/// for each with its folder and its name without the host.
///
/// # Errors
/// A file cannot be written.
pub fn lay_out(seed: &Seed, dir: &Path) -> std::io::Result<()> {
    let mut list = String::new();
    for artifact in &seed.artifacts {
        let name = artifact.tag.as_deref().unwrap_or("untagged");
        let folder = format!("{}-{name}", artifact.repository.replace('/', "-"));
        lay_out_one(artifact, &dir.join(&folder))?;
        list.push_str(&format!("images/{folder} {}\n", artifact.name()));
    }
    std::fs::write(dir.join("list"), list)
}

fn lay_out_one(artifact: &Artifact, dir: &Path) -> std::io::Result<()> {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let entry = json!({
        "mediaType": artifact.media_type,
        "digest": artifact.digest(),
        "size": artifact.manifest.len(),
    });
    std::fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string())?;
    for part in [artifact].into_iter().chain(&artifact.children) {
        for bytes in part.blobs().chain([part.manifest.as_slice()]) {
            std::fs::write(blobs.join(digest(bytes).trim_start_matches("sha256:")), bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blob_of_a_layout_has_its_digest_as_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let seed = Seed::new().unwrap();
        lay_out(&seed, dir.path()).unwrap();
        let list = std::fs::read_to_string(dir.path().join("list")).unwrap();
        assert_eq!(list.lines().count(), seed.artifacts.len());
        let mut blobs = 0;
        for line in list.lines() {
            let folder = dir.path().join(line.split_once(' ').unwrap().0.trim_start_matches("images/"));
            for blob in std::fs::read_dir(folder.join("blobs/sha256")).unwrap() {
                let blob = blob.unwrap();
                let hash = digest(&std::fs::read(blob.path()).unwrap());
                assert_eq!(hash, format!("sha256:{}", blob.file_name().to_str().unwrap()));
                blobs += 1;
            }
        }
        // Four images of a manifest, a configuration and two layers; an index of two.
        assert_eq!(blobs, 4 * 4 + 1 + 2 * 4);
    }
}
