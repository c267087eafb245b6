//! A company mirror that upstream images are fetched from instead of Docker Hub.

use std::{fmt, str::FromStr};

use oci_client::Reference;

/// The registry that a mirror stands for.
pub(super) const DOCKER_HUB: &str = "docker.io";

/// Where a registry's API is.
pub(super) fn api_host(registry: &str) -> &str {
    if registry == DOCKER_HUB { "registry-1.docker.io" } else { registry }
}

/// Where a mirror of Docker Hub is: `HOST[:PORT][/PREFIX]`.
///
/// It serves `docker.io` alone. What companies run stands for one upstream registry each, under a path of its own, in which the
/// upstream's host does not appear: Harbor's proxy-cache project (`HOST/PROJECT/library/busybox`,
/// <https://goharbor.io/docs/latest/administration/configure-proxy-cache>), a remote repository of Artifactory or Nexus, and
/// containerd's `hosts.toml`, of which there is one for each upstream
/// (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>). Docker's own `registry-mirrors` are asked for Docker
/// Hub's images only. Were `registry.k8s.io/pause` looked for in the project that mirrors Docker Hub, somebody else's
/// `docker.io/library/pause` could come back; so images of any other registry are fetched from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    prefix: Option<String>,
}

/// Why a text does not name a mirror.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a mirror: {reason}; it is HOST[:PORT][/PREFIX], such as `registry.example.com/docker-hub`")]
pub struct NotAMirror {
    text: String,
    reason: String,
}

impl FromStr for Mirror {
    type Err = NotAMirror;

    fn from_str(text: &str) -> Result<Self, NotAMirror> {
        // What is before an `@` may be a password.
        let shown = match text.rsplit_once('@') {
            Some((_, rest)) if !rest.starts_with("sha256:") => format!("...@{rest}"),
            _ => text.to_owned(),
        };
        parse(text).map_err(|reason| NotAMirror { text: shown, reason })
    }
}

fn parse(text: &str) -> Result<Mirror, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!("leave out `{scheme}://`{}", if rest.is_empty() { ", and name a host" } else { "" }));
    }
    if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err("there is a space in it".to_owned());
    }
    if text.contains("@sha256:") {
        return Err("a digest belongs to an image".to_owned());
    }
    if text.contains('@') {
        return Err("credentials are no part of it: `docker login HOST` keeps them".to_owned());
    }
    let (authority, prefix) = match text.split_once('/') {
        Some((authority, prefix)) => (authority, Some(prefix)),
        None => (text, None),
    };
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if host.is_empty() {
        return Err("the host is empty".to_owned());
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !host.split('.').all(label) {
        return Err(format!("`{host}` is no name of a host: it has letters, digits, dots and dashes"));
    }
    match port {
        // `host/prefix` without either would be read as a path on Docker Hub by everything else that reads image names.
        None if !host.contains('.') && host != "localhost" => {
            return Err(format!("`{host}` could be a path: for the host of this name write `{host}:443`"));
        }
        Some(port) if port.parse::<u16>().ok().is_none_or(|port| port == 0) => {
            return Err(format!("`{port}` is no port: it is a number from 1 to 65535"));
        }
        _ => {}
    }
    for part in prefix.into_iter().flat_map(|prefix| prefix.split('/')) {
        if part.is_empty() {
            return Err("a part between its slashes is empty".to_owned());
        }
        if let Some((before, _)) = part.split_once(':') {
            return Err(format!("a tag belongs to an image: end it with `{before}`"));
        }
        if !is_path_part(part) {
            return Err(format!(
                "`{part}` cannot be in an image's name: it has small letters, digits, dots, dashes and `_`"
            ));
        }
    }
    // Names of hosts are the same in capitals; the keys of Docker's configuration are not.
    Ok(Mirror { host: authority.to_ascii_lowercase(), prefix: prefix.map(str::to_owned) })
}

