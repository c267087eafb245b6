//! Filling a Harbor with what the lab's holds: projects, accounts and images. What is there already is left as it is.

use serde_json::{Value, json};

use super::{
    Account, Accounts, Harbor, HarborError,
    api::Api,
    registry::Registry,
    seed::{PRIVATE_PROJECT, Seed},
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
