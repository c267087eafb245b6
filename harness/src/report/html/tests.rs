use regex::Regex;
use rstest::rstest;

use super::{
    super::fixture::{bad, ended, event, good, killed, lab, many, plans, result, started, story, told, waiting},
    *,
};
use crate::run::{
    chapter::Chapter,
    events::{Event, EventKind},
};

/// What a pull says, of a usual length.
pub const USUAL: &str = "worker1: library/app:v1: ErrImagePull: tls: failed to verify certificate: x509: certificate signed by unknown authority";

fn page(events: &[Event]) -> String {
    html(&Record::of(events), Path::new("no/such/folder")).unwrap()
}

/// What a reader reads: the page without its style and its marks, a line each.
fn read(page: &str) -> String {
    let style = Regex::new(r"(?s)<style>.*</style>").unwrap();
    let tag = Regex::new(r"<[^>]*>").unwrap();
    let text = style.replace(page, "");
    let text = tag.replace_all(&text, " ");
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A run with two variants that tell their whole story; in the second the repair does not heal.
pub(super) fn two() -> Vec<Event> {
    let mut events = vec![
        event(0.0, EventKind::RunStarted { run: "drydock-7f3a".to_owned(), cells: plans() }),
        started(0.0, 1, None, "make the lab", None),
        ended(30.0, 1, 30.0, None),
        event(30.0, EventKind::LabReady { lab: lab() }),
    ];
    let plans = plans();
    let next = story(&mut events, 31.0, 10, &plans[..3], USUAL);
    let mut second = plans[3..].to_vec();
    second[2].expected = Some(Verdict::NotHealed);
    story(&mut events, 90.0, next, &second, "worker2-gpu: not found");
    events.push(event(150.0, EventKind::RunFinished { passed: false, seconds: 150.0, error: None }));
    // What was planned for the last cell says otherwise than what it did.
    for event in &mut events {
        if let EventKind::CellFinished { cell } = &mut event.kind
            && cell.procedure == "our-own.md"
        {
            cell.expected = None;
            cell.as_expected = false;
        }
    }
    events
}

#[test]
fn the_page_reads_from_the_verdict_to_the_evidence() {
    insta::assert_snapshot!(read(&page(&two())));
}

#[test]
fn a_baseline_that_was_seen_after_the_cell_before_says_so() {
    let cell = "untrusted-ca/no-trust/documented".to_owned();
    let events = two().into_iter().flat_map(|event| {
        let baseline = matches!(event.kind, EventKind::Told { chapter: Chapter::Baseline, .. });
        let seen = match event.kind {
            EventKind::Told { step, .. } if baseline => {
                Some(told(90.0, step, Chapter::SeenBefore { cell: cell.clone() }))
            }
            _ => None,
        };
        [Some(event), seen].into_iter().flatten()
    });
    let said = format!("nothing was done since {cell}, after which every node pulled every image");
    assert!(read(&page(&events.collect::<Vec<_>>())).contains(&said));
    assert!(!read(&page(&two())).contains("nothing was done since"));
}

#[rstest]
#[case::good(good(), "6 of 6 as expected")]
#[case::bad(bad(), "3 of 6 are not as expected, 2 did not run")]
#[case::killed(killed(), "0 of 6 as expected, 6 did not run")]
#[case::without_cells(good().into_iter().filter(|event| !matches!(event.kind, EventKind::RunStarted { .. } | EventKind::CellFinished { .. })).collect(), "No cell was planned")]
fn the_verdict_is_a_sentence(#[case] events: Vec<Event>, #[case] expected: &str) {
    assert_eq!(sentence(&Record::of(&events)), expected);
    assert!(read(&page(&events)).contains(expected));
}

#[test]
fn one_cell_that_is_not_as_expected_is_said_with_its_reason() {
    let plans = plans();
    let events = [
        event(0.0, EventKind::RunStarted { run: "r".to_owned(), cells: plans[..2].to_vec() }),
        result(1.0, plans[0].result(Verdict::NotHealed, 1.0, "no pull")),
        result(2.0, plans[1].result(Verdict::Healed, 1.0, "every node pulled")),
        event(3.0, EventKind::RunFinished { passed: false, seconds: 3.0, error: None }),
    ];
    let read = read(&page(&events));
    let wanted = "1 of 2 is not as expected\nuntrusted-ca/no-trust with restart-kubelet : healed, expected not healed, because every node pulled\n";
    assert!(read.contains(wanted), "{read}");
}

#[test]
fn what_went_wrong_first_leads_and_is_a_step_that_failed_before_any_cell_did() {
    let mut events = bad();
    // The lab failed in a step before a cell was judged.
    events.insert(14, started(200.6, 50, Some(1), "fault", None));
    events.insert(15, waiting(200.7, 50, "pods to go: 3 left"));
    events.insert(16, ended(200.9, 50, 0.3, Some("no such node")));
    let wrong = wrong_of(&events).unwrap();
    assert_eq!(wrong.what, "make the lab › fault");
    assert_eq!(
        (wrong.reasons[0].as_str(), wrong.expected.as_deref()),
        ("no such node", Some("It last waited for pods to go, and saw: 3 left"))
    );
    let wrong = wrong_of(&bad()).unwrap();
    assert_eq!(wrong.what, "untrusted-ca/no-trust with restart-kubelet", "a cell before a step that failed");
    assert!(wrong_of(&good()).is_none());
    let page = page(&bad());
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}"));
    let order = [
        "<h1",
        "The first thing that went wrong</h2>",
        ">Verdicts</h2>",
        ">Where the time went</h2>",
        ">The stories</h2>",
    ];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])));
}

