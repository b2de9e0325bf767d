//! The topics, and what is promised of them.

use std::collections::BTreeMap;
use std::fmt;

/// Every topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Batches of outcomes as terminals sent them, one record a batch (`faultline.ingest.v1.OutcomeBatch`), by terminal. Dated by the broker,
    /// since lag and watermark are counted from the moment of arrival.
    Outcomes,
    /// Records that could not be processed, with the reason.
    DeadLetters,
    /// The state of every incident, by incident; compacted.
    Incidents,
    /// Every correction of stored outcomes, by correction; compacted.
    Corrections,
    /// What operators ask of the alerter: acknowledge, silence, maintenance.
    Commands,
}

impl Topic {
    pub(crate) const ALL: [Topic; 5] = [Topic::Outcomes, Topic::DeadLetters, Topic::Incidents, Topic::Corrections, Topic::Commands];

    /// Its name, after the prefix and a dot.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Topic::Outcomes => "outcomes",
            Topic::DeadLetters => "dead-letters",
            Topic::Incidents => "incidents",
            Topic::Corrections => "corrections",
            Topic::Commands => "commands",
        }
    }
}

/// What a topic needs so that the loss of one machine loses nothing that was acknowledged.
const LEAST_REPLICAS: u32 = 3;
const LEAST_IN_SYNC: u32 = 2;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MIB: u64 = 1024 * 1024;
/// Largest record of the outcomes topic, in bytes: a batch is at most 1 MiB, and has headers.
pub(crate) const LARGEST_OUTCOMES: u64 = 2 * MIB;
/// Largest record of the dead-letter topic, in bytes: one of another topic, and why it is here.
pub(crate) const LARGEST_DEAD_LETTER: u64 = 2 * LARGEST_OUTCOMES;

/// Largest record of the corrections topic, in bytes: a step of a correction has thousands of outcomes. None of a topic with one writer is larger.
pub(crate) const LARGEST_CORRECTION: u64 = 4 * MIB;

/// A topic as Faultline wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) topic: Topic,
    pub(crate) name: String,
    pub(crate) partitions: u32,
    pub(crate) replicas: u32,
    pub(crate) settings: BTreeMap<&'static str, String>,
}

/// How safe the topics that are created are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Safety {
    pub(crate) replicas: u32,
    pub(crate) min_insync_replicas: u32,
}

impl Wanted {
    pub(crate) fn new(topic: Topic, name: String, outcome_partitions: u32, safety: Safety) -> Wanted {
        let keep_days = |days: u64| ("retention.ms", (days * DAY_MS).to_string());
        let largest = |bytes: u64| ("max.message.bytes", bytes.to_string());
        let (delete, compact) = (("cleanup.policy", "delete".to_owned()), ("cleanup.policy", "compact".to_owned()));
        let own = match topic {
            Topic::Outcomes => {
                vec![delete, keep_days(7), largest(LARGEST_OUTCOMES), ("message.timestamp.type", "LogAppendTime".to_owned())]
            }
            Topic::DeadLetters => vec![delete, keep_days(30), largest(LARGEST_DEAD_LETTER)],
            Topic::Corrections => vec![compact, largest(LARGEST_CORRECTION)],
            Topic::Incidents => vec![compact],
            Topic::Commands => vec![delete, keep_days(30)],
        };
        let common =
            [("min.insync.replicas", safety.min_insync_replicas.to_string()), ("unclean.leader.election.enable", "false".to_owned())];
        let partitions = if topic == Topic::Outcomes { outcome_partitions } else { 1 };
        Wanted { topic, name, partitions, replicas: safety.replicas, settings: own.into_iter().chain(common).collect() }
    }
}

/// A topic as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) partitions: u32,
    /// Of the partition that has the fewest.
    pub(crate) replicas: u32,
    /// Effective settings, the broker's defaults included.
    pub(crate) settings: BTreeMap<String, String>,
}

impl Found {
    /// A topic as it will be when it is created as wanted.
    pub(crate) fn created(wanted: &Wanted) -> Found {
        let settings = wanted.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Found { partitions: wanted.partitions, replicas: wanted.replicas, settings }
    }
}

impl Wanted {
    /// What of `found` would make Faultline wrong, whatever the operator accepts: the number of partitions decides where a terminal's
    /// records are, and must be what everyone believes it is.
    pub(crate) fn contradiction(&self, found: &Found) -> Option<String> {
        if found.partitions != self.partitions {
            let key = match self.topic {
                Topic::Outcomes => {
                    " (`kafka.partitions`, or `local.kafka_partitions` on one machine; the number is fixed for the topic's life)"
                }
                _ => "",
            };
            return Some(format!("has {} partitions, and is to have {}{key}", found.partitions, self.partitions));
        }
        let differs = ["cleanup.policy", "message.timestamp.type"].iter().find_map(|name| {
            let wanted = self.settings.get(name)?;
            let is = found.settings.get(*name)?;
            (wanted != is).then(|| format!("has {name}={is}, and is to have {wanted}"))
        });
        differs.or_else(|| {
            let (wanted, is) = self.less_than_wanted(found, "max.message.bytes")?;
            Some(format!("has max.message.bytes={is}, so it would refuse records that are to be taken; it is to have at least {wanted}"))
        })
    }