/// Whether an image's name may have this between two slashes: the distribution specification's `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_path_part(part: &str) -> bool {
    let plain = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = part.as_bytes();
    plain(bytes.first())
        && plain(bytes.last())
        && bytes.iter().all(|byte| plain(Some(byte)) || b"._-".contains(byte))
        && !["..", "___", "._", "_.", "-.", ".-", "_-", "-_"].iter().any(|pair| part.contains(pair))
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl Mirror {
    /// What an upstream image is called at the mirror; `None` where the mirror does not serve its registry.
    pub fn name_of(&self, upstream: &Reference) -> Option<Reference> {
        if upstream.registry() != DOCKER_HUB {
            return None;
        }
        let repository = match &self.prefix {
            Some(prefix) => format!("{prefix}/{}", upstream.repository()),
            None => upstream.repository().to_owned(),
        };
        let host = self.host.clone();
        Some(match (upstream.tag(), upstream.digest()) {
            (Some(tag), Some(digest)) => {
                Reference::with_tag_and_digest(host, repository, tag.to_owned(), digest.to_owned())
            }
            (None, Some(digest)) => Reference::with_digest(host, repository, digest.to_owned()),
            (tag, None) => Reference::with_tag(host, repository, tag.unwrap_or("latest").to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mirror: &str, image: &str) -> Option<String> {
        let mirror: Mirror = mirror.parse().unwrap();
        mirror.name_of(&image.parse().unwrap()).map(|name| name.to_string())
    }

    #[test]
    fn an_upstream_image_has_its_name_below_the_mirror_s() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (image, name) in [
            ("docker.io/goharbor/harbor-core:v2.13.1", "goharbor/harbor-core:v2.13.1".to_owned()),
            ("docker.io/library/busybox:1.36.1", "library/busybox:1.36.1".to_owned()),
            ("busybox:1.36.1", "library/busybox:1.36.1".to_owned()),
            ("busybox", "library/busybox:latest".to_owned()),
            ("index.docker.io/library/busybox:1", "library/busybox:1".to_owned()),
            (&format!("kindest/node:v1@{digest}"), format!("kindest/node:v1@{digest}")),
            (&format!("kindest/node@{digest}"), format!("kindest/node@{digest}")),
        ] {
            assert_eq!(at("mirror.test:5000", image), Some(format!("mirror.test:5000/{name}")));
            assert_eq!(at("mirror.test/a/hub", image), Some(format!("mirror.test/a/hub/{name}")));
        }
    }

    #[test]
    fn images_of_other_registries_are_not_at_the_mirror() {
        assert_eq!(at("mirror.test", "registry.k8s.io/pause:3.10"), None);
        assert_eq!(at("mirror.test", "localhost:5000/x:1"), None);
    }

    #[test]
    fn a_mirror_is_written_as_it_was_read() {
        for text in ["mirror.test", "mirror:443", "localhost/hub", "127.0.0.1:5000", "a-b.test:1/x__y/z.1-2/0"] {
            assert_eq!(text.parse::<Mirror>().unwrap().to_string(), text);
        }
        assert_eq!("Mirror.Test/hub".parse::<Mirror>().unwrap().to_string(), "mirror.test/hub");
    }

    #[test]
    fn what_is_no_mirror_is_an_error_that_says_why() {
        let texts = [
            "",
            "https://",
            "https://mirror.test/hub",
            "mirror.test /hub",
            "user:secret@mirror.test",
            "https://user:secret@mirror.test",
            "mirror.test/busybox@sha256:00",
            "/hub",
            ":5000/hub",
            "mirror/hub",
            "mirror_1.test",
            "-mirror.test",
            "mirror.test:/hub",
            "mirror.test:0",
            "mirror.test:65536",
            "mirror.test:5000:5000",
            "mirror.test/",
            "mirror.test/a//b",
            "mirror.test/hub:v1",
            "mirror.test/Hub",
            "mirror.test/hub/../x",
        ];
        let errors: Vec<String> = texts.iter().map(|text| text.parse::<Mirror>().unwrap_err().to_string()).collect();
        insta::assert_snapshot!(errors.join("\n"));
    }
}
