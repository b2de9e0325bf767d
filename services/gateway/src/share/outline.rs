//! What a batch costs and of which terminal it is, as far as its bytes tell without being decoded.

use crate::wire::fields;

/// `OutcomeBatch.terminal_id` and `OutcomeBatch.events`.
const TERMINAL_ID: u32 = 1;
const EVENTS: u32 = 3;
/// What a batch counts as at least, in events: a call, an answer and a record cost as much whatever is in them (`make bench BENCH=gateway`).
const LEAST: usize = 20;
/// Bytes that count as an event. Usual ones have fewer.
const EVENT_BYTES: usize = 1024;

/// A batch seen from outside. Of one that cannot be read to its end, what comes before that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outline<'a> {
    /// The terminal that it names; nothing where it names none.
    pub(super) terminal: &'a [u8],
    events: usize,
}

impl<'a> Outline<'a> {
    pub(super) fn of(batch: &'a [u8]) -> Outline<'a> {
        let mut outline = Outline { terminal: &[], events: 0 };
        for field in fields(batch).map_while(Result::ok) {
            match (field.number, field.content) {
                (TERMINAL_ID, Some(place)) => outline.terminal = batch.get(place).unwrap_or_default(),
                (EVENTS, Some(_)) => outline.events += 1,
                _ => {}
            }
        }
        outline
    }

    /// What the batch counts as, in events.
    pub(super) fn weight(&self, bytes: usize) -> u32 {
        u32::try_from(self.events.max(bytes.div_ceil(EVENT_BYTES)).max(LEAST)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use faultline_proto::ingest::v1::{Event, OutcomeBatch};
    use faultline_proto::outcome::v1::Outcome;
    use prost::Message;

    use super::*;

    fn weight(events: usize, diagnostic: usize) -> u32 {
        let outcome = Outcome { diagnostic: "x".repeat(diagnostic), ..Outcome::default() };
        let events = vec![Event { sequence: 1, age_ms: None, outcome: Some(outcome) }; events];
        let batch = OutcomeBatch { terminal_id: "T-1".into(), events, ..OutcomeBatch::default() }.encode_to_vec();
        let outline = Outline::of(&batch);
        assert_eq!(outline.terminal, b"T-1");
        outline.weight(batch.len())
    }

    #[test]
    fn a_batch_counts_as_its_events_or_its_bytes_or_at_least_as_a_batch() {
        assert_eq!(weight(0, 0), 20);
        assert_eq!(weight(20, 0), 20);
        assert_eq!(weight(100, 200), 100);
        assert_eq!(weight(10, 10 * 1024), 101);
    }

    #[test]
    fn what_cannot_be_read_costs_as_well() {
        let broken = [&[0x0A, 1, b'T', 0xFF][..], &[0xFF; 40 * 1024]].concat();
        assert_eq!(Outline::of(&broken), Outline { terminal: b"T", events: 0 });
        assert_eq!(Outline::of(&broken).weight(broken.len()), 41);
    }
}
