//! A record of the outcomes topic: one batch as its terminal sent it, and what the gateway knows of it.
//!
//! | part | content |
//! |---|---|
//! | key | terminal |
//! | value | `faultline.ingest.v1.OutcomeBatch`: the accepted events byte for byte |
//! | header `contract` | `faultline.ingest.v1`: what the value is |
//! | header `tenant` | tenant, from the credential |
//! | header `receipt-time-ms` | when the gateway received the batch, in milliseconds since 1970-01-01 UTC, decimal |
//! | header `profile` | `faultline.terminal.v1.TerminalProfile` that holds for the batch; absent where none is known |
//! | header `traceparent` | W3C Trace Context of a trace that is sampled; absent elsewhere |
//! | header `replay-of` | the dead letter that it was ([`crate::DeadLetterId`]), in a record that an operator brought back; absent elsewhere |
//! | header `replay-append-time-ms` | when Kafka took it the first time, in milliseconds since 1970-01-01 UTC, decimal; in such a record |

use bytes::Bytes;

use crate::reader::Record;

pub(crate) const CONTRACT: &str = "contract";
pub(crate) const TENANT: &str = "tenant";
pub(crate) const RECEIPT_TIME: &str = "receipt-time-ms";
pub(crate) const PROFILE: &str = "profile";
pub(crate) const TRACE_PARENT: &str = "traceparent";
pub(crate) const REPLAY_OF: &str = "replay-of";
pub(crate) const REPLAY_APPEND_TIME: &str = "replay-append-time-ms";

/// What a value is that holds an `OutcomeBatch` of version 1.
pub(crate) const CONTRACT_V1: &str = "faultline.ingest.v1";

/// One batch as its terminal sent it, and what the gateway knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeRecord {
    /// The tenant, from the credential.
    pub tenant: String,
    /// The terminal.
    pub terminal: String,
    /// When the gateway received the batch, in milliseconds since 1970-01-01 UTC.
    pub receipt_ms: i64,
    /// The encoded profile (`faultline.terminal.v1.TerminalProfile`) that holds for the batch; empty where none is known.
    pub profile: Bytes,
    /// The trace that the batch belongs to.
    pub trace_parent: Option<String>,
    /// The encoded batch (`faultline.ingest.v1.OutcomeBatch`).
    pub batch: Bytes,
}

/// What a record says that was a dead letter, and was brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The dead letter that it was.
    pub of: String,
    /// When Kafka took the record the first time, in milliseconds since 1970-01-01 UTC.
    pub first_append_ms: Option<i64>,
}

impl Replay {
    /// Reads it from the headers of a record; none where it is not one.
    #[must_use]
    pub fn of(record: &Record) -> Option<Replay> {
        let text = |name| record.header(name).map(|value| String::from_utf8_lossy(value));
        let of = text(REPLAY_OF)?.into_owned();
        Some(Replay { of, first_append_ms: text(REPLAY_APPEND_TIME).and_then(|time| time.parse().ok()) })
    }
}

/// Why a record is not one of a batch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It has no key.
    #[error("the record has no terminal: its key is missing or not UTF-8")]
    Terminal,
    /// A header that every record has is missing or not readable.
    #[error("header `{0}` is missing or cannot be read")]
    Header(&'static str),
    /// Its value is of another contract.
    #[error("the value is of contract `{0}`, and this program reads `{CONTRACT_V1}`")]
    Contract(String),
}

impl TryFrom<&Record> for OutcomeRecord {
    type Error = RecordError;

    fn try_from(record: &Record) -> Result<OutcomeRecord, RecordError> {
        let text = |name: &'static str| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let required = |name| text(name).ok_or(RecordError::Header(name));
        let contract = required(CONTRACT)?;
        if contract != CONTRACT_V1 {
            return Err(RecordError::Contract(contract.chars().take(64).collect()));
        }
        let terminal = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).ok_or(RecordError::Terminal)?;
        Ok(OutcomeRecord {
            tenant: required(TENANT)?.to_owned(),
            terminal: terminal.to_owned(),
            receipt_ms: required(RECEIPT_TIME)?.parse().map_err(|_| RecordError::Header(RECEIPT_TIME))?,
            profile: record.header(PROFILE).cloned().unwrap_or_default(),
            trace_parent: text(TRACE_PARENT).map(str::to_owned),
            batch: record.value.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let header = |name: &str, value: &str| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()));
        Record {
            key: Some(Bytes::from_static(b"T-1")),
            value: Bytes::from_static(b"batch"),
            headers: vec![header(CONTRACT, CONTRACT_V1), header(TENANT, "acme"), header(RECEIPT_TIME, "1790000000000")],
            ..Record::default()
        }
    }

    #[test]
    fn what_every_record_has_is_enough() {
        let read = OutcomeRecord::try_from(&record()).unwrap();
        assert_eq!((read.tenant.as_str(), read.terminal.as_str(), read.receipt_ms), ("acme", "T-1", 1_790_000_000_000));
        assert_eq!((read.profile, read.trace_parent, read.batch), (Bytes::new(), None, Bytes::from_static(b"batch")));
    }

    #[test]
    fn what_is_missing_is_named() {
        for name in [CONTRACT, TENANT, RECEIPT_TIME] {
            let mut record = record();
            record.headers.retain(|(header, _)| header != name);
            assert_eq!(OutcomeRecord::try_from(&record), Err(RecordError::Header(name)));
        }
        assert_eq!(OutcomeRecord::try_from(&Record { key: None, ..record() }), Err(RecordError::Terminal));
    }

    #[test]
    fn a_record_of_another_contract_is_not_read_as_one_of_this() {
        let mut record = record();
        record.headers[0].1 = Bytes::from_static(b"faultline.ingest.v2");
        assert_eq!(OutcomeRecord::try_from(&record), Err(RecordError::Contract("faultline.ingest.v2".into())));
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;
    use prost::Message;

    use super::*;

    #[test]
    fn a_record_is_read_as_it_is_or_what_is_missing_is_named() {
        let fates = target!(Message, "record").run(|bytes| {
            let Ok(record) = faultline_fuzz::Record::decode(bytes).map(Record::from) else { return "no record" };
            let replay = Replay::of(&record);
            assert_eq!(replay.is_some(), record.header(REPLAY_OF).is_some());
            match OutcomeRecord::try_from(&record) {
                Ok(read) => {
                    let header = |name| record.header(name).map(AsRef::as_ref);
                    assert_eq!(header(TENANT), Some(read.tenant.as_bytes()));
                    assert_eq!(record.key.as_deref(), Some(read.terminal.as_bytes()));
                    assert_eq!(header(PROFILE).unwrap_or_default(), read.profile);
                    assert_eq!((header(CONTRACT), &read.batch), (Some(CONTRACT_V1.as_bytes()), &record.value));
                    assert_eq!(std::str::from_utf8(header(RECEIPT_TIME).unwrap()).unwrap().parse(), Ok(read.receipt_ms));
                    if replay.is_some() { "read, a replay" } else { "read" }
                }
                Err(RecordError::Contract(contract)) => {
                    assert!(contract != CONTRACT_V1 && contract.chars().count() <= 64);
                    "of another contract"
                }
                Err(RecordError::Header(name)) => {
                    assert!([CONTRACT, TENANT, RECEIPT_TIME].contains(&name));
                    "without a header"
                }
                Err(RecordError::Terminal) => "without a terminal",
            }
        });
        fates.include(["read", "read, a replay", "of another contract", "without a header", "without a terminal"]);
    }
}
