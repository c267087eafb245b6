//! Folds of the event stream: what a run shows while it goes on, what it says at its end, and its report folder.
//!
//! | in the folder | what |
//! |---|---|
//! | `events.jsonl` | every event, a line each; written as they come, so that a killed run leaves its record |
//! | `report.json` | the result, of a fixed form |
//! | `report.html` | the result with the story of every variant, a page that opens from disk |
//! | `report.md` | the result, for a pull request or a job's summary |
//! | `junit.xml` | the same for CI |
//! | `evidence/<scenario>/<variant>/<phase>/` | what was seen, per phase |

pub mod compare;
mod drill;
pub mod evidence;
mod groups;
mod html;
mod json;
mod junit;
mod markdown;
mod record;
pub mod redact;
mod steps;
mod summary;
mod terminal;
pub mod text;

use std::{
    fs::File,
    io::{IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use chrono::Utc;

pub use self::{
    record::{Counts, Record},
    terminal::TerminalMode,
};
use self::{
    summary::{Look, summary},
    terminal::Terminal,
    text::Paint,
};
use crate::{
    run::events::{Event, EventKind, Events},
    scenario::CellResult,
};

const EVENTS: &str = "events.jsonl";
const JSON: &str = "report.json";
const JUNIT: &str = "junit.xml";
const MARKDOWN: &str = "report.md";
const HTML: &str = "report.html";
const EVIDENCE: &str = "evidence";

/// How often what is live is looked at again. Only what changed is drawn.
const TICK: Duration = Duration::from_millis(200);

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Something in the report folder could not be read or written.
    #[error("{doing} {}: {source}", path.display())]
    Folder {
        /// Such as `write`.
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A line of an event file is no event.
    #[error("read {}, line {line}: {source}; it is damaged, or another version of drydock wrote it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An event or the report could not be put into JSON.
    #[error("put {what} into JSON: {source}")]
    Json {
        /// What.
        what: &'static str,
        /// The reason.
        source: serde_json::Error,
    },
    /// The cells could not be put into JUnit's form.
    #[error("put the cells into JUnit's form: {0}")]
    Junit(#[from] quick_junit::SerializeError),
    /// The page could not be put together.
    #[error("put the page together: {0}")]
    Html(#[from] askama::Error),
    /// An event file tells of no run.
    #[error("read {}: no run began in it, so there is nothing to render; it is empty, or another program wrote it", path.display())]
    NoRun {
        /// The file.
        path: PathBuf,
    },
    /// The reporter's thread could not be started.
    #[error("start the reporter: {0}")]
    Start(std::io::Error),
    /// The reporter's thread panicked.
    #[error(
        "the reporter ended with a panic: this is a fault of drydock; what it wrote until then is in the report folder"
    )]
    Panicked,
}

/// What a reporter does.
#[derive(Debug, Clone)]
pub struct ReportOptions {
    /// The report folder; made where it is missing. What an earlier run reported in it is removed.
    pub dir: Option<PathBuf>,
    /// What is shown.
    pub terminal: TerminalMode,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Whether the run came to its end, every cell was as expected, and none is missing.
    pub passed: bool,
    /// Every cell.
    pub cells: Vec<CellResult>,
    /// How many cells went how.
    pub counts: Counts,
    /// What broke the run as a whole, a missing end included.
    pub error: Option<String>,
}

impl From<&Record> for Outcome {
    fn from(record: &Record) -> Self {
        Self {
            passed: record.passed(),
            cells: record.cells(),
            counts: record.counts(),
            error: record.error().map(str::to_owned),
        }
    }
}

/// Reads a run's events and reports them.
#[derive(Debug)]
pub struct Reporter;

impl Reporter {
    /// Starts a thread that reports until the run has finished, all senders are gone, or [`ReporterHandle::finish`] is
    /// called.
    ///
    /// # Errors
    /// The report folder cannot be made or written to.
    pub fn start(receiver: Receiver<Event>, options: ReportOptions) -> Result<ReporterHandle, ReportError> {
        let events = options.dir.as_deref().map(open).transpose()?;
        Self::start_with(receiver, options, events, Record::default())
    }

    /// Goes on with the run that is told in the folder `dir`: what follows is added to its `events.jsonl`. Returns where events
    /// go.
    ///
    /// # Errors
    /// The record there cannot be read or written to.
    pub fn resume(dir: &Path) -> Result<(Events, ReporterHandle), ReportError> {
        Self::go_on(dir, TerminalMode::Auto)
    }

    /// As [`Reporter::resume`], without a word on the terminal.
    ///
    /// # Errors
    /// As of [`Reporter::resume`].
    pub fn resume_quietly(dir: &Path) -> Result<(Events, ReporterHandle), ReportError> {
        Self::go_on(dir, TerminalMode::Quiet)
    }

    fn go_on(dir: &Path, terminal: TerminalMode) -> Result<(Events, ReporterHandle), ReportError> {
        let mut last = 0;
        let read = read(dir, |event| {
            if let EventKind::StepStarted { step, .. } = event.kind {
                last = last.max(step);
            }
        })?;
        let path = dir.join(EVENTS);
        let events = File::options().append(true).open(&path).map_err(failed("open", &path))?;
        let (sender, receiver) = Events::channel_after(last);
        let options = ReportOptions { dir: Some(dir.to_owned()), terminal };
        Ok((sender, Self::start_with(receiver, options, Some(events), read.0)?))
    }

    fn start_with(
        receiver: Receiver<Event>,
        options: ReportOptions,
        events: Option<File>,
        record: Record,
    ) -> Result<ReporterHandle, ReportError> {
        let (closing, silent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let worker = Worker {
            record,
            terminal: Terminal::new(options.terminal),
            events,
            options,
            failed: None,
            closing: Arc::clone(&closing),
            silent: Arc::clone(&silent),
        };
        let thread = std::thread::Builder::new()
            .name("reporter".to_owned())
            .spawn(move || worker.run(&receiver))
            .map_err(ReportError::Start)?;
        Ok(ReporterHandle { thread: Some(thread), closing, silent })
    }
}

/// A reporter at work. Dropped, it finishes all the same, and says nothing of its errors.
#[derive(Debug)]
pub struct ReporterHandle {
    thread: Option<JoinHandle<Result<Outcome, ReportError>>>,
    closing: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
}

impl ReporterHandle {
    /// Reports what was sent until now, writes the reports, and prints the summary. Senders that are left over are not
    /// waited for.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn finish(mut self) -> Result<Outcome, ReportError> {
        self.join().unwrap_or(Err(ReportError::Panicked))
    }

    /// As [`ReporterHandle::finish`], but without the summary: [`Reporter::resume`] goes on later.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn pause(self) -> Result<Outcome, ReportError> {
        self.silent.store(true, Ordering::Relaxed);
        self.finish()
    }

    fn join(&mut self) -> Option<Result<Outcome, ReportError>> {
        self.closing.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for ReporterHandle {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

struct Worker {
    record: Record,
    terminal: Terminal,
    events: Option<File>,
    options: ReportOptions,
    /// The first error. Events are still shown after it: a full disk must not stop a run half way.
    failed: Option<ReportError>,
    closing: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self, receiver: &Receiver<Event>) -> Result<Outcome, ReportError> {
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(event) => {
                    self.write(&event);
                    self.record.apply(&event);
                    self.terminal.apply(&event);
                    if matches!(event.kind, EventKind::RunFinished { .. }) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) if self.closing.load(Ordering::Relaxed) => break,
                Err(RecvTimeoutError::Timeout) => self.terminal.tick(Utc::now()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.terminal.close();
        let written = self.options.dir.as_deref().map_or(Ok(()), |dir| write_reports(dir, &self.record));
        // Only a run has a summary: making a lab to play in has none.
        let silent = self.options.terminal == TerminalMode::Quiet || self.silent.load(Ordering::Relaxed);
        if !silent && !self.record.run.is_empty() {
            // A reader of standard output that is gone is no reason to fail.
            let _ = std::io::stdout().write_all(to_stdout(&self.record, self.options.dir.as_deref()).as_bytes());
        }
        match self.failed {
            Some(error) => Err(error),
            None => written.map(|()| Outcome::from(&self.record)),
        }
    }

    fn write(&mut self, event: &Event) {
        let (Some(file), Some(dir), None) = (&mut self.events, &self.options.dir, &self.failed) else { return };
        if let Err(error) = write_event(file, dir, event) {
            self.failed = Some(error);
        }
    }
}

/// The summary as standard output takes it.
fn to_stdout(record: &Record, dir: Option<&Path>) -> String {
    let stdout = console::Term::stdout();
    let terminal = std::io::stdout().is_terminal();
    let look = Look {
        paint: Paint { colour: terminal && !terminal::no_colour() },
        width: terminal.then(|| usize::from(stdout.size().1)),
    };
    summary(record, dir, look)
}

/// A line that a killed run leaves whole, or not at all but for the last.
fn write_event(file: &mut File, dir: &Path, event: &Event) -> Result<(), ReportError> {
    let mut line = serde_json::to_vec(event).map_err(|source| ReportError::Json { what: "an event", source })?;
    line.push(b'\n');
    file.write_all(&line).map_err(failed("write", &dir.join(EVENTS)))
}

/// Makes the folder, without what an earlier run reported there: a run that is killed must not leave the verdict of another.
fn open(dir: &Path) -> Result<File, ReportError> {
    std::fs::create_dir_all(dir).map_err(failed("make the report folder", dir))?;
    let events = dir.join(EVENTS);
    if events.exists() {
        // Only beside our own record: elsewhere a folder of this name is somebody else's.
        remove(&dir.join(EVIDENCE), |path| std::fs::remove_dir_all(path))?;
    }
    for name in [JSON, JUNIT, MARKDOWN, HTML] {
        remove(&dir.join(name), |path| std::fs::remove_file(path))?;
    }
    File::create(&events).map_err(failed("make", &events))
}

fn remove(path: &Path, how: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), ReportError> {
    match how(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("remove what an earlier run left at", path)(source))
        }
        _ => Ok(()),
    }
}

fn write_reports(dir: &Path, record: &Record) -> Result<(), ReportError> {
    let json = json::json(record).map_err(|source| ReportError::Json { what: "the report", source })?;
    write_whole(&dir.join(JSON), &json)?;
    write_whole(&dir.join(MARKDOWN), &markdown::markdown(record))?;
    write_whole(&dir.join(JUNIT), &junit::junit(record)?)?;
    // Last: it links to the others.
    write_whole(&dir.join(HTML), &html::html(record, dir)?)
}

/// Writes a file so that a reader finds it whole or not at all.
fn write_whole(path: &Path, text: &str) -> Result<(), ReportError> {
    let write = || {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            // As files that are made in the usual way: who reads the folder reads the report.
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(failed("write", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ReportError {
    let path = path.to_owned();
    move |source| ReportError::Folder { doing, path, source }
}

/// What [`render`] found.
#[derive(Debug)]
pub struct Rendered {
    /// How the run went.
    pub outcome: Outcome,
    /// The summary, without colours.
    pub summary: String,
    /// That the record ends within a line, where it does: the run was killed while it wrote.
    pub truncated: Option<String>,
}

/// Writes `report.html`, `report.json`, `report.md` and `junit.xml` of the report folder again, from its `events.jsonl`.
///
/// # Errors
/// Those of [`record`], and the reports cannot be written.
pub fn render(dir: &Path) -> Result<Rendered, ReportError> {
    let (record, truncated) = record(dir)?;
    write_reports(dir, &record)?;
    let look = Look { paint: Paint { colour: false }, width: None };
    Ok(Rendered { outcome: Outcome::from(&record), summary: summary(&record, Some(dir), look), truncated })
}

/// What the `events.jsonl` of a report folder adds up to; and that it ends within a line, where it does.
///
/// # Errors
/// It cannot be read, a line of it other than a half-written last one is no event, or no run began in it.
pub fn record(dir: &Path) -> Result<(Record, Option<String>), ReportError> {
    read(dir, |_| {})
}

/// The fold of the record in `dir`, each of whose events is shown to `with`; and that it ends within a line, where it does.
fn read(dir: &Path, mut with: impl FnMut(&Event)) -> Result<(Record, Option<String>), ReportError> {
    let path = dir.join(EVENTS);
    let bytes = std::fs::read(&path).map_err(failed("read", &path))?;
    let mut record = Record::default();
    let mut truncated = None;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // Without its end: an error would else name the line after it.
        match serde_json::from_slice::<Event>(line.strip_suffix(b"\n").unwrap_or(line)) {
            Ok(event) => {
                with(&event);
                record.apply(&event);
            }
            Err(_) if !line.ends_with(b"\n") => {
                truncated = Some(format!("{} ends within line {}, which was left out", path.display(), index + 1));
            }
            Err(source) => return Err(ReportError::Damaged { path, line: index + 1, source }),
        }
    }
    if record.run.is_empty() {
        return Err(ReportError::NoRun { path });
    }
    Ok((record, truncated))
}

/// Copies the record of a run and its evidence into the folder `to`, in the place of what an earlier run reported there.
///
/// # Errors
/// Something could not be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<(), ReportError> {
    open(to)?;
    let (source, target) = (from.join(EVENTS), to.join(EVENTS));
    std::fs::copy(&source, &target).map_err(failed("copy to", &target))?;
    let evidence = from.join(EVIDENCE);
    if evidence.exists() { copy_folder(&evidence, &to.join(EVIDENCE)) } else { Ok(()) }
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), ReportError> {
    std::fs::create_dir_all(to).map_err(failed("make", to))?;
    for entry in std::fs::read_dir(from).map_err(failed("list", from))? {
        let source = entry.map_err(failed("list", from))?.path();
        let target = to.join(source.file_name().unwrap_or_default());
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            std::fs::copy(&source, &target).map_err(failed("copy to", &target))?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
