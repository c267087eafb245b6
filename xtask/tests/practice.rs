//! A practice from its hand-over to its end, typed by a script: what a person at the terminal would do.
#![allow(clippy::unwrap_used, reason = "a test's helper fails as the test does")]

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// The documented repair, by hand: what is for nodes goes there by `ssh`.
const REPAIR: &str = r#"
for node in $(kubectl get nodes -o jsonpath='{.items[*].metadata.name}'); do
  { declare -p HARBOR_HOST HARBOR_CA; cat <<'NODE'
mkdir -p "/etc/containerd/certs.d/$HARBOR_HOST"
printf '%s\n' "$HARBOR_CA" > "/etc/containerd/certs.d/$HARBOR_HOST/ca.crt"
printf '%s\n' "$HARBOR_CA" > /usr/local/share/ca-certificates/harbor.crt
update-ca-certificates
systemctl restart containerd
NODE
  } | ssh "$node" bash -eu
done
"#;

/// What was said, and the exit code.
fn typed(args: &[&str], lines: &str) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    // The shell reads them when it is there.
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
#[ignore = "it makes a cluster: .ci/run runs it"]
fn a_practice_is_handed_over_left_come_back_to_and_healed() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let report = report.to_str().unwrap();
    let begin = ["practice", "untrusted-ca/no-trust", "--provision", "--report", report];
    let (code, said) = typed(&begin, "hint\ncheck\necho \"check ended with $?\"\npause\necho not here\n");
    assert_eq!(code, Some(0), "{said}");
    for words in
        ["You are on call.", "hint 1 of 3: ", "not healed\n", "x509", "check ended with 1\n", "the lab stays\n"]
    {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    assert!(!said.contains("not here"), "{said}");
    let lab = said.lines().find_map(|line| line.strip_prefix("remove it:  cargo xtask down ")).unwrap().to_owned();

    let back = ["practice", "resume", &lab];
    let (code, said) = typed(&back, &format!("{REPAIR}\ncheck\necho \"check ended with $?\"\necho $PWD\nleave\n"));
    assert_eq!(code, Some(0), "{said}");
    for words in ["healed\n", "check ended with 0\n", "after the hand-over", "1 passed, 0 failed"] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    // `CACHE/labs/LAB/work`: it is gone with the lab.
    let work = said.lines().find(|line| line.ends_with(&format!("/{lab}/work"))).unwrap();
    assert!(!Path::new(work).parent().unwrap().exists(), "{work}");
    let kept = std::fs::read_to_string(Path::new(report).join("report.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["cells"][0]["verdict"], "healed", "{kept}");
    assert!(Path::new(report).join("evidence/untrusted-ca/no-trust/check-2/observation.json").exists());
}
