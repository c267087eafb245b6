//! What a run shows while it goes on, on standard error: on a terminal one line per step under way, kept up to date, and a
//! line for what has ended; elsewhere time-stamped lines, on GitHub in groups that can be folded. The result itself is the
//! [`summary`](super::summary).

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
};

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    groups::Groups,
    summary::on,
    text::{Paint, exact, human, lines, one_line, path, verdict, wrap},
};
use crate::{
    run::events::{Event, EventKind, StepId},
    scenario::{CellPlan, CellResult, Role, Verdict},
};

/// Where and how progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminalMode {
    /// Live where standard error is a terminal and this is no CI, else plain.
    Auto,
    /// Time-stamped lines.
    Plain,
    /// Nothing, the summary included.
    Quiet,
}

/// Steps deeper than this show only while they are under way.
const DEEPEST_LINE: usize = 2;

/// Plain output says at least this often what a step waits for.
const SAY_WAITING: TimeDelta = TimeDelta::seconds(60);

/// Columns of the bar of a step with known size.
const BAR: usize = 20;

/// Columns of a mark and the space after it.
const MARGIN: usize = 6;

/// A terminal narrower than this is not served.
const NARROWEST: usize = 20;

/// Shows events as they come.
pub(super) struct Terminal {
    progress: Progress,
    screen: Screen,
}

enum Screen {
    Live { bar: ProgressBar, shown: String },
    Plain { out: Box<dyn Write + Send>, groups: Option<Groups> },
    Quiet,
}

impl Terminal {
    pub(super) fn new(mode: TerminalMode) -> Self {
        let stderr_is_live = std::io::stderr().is_terminal() && !is_set("CI") && !is_dumb();
        let screen = match mode {
            TerminalMode::Quiet => Screen::Quiet,
            TerminalMode::Auto if stderr_is_live => Screen::live(),
            TerminalMode::Auto | TerminalMode::Plain => Screen::Plain {
                out: Box::new(std::io::stderr()),
                groups: is_set("GITHUB_ACTIONS").then(Groups::default),
            },
        };
        let colour = matches!(screen, Screen::Live { .. }) && !no_colour();
        Self { progress: Progress::new(Paint { colour }), screen }
    }

    /// Shows what `event` says.
    pub(super) fn apply(&mut self, event: &Event) {
        let live = matches!(self.screen, Screen::Live { .. });
        let root = self.progress.root(event);
        let mut new = self.progress.apply(event, live.then(columns));
        let root = root.or_else(|| self.progress.root(event));
        if let Screen::Plain { out, groups: Some(groups) } = &mut self.screen {
            let new: Vec<String> = new.drain(..).map(|line| stamped(event.at, &line)).collect();
            write_lines(out, &groups.apply(event, root, new));
        }
        if !live {
            new.extend(self.progress.waiting(event.at));
        }
        self.print(event.at, &new);
        if live {
            self.tick(event.at);
        }
    }

    /// Shows that time passes.
    pub(super) fn tick(&mut self, now: DateTime<Utc>) {
        match &mut self.screen {
            Screen::Live { bar, shown } => {
                let text = self.progress.live(now, columns()).join("\n");
                if text != *shown {
                    bar.set_message(text.clone());
                    *shown = text;
                }
            }
            Screen::Plain { .. } => {
                let waiting = self.progress.waiting(now);
                self.print(now, &waiting);
            }
            Screen::Quiet => {}
        }
    }

    /// Leaves the terminal as it was.
    pub(super) fn close(&mut self) {
        if let Screen::Live { bar, .. } = &self.screen {
            bar.finish_and_clear();
        }
    }

    // A terminal that is gone is no reason to stop a run, so errors of writing are passed over.
    fn print(&mut self, at: DateTime<Utc>, lines: &[String]) {
        match &mut self.screen {
            Screen::Live { bar, .. } => {
                for line in lines {
                    bar.println(console::truncate_str(line, columns(), "…"));
                }
            }
            Screen::Plain { out, .. } => {
                let lines: Vec<String> = lines.iter().map(|line| stamped(at, line)).collect();
                write_lines(out, &lines);
            }
            Screen::Quiet => {}
        }
    }
}

/// `12:00:00Z line`.
fn stamped(at: DateTime<Utc>, line: &str) -> String {
    format!("{} {line}", at.format("%H:%M:%SZ"))
}

fn write_lines(out: &mut Box<dyn Write + Send>, lines: &[String]) {
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    if !lines.is_empty() {
        let _ = out.flush();
    }
}

impl Screen {
    fn live() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self::Live { bar, shown: String::new() }
    }
}

