//! Runbooks as people write them, well and badly: what is read in them, and what is found.
#![allow(clippy::unwrap_used, reason = "a test's helper fails as the test does")]

use std::{fmt::Write as _, path::PathBuf};

use harness::runbook::{
    Runbook,
    lint::{Level, lint},
    parse::{LARGEST, RunbookError, parse, parse_bytes},
};
use proptest::prelude::*;

/// The files of one folder, by name.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/runbooks").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn told(runbook: &Runbook) -> String {
    let Runbook { file, title, scenario, limit, variables, unmarked, .. } = runbook;
    let mut text = format!("{file}: {title:?}, for {scenario:?}, in {limit:?}, with {variables:?}\n");
    for (step, block) in runbook.blocks() {
        let flags = [("fails", block.fails), ("skip", block.skip)];
        let flags: Vec<&str> = flags.into_iter().filter_map(|(name, set)| set.then_some(name)).collect();
        let retry = block.retry.map(|retry| format!(", retry {retry:?}")).unwrap_or_default();
        writeln!(
            text,
            "{} {:?} on {:?} in {:?}{retry} {}",
            block.line,
            step.title,
            block.on,
            block.timeout,
            flags.join(" ")
        )
        .unwrap();
        block.script.lines().for_each(|line| writeln!(text, "    | {line}").unwrap());
    }
    for block in unmarked {
        writeln!(text, "{} is not run: {:?}", block.line, block.first).unwrap();
    }
    text
}

#[test]
fn what_is_valid_is_read() {
    let read = files("valid").iter().map(|(name, bytes)| told(&parse_bytes(name, bytes).unwrap())).collect::<Vec<_>>();
    insta::assert_snapshot!(read.join("\n"));
}

#[test]
fn what_is_invalid_is_refused_with_its_line() {
    let refused = files("invalid");
    let refused = refused.iter().map(|(name, bytes)| parse_bytes(name, bytes).unwrap_err().to_string());
    insta::assert_snapshot!(refused.collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_can_be_found_without_a_lab_is_found() {
    let found = files("linted");
    let found = found.iter().map(|(name, bytes)| {
        let findings = lint(&parse_bytes(name, bytes).unwrap());
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        if lines.is_empty() { format!("{name}: nothing") } else { lines.join("\n") }
    });
    insta::assert_snapshot!(found.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_hostile_file_is_refused_or_bounded() {
    let said =
        |bytes: &[u8]| parse_bytes("r.md", bytes).map(|runbook| runbook.steps.len()).map_err(|error| error.to_string());
    assert_eq!(
        said("x".repeat(10 << 20).as_bytes()),
        Err(format!("r.md:1: the file has {} bytes; a runbook has {LARGEST} at most", 10 << 20))
    );
    assert_eq!(said("x".repeat(LARGEST).as_bytes()), Ok(0));
    assert_eq!(said("## S\n```sh\nls\n```\n".repeat(1000).as_bytes()), Ok(1000));
    let long = format!("# T\n```sh\n{}\n```\n", "x".repeat(200_000));
    assert_eq!(
        said(long.as_bytes()),
        Err("r.md:2: this block has 200001 bytes; bash takes 100000 at most: put them into a file".to_owned())
    );
    // What Markdown nests.
    for nested in ["> ", "- ", "* 1. ", "[", "`x", "<a>", "**", "![", "(", "\\"] {
        assert_eq!(said(nested.repeat(100_000).as_bytes()), Ok(0), "{nested}");
    }
}

#[test]
fn a_thousand_steps_are_looked_at() {
    let runbook = parse("r.md", &"## S\n```sh\necho '\n```\n".repeat(1000)).unwrap();
    let findings = lint(&runbook);
    assert_eq!(findings.len(), 1000);
    assert!(findings.iter().all(|finding| finding.level == Level::Error), "{:?}", findings[0]);
}

/// Text that is a runbook more often than chance would have it.
fn markdown() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("# T\n".to_owned()),
        Just("## S\n".to_owned()),
        Just("---\n".to_owned()),
        Just("```sh\n".to_owned()),
        Just("```\n".to_owned()),
        Just("~~~console on=workers\n".to_owned()),
        Just("> ".to_owned()),
        Just("- ".to_owned()),
        Just("    ".to_owned()),
        Just("title: x\n".to_owned()),
        Just("variables: {A: b}\n".to_owned()),
        Just("$ kubectl exec -it p -- sh > f\n".to_owned()),
        Just("psql < f && (cat <<E\n".to_owned()),
        Just("for i in $(ls \"${A:-`x`}\"); do\n".to_owned()),
        "[ -~\\t\\n\\r]{0,40}",
        "\\PC{0,12}",
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn no_text_is_too_much(text in markdown()) {
        let lines = text.lines().count().max(1);
        match parse("r.md", &text) {
            Ok(runbook) => {
                let mut last = 0;
                for (_, block) in runbook.blocks() {
                    prop_assert!(block.line > last && block.line <= lines);
                    last = block.line;
                }
                for finding in lint(&runbook) {
                    prop_assert!(finding.line >= 1 && finding.line <= lines + 1, "{}", finding);
                }
            }
            Err(RunbookError { line, .. }) => prop_assert!(line >= 1 && line <= lines),
        }
    }

    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_bytes("r.md", &bytes).map(|runbook| lint(&runbook));
    }
}
