//! A run from a bundle, on a machine that reaches nothing: a network namespace with no way out, an empty cache, and an engine of
//! its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The programs by which a bundle is made by hand, as `fixtures/bundles/README.md` has them.
const BY_HAND: &str = "find . -type f ! -name SHA256SUMS | sort | xargs sha256sum > SHA256SUMS
tar --zstd -cf ../by-hand.tar.zst *";

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

fn ran(command: &mut Command) -> std::io::Result<Output> {
    let output = command.output()?;
    println!("{command:?}: {}", output.status);
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

/// `xtask` where there is no network but loopback.
fn alone(dir: &Path, args: &[&str]) -> std::io::Result<Output> {
    let script = "ip link set lo up && ! ip route get 192.0.2.1 2>/dev/null && exec \"$0\" \"$@\"";
    ran(Command::new("unshare")
        .args(["--net", "sh", "-c", script, XTASK])
        .args(args)
        .arg("--report")
        .arg(dir.join("report"))
        .current_dir(dir)
        .env("DRYDOCK_CACHE", dir.join("cache")))
}

fn report(dir: &Path) -> std::io::Result<serde_json::Value> {
    Ok(serde_json::from_slice(&fs::read(dir.join("report/report.json"))?)?)
}

/// A bundle of the packages source, from the cache.
fn bundle(dir: &Path) -> std::io::Result<PathBuf> {
    let out = dir.join("drydock.tar.zst");
    let made = ran(Command::new(XTASK).args(["bundle", "create", "--source", "packages", "--output"]).arg(&out))?;
    assert!(made.status.success());
    Ok(out)
}

#[test]
#[ignore = "makes two labs: run by .ci/run"]
fn a_bundle_is_all_that_a_run_needs_and_what_asks_for_more_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let made = bundle(dir).unwrap();

    let cell = "untrusted-ca/no-trust/documented";
    let ran_alone = alone(dir, &["e2e", cell, "--offline", "--provision", "--bundle", made.to_str().unwrap()]).unwrap();
    assert!(ran_alone.status.success());
    let seen = report(dir).unwrap();
    assert_eq!((&seen["source"], &seen["harbor"]["kind"]), (&"bundle".into(), &"stand-in".into()));

    // By hand, of the same parts, but said to hold Harbor itself: what a run says of it comes from there.
    let unpacked = dir.join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let unpack = ran(Command::new("tar").args(["--zstd", "-xf"]).arg(&made).arg("-C").arg(&unpacked)).unwrap();
    assert!(unpack.status.success());
    let description = unpacked.join("drydock.json");
    let text = fs::read_to_string(&description).unwrap();
    fs::write(&description, text.replace("\"kind\": \"stand-in\"", "\"kind\": \"harbor\"")).unwrap();
    let packed = ran(Command::new("sh").args(["-ec", BY_HAND]).current_dir(&unpacked)).unwrap();
    assert!(packed.status.success());
    let readme = include_str!("../../fixtures/bundles/README.md");
    let lines: Vec<&str> = readme.lines().map(str::trim).collect();
    let as_documented = |line: &str| lines.iter().any(|known| known.replace("harbor.tar", "by-hand.tar") == line);
    assert!(BY_HAND.lines().all(as_documented), "{readme}");

    let runbook = dir.join("asks.md");
    let asks = "---\nscenario: untrusted-ca/no-trust\n---\n## Ask\n\n```sh\ncurl -sS https://drydock.invalid/ca.crt || true\n\
                kubectl run asks --image=registry.invalid/asks:1\nuntil kubectl get events -o jsonpath='{.items[*].reason}' | grep -q Pulling; do sleep 1; done\n```\n";
    fs::write(&runbook, asks).unwrap();
    let by_hand = dir.join("by-hand.tar.zst");
    let args = ["e2e", "--runbook", "asks.md", "--offline", "--provision", "--bundle", by_hand.to_str().unwrap()];
    let asked = alone(dir, &args).unwrap();
    assert_eq!(asked.status.code(), Some(1));
    let seen = report(dir).unwrap();
    assert_eq!((&seen["source"], &seen["harbor"]["kind"]), (&"bundle".into(), &"harbor".into()));
    let said = String::from_utf8_lossy(&asked.stderr) + String::from_utf8_lossy(&asked.stdout);
    for attempt in [
        "`curl -sS https://drydock.invalid/ca.crt` asked for drydock.invalid:443",
        "the pod default/asks asked for the image registry.invalid/asks:1",
    ] {
        assert!(said.contains(attempt), "{said}");
    }

    // No lab is left.
    let labs = fs::read_dir(dir.join("cache/labs")).unwrap().map(|lab| lab.unwrap().file_name());
    let labs: Vec<_> = labs.filter(|name| name != ".lock").collect();
    assert!(labs.is_empty(), "{labs:?}");
}
