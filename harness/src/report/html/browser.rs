//! The page in a real browser: Chromium, headless. `cargo xtask test` names it and axe-core by `DRYDOCK_CHROMIUM` and
//! `DRYDOCK_AXE`, empty where there is no browser and none may be installed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    super::{fixture::many, render},
    tests::{USUAL, two},
};
use crate::run::events::Event;

/// Chromium starts in a second or two; on a machine with much else to do it may take far longer.
const LIMIT: Duration = Duration::from_secs(120);

/// What a page found out about itself.
#[derive(Debug, Deserialize)]
struct Found {
    heading: String,
    /// What axe-core objects to, and where.
    violations: Vec<String>,
    /// How many of axe-core's rules the page keeps.
    passes: usize,
    /// Where links lead that lead out of the page.
    links: Vec<String>,
    /// Links to places within the page that are not there.
    dead: Vec<String>,
    /// By how many pixels the page is wider than the window.
    too_wide: i64,
    dark: bool,
}

/// Opens every part of the page, asks axe-core, and leaves the answer in the document.
const ASK: &str = r##"<script>
for (const part of document.querySelectorAll("details")) part.open = true;
const hrefs = [...document.querySelectorAll("a[href]")].map(link => link.getAttribute("href"));
axe.run(document, { resultTypes: ["violations", "passes"] }).then(result => {
  const found = {
    heading: document.querySelector("h1")?.innerText ?? "",
    violations: result.violations.flatMap(one => one.nodes.map(node => `${one.id}: ${node.html} ${node.failureSummary}`)),
    passes: result.passes.length,
    links: hrefs.filter(href => !href.startsWith("#")),
    dead: hrefs.filter(href => href.startsWith("#") && !document.getElementById(decodeURIComponent(href.slice(1)))),
    too_wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
  };
  document.title = "asked";
  const answer = document.createElement("textarea");
  answer.id = "answer";
  answer.textContent = JSON.stringify(found);
  document.documentElement.replaceChildren(answer);
});
</script>"##;

struct Chromium {
    program: PathBuf,
    axe: PathBuf,
}

/// How a page is looked at.
#[derive(Clone, Copy)]
struct Look {
    width: u32,
    dark: bool,
}

/// The clock of a page.
#[derive(Clone, Copy)]
enum Clock {
    /// This machine's.
    Real,
    /// One that is put forward until the page has nothing more to do.
    Hurried,
}

impl Chromium {
    /// The browser; none where it is to be left out.
    fn of_environment() -> Option<Self> {
        let var = |name| std::env::var_os(name).map(PathBuf::from);
        let (program, axe) = (var("DRYDOCK_CHROMIUM"), var("DRYDOCK_AXE"));
        assert!(
            program.is_some() && axe.is_some(),
            "DRYDOCK_CHROMIUM and DRYDOCK_AXE name no browser and no axe-core: run `cargo xtask test`, which sets them"
        );
        let found = Self { program: program?, axe: axe? };
        if found.program.as_os_str().is_empty() {
            eprintln!("LEFT OUT: there is no browser; `cargo xtask test --provision` installs one");
            return None;
        }
        Some(found)
    }

