//! What an incident carries of what explains it, as the column `incidents.findings` holds it: fields of `faultline.incident.v1` under their names there, which documents them; times are in
//! seconds since 1970-01-01 UTC, and slices as in the column `slice`.

use serde::{Deserialize, Serialize};

/// What explains an incident, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// The numbers that opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Opening>,
    /// The finest slice that explains its failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Finding>,
}

/// The numbers that opened an incident: `IncidentOpening`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the contract documents them")]
pub struct Opening {
    pub from: u32,
    pub until: u32,
    pub attempts: u64,
    pub counted: u64,
    pub expected: f64,
    pub evidence_nats: f64,
}

/// The finest slice that explains an incident's failures: `IncidentExplanation`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the contract documents them")]
pub struct Finding {
    pub signal: String,
    pub from: u32,
    pub until: u32,
    pub slice: String,
    pub score_nats: f64,
    pub contribution: f64,
    pub relative_risk: Option<f64>,
    pub alternatives: Vec<Alternative>,
    pub attempts: u64,
    pub failed: u64,
    pub merchants: u64,
    pub terminals: u64,
    pub transactions: u64,
    pub amounts: Vec<Money>,
    pub sampled_one_in: u32,
    pub query: String,
    #[serde(default)]
    pub parts: Vec<Part>,
}

/// One of several parts that fail: `IncidentPart`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the contract documents them")]
pub struct Part {
    pub slice: String,
    pub score_nats: f64,
    pub attempts: u64,
    pub failed: u64,
}

/// A slice that may be meant instead: `IncidentAlternative`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the contract documents them")]
pub struct Alternative {
    pub slice: String,
    pub score_nats: f64,
}

/// Money of one currency: `IncidentAmount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the contract documents them")]
pub struct Money {
    pub currency: String,
    pub minor: i64,
}

impl Findings {
    /// As the column holds them; empty, where nothing is known.
    #[must_use]
    pub fn json(&self) -> String {
        // It has no maps and no numbers that JSON has not, but for those that are none: then nothing is known.
        if *self == Findings::default() { String::new() } else { serde_json::to_string(self).unwrap_or_default() }
    }

    /// What the column holds; nothing is known where that is of a program that writes it otherwise.
    #[must_use]
    pub fn of_json(text: &str) -> Findings {
        serde_json::from_str(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_is_read() {
        let opening = Opening { from: 10, until: 30, attempts: 40, counted: 30, expected: 0.25, evidence_nats: 99.5 };
        let explanation = Finding {
            signal: "issuer_down".into(),
            slice: "carrier=46000&issuer=icbc".into(),
            alternatives: vec![Alternative { slice: "issuer=icbc".into(), score_nats: 20.5 }],
            amounts: vec![Money { currency: "CNY".into(), minor: -1 }],
            parts: vec![Part { slice: "issuer=icbc&region=310000".into(), score_nats: 30.5, attempts: 10, failed: 9 }],
            ..Finding::default()
        };
        let findings = Findings { opening: Some(opening), explanation: Some(explanation) };
        assert_eq!(Findings::of_json(&findings.json()), findings);
        assert_eq!((Findings::default().json().as_str(), Findings::of_json("")), ("", Findings::default()));
    }
}
