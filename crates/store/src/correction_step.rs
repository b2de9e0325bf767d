//! A step of a correction: which outcomes it changes and to what, as it is kept, and the rows that are made of it.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use faultline_proto::correction::v1::{CorrectedColumns, CorrectedOutcome, Correction, CorrectionStep};
use faultline_proto::verdict::v1::Cause;

use crate::block::{Block, as_one_block, in_time};
use crate::corrections::Change;
use crate::database::StoreError;
use crate::delivery::{Attempt, BatchId, Rows, Within};
use crate::outcomes::OutcomeRow;
use crate::server::Server;

/// The partition that rows of corrections are of: one that no topic has.
const CORRECTIONS: u16 = u16::MAX;
/// Outcomes that the contract lets a step have, whoever made it: their rows have places of 16 bits, two each.
pub(crate) const MOST_OUTCOMES: u16 = 30_000;
const _: () = assert!(2 * (MOST_OUTCOMES as usize) < u16::MAX as usize);
/// Moments that the contract lets a step have, in milliseconds since 1970-01-01 UTC.
const MOMENTS_MS: RangeInclusive<i64> = 0..=10_382_000_000_000;

/// A step that changes these outcomes.
pub(crate) fn step(number: u64, changes: &[Change]) -> CorrectionStep {
    let mut places: HashMap<&CorrectedColumns, u32> = HashMap::new();
    let mut columns = Vec::new();
    let outcomes = changes.iter().map(|Change { standing, columns: to }| CorrectedOutcome {
        terminal: standing.terminal.clone(),
        spool_id: standing.spool,
        sequence: standing.sequence,
        revision: standing.revision.into(),
        completed_ms: standing.completed_at,
        columns_index: *places.entry(to).or_insert_with(|| {
            columns.push(to.clone());
            u32::try_from(columns.len() - 1).unwrap_or(u32::MAX)
        }),
    });
    let outcomes = outcomes.collect();
    let since_ms = changes.iter().map(|change| change.standing.received_at).min().unwrap_or_default();
    let since_time = prost_types::Timestamp {
        seconds: since_ms.div_euclid(1000),
        nanos: i32::try_from(since_ms.rem_euclid(1000)).unwrap_or_default() * 1_000_000,
    };
    CorrectionStep { number, since_time: Some(since_time), columns, outcomes }
}

/// The rows of a step: of each outcome two, the old and the new.
pub(crate) struct StepRows<'a> {
    correction: &'a Correction,
    number: u64,
    sent: Vec<Sent<'a>>,
    completed: (i64, i64),
    /// Rows are sorted by terminal within five minutes, and a step has few of those that report in its time: so the server need not read the others.
    terminals: (&'a str, &'a str),
    since_ms: i64,
}

/// A row of what is sent of a step.
#[derive(Clone, Copy)]
struct Sent<'a> {
    place: u16,
    outcome: &'a CorrectedOutcome,
    columns: &'a CorrectedColumns,
    revision: u16,
    cause: i8,
    confidence: u8,
    money_outcome: u16,
}

impl<'a> Sent<'a> {
    /// What is sent of an outcome, or the field whose value no row can have.
    fn of(step: &'a CorrectionStep, place: usize, outcome: &'a CorrectedOutcome) -> Result<Sent<'a>, &'static str> {
        let columns = usize::try_from(outcome.columns_index).ok().and_then(|index| step.columns.get(index)).ok_or("columns_index")?;
        if !MOMENTS_MS.contains(&outcome.completed_ms) {
            return Err("completed_ms");
        }
        Ok(Sent {
            place: u16::try_from(place).ok().filter(|place| *place < MOST_OUTCOMES).ok_or("outcomes")?,
            outcome,
            columns,
            revision: u16::try_from(outcome.revision).ok().filter(|revision| *revision < u16::MAX).ok_or("revision")?,
            cause: Cause::try_from(columns.cause)
                .ok()
                .filter(|cause| *cause != Cause::Unspecified)
                .and_then(|cause| i8::try_from(i32::from(cause)).ok())
                .ok_or("cause")?,
            confidence: u8::try_from(columns.confidence).ok().filter(|confidence| *confidence <= 100).ok_or("confidence")?,
            money_outcome: u16::try_from(columns.money_outcome).map_err(|_| "money_outcome")?,
        })
    }

