//! Outcomes and verdicts as JSON: the JSON mapping of Protocol Buffers, of `faultline.outcome.v1.Outcome` and `faultline.verdict.v1.Verdict`, by the
//! descriptors of the contract.

use std::io::BufRead;

use anyhow::Context;
use faultline_proto::json::Json;
use faultline_proto::outcome::v1::Outcome;
use faultline_proto::verdict::v1::Verdict;

const OUTCOME: &str = "faultline.outcome.v1.Outcome";
const VERDICT: &str = "faultline.verdict.v1.Verdict";

/// Reads outcomes.
pub(crate) struct OutcomeJson(Json<Outcome>);

impl OutcomeJson {
    pub(crate) fn new() -> anyhow::Result<OutcomeJson> {
        Ok(OutcomeJson(Json::named(OUTCOME)?))
    }

    /// One outcome. A field that the contract does not have is refused, since it is misspelt more often than newer.
    pub(crate) fn read(&self, text: &str) -> anyhow::Result<Outcome> {
        Ok(self.0.read(text)?)
    }

    /// Outcomes of a text of JSON lines, each with its number from 1; empty lines do not count.
    pub(crate) fn lines(&self, input: impl BufRead) -> impl Iterator<Item = anyhow::Result<(usize, Outcome)>> {
        let not_empty = |(_, line): &(usize, std::io::Result<String>)| line.as_ref().map_or(true, |line| !line.trim().is_empty());
        (1..).zip(input.lines()).filter(not_empty).map(|(number, line)| {
            let outcome = line.map_err(anyhow::Error::from).and_then(|line| self.read(&line));
            Ok((number, outcome.with_context(|| format!("line {number} is no outcome (JSON of {OUTCOME})"))?))
        })
    }
}

/// A verdict, every field of it, with the names that the contract gives them.
pub(crate) fn verdict_json(verdict: &Verdict) -> anyhow::Result<serde_json::Value> {
    Ok(Json::named(VERDICT)?.value(verdict)?)
}

#[cfg(test)]
mod tests {
    use faultline_proto::outcome::v1::{Stage, TransactionType};

    use super::*;

    #[test]
    fn an_outcome_is_read_by_either_name_of_its_fields() {
        let json = OutcomeJson::new().unwrap();
        let expected = Outcome {
            stage: Stage::Wait.into(),
            r#type: TransactionType::Sale.into(),
            amount_minor: 1234,
            signal_dbm: Some(-101),
            completion_time: Some(prost_types::Timestamp { seconds: 1_790_784_000, nanos: 0 }),
            ..Outcome::default()
        };
        let text =
            r#"{"stage": "STAGE_WAIT", "type": 1, "amountMinor": "1234", "signal_dbm": -101, "completionTime": "2026-09-30T16:00:00Z"}"#;
        assert_eq!(json.read(text).unwrap(), expected);
        let lines = format!("{text}\n\n{{\"stagee\": 1}}\n");
        let read: Vec<_> = json.lines(lines.as_bytes()).collect();
        assert_eq!(read[0].as_ref().unwrap(), &(1, expected));
        let error = format!("{:#}", read[1].as_ref().unwrap_err());
        assert!(error.starts_with("line 3 is no outcome") && error.contains("stagee"), "{error}");
        assert!(json.read("{} {}").is_err());
    }
}
