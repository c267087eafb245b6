//! Interruption: the first signal ends the work and lets it clean up, the second ends the process. A panic of the work
//! cleans up too.

use std::{future::Future, io::Write, process, sync::Arc, sync::OnceLock};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::events::Events;

/// The exit code of an interrupted run, a shell's for SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Says when to stop. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    token: CancellationToken,
    why: Arc<OnceLock<&'static str>>,
}

/// How guarded work ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// By itself.
    Finished(T),
    /// By a signal; its name.
    Interrupted(&'static str),
    /// By a panic; its message.
    Panicked(String),
}

impl Cancel {
    /// One that only [`Cancel::cancel`] triggers.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGINT, SIGTERM and SIGHUP trigger, from now on and for the whole process. A second signal exits at once.
    ///
    /// # Errors
    /// The signal handlers could not be installed.
    pub fn on_signals(events: &Events) -> std::io::Result<Self> {
        let cancel = Self::new();
        for (name, kind) in [
            ("SIGINT", SignalKind::interrupt()),
            ("SIGTERM", SignalKind::terminate()),
            ("SIGHUP", SignalKind::hangup()),
        ] {
            let mut stream = signal(kind)?;
            let (cancel, events) = (cancel.clone(), events.clone());
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if cancel.token.is_cancelled() {
                        leave_at_once(name);
                    }
                    events.note(format!("{name}: stopping and cleaning up; a second signal exits at once"));
                    cancel.cancel(name);
                }
            });
        }
        Ok(cancel)
    }

    /// Triggers it; `why` names the reason. Only the first counts.
    pub fn cancel(&self, why: &'static str) {
        let _ = self.why.set(why);
        self.token.cancel();
    }

    /// Whether it was triggered.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The token, for what wants to stop at a place of its own choice.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Runs `work` until it ends, panics, or this is triggered, then `clean_up` in any case. When `clean_up` begins, `work`
    /// has been dropped, and with it the commands that it had running have ended.
    pub async fn guard<T, W, C>(&self, work: W, clean_up: C) -> Ended<T>
    where
        T: Send + 'static,
        W: Future<Output = T> + Send + 'static,
        C: Future<Output = ()>,
    {
        let mut task = tokio::spawn(work);
        let result = tokio::select! {
            // Work that has just ended has ended, also when a signal came at the same moment.
            biased;
            result = &mut task => result,
            () = self.token.cancelled() => {
                task.abort();
                task.await
            }
        };
        let ended = match result {
            Ok(value) => Ended::Finished(value),
            Err(error) if error.is_panic() => Ended::Panicked(message(error.into_panic().as_ref())),
            Err(_) => Ended::Interrupted(self.why.get().copied().unwrap_or("interrupted")),
        };
        clean_up.await;
        ended
    }
}

fn leave_at_once(name: &str) -> ! {
    // A terminal that is gone must not stop this, as the macros that print would let it.
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "{name} again: leaving without cleaning up; `cargo xtask gc` removes what is left");
    process::exit(i32::from(INTERRUPTED));
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct SetOnDrop(Arc<AtomicBool>);

    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn clean_up_runs_after_work_that_ends() {
        let mut cleaned = false;
        let ended = Cancel::new().guard(async { 7 }, async { cleaned = true }).await;
        assert_eq!((ended, cleaned), (Ended::Finished(7), true));
    }

    #[tokio::test]
    async fn clean_up_runs_after_a_panic() {
        let mut cleaned = false;
        let work = async { panic!("the mast is {}", "broken") };
        let ended: Ended<()> = Cancel::new().guard(work, async { cleaned = true }).await;
        assert_eq!((ended, cleaned), (Ended::Panicked("the mast is broken".into()), true));
    }

    #[tokio::test]
    async fn interrupted_work_is_dropped_before_clean_up_begins() {
        let dropped = Arc::new(AtomicBool::new(false));
        let cancel = Cancel::new();
        let (trigger, held) = (cancel.clone(), SetOnDrop(dropped.clone()));
        let work = async move {
            let _held = held;
            trigger.cancel("SIGTERM");
            std::future::pending::<()>().await;
        };
        let mut dropped_before = false;
        let ended = cancel.guard(work, async { dropped_before = dropped.load(Ordering::SeqCst) }).await;
        assert_eq!((ended, dropped_before), (Ended::Interrupted("SIGTERM"), true));
    }
}
