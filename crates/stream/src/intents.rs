//! What a group of readers commits: not only how far it came, but what it was about to do.
//!
//! Kafka keeps a few words (`offset.metadata.max.bytes`, 4096) with each committed offset. Before a batch is written anywhere, its place is
//! committed: the offset is that of its first record, and the words say where it ends. So whoever comes next, after a crash or because the partition
//! was given to it, knows exactly what may be half done, and repeats that and nothing else. After the batch, the offset behind it is committed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far a group came in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The log: one life of the partition, named when the group began to read it. Offsets begin anew when a topic is made again.
    pub log: String,
    /// Offset of the first record that is not done.
    pub next: i64,
    /// The batch that begins there, if one was begun.
    pub intent: Option<Intent>,
}

/// A batch that may be half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intent {
    /// Offset of its last record.
    pub last: i64,
    /// No record of it was received earlier, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
}

/// The words beside an offset.
#[derive(Serialize, Deserialize)]
struct Words {
    log: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<Intent>,
}

impl Position {
    /// Where reading begins: at `next`, in a log that is not known yet.
    #[must_use]
    pub fn fresh(next: i64) -> Position {
        Position { log: Uuid::new_v4().simple().to_string().chars().take(16).collect(), next, intent: None }
    }

    /// What was committed. None where the words are not ours: they are lost when someone sets an offset by hand.
    pub(crate) fn read(offset: i64, words: &str) -> Option<Position> {
        let Words { log, intent } = serde_json::from_str(words).ok()?;
        let is_possible = !log.is_empty() && intent.is_none_or(|intent| intent.last >= offset);
        is_possible.then_some(Position { log, next: offset, intent })
    }

    pub(crate) fn words(&self) -> String {
        serde_json::to_string(&Words { log: self.log.clone(), intent: self.intent }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Kafka keeps beside an offset (`offset.metadata.max.bytes`).
    const MOST_BYTES: usize = 4096;

    fn positions() -> impl Strategy<Value = Position> {
        let next_and_intent = prop_oneof![
            any::<i64>().prop_map(|next| (next, None)),
            (any::<i64>(), any::<i64>(), any::<i64>())
                .prop_map(|(one, other, since_ms)| (one.min(other), Some(Intent { last: one.max(other), since_ms }))),
        ];
        // Logs are called by 16 digits; any other name would do.
        (next_and_intent, "[0-9a-f]{16}|.{1,80}").prop_map(|((next, intent), log)| Position { log, next, intent })
    }

    proptest! {
        #[test]
        fn whatever_was_written_is_read_and_kafka_keeps_it(position in positions()) {
            let words = position.words();
            prop_assert!(words.len() <= MOST_BYTES, "{} bytes: {words}", words.len());
            prop_assert_eq!(Position::read(position.next, &words), Some(position));
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let begun = Position { next: 7, intent: Some(Intent { last: i64::MAX, since_ms: i64::MIN }), ..Position::fresh(0) };
        let done = Position { intent: None, ..begun.clone() };
        for position in [begun, done] {
            let words = position.words();
            assert!(words.len() < 200, "{words}");
            assert_eq!(Position::read(7, &words), Some(position));
        }
    }

    #[test]
    fn what_others_wrote_is_nothing() {
        for words in ["", "by hand", "{}", "{\"log\":\"\"}", "{\"log\":\"a\",\"intent\":{\"last\":6,\"since_ms\":0}}"] {
            assert_eq!(Position::read(7, words), None, "{words}");
        }
    }

    #[test]
    fn every_life_has_a_name_of_its_own() {
        assert_ne!(Position::fresh(0).log, Position::fresh(0).log);
        assert_eq!(Position::fresh(0).log.len(), 16);
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;

    use super::*;

    #[test]
    fn what_is_read_is_a_position_that_could_have_been_written() {
        let fates = target!(Text, "intent").run(|bytes| {
            let words = std::str::from_utf8(bytes).unwrap();
            let mut fate = "not ours";
            for offset in [i64::MIN, 0, 1000, i64::MAX] {
                let Some(position) = Position::read(offset, words) else { continue };
                assert!(!position.log.is_empty() && position.next == offset);
                assert!(position.intent.is_none_or(|intent| intent.last >= offset));
                fate = if position.intent.is_some() { "a batch" } else { "a place" };
                assert_eq!(Position::read(offset, &position.words()), Some(position));
            }
            fate
        });
        fates.include(["a batch", "a place", "not ours"]);
    }
}
