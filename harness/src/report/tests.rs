use std::sync::mpsc;

use super::{
    fixture::{bad, event, good, killed, plans},
    *,
};
use crate::{run::events::Events, scenario::Verdict};

fn json_of(events: &[Event]) -> serde_json::Value {
    serde_json::from_str(&json::json(&Record::of(events)).unwrap()).unwrap()
}

fn quiet(dir: &Path) -> ReportOptions {
    ReportOptions { dir: Some(dir.to_owned()), terminal: TerminalMode::Quiet }
}

fn report(dir: &Path, events: &[Event]) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let handle = Reporter::start(receiver, quiet(dir)).unwrap();
    for event in events {
        sender.send(event.clone()).unwrap();
    }
    handle.finish().unwrap()
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn the_json_of_a_good_run() {
    insta::assert_snapshot!(json::json(&Record::of(&good())).unwrap());
}

#[test]
fn the_json_of_a_bad_run() {
    insta::assert_snapshot!(json::json(&Record::of(&bad())).unwrap());
}

#[test]
fn before_the_lab_is_ready_its_facts_are_null() {
    let json = json_of(&killed());
    for fact in ["source", "kubernetes", "containerd", "harbor"] {
        assert!(json[fact].is_null(), "{fact}: {}", json[fact]);
    }
}

#[test]
fn a_run_without_an_end_is_not_passed_though_all_cells_are_good() {
    let mut events = good();
    events.pop();
    let json = json_of(&events);
    assert_eq!(json["passed"], false);
    assert_eq!(json["seconds"], 340.0);
    assert!(json["cells"].as_array().unwrap().iter().all(|cell| cell["as_expected"] == true));
}

#[test]
fn cells_that_never_ran_are_skipped_and_not_as_expected() {
    let json = json_of(&killed());
    let cells = json["cells"].as_array().unwrap();
    assert_eq!(cells.len(), plans().len());
    assert!(cells.iter().all(|cell| cell["verdict"] == "skipped" && cell["as_expected"] == false));
}

#[test]
fn a_run_that_claims_to_have_passed_is_not_believed() {
    let claim = || event(1.0, EventKind::RunFinished { passed: true, seconds: 1.0, error: None });
    let started = event(0.0, EventKind::RunStarted { run: "r".to_owned(), cells: plans()[..1].to_vec() });
    let finished = |verdict| event(0.5, EventKind::CellFinished { cell: plans()[0].result(verdict, 0.5, "") });
    let passed = |events: Vec<Event>| Record::of(&events).passed();
    assert!(passed(vec![started.clone(), finished(Verdict::NotHealed), claim()]));
    assert!(!passed(vec![started.clone(), finished(Verdict::Healed), claim()]), "a control that heals");
    assert!(!passed(vec![started.clone(), claim()]), "a cell that is missing");
    let error = Some("the lab broke".to_owned());
    let broke = event(1.0, EventKind::RunFinished { passed: true, seconds: 1.0, error });
    assert!(!passed(vec![started, finished(Verdict::NotHealed), broke]), "a lab that broke");
}

#[test]
fn the_junit_of_a_bad_run() {
    insta::assert_snapshot!(junit::junit(&Record::of(&bad())).unwrap());
}

/// The attributes that the schema of Jenkins' xUnit plug-in, junit-10.xsd, has for what is used here. It knows no others.
const ATTRIBUTES: [(&str, &[&str]); 8] = [
    ("testsuites", &["name", "time", "tests", "failures", "errors"]),
    ("testsuite", &["name", "tests", "failures", "errors", "skipped", "time", "timestamp"]),
    ("properties", &[]),
    ("property", &["name", "value"]),
    ("testcase", &["name", "time", "classname"]),
    ("failure", &["type", "message"]),
    ("error", &["type", "message"]),
    ("skipped", &["type", "message"]),
];

