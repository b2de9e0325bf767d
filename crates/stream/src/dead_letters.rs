//! Records that could not be processed: kept with the reason, and without anything that looks like a card number.
//!
//! | part | content |
//! |---|---|
//! | key, value, headers | those of the record, with the digits of card numbers overwritten |
//! | header `dead-letter-stage` | what could not be done: `record`, `batch`, `event` |
//! | header `dead-letter-reason` | why, in words |
//! | header `dead-letter-topic`, `dead-letter-partition`, `dead-letter-offset` | where it was |
//! | header `dead-letter-append-time-ms` | when Kafka took it there, in milliseconds since 1970-01-01 UTC, decimal |
//! | header `dead-letter-rule-set` | version of the rule set under which it was rejected |
//! | header `dead-letter-program` | version of the program that rejected it |
//! | header `dead-letter-redacted` | `true` where something of the record was overwritten, else `false` |
//! | header `dead-letter-cut` | `key`, `value`, `headers`, separated by commas: what is cut short; absent where nothing is |
//! | header `dead-letter-bytes` | how many bytes the value had, where it is cut short: a dead letter has room for any record of ours |
//!
//! Written before the place of the record is committed, so a record may be here more than once: topic, partition, offset and append time tell. What
//! becomes of a dead letter is written here too; see [`crate::DeadLetterQueue`].

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};

use crate::card_numbers;
use crate::client::{KafkaConfig, StreamError};
use crate::producer::{NotTaken, Producer};
use crate::reader::Record;
use crate::topics::{LARGEST_DEAD_LETTER, Topic};

/// Most bytes of a value, of a key and of all headers that are kept. A broker measures records as they are compressed, so any size may come.
const LONGEST_VALUE: usize = 3 * 1024 * 1024;
const LONGEST_KEY: usize = 1024;
const LONGEST_HEADERS: usize = 512 * 1024;
const _: () = assert!((LONGEST_VALUE + LONGEST_KEY + LONGEST_HEADERS) as u64 + 64 * 1024 < LARGEST_DEAD_LETTER);
/// Most bytes of a reason.
const LONGEST_REASON: usize = 1000;
/// What a header takes beside its name and content, at most. A record may have a hundred thousand without either.
const HEADER_OVERHEAD: usize = 16;

/// What the names of our headers begin with.
pub(crate) const OURS: &str = "dead-letter-";
pub(crate) const STAGE: &str = "dead-letter-stage";
pub(crate) const REASON: &str = "dead-letter-reason";
pub(crate) const TOPIC: &str = "dead-letter-topic";
pub(crate) const PARTITION: &str = "dead-letter-partition";
pub(crate) const OFFSET: &str = "dead-letter-offset";
pub(crate) const APPEND_TIME: &str = "dead-letter-append-time-ms";
pub(crate) const RULE_SET: &str = "dead-letter-rule-set";
pub(crate) const PROGRAM: &str = "dead-letter-program";
pub(crate) const REDACTED: &str = "dead-letter-redacted";
pub(crate) const CUT: &str = "dead-letter-cut";
pub(crate) const BYTES: &str = "dead-letter-bytes";

/// Why a record could not be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What could not be done: `record`, `batch`, `event`.
    pub stage: &'static str,
    /// Why.
    pub reason: String,
}

/// The dead-letter topic of the outcomes topic, for who rejects records.
pub struct DeadLetters {
    producer: Producer,
    of: String,
    rule_set: Mutex<String>,
}

impl DeadLetters {
    /// Sets up a producer for who judges by the rule set of this version; Kafka is not asked anything yet.
    ///
    /// # Errors
    /// When the configuration is not one.
    pub fn new(config: &KafkaConfig, rule_set: &str) -> Result<DeadLetters, StreamError> {
        let producer = Producer::new(config, Topic::DeadLetters, LARGEST_DEAD_LETTER)?;
        Ok(DeadLetters { producer, of: config.topic(Topic::Outcomes), rule_set: Mutex::new(rule_set.to_owned()) })
    }

