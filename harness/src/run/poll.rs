//! Waiting for a condition: with a deadline, saying what is waited for, and on time-out what was last seen.

use std::{
    fmt::Display,
    future::Future,
    time::{Duration, Instant},
};

use super::events::Step;

/// What a look at a condition found.
#[derive(Debug)]
pub enum Look<T> {
    /// The condition holds.
    Ready(T),
    /// It does not hold yet; this is what was seen.
    NotYet(String),
}

/// Why waiting ended without the condition.
#[derive(Debug, thiserror::Error)]
pub enum WaitError<E: Display> {
    /// The deadline passed.
    #[error("waited {} s for {what}; last seen: {last}", after.as_secs())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// What was last seen.
        last: String,
    },
    /// The condition can no longer come to hold.
    #[error("{0}")]
    Failed(E),
}

/// Looks every `interval` until `look` is ready, fails, or `limit` has passed. For what has no watch; prefer a watch.
pub async fn poll<T, E, L, F>(
    step: &Step,
    what: &str,
    limit: Duration,
    interval: Duration,
    mut look: L,
) -> Result<T, WaitError<E>>
where
    E: Display,
    L: FnMut() -> F,
    F: Future<Output = Result<Look<T>, E>>,
{
    let deadline = Instant::now() + limit;
    let mut ticks = tokio::time::interval(interval);
    let mut last = "nothing yet".to_owned();
    loop {
        ticks.tick().await;
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(Look::Ready(value))) => return Ok(value),
            Ok(Ok(Look::NotYet(seen))) => {
                if seen != last {
                    step.waiting(format!("{what}: {seen}"));
                    last = seen;
                }
            }
            Ok(Err(error)) => return Err(WaitError::Failed(error)),
            Err(_) => return Err(WaitError::TimedOut { what: what.to_owned(), after: limit, last }),
        }
        if Instant::now() >= deadline {
            return Err(WaitError::TimedOut { what: what.to_owned(), after: limit, last });
        }
    }
}