/// What a reader of another make finds: suite, case, and what became of it.
fn read_junit(text: &str) -> Vec<(String, String, &'static str)> {
    let document = roxmltree::Document::parse(text).unwrap();
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "testsuites");
    for node in root.descendants().filter(roxmltree::Node::is_element) {
        let known = ATTRIBUTES.iter().find(|(element, _)| node.has_tag_name(*element)).unwrap().1;
        for attribute in node.attributes() {
            assert!(known.contains(&attribute.name()), "{} of {}", attribute.name(), node.tag_name().name());
        }
    }
    let count = |node: roxmltree::Node<'_, '_>, name: &str| node.attribute(name).map(|n| n.parse::<usize>().unwrap());
    let mut found = Vec::new();
    for suite in root.children().filter(roxmltree::Node::is_element) {
        assert_eq!(suite.tag_name().name(), "testsuite");
        let cases: Vec<_> = suite.children().filter(|node| node.has_tag_name("testcase")).collect();
        let with = |name: &str| cases.iter().filter(|case| case.children().any(|node| node.has_tag_name(name))).count();
        assert_eq!(count(suite, "tests"), Some(cases.len()));
        for (attribute, element) in [("failures", "failure"), ("errors", "error"), ("skipped", "skipped")] {
            assert_eq!(count(suite, attribute), Some(with(element)), "{attribute}");
        }
        for case in cases {
            assert_eq!(case.attribute("classname"), suite.attribute("name"));
            assert!(case.attribute("time").unwrap().parse::<f64>().is_ok());
            let became = ["failure", "error", "skipped"]
                .into_iter()
                .find(|name| case.children().any(|node| node.has_tag_name(*name)))
                .unwrap_or("success");
            let name = |node: &roxmltree::Node<'_, '_>| node.attribute("name").unwrap().to_owned();
            found.push((name(&suite), name(&case), became));
        }
    }
    found
}

fn junit_of(events: &[Event]) -> Vec<String> {
    let cases = read_junit(&junit::junit(&Record::of(events)).unwrap());
    cases.into_iter().map(|(suite, case, became)| format!("{suite} {case}: {became}")).collect()
}

#[test]
fn a_junit_reader_of_another_make_finds_every_cell() {
    assert_eq!(
        junit_of(&bad()),
        [
            "untrusted-ca/no-trust no-op: success",
            "untrusted-ca/no-trust restart-kubelet: failure",
            "untrusted-ca/no-trust documented: failure",
            "pv-drift/blobs-deleted no-op: error",
            "pv-drift/blobs-deleted documented: skipped",
            "pv-drift/blobs-deleted our-own.md: skipped",
            "run comes to its end: error",
        ]
    );
    assert!(junit_of(&good()).iter().all(|case| case.ends_with(": success")));
}

#[test]
fn a_run_that_skipped_everything_is_not_good_for_a_junit_reader() {
    assert_eq!(junit_of(&killed()).last().unwrap(), "run comes to its end: error");
    let mut events = killed();
    events.push(event(99.0, EventKind::RunFinished { passed: true, seconds: 99.0, error: None }));
    assert_eq!(junit_of(&events).last().unwrap(), "run comes to its end: error");
}

#[test]
fn no_character_breaks_the_junit() {
    let reason: String = (0..0x2_0000).filter_map(char::from_u32).collect();
    let cell = plans()[2].result(Verdict::NotHealed, f64::NAN, reason);
    let events = [
        event(0.0, EventKind::RunStarted { run: "r".to_owned(), cells: plans()[2..3].to_vec() }),
        event(1.0, EventKind::CellFinished { cell }),
    ];
    assert_eq!(junit_of(&events)[0], "untrusted-ca/no-trust documented: failure");
}

