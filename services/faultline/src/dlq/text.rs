//! Dead letters as people see them. What is in them was written by somebody else: nothing of it reaches a terminal as a command.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use faultline_stream::{DeadLetter, Record, Settled, card_numbers};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Serialize;
use serde_json::Value;

use crate::columns::{self, Column, line};

/// What a value is to be, and the header that has a message too.
const BATCH: &str = "faultline.ingest.v1.OutcomeBatch";
const PROFILE: (&str, &str) = ("profile", "faultline.terminal.v1.TerminalProfile");
/// How much is shown of bytes that are no message.
const BYTES_SHOWN: usize = 256;
const BYTES_A_LINE: usize = 16;

/// A dead letter with its record.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    #[serde(flatten)]
    letter: &'a DeadLetter,
    headers: BTreeMap<String, Content>,
    value: Content,
}

/// Bytes, as what they mean.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Content {
    Text(String),
    /// A message of the contract, in the JSON of Protocol Buffers. What a newer contract has beside is not in it.
    Message(Value),
    /// The first bytes of what is neither, in hexadecimal digits, and why it is not a message where it was to be one.
    Bytes {
        hex: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        no_message: Option<String>,
    },
}

impl<'a> Shown<'a> {
    pub(crate) fn new(letter: &'a DeadLetter, record: &Record) -> anyhow::Result<Shown<'a>> {
        let contract = DescriptorPool::decode(faultline_proto::DESCRIPTORS).context("the contract of this program cannot be read")?;
        let headers = record.headers.iter().map(|(name, content)| {
            let content = match std::str::from_utf8(content) {
                _ if name == PROFILE.0 => Content::message(&contract, PROFILE.1, content),
                Ok(text) => Content::Text(text.to_owned()),
                Err(_) => Content::bytes(content, None),
            };
            (name.clone(), content)
        });
        Ok(Shown { letter, headers: headers.collect(), value: Content::message(&contract, BATCH, &record.value) })
    }
}

impl Content {
    fn message(contract: &DescriptorPool, name: &str, bytes: &[u8]) -> Content {
        let Some(descriptor) = contract.get_message_by_name(name) else { return Content::bytes(bytes, None) };
        let read = DynamicMessage::decode(descriptor, bytes).map_err(|error| error.to_string()).and_then(|message| {
            let options = SerializeOptions::new().use_proto_field_name(true);
            message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())
        });
        match read {
            Ok(mut message) => {
                overwrite(&mut message);
                Content::Message(message)
            }
            Err(error) => Content::bytes(bytes, Some(format!("not a {name}: {error}"))),
        }
    }

