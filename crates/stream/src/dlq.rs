//! Dead letters in the hands of operators: read back, brought back into the outcomes topic, or dropped.
//!
//! What became of a dead letter is written behind it, into the topic that it is in:
//!
//! | part | content |
//! |---|---|
//! | key | the dead letter: [`DeadLetterId`] |
//! | value | empty |
//! | header `dead-letter-settled` | `replayed`, `dropped` |
//! | header `dead-letter-replayed-as` | partition and offset of the new record, joined by `-`, where it was replayed |
//!
//! It is written after the replay: who dies in between leaves a dead letter that is open, and may be replayed again. Its events are counted once all the
//! same, since the classifier asks for those of a replayed record one by one.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use rdkafka::message::{Header, OwnedHeaders};
use serde::{Serialize, Serializer};
use tokio::sync::mpsc;

use crate::client::{KafkaConfig, StreamError};
use crate::dead_letters::{APPEND_TIME, BYTES, CUT, OFFSET, OURS, PARTITION, PROGRAM, REASON, REDACTED, RULE_SET, STAGE, TOPIC};
use crate::outcomes::{REPLAY_APPEND_TIME, REPLAY_OF, Replay, TENANT};
use crate::producer::{NotTaken, Producer};
use crate::reader::{Record, begin_to_read};
use crate::topics::{LARGEST_DEAD_LETTER, LARGEST_OUTCOMES, Topic};

const SETTLED: &str = "dead-letter-settled";
const REPLAYED_AS: &str = "dead-letter-replayed-as";

/// Largest value that is replayed, in bytes: beside it, the headers of a dead letter fit into a record of the outcomes topic.
const LARGEST_REPLAY: u64 = LARGEST_OUTCOMES - 600 * 1024;

/// A dead letter's name: where its record was, and when Kafka took it there (`3-77-1790000000`, in seconds since 1970-01-01 UTC), since offsets
/// begin anew when a topic is made again. However often the record was kept, it is one dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadLetterId {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When Kafka took the record, in seconds since 1970-01-01 UTC; 0 where that is not known.
    pub append_s: i64,
}

impl DeadLetterId {
    /// Whether this text means it: the name, or partition and offset alone (`3-77`).
    #[must_use]
    pub fn is_meant_by(&self, text: &str) -> bool {
        text == self.to_string() || text == format!("{}-{}", self.partition, self.offset)
    }
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-{}", self.partition, self.offset, self.append_s)
    }
}

impl FromStr for DeadLetterId {
    type Err = ();

    fn from_str(text: &str) -> Result<DeadLetterId, ()> {
        let mut parts = text.splitn(3, '-');
        let (Some(partition), Some(offset), Some(append_s)) = (parts.next(), parts.next(), parts.next()) else { return Err(()) };
        let number = |text: &str| text.parse().map_err(|_| ());
        Ok(DeadLetterId { partition: partition.parse().map_err(|_| ())?, offset: number(offset)?, append_s: number(append_s)? })
    }
}

impl Serialize for DeadLetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is known of a dead letter, without its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its name.
    pub id: DeadLetterId,
    /// What could not be done: `record`, `batch`, `event`.
    pub stage: String,
    /// Why, in words.
    pub reason: String,
    /// The topic that the record was in.
    pub topic: String,
    /// The partition there.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
    /// When Kafka took it there, in milliseconds since 1970-01-01 UTC.
    pub append_ms: Option<i64>,
    /// When it was kept as a dead letter, in milliseconds since 1970-01-01 UTC.
    pub kept_ms: Option<i64>,
    /// Version of the rule set under which it was rejected. None: by a program that did not say.
    pub rule_set: Option<String>,
    /// Version of the program that rejected it. None: as above.
    pub program: Option<String>,
    /// The tenant, as far as its header can be read.
    pub tenant: Option<String>,
    /// The terminal, as far as the key can be read.
    pub terminal: Option<String>,
    /// Bytes of the value that the record had.
    pub bytes: u64,
    /// Whether what looked like card numbers was overwritten in it.
    pub is_redacted: bool,
    /// Whether some of it is missing, since it was too large.
    pub is_cut: bool,
    /// The dead letter that it was before, where its record is one that was replayed.
    pub replay_of: Option<String>,
    /// What became of it. None: it is open.
    pub settled: Option<Settled>,
}