#[test]
fn a_run_leaves_its_record_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = report(dir.path(), &bad());
    assert!(!outcome.passed);
    assert_eq!(outcome.counts, Counts { passed: 1, failed: 3, skipped: 2 });
    let events: Vec<Event> = read(dir.path(), EVENTS).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events, bad());
    assert_eq!(read(dir.path(), JSON), json::json(&Record::of(&bad())).unwrap());
    assert_eq!(read(dir.path(), JUNIT), junit::junit(&Record::of(&bad())).unwrap());
    let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [EVENTS, JUNIT, HTML, JSON, MARKDOWN]);
}

#[test]
fn the_record_is_on_disk_before_the_run_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (events, receiver) = Events::channel();
    let handle = Reporter::start(receiver, quiet(dir.path())).unwrap();
    events.note("one");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while read(dir.path(), EVENTS).is_empty() {
        assert!(std::time::Instant::now() < deadline, "no event was written");
        std::thread::yield_now();
    }
    assert!(read(dir.path(), EVENTS).ends_with("\"text\":\"one\"}\n"));
    drop(events);
    assert!(!handle.finish().unwrap().passed);
}

#[test]
fn finishing_waits_for_what_was_sent_and_not_for_senders() {
    let dir = tempfile::tempdir().unwrap();
    let (events, receiver) = Events::channel();
    let handle = Reporter::start(receiver, quiet(dir.path())).unwrap();
    for number in 0..2000 {
        events.note(number.to_string());
    }
    let left_over = events.clone();
    handle.finish().unwrap();
    assert_eq!(read(dir.path(), EVENTS).lines().count(), 2000);
    drop(left_over);
}

#[test]
fn a_dropped_reporter_writes_its_reports() {
    let dir = tempfile::tempdir().unwrap();
    let (events, receiver) = Events::channel();
    drop(Reporter::start(receiver, quiet(dir.path())).unwrap());
    events.note("nobody reads this");
    assert!(dir.path().join(JSON).exists());
}

#[test]
fn a_new_run_removes_the_verdict_of_an_earlier_one_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    report(dir.path(), &good());
    std::fs::create_dir_all(dir.path().join("evidence/a")).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let (_events, receiver) = Events::channel();
    let handle = Reporter::start(receiver, quiet(dir.path())).unwrap();
    for name in [JSON, JUNIT, MARKDOWN, HTML, EVIDENCE] {
        assert!(!dir.path().join(name).exists(), "{name}");
    }
    assert_eq!(read(dir.path(), "notes.txt"), "mine");
    drop(handle);
}

#[test]
fn a_folder_of_somebody_elses_keeps_its_evidence() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("evidence/a")).unwrap();
    report(dir.path(), &good());
    assert!(dir.path().join("evidence/a").exists());
}

#[test]
fn a_report_folder_that_cannot_be_made_is_an_error_at_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (_events, receiver) = Events::channel();
    let error = Reporter::start(receiver, quiet(&file.path().join("report"))).unwrap_err().to_string();
    assert!(error.starts_with("make the report folder ") && error.contains("/report: "), "{error}");
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (events, receiver) = Events::channel();
    let handle = Reporter::start(receiver, quiet(dir.path())).unwrap();
    std::fs::create_dir_all(dir.path().join(JSON).join("in the way")).unwrap();
    events.note("one");
    let error = handle.finish().unwrap_err().to_string();
    assert!(error.starts_with("write ") && error.contains("report.json: "), "{error}");
}

#[test]
fn a_run_is_rendered_again_from_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = report(dir.path(), &bad());
    let before = [JSON, JUNIT, MARKDOWN, HTML].map(|name| read(dir.path(), name));
    for name in [JSON, JUNIT, MARKDOWN, HTML] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    let rendered = render(dir.path()).unwrap();
    assert_eq!(rendered.outcome, outcome);
    assert_eq!(rendered.truncated, None);
    assert_eq!([JSON, JUNIT, MARKDOWN, HTML].map(|name| read(dir.path(), name)), before);
}

