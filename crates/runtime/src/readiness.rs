//! Waiting for a server that a process depends on: it keeps asking, and says why the answer is still no.

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::error::with_causes;

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said that the answer is still no.
const SAY_AGAIN: Duration = Duration::from_secs(5);

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
}
