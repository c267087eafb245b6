//! A runbook reaches its lab and no other cluster, not even by naming one or by taking its variables away: seen with a second
//! cluster, which a user's own kubeconfig leads to.
#![allow(clippy::unwrap_used, reason = "a test's helper fails as the test does")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

const NAME: &str = "drydock-second";

/// What a runbook may do by mistake. `canary` is a namespace of the second cluster, and of no lab.
const RUNBOOK: &str = r#"# Reach for another cluster

## Name its context

```sh expect=fail
kubectl --context kind-drydock-second delete namespace canary
```

```sh expect=fail
kubectl config use-context kind-drydock-second
```

```sh expect=fail
helm --kube-context kind-drydock-second list
```

## Take the variables away

```sh expect=fail
unset KUBECONFIG
kubectl delete namespace canary
```

```sh expect=fail
env -u KUBECONFIG -u HOME kubectl delete namespace canary
```

```sh expect=fail
KUBECONFIG= HOME=/nonexistent kubectl delete namespace canary
```

```sh expect=fail
sudo -i kubectl delete namespace canary
```

```sh expect=fail
sudo sh -c 'kubectl delete namespace canary'
```

## See that it was the lab all the time

```sh
test -z "${OWN_KUBECONFIG-}"
unset KUBECONFIG
test "$(kubectl get nodes -o name | wc -l)" = 3
kubectl config get-contexts -o name > contexts
! grep second contexts
```
"#;

fn xtask(args: &[&str], env: &[(&str, &Path)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(args).envs(env.iter().copied()).output().unwrap()
}

/// Ends the lab, however the test ends.
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        let _ = xtask(&["down", NAME], &[]);
    }
}

/// What `up` says of its lab.
fn told<'a>(said: &'a str, name: &str) -> &'a Path {
    let line = said.lines().find_map(|line| line.strip_prefix(name));
    assert!(line.is_some(), "no {name} in {said}");
    Path::new(line.unwrap().trim())
}

#[test]
#[ignore = "it makes two clusters: .ci/run runs it"]
fn a_runbook_cannot_touch_a_second_cluster() {
    // On a machine that has built nothing yet this takes long, and says what it does.
    let up = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["up", NAME, "--provision"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let _down = Down;
    let said = String::from_utf8_lossy(&up.stdout).into_owned();
    assert!(up.status.success(), "{said}");
    let (kubeconfig, kubectl) = (told(&said, "kubeconfig"), told(&said, "tools").join("kubectl"));
    let on_second =
        |args: &[&str]| Command::new(&kubectl).arg("--kubeconfig").arg(kubeconfig).args(args).output().unwrap();
    assert!(on_second(&["create", "namespace", "canary"]).status.success());

    // The user's home and variables lead to the second cluster.
    let dir = tempfile::tempdir().unwrap();
    let user = |name: &str| dir.path().join(name);
    std::fs::create_dir(user(".kube")).unwrap();
    std::fs::copy(kubeconfig, user(".kube/config")).unwrap();
    std::fs::write(user("reach.md"), RUNBOOK).unwrap();
    // The cache stays where it is: `CACHE/labs/NAME/kubeconfig`.
    let cache: PathBuf = kubeconfig.ancestors().nth(3).unwrap().to_owned();
    let env = [
        ("HOME", dir.path()),
        ("DRYDOCK_CACHE", cache.as_path()),
        ("KUBECONFIG", kubeconfig),
        ("OWN_KUBECONFIG", kubeconfig),
        ("HELM_KUBECONTEXT", Path::new("kind-drydock-second")),
    ];
    let (runbook, report) = (user("reach.md"), user("report"));
    let args = ["e2e", "untrusted-ca/no-trust", "--provision", "--runbook", runbook.to_str().unwrap()];
    let ran = xtask(&[args.as_slice(), &["--report", report.to_str().unwrap()]].concat(), &env);
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    // It heals nothing, and each of its steps ends as written.
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("not healed") && !said.contains("step `"), "{said}");
    let left = on_second(&["get", "namespace", "canary", "-o", "jsonpath={.status.phase}"]);
    assert_eq!(String::from_utf8_lossy(&left.stdout), "Active");
}
