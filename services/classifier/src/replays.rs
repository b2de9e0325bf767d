//! Records that were dead letters and were brought back by an operator.
//!
//! What was seen of their spools says nothing about them: later events were counted while they lay aside, so all of theirs would be taken for repeats.
//! Each of their events is asked for instead, as of where the batch begins, so that a batch that is repeated does not find itself.

use std::collections::HashSet;

use faultline_store::{Identity, SpoolEvents};

use crate::report::Report;
use crate::seen::REMEMBERED_S;

/// The events of a batch's replays, before it is known which of them are stored.
pub(crate) struct Asked<'a> {
    pub(crate) events: Vec<SpoolEvents<'a>>,
    /// Nothing of them was received earlier, in seconds since 1970-01-01 UTC: terminals report events for so long.
    pub(crate) since_s: u32,
}

impl Asked<'_> {
    /// What is to be asked for these reports; nothing where none of them is a replay.
    pub(crate) fn of(reports: &[Report]) -> Option<Asked<'_>> {
        let replays = || reports.iter().filter(|report| report.is_replay);
        let first_ms = replays().map(|report| report.clock.receipt_ms).min()?;
        let events = replays().map(|report| SpoolEvents {
            tenant: &report.tenant,
            terminal: &report.terminal,
            spool: report.batch.spool_id,
            sequences: report.events().map(|(_, event, _)| event.sequence).collect(),
        });
        let first_s = u32::try_from(first_ms.div_euclid(1000).max(0)).unwrap_or(u32::MAX);
        Some(Asked { events: events.collect(), since_s: first_s.saturating_sub(REMEMBERED_S) })
    }
}

/// In a batch with replays, the events that are not to be counted again: those that are stored, and what the batch itself has counted so far. In others,
/// nothing is kept.
#[derive(Debug, Default)]
pub(crate) struct Counted(Option<HashSet<Identity>>);

impl Counted {
    /// Of a batch with replays, given which of their events are stored.
    pub(crate) fn before(stored: HashSet<Identity>) -> Counted {
        Counted(Some(stored))
    }

    /// Takes note of an event. Returns whether it is new: of a replay, if it is nowhere; of another record, if it is beyond what was seen of its spool.
    pub(crate) fn is_new(&mut self, report: &Report, sequence: u64, is_beyond: bool) -> bool {
        let Some(counted) = &mut self.0 else { return is_beyond };
        if !report.is_replay && !is_beyond {
            return false;
        }
        let (tenant, terminal) = (report.tenant.clone(), report.terminal.clone());
        counted.insert(Identity { tenant, terminal, spool: report.batch.spool_id, sequence })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use faultline_proto::ingest::v1::{Event, OutcomeBatch};
    use faultline_proto::outcome::v1::Outcome;
    use faultline_stream::Record;
    use prost::Message;

    use super::*;
    use crate::seen::Seen;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    const THEN_MS: i64 = 1_790_000_000_000;

    /// A batch of terminal T-1; `days` after it was received, it was replayed.
    fn report(sequences: &[u64], days: Option<i64>) -> Report {
        let events = sequences.iter().map(|sequence| Event { sequence: *sequence, outcome: Some(Outcome::default()), age_ms: Some(1000) });
        let batch = OutcomeBatch { spool_id: 7, events: events.collect(), ..OutcomeBatch::default() };
        let header = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
        let mut headers = vec![
            header("contract", "faultline.ingest.v1".into()),
            header("tenant", "acme".into()),
            header("receipt-time-ms", THEN_MS.to_string()),
        ];
        if days.is_some() {
            headers.push(header("replay-of", "0-1-1790000000".into()));
            headers.push(header("replay-append-time-ms", THEN_MS.to_string()));
        }
        let timestamp_ms = Some(THEN_MS + days.unwrap_or_default() * DAY_MS);
        let record = Record { key: Some("T-1".into()), value: batch.encode_to_vec().into(), headers, timestamp_ms, ..Record::default() };
        Report::read(&record).unwrap()
    }

    /// The sequences that are counted, as the classifier does it, of reports after what was seen until 10 and with these stored.
    fn counted(reports: &[Report], stored: &[u64]) -> (Vec<u64>, Seen) {
        let mut seen = Seen::default();
        seen.spool(("acme", "T-1", 7), 0).is_new(10);
        let identity = |sequence: &u64| Identity { tenant: "acme".into(), terminal: "T-1".into(), spool: 7, sequence: *sequence };
        let stored = stored.iter().map(identity).collect();
        let mut counted = Asked::of(reports).map_or_else(Counted::default, |_| Counted::before(stored));
        let mut new = Vec::new();
        for report in reports {
            let spool = seen.spool(("acme", "T-1", 7), 0);
            for (_, event, _) in report.events() {
                let is_beyond = spool.is_new(event.sequence);
                if counted.is_new(report, event.sequence, is_beyond) {
                    new.push(event.sequence);
                }
            }
        }
        (new, seen)
    }

    #[test]
    fn a_replay_is_counted_though_later_events_were_and_once() {
        let replay = |sequences: &[u64]| report(sequences, Some(3));
        let sent = |sequences: &[u64]| report(sequences, None);
        for (reports, stored, new) in [
            // Without replays, what was seen tells.
            (vec![sent(&[9, 11])], &[][..], &[11][..]),
            (vec![replay(&[4, 5, 6])], &[], &[4, 5, 6]),
            (vec![replay(&[4, 5, 6])], &[5], &[4, 6]),
            (vec![replay(&[4, 5]), replay(&[4, 5])], &[], &[4, 5]),
            (vec![replay(&[4, 4])], &[], &[4]),
            // With the terminal's own in one batch, in either order, also of what is beyond what was seen.
            (vec![replay(&[4]), sent(&[4, 11])], &[], &[4, 11]),
            (vec![sent(&[11, 12]), replay(&[11, 12, 13])], &[], &[11, 12, 13]),
            (vec![replay(&[11, 12]), sent(&[11, 12, 13])], &[], &[11, 12, 13]),
        ] {
            assert_eq!(counted(&reports, stored).0, new, "{reports:?}");
        }
    }

    #[test]
    fn a_replay_takes_nothing_back_of_what_was_seen() {
        let marks = |reports: &[Report]| counted(reports, &[]).1.changes(0).into_iter().map(|mark| mark.sequence).collect::<Vec<_>>();
        assert_eq!(marks(&[report(&[4], Some(3))]), [10]);
        assert_eq!(marks(&[report(&[12], Some(3))]), [12]);
    }

    #[test]
    fn what_is_asked_is_what_replays_have_as_far_back_as_rows_of_it_may_be() {
        assert!(Asked::of(&[report(&[1], None)]).is_none());
        let reports = [report(&[1], None), report(&[2, 3], Some(20))];
        let asked = Asked::of(&reports).unwrap();
        assert_eq!(asked.events, [SpoolEvents { tenant: "acme", terminal: "T-1", spool: 7, sequences: vec![2, 3] }]);
        assert_eq!(i64::from(asked.since_s), (THEN_MS - 32 * DAY_MS) / 1000);
    }
}
