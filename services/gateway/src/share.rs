//! What one terminal may have of a gateway, so that one that loops takes nothing from the others: calls at one moment, batches on their way at one
//! moment, and events a second.
//!
//! A terminal is known by its token; where the token is of a whole tenant, by the name in its batch. Whoever has such a token may think of names, so the
//! calls of one are not limited here, and names take little room and not for long.

mod outline;
mod pace;
mod turns;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use faultline_stream::card_numbers;
use tokio::time::Instant;

use crate::config::ShareConfig;
use crate::credentials::Identity;
use crate::grammar;
use crate::problem::Problem;
use outline::Outline;
use pace::Pace;
pub(crate) use turns::Turn;
use turns::Turns;

/// Batches of one terminal that are on their way to Kafka at one moment. The contract has one for each spool, and a terminal has one spool.
const BATCHES: usize = 1;
/// How long a call or a batch waits for its turn. It is also how long the answer to one that is too much is kept back: whoever does not heed the delay is slowed
/// down by that.
const WAIT: Duration = Duration::from_secs(1);
/// How often it is said who is sent away.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// A terminal and its tenant, as numbers that are drawn anew for each process. Two that have the same share what one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Whose {
    terminal: u64,
    tenant: u64,
}

/// What terminals have at the moment.
#[derive(Debug)]
pub(crate) struct Shares {
    hasher: RandomState,
    calls: Turns,
    batches: Turns,
    pace: Option<Pace>,
    said: Mutex<Option<Instant>>,
}

impl Shares {
    pub(crate) fn new(config: &ShareConfig) -> Shares {
        Shares {
            hasher: RandomState::new(),
            calls: Turns::new(usize::try_from(config.calls).unwrap_or(usize::MAX)),
            batches: Turns::new(BATCHES),
            pace: Pace::new(config.events_per_second, config.burst_events),
            said: Mutex::new(None),
        }
    }

    /// Room for a call, until it is dropped. None where the token is of a whole tenant.
    pub(crate) async fn call(&self, identity: &Identity) -> Result<Option<Turn>, Problem> {
        let Some(terminal) = &identity.terminal else { return Ok(None) };
        let call = self.calls.take(self.whose(identity, terminal.as_bytes())).await;
        call.map(Some).ok_or(Problem::TooMany("calls")).inspect_err(|problem| self.say(problem, identity, terminal.as_bytes()))
    }

    /// Makes sure that a batch is not more than its terminal may send now, and that it is the only one on its way, until what is returned is dropped. What it
    /// names and how many events it has is read from its bytes; whether it is a batch at all is not looked at.
    pub(crate) async fn batch(&self, identity: &Identity, batch: &[u8]) -> Result<Turn, Problem> {
        let outline = Outline::of(batch);
        let terminal = identity.terminal.as_ref().map_or(outline.terminal, |own| own.as_bytes());
        let whose = self.whose(identity, terminal);
        let taking = async {
            if let Some(pace) = &self.pace {
                pace.take(whose, outline.weight(batch.len())).await?;
            }
            self.batches.take(whose).await.ok_or(Problem::TooMany("batches on their way"))
        };
        taking.await.inspect_err(|problem| self.say(problem, identity, terminal))
    }

    fn whose(&self, identity: &Identity, terminal: &[u8]) -> Whose {
        let tenant = identity.tenant.as_bytes();
        Whose { terminal: self.hasher.hash_one((tenant, terminal)), tenant: self.hasher.hash_one(tenant) }
    }

    /// Says who is sent away, now and then.
    fn say(&self, problem: &Problem, identity: &Identity, terminal: &[u8]) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            *said = Some(Instant::now());
            tracing::warn!(tenant = &*identity.tenant, terminal = shown(terminal), %problem, "a terminal is limited (`gateway.share`)");
        }
    }
}

/// A terminal's name, where it is one: it may be what somebody has put there.
fn shown(terminal: &[u8]) -> &str {
    let name = std::str::from_utf8(terminal).ok();
    name.filter(|name| !name.is_empty() && grammar::terminal("", name).is_ok() && !card_numbers::contains(name)).unwrap_or("(not shown)")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use faultline_proto::ingest::v1::{Event, OutcomeBatch};
    use prost::Message;

    use super::*;

    fn identity(terminal: Option<&str>) -> Identity {
        Identity { tenant: Arc::from("acme"), terminal: terminal.map(Arc::from) }
    }

    fn batch(terminal: &str, events: u64) -> Vec<u8> {
        let events = (1..=events).map(|sequence| Event { sequence, ..Event::default() }).collect();
        OutcomeBatch { terminal_id: terminal.into(), events, ..OutcomeBatch::default() }.encode_to_vec()
    }

    fn shares(config: ShareConfig) -> Arc<Shares> {
        Arc::new(Shares::new(&config))
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_has_so_many_calls_and_whoever_collects_for_a_tenant_has_more() {
        let shares = shares(ShareConfig { calls: 2, ..ShareConfig::default() });
        let own = identity(Some("T-1"));
        let calls = [shares.call(&own).await.unwrap(), shares.call(&own).await.unwrap()];
        let begin = Instant::now();
        assert!(matches!(shares.call(&own).await, Err(Problem::TooMany("calls"))));
        assert_eq!(begin.elapsed(), WAIT);
        shares.call(&identity(Some("T-2"))).await.unwrap().unwrap();
        let other_tenant = Identity { tenant: Arc::from("other"), ..own.clone() };
        shares.call(&other_tenant).await.unwrap().unwrap();
        for _ in 0..100 {
            assert!(shares.call(&identity(None)).await.unwrap().is_none());
        }
        drop(calls);
        shares.call(&own).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_is_whose_token_it_is_and_only_then_whom_its_batch_names() {
        let shares = shares(ShareConfig { events_per_second: 10, burst_events: 100, ..ShareConfig::default() });
        let (own, any) = (identity(Some("T-1")), identity(None));
        for (identity, named, fits) in [
            (&own, "", true),
            (&own, "T-2", false),
            (&any, "T-1", false),
            (&any, "T-2", true),
            (&any, "T-2", false),
            (&any, "T-3", true),
            (&any, "", true),
            (&any, "", false),
        ] {
            let taken = shares.batch(identity, &batch(named, 100)).await;
            assert_eq!(taken.is_ok(), fits, "{identity:?} {named}: {taken:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_batch_of_a_terminal_is_on_its_way_and_those_of_others_are_not_kept_by_that() {
        let shares = shares(ShareConfig::default());
        let any = identity(None);
        let first = shares.batch(&any, &batch("T-1", 1)).await.unwrap();
        assert!(matches!(shares.batch(&any, &batch("T-1", 1)).await, Err(Problem::TooMany(_))));
        shares.batch(&any, &batch("T-2", 1)).await.unwrap();
        drop(first);
        shares.batch(&any, &batch("T-1", 1)).await.unwrap();
    }

    #[test]
    fn only_a_name_is_shown() {
        assert_eq!(shown(b"T-1"), "T-1");
        for other in [&b""[..], b"two\nlines", b"\xFF", b"6212345678901232"] {
            assert_eq!(shown(other), "(not shown)");
        }
    }
}