/// What became of a dead letter, the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// What was done with it.
    pub how: Settlement,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: Option<i64>,
    /// Partition and offset of the record that it was replayed as, joined by `-`.
    pub replayed_as: Option<String>,
}

/// What is done with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Settlement {
    /// It was brought back into the outcomes topic.
    Replayed,
    /// Nothing will come of it.
    Dropped,
}

impl Settlement {
    /// It in a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Settlement::Replayed => "replayed",
            Settlement::Dropped => "dropped",
        }
    }
}

/// Why a dead letter cannot be replayed: it is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Some of it is missing. What is left could be read as another batch, or as fewer events.
    #[error("it was too large to be kept whole: what is left of it is not what was sent")]
    Cut,
    /// It is larger than what the outcomes topic takes, and so than any batch of the contract.
    #[error("it is larger than any batch of the contract, and the outcomes topic would not take it")]
    Large,
    /// What was overwritten is the name of the terminal or of the tenant: its events would be counted as somebody else's.
    #[error("its terminal or its tenant was overwritten, since it looked like a card number: whose it is is not known any more")]
    Nameless,
    /// Digits were overwritten. Mostly of a free text, but nobody has looked.
    #[error(
        "what looked like a card number was overwritten in it, so it is not quite what was sent: look at it with `show`; with --redacted it is replayed as it is"
    )]
    Redacted,
}

/// What a record of the topic is.
enum Entry {
    Letter(Box<DeadLetter>),
    Settled(DeadLetterId, Settled),
    /// Not one of ours.
    Other,
}

impl DeadLetter {
    /// Why it is not to be replayed, if so; `even_redacted` where someone has looked at what was overwritten.
    ///
    /// # Errors
    /// With the reason.
    pub fn check_fit(&self, even_redacted: bool) -> Result<(), Unfit> {
        // No name that the gateway takes has an asterisk.
        let is_nameless = [&self.tenant, &self.terminal].into_iter().flatten().any(|name| name.contains('*'));
        match self {
            DeadLetter { is_cut: true, .. } => Err(Unfit::Cut),
            DeadLetter { bytes, .. } if *bytes > LARGEST_REPLAY => Err(Unfit::Large),
            DeadLetter { is_redacted: true, .. } if is_nameless => Err(Unfit::Nameless),
            DeadLetter { is_redacted: true, .. } if !even_redacted => Err(Unfit::Redacted),
            _ => Ok(()),
        }
    }
}

impl Entry {
    fn read(record: &Record) -> Entry {
        let text = |name| record.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let number = |name| text(name).and_then(|number| number.parse::<i64>().ok());
        let partition = || text(PARTITION)?.parse().ok().filter(|partition| *partition >= 0);
        let Some(stage) = text(STAGE) else {
            let id = || std::str::from_utf8(record.key.as_deref()?).ok()?.parse().ok();
            let how = match text(SETTLED).as_deref() {
                Some("replayed") => Settlement::Replayed,
                Some("dropped") => Settlement::Dropped,
                _ => return Entry::Other,
            };
            let settled = Settled { how, at_ms: record.timestamp_ms, replayed_as: text(REPLAYED_AS) };
            return id().map_or(Entry::Other, |id| Entry::Settled(id, settled));
        };
        let offset = number(OFFSET).filter(|offset| *offset >= 0);
        let (Some(partition), Some(offset)) = (partition(), offset) else { return Entry::Other };
        let append_ms = number(APPEND_TIME);
        Entry::Letter(Box::new(DeadLetter {
            id: DeadLetterId { partition, offset, append_s: append_ms.unwrap_or_default().div_euclid(1000) },
            stage,
            reason: text(REASON).unwrap_or_default(),
            topic: text(TOPIC).unwrap_or_default(),
            partition,
            offset,
            append_ms,
            kept_ms: record.timestamp_ms,
            rule_set: text(RULE_SET),
            program: text(PROGRAM),
            tenant: text(TENANT),
            terminal: record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).map(str::to_owned),
            bytes: text(BYTES).and_then(|bytes| bytes.parse().ok()).unwrap_or(record.value.len() as u64),
            is_redacted: text(REDACTED).is_some_and(|redacted| redacted == "true"),
            is_cut: record.header(CUT).or(record.header(BYTES)).is_some(),
            replay_of: Replay::of(record).map(|replay| replay.of),
            settled: None,
        }))
    }
}