/// Columns of the terminal at standard error. The last one stays free: some terminals wrap when it is filled.
fn columns() -> usize {
    usize::from(console::Term::stderr().size().1).saturating_sub(1).max(NARROWEST)
}

/// Whether a variable is there and says something.
pub(super) fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "false")
}

/// Whether colours are unwanted: whatever the variable says, where it says something.
pub(super) fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// What is known of the run so far, as far as it shows.
struct Progress {
    paint: Paint,
    started: Option<DateTime<Utc>>,
    steps: BTreeMap<StepId, Running>,
    planned: Vec<CellPlan>,
    finished: Vec<String>,
    path_width: usize,
    good: usize,
    bad: usize,
    /// The last error that was shown: the steps around a failed one fail with the same words.
    shown_error: String,
}

struct Running {
    parent: Option<StepId>,
    depth: usize,
    name: String,
    usual: Option<u64>,
    started: DateTime<Utc>,
    status: Option<String>,
    size: Option<(u64, u64)>,
    said: DateTime<Utc>,
}

impl Progress {
    fn new(paint: Paint) -> Self {
        Self {
            paint,
            started: None,
            steps: BTreeMap::new(),
            planned: Vec::new(),
            finished: Vec::new(),
            path_width: 0,
            good: 0,
            bad: 0,
            shown_error: String::new(),
        }
    }

    /// Takes `event` in; returns the lines that stay. On a live terminal of so many columns a step under way has its line
    /// anyway, so its start needs none; and what is said nowhere else is broken into lines there, for others are cut.
    fn apply(&mut self, event: &Event, live: Option<usize>) -> Vec<String> {
        let lines = |text: &str| match live {
            Some(columns) => {
                lines(text).iter().flat_map(|line| wrap(line, columns.saturating_sub(MARGIN).max(NARROWEST))).collect()
            }
            None => lines(text),
        };
        self.started.get_or_insert(event.at);
        match &event.kind {
            EventKind::RunStarted { run, cells } => {
                self.planned.clone_from(cells);
                self.path_width = cells.iter().map(|cell| CellPlan::path(cell).len()).max().unwrap_or(0);
                let cells = match cells.len() {
                    0 => String::new(),
                    1 => ", 1 cell".to_owned(),
                    count => format!(", {count} cells"),
                };
                vec![line(" run", &format!("{run}{cells}"))]
            }
            EventKind::StepStarted { step, parent, name, usual_seconds } => {
                let depth = parent.and_then(|parent| self.steps.get(&parent)).map_or(1, |parent| parent.depth + 1);
                let running = Running {
                    parent: *parent,
                    depth,
                    name: one_line(name),
                    usual: *usual_seconds,
                    started: event.at,
                    status: None,
                    size: None,
                    said: event.at,
                };
                let begins = line("  ..", &format!("{}{}", self.named(&running), usually(*usual_seconds)));
                let shows = live.is_none() && depth <= DEEPEST_LINE;
                self.steps.insert(*step, running);
                if shows { vec![begins] } else { vec![] }
            }
            EventKind::StepWaiting { step, status } => {
                if let Some(running) = self.steps.get_mut(step) {
                    running.status = Some(one_line(status));
                }
                vec![]
            }
            EventKind::StepProgress { step, done, total } => {
                if let Some(running) = self.steps.get_mut(step) {
                    running.size = Some((*done, *total));
                }
                vec![]
            }
            EventKind::StepFinished { step, seconds, error } => {
                let Some(running) = self.steps.remove(step) else { return vec![] };
                if let Some(parent) = running.parent.and_then(|parent| self.steps.get_mut(&parent)) {
                    parent.said = event.at;
                }
                if running.depth > DEEPEST_LINE {
                    return vec![];
                }
                let (name, took) = (self.named(&running), exact(*seconds));
                match error {
                    None => vec![line(&self.paint.dim("done"), &format!("{name}  {took}"))],
                    Some(error) if self.is_shown(error) => {
                        vec![line(&self.paint.red(" err"), &format!("{name}  {took}"))]
                    }
                    Some(error) => {
                        error.clone_into(&mut self.shown_error);
                        several(&self.paint.red(" err"), &lines(&format!("{} ({took}): {error}", running.name)))
                    }
                }
            }
            EventKind::Note { text } => several("note", &lines(text)),
            EventKind::LabReady { lab } => several(" lab", &lines(&on(lab))),
            EventKind::Told { .. } | EventKind::Evidence { .. } => vec![],
            EventKind::CellFinished { cell } => {
                self.finished.push(path(cell));
                if cell.as_expected {
                    self.good += 1;
                } else {
                    self.bad += 1;
                }
                vec![self.verdict(cell)]
            }
            EventKind::RunFinished { error, .. } => {
                self.steps.clear();
                match error {
                    Some(error) if !self.is_shown(error) => several(&self.paint.red(" err"), &lines(error)),
                    _ => vec![],
                }
            }
        }
    }

