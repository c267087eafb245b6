//! Root file systems from Debian packages, of the host's own distribution and from where the host itself gets them. The
//! host is not changed: package lists, the tool that unpacks, and all downloads are in the project's cache folder.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::cmd::{Cmd, CmdError};

/// A root file system takes a minute; after this a mirror is out of reach.
const ROOTFS_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Fetching package lists and one small package.
const FETCH_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What no image here needs of a package. Removed at the end: as dpkg's path-exclude it would need mmdebstrap's filter, a
/// program of another language that the host may not have.
const LEFT_OUT: &str = "usr/share/bash-completion usr/share/bug usr/share/doc usr/share/info usr/share/lintian \
                        usr/share/locale usr/share/man usr/lib/udev/hwdb.d";

/// Why a root file system could not be made from Debian packages.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// The host is something else.
    #[error(
        "make images from Debian packages: this host is {0}, which is neither Debian nor Ubuntu; use `--source upstream`, or \
         a host that is"
    )]
    OtherHost(String),
    /// No package source of the host is usable.
    #[error(
        "find out where this host gets its packages: nothing under {} names the {suite} suite; a `deb` line for it is needed",
        apt.display()
    )]
    NoSources {
        /// The host's configuration.
        apt: PathBuf,
        /// The suite.
        suite: String,
    },
    /// Unpacking packages needs root.
    #[error(
        "make images from Debian packages: that needs root, and this is user {0}; run as root, or use `--source upstream`"
    )]
    NotRoot(u32),
    /// A tool failed.
    #[error("make images from Debian packages: {0}")]
    Failed(#[from] CmdError),
    /// A file could not be handled.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl DebianError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// The host's distribution and its package sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// `debian` or `ubuntu`.
    pub id: String,
    /// Its suite, such as `bookworm`.
    pub suite: String,
    /// Its package sources, as lines of a `sources.list`.
    sources: Vec<String>,
}

impl Distribution {
    /// The host's.
    ///
    /// # Errors
    /// The host is neither Debian nor Ubuntu, or does not say where it gets its packages.
    pub fn of_host() -> Result<Self, DebianError> {
        Self::read(Path::new("/"))
    }

    fn read(root: &Path) -> Result<Self, DebianError> {
        let release = root.join("etc/os-release");
        let text = fs::read_to_string(&release).map_err(DebianError::io("read", &release))?;
        let value = |name: &str| {
            let prefix = format!("{name}=");
            let line = text.lines().find_map(|line| line.strip_prefix(&prefix))?;
            Some(line.trim_matches(['"', '\'']).to_owned())
        };
        let id = value("ID").unwrap_or_default();
        let (Some(suite), true) = (value("VERSION_CODENAME"), id == "debian" || id == "ubuntu") else {
            return Err(DebianError::OtherHost(value("PRETTY_NAME").unwrap_or(id)));
        };
        let apt = root.join("etc/apt");
        let sources = select(&configured(&apt)?, &id, &suite);
        if sources.is_empty() {
            return Err(DebianError::NoSources { apt, suite });
        }
        Ok(Self { id, suite, sources })
    }

    fn list(&self) -> String {
        self.sources.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// One source of packages, as the host's configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
    components: Vec<String>,
    signed_by: Option<String>,
    trusted: bool,
}

/// All sources of packages (not of their sources) that apt's configuration names and that are enabled.
fn configured(apt: &Path) -> Result<Vec<Source>, DebianError> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(parts) = fs::read_dir(apt.join("sources.list.d")) {
        files.extend(parts.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let read = || fs::read_to_string(file).map_err(DebianError::io("read", file));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(one_line(&read()?)),
            Some("sources") => sources.extend(deb822(&read()?)),
            _ => {}
        }
    }
    Ok(sources)
}

