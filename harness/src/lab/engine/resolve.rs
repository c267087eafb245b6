//! Which Docker engine a user means: `DOCKER_HOST`, else the docker command's context, else the default socket.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Where an engine listens unless it is told otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// An address at which an engine may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The address, in `DOCKER_HOST`'s form.
    pub host: String,
    /// Who named it.
    pub origin: Origin,
}

/// Who named an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `DOCKER_HOST`.
    Variable,
    /// The docker command's current context, of this name.
    Context(String),
    /// Nobody: it is the default.
    Default,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Variable => write!(f, "{} (from DOCKER_HOST)", self.host),
            Origin::Context(name) => write!(f, "{} (from the docker context {name})", self.host),
            Origin::Default => write!(f, "{} (the default)", self.host),
        }
    }
}

/// What the environment says, most wanted first.
pub fn candidates() -> Vec<Candidate> {
    let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let config_dir =
        var("DOCKER_CONFIG").map(PathBuf::from).or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".docker")));
    judge(var("DOCKER_HOST"), var("DOCKER_CONTEXT"), config_dir.as_deref())
}

/// What kind is told to drive in place of Docker, if the environment says so.
pub fn other_provider() -> Option<String> {
    std::env::var("KIND_EXPERIMENTAL_PROVIDER").ok().filter(|provider| !matches!(provider.as_str(), "" | "docker"))
}

fn judge(docker_host: Option<String>, docker_context: Option<String>, config_dir: Option<&Path>) -> Vec<Candidate> {
    if let Some(host) = docker_host {
        return vec![Candidate { host, origin: Origin::Variable }];
    }
    let default = Candidate { host: DEFAULT_HOST.to_owned(), origin: Origin::Default };
    let context = config_dir.and_then(|dir| {
        let name = docker_context.or_else(|| {
            let config = read_json(&dir.join("config.json"))?;
            config["currentContext"].as_str().map(str::to_owned)
        })?;
        let meta = dir.join("contexts/meta").join(hex::encode(Sha256::digest(&name))).join("meta.json");
        let host = read_json(&meta)?["Endpoints"]["docker"]["Host"].as_str()?.to_owned();
        Some(Candidate { host, origin: Origin::Context(name) })
    });
    context.into_iter().filter(|context| context.host != default.host).chain([default.clone()]).collect()
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.host.as_str()).collect()
    }

    fn config_with_context(name: &str, host: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), format!(r#"{{"currentContext":"{name}"}}"#)).unwrap();
        let meta = dir.path().join("contexts/meta").join(hex::encode(Sha256::digest(name)));
        std::fs::create_dir_all(&meta).unwrap();
        let text = format!(r#"{{"Name":"{name}","Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#);
        std::fs::write(meta.join("meta.json"), text).unwrap();
        dir
    }

    #[test]
    fn docker_host_leaves_no_other_choice() {
        let config = config_with_context("desk", "unix:///desk.sock");
        let found = judge(Some("tcp://far:2375".into()), None, Some(config.path()));
        assert_eq!(hosts(&found), ["tcp://far:2375"]);
        assert_eq!(found[0].to_string(), "tcp://far:2375 (from DOCKER_HOST)");
    }

    #[test]
    fn the_context_comes_before_the_default() {
        let config = config_with_context("desk", "unix:///desk.sock");
        assert_eq!(hosts(&judge(None, None, Some(config.path()))), ["unix:///desk.sock", DEFAULT_HOST]);
        assert_eq!(hosts(&judge(None, Some("other".into()), Some(config.path()))), [DEFAULT_HOST]);
    }

    #[test]
    fn without_any_configuration_it_is_the_default_once() {
        assert_eq!(hosts(&judge(None, None, None)), [DEFAULT_HOST]);
        let config = config_with_context("same", DEFAULT_HOST);
        assert_eq!(hosts(&judge(None, None, Some(config.path()))), [DEFAULT_HOST]);
    }
}