fn wrong_of(events: &[Event]) -> Option<Wrong> {
    let record = Record::of(events);
    let source = Source::new(&record, Path::new("no/such/folder"), record.cells());
    wrong(&record, &source)
}

/// Every tag of a page with the names of its attributes: what it is made of, whatever it says.
fn skeleton(page: &str) -> Vec<String> {
    let tag = Regex::new(r"<(/?[a-zA-Z!][^\s>]*)([^>]*)>").unwrap();
    let value = Regex::new(r#""[^"]*""#).unwrap();
    let tags = tag.captures_iter(page);
    tags.map(|found| format!("{}{}", &found[1], value.replace_all(&found[2], ""))).collect()
}

#[test]
fn nothing_that_is_said_becomes_part_of_the_page() {
    let hostile = "</pre></style></title>\u{1b}[31m<script>alert(1)</script><img src=x onerror=alert(2)>\" onmouseover=\"alert(3)' \u{0}\u{202e}{{ 7 * 7 }} <!-- ]]> &lt;b&gt;é";
    let harmless = page(&many(2, "harmless"));
    let page = page(&many(2, hostile));
    assert_eq!(skeleton(&page), skeleton(&harmless));
    assert!(page.contains("&#60;script&#62;alert(1)"), "it is there to be read");
    assert!(!page.contains('\u{0}') && !page.contains('\u{1b}') && !page.contains('\u{202e}'));
    assert!(page.contains("default-src 'none'"), "and were it a script, it would not run");
}

#[test]
fn names_that_are_hostile_make_no_markup_either() {
    let evil = "a\"><script>/../b";
    let mut plan = plans()[0].clone();
    (plan.scenario, plan.variant, plan.procedure) = (evil.to_owned(), evil.to_owned(), evil.to_owned());
    let mut events = vec![event(0.0, EventKind::RunStarted { run: evil.to_owned(), cells: vec![plan.clone()] })];
    story(&mut events, 1.0, 1, &[plan], evil);
    let mut lab = lab();
    (lab.source, lab.kubernetes, lab.containerd) = (evil.to_owned(), evil.to_owned(), evil.to_owned());
    events.push(event(2.0, EventKind::LabReady { lab }));
    let page = page(&events);
    assert!(!page.contains("<script"));
    assert!(skeleton(&page).iter().all(|tag| !tag.contains("script")), "{page}");
}

#[test]
fn only_what_is_in_the_folder_is_linked_to() {
    let dir = tempfile::tempdir().unwrap();
    let there = "evidence/untrusted-ca/no-trust/symptom/observation.json";
    std::fs::create_dir_all(dir.path().join(there).parent().unwrap()).unwrap();
    std::fs::write(dir.path().join(there), "{}").unwrap();
    std::fs::write(dir.path().join("report.json"), "{}").unwrap();
    let link = |path: &str| Link::to(dir.path(), path, "name").href;
    assert_eq!(link(there).as_deref(), Some(there));
    for path in [
        "evidence/no/such",
        "/etc/passwd",
        "../../etc/passwd",
        "javascript:alert(1)",
        "",
        "evidence//x",
        "https://example.org/",
    ] {
        assert_eq!(link(path), None, "{path}");
    }
    let page = html(&Record::of(&two()), dir.path()).unwrap();
    let links: Vec<&str> = Regex::new(r##"href="([^"#]+)""##)
        .unwrap()
        .captures_iter(&page)
        .map(|found| found.extract::<1>().1[0])
        .collect();
    assert_eq!(links, [there, "report.json"]);
    assert!(page.contains("(not in this folder)"));
}

#[test]
fn every_place_within_the_page_that_is_linked_to_is_there_once() {
    let page = page(&two());
    let found = |pattern: &str| -> Vec<String> {
        Regex::new(pattern).unwrap().captures_iter(&page).map(|found| found[1].to_owned()).collect()
    };
    let ids = found(r#" id="([^"]+)""#);
    let unique: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    let links = found(r##"href="#([^"]+)""##);
    assert!(links.len() > 10);
    for link in links {
        assert!(ids.contains(&link), "{link}");
    }
}

#[test]
fn a_run_of_200_variants_is_a_page_of_less_than_5_mb() {
    let events = many(200, USUAL);
    let page = page(&events);
    let size = page.len();
    assert!(size < 5_000_000, "{size} bytes");
    assert!(size > 1_000_000, "{size} bytes are too few to tell 1200 cells");
}

#[test]
fn where_labs_stood_side_by_side_time_is_added_up() {
    let record = Record::of(&two());
    let (shares, of) = timeline::shares(&Source::new(&record, Path::new("no/such/folder"), record.cells()));
    let told: Vec<String> =
        shares.iter().map(|share| format!("{} {} {}", share.name, share.took, share.percent)).collect();
    assert_eq!(
        told,
        [
            "engine, tools and images 30.0 s 23 %",
            "baselines 18.0 s 14 %",
            "making faults 10.0 s 8 %",
            "looking for symptoms 12.0 s 9 %",
            "controls, judged 30.0 s 23 %",
            "repairs, judged 30.0 s 23 %",
        ]
    );
    assert_eq!(of, "2 min 10 s");
}