    /// A step's name, indented, and where labs run side by side with what it belongs to.
    fn named(&self, running: &Running) -> String {
        match self.beside(running) {
            Some(root) => format!("{}{root}: {}", "  ".repeat(running.depth - 1), running.name),
            None => indented(running),
        }
    }

    /// The outermost step that this one is in, when there is another beside it.
    fn beside(&self, running: &Running) -> Option<&str> {
        let mut root = self.steps.get(&running.parent?)?;
        while let Some(parent) = root.parent.and_then(|parent| self.steps.get(&parent)) {
            root = parent;
        }
        let outermost = self.steps.values().filter(|step| step.depth == 1).count();
        (outermost > 1).then_some(root.name.as_str())
    }

    fn is_shown(&self, error: &str) -> bool {
        !self.shown_error.is_empty() && error.contains(&self.shown_error)
    }

    fn verdict(&self, cell: &CellResult) -> String {
        let path = format!("{:<width$}", path(cell), width = self.path_width);
        let words = if cell.as_expected && cell.verdict != Verdict::Skipped {
            format!("{path}  {:<14} {:>7}", cell.verdict.to_string(), exact(cell.seconds))
        } else {
            format!("{path}  {}  {}", exact(cell.seconds), verdict(cell))
        };
        line(&self.paint.mark(cell), &words)
    }

    /// The outermost step that `event` belongs to, where it is about a step that is known.
    fn root(&self, event: &Event) -> Option<StepId> {
        let (EventKind::StepStarted { step, .. } | EventKind::StepFinished { step, .. }) = &event.kind else {
            return None;
        };
        let mut root = *step;
        let mut at = self.steps.get(step)?;
        while let Some(parent) = at.parent {
            let Some(above) = self.steps.get(&parent) else { break };
            (root, at) = (parent, above);
        }
        Some(root)
    }

    /// `; next: scenario/variant/procedure, procedure, …`: the cells that have not begun, in the order of the plan.
    fn ahead(&self) -> String {
        let mut ahead = String::new();
        let mut before: Option<&CellPlan> = None;
        // What a person practises is no plan.
        let planned = self.planned.iter().filter(|cell| cell.role != Role::Practice);
        for cell in planned.filter(|cell| !self.finished.contains(&cell.path()) && !self.is_under_way(cell)) {
            let same = before.is_some_and(|it| (&it.scenario, &it.variant) == (&cell.scenario, &cell.variant));
            let name = if same { cell.procedure.clone() } else { cell.path() };
            ahead += &format!("{}{name}", if before.is_some() { ", " } else { "; next: " });
            before = Some(cell);
        }
        ahead
    }

    /// Whether the step of this cell is under way, as `run::runner` calls it.
    fn is_under_way(&self, cell: &CellPlan) -> bool {
        let name = format!("{} {}", cell.role, cell.procedure);
        let variant = format!("{}/{}", cell.scenario, cell.variant);
        self.steps.values().any(|step| {
            let parent = step.parent.and_then(|parent| self.steps.get(&parent));
            step.name == name && parent.is_some_and(|parent| parent.name == variant)
        })
    }

    /// The steps under way that have none under way within them, in the order in which they began.
    fn leaves(&self) -> impl Iterator<Item = StepId> {
        let parents: Vec<StepId> = self.steps.values().filter_map(|running| running.parent).collect();
        self.steps.keys().copied().filter(move |step| !parents.contains(step))
    }

    /// Lines on what is waited for, for steps of which nothing was said for long.
    fn waiting(&mut self, now: DateTime<Utc>) -> Vec<String> {
        let quiet: Vec<StepId> = self
            .leaves()
            .filter(|step| self.steps.get(step).is_some_and(|step| now - step.said >= SAY_WAITING))
            .collect();
        let mut said = Vec::new();
        for step in quiet {
            let of = self.steps.get(&step).and_then(|running| self.beside(running));
            let of = of.map(|root| format!("{root}: ")).unwrap_or_default();
            if let Some(running) = self.steps.get_mut(&step) {
                running.said = now;
                said.push(line(
                    "wait",
                    &format!("{of}{}  {}", describe(running), human(elapsed(running.started, now))),
                ));
            }
        }
        said
    }