#[test]
fn a_record_that_ends_within_a_line_is_rendered_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    report(dir.path(), &good());
    let record = std::fs::read(dir.path().join(EVENTS)).unwrap();
    std::fs::write(dir.path().join(EVENTS), &record[..record.len() - 20]).unwrap();
    let rendered = render(dir.path()).unwrap();
    assert!(!rendered.outcome.passed);
    let lines = good().len();
    let truncated = rendered.truncated.unwrap();
    assert!(truncated.ends_with(&format!("events.jsonl ends within line {lines}, which was left out")), "{truncated}");
}

#[test]
fn a_record_that_is_damaged_elsewhere_is_an_error_that_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    report(dir.path(), &good());
    let record = read(dir.path(), EVENTS).replacen("\"note\"", "\"noet\"", 1);
    std::fs::write(dir.path().join(EVENTS), record).unwrap();
    let error = render(dir.path()).unwrap_err().to_string();
    assert!(error.contains("events.jsonl, line 2: ") && error.contains("noet"), "{error}");
}

#[test]
fn a_record_of_no_run_is_an_error_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for record in ["", "{\"at\":\"2026-11-25T07:11:23Z\",\"event\":\"note\",\"text\":\"a\"}\n", "{\"at\":\"20"] {
        std::fs::write(dir.path().join(EVENTS), record).unwrap();
        let error = render(dir.path()).unwrap_err().to_string();
        assert!(error.contains("events.jsonl: no run began in it"), "{error}");
        assert!(!dir.path().join(HTML).exists());
    }
    std::fs::write(dir.path().join(EVENTS), "# notes\n").unwrap();
    let error = render(dir.path()).unwrap_err().to_string();
    assert!(error.contains("events.jsonl, line 1: "), "{error}");
}

#[test]
fn no_record_is_an_error_that_names_the_file() {
    let error = render(Path::new("no/such")).unwrap_err().to_string();
    assert!(error.starts_with("read no/such/events.jsonl: "), "{error}");
}

#[tokio::test]
async fn a_run_that_pauses_goes_on_elsewhere_with_steps_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (first, then) = (dir.path().join("first"), dir.path().join("then"));
    let plan = plans().remove(2);
    let (events, receiver) = Events::channel();
    let reporter = Reporter::start(receiver, quiet(&first)).unwrap();
    events.emit(EventKind::RunStarted { run: "r".to_owned(), cells: vec![plan.clone()] });
    events.step("break it", async |_| Ok::<_, String>(())).await.unwrap();
    assert!(!reporter.pause().unwrap().passed);
    std::fs::create_dir_all(first.join("evidence/one")).unwrap();
    std::fs::write(first.join("evidence/one/seen"), "seen").unwrap();

    // Whatever an earlier run has reported there goes.
    report(&then, &bad());
    std::fs::create_dir_all(then.join("evidence/old")).unwrap();
    copy(&first, &then).unwrap();
    assert_eq!(read(&then, "evidence/one/seen"), "seen");
    assert!(!then.join("evidence/old").exists() && !then.join(JSON).exists());

    let (events, reporter) = Reporter::resume_quietly(&then).unwrap();
    events.step("check", async |_| Ok::<_, String>(())).await.unwrap();
    events.emit(EventKind::CellFinished { cell: plan.result(Verdict::Healed, 1.0, "all pulled") });
    events.emit(EventKind::RunFinished { passed: true, seconds: 1.0, error: None });
    assert!(reporter.finish().unwrap().passed);
    let steps = read(&then, EVENTS)
        .lines()
        .filter_map(|line| match serde_json::from_str::<Event>(line).unwrap().kind {
            EventKind::StepStarted { step, name, .. } => Some((step, name)),
            _ => None,
        })
        .collect::<Vec<_>>();
    assert_eq!(steps, [(1, "break it".to_owned()), (2, "check".to_owned())]);
    assert!(matches!(Reporter::resume_quietly(dir.path()), Err(ReportError::Folder { .. })));
}
