//! The incidents topic: the state of every incident, the last record of a key being what it is now. It has one writer at a time (`fenced.rs`).
//!
//! | part | content |
//! |---|---|
//! | key | tenant, `/`, identifier of the incident |
//! | value | `faultline.incident.v1.Incident`; none: it is long over, and forgotten here |

use faultline_proto::incident::v1::Incident;
use prost::Message;

use crate::client::KafkaConfig;
use crate::fenced::{FencedLog, LogError, read_last};
use crate::topics::Topic;

/// The incidents topic in the hands of its writer.
pub struct IncidentLog {
    log: FencedLog,
}

impl IncidentLog {
    /// Takes the log over, and reads what every incident is now.
    ///
    /// # Errors
    /// When Kafka does not answer, or the configuration is not one.
    pub async fn take_over(config: &KafkaConfig) -> Result<(IncidentLog, Vec<Incident>), LogError> {
        let log = FencedLog::take_over(config, Topic::Incidents, "alerter").await?;
        let mut incidents = Vec::new();
        for (key, value) in read_last(config, Topic::Incidents).await? {
            match Incident::decode(value) {
                Ok(incident) => incidents.push(incident),
                Err(error) => tracing::warn!(?key, %error, "a record of the incidents topic is not an incident"),
            }
        }
        Ok((IncidentLog { log }, incidents))
    }

    /// Writes what incidents are now, all of them or none.
    ///
    /// # Errors
    /// When Kafka did not take them, as far as is known, or another has taken over.
    pub async fn write(&self, incidents: Vec<Incident>) -> Result<(), LogError> {
        let records = incidents.iter().map(|incident| (key(incident), Some(incident.encode_to_vec()))).collect();
        self.log.append(records).await
    }

    /// Forgets incidents.
    ///
    /// # Errors
    /// As [`IncidentLog::write`].
    pub async fn forget(&self, incidents: &[Incident]) -> Result<(), LogError> {
        self.log.append(incidents.iter().map(|incident| (key(incident), None)).collect()).await
    }
}

fn key(incident: &Incident) -> String {
    format!("{}/{}", incident.tenant, incident.incident_id)
}