/// The dead letters of the outcomes topic.
pub struct DeadLetterQueue {
    config: KafkaConfig,
    outcomes: Producer,
    letters: Producer,
}

impl DeadLetterQueue {
    /// Sets up its producers; Kafka is not asked anything yet.
    ///
    /// # Errors
    /// When the configuration is not one.
    pub fn new(config: &KafkaConfig) -> Result<DeadLetterQueue, StreamError> {
        let outcomes = Producer::new(config, Topic::Outcomes, LARGEST_OUTCOMES)?;
        let letters = Producer::new(config, Topic::DeadLetters, LARGEST_DEAD_LETTER)?;
        Ok(DeadLetterQueue { config: config.clone(), outcomes, letters })
    }

    /// Every dead letter that Kafka still has, once, in the order in which they were kept, each with what became of it.
    ///
    /// # Errors
    /// When the cluster does not answer, or there is no such topic.
    pub async fn list(&self) -> Result<Vec<DeadLetter>, StreamError> {
        let mut reading = self.begin_to_read();
        let (mut letters, mut known, mut settled) = (Vec::new(), HashSet::new(), HashMap::new());
        while let Some(record) = reading.recv().await {
            let record = record?;
            match Entry::read(&record) {
                Entry::Letter(letter) if known.insert(letter.id) => letters.push(*letter),
                Entry::Letter(_) => {}
                Entry::Settled(id, how) => {
                    settled.insert(id, how);
                }
                Entry::Other => tracing::warn!(offset = record.offset, "a record of the dead-letter topic is no dead letter"),
            }
        }
        for letter in &mut letters {
            letter.settled = settled.remove(&letter.id);
        }
        Ok(letters)
    }

    /// The records that these dead letters were, as far as they were kept, without what was added to them.
    pub fn records(&self, wanted: HashSet<DeadLetterId>) -> Originals {
        Originals { reading: self.begin_to_read(), wanted }
    }

    /// Brings a record back into the outcomes topic, as a replay of this dead letter, and writes down that this was done. Returns partition and offset of
    /// the new record.
    ///
    /// # Errors
    /// When Kafka did not take one of the two within `kafka.delivery_timeout`, cannot, or will not. It can be repeated.
    pub async fn replay(&self, letter: &DeadLetter, record: &Record) -> Result<(i32, i64), NotTaken> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 2);
        let is_kept = |name: &str| name != REPLAY_OF && name != REPLAY_APPEND_TIME;
        for (name, content) in record.headers.iter().filter(|(name, _)| is_kept(name)) {
            headers = headers.insert(Header { key: name, value: Some(content.as_ref()) });
        }
        headers = headers.insert(Header { key: REPLAY_OF, value: Some(&letter.id.to_string()) });
        // The first time of all, also where it was replayed before: that is what the time of receipt in it goes with.
        let first = Replay::of(record).and_then(|replay| replay.first_append_ms).or(letter.append_ms);
        if let Some(first) = first {
            headers = headers.insert(Header { key: REPLAY_APPEND_TIME, value: Some(&first.to_string()) });
        }
        let (partition, offset) = self.outcomes.send(record.key.as_deref(), &record.value, headers).await?;
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: SETTLED, value: Some(Settlement::Replayed.name()) })
            .insert(Header { key: REPLAYED_AS, value: Some(&format!("{partition}-{offset}")) });
        self.letters.send(Some(letter.id.to_string().as_bytes()), &[], headers).await?;
        Ok((partition, offset))
    }

    /// Writes down that nothing will come of a dead letter.
    ///
    /// # Errors
    /// When Kafka did not take it within `kafka.delivery_timeout`, cannot, or will not. It can be repeated.
    pub async fn drop_letter(&self, id: DeadLetterId) -> Result<(), NotTaken> {
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: SETTLED, value: Some(Settlement::Dropped.name()) });
        self.letters.send(Some(id.to_string().as_bytes()), &[], headers).await.map(|_| ())
    }

    fn begin_to_read(&self) -> mpsc::Receiver<Result<Record, StreamError>> {
        begin_to_read(&self.config, &self.config.topic(Topic::DeadLetters))
    }
}

