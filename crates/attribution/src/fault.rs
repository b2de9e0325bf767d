//! What was found.

use faultline_proto::verdict::v1::FleetFault;
use faultline_verdict::{Family, LocalizedText, Reason};
use prost_types::Timestamp;

/// A part of the fleet that failed for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What its failures have in common with others, as far as faults go.
    pub symptom: String,
    /// How the fleet is cut into such parts.
    pub family: Family,
    /// Which part: the value of the family, or two joined by `|`.
    pub part: String,
    /// When it began, in milliseconds since 1970-01-01 UTC, to ten seconds.
    pub from_ms: i64,
    /// When it was over.
    pub until_ms: i64,
    /// How many sales failed by it, as far as it is known which.
    pub failed: f64,
    /// How many attempts the part had meanwhile.
    pub tried: f64,
    /// Sales that usually fail so, of an attempt.
    pub usual: f64,
    /// How likely there was such a fault.
    pub probability: f64,
}

impl Fault {
    /// What it is, in words and with its numbers.
    #[must_use]
    pub fn in_words(&self) -> LocalizedText {
        let Fault { family, part, failed, tried, usual, probability, .. } = self;
        let (from, until, rate) = (time(self.from_ms), time(self.until_ms), 100.0 * failed / tried.max(1.0));
        let (usual, sure, family) = (100.0 * usual, 100.0 * probability, family.name());
        LocalizedText {
            zh_cn: format!(
                "{family} {part} 自 {from} 至 {until} 的 {tried:.0} 次交易尝试中约 {failed:.0} 笔因此失败（{rate:.1} %，平时 {usual:.2} %），把握 {sure:.1} %。"
            ),
            en: format!(
                "Of {tried:.0} attempts of {family} {part} from {from} to {until}, some {failed:.0} sales failed by it: {rate:.1} %, {usual:.2} % are usual; {sure:.1} % sure."
            ),
        }
    }

    /// As the contract has it.
    #[must_use]
    pub fn message(&self) -> FleetFault {
        FleetFault {
            symptom: self.symptom.clone(),
            family: self.family.name().into(),
            part: self.part.clone(),
            from_time: Some(time(self.from_ms)),
            until_time: Some(time(self.until_ms)),
            failed_sales: self.failed,
            attempts: self.tried,
            usual_rate: self.usual,
            probability: self.probability,
        }
    }
}

fn time(ms: i64) -> Timestamp {
    Timestamp { seconds: ms.div_euclid(1000), nanos: i32::try_from(ms.rem_euclid(1000)).unwrap_or_default() * 1_000_000 }
}

/// What a failure is settled as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settled<'r> {
    /// Why it failed: that of its outcome alone, or of the fault that it belongs to.
    pub reason: &'r Reason,
    /// How likely the reason's cause is right: above 0, up to 1.
    pub confidence: f64,
    /// The place of the fault in [`Settlement::faults`]; nothing where it belongs to none.
    pub fault: Option<usize>,
}

/// What a fleet's failures come from.
#[derive(Clone, Debug, Default)]
pub struct Settlement<'r> {
    /// The faults, symptom by symptom, what explains most first.
    pub faults: Vec<Fault>,
    /// What each ambiguous failure is settled as, in the order in which they were observed.
    pub failures: Vec<Settled<'r>>,
}