    /// A numeric setting that is smaller than wanted: what is wanted, and what is. -1 stands for "no limit".
    fn less_than_wanted(&self, found: &Found, name: &str) -> Option<(i64, i64)> {
        let wanted = self.settings.get(name)?.parse().ok()?;
        let is = found.settings.get(name)?.parse().ok()?;
        (is != -1 && is < wanted).then_some((wanted, is))
    }

    /// What of `found` lets the loss of one machine, or a stop of some days, lose acknowledged records.
    pub(crate) fn weaknesses(&self, found: &Found) -> Vec<Weakness> {
        let retention =
            self.less_than_wanted(found, "retention.ms").map(|(wanted, is)| format!("retention.ms={is}, at least {wanted} are needed"));
        found.lost_with_a_machine().chain(retention).map(|what| Weakness { topic: self.name.clone(), what }).collect()
    }
}

impl Found {
    /// What lets the loss of one machine lose acknowledged records.
    fn lost_with_a_machine(&self) -> impl Iterator<Item = String> {
        let setting = |name: &str| self.settings.get(name).map(String::as_str);
        let min_insync_replicas = setting("min.insync.replicas").and_then(|value| value.parse().ok()).unwrap_or(1);
        let replicas = (self.replicas < LEAST_REPLICAS).then(|| format!("{} of at least {LEAST_REPLICAS} replicas", self.replicas));
        let insync = (min_insync_replicas < LEAST_IN_SYNC)
            .then(|| format!("min.insync.replicas={min_insync_replicas}, at least {LEAST_IN_SYNC} are needed"));
        let unclean = (setting("unclean.leader.election.enable") == Some("true")).then(|| "unclean.leader.election.enable=true".to_owned());
        [replicas, insync, unclean].into_iter().flatten()
    }
}

/// A topic of Kafka's own that has to be as safe as those of Faultline. Kafka makes it when it is first needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KafkasOwn {
    /// How far groups came: of the classifiers, with what they have begun.
    Offsets,
    /// Who may write the topics that have one writer.
    Transactions,
}

impl KafkasOwn {
    pub(crate) const ALL: [KafkasOwn; 2] = [KafkasOwn::Offsets, KafkasOwn::Transactions];

    pub(crate) fn name(self) -> &'static str {
        match self {
            KafkasOwn::Offsets => "__consumer_offsets",
            KafkasOwn::Transactions => "__transaction_state",
        }
    }

    /// The settings of brokers by which it is made, each with the least that it has to be, and what it is where nothing is said.
    fn made_by(self) -> [(&'static str, u32, u32); 2] {
        match self {
            KafkasOwn::Offsets => [("offsets.topic.replication.factor", LEAST_REPLICAS, 3), ("min.insync.replicas", LEAST_IN_SYNC, 1)],
            KafkasOwn::Transactions => {
                [("transaction.state.log.replication.factor", LEAST_REPLICAS, 3), ("transaction.state.log.min.isr", LEAST_IN_SYNC, 2)]
            }
        }
    }

    /// What of the topic, as it is, lets the loss of one machine lose what was committed.
    pub(crate) fn weaknesses(self, found: &Found) -> Vec<Weakness> {
        let name = self.name();
        let mend = |what: &str| match what {
            _ if what.ends_with("replicas") => "kafka-reassign-partitions.sh gives it more".to_owned(),
            _ => format!("kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config sets it"),
        };
        let weaknesses = found.lost_with_a_machine().map(|what| Weakness { topic: name.into(), what: format!("{what} ({})", mend(&what)) });
        weaknesses.collect()
    }

    /// The same, where it is not there yet: of the settings by which a broker would make it.
    pub(crate) fn weaknesses_to_be(self, broker: i32, settings: &BTreeMap<String, String>) -> Vec<Weakness> {
        let number = |name, default| settings.get(name).and_then(|value| value.parse().ok()).unwrap_or(default);
        let low = self.made_by().into_iter().filter_map(|(name, least, default)| {
            let is: u32 = number(name, default);
            (is < least).then(|| format!("{name}={is}, at least {least} are needed"))
        });
        // What is said of transactions is always elected among those in sync.
        let unclean = settings.get("unclean.leader.election.enable").filter(|value| self == KafkasOwn::Offsets && *value == "true");
        let unclean = unclean.map(|_| "unclean.leader.election.enable=true".to_owned());
        let weakness = |what| Weakness {
            topic: self.name().into(),
            what: format!("is not there yet, and broker {broker} would make it with {what} (a setting of brokers)"),
        };
        low.chain(unclean).map(weakness).collect()
    }
}

