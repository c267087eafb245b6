//! What Docker knows of registries: the user's credentials, and the certificates of authorities. Only read, never written.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};

use super::error::{Problem, RegistryError};
use crate::source::mirror::DOCKER_HUB;

/// A credential helper may have to ask a service of the company; one that asks a person asks in vain.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// Where Docker keeps what it knows of registries.
#[derive(Debug, Clone)]
pub struct DockerFiles {
    /// The file with the credentials, or with the names of the helpers that have them.
    pub config: PathBuf,
    /// Folders with a folder for each registry, named `HOST[:PORT]`, in which `*.crt` are certificates of authorities.
    pub certificates: Vec<PathBuf>,
}

impl DockerFiles {
    /// `config.json` in `$DOCKER_CONFIG` or `~/.docker`
    /// (<https://docs.docker.com/reference/cli/docker/#configuration-files>); the certificates in `/etc/docker/certs.d`
    /// (<https://docs.docker.com/engine/security/certificates/>) and, as of a rootless engine, in `~/.config/docker/certs.d`.
    pub fn from_env() -> Self {
        let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = var("HOME").unwrap_or_default();
        let own = var("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        Self {
            config: var("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker")).join("config.json"),
            certificates: vec![PathBuf::from("/etc/docker/certs.d"), own.join("docker/certs.d")],
        }
    }

    /// The text of the file with the credentials; `None` where there is no such file.
    ///
    /// # Errors
    /// It cannot be read, or is no JSON.
    pub(super) fn read_config(&self) -> Result<Option<String>, RegistryError> {
        let wrong = |reason: String| RegistryError::Config { path: self.config.clone(), reason };
        let text = match fs::read_to_string(&self.config) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(value) if value.is_object() => Ok(Some(text)),
            Ok(_) => Err(wrong("it is no JSON object".to_owned())),
            Err(error) => Err(wrong(format!("it is no JSON: {error}"))),
        }
    }

    /// The certificates for a registry, each as PEM, and what was looked at.
    ///
    /// # Errors
    /// One cannot be read, or is no PEM.
    pub(super) fn trust(&self, host: &str) -> Result<Trust, RegistryError> {
        let mut looked = vec![system_store()];
        let mut certificates = Vec::new();
        for folder in self.certificates.iter().map(|folder| folder.join(host)) {
            let wrong = |path: &Path, reason: String| RegistryError::Certificate {
                host: host.to_owned(),
                path: path.to_owned(),
                reason,
            };
            let mut files = match fs::read_dir(&folder) {
                Ok(entries) => entries
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| wrong(&folder, error.to_string()))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(wrong(&folder, error.to_string())),
            };
            files.retain(|file| file.extension().is_some_and(|extension| extension == "crt"));
            files.sort();
            if files.is_empty() {
                looked.push(format!("{} (no *.crt there)", folder.display()));
            }
            for file in files {
                let text = fs::read(&file).map_err(|error| wrong(&file, error.to_string()))?;
                let read =
                    reqwest::Certificate::from_pem_bundle(&text).map_err(|error| wrong(&file, error.to_string()))?;
                if read.is_empty() {
                    return Err(wrong(&file, "there is no certificate in it: it must be PEM".to_owned()));
                }
                certificates.extend(read);
                looked.push(file.display().to_string());
            }
        }
        let put = self.certificates.first().map_or_else(PathBuf::new, |folder| folder.join(host).join("ca.crt"));
        Ok(Trust { certificates, looked: looked.join(", "), put })
    }
}

/// Which authorities are trusted beside those of the system.
pub(super) struct Trust {
    pub(super) certificates: Vec<reqwest::Certificate>,
    /// The places with certificates, as part of a sentence.
    pub(super) looked: String,
    /// Where one more goes.
    pub(super) put: PathBuf,
}

fn system_store() -> String {
    let named: Vec<String> = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .iter()
        .filter_map(|name| env::var(name).ok().filter(|value| !value.is_empty()).map(|value| format!("{name}={value}")))
        .collect();
    if named.is_empty() { "the system's store".to_owned() } else { named.join(", ") }
}

/// Who to be for a registry.
pub(super) struct Login {
    pub(super) credential: Option<DockerCredential>,
    /// Which credentials there are, and where they were looked for, as part of a sentence.
    pub(super) about: String,
}

/// What logs in at a registry.
pub(super) fn login_command(host: &str) -> String {
    if host == DOCKER_HUB { "docker login".to_owned() } else { format!("docker login {host}") }
}