    /// The lines of a live terminal of so many columns.
    fn live(&self, now: DateTime<Utc>, columns: usize) -> Vec<String> {
        let mut live: Vec<String> = self
            .leaves()
            .filter_map(|step| self.steps.get(&step))
            .map(|running| {
                let time = human(elapsed(running.started, now));
                let of = self.beside(running).map(|root| format!("{root}: ")).unwrap_or_default();
                let mut words = format!("{time:>11}  {of}{}", describe(running));
                let usual = usually(running.usual);
                // Half an estimate is none.
                if console::measure_text_width(&words) + console::measure_text_width(&usual) <= columns {
                    words.push_str(&usual);
                }
                console::truncate_str(&words, columns, "…").into_owned()
            })
            .collect();
        if let (Some(started), 1..) = (self.started, self.planned.len()) {
            let time = human(elapsed(started, now));
            let bad = if self.bad > 0 { format!(", {} not as expected", self.bad) } else { String::new() };
            let (done, all, ahead) = (self.good + self.bad, self.planned.len(), self.ahead());
            let words = format!("{time:>11}  {done} of {all} cells{bad}{ahead}");
            live.push(self.paint.dim(&console::truncate_str(&words, columns, "…")));
        }
        live
    }
}

fn elapsed(from: DateTime<Utc>, now: DateTime<Utc>) -> u64 {
    u64::try_from((now - from).num_seconds()).unwrap_or(0)
}

/// `name [#####               ] 25 %: status`.
fn describe(running: &Running) -> String {
    let size = match running.size {
        Some((done, total @ 1..)) => {
            let part = done.min(total) as f64 / total as f64;
            let filled = (part * BAR as f64) as usize;
            format!(" [{}{}] {:.0} %", "#".repeat(filled), " ".repeat(BAR - filled), (part * 100.0).floor())
        }
        _ => String::new(),
    };
    let status = running.status.as_ref().map(|status| format!(": {status}")).unwrap_or_default();
    format!("{}{size}{status}", running.name)
}

fn usually(seconds: Option<u64>) -> String {
    // To minutes where there are some: it is an estimate.
    let rounded = seconds.map(|seconds| if seconds >= 60 { (seconds + 30) / 60 * 60 } else { seconds });
    rounded.map(|seconds| format!(" (usually {})", human(seconds))).unwrap_or_default()
}

fn indented(running: &Running) -> String {
    format!("{}{}", "  ".repeat(running.depth - 1), running.name)
}

fn line(mark: &str, words: &str) -> String {
    format!("{mark}  {words}")
}

