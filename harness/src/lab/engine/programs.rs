//! Programs of the system, and installing those that an engine of our own, or a test, needs.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use super::{EngineError, tail};
use crate::run::{
    events::Step,
    poll::{Look, WaitError, poll},
};

/// Where engines and network tools live that an ordinary user's `PATH` may lack.
const SYSTEM_DIRS: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// A program, and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// The program's name.
    pub program: &'static str,
    /// The package's.
    pub package: &'static str,
}

/// What a private engine needs.
const ENGINE: [Needed; 5] = [
    Needed { program: "dockerd", package: "docker.io" },
    Needed { program: "docker", package: "docker.io" },
    Needed { program: "runc", package: "runc" },
    Needed { program: "iptables", package: "iptables" },
    Needed { program: "ip", package: "iproute2" },
];

/// An installation takes half a minute; a slow mirror, or another user of apt, takes more.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);

/// The first file named `name` on `PATH`, then in the system's folders.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The packages to install for what is missing, each once.
fn missing(needed: &[Needed], has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        needed.iter().filter(|needed| !has(needed.program)).map(|needed| needed.package).collect();
    packages.dedup();
    packages
}

/// Installs what a private engine needs and is not there; says whether anything was installed.
pub async fn install_missing(step: &Step, dir: &Path, offline: bool) -> Result<bool, EngineError> {
    let packages = missing(&ENGINE, |program| find(program).is_some());
    if packages.is_empty() {
        return Ok(false);
    }
    if offline {
        return Err(EngineError::Offline { packages: packages.join(" ") });
    }
    // Newer Debian ships the command apart from the engine.
    let installed = install(step, dir, &ENGINE).await;
    if matches!(installed, Err(EngineError::StillMissing { program: "docker", .. })) {
        apt(step, dir, &["install", "-y", "--no-install-recommends", "docker-cli"]).await?;
        return install(step, dir, &ENGINE).await.map(|()| true);
    }
    installed.map(|()| true)
}

/// Installs those of the `needed` programs that are not there, from Debian's packages; the log is in `dir`.
pub async fn install(step: &Step, dir: &Path, needed: &[Needed]) -> Result<(), EngineError> {
    let packages = missing(needed, |program| find(program).is_some());
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        return Err(EngineError::NoPackageManager { packages: list });
    }
    step.events().note(format!("system change: installing {list} with apt-get (--provision)"));
    apt(step, dir, &["update"]).await?;
    apt(step, dir, &[&["install", "-y", "--no-install-recommends"], &packages[..]].concat()).await?;
    match needed.iter().find(|needed| find(needed.program).is_none()) {
        Some(Needed { program, package }) => Err(EngineError::StillMissing { program, package }),
        None => Ok(()),
    }
}

/// Runs apt-get. It is not killed when this is interrupted: a package half installed is worse than a package too many.
async fn apt(step: &Step, dir: &Path, args: &[&str]) -> Result<(), EngineError> {
    let log = dir.join("apt.log");
    let line = format!("apt-get {}", args.join(" "));
    let io = |source| EngineError::Io { doing: format!("run `{line}` with its output in"), path: log.clone(), source };
    let out = std::fs::File::create(&log).map_err(io)?;
    let mut child = tokio::process::Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(io)?)
        .stderr(out)
        .process_group(0)
        .spawn()
        .map_err(io)?;
    let what = format!("`{line}` to end");
    let status = poll(step, &what, INSTALL_LIMIT, Duration::from_millis(500), || {
        let status = child.try_wait();
        let last = tail(&log, 1);
        async { status.map(|status| status.map_or(Look::NotYet(last), Look::Ready)) }
    });
    match status.await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(EngineError::Install { line, how: format!("ended with {status}"), said: tail(&log, 12) }),
        Err(WaitError::TimedOut { after, .. }) => Err(EngineError::Install {
            line,
            how: format!("did not end within {} s and still runs", after.as_secs()),
            said: tail(&log, 12),
        }),
        Err(WaitError::Failed(source)) => Err(io(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        assert_eq!(missing(&ENGINE, |_| false), ["docker.io", "runc", "iptables", "iproute2"]);
        assert_eq!(missing(&ENGINE, |program| program != "docker"), ["docker.io"]);
        assert!(missing(&ENGINE, |_| true).is_empty());
    }

    #[test]
    fn a_program_is_found_and_a_missing_one_is_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