    /// From now on, letters say that they are kept by who judges by the rule set of this version.
    pub fn judges_by(&self, rule_set: &str) {
        rule_set.clone_into(&mut self.rule_set.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Keeps a record, and waits until every in-sync replica has it.
    ///
    /// # Errors
    /// When Kafka did not take it within `kafka.delivery_timeout`, cannot, or will not.
    pub async fn keep(&self, record: &Record, rejection: &Rejection) -> Result<(), NotTaken> {
        let Letter { key, value, headers } = self.letter(record, rejection);
        self.producer.send(key.as_deref(), &value, headers).await.map(|_| ())
    }

    /// What a record becomes.
    pub(crate) fn letter(&self, record: &Record, rejection: &Rejection) -> Letter {
        let mut redacted = false;
        let mut clean = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            redacted |= card_numbers::overwrite(&mut bytes);
            bytes
        };
        let mut cut = Vec::new();
        let key = record.key.as_deref().map(|key| clean(beginning(key, LONGEST_KEY)));
        if key.as_ref().map(Vec::len) != record.key.as_ref().map(Bytes::len) {
            cut.push("key");
        }
        let value = clean(beginning(&record.value, LONGEST_VALUE));
        if value.len() < record.value.len() {
            cut.push("value");
        }
        let mut headers = OwnedHeaders::new_with_capacity(16);
        let mut room = LONGEST_HEADERS;
        // Who copies dead letters into the outcomes topic brings headers that are ours.
        for (name, content) in record.headers.iter().filter(|(name, _)| !name.starts_with(OURS)) {
            let Some(left) = room.checked_sub(name.len() + content.len() + HEADER_OVERHEAD) else {
                cut.push("headers");
                break;
            };
            room = left;
            let name = String::from_utf8_lossy(&clean(name.as_bytes())).into_owned();
            headers = headers.insert(Header { key: &name, value: Some(&clean(content)) });
        }
        let mut add = |name, content: &[u8]| {
            let so_far = std::mem::take(&mut headers);
            headers = so_far.insert(Header { key: name, value: Some(content) });
        };
        add(STAGE, rejection.stage.as_bytes());
        add(REASON, card_numbers::overwritten(shortened(&rejection.reason)).as_bytes());
        add(TOPIC, self.of.as_bytes());
        add(PARTITION, record.partition.to_string().as_bytes());
        add(OFFSET, record.offset.to_string().as_bytes());
        if let Some(appended) = record.timestamp_ms {
            add(APPEND_TIME, appended.to_string().as_bytes());
        }
        add(RULE_SET, self.rule_set.lock().unwrap_or_else(PoisonError::into_inner).as_bytes());
        add(PROGRAM, env!("CARGO_PKG_VERSION").as_bytes());
        add(REDACTED, redacted.to_string().as_bytes());
        if !cut.is_empty() {
            add(CUT, cut.join(",").as_bytes());
        }
        if value.len() < record.value.len() {
            add(BYTES, record.value.len().to_string().as_bytes());
        }
        Letter { key, value, headers }
    }
}

/// A record as it is kept.
pub(crate) struct Letter {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: OwnedHeaders,
}

fn beginning(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length).unwrap_or(bytes)
}