    fn block<'r>(sent: &'r [Sent<'r>]) -> Block<'r> {
        Block::of(sent, |block| {
            block.numbers("place", |row| row.place);
            block.texts("terminal", |row| &row.outcome.terminal);
            block.numbers("spool", |row| row.outcome.spool_id);
            block.numbers("sequence", |row| row.outcome.sequence);
            block.numbers("revision", |row| row.revision);
            block.texts("tag", |row| &row.columns.tag);
            block.numbers("cause", |row| row.cause);
            block.texts("reason", |row| &row.columns.reason);
            block.numbers("confidence", |row| row.confidence);
            block.texts("rule_set", |row| &row.columns.rule_set);
            block.texts("issuer", |row| &row.columns.issuer);
            block.texts("issuer_map", |row| &row.columns.issuer_map);
            block.numbers("money_outcome", |row| row.money_outcome);
        })
    }
}

impl<'a> StepRows<'a> {
    /// The rows of the step that a correction is in; none where it is in no step, or in one of nothing.
    pub(crate) fn of(correction: &'a Correction) -> Result<Option<StepRows<'a>>, StoreError> {
        let Some(step) = &correction.step else { return Ok(None) };
        let refused = |field| StoreError::Step { correction: correction.correction_id.clone(), step: step.number, field };
        let sent = step.outcomes.iter().enumerate().map(|(place, outcome)| Sent::of(step, place, outcome));
        let sent = sent.collect::<Result<Vec<_>, _>>().map_err(refused)?;
        let since = step.since_time.unwrap_or_default();
        let since_ms = since.seconds.saturating_mul(1000).saturating_add(i64::from(since.nanos / 1_000_000));
        if !MOMENTS_MS.contains(&since_ms) {
            return Err(refused("since_time"));
        }
        let completed = || step.outcomes.iter().map(|outcome| outcome.completed_ms);
        let completed = completed().min().zip(completed().max());
        let terminals = || step.outcomes.iter().map(|outcome| outcome.terminal.as_str());
        let terminals = terminals().min().zip(terminals().max());
        let rows = |(completed, terminals)| StepRows { correction, number: step.number, sent, completed, terminals, since_ms };
        Ok(completed.zip(terminals).map(rows))
    }

    pub(crate) fn id(&self) -> BatchId<'a> {
        let number = self.number;
        BatchId { log: &self.correction.correction_id, partition: CORRECTIONS, first: number, last: number, since_ms: self.since_ms }
    }

    /// The statement that makes the rows of what it is sent.
    fn statement(&self, sent: &Block<'_>, deadline: i64) -> String {
        let names = OutcomeRow::block(&[]).names();
        let number = self.number;
        let values = names.iter().map(|name| match *name {
            "sign" => "made".into(),
            "revision" => "toUInt16(known.revision + (made = 1))".into(),
            "kafka_log" => "{correction:String}".into(),
            "kafka_partition" => CORRECTIONS.to_string(),
            "kafka_offset" | "batch_first_offset" | "batch_last_offset" => number.to_string(),
            "record_index" => "toUInt16(2 * sent.place + (made = 1))".into(),
            "cause" => "if(made = 1, sent.cause, toInt8(known.cause))".into(),
            name @ ("tag" | "reason" | "confidence" | "rule_set" | "issuer" | "issuer_map" | "money_outcome") => {
                format!("if(made = 1, sent.{name}, known.{name})")
            }
            name => format!("known.{name}"),
        });
        let source = format!(
            "FROM outcomes AS known INNER JOIN (SELECT * FROM {}) AS sent \
             ON known.terminal = sent.terminal AND known.spool = sent.spool AND known.sequence = sent.sequence \
             AND known.revision = sent.revision ARRAY JOIN [toInt8(-1), toInt8(1)] AS made \
             WHERE known.tenant = {{tenant:String}} AND known.sign = 1 AND known.completed_at >= fromUnixTimestamp64Milli({}) \
             AND known.completed_at <= fromUnixTimestamp64Milli({}) \
             AND known.terminal >= {{first_terminal:String}} AND known.terminal <= {{last_terminal:String}} AND {}",
            sent.source(),
            self.completed.0,
            self.completed.1,
            in_time(deadline)
        );
        format!("INSERT INTO outcomes (`{}`) {}", names.join("`, `"), as_one_block(&values.collect::<Vec<_>>(), &source))
    }
}

impl Rows for StepRows<'_> {
    fn places(&self) -> impl Iterator<Item = (u64, u16)> + Send {
        (0..u16::MAX).take(2 * self.sent.len()).map(|place| (self.number, place))
    }

