//! Programs of the system, and installing those that an engine of our own needs.

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

/// What a private engine needs, and the Debian package that brings it.
const NEEDED: [(&str, &str); 5] =
    [("dockerd", "docker.io"), ("docker", "docker.io"), ("runc", "runc"), ("iptables", "iptables"), ("ip", "iproute2")];

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
fn missing(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

/// Installs what a private engine needs and is not there; says whether anything was installed.
pub async fn install_missing(step: &Step, dir: &Path, offline: bool) -> Result<bool, EngineError> {
    let packages = missing(|program| find(program).is_some());
    if packages.is_empty() {
        return Ok(false);
    }
    let list = packages.join(" ");
    if offline {
        return Err(EngineError::Offline { packages: list });
    }
    if find("apt-get").is_none() {
        return Err(EngineError::NoPackageManager { packages: list });
    }
    step.events().note(format!("system change: installing the Debian packages {list} with apt-get (--provision)"));
    apt(step, dir, &["update"]).await?;
    apt(step, dir, &[&["install", "-y", "--no-install-recommends"], &packages[..]].concat()).await?;
    // Newer Debian ships the command apart from the engine.
    if find("docker").is_none() {
        apt(step, dir, &["install", "-y", "--no-install-recommends", "docker-cli"]).await?;
    }
    match NEEDED.iter().find(|(program, _)| find(program).is_none()) {
        Some((program, package)) => Err(EngineError::StillMissing { program, package }),
        None => Ok(true),
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
        assert_eq!(missing(|_| false), ["docker.io", "runc", "iptables", "iproute2"]);
        assert_eq!(missing(|program| program != "docker"), ["docker.io"]);
        assert!(missing(|_| true).is_empty());
    }

    #[test]
    fn a_program_is_found_and_a_missing_one_is_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