/// The credentials for a registry. `text` is the configuration's.
pub(super) async fn login(host: &str, config: &Path, text: Option<&str>) -> Result<Login, Problem> {
    let Some(text) = text else {
        let about = format!("no credentials were sent, for {} is not there", config.display());
        return Ok(Login { credential: None, about });
    };
    // Docker keeps those for Docker Hub under the address of an API that is no more.
    let keys: &[&str] = if host == DOCKER_HUB { &["https://index.docker.io/v1/", DOCKER_HUB] } else { &[host] };
    for key in keys {
        let wrong = |reason: String| Problem::Credentials { host: host.to_owned(), config: config.to_owned(), reason };
        if let Some(credential) = look_up(text, key).await.map_err(wrong)? {
            let who = match &credential {
                DockerCredential::UsernamePassword(name, _) => format!("those of `{name}`"),
                DockerCredential::IdentityToken(_) => "a token".to_owned(),
            };
            let about = format!("the credentials that were sent are {who}, by way of {}", config.display());
            return Ok(Login { credential: Some(credential), about });
        }
    }
    let about = format!("no credentials were sent, for {} has none for {host}", config.display());
    Ok(Login { credential: None, about })
}

async fn look_up(text: &str, key: &str) -> Result<Option<DockerCredential>, String> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (text, owned) = (text.to_owned(), key.to_owned());
    // It may run a program, for which it waits. A thread of its own, since the runtime would wait for one of its own at its end.
    std::thread::spawn(move || {
        let _ = sender.send(get_credential_from_reader(text.as_bytes(), &owned));
    });
    let found = match tokio::time::timeout(HELPER_LIMIT, receiver).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => return Err("the lookup broke off".to_owned()),
        Err(_) => return Err(format!("the credential helper did not end within {} s", HELPER_LIMIT.as_secs())),
    };
    match found {
        Ok(credential) => Ok(Some(credential)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        // The protocol of helpers has only this sentence for it, as Docker's own client knows it.
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if format!("{stdout}{stderr}").contains("credentials not found") =>
        {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let said = format!("{}; {}", stdout.trim(), stderr.trim());
            Err(format!("`echo {key} | {helper} get` failed: {}", said.trim_matches([';', ' '])))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Err("the program `docker-credential-NAME` that it names in `credsStore` or `credHelpers` cannot be run, or ends before it reads whom it is asked for"
                .to_owned())
        }
        Err(CredentialRetrievalError::MalformedHelperResponse) => {
            Err("what its credential helper says is not a credential".to_owned())
        }
        Err(CredentialRetrievalError::CredentialDecodingError) => {
            Err(format!("the `auth` of `{key}` is not `NAME:PASSWORD` in base64"))
        }
        Err(CredentialRetrievalError::ConfigReadError) => {
            Err("`auths`, `credHelpers` or `credsStore` does not have the form that Docker gives it".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    async fn credential(host: &str, text: &str) -> Result<Option<DockerCredential>, String> {
        let login = login(host, Path::new("/home/x/.docker/config.json"), Some(text)).await;
        login.map(|login| login.credential).map_err(|error| error.to_string())
    }

    fn user(name: &str, password: &str) -> Option<DockerCredential> {
        Some(DockerCredential::UsernamePassword(name.to_owned(), password.to_owned()))
    }

    #[tokio::test]
    async fn credentials_are_found_under_the_keys_that_docker_gives_them() {
        // printf 'alice:se:cret' | base64
        let entry = r#"{"auth": "YWxpY2U6c2U6Y3JldA=="}"#;
        let at = |key: &str| format!(r#"{{"auths": {{"other.test": {{}}, "{key}": {entry}}}}}"#);
        for (host, key) in [
            ("mirror.test:5000", "mirror.test:5000"),
            ("mirror.test:5000", "https://mirror.test:5000/v2/"),
            ("docker.io", "https://index.docker.io/v1/"),
            ("docker.io", "docker.io"),
        ] {
            assert_eq!(credential(host, &at(key)).await, Ok(user("alice", "se:cret")), "{key}");
        }
        for (host, key) in [("mirror.test", "mirror.test:5000"), ("docker.io", "mirror.test"), ("other.test", "x.test")]
        {
            assert_eq!(credential(host, &at(key)).await, Ok(None), "{key} is not {host}");
        }
        let token = r#"{"auths": {"mirror.test": {"auth": "YTpi", "identitytoken": "t0ken"}}}"#;
        let expected = DockerCredential::IdentityToken("t0ken".to_owned());
        assert_eq!(credential("mirror.test", token).await, Ok(Some(expected)));
    }

    /// Programs are looked for in `PATH`, which a test cannot set for itself: it runs itself again with another.
    #[tokio::test]
    async fn credential_helpers_are_asked() {
        const AGAIN: &str = "DRYDOCK_TEST_CREDENTIAL_HELPERS";
        if std::env::var_os(AGAIN).is_none() {
            let dir = tempfile::tempdir().unwrap();
            let has = r#"[ "$asked" = mirror.test ] && echo '{"Username": "bob", "Secret": "s"}'"#;
            let token = r#"echo '{"Username": "<token>", "Secret": "t"}'"#;
            let none = "echo credentials not found in native keychain; exit 1";
            let broken = "echo the vault is sealed >&2; exit 1";
            for (name, script) in
                [("has", has), ("token", token), ("none", none), ("broken", broken), ("odd", "echo x")]
            {
                let path = dir.path().join(format!("docker-credential-{name}"));
                fs::write(&path, format!("#!/bin/sh\nasked=$(cat)\n[ $1 = get ] || exit 2\n{script}\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
            let name = concat!(module_path!(), "::credential_helpers_are_asked").split_once("::").unwrap().1;
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            let ended = again.args(["--exact", name]).env("PATH", path).env(AGAIN, "1").output().unwrap();
            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(ended.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let by = |helper: &str| json!({"credsStore": "none", "credHelpers": {"mirror.test": helper}}).to_string();
        assert_eq!(credential("mirror.test", &by("has")).await, Ok(user("bob", "s")));
        let token = DockerCredential::IdentityToken("t".to_owned());
        assert_eq!(credential("mirror.test", &by("token")).await, Ok(Some(token)));
        assert_eq!(credential("mirror.test", &by("none")).await, Ok(None));
        assert_eq!(credential("other.test", &by("has")).await, Ok(None), "the store has none");
        let error = credential("mirror.test", &by("broken")).await.unwrap_err();
        let said = "`echo mirror.test | docker-credential-broken get` failed: the vault is sealed";
        assert!(error.ends_with(said), "{error}");
        let error = credential("mirror.test", &by("odd")).await.unwrap_err();
        assert!(error.ends_with("what its credential helper says is not a credential"), "{error}");
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_configuration_is_said() {
        let mut said = Vec::new();
        for text in [
            r#"{"auths": {"mirror.test": {"auth": "!"}}}"#,
            r#"{"auths": {"mirror.test": {"auth": "YWxpY2U="}}}"#,
            r#"{"auths": []}"#,
            r#"{"credsStore": "of-no-program"}"#,
        ] {
            said.push(credential("mirror.test", text).await.unwrap_err());
        }
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn a_configuration_that_is_no_json_is_named_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let files = DockerFiles { config: dir.path().join("config.json"), certificates: Vec::new() };
        assert_eq!(files.read_config().unwrap(), None);
        fs::write(&files.config, "{\"auths\": {\n").unwrap();
        let error = files.read_config().unwrap_err().to_string();
        assert!(error.ends_with("mend it, or name the folder of another with DOCKER_CONFIG"), "{error}");
        assert!(error.contains("config.json: it is no JSON: EOF while parsing an object at line 2"), "{error}");
        fs::write(&files.config, "[]").unwrap();
        assert!(files.read_config().unwrap_err().to_string().contains("it is no JSON object"));
    }

    #[test]
    fn only_crt_files_in_the_folder_of_the_registry_are_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let files = DockerFiles { config: PathBuf::new(), certificates: vec![dir.path().to_owned()] };
        let folder = dir.path().join("mirror.test:5000");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("client.cert"), "no certificate").unwrap();
        let trust = files.trust("mirror.test:5000").unwrap();
        assert!(trust.certificates.is_empty());
        assert!(trust.looked.ends_with("mirror.test:5000 (no *.crt there)"), "{}", trust.looked);
        assert_eq!(trust.put, folder.join("ca.crt"));
        fs::write(folder.join("ca.crt"), "no certificate").unwrap();
        let error = files.trust("mirror.test:5000").err().unwrap().to_string();
        assert!(error.contains("ca.crt: there is no certificate in it"), "{error}");
        assert!(files.trust("mirror.test").unwrap().looked.contains("no *.crt there"));
    }
}