    fn bytes(bytes: &[u8], no_message: Option<String>) -> Content {
        let shown: Vec<String> = bytes.iter().take(BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
        // A card number that was packed into bytes was not overwritten when it was kept; written out, it would be one.
        Content::Bytes { hex: card_numbers::overwritten(&shown.join(" ")), no_message }
    }
}

/// Overwrites card numbers in a message. Its texts have none any more, but there may be one in a number, which is packed too, and a text in this JSON. A
/// spool's own name is a number by chance, which mostly looks like one.
fn overwrite(message: &mut Value) {
    match message {
        Value::String(text) => *text = card_numbers::overwritten(text),
        Value::Array(values) => values.iter_mut().for_each(overwrite),
        Value::Object(fields) => fields.iter_mut().filter(|(name, _)| *name != "spool_id").for_each(|(_, value)| overwrite(value)),
        _ => {}
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = self.letter;
        let unknown = || "not known".to_owned();
        let known = |text: &Option<String>| text.clone().unwrap_or_else(unknown);
        writeln!(formatter, "Dead letter {}", letter.id)?;
        let place = format!(
            "{}, partition {}, offset {}, taken by Kafka {}",
            letter.topic,
            letter.partition,
            letter.offset,
            time(letter.append_ms)
        );
        for (name, said) in [
            ("state", state(letter)),
            ("stage", letter.stage.clone()),
            ("reason", letter.reason.clone()),
            ("record", place),
            ("kept", time(letter.kept_ms)),
            ("rule set", known(&letter.rule_set)),
            ("program", known(&letter.program)),
            ("tenant", known(&letter.tenant)),
            ("terminal", known(&letter.terminal)),
            ("replay of", letter.replay_of.clone().unwrap_or_else(|| "nothing".to_owned())),
            ("redacted", if letter.is_redacted { "yes: what looked like card numbers was overwritten (*)" } else { "no" }.to_owned()),
            ("cut short", if letter.is_cut { "yes: it was too large to be kept whole" } else { "no" }.to_owned()),
        ] {
            writeln!(formatter, "  {name:<10} {}", line(&said))?;
        }
        for (name, content) in &self.headers {
            write!(formatter, "  header {}", line(name))?;
            content.write(formatter, "    ")?;
        }
        write!(formatter, "  value      {} bytes", letter.bytes)?;
        self.value.write(formatter, "    ")
    }
}

impl Content {
    /// Goes on in a line that says what it is of.
    fn write(&self, formatter: &mut fmt::Formatter<'_>, indent: &str) -> fmt::Result {
        match self {
            Content::Text(text) => writeln!(formatter, ": {}", line(text)),
            Content::Message(message) => {
                writeln!(formatter, ":")?;
                let json = serde_json::to_string_pretty(message).map_err(|_| fmt::Error)?;
                json.lines().try_for_each(|text| writeln!(formatter, "{indent}{}", line(text)))
            }
            Content::Bytes { hex, no_message } => {
                let why = no_message.as_ref().map(|why| format!(", {}", line(why))).unwrap_or_default();
                writeln!(formatter, "{why}; the first of them:")?;
                let bytes: Vec<&str> = hex.split(' ').collect();
                bytes.chunks(BYTES_A_LINE).try_for_each(|bytes| writeln!(formatter, "{indent}{}", bytes.join(" ")))
            }
        }
    }
}

/// The columns of the table.
const COLUMNS: [Column<DeadLetter>; 8] = [
    ("NAME", |letter| letter.id.to_string()),
    ("KEPT", |letter| time(letter.kept_ms)),
    ("STAGE", |letter| letter.stage.clone()),
    ("TENANT", |letter| letter.tenant.clone().unwrap_or_default()),
    ("TERMINAL", |letter| letter.terminal.clone().unwrap_or_default()),
    ("NOTE", notes),
    ("SETTLED", |letter| letter.settled.as_ref().map(|settled| settled.how.name().to_owned()).unwrap_or_default()),
    ("REASON", |letter| letter.reason.clone()),
];

fn notes(letter: &DeadLetter) -> String {
    let notes = [(letter.is_redacted, "redacted"), (letter.is_cut, "cut"), (letter.replay_of.is_some(), "replay")];
    notes.into_iter().filter(|(is_so, _)| *is_so).map(|(_, note)| note).collect::<Vec<_>>().join(",")
}

/// Dead letters in columns, as wide as the terminal.
pub(crate) fn table(letters: &[&DeadLetter]) -> String {
    columns::table(&COLUMNS, letters)
}

/// How many there are, by what became of them and by stage.
pub(crate) fn summary(letters: &[&DeadLetter]) -> String {
    let (settled, open): (Vec<&DeadLetter>, Vec<&DeadLetter>) = letters.iter().partition(|letter| letter.settled.is_some());
    let count = |names: Vec<&str>| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in names {
            *counts.entry(name).or_default() += 1;
        }
        counts.iter().map(|(name, number)| format!("{number} {}", line(name))).collect::<Vec<_>>().join(", ")
    };
    let stages = count(open.iter().map(|letter| letter.stage.as_str()).collect());
    let fates = count(settled.iter().filter_map(|letter| Some(letter.settled.as_ref()?.how.name())).collect());
    let mut text = match open.len() {
        0 => "No dead letter is open".to_owned(),
        1 => format!("1 dead letter is open (by stage: {stages})"),
        several => format!("{several} dead letters are open (by stage: {stages})"),
    };
    if !settled.is_empty() {
        text.push_str(&format!("; settled: {fates}"));
    }
    text + "."
}

/// So many dead letters.
pub(crate) fn dead_letters(number: usize) -> String {
    format!("{number} dead letter{}", if number == 1 { "" } else { "s" })
}

/// A dead letter and whose it is.
pub(crate) fn named(letter: &DeadLetter) -> String {
    let whose = |text: &Option<String>| text.as_deref().map_or_else(|| "?".to_owned(), line);
    format!("{} of {}/{}", letter.id, whose(&letter.tenant), whose(&letter.terminal))
}

/// A moment in milliseconds since 1970-01-01 UTC.
pub(crate) fn time(unix_ms: Option<i64>) -> String {
    let Some(since) = unix_ms.and_then(|unix_ms| u64::try_from(unix_ms).ok()) else { return "at an unknown time".to_owned() };
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(since)).filter(|moment| *moment < year_9999());
    moment.map_or_else(|| "at an unknown time".to_owned(), |moment| humantime::format_rfc3339_seconds(moment).to_string())
}

/// The last moment that can be written.
fn year_9999() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(253_402_300_799)
}