/// Something about a topic that lets acknowledged records be lost: with one machine, or during a stop of some days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakness {
    /// Name of the topic.
    pub topic: String,
    /// What is weak about it.
    pub what: String,
}

impl fmt::Display for Weakness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.topic, self.what)
    }
}

/// What became of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// It was missing, and was created.
    Created,
    /// It was there, and is as it should be.
    Present,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(topic: Topic) -> Wanted {
        Wanted::new(topic, format!("faultline.{}", topic.suffix()), 32, Safety { replicas: 3, min_insync_replicas: 2 })
    }

    #[test]
    fn a_topic_as_wanted_is_sound() {
        for topic in Topic::ALL {
            let found = Found::created(&wanted(topic));
            assert_eq!(wanted(topic).contradiction(&found), None);
            assert_eq!(wanted(topic).weaknesses(&found), []);
        }
    }

    #[test]
    fn another_number_of_partitions_is_refused() {
        let found = Found { partitions: 12, ..Found::created(&wanted(Topic::Outcomes)) };
        let why = wanted(Topic::Outcomes).contradiction(&found).unwrap();
        assert!(why.contains("12 partitions") && why.contains("to have 32") && why.contains("kafka.partitions"), "{why}");
    }

    #[test]
    fn a_topic_that_would_refuse_legal_records_is_refused() {
        let mut found = Found::created(&wanted(Topic::Outcomes));
        found.settings.insert("max.message.bytes".into(), "10000".into());
        assert!(wanted(Topic::Outcomes).contradiction(&found).unwrap().contains("max.message.bytes=10000"));
        found.settings.insert("max.message.bytes".into(), "10000000".into());
        assert_eq!(wanted(Topic::Outcomes).contradiction(&found), None);
    }

    #[test]
    fn records_dated_by_their_producer_are_refused() {
        let mut found = Found::created(&wanted(Topic::Outcomes));
        found.settings.insert("message.timestamp.type".into(), "CreateTime".into());
        assert!(wanted(Topic::Outcomes).contradiction(&found).unwrap().contains("LogAppendTime"));
    }

    #[test]
    fn every_weakness_is_named() {
        let mut found = Found { replicas: 1, ..Found::created(&wanted(Topic::Outcomes)) };
        found.settings.insert("min.insync.replicas".into(), "1".into());
        found.settings.insert("unclean.leader.election.enable".into(), "true".into());
        found.settings.insert("retention.ms".into(), "60000".into());
        let weaknesses = wanted(Topic::Outcomes).weaknesses(&found);
        let text = weaknesses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        for part in [
            "faultline.outcomes: 1 of at least 3 replicas",
            "min.insync.replicas=1",
            "unclean.leader.election.enable=true",
            "retention.ms=60000",
        ] {
            assert!(text.contains(part), "{part} is missing from {text}");
        }
    }

    fn settings(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn of_kafkas_own_topics_every_weakness_is_named_and_how_to_mend_it() {
        let said = |weaknesses: Vec<Weakness>| weaknesses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        for own in KafkasOwn::ALL {
            let sound = Found { partitions: 50, replicas: 3, settings: settings(&[("min.insync.replicas", "2")]) };
            assert_eq!(own.weaknesses(&sound), []);
            let weak = said(own.weaknesses(&Found { replicas: 1, settings: settings(&[("min.insync.replicas", "1")]), ..sound }));
            for part in ["1 of at least 3 replicas", "kafka-reassign-partitions.sh", "min.insync.replicas=1, at least 2", own.name()] {
                assert!(weak.contains(part), "{part} is missing from {weak}");
            }
        }
    }

    #[test]
    fn where_kafkas_own_topics_are_not_there_brokers_say_what_they_would_be() {
        let to_be = |own: KafkasOwn, given: &[(&str, &str)]| {
            own.weaknesses_to_be(7, &settings(given)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(to_be(KafkasOwn::Offsets, &[("offsets.topic.replication.factor", "3"), ("min.insync.replicas", "2")]), [""; 0]);
        assert_eq!(to_be(KafkasOwn::Transactions, &[("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")]), [""; 0]);
        // Kafka's defaults, of which one is too low.
        let [said] = to_be(KafkasOwn::Offsets, &[]).try_into().unwrap();
        assert_eq!(
            said,
            "__consumer_offsets: is not there yet, and broker 7 would make it with min.insync.replicas=1, at least 2 are needed (a setting of brokers)"
        );
        let weak = [("transaction.state.log.replication.factor", "1"), ("transaction.state.log.min.isr", "1")];
        let said = to_be(KafkasOwn::Transactions, &weak);
        assert!(
            said[0].contains("transaction.state.log.replication.factor=1") && said[1].contains("transaction.state.log.min.isr=1"),
            "{said:?}"
        );
        let unclean = [("min.insync.replicas", "2"), ("unclean.leader.election.enable", "true")];
        assert!(to_be(KafkasOwn::Offsets, &unclean)[0].contains("unclean.leader.election.enable=true"));
    }
}
