//! Waiting on Kubernetes objects by watching them.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use crate::run::{
    events::Step,
    poll::{Look, WaitError},
};

/// Watches the objects that `config` selects until `look` at all of them, by name, is ready.
///
/// # Errors
/// The time-out, with what was last seen; an API server that cannot be reached is such a sight. What `look` itself gives up on.
pub async fn until<K, T>(
    step: &Step,
    what: &str,
    limit: Duration,
    api: Api<K>,
    config: watcher::Config,
    mut look: impl FnMut(&BTreeMap<String, K>) -> Result<Look<T>, String>,
) -> Result<T, WaitError<String>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let deadline = Instant::now() + limit;
    let mut last = "nothing yet".to_owned();
    let mut objects = BTreeMap::new();
    let mut listed = false;
    let mut stream = watcher(api, config).default_backoff().boxed();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let seen = match tokio::time::timeout(left, stream.next()).await {
            Err(_) | Ok(None) => return Err(WaitError::TimedOut { what: what.to_owned(), after: limit, last }),
            Ok(Some(Err(error))) => format!("the API server cannot be watched: {error}"),
            Ok(Some(Ok(event))) => {
                match event {
                    watcher::Event::Init => {
                        objects.clear();
                        listed = false;
                    }
                    watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                        objects.insert(object.name_any(), object);
                    }
                    watcher::Event::Delete(object) => {
                        objects.remove(&object.name_any());
                    }
                    watcher::Event::InitDone => listed = true,
                }
                if !listed {
                    continue;
                }
                match look(&objects).map_err(WaitError::Failed)? {
                    Look::Ready(value) => return Ok(value),
                    Look::NotYet(seen) => seen,
                }
            }
        };
        if seen != last {
            step.waiting(format!("{what}: {seen}"));
            last = seen;
        }
    }
}
