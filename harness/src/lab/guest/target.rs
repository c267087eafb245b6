//! Which cluster is meant, and that its owner knows what happens to it.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::nearest::{did_you_mean, list};

/// Why a cluster cannot be meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Not of the form.
    #[error("--cluster `{0}`: write KUBECONFIG:CONTEXT, a kubeconfig's path and one of its contexts")]
    Form(String),
    /// The file cannot be used.
    #[error("read the kubeconfig {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such context in it.
    #[error("the kubeconfig {} has no context `{name}`{suggestion} (it has: {known})", path.display())]
    Context {
        /// The file.
        path: PathBuf,
        /// As it was given.
        name: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
        /// All that there are.
        known: String,
    },
    /// Its user logs in with a program.
    #[error(
        "the context `{context}` logs in with a program ({program}), and what Drydock runs there has an environment of its own, in which \
         such a program finds no login; make a kubeconfig with a token or a client certificate"
    )]
    Program {
        /// The context.
        context: String,
        /// The program.
        program: String,
    },
}

/// One context of somebody's kubeconfig. The file is only read.
#[derive(Debug, Clone)]
pub struct Target {
    /// The context's name.
    pub context: String,
    /// The API server's address.
    pub server: String,
    /// The kubeconfig with this one context, and all that it needs in it.
    kubeconfig: Kubeconfig,
}

impl Target {
    /// Reads `KUBECONFIG:CONTEXT`. The first colon divides them: contexts may have colons in their names.
    ///
    /// # Errors
    /// The file or the context is not there, or it logs in with a program.
    pub fn read(argument: &str) -> Result<Self, TargetError> {
        let (path, name) = argument
            .split_once(':')
            .filter(|(path, name)| !path.is_empty() && !name.is_empty())
            .ok_or_else(|| TargetError::Form(argument.to_owned()))?;
        let path = Path::new(path);
        let bad = |why: String| TargetError::File { path: path.to_owned(), why };
        let mut read = Kubeconfig::read_from(path).map_err(|error| bad(error.to_string()))?;
        let names: Vec<&str> = read.contexts.iter().map(|context| context.name.as_str()).collect();
        let (suggestion, known) = (did_you_mean(name, names.iter().copied()), list(names));
        read.contexts.retain(|context| context.name == name);
        let Some(context) = read.contexts.first().and_then(|context| context.context.clone()) else {
            return Err(TargetError::Context { path: path.to_owned(), name: name.to_owned(), suggestion, known });
        };
        read.clusters.retain(|cluster| cluster.name == context.cluster);
        read.auth_infos.retain(|user| Some(&user.name) == context.user.as_ref());
        read.current_context = Some(name.to_owned());
        read.preferences = None;
        let cluster = read.clusters.first_mut().and_then(|cluster| cluster.cluster.as_mut());
        let Some(cluster) = cluster else { return Err(bad(format!("it has no cluster `{}`", context.cluster))) };
        let server =
            cluster.server.clone().ok_or_else(|| bad(format!("the cluster `{}` has no server", context.cluster)))?;
        embed(&mut cluster.certificate_authority, &mut cluster.certificate_authority_data, |text| text).map_err(bad)?;
        for user in read.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
            let program = user.exec.as_ref().and_then(|exec| exec.command.clone());
            if let Some(program) = program.or_else(|| Some(user.auth_provider.as_ref()?.name.clone())) {
                return Err(TargetError::Program { context: name.to_owned(), program });
            }
            embed(&mut user.client_certificate, &mut user.client_certificate_data, |text| text).map_err(bad)?;
            embed(&mut user.client_key, &mut user.client_key_data, Into::into).map_err(bad)?;
            if let Some(file) = user.token_file.take()
                && user.token.is_none()
            {
                let token = std::fs::read_to_string(&file).map_err(|error| bad(format!("{file}: {error}")))?;
                user.token = Some(token.trim().to_owned().into());
            }
        }
        Ok(Self { context: name.to_owned(), server, kubeconfig: read })
    }

    /// The kubeconfig as a file's content, for the lab's folder.
    pub fn text(&self) -> String {
        // JSON is YAML. What was read can be written.
        serde_json::to_string_pretty(&self.kubeconfig).unwrap_or_default()
    }

    /// A client of the cluster.
    ///
    /// # Errors
    /// The kubeconfig's certificates or address cannot be used.
    pub async fn client(&self) -> Result<kube::Client, TargetError> {
        client(self.kubeconfig.clone(), Path::new(&self.context)).await
    }
}

/// A client of the cluster that `kubeconfig`, read from `path`, leads to.
pub(super) async fn client(kubeconfig: Kubeconfig, path: &Path) -> Result<kube::Client, TargetError> {
    let bad = |why: String| TargetError::File { path: path.to_owned(), why };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| bad(error.to_string()))?;
    kube::Client::try_from(config).map_err(|error| bad(error.to_string()))
}

/// Puts what a file holds in its place, so that the file is not needed any more.
fn embed<T>(file: &mut Option<String>, data: &mut Option<T>, make: impl Fn(String) -> T) -> Result<(), String> {
    if let Some(path) = file.take()
        && data.is_none()
    {
        let bytes = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
        *data = Some(make(STANDARD.encode(bytes)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: other\n\
        clusters:\n- {name: one, cluster: {server: 'https://one:6443', certificate-authority: ca.crt}}\n\
        - {name: two, cluster: {server: 'https://two:6443'}}\n\
        contexts:\n- {name: 'arn:aws:one', context: {cluster: one, user: admin}}\n\
        - {name: other, context: {cluster: two, user: plugin}}\n\
        users:\n- {name: admin, user: {token: secret-of-one}}\n\
        - {name: plugin, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, interactiveMode: Never}}}\n";

    fn read(context: &str) -> Result<Target, TargetError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config"), KUBECONFIG).unwrap();
        std::fs::write(dir.path().join("ca.crt"), "the CA").unwrap();
        Target::read(&format!("{}:{context}", dir.path().join("config").display()))
    }

    #[test]
    fn of_a_kubeconfig_one_context_is_taken_with_all_that_it_needs() {
        let target = read("arn:aws:one").unwrap();
        assert_eq!(target.server, "https://one:6443");
        let text = target.text();
        assert!(text.contains(&STANDARD.encode("the CA")) && text.contains("secret-of-one"), "{text}");
        for other in ["two", "plugin", "ca.crt", "other"] {
            assert!(!text.contains(other), "{other} in {text}");
        }
        // It can be read again, by kubectl too.
        assert_eq!(Kubeconfig::from_yaml(&text).unwrap().current_context.as_deref(), Some("arn:aws:one"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_words() {
        let without_path = |error: TargetError| {
            let text = error.to_string();
            let start = text.find('/').unwrap_or(text.len());
            text[start..].find("/config").map_or(text.clone(), |end| text.replace(&text[start..start + end], "DIR"))
        };
        let errors = [
            without_path(read("oter").unwrap_err()),
            without_path(read("other").unwrap_err()),
            Target::read("config").unwrap_err().to_string(),
            Target::read("config:").unwrap_err().to_string(),
            Target::read("/nonexistent/config:x").unwrap_err().to_string(),
        ];
        insta::assert_snapshot!(errors.join("\n"));
    }
}
