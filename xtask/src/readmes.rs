//! The README of each scenario tells its failure to who has it just now; what it says to type is what the runbooks and `explain` say.

use harness::{
    run::runner::Scenario,
    runbook::{Place, Runbook, parse::parse_bytes},
    scenario::{Role, Verdict},
};
use regex::Regex;

use crate::e2e;

fn blocks(runbook: &Runbook) -> Vec<(Place, &str)> {
    runbook.blocks().map(|(_, block)| (block.on, block.script.as_str())).collect()
}

/// What is wrong with a scenario's README; nothing where it is true.
fn wrong(scenario: &dyn Scenario, text: &str) -> Vec<String> {
    let (_, library) = e2e::scenarios().unwrap();
    let spec = scenario.spec();
    let readme = parse_bytes("README.md", text.as_bytes()).unwrap();
    let mut wrong = Vec::new();

    // Its blocks are those of the runbooks that it names, whole and in that order.
    let linked = Regex::new(r"fixtures/runbooks/([a-z-]+/[a-z-]+)\.md").unwrap();
    let told = blocks(&readme);
    let (mut left, mut whole) = (told.as_slice(), Vec::new());
    for name in linked.captures_iter(text).map(|found| found[1].to_owned()) {
        match library.get(&name).map(blocks) {
            Ok(own) if !own.is_empty() && left.starts_with(&own) => {
                left = &left[own.len()..];
                whole.push(name);
            }
            Ok(_) => {}
            Err(error) => wrong.push(error.to_string()),
        }
    }
    if let Some((_, script)) = left.first() {
        wrong.push(format!("this block begins no runbook that is named: {script}"));
    }
    let heals = spec.cells().into_iter().any(|cell| {
        let repair = matches!(cell.role, Role::Documented | Role::Recommended);
        repair && cell.expected == Some(Verdict::Healed) && cell.runbooks.iter().all(|name| whole.contains(name))
    });
    if !heals {
        wrong.push(format!("no procedure that heals is told whole, only {whole:?}"));
    }

    // What it looks at is what `explain` does.
    let typed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let looks = || spec.variants.iter().flat_map(|variant| &variant.see).chain(&spec.see);
    wrong
        .extend(typed.iter().filter(|typed| !looks().any(|see| see.run == **typed)).map(|it| format!("no look: {it}")));
    wrong.extend(
        spec.see.iter().filter(|see| !typed.contains(&see.run.as_str())).map(|it| format!("not told: {}", it.run)),
    );
    wrong
}

fn readme(scenario: &dyn Scenario) -> String {
    let path = crate::root().join("scenarios").join(&scenario.spec().name).join("README.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_commands_of_every_readme_are_those_of_the_runbooks() {
    for scenario in e2e::scenarios().unwrap().0 {
        let found = wrong(scenario.as_ref(), &readme(scenario.as_ref()));
        assert_eq!(found, Vec::<String>::new(), "{}", scenario.spec().name);
    }
}

#[test]
fn a_readme_that_says_otherwise_is_found_out() {
    let (scenarios, _) = e2e::scenarios().unwrap();
    let text = readme(scenarios[0].as_ref());
    for (from, to) in [
        ("systemctl restart containerd", "systemctl reload containerd"),
        ("```sh on=each-node\nsystemctl daemon-reload\n```\n", ""),
        ("```sh on=each-node\nsystemctl restart kubelet", "```sh\nsystemctl restart kubelet"),
        ("$ kubectl -n harbor get pods", "$ kubectl -n harbour get pods"),
        ("untrusted-ca/documented.md", "untrusted-ca/documentd.md"),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(!wrong(scenarios[0].as_ref(), &text.replace(from, to)).is_empty(), "{from}");
    }
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)#]+)[^)]*\)").unwrap();
    let scenarios = e2e::scenarios().unwrap().0;
    let scenarios = scenarios.iter().map(|scenario| format!("scenarios/{}/README.md", scenario.spec().name));
    let fixtures = ["bundles", "clusters", "harbor-stand-in", "runbooks"];
    let fixtures = fixtures.map(|folder| format!("fixtures/{folder}/README.md"));
    let documents = ["README.md", "CONTRIBUTING.md"].map(str::to_owned).into_iter().chain(fixtures).chain(scenarios);
    for document in documents.map(|path| crate::root().join(path)) {
        let text = std::fs::read_to_string(&document).unwrap();
        for found in link.captures_iter(&text).filter(|found| !found[1].starts_with("https:")) {
            assert!(document.with_file_name("").join(&found[1]).exists(), "{}: {}", document.display(), &found[1]);
        }
    }
}