/// Records that became dead letters, one by one.
pub struct Originals {
    reading: mpsc::Receiver<Result<Record, StreamError>>,
    wanted: HashSet<DeadLetterId>,
}

impl Originals {
    /// The next of those that are wanted, each once, if there is another.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn next(&mut self) -> Result<Option<(DeadLetterId, Record)>, StreamError> {
        while !self.wanted.is_empty() {
            let Some(record) = self.reading.recv().await else { break };
            let mut record = record?;
            if let Entry::Letter(letter) = Entry::read(&record)
                && self.wanted.remove(&letter.id)
            {
                record.headers.retain(|(name, _)| !name.starts_with(OURS));
                let DeadLetter { partition, offset, append_ms, .. } = *letter;
                return Ok(Some((letter.id, Record { partition, offset, timestamp_ms: append_ms, ..record })));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::dead_letters::{DeadLetters, Rejection};
    use crate::reader::read_to_end;

    const THEN_MS: i64 = 1_790_000_000_123;

    fn record(offset: i64, value: &str) -> Record {
        let header = |name: &str, value: &str| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()));
        Record {
            partition: 3,
            offset,
            timestamp_ms: Some(THEN_MS),
            key: Some(Bytes::from_static(b"T-1")),
            value: Bytes::copy_from_slice(value.as_bytes()),
            headers: vec![header("tenant", "acme"), header("receipt-time-ms", "1790000000000")],
        }
    }

    fn rejection() -> Rejection {
        Rejection { stage: "batch", reason: "`spool_id` is 0".into() }
    }

    async fn one(queue: &DeadLetterQueue, id: DeadLetterId) -> Record {
        let mut originals = queue.records(HashSet::from([id]));
        let (found, record) = originals.next().await.unwrap().unwrap();
        assert_eq!((found, originals.next().await.unwrap()), (id, None));
        record
    }

