//! Whether a process can do its work, and waiting for the servers that it depends on: it keeps asking, and says why the answer is still no.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::error::with_causes;

/// Pause between two questions to a server that is being waited for.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said that the answer is still no.
const SAY_AGAIN: Duration = Duration::from_secs(5);
/// Pause between two attempts to prepare a part.
const PREPARE_PAUSE: Duration = Duration::from_secs(1);
/// Stands for the process among its parts.
const PROCESS: &str = "the process";
/// Where nothing was said yet about a part.
const NOT_YET: &str = "is not known to work yet";

/// A server did not become ready in the time allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} was not ready within {} s: {reason}", limit.as_secs_f32())]
pub struct NotReady {
    /// The server.
    pub what: &'static str,
    /// The time allowed.
    pub limit: Duration,
    /// Its last answer.
    pub reason: String,
}

/// Asks `probe` until it succeeds, at most for `limit`.
///
/// # Errors
/// When it did not succeed within `limit`, with what it said last.
pub async fn wait_until_ready<E: Error>(
    what: &'static str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<(), E>,
) -> Result<(), NotReady> {
    let mut reason = String::from("no answer");
    let asking = async {
        let mut said = Instant::now();
        while let Err(error) = probe().await {
            reason = with_causes(&error);
            if said.elapsed() >= SAY_AGAIN {
                tracing::warn!(reason, "{what} is not ready yet");
                said = Instant::now();
            }
            sleep(PAUSE).await;
        }
    };
    timeout(limit, asking).await.map_err(|_| NotReady { what, limit, reason })
}

/// Whether a process can do its work: it can when each of its parts can. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// By part, what is in its way; nothing where it works.
    parts: Arc<watch::Sender<BTreeMap<&'static str, Option<String>>>>,
}

impl Readiness {
    /// Of nothing: ready.
    #[must_use]
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// Adds a part that is not ready until it is said to be.
    pub fn expect(&self, part: &'static str) {
        gauge!("faultline_ready", "part" => part).set(0.0);
        self.parts.send_modify(|parts| {
            parts.entry(part).or_insert_with(|| Some(NOT_YET.into()));
        });
    }

    /// Says how a part is. What changes is logged, and counted as `faultline_ready`.
    pub fn report(&self, part: &'static str, state: Result<(), String>) {
        let obstacle = state.err();
        gauge!("faultline_ready", "part" => part).set(if obstacle.is_none() { 1.0 } else { 0.0 });
        self.parts.send_if_modified(|parts| {
            match (parts.get(part), &obstacle) {
                (Some(before), now) if before == now => {}
                (Some(Some(_)), None) => tracing::info!("{part} is ready"),
                (_, Some(reason)) => tracing::warn!(reason, "{part} is not ready"),
                (_, None) => {}
            }
            parts.insert(part, obstacle.clone()) != Some(obstacle)
        });
    }

    /// Prepares a part, again and again until that succeeds, and says how the part is.
    ///
    /// # Errors
    /// When preparing fails with an error that is not worth a retry.
    pub async fn until_prepared<E: Error>(
        &self,
        part: &'static str,
        mut prepare: impl AsyncFnMut() -> Result<(), E>,
        is_worth_a_retry: impl Fn(&E) -> bool,
    ) -> Result<(), E> {
        loop {
            match prepare().await {
                Ok(()) => {
                    self.report(part, Ok(()));
                    return Ok(());
                }
                Err(error) if is_worth_a_retry(&error) => self.report(part, Err(with_causes(&error))),
                Err(error) => return Err(error),
            }
            sleep(PREPARE_PAUSE).await;
        }
    }

    /// Asks `probe` again and again with a pause between, for ever, and says how the part is.
    pub async fn watch<E: Error>(&self, part: &'static str, pause: Duration, mut probe: impl AsyncFnMut() -> Result<(), E>) -> ! {
        loop {
            let answer = probe().await;
            self.report(part, answer.map_err(|error| with_causes(&error)));
            sleep(pause).await;
        }
    }

    /// The process stops: from now on it is not ready, whatever its parts say.
    pub fn close(&self) {
        gauge!("faultline_ready", "part" => PROCESS).set(0.0);
        self.parts.send_modify(|parts| {
            parts.insert(PROCESS, Some("is going down".into()));
        });
    }

    /// What is in the way, a line a part: nothing when the process is ready.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        let parts = self.parts.borrow();
        parts.iter().filter_map(|(part, obstacle)| Some(format!("{part}: {}", obstacle.as_ref()?))).collect()
    }

    /// Waits until every part that is known is ready.
    pub async fn until_ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.parts.subscribe().wait_for(|parts| parts.values().all(Option::is_none)).await;
    }

    /// Waits until `ready` is no longer what the process is.
    pub async fn until_not(&self, ready: bool) {
        let _ = self.parts.subscribe().wait_for(|parts| parts.values().all(Option::is_none) != ready).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_asks_until_the_answer_is_yes() {
        let mut answers = vec![Ok(()), Err(io::Error::other("later")), Err(io::Error::other("not yet"))];
        let ready = wait_until_ready("It", Duration::from_secs(1), async || answers.pop().unwrap()).await;
        assert_eq!(ready, Ok(()));
        assert!(answers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_limit_it_says_why() {
        let limit = Duration::from_secs(60);
        let begin = Instant::now();
        let ready = wait_until_ready("It", limit, async || Err(io::Error::other("connection refused"))).await;
        assert_eq!(ready.unwrap_err().to_string(), "It was not ready within 60 s: connection refused");
        assert_eq!(begin.elapsed(), limit);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_may_be_longer_than_time() {
        let ready = wait_until_ready("It", Duration::MAX, async || Ok::<(), io::Error>(())).await;
        assert_eq!(ready, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_never_answered_does_not_outlast_the_limit() {
        let ready = wait_until_ready("It", Duration::from_secs(1), async || std::future::pending::<io::Result<()>>().await).await;
        assert_eq!(ready.unwrap_err().reason, "no answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_is_ready_when_all_its_parts_are() {
        let readiness = Readiness::new();
        assert_eq!(readiness.obstacles(), [""; 0]);
        readiness.expect("Kafka");
        readiness.expect("ClickHouse");
        assert_eq!(readiness.obstacles().len(), 2);

        readiness.report("Kafka", Ok(()));
        readiness.report("ClickHouse", Err("connection refused".into()));
        assert_eq!(readiness.obstacles(), ["ClickHouse: connection refused"]);

        // What is known of a part stays when it is expected once more.
        readiness.expect("Kafka");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.until_ready().await }
        });
        readiness.report("ClickHouse", Ok(()));
        waiting.await.unwrap();
        assert_eq!(readiness.obstacles(), [""; 0]);

        readiness.close();
        assert_eq!(readiness.obstacles(), ["the process: is going down"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_watched_may_go_and_come_back() {
        let readiness = Readiness::new();
        let mut answers = vec![Ok(()), Err(io::Error::other("gone")), Ok(())];
        let pause = Duration::from_secs(2);
        let watching = readiness.watch("It", pause, async || match answers.pop() {
            Some(answer) => answer,
            None => std::future::pending().await,
        });
        let seeing = async {
            let mut seen = Vec::new();
            for _ in 0..3 {
                sleep(pause - Duration::from_millis(1)).await;
                seen.push(readiness.obstacles());
                sleep(Duration::from_millis(1)).await;
            }
            seen
        };
        let seen = tokio::select! {
            _ = watching => unreachable!(),
            seen = seeing => seen,
        };
        assert_eq!(seen, [vec![], vec!["It: gone".to_owned()], vec![]]);
    }
}
