//! The workflows in `.github` are run elsewhere; what can be told of them here is told here.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command as Process,
};

use clap::Parser;
use harness::source::versions::Versions;
use regex::Regex;
use serde_json::Value;

use crate::{Cli, e2e};

fn read(path: &str) -> (String, Value) {
    let text = std::fs::read_to_string(crate::root().join(".github").join(path)).unwrap();
    let value = serde_saphyr::from_str(&text).unwrap();
    (text, value)
}

const FILES: [&str; 3] = ["workflows/check.yml", "workflows/e2e.yml", "actions/drydock/action.yml"];

/// Every step of every job, or of the action.
fn steps(file: &Value) -> Vec<&Value> {
    let jobs = file["jobs"].as_object().into_iter().flatten().map(|(_, job)| &job["steps"]);
    jobs.chain([&file["runs"]["steps"]]).filter_map(Value::as_array).flatten().collect()
}

#[test]
fn actionlint_finds_nothing() {
    let program = std::env::var_os("DRYDOCK_ACTIONLINT");
    assert!(
        program.is_some(),
        "DRYDOCK_ACTIONLINT does not name a program: run `cargo xtask test`, which builds it and sets it"
    );
    let program = PathBuf::from(program.unwrap());
    let lint = |dir: &Path| {
        // It reads the workflows of a repository; what is checked out without git's folder is none.
        let files = ["check.yml", "e2e.yml"].map(|file| dir.join(file));
        let said = Process::new(&program).arg("-no-color").args(files).output().unwrap();
        (said.status.success(), String::from_utf8_lossy(&said.stdout).into_owned())
    };
    let workflows = crate::root().join(".github/workflows");
    assert_eq!(lint(&workflows), (true, String::new()));
    // It can find something.
    let dir = tempfile::tempdir().unwrap();
    for file in ["check.yml", "e2e.yml"] {
        let text = std::fs::read_to_string(workflows.join(file)).unwrap();
        std::fs::write(dir.path().join(file), text.replace("matrix.scenario", "matrix.scenraio")).unwrap();
    }
    let (good, said) = lint(dir.path());
    assert!(!good && said.contains("scenraio"), "{said}");
}

#[test]
fn actions_are_pinned_by_commit_and_permissions_are_least() {
    let pinned = Regex::new(r"^\s*(?:- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$").unwrap();
    for file in FILES {
        let (text, value) = read(file);
        for line in text.lines().filter(|line| line.contains("uses:")) {
            assert!(pinned.is_match(line), "{file}: {line}");
        }
        if value["jobs"].is_object() {
            assert_eq!(value["permissions"], serde_json::json!({"contents": "read"}), "{file}");
            assert!(value["concurrency"]["group"].is_string(), "{file}");
            for (name, job) in value["jobs"].as_object().unwrap() {
                assert!(job["timeout-minutes"].is_number() && job["permissions"].is_null(), "{file}: {name}");
            }
        }
        // What comes from outside goes into a script by its environment only.
        for script in steps(&value).iter().filter_map(|step| step["run"].as_str()) {
            assert!(!script.contains("${{"), "{file}: {script}");
        }
    }
}

/// The values of an axis: a list, or an expression with the list of a pull request and that of all else.
fn axis(matrix: &Value, key: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let names = |list: &Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let Some(expression) = matrix[key].as_str() else { return (names(&matrix[key]), names(&matrix[key])) };
    let lists = Regex::new(r"'(\[[^']*\])'").unwrap();
    let lists: Vec<_> =
        lists.captures_iter(expression).map(|list| names(&serde_json::from_str(&list[1]).unwrap())).collect();
    let [few, all] = <[_; 2]>::try_from(lists).unwrap();
    (few, all)
}

#[test]
fn the_matrix_is_every_scenario_on_every_pinned_version_and_of_a_pull_request_on_the_defaults() {
    let jobs = read("workflows/e2e.yml").1["jobs"].clone();
    let scenarios = e2e::scenarios().unwrap().0.iter().map(|scenario| scenario.spec().name.clone()).collect();
    assert_eq!(axis(&jobs["e2e"]["strategy"]["matrix"], "scenario").1, scenarios);
    let versions = Versions::load(&crate::root().join("fixtures/versions.toml")).unwrap();
    let minor = |version: &str| version.trim_start_matches('v').rsplit_once('.').unwrap().0.to_owned();
    for job in ["bundle", "e2e"] {
        let matrix = &jobs[job]["strategy"]["matrix"];
        let (few, all) = axis(matrix, "kubernetes");
        assert_eq!(all, versions.all_kubernetes().map(|kubernetes| minor(&kubernetes.version)).collect());
        assert_eq!(few, [minor(&versions.kubernetes(None).unwrap().version)].into());
        let (few, all) = axis(matrix, "harbor");
        assert_eq!(all, versions.all_harbor().map(|harbor| minor(&harbor.version)).collect());
        assert_eq!(few, [minor(&versions.harbor(None).unwrap().version)].into());
    }
}

