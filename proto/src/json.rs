//! Messages of the contract as JSON: the JSON mapping of Protocol Buffers.

use std::marker::PhantomData;

use prost::{DecodeError, Message};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};

/// Reads and writes one kind of message.
#[derive(Clone, Debug)]
pub struct Json<M> {
    kind: MessageDescriptor,
    of: PhantomData<fn() -> M>,
}

/// Why a text is not a message, or a message has no text.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The contract that came with the program cannot be read, or has no such message.
    #[error("the contract of this program has no message `{0}`")]
    Contract(String),
    /// It is no JSON, or none of that message.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is of another contract.
    #[error(transparent)]
    Message(#[from] DecodeError),
}

impl<M: Message + Default> Json<M> {
    /// Of the messages of this name: `faultline.outcome.v1.Outcome`.
    ///
    /// # Errors
    /// When the contract has none.
    pub fn named(name: &str) -> Result<Json<M>, JsonError> {
        let missing = || JsonError::Contract(name.into());
        let contract = DescriptorPool::decode(crate::DESCRIPTORS).map_err(|_| missing())?;
        Ok(Json { kind: contract.get_message_by_name(name).ok_or_else(missing)?, of: PhantomData })
    }

    /// One message. A field that the contract does not have is refused, since it is misspelt more often than newer.
    ///
    /// # Errors
    /// When it is no JSON of such a message.
    pub fn read(&self, text: &str) -> Result<M, JsonError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let message = DynamicMessage::deserialize_with_options(self.kind.clone(), &mut json, &options)?;
        json.end()?;
        Ok(message.transcode_to()?)
    }

    /// Every field of a message, with the names that the contract gives them.
    ///
    /// # Errors
    /// When it has what JSON cannot have: a moment that is none.
    pub fn value(&self, message: &M) -> Result<serde_json::Value, JsonError> {
        let mut dynamic = DynamicMessage::new(self.kind.clone());
        dynamic.transcode_from(message)?;
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
        Ok(dynamic.serialize_with_options(serde_json::value::Serializer, &options)?)
    }

    /// A message in one line.
    ///
    /// # Errors
    /// When it has what JSON cannot have: a moment that is none.
    pub fn line(&self, message: &M) -> Result<String, JsonError> {
        let mut dynamic = DynamicMessage::new(self.kind.clone());
        dynamic.transcode_from(message)?;
        let mut text = serde_json::Serializer::new(Vec::new());
        dynamic.serialize_with_options(&mut text, &SerializeOptions::new())?;
        // JSON is UTF-8.
        Ok(String::from_utf8_lossy(&text.into_inner()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::v1::ReportedOutcome;
    use crate::outcome::v1::{Outcome, Stage};

    #[test]
    fn a_message_is_the_same_after_a_line_of_json() {
        let json = Json::named("faultline.ingest.v1.ReportedOutcome").unwrap();
        let outcome = Outcome { stage: Stage::Wait.into(), signal_dbm: Some(-101), diagnostic: "无应答\n".into(), ..Outcome::default() };
        let reported =
            ReportedOutcome { terminal_id: "T-1".into(), spool_id: u64::MAX, outcome: Some(outcome), ..ReportedOutcome::default() };
        let line = json.line(&reported).unwrap();
        assert!(!line.contains('\n') && line.contains("\"terminalId\":\"T-1\""), "{line}");
        assert_eq!(json.read(&line).unwrap(), reported);
    }

    #[test]
    fn what_is_no_such_message_is_refused() {
        assert_eq!(
            Json::<Outcome>::named("faultline.outcome.v1.Outcom").unwrap_err().to_string(),
            "the contract of this program has no message `faultline.outcome.v1.Outcom`"
        );
        let json = Json::<Outcome>::named("faultline.outcome.v1.Outcome").unwrap();
        for wrong in ["", "[]", "{\"stag\": 1}", "{} {}", "{\"stage\": \"STAGE_LUNCH\"}"] {
            assert!(json.read(wrong).is_err(), "{wrong}");
        }
    }
}
