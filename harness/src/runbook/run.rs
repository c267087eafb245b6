//! Running a runbook: the order of its blocks, their time, and what is made of how they end.

use std::{future::Future, time::Duration};

use futures::future::try_join_all;
use tokio::time::Instant;

use super::{
    Block, Place, Runbook,
    places::LabPlaces,
    transcript::{Record, Transcript},
};
use crate::{
    lab::{Lab, LabError},
    run::events::Step,
};

/// How long a block that is tried again waits in between.
const AGAIN: Duration = Duration::from_secs(2);

/// Where blocks run.
pub trait Places: Sync {
    /// The names of what a place stands for: the workstation, or nodes.
    fn names(&self, on: Place) -> Vec<String>;

    /// A runbook begins: what another has left in its shell is not there.
    fn begin(&self, runbook: &Runbook) -> Result<(), LabError>;

    /// What every command has in its environment just now.
    fn variables(&self) -> impl Future<Output = Result<Vec<(String, String)>, LabError>> + Send;

    /// Runs a script. A script that fails is no error.
    fn run(&self, job: Job<'_>) -> impl Future<Output = Result<Ran, LabError>> + Send;
}

/// A script to run.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// One of [`Places::names`].
    pub place: &'a str,
    /// The commands.
    pub script: &'a str,
    /// What they have in their environment.
    pub env: &'a [(String, String)],
    /// How long they may take.
    pub limit: Duration,
}

/// What a script printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub ended: Ended,
    /// Standard output and standard error in the order in which they came.
    pub output: String,
}

/// How a script ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit status.
    Exit(i64),
    /// By this signal.
    Signal(i32),
    /// Its time was over, and it was stopped with all that it had started.
    Stopped(Duration),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Exit(status) => write!(f, "exit status {status}"),
            Ended::Signal(signal) => write!(f, "signal {signal}"),
            Ended::Stopped(after) => write!(f, "stopped after {} s", after.as_secs()),
        }
    }
}

/// Runs runbooks one after the other in the lab: see [`run`].
///
/// # Errors
/// The lab's.
pub async fn in_lab(runbooks: &[&Runbook], lab: &Lab, step: &Step) -> Result<Transcript, LabError> {
    run(runbooks, &LabPlaces::new(lab)?, step).await
}

/// Runs runbooks that must not fail, because the lab depends on them.
///
/// # Errors
/// The lab's, and a command that fails.
pub async fn must(runbooks: &[&Runbook], lab: &Lab, step: &Step) -> Result<(), LabError> {
    match in_lab(runbooks, lab, step).await?.failure() {
        None => Ok(()),
        Some(failure) => Err(LabError::NotInOrder(failure)),
    }
}

/// Runs runbooks one after the other until the end or the first block that does not end as meant.
///
/// # Errors
/// The lab's: a node's container is gone, the engine does not answer. A command that fails is no error but part of the
/// transcript.
pub async fn run(runbooks: &[&Runbook], places: &impl Places, step: &Step) -> Result<Transcript, LabError> {
    let mut transcript = Transcript::default();
    for runbook in runbooks {
        places.begin(runbook)?;
        let deadline = Instant::now() + runbook.limit;
        for (part, block) in runbook.blocks() {
            let shown = format!("{} ({}:{})", part.title, runbook.file, block.line);
            step.waiting(shown.clone());
            let about = Record {
                file: runbook.file.clone(),
                step: part.title.clone(),
                line: block.line,
                script: block.script.clone(),
                ..Record::default()
            };
            if block.skip {
                transcript.records.push(Record { ended: "left out".to_owned(), ok: true, ..about });
                continue;
            }
            let records =
                tried(runbook, block, &about, places, deadline, &|seen| step.waiting(format!("{shown}: {seen}")))
                    .await?;
            let ok = records.iter().all(|record| record.ok);
            transcript.records.extend(records);
            if !ok {
                return Ok(transcript);
            }
        }
    }
    Ok(transcript)
}

/// Runs a block in all its places, again and again where it says so.
async fn tried(
    runbook: &Runbook,
    block: &Block,
    about: &Record,
    places: &impl Places,
    deadline: Instant,
    waiting: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Record>, LabError> {
    let names = places.names(block.on);
    let begun = Instant::now();
    let until = block.retry.map(|retry| begun + retry);
    let mut ticks = tokio::time::interval(AGAIN);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tries = 0;
    loop {
        ticks.tick().await;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let ended = format!("not begun: the {} s that the runbook may take are over", runbook.limit.as_secs());
            return Ok(vec![Record { ended, tries, ..about.clone() }]);
        }
        tries += 1;
        let mut env = places.variables().await?;
        env.extend(runbook.variables.iter().cloned());
        let limit = block.timeout.min(left);
        let each = names.iter().map(|place| async {
            let started = Instant::now();
            let ran = places.run(Job { place, script: &block.script, env: &env, limit }).await?;
            Ok::<_, LabError>(judged(block, ran, Record { place: place.clone(), tries, ..about.clone() }, started))
        });
        let records = try_join_all(each).await?;
        let failed = records.iter().find(|record| !record.ok);
        match (failed, until) {
            (Some(failed), Some(until)) if Instant::now() < until => {
                waiting(&format!("{}, tried {tries} times", failed.ended));
            }
            _ => return Ok(records),
        }
    }
}