/// The one-line form: `deb [option=value …] uri suite component …`.
fn one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest = line.strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let option = |name: &str| {
            options
                .split_whitespace()
                .find_map(|option| option.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Source {
            uri: words.next()?,
            suite: words.next()?,
            components: words.collect(),
            signed_by: option("signed-by"),
            trusted: option("trusted").is_some_and(|value| value == "yes"),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The form of paragraphs with `Types:`, `URIs:`, `Suites:`, `Components:`, `Signed-By:`.
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    // A comment line is no line at all: it ends no paragraph and no folded value.
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for paragraph in text.split(|line| line.trim().is_empty()) {
        let field = |name: &str| {
            let mut lines = paragraph
                .iter()
                .skip_while(|line| !line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name)));
            let (_, first) = lines.next()?.split_once(':')?;
            let folded = lines.take_while(|line| line.starts_with([' ', '\t']));
            let words = std::iter::once(first).chain(folded.copied()).flat_map(str::split_whitespace);
            Some(words.map(str::to_owned).collect::<Vec<_>>())
        };
        let is = |name: &str, value: &str| field(name).is_some_and(|words| words == [value]);
        if is("Enabled", "no") || !field("Types").is_some_and(|types| types.iter().any(|kind| kind == "deb")) {
            continue;
        }
        // A key written out in place is many words; only a file can be passed on.
        let signed_by = field("Signed-By").filter(|words| words.len() == 1).and_then(|mut words| words.pop());
        for uri in field("URIs").unwrap_or_default() {
            for suite in field("Suites").unwrap_or_default() {
                sources.push(Source {
                    uri: uri.clone(),
                    suite,
                    components: field("Components").unwrap_or_default(),
                    signed_by: signed_by.clone(),
                    trusted: is("Trusted", "yes"),
                });
            }
        }
    }
    sources
}

/// The lines for the distribution itself: its suite with updates and security, of its free components. What others offer for
/// the same suite is left out, by its key where it has one.
fn select(sources: &[Source], id: &str, suite: &str) -> Vec<String> {
    let suites = [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")];
    let wanted: &[&str] = if id == "ubuntu" { &["main", "universe"] } else { &["main"] };
    let own_key = |source: &&Source| {
        let file = source.signed_by.as_deref().map(|key| key.rsplit('/').next().unwrap_or(key));
        file.is_none_or(|file| file.starts_with(id))
    };
    let of_suite = |source: &&Source| {
        suites.contains(&source.suite) && source.components.iter().any(|component| component == "main")
    };
    let line = |source: &Source| {
        let mut options = Vec::new();
        options.extend(source.signed_by.as_ref().map(|key| format!("signed-by={key}")));
        options.extend(source.trusted.then(|| "trusted=yes".to_owned()));
        let options = if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) };
        format!("deb {options}{} {} {}", source.uri, source.suite, wanted.join(" "))
    };
    let mut seen = BTreeSet::new();
    let mut lines = |filter: &dyn Fn(&&Source) -> bool| -> Vec<String> {
        sources.iter().filter(of_suite).filter(filter).map(line).filter(|line| seen.insert(line.clone())).collect()
    };
    let own = lines(&own_key);
    // A mirror may sign with a key of its own.
    if own.is_empty() { lines(&|_| true) } else { own }
}

/// Unpacking packages needs root.
///
/// # Errors
/// This is not root.
pub fn require_root() -> Result<(), DebianError> {
    match rustix::process::geteuid().as_raw() {
        0 => Ok(()),
        user => Err(DebianError::NotRoot(user)),
    }
}

/// Fetches mmdebstrap and unpacks it into `out`, without installing it.
///
/// # Errors
/// The package cannot be had.
pub async fn fetch_mmdebstrap(host: &Distribution, scratch: &Path, out: &Path) -> Result<(), DebianError> {
    let list = scratch.join("sources.list");
    fs::write(&list, host.list()).map_err(DebianError::io("write", &list))?;
    for dir in ["lists/partial", "archives/partial"] {
        let dir = scratch.join(dir);
        fs::create_dir_all(&dir).map_err(DebianError::io("make", &dir))?;
    }
    let option = |name: &str, value: &Path| format!("-o{name}={}", value.display());
    let apt = Cmd::new("apt-get")
        .arg(option("Dir::State::lists", &scratch.join("lists")))
        .arg(option("Dir::Cache", scratch))
        .arg(option("Dir::Etc::sourcelist", &list))
        .arg("-oDir::Etc::sourceparts=-")
        // apt's own user may not enter the cache folder.
        .arg("-oAPT::Sandbox::User=root")
        .arg("-oAPT::Update::Post-Invoke::=true")
        .arg("-q")
        .dir(scratch)
        .limit(FETCH_LIMIT);
    apt.clone().arg("update").run().await?;
    apt.args(["download", "mmdebstrap"]).run().await?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let downloaded = fs::read_dir(scratch).map_err(DebianError::io("list", scratch))?;
    for package in downloaded.flatten().map(|entry| entry.path()).filter(is_package) {
        let unpacked = scratch.join("unpacked");
        Cmd::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked).run().await?;
        let (from, to) = (unpacked.join("usr/bin/mmdebstrap"), out.join("mmdebstrap"));
        fs::copy(&from, &to).map_err(DebianError::io("copy", &from))?;
    }
    Ok(())
}