fn state(letter: &DeadLetter) -> String {
    let Some(Settled { how, at_ms, replayed_as }) = &letter.settled else { return "open".to_owned() };
    let place = replayed_as.as_ref().map(|place| format!(" as {}", line(place))).unwrap_or_default();
    format!("{}{place}, {}", how.name(), time(*at_ms))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use faultline_proto::ingest::v1::{Event, OutcomeBatch};
    use faultline_proto::outcome::v1::{Outcome, Stage};
    use faultline_stream::{DeadLetterId, Settlement};
    use prost::Message;

    use super::*;

    const THEN_MS: i64 = 1_790_000_000_123;

    fn letter() -> DeadLetter {
        DeadLetter {
            id: DeadLetterId { partition: 3, offset: 77, append_s: 1_790_000_000 },
            stage: "batch".into(),
            reason: "`spool_id` is 0".into(),
            topic: "faultline.outcomes".into(),
            partition: 3,
            offset: 77,
            append_ms: Some(THEN_MS),
            kept_ms: Some(THEN_MS + 1000),
            rule_set: Some("rules-7".into()),
            program: Some("0.1.0".into()),
            tenant: Some("acme".into()),
            terminal: Some("T-1".into()),
            bytes: 5,
            is_redacted: false,
            is_cut: false,
            replay_of: None,
            settled: None,
        }
    }

    fn record(value: Vec<u8>) -> Record {
        let headers = vec![("tenant".to_owned(), Bytes::from_static(b"acme")), ("profile".to_owned(), Bytes::from_static(b"\xFF\x01"))];
        Record { headers, value: value.into(), ..Record::default() }
    }

    #[test]
    fn a_batch_is_shown_as_what_it_means() {
        let outcome =
            Outcome { stage: Stage::Wait.into(), amount_minor: 1234, diagnostic: "no\u{1b}[2J answer".into(), ..Outcome::default() };
        let of_card = Event { sequence: 6_212_345_678_901_232, ..Event::default() };
        let events = vec![Event { sequence: 5, age_ms: Some(100), outcome: Some(outcome) }, of_card];
        let batch = OutcomeBatch { spool_id: 14_111_111_111_111_111_119, events, ..OutcomeBatch::default() };
        let (letter, record) = (letter(), record(batch.encode_to_vec()));
        let shown = Shown::new(&letter, &record).unwrap();
        let text = shown.to_string();
        for part in [
            "Dead letter 3-77-1790000000\n  state      open\n  stage      batch\n  reason     `spool_id` is 0\n",
            "  record     faultline.outcomes, partition 3, offset 77, taken by Kafka 2026-09-21T14:13:20Z\n",
            "  rule set   rules-7\n",
            "  header profile, not a faultline.terminal.v1.TerminalProfile: ",
            "    ff 01\n",
            "  header tenant: acme\n  value      5 bytes:\n",
            "\"stage\": \"STAGE_WAIT\"",
            "\"amount_minor\": \"1234\"",
            "\"spool_id\": \"14111111111111111119\"",
            "\"sequence\": \"****************\"",
        ] {
            assert!(text.contains(part), "{part} is missing from {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        let json: Value = serde_json::to_value(&shown).unwrap();
        assert_eq!((&json["id"], &json["headers"]["tenant"]["text"]), (&Value::from("3-77-1790000000"), &Value::from("acme")));
        assert_eq!(json["value"]["message"]["events"][0]["outcome"]["stage"], "STAGE_WAIT");
    }

    #[test]
    fn what_is_no_batch_is_shown_as_bytes_and_a_card_number_is_not() {
        // EMV tag 5A: the number, two digits a byte.
        let packed = [&[0xFF, 0xFF, 0x5A, 0x08, 0x62, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x32][..], &[0xEE; 500]].concat();
        let (letter, record) = (letter(), record(packed));
        let text = Shown::new(&letter, &record).unwrap().to_string();
        assert!(text.contains("    ff ff 5a 08 ** ** ** ** ** ** ** ** ee ee ee ee\n    ee"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("    ee")).count(), (BYTES_SHOWN - BYTES_A_LINE) / BYTES_A_LINE);
    }

    #[test]
    fn a_table_has_the_columns_that_say_something() {
        let replayed = Some(Settled { how: Settlement::Replayed, at_ms: None, replayed_as: None });
        let long = DeadLetter { reason: "\u{1b}[31m long".into(), terminal: None, is_redacted: true, settled: replayed, ..letter() };
        let (short, table) = (letter(), |letters: &[&DeadLetter]| columns::table_within(&COLUMNS, letters, 140));
        assert_eq!(
            table(&[&short]),
            "NAME             KEPT                  STAGE  TENANT  TERMINAL  REASON\n\
             3-77-1790000000  2026-09-21T14:13:21Z  batch  acme    T-1       `spool_id` is 0\n"
        );
        let both = table(&[&short, &long]);
        assert!(both.contains("NOTE") && both.contains("redacted  replayed  \\u{1b}[31m long"), "{both}");
        assert_eq!(table(&[]), "");
        assert_eq!(summary(&[&short, &short, &long]), "2 dead letters are open (by stage: 2 batch); settled: 1 replayed.");
        assert_eq!(summary(&[]), "No dead letter is open.");
    }
}