    #[tokio::test]
    async fn what_was_kept_is_read_back_replayed_and_dropped() {
        let cluster = MockCluster::new(1).unwrap();
        let config = KafkaConfig { brokers: cluster.bootstrap_servers(), ..KafkaConfig::default() };
        let topic = |topic| config.topic(topic);
        cluster.create_topic(&topic(Topic::DeadLetters), 1, 1).unwrap();
        cluster.create_topic(&topic(Topic::Outcomes), 4, 1).unwrap();
        let dead_letters = DeadLetters::new(&config, "rules-7").unwrap();
        let queue = DeadLetterQueue::new(&config).unwrap();
        // The second is kept twice, as happens before it is committed; the third is of another life of the topic.
        let again = Record { timestamp_ms: Some(THEN_MS + 60_000), ..record(77, "again") };
        let keyless = Record { key: None, headers: Vec::new(), ..record(79, "of card 4111111111111111") };
        for record in [&record(77, "first"), &record(78, "second"), &record(78, "second"), &again, &keyless] {
            dead_letters.keep(record, &rejection()).await.unwrap();
        }
        let list = queue.list().await.unwrap();
        let names: Vec<_> = list.iter().map(|letter| letter.id.to_string()).collect();
        assert_eq!(names, ["3-77-1790000000", "3-78-1790000000", "3-77-1790000060", "3-79-1790000000"]);
        let first = DeadLetter {
            id: DeadLetterId { partition: 3, offset: 77, append_s: 1_790_000_000 },
            stage: "batch".into(),
            reason: "`spool_id` is 0".into(),
            topic: topic(Topic::Outcomes),
            partition: 3,
            offset: 77,
            append_ms: Some(THEN_MS),
            kept_ms: list[0].kept_ms,
            rule_set: Some("rules-7".into()),
            program: Some(env!("CARGO_PKG_VERSION").into()),
            tenant: Some("acme".into()),
            terminal: Some("T-1".into()),
            bytes: 5,
            is_redacted: false,
            is_cut: false,
            replay_of: None,
            settled: None,
        };
        assert_eq!(list[0], first);
        assert_eq!((&list[3].tenant, &list[3].terminal, list[3].is_redacted), (&None, &None, true));
        assert_eq!(one(&queue, list[1].id).await, record(78, "second"));
        assert_eq!(one(&queue, list[2].id).await, again);
        assert_eq!(one(&queue, list[3].id).await.key, None);

        let (partition, offset) = queue.replay(&first, &one(&queue, first.id).await).await.unwrap();
        queue.drop_letter(list[1].id).await.unwrap();
        let states: Vec<_> = queue.list().await.unwrap().into_iter().map(|letter| letter.settled).collect();
        let settled = states.iter().map(|settled| settled.as_ref().map(|settled| (settled.how, settled.replayed_as.clone())));
        let as_new = Some(format!("{partition}-{offset}"));
        assert_eq!(settled.collect::<Vec<_>>(), [Some((Settlement::Replayed, as_new)), Some((Settlement::Dropped, None)), None, None]);

        // What was replayed is the record, with what it is a replay of; if it is rejected again, that is another dead letter.
        let outcomes = read_to_end(&config, &topic(Topic::Outcomes)).await.unwrap();
        let [replayed] = outcomes.as_slice() else { panic!("{outcomes:?}") };
        assert_eq!((replayed.key.as_deref(), replayed.value.as_ref()), (Some(b"T-1".as_slice()), b"first".as_slice()));
        let names: Vec<_> = replayed.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tenant", "receipt-time-ms", "replay-of", "replay-append-time-ms"]);
        let replay = Replay { of: first.id.to_string(), first_append_ms: Some(THEN_MS) };
        assert_eq!(Replay::of(replayed), Some(replay));
        let rejected_again = Record { partition: 3, offset: 90, timestamp_ms: Some(THEN_MS + 900_000), ..replayed.clone() };
        dead_letters.keep(&rejected_again, &rejection()).await.unwrap();
        let second = queue.list().await.unwrap().pop().unwrap();
        assert_eq!((second.id.to_string().as_str(), second.replay_of.as_ref()), ("3-90-1790000900", Some(&first.id.to_string())));
        queue.replay(&second, &one(&queue, second.id).await).await.unwrap();
        let last = read_to_end(&config, &topic(Topic::Outcomes)).await.unwrap().pop().unwrap();
        // The time of receipt that it carries is still that of the first time.
        assert_eq!(Replay::of(&last), Some(Replay { of: second.id.to_string(), first_append_ms: Some(THEN_MS) }));
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let id = DeadLetterId { partition: 3, offset: 77, append_s: 1_790_000_000 };
        assert_eq!("3-77-1790000000".parse(), Ok(id));
        assert!(id.is_meant_by("3-77-1790000000") && id.is_meant_by("3-77"));
        assert!(!id.is_meant_by("3-7") && !id.is_meant_by("3-77-1790000001") && !id.is_meant_by(""));
        for wrong in ["", "3", "3-77", "3-77-x", "a-77-1", "3-77-1-2"] {
            assert_eq!(wrong.parse::<DeadLetterId>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_what_was_sent_is_not_replayed() {
        let read = |headers: &[(&str, &'static str)]| {
            let all = [("dead-letter-stage", "batch"), ("dead-letter-partition", "3"), ("dead-letter-offset", "77"), ("tenant", "acme")];
            let header = |(name, value): &(&str, &'static str)| ((*name).to_owned(), Bytes::from_static(value.as_bytes()));
            let headers = all.iter().chain(headers).map(header).collect();
            let Entry::Letter(letter) = Entry::read(&Record { headers, ..Record::default() }) else { panic!("it is a dead letter") };
            *letter
        };
        let redacted = ("dead-letter-redacted", "true");
        for (headers, unfit, even_redacted) in [
            (&[][..], Ok(()), Ok(())),
            (&[("dead-letter-redacted", "false")], Ok(()), Ok(())),
            (&[redacted], Err(Unfit::Redacted), Ok(())),
            (&[redacted, ("tenant", "****************")], Err(Unfit::Nameless), Err(Unfit::Nameless)),
            (&[("dead-letter-cut", "headers")], Err(Unfit::Cut), Err(Unfit::Cut)),
            (&[redacted, ("dead-letter-bytes", "5000000")], Err(Unfit::Cut), Err(Unfit::Cut)),
        ] {
            let letter = read(headers);
            assert_eq!((letter.check_fit(false), letter.check_fit(true)), (unfit, even_redacted), "{headers:?}");
        }
        let large = DeadLetter { bytes: 2 * 1024 * 1024, ..read(&[]) };
        assert_eq!(large.check_fit(true), Err(Unfit::Large));
    }
}

#[cfg(test)]
mod fuzz {
    use bytes::Bytes;
    use faultline_fuzz::target;
    use prost::Message;
    use rdkafka::message::Headers;

    use super::*;
    use crate::card_numbers;
    use crate::dead_letters::{DeadLetters, Rejection};

    #[test]
    fn every_record_of_the_topic_is_a_dead_letter_or_about_one_or_none() {
        let fates = target!(Message, "dead-letter").run(|bytes| {
            let Ok(record) = faultline_fuzz::Record::decode(bytes).map(Record::from) else { return "no record" };
            match Entry::read(&record) {
                Entry::Letter(letter) => {
                    assert_eq!(letter.id.to_string().parse(), Ok(letter.id));
                    assert!(letter.id.is_meant_by(&letter.id.to_string()));
                    assert!(letter.check_fit(false).is_err() || letter.check_fit(true).is_ok());
                    "a dead letter"
                }
                Entry::Settled(id, _) => {
                    assert_eq!(id.to_string().parse(), Ok(id));
                    "settled"
                }
                Entry::Other => "another record",
            }
        });
        fates.include(["a dead letter", "settled", "another record"]);
    }

    #[test]
    fn every_record_can_be_kept_and_is_found_again() {
        let dead_letters = DeadLetters::new(&KafkaConfig::default(), "rules-7").unwrap();
        let fates = target!(Message, "record").run(|bytes| {
            let Ok(record) = faultline_fuzz::Record::decode(bytes).map(Record::from) else { return "no record" };
            let reason = String::from_utf8_lossy(&record.value).into_owned();
            let kept = dead_letters.letter(&record, &Rejection { stage: "batch", reason });
            let headers =
                kept.headers.iter().map(|header| (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default())));
            let kept = Record { key: kept.key.map(Bytes::from), value: kept.value.into(), headers: headers.collect(), ..Record::default() };
            assert!((kept.size() as u64) < LARGEST_DEAD_LETTER);
            let mut parts = vec![kept.key.clone().unwrap_or_default(), kept.value.clone()];
            parts.extend(
                kept.headers.iter().filter(|(name, _)| !name.starts_with(OURS) || name == REASON).map(|(_, content)| content.clone()),
            );
            assert!(parts.into_iter().all(|part| !card_numbers::overwrite(&mut part.to_vec())));
            let letter = match Entry::read(&kept) {
                Entry::Letter(letter) => letter,
                _ if record.partition < 0 || record.offset < 0 => return "of no place",
                _ => panic!("it is not found again"),
            };
            let append_s = record.timestamp_ms.unwrap_or_default().div_euclid(1000);
            assert_eq!(letter.id, DeadLetterId { partition: record.partition, offset: record.offset, append_s });
            assert_eq!((letter.is_cut, letter.bytes), (false, record.value.len() as u64));
            if letter.is_redacted {
                return "redacted";
            }
            let theirs = |record: &Record| record.headers.iter().filter(|(name, _)| !name.starts_with(OURS)).cloned().collect::<Vec<_>>();
            assert_eq!((&kept.key, &kept.value, theirs(&kept)), (&record.key, &record.value, theirs(&record)));
            "kept"
        });
        fates.include(["kept", "redacted"]);
    }
}