fn shortened(text: &str) -> &str {
    let end = text.floor_char_boundary(LONGEST_REASON);
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::reader::read_to_end;

    #[tokio::test]
    async fn a_record_is_kept_with_its_reason_and_without_card_numbers() {
        let cluster = MockCluster::new(1).unwrap();
        let config = KafkaConfig { brokers: cluster.bootstrap_servers(), ..KafkaConfig::default() };
        cluster.create_topic(&config.topic(Topic::DeadLetters), 1, 1).unwrap();
        let record = Record {
            partition: 3,
            offset: 77,
            timestamp_ms: Some(1_790_000_000_000),
            key: Some(Bytes::from_static(b"T-1")),
            value: Bytes::from_static(b"\xFF pan 4111 1111 1111 1111"),
            headers: vec![("note".into(), Bytes::from_static(b"6212345678901232"))],
        };
        let rejection = Rejection { stage: "batch", reason: format!("of card 4111111111111111, {}", "x".repeat(2000)) };
        let dead_letters = DeadLetters::new(&config, "rules-7").unwrap();
        dead_letters.keep(&record, &rejection).await.unwrap();
        let huge = || Bytes::from(vec![0; 12 * 1024 * 1024]);
        let too_large =
            Record { key: Some(huge()), value: huge(), headers: vec![("a".into(), huge()), ("b".into(), Bytes::new())], ..record };
        dead_letters.keep(&too_large, &rejection).await.unwrap();

        let kept = read_to_end(&config, &config.topic(Topic::DeadLetters)).await.unwrap();
        assert_eq!((kept.len(), kept[0].key.as_deref()), (2, Some(b"T-1".as_slice())));
        assert_eq!((kept[1].value.len(), kept[1].header("dead-letter-bytes").unwrap().as_ref()), (LONGEST_VALUE, b"12582912".as_slice()));
        assert!(kept[1].header("a").is_none() && kept[1].header("dead-letter-cut").unwrap().as_ref() == b"key,value,headers");
        assert_eq!(kept[0].value, Bytes::from_static(b"\xFF pan **** **** **** ****"));
        let header = |name: &str| String::from_utf8(kept[0].header(name).unwrap().to_vec()).unwrap();
        assert_eq!(header("note"), "****************");
        assert!(header("dead-letter-reason").starts_with("of card ****************, xxx"));
        assert_eq!(header("dead-letter-reason").len(), LONGEST_REASON);
        let place =
            ["stage", "topic", "partition", "offset", "append-time-ms", "redacted"].map(|part| header(&format!("dead-letter-{part}")));
        assert_eq!(place, ["batch", "faultline.outcomes", "3", "77", "1790000000000", "true"]);
        assert_eq!(["rule-set", "program"].map(|part| header(&format!("dead-letter-{part}"))), ["rules-7", env!("CARGO_PKG_VERSION")]);
        assert!(kept[0].header("dead-letter-cut").is_none());
    }

    /// A dead letter that Kafka does not take would be tried again for ever, and its partition stand still.
    #[tokio::test]
    async fn no_record_makes_a_dead_letter_that_is_too_large() {
        let cluster = MockCluster::new(1).unwrap();
        let config = KafkaConfig { brokers: cluster.bootstrap_servers(), ..KafkaConfig::default() };
        cluster.create_topic(&config.topic(Topic::DeadLetters), 1, 1).unwrap();
        let dead_letters = DeadLetters::new(&config, "rules-7").unwrap();
        let rejection = Rejection { stage: "record", reason: String::new() };
        let empty = (String::new(), Bytes::new());
        let record = Record { headers: vec![empty; 3 * 1024 * 1024], value: vec![0; LONGEST_VALUE].into(), ..Record::default() };
        dead_letters.keep(&record, &rejection).await.unwrap();
        // Headers that another dead letter had say nothing of this one, and no key is not an empty one.
        let copied =
            Record { headers: vec![(BYTES.into(), Bytes::from_static(b"9")), ("tenant".into(), Bytes::new())], ..Record::default() };
        dead_letters.keep(&copied, &rejection).await.unwrap();
        let kept = read_to_end(&config, &config.topic(Topic::DeadLetters)).await.unwrap();
        assert_eq!(kept[0].header(CUT).unwrap().as_ref(), b"headers");
        assert_eq!((kept[1].header(BYTES), kept[1].header(CUT), kept[1].key.as_ref()), (None, None, None));
        assert!(kept[1].header("tenant").is_some());
    }
}
