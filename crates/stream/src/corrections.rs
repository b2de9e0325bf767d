//! The corrections topic: every correction of stored outcomes, and the step that may be half done. It has one writer at a time (`fenced.rs`), so
//! two corrections are never made at once.
//!
//! | part | content |
//! |---|---|
//! | key | identifier of the correction |
//! | value | `faultline.correction.v1.Correction` |

use faultline_proto::correction::v1::Correction;
use prost::Message;

use crate::client::{KafkaConfig, StreamError};
use crate::fenced::{FencedLog, LogError, read_last};
use crate::topics::Topic;

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
            match Correction::decode(value) {
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