    /// What is in the document when the page is done, and what the browser said on the way.
    fn open(&self, page: &Path, look: Look, clock: Clock) -> (String, String) {
        let profile = tempfile::tempdir().unwrap();
        let scheme = if look.dark { 0 } else { 1 };
        let mut child = Command::new(&self.program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--enable-logging=stderr", "--dump-dom"])
            .args(matches!(clock, Clock::Hurried).then_some("--virtual-time-budget=30000"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={},900", look.width))
            .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
            .arg(format!("file://{}", page.display()))
            .env("HOME", profile.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let read = |mut pipe: Box<dyn std::io::Read + Send>| {
            std::thread::spawn(move || {
                let mut said = Vec::new();
                pipe.read_to_end(&mut said).unwrap();
                String::from_utf8_lossy(&said).into_owned()
            })
        };
        let out = read(Box::new(child.stdout.take().unwrap()));
        let err = read(Box::new(child.stderr.take().unwrap()));
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > LIMIT {
                child.kill().unwrap();
                panic!("{} did not end within {} s: {}", self.program.display(), LIMIT.as_secs(), err.join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        (out.join().unwrap(), err.join().unwrap())
    }

    /// What the page says on the console.
    fn console(&self, page: &Path) -> Vec<String> {
        let (_, said) = self.open(page, Look { width: 1280, dark: false }, Clock::Hurried);
        said.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect()
    }

    /// Asks a page about itself. Its own policy forbids every script, so a copy without it is asked.
    fn ask(&self, page: &Path, look: Look) -> Found {
        let text = std::fs::read_to_string(page).unwrap();
        let (before, rest) = text.split_once("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
        let (_, after) = rest.split_once('>').unwrap();
        let axe = std::fs::read_to_string(&self.axe).unwrap().replace("</script", "<\\/script");
        let copy = format!("{before}{}", after.replace("</body>", &format!("<script>{axe}</script>{ASK}</body>")));
        let asked = page.with_file_name(format!("asked-{}-{}.html", look.width, look.dark));
        std::fs::write(&asked, copy).unwrap();
        let (document, said) = self.open(&asked, look, Clock::Hurried);
        let answer =
            document.split_once("<textarea id=\"answer\">").and_then(|(_, rest)| rest.split_once("</textarea>"));
        let answer = answer.unwrap_or_else(|| panic!("no answer: {said}")).0;
        let answer = answer.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
        serde_json::from_str(&answer).unwrap()
    }
}

/// A report folder with the page of these events, and the evidence that they tell of.
fn folder(events: &[Event]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut record = String::new();
    for event in events {
        record += &format!("{}\n", serde_json::to_string(event).unwrap());
        if let crate::run::events::EventKind::Evidence { path, .. } = &event.kind {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "what was seen\n").unwrap();
        }
    }
    std::fs::write(dir.path().join("events.jsonl"), record).unwrap();
    render(dir.path()).unwrap();
    dir
}

#[test]
fn the_page_opens_in_a_browser_without_errors_barriers_or_dead_links() {
    let Some(chromium) = Chromium::of_environment() else { return };
    let dir = folder(&two());
    let page = dir.path().join("report.html");
    assert_eq!(chromium.console(&page), [""; 0]);
    for look in [Look { width: 1280, dark: false }, Look { width: 400, dark: true }] {
        let found = chromium.ask(&page, look);
        assert_eq!(found.heading, "✗ 1 of 6 is not as expected");
        assert_eq!(found.violations, [""; 0]);
        assert!(found.passes > 20, "axe-core looked at something: {}", found.passes);
        assert_eq!((found.dead.as_slice(), found.too_wide), (&[][..], 0));
        assert_eq!(found.dark, look.dark);
        assert!(found.links.len() > 20, "{:?}", found.links);
        for link in &found.links {
            assert!(dir.path().join(link).is_file(), "{link}");
        }
    }
}

/// How long it takes by the browser's clock is printed.
#[test]
fn a_page_of_two_hundred_variants_opens() {
    let Some(chromium) = Chromium::of_environment() else { return };
    let dir = folder(&many(200, USUAL));
    let look = Look { width: 1280, dark: false };
    let (document, said) = chromium.open(&dir.path().join("report.html"), look, Clock::Hurried);
    assert!(!said.contains(":CONSOLE"), "{said}");
    assert!(document.contains("variant-0") && document.contains("variant-199"));

    let framed = dir.path().join("framed.html");
    let frame = "<!doctype html><title>not loaded</title><script>const begun = performance.now()</script>\
        <iframe width=1280 height=900 src=report.html onload='document.title = Math.round(performance.now() - begun)'></iframe>";
    std::fs::write(&framed, frame).unwrap();
    let (document, _) = chromium.open(&framed, look, Clock::Real);
    let took = document.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>")).unwrap().0;
    println!("200 variants: loaded in {} ms", took.parse::<u32>().unwrap());
}

#[test]
fn what_is_wrong_with_a_page_is_found() {
    let Some(chromium) = Chromium::of_environment() else { return };
    let dir = folder(&two());
    let page = dir.path().join("report.html");
    let text = std::fs::read_to_string(&page).unwrap();
    let worse = text
        .replace("--soft: #575d66", "--soft: #c0c4c8")
        .replace("<h2 id=\"time\">", "<script>void 0</script><a href=\"#nowhere\">x</a><h2>");
    assert_ne!(worse, text);
    std::fs::write(&page, worse).unwrap();
    let console = chromium.console(&page);
    assert!(console.iter().any(|line| line.contains("Content Security Policy")), "{console:?}");
    let found = chromium.ask(&page, Look { width: 1280, dark: false });
    assert_eq!(found.dead, ["#nowhere"]);
    assert!(
        found.violations.iter().any(|violation| violation.starts_with("color-contrast: ")),
        "{:?}",
        found.violations
    );
}
