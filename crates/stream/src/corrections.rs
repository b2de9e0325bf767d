//! The corrections topic: every correction of stored outcomes, and the step that may be half done. It has one writer at a time (`fenced.rs`), so
//! two corrections are never made at once.
//!
//! | part | content |
//! |---|---|
//! | key | identifier of the correction |
//! | value | `faultline.correction.v1.Correction` |

use faultline_proto::correction::v1::Correction;
use prost::{DecodeError, Message};

use crate::client::{KafkaConfig, StreamError};
use crate::fenced::{FencedLog, LogError, read_last};
use crate::topics::Topic;

/// What the contract lets a correction have.
const LONGEST_ID: usize = 16;
const LONGEST_TENANT: usize = 64;
const MOST_CHANGES: usize = 65_536;
const LARGEST_NUMBER: u64 = i64::MAX as u64;

/// Why a record is not a correction.
#[derive(Debug, PartialEq, thiserror::Error)]
enum NoCorrection {
    /// Its value is none.
    #[error(transparent)]
    Value(#[from] DecodeError),
    /// A field has a value that Faultline never gives it.
    #[error("`{0}` is beyond its limits")]
    Field(&'static str),
}

/// Reads a record. Of a step, what its rows would be is left to who makes them.
fn read(key: &[u8], value: &[u8]) -> Result<Correction, NoCorrection> {
    let correction = Correction::decode(value)?;
    let is_id = |text: &str| text.len() <= LONGEST_ID && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let (id, tenant) = (&correction.correction_id, &correction.tenant);
    let is_number = |number: u64| number <= LARGEST_NUMBER;
    let fields = [
        // What is written of it later must replace this record. The name is part of what its steps are called.
        ("correction_id", is_id(id) && !id.is_empty() && id.as_bytes() == key),
        ("undone_correction_id", is_id(&correction.undone_correction_id)),
        ("tenant", (1..=LONGEST_TENANT).contains(&tenant.len()) && tenant.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')),
        ("changes", correction.changes.len() <= MOST_CHANGES && correction.changes.iter().all(|change| is_number(change.count))),
        ("next_step", is_number(correction.next_step)),
        ("step", correction.step.as_ref().is_none_or(|step| step.number < correction.next_step)),
    ];
    match fields.into_iter().find(|(_, is_within)| !is_within) {
        Some((field, _)) => Err(NoCorrection::Field(field)),
        None => Ok(correction),
    }
}

/// The corrections topic in the hands of its writer.
pub struct CorrectionLog {
    log: FencedLog,
}

impl CorrectionLog {
    /// Every correction that was ever begun, the first begun first.
    ///
    /// # Errors
    /// When Kafka does not answer, or the configuration is not one.
    pub async fn read(config: &KafkaConfig) -> Result<Vec<Correction>, StreamError> {
        let mut corrections = Vec::new();
        for (key, value) in read_last(config, Topic::Corrections).await? {
            match read(&key, &value) {
                Ok(correction) => corrections.push(correction),
                Err(error) => tracing::warn!(?key, %error, "a record of the corrections topic is not a correction"),
            }
        }
        corrections.sort_by_key(|correction| correction.begin_time.map(|time| (time.seconds, time.nanos)));
        Ok(corrections)
    }

    /// Takes the log over. Returns with it every correction, the first begun first.
    ///
    /// # Errors
    /// When Kafka does not answer, or the configuration is not one.
    pub async fn take_over(config: &KafkaConfig) -> Result<(CorrectionLog, Vec<Correction>), LogError> {
        let log = FencedLog::take_over(config, Topic::Corrections, "corrections").await?;
        let corrections = CorrectionLog::read(config).await?;
        Ok((CorrectionLog { log }, corrections))
    }

    /// Writes what a correction is now.
    ///
    /// # Errors
    /// When Kafka did not take it, as far as is known, or another has taken over.
    pub async fn write(&self, correction: &Correction) -> Result<(), LogError> {
        self.log.append(vec![(correction.correction_id.clone(), Some(correction.encode_to_vec()))]).await
    }
}

#[cfg(test)]
mod tests {
    use faultline_proto::correction::v1::{CorrectionStep, VerdictChange};

    use super::*;

    #[test]
    fn what_is_beyond_its_limits_is_named() {
        let step = |number| Some(CorrectionStep { number, ..CorrectionStep::default() });
        let whole = || Correction { correction_id: "0123456789abcdef".into(), tenant: "acme".into(), ..Correction::default() };
        let read_of = |correction: &Correction| read(correction.correction_id.as_bytes(), &correction.encode_to_vec());
        let made = Correction { step: step(6), next_step: 7, ..whole() };
        assert_eq!(read_of(&made), Ok(made));
        for (field, correction) in [
            ("correction_id", Correction { correction_id: String::new(), ..whole() }),
            ("correction_id", Correction { correction_id: "log:5".into(), ..whole() }),
            ("undone_correction_id", Correction { undone_correction_id: "0123456789abcdef0".into(), ..whole() }),
            ("tenant", Correction { tenant: String::new(), ..whole() }),
            ("tenant", Correction { tenant: "a\\tb".into(), ..whole() }),
            ("changes", Correction { changes: vec![VerdictChange { count: u64::MAX, ..VerdictChange::default() }], ..whole() }),
            ("next_step", Correction { next_step: u64::MAX, ..whole() }),
            ("step", Correction { step: step(7), next_step: 7, ..whole() }),
        ] {
            assert_eq!(read_of(&correction), Err(NoCorrection::Field(field)));
        }
        assert_eq!(read(b"another", &whole().encode_to_vec()), Err(NoCorrection::Field("correction_id")));
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;

    use super::*;

    #[test]
    fn a_record_of_the_topic_is_a_correction_within_its_limits_or_none() {
        let fates = target!(Message, "correction").run(|bytes| {
            let Ok(record) = faultline_fuzz::Record::decode(bytes) else { return "no record" };
            let key = record.key.unwrap_or_default();
            let mut correction = match read(&key, &record.value) {
                Ok(correction) => correction,
                Err(NoCorrection::Value(_)) => return "no correction",
                Err(NoCorrection::Field(field)) => {
                    // Without what is wrong with it, it is not named again.
                    let mut mended = Correction::decode(record.value).unwrap();
                    match field {
                        "correction_id" => mended.correction_id = "a".into(),
                        "undone_correction_id" => mended.undone_correction_id.clear(),
                        "tenant" => mended.tenant = "acme".into(),
                        "changes" => mended.changes.clear(),
                        "next_step" => mended.next_step = 1,
                        "step" => mended.step = None,
                        other => panic!("{other}"),
                    }
                    let key = if field == "correction_id" { b"a" } else { &*key };
                    let again = read(key, &mended.encode_to_vec());
                    assert_ne!(again, Err(NoCorrection::Field(field)));
                    return "beyond limits";
                }
            };
            assert_eq!(read(&key, &correction.encode_to_vec()), Ok(correction.clone()));
            let id = &correction.correction_id;
            assert!(id.as_bytes() == key && (1..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            // As a parameter of a statement, it is read as it is.
            assert!(!correction.tenant.contains(['\\', '\t', '\n', '\0']) && !correction.tenant.is_empty());
            let fate = if correction.step.is_some() { "with a step" } else { "whole" };
            // As one goes on with it.
            correction.next_step += 1;
            for change in &mut correction.changes {
                change.count += 1;
            }
            fate
        });
        fates.include(["with a step", "whole", "beyond limits", "no correction"]);
    }
}