fn judged(block: &Block, ran: Ran, record: Record, started: Instant) -> Record {
    let (ok, meant) = match (ran.ended, block.fails) {
        (Ended::Exit(0), false) => (true, ""),
        (Ended::Exit(0), true) => (false, ", and it was expected to fail"),
        (Ended::Exit(_), true) => (true, ", as expected"),
        (_, _) => (false, ""),
    };
    Record {
        ended: format!("{}{meant}", ran.ended),
        ok,
        seconds: started.elapsed().as_secs_f64(),
        output: ran.output,
        ..record
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use super::*;
    use crate::{
        run::events::{EventKind, Events},
        runbook::parse::parse,
    };

    /// Answers with what a test lays ready for a script, and notes what was asked.
    #[derive(Default)]
    struct Fake {
        answers: Mutex<VecDeque<Ended>>,
        asked: Mutex<Vec<String>>,
        takes: Duration,
    }

    impl Fake {
        fn answering(answers: impl IntoIterator<Item = Ended>) -> Self {
            Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() }
        }
    }

    impl Places for Fake {
        fn names(&self, on: Place) -> Vec<String> {
            let names: &[&str] = match on {
                Place::Workstation => &["workstation"],
                Place::EachNode => &["control-plane", "worker1", "worker2-gpu"],
                Place::Workers => &["worker1", "worker2-gpu"],
                Place::GpuNode => &["worker2-gpu"],
            };
            names.iter().map(|name| (*name).to_owned()).collect()
        }

        fn begin(&self, runbook: &Runbook) -> Result<(), LabError> {
            self.asked.lock().unwrap().push(format!("begin {}", runbook.file));
            Ok(())
        }

        async fn variables(&self) -> Result<Vec<(String, String)>, LabError> {
            let asked = self.asked.lock().unwrap().len();
            Ok(vec![("POD".to_owned(), format!("pod-{asked}"))])
        }

        async fn run(&self, job: Job<'_>) -> Result<Ran, LabError> {
            let env: Vec<String> = job.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let line = format!("{} [{}] {} s: {}", job.place, env.join(" "), job.limit.as_secs(), job.script.trim());
            self.asked.lock().unwrap().push(line);
            if !self.takes.is_zero() {
                tokio::time::advance(self.takes).await;
            }
            let ended = self.answers.lock().unwrap().pop_front().unwrap_or(Ended::Exit(0));
            Ok(Ran { ended, output: format!("{} said so\n", job.place) })
        }
    }

    /// What was asked, and the transcript without its times.
    async fn told(fake: &Fake, texts: &[&str]) -> String {
        let runbooks: Vec<Runbook> =
            texts.iter().enumerate().map(|(index, text)| parse(&format!("{}.md", index + 1), text).unwrap()).collect();
        let (events, receiver) = Events::channel();
        let transcript = events
            .step("run", async |step| run(&runbooks.iter().collect::<Vec<_>>(), fake, &step).await)
            .await
            .unwrap();
        drop(events);
        let mut text = format!("{}\n\n", fake.asked.lock().unwrap().join("\n"));
        for event in receiver {
            if let EventKind::StepWaiting { status, .. } = event.kind {
                text.push_str(&format!("waits: {status}\n"));
            }
        }
        for record in &transcript.records {
            let Record { file, step, line, place, ended, ok, tries, .. } = record;
            text.push_str(&format!("\n{file}:{line} {step} on {place}: {ended}; ok {ok}, tries {tries}"));
        }
        format!("{text}\nfailure: {:?}\n", transcript.failure())
    }

    #[tokio::test]
    async fn blocks_run_in_order_in_all_their_places_with_variables_looked_up_anew() {
        let one = "---\nvariables: {TEAM: sea, PORT: 8443}\n---\n# T\n## A\n```sh\na1\n```\n```sh on=workers timeout=7s\na2\n```\n## Not shell\n```yaml\nx\n```\n## B\n```sh skip\nb\n```\n```sh on=gpu-node\nc\n```\n";
        let said = told(&Fake::default(), &[one, "# U\n```sh on=each-node\nd\n```\n"]).await;
        insta::assert_snapshot!(said);
    }

    #[tokio::test]
    async fn the_first_block_that_fails_ends_it() {
        let fake = Fake::answering([Ended::Exit(0), Ended::Exit(0), Ended::Exit(3)]);
        let text = "## A\n```sh\na\n```\n## B\n```sh on=workers\nb\n```\n## C\n```sh\nc\n```\n";
        insta::assert_snapshot!(told(&fake, &[text, text]).await);
    }

    #[tokio::test]
    async fn what_is_meant_to_fail_fails_and_nothing_else_does() {
        let text = "## A\n```sh expect=fail\na\n```\n```sh expect=fail\nb\n```\n";
        insta::assert_snapshot!("fails_then_not", told(&Fake::answering([Ended::Exit(7)]), &[text]).await);
        let stopped = Fake::answering([Ended::Stopped(Duration::from_secs(300))]);
        insta::assert_snapshot!("stopped", told(&stopped, &[text]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_is_tried_again_until_it_ends_as_meant() {
        let fake = Fake::answering([Ended::Exit(1), Ended::Signal(9), Ended::Exit(0)]);
        insta::assert_snapshot!(told(&fake, &["## A\n```sh retry=30s\na\n```\n"]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_begins_after_the_runbook_s_time() {
        let fake = Fake { takes: Duration::from_millis(1100), ..Fake::default() };
        let text = "---\ntimeouts: {runbook: 1s}\n---\n## A\n```sh\na\n```\n## B\n```sh\nb\n```\n";
        insta::assert_snapshot!(told(&fake, &[text]).await);
    }
}