/// Runs a step's script with a `cargo` that only tells its arguments, and returns them.
fn arguments(script: &str, env: &[(&str, &str)]) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let tells = "#!/bin/sh\nfor argument; do printf '%s\\n' \"$argument\"; done >> \"$TOLD\"; echo >> \"$TOLD\"\n";
    for name in ["cargo", "sudo", "typos"] {
        let path = dir.path().join(name);
        let script = if name == "sudo" { "#!/bin/sh\nshift 3\nexec \"$@\"\n" } else { tells };
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let told = dir.path().join("told");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let ran = Process::new("bash")
        .args(["-eo", "pipefail", "-c", script])
        .envs(env.iter().copied())
        .env("PATH", path)
        .env("TOLD", &told)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    let told = std::fs::read_to_string(&told).unwrap_or_default();
    let calls = told.split("\n\n").filter(|call| !call.trim().is_empty());
    calls.map(|call| call.trim().lines().map(str::to_owned).collect()).collect()
}

/// Whether the command line takes `cargo xtask …`.
fn is_taken(call: &[String]) -> Result<(), String> {
    match call.split_first() {
        Some((first, rest)) if first == "xtask" => {
            let words = std::iter::once("xtask".to_owned()).chain(rest.iter().cloned());
            Cli::try_parse_from(words).map(drop).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}

#[test]
fn every_command_of_a_step_is_one_that_there_is() {
    let mut commands = 0;
    for file in FILES {
        let (_, value) = read(file);
        for script in steps(&value).iter().filter_map(|step| step["run"].as_str()) {
            if script.contains("GITHUB_STEP_SUMMARY") {
                continue;
            }
            let env = [
                ("SCENARIO", "pv-drift"),
                ("KUBERNETES", "1.34"),
                ("HARBOR", "2.13"),
                ("RUNBOOK", "/a b/ours.md"),
                ("REPORT", "/a b/r"),
            ];
            for call in arguments(script, &env) {
                is_taken(&call).unwrap();
                commands += 1;
            }
        }
    }
    assert!(commands >= 8, "{commands}");
}

#[test]
fn the_action_passes_on_what_is_given_and_nothing_else() {
    let (_, action) = read("actions/drydock/action.yml");
    let script = steps(&action)[0]["run"].as_str().unwrap().to_owned();
    let called = |scenario, kubernetes| {
        let env =
            [("SCENARIO", scenario), ("KUBERNETES", kubernetes), ("RUNBOOK", "/a b/ours.md"), ("REPORT", "/a b/r")];
        arguments(&script, &env).remove(0).join("|")
    };
    assert_eq!(called("", ""), "xtask|e2e|--runbook|/a b/ours.md|--report|/a b/r");
    assert_eq!(called("pv-drift", "1.34"), "xtask|e2e|pv-drift|--runbook|/a b/ours.md|--report|/a b/r|--k8s|1.34");
}

#[test]
fn the_summary_is_what_the_report_has() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("report")).unwrap();
    std::fs::write(dir.path().join("report/report.md"), "told\n").unwrap();
    let (_, value) = read("workflows/e2e.yml");
    let summary =
        steps(&value).into_iter().find(|step| step["run"].as_str().is_some_and(|run| run.contains("SUMMARY"))).unwrap();
    assert_eq!(summary["if"], "always()");
    let summary_file = dir.path().join("summary");
    let ran = Process::new("bash")
        .args(["-eo", "pipefail", "-c", summary["run"].as_str().unwrap()])
        .current_dir(dir.path())
        .env("GITHUB_STEP_SUMMARY", &summary_file)
        .status()
        .unwrap();
    assert!(ran.success());
    assert_eq!(std::fs::read_to_string(summary_file).unwrap(), "told\n");
}
