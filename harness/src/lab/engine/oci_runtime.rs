//! The runtime that the private engine runs where capabilities are restricted.
//!
//! A privileged container asks for every capability, and `runc` gives up ("unable to apply caps: operation not permitted")
//! when one of them is not in the bounding set. This drops those from what is asked for, then becomes `runc`.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use serde_json::Value;

use super::{caps::Bounding, programs};

/// The file name under which this program is the runtime.
pub const NAME: &str = "drydock-oci-runtime";

/// runc's own flags before the subcommand that take a value.
const GLOBAL_WITH_VALUE: [&str; 5] = ["--root", "--log", "--log-format", "--criu", "--rootless"];

/// Whether this process was started as the runtime.
pub fn is_called() -> bool {
    std::env::args_os().next().is_some_and(|program| Path::new(&program).file_name() == Some(OsStr::new(NAME)))
}

/// Rewrites what runc is about to read, and becomes runc. Returns only when that failed.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let error = match prepare(&args) {
        Ok(()) => {
            let runc = programs::find("runc").unwrap_or_else(|| PathBuf::from("runc"));
            let error = Command::new(&runc).args(&args).exec();
            format!("start {}: {error}", runc.display())
        }
        Err(error) => error,
    };
    report(&args, &error);
    ExitCode::FAILURE
}

/// containerd shows the log's last error to whoever asked for the container; nobody sees the standard error.
fn report(args: &[OsString], error: &str) {
    eprintln!("{NAME}: {error}");
    if let Some(log) = flag_value(args, &["--log"]) {
        let line = serde_json::json!({ "level": "error", "msg": format!("{NAME}: {error}") });
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}

fn prepare(args: &[OsString]) -> Result<(), String> {
    let Some(asked) = asked_in(args) else { return Ok(()) };
    let bounding = Bounding::own().map_err(|error| format!("read the capability bounding set: {error}"))?;
    let path = match &asked {
        Asked::Bundle(dir) => &dir.join("config.json"),
        Asked::Process(file) => file,
    };
    rewrite(path, matches!(asked, Asked::Bundle(_)), bounding)
        .map_err(|error| format!("drop capabilities in {}: {error}", path.display()))
}

/// Where capabilities are asked for.
#[derive(Debug, PartialEq)]
enum Asked {
    /// In the `config.json` of a bundle folder.
    Bundle(PathBuf),
    /// In the process description that `exec` was given.
    Process(PathBuf),
}

fn asked_in(args: &[OsString]) -> Option<Asked> {
    let mut rest = args.iter();
    let command = loop {
        let arg = rest.next()?.to_str()?;
        if GLOBAL_WITH_VALUE.contains(&arg) {
            rest.next();
        } else if !arg.starts_with('-') {
            break arg;
        }
    };
    let rest: Vec<OsString> = rest.cloned().collect();
    match command {
        "create" | "run" | "restore" => {
            Some(Asked::Bundle(flag_value(&rest, &["--bundle", "-b"]).unwrap_or_else(|| PathBuf::from("."))))
        }
        "exec" => flag_value(&rest, &["--process", "-p"]).map(Asked::Process),
        _ => None,
    }
}

/// The value of the first of `names` among `args`, as `--name value`, `--name=value` or `-name=value`.
fn flag_value(args: &[OsString], names: &[&str]) -> Option<PathBuf> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str() else { continue };
        if names.contains(&text) {
            return args.next().map(PathBuf::from);
        }
        if let Some((name, value)) = text.split_once('=')
            && names.contains(&name)
        {
            return Some(PathBuf::from(value));
        }
    }
    None
}

/// Rewrites the file at `path`, a bundle's configuration or one process's, unless it asks for nothing that is missing.
fn rewrite(path: &Path, is_bundle: bool, bounding: Bounding) -> io::Result<()> {
    let mut config: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let process = if is_bundle { config.get_mut("process") } else { Some(&mut config) };
    if !process.is_some_and(|process| drop_capabilities(process, bounding)) {
        return Ok(());
    }
    // A reader must find the old file or the new one, and the new one must be no more readable than the old.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temp = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&mut temp, &config)?;
    temp.as_file().set_permissions(std::fs::metadata(path)?.permissions())?;
    temp.persist(path)?;
    Ok(())
}

/// Drops from an OCI process what is not in `bounding`; says whether there was any.
fn drop_capabilities(process: &mut Value, bounding: Bounding) -> bool {
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else { return false };
    let mut dropped = false;
    for names in sets.values_mut().filter_map(Value::as_array_mut) {
        let before = names.len();
        names.retain(|name| name.as_str().is_none_or(|name| bounding.may_ask_for(name)));
        dropped |= names.len() != before;
    }
    dropped
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn restricted() -> Bounding {
        Bounding::parse("CapBnd:\t000001fffeffffff").unwrap()
    }

    fn os(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[rstest]
    #[case("--root /r --log /l --log-format json create --bundle /b --pid-file /p id", Some(Asked::Bundle("/b".into())))]
    #[case("--systemd-cgroup create --bundle=/b id", Some(Asked::Bundle("/b".into())))]
    #[case("run -b /b id", Some(Asked::Bundle("/b".into())))]
    #[case("--root=/r create id", Some(Asked::Bundle(".".into())))]
    #[case("--root create exec --process /p --detach id", Some(Asked::Process("/p".into())))]
    #[case("exec -p /p id", Some(Asked::Process("/p".into())))]
    #[case("exec id sh", None)]
    #[case("delete --force create", None)]
    #[case("--version", None)]
    fn finds_where_capabilities_are_asked_for(#[case] line: &str, #[case] expected: Option<Asked>) {
        assert_eq!(asked_in(&os(line)), expected);
    }

    #[test]
    fn only_what_the_bounding_set_lacks_is_dropped_from_a_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let names = json!(["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_OF_THE_FUTURE", "CAP_SYS_ADMIN"]);
        let kept = json!(["CAP_CHOWN", "CAP_OF_THE_FUTURE", "CAP_SYS_ADMIN"]);
        let config = |names: &Value| {
            json!({
                "ociVersion": "1.0.2",
                "process": {
                    "args": ["CAP_SYS_RESOURCE"],
                    "capabilities": { "bounding": names, "effective": names, "permitted": names, "ambient": [] },
                },
                "linux": { "resources": { "memory": { "limit": 9_223_372_036_854_771_712_u64 } } },
            })
        };
        std::fs::write(&path, config(&names).to_string()).unwrap();
        rewrite(&path, true, restricted()).unwrap();
        let after: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(after, config(&kept));
    }

    #[test]
    fn a_process_file_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        let process = json!({ "capabilities": { "bounding": ["CAP_SYS_RESOURCE"] }, "terminal": true });
        std::fs::write(file.path(), process.to_string()).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        rewrite(file.path(), false, restricted()).unwrap();
        let after: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        assert_eq!(after, json!({ "capabilities": { "bounding": [] }, "terminal": true }));
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_config_that_asks_for_nothing_missing_is_not_written() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{ "process": { "capabilities": { "bounding": ["CAP_CHOWN"] } } }"#).unwrap();
        let before = std::fs::metadata(file.path()).unwrap().ino();
        rewrite(file.path(), true, restricted()).unwrap();
        assert_eq!(std::fs::metadata(file.path()).unwrap().ino(), before);
    }

    #[test]
    fn a_damaged_config_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{").unwrap();
        assert!(rewrite(file.path(), false, restricted()).is_err());
    }
}