/// A root file system to make.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// mmdebstrap's name for the packages that are there in any case: `essential`, or `extract` for none of them and
    /// without running what packages run when they are installed.
    pub variant: &'static str,
    /// The packages.
    pub packages: Vec<String>,
    /// Files that are copied over it.
    pub overlay: Option<PathBuf>,
    /// A script that is then run in it.
    pub setup: Option<PathBuf>,
}

impl Rootfs {
    /// From a folder with `packages.txt` (one package per line, `#` begins a comment) and, if they are there, `rootfs/` to
    /// copy over it and `setup.sh` to run in it.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn of_folder(folder: &Path, variant: &'static str) -> Result<Self, DebianError> {
        let list = folder.join("packages.txt");
        let text = fs::read_to_string(&list).map_err(DebianError::io("read", &list))?;
        let there = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        Ok(Self { variant, packages: packages(&text), overlay: there("rootfs"), setup: there("setup.sh") })
    }

    /// Makes it, as an archive at `out`.
    ///
    /// # Errors
    /// A package cannot be had or installed, or the script fails.
    pub async fn make(
        &self,
        host: &Distribution,
        mmdebstrap: &Path,
        scratch: &Path,
        out: &Path,
    ) -> Result<(), DebianError> {
        let list = scratch.join("sources.list");
        fs::write(&list, host.list()).map_err(DebianError::io("write", &list))?;
        // mmdebstrap mounts /proc, /sys and /dev in what it makes. In a mount namespace of its own they go when it does, also
        // when it is killed, and whoever then clears the folder does not reach into the host's.
        let mut make = Cmd::new("unshare")
            .args(["--mount", "--propagation=private", "perl"])
            .arg(mmdebstrap)
            .args(["--mode=root", "--format=tar", "--quiet"])
            // Whatever runs the image brings its own /dev; what a setup made in /run is part of the image.
            .args(["--skip=output/dev", "--skip=cleanup/run"])
            .arg(format!("--variant={}", self.variant))
            .arg(format!("--include={}", self.packages.join(",")))
            .args(acquire_options().await?.iter().map(|option| format!("--aptopt={option}")))
            .args(["--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\""])
            // It is thrown away if the machine dies meanwhile.
            .arg("--dpkgopt=force-unsafe-io")
            .env("SOURCE_DATE_EPOCH", "0")
            .env("TMPDIR", scratch)
            .env("LC_ALL", "C.UTF-8")
            .limit(ROOTFS_LIMIT);
        if self.variant == "extract" {
            // The links that the base package would have made.
            make = make.arg(
                "--setup-hook=for dir in bin sbin lib lib64; do \
                 mkdir -p \"$1/usr/$dir\" && ln -s \"usr/$dir\" \"$1/$dir\"; done",
            );
        }
        if let Some(overlay) = &self.overlay {
            make = make
                .env("DRYDOCK_OVERLAY", overlay)
                .arg("--customize-hook=cp -r --preserve=mode \"$DRYDOCK_OVERLAY/.\" \"$1/\"");
        }
        if let Some(setup) = &self.setup {
            make = make.env("DRYDOCK_SETUP", setup).arg(
                "--customize-hook=cp \"$DRYDOCK_SETUP\" \"$1/setup.sh\" && chroot \"$1\" /bin/sh /setup.sh && \
                 rm \"$1/setup.sh\"",
            );
        }
        make = make.arg(format!("--customize-hook=cd \"$1\" && rm -rf {LEFT_OUT}"));
        // Where the host gets its packages is no part of an image.
        make = make.arg(
            "--customize-hook=rm -rf \"$1/etc/apt/sources.list\" \"$1/etc/apt/sources.list.d\" \
             \"$1/etc/apt/apt.conf.d/99mmdebstrap\" \"$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap\" \"$1/var/log/apt\" \
             \"$1/var/log/dpkg.log\" \"$1/var/cache/apt\"",
        );
        make.arg(&host.suite).arg(out).arg(&list).run().await?;
        Ok(())
    }
}

/// What the host's apt needs to reach its mirrors: proxies, certificates, and what it is told not to check.
async fn acquire_options() -> Result<Vec<String>, DebianError> {
    let dump = Cmd::new("apt-config").args(["dump", "--no-empty", "Acquire"]).run().await?;
    Ok(select_options(&dump.stdout))
}

fn select_options(dump: &str) -> Vec<String> {
    let wanted = ["Check-Valid-Until ", "Check-Date ", "Retries ", "http::", "https::"];
    dump.lines()
        .filter(|line| {
            let name = line.strip_prefix("Acquire::").unwrap_or_default();
            wanted.iter().any(|wanted| name.get(..wanted.len()).is_some_and(|name| name.eq_ignore_ascii_case(wanted)))
        })
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect()
}