    fn within(&self) -> Option<Within<'_>> {
        Some(Within { tenant: &self.correction.tenant, terminals: self.terminals, first_ms: self.completed.0, last_ms: self.completed.1 })
    }

    async fn insert(&self, server: &Server, attempt: &Attempt, which: &[usize]) -> Result<(), StoreError> {
        let mut outcomes: Vec<usize> = which.iter().map(|place| place / 2).collect();
        outcomes.dedup();
        let sent: Vec<Sent<'_>> = outcomes.into_iter().filter_map(|place| self.sent.get(place).copied()).collect();
        let sent = Sent::block(&sent);
        let statement = self.statement(&sent, attempt.deadline);
        let (first, last) = self.terminals;
        let client = server.inserting(&attempt.token).with_setting("param_tenant", &self.correction.tenant);
        let client = client.with_setting("param_first_terminal", first).with_setting("param_last_terminal", last);
        let client = client.with_setting("param_correction", &self.correction.correction_id);
        sent.send(client, &statement).await.map_err(server.failed("correct outcomes"))
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;
    use prost::Message;

    use super::*;

    /// A column of numbers or texts, as the server reads it: its name, and the bytes of each value.
    fn column<'b>(block: &mut &'b [u8], rows: usize) -> (&'b str, Vec<&'b [u8]>) {
        fn take<'b>(block: &mut &'b [u8], length: usize) -> &'b [u8] {
            block.split_off(..length).unwrap()
        }
        fn text<'b>(block: &mut &'b [u8]) -> &'b [u8] {
            let length = prost::encoding::decode_varint(block).unwrap();
            take(block, length.try_into().unwrap())
        }
        let (name, kind) = (text(block), text(block));
        let width = match kind {
            b"UInt8" | b"Int8" => 1,
            b"UInt16" => 2,
            b"UInt64" => 8,
            _ => 0,
        };
        let value = |_| if width == 0 { text(block) } else { take(block, width) };
        (std::str::from_utf8(name).unwrap(), (0..rows).map(value).collect())
    }

    /// Without what is wrong with a field.
    fn mended(mut correction: Correction, field: &str) -> Correction {
        let step = correction.step.as_mut().unwrap();
        step.columns.push(CorrectedColumns::default());
        match field {
            "since_time" => step.since_time = None,
            "columns_index" => step.outcomes.iter_mut().for_each(|outcome| outcome.columns_index = 0),
            "completed_ms" => step.outcomes.iter_mut().for_each(|outcome| outcome.completed_ms = 0),
            "revision" => step.outcomes.iter_mut().for_each(|outcome| outcome.revision = 0),
            "cause" => step.columns.iter_mut().for_each(|columns| columns.set_cause(Cause::Bank)),
            "confidence" => step.columns.iter_mut().for_each(|columns| columns.confidence = 0),
            "money_outcome" => step.columns.iter_mut().for_each(|columns| columns.money_outcome = 0),
            other => panic!("{other}"),
        }
        correction
    }

    #[test]
    fn a_step_is_made_as_it_says_or_not_at_all() {
        let fates = target!(Message, "correction").run(|bytes| {
            let Ok(correction) = Correction::decode(bytes) else { return "no correction" };
            let rows = match StepRows::of(&correction) {
                Ok(Some(rows)) => rows,
                Ok(None) => return "without a step",
                Err(StoreError::Step { field, .. }) => {
                    let again = StepRows::of(&mended(correction.clone(), field)).err();
                    assert!(!matches!(again, Some(StoreError::Step { field: again, .. }) if again == field), "{field}");
                    return "refused";
                }
                Err(error) => panic!("{error}"),
            };
            let step = correction.step.as_ref().unwrap();
            let places: std::collections::HashSet<_> = rows.places().collect();
            assert!(places.len() == 2 * step.outcomes.len() && places.iter().all(|(number, _)| *number == step.number));
            let within = rows.within().unwrap();
            let sent = Sent::block(&rows.sent);
            assert!(rows.statement(&sent, 0).contains(&within.first_ms.to_string()));
            let sent: Vec<u8> = sent.pieces().flatten().collect();
            let mut block = sent.as_slice();
            let columns = prost::encoding::decode_varint(&mut block).unwrap();
            assert_eq!(prost::encoding::decode_varint(&mut block).unwrap(), step.outcomes.len() as u64);
            for _ in 0..columns {
                let (name, values) = column(&mut block, step.outcomes.len());
                for (place, (outcome, value)) in step.outcomes.iter().zip(values).enumerate() {
                    assert!((within.first_ms..=within.last_ms).contains(&outcome.completed_ms));
                    let columns = &step.columns[outcome.columns_index as usize];
                    let number = |number: u64| number.to_le_bytes()[..value.len()].to_vec();
                    let wanted = match name {
                        "place" => number(place as u64),
                        "terminal" => outcome.terminal.clone().into_bytes(),
                        "spool" => number(outcome.spool_id),
                        "sequence" => number(outcome.sequence),
                        "revision" => number(outcome.revision.into()),
                        "tag" => columns.tag.clone().into_bytes(),
                        "cause" => number(columns.cause.try_into().unwrap()),
                        "reason" => columns.reason.clone().into_bytes(),
                        "confidence" => number(columns.confidence.into()),
                        "rule_set" => columns.rule_set.clone().into_bytes(),
                        "issuer" => columns.issuer.clone().into_bytes(),
                        "issuer_map" => columns.issuer_map.clone().into_bytes(),
                        "money_outcome" => number(columns.money_outcome.into()),
                        other => panic!("{other}"),
                    };
                    assert_eq!(wanted, value, "{name}");
                }
            }
            assert!(block.is_empty());
            "made"
        });
        fates.include(["made", "without a step", "refused", "no correction"]);
    }
}