/// The first of `lines` with a mark, the others below it.
fn several(mark: &str, lines: &[String]) -> Vec<String> {
    let marks = std::iter::once(mark).chain(std::iter::repeat("    "));
    marks.zip(lines).map(|(mark, words)| line(mark, words)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{
        super::fixture::{at, bad, ended, event, good, killed, plans, result, started, waiting},
        *,
    };

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn plain(events: &[Event]) -> String {
        plainly(events, None)
    }

    fn plainly(events: &[Event], groups: Option<Groups>) -> String {
        let written = Written::default();
        let screen = Screen::Plain { out: Box::new(written.clone()), groups };
        let mut terminal = Terminal { progress: Progress::new(Paint { colour: false }), screen };
        for event in events {
            terminal.apply(event);
        }
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn plain_lines_tell_a_good_run() {
        insta::assert_snapshot!(plain(&good()));
    }

    #[test]
    fn plain_lines_tell_a_bad_run_and_an_error_once() {
        let said = plain(&bad());
        assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
        assert_eq!(said.matches("containerd does not answer").count(), 2, "in the step and in the cell:\n{said}");
        insta::assert_snapshot!(said);
    }

    #[test]
    fn on_github_every_phase_is_a_group_and_verdicts_stand_outside() {
        for (name, events) in [("github_good", good()), ("github_bad", bad())] {
            let said = plainly(&events, Some(Groups::default()));
            assert_eq!(said.matches("::group::").count(), said.matches("::endgroup::").count(), "{said}");
            insta::assert_snapshot!(name, said);
        }
    }

    #[test]
    fn on_github_labs_side_by_side_are_not_mixed() {
        let events = [
            started(0.0, 1, None, "untrusted-ca/no-trust", None),
            started(1.0, 2, None, "pv-drift/blobs-deleted", None),
            started(2.0, 3, Some(2), "fault", None),
            started(3.0, 4, Some(1), "baseline", None),
            ended(4.0, 4, 1.0, None),
            result(5.0, plans()[3].result(Verdict::NotHealed, 9.0, "worker1: not found")),
            ended(6.0, 1, 6.0, None),
            ended(7.0, 3, 5.0, None),
            started(8.0, 5, None, "make the lab", None),
            ended(9.0, 5, 1.0, None),
            ended(10.0, 2, 9.0, None),
            event(11.0, EventKind::RunFinished { passed: true, seconds: 11.0, error: None }),
        ];
        insta::assert_snapshot!(plainly(&events, Some(Groups::default())));
    }

    #[test]
    fn the_plan_ahead_is_what_has_not_begun() {
        let mut progress = Progress::new(Paint { colour: false });
        let mut shown = Vec::new();
        let events = [
            event(0.0, EventKind::RunStarted { run: "drydock-7f3a".to_owned(), cells: plans() }),
            started(1.0, 1, None, "untrusted-ca/no-trust", None),
            started(2.0, 2, Some(1), "control no-op", None),
            ended(3.0, 2, 1.0, None),
            result(3.0, plans()[0].result(Verdict::NotHealed, 1.0, "no")),
            started(4.0, 3, Some(1), "documented documented", None),
        ];
        for event in &events {
            progress.apply(event, Some(160));
            shown.extend(progress.live(event.at, 160).pop());
        }
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn long_silence_is_broken_while_something_is_waited_for() {
        let written = Written::default();
        let screen = Screen::Plain { out: Box::new(written.clone()), groups: None };
        let mut terminal = Terminal { progress: Progress::new(Paint { colour: false }), screen };
        terminal.apply(&started(0.0, 1, None, "wait for nodes", None));
        terminal.apply(&waiting(1.0, 1, "1 of 3 is ready"));
        for seconds in [30.0, 59.0, 60.0, 61.0, 119.0, 120.0] {
            terminal.tick(at(seconds));
        }
        let bytes = written.0.lock().unwrap().clone();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "12:00:00Z   ..  wait for nodes\n\
             12:01:00Z wait  wait for nodes: 1 of 3 is ready  1 min\n\
             12:02:00Z wait  wait for nodes: 1 of 3 is ready  2 min\n"
        );
    }

    #[test]
    fn live_lines_are_one_per_leaf_and_fit_the_terminal() {
        let mut progress = Progress::new(Paint { colour: false });
        let mut shown = Vec::new();
        let mut events = killed();
        events.extend([
            started(
                71.0,
                8,
                Some(1),
                "fetch é images with a name that is long enough to be cut on a usual terminal",
                Some(20),
            ),
            waiting(75.0, 8, "layer 3 of 12"),
            started(80.0, 9, Some(2), "build containerd", Some(125)),
            ended(90.0, 9, 10.0, None),
        ]);
        for event in &events {
            progress.apply(event, Some(79));
            let lines = progress.live(event.at + TimeDelta::seconds(5), 79);
            assert!(lines.iter().all(|line| console::measure_text_width(line) <= 79), "{lines:#?}");
            shown.push(lines.join("\n"));
        }
        insta::assert_snapshot!(shown.join("\n---\n"));
    }

    #[test]
    fn an_estimate_that_does_not_fit_is_left_out() {
        let mut progress = Progress::new(Paint { colour: false });
        progress.apply(&started(0.0, 1, None, "load the node image into the engine", Some(20)), Some(79));
        progress.apply(&event(5.0, EventKind::StepProgress { step: 1, done: 36, total: 100 }), Some(79));
        let bar = "        6 s  load the node image into the engine [#######             ] 36 %";
        assert_eq!(progress.live(at(6.0), 79), [bar]);
        assert_eq!(progress.live(at(6.0), 120), [format!("{bar} (usually 20 s)")]);
    }

    #[test]
    fn a_run_that_ended_shows_nothing_live() {
        let mut progress = Progress::new(Paint { colour: false });
        for event in good() {
            progress.apply(&event, Some(79));
        }
        assert_eq!(progress.leaves().count(), 0);
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let fails = |colour| {
            let mut progress = Progress::new(Paint { colour });
            bad().iter().flat_map(|event| progress.apply(event, Some(79))).collect::<String>()
        };
        assert!(fails(true).contains("\x1b[1;31mFAIL\x1b[0m"));
        assert!(!fails(false).contains('\x1b'));
    }

    #[test]
    fn a_step_of_which_nobody_knows_ends_without_a_line() {
        let mut progress = Progress::new(Paint { colour: false });
        assert!(progress.apply(&ended(0.0, 77, 1.0, None), None).is_empty());
        let progressed = event(0.0, EventKind::StepProgress { step: 77, done: 1, total: 0 });
        assert!(progress.apply(&progressed, None).is_empty());
    }
}