fn packages(text: &str) -> Vec<String> {
    let mut packages: Vec<String> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .map(str::to_owned)
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(release: &str, files: &[(&str, &str)]) -> Result<Distribution, DebianError> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/apt/sources.list.d")).unwrap();
        fs::write(root.path().join("etc/os-release"), release).unwrap();
        for (path, text) in files {
            fs::write(root.path().join("etc/apt").join(path), text).unwrap();
        }
        Distribution::read(root.path())
    }

    const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_CODENAME=bookworm\n";
    const UBUNTU: &str = "ID=ubuntu\nVERSION_CODENAME=noble\nID_LIKE=debian\n";

    #[test]
    fn debian_with_paragraphs() {
        let sources = "# the archive\nTypes: deb deb-src\n# a comment within\nURIs: http://mirror.test/debian\n\
            Suites: bookworm bookworm-updates bookworm-backports\nComponents: main contrib\n\
            Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
            Types: deb\nURIs: http://mirror.test/debian-security\nSuites:\n bookworm-security\nComponents: main\n\n\
            Enabled: no\nTypes: deb\nURIs: http://off.test/debian\nSuites: bookworm\nComponents: main\n\n\
            Types: deb-src\nURIs: http://src.test/debian\nSuites: bookworm\nComponents: main\n";
        let other = "Types: deb\nURIs: https://other.test/apt\nSuites: bookworm\nComponents: main\n\
            Signed-By: /usr/share/keyrings/other.gpg\n";
        let found =
            host(DEBIAN, &[("sources.list.d/debian.sources", sources), ("sources.list.d/other.sources", other)])
                .unwrap();
        let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        assert_eq!(
            found.sources,
            [
                format!("deb {key} http://mirror.test/debian bookworm main"),
                format!("deb {key} http://mirror.test/debian bookworm-updates main"),
                "deb http://mirror.test/debian-security bookworm-security main".to_owned(),
            ]
        );
    }

    #[test]
    fn ubuntu_with_lines_gets_universe_and_nothing_of_others() {
        let list = "# deb http://off.test/ubuntu noble main\n\
            deb http://mirror.test/ubuntu noble main restricted # the archive\n\
            deb-src http://mirror.test/ubuntu noble main\n\
            deb [arch=amd64 trusted=yes] http://mirror.test/ubuntu noble-security main\n";
        let others = "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://other.test/ubuntu noble stable\n\
            deb https://other.test/x nodistro main\n";
        let found = host(UBUNTU, &[("sources.list", list), ("sources.list.d/others.list", others)]).unwrap();
        assert_eq!(
            found.sources,
            [
                "deb http://mirror.test/ubuntu noble main universe",
                "deb [trusted=yes] http://mirror.test/ubuntu noble-security main universe",
            ]
        );
    }

    #[test]
    fn a_mirror_that_signs_with_its_own_key_is_taken_where_there_is_no_other() {
        let list = "deb [signed-by=/etc/apt/keyrings/house.gpg] http://house.test/debian bookworm main\n";
        let found = host(DEBIAN, &[("sources.list", list)]).unwrap();
        assert_eq!(found.sources, [list.trim()]);
    }

    #[test]
    fn what_cannot_be_used_is_an_error_that_says_so() {
        let other = host("ID=fedora\nPRETTY_NAME=\"Fedora Linux 42\"\n", &[]).unwrap_err();
        assert!(other.to_string().contains("this host is Fedora Linux 42"), "{other}");
        let list = "deb http://mirror.test/debian trixie main\n";
        let none = host(DEBIAN, &[("sources.list", list)]).unwrap_err();
        assert!(none.to_string().contains("names the bookworm suite"), "{none}");
    }

    #[test]
    fn packages_are_one_per_line_with_comments() {
        assert_eq!(packages("# all\nsystemd\n\n  jq # json\nsystemd\n"), ["jq", "systemd"]);
    }

    #[test]
    fn of_apt_s_options_only_those_for_reaching_mirrors_are_passed_on() {
        let dump = "Acquire::cdrom::mount \"/media\";\nAcquire::Check-Valid-Until \"false\";\n\
            Acquire::http::Proxy \"http://proxy.test:3128\";\nAcquire::Languages:: \"en\";\n";
        let options = ["Acquire::Check-Valid-Until \"false\"", "Acquire::http::Proxy \"http://proxy.test:3128\""];
        assert_eq!(select_options(dump), options);
    }
}
