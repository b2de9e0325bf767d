//! What was seen of every spool of one partition: of each, the greatest sequence that is counted.
//!
//! Sequences rise strictly within a spool, and one batch of a spool is unacknowledged at a time. So what is not greater than the greatest is a
//! repeat, however late it comes.

use std::collections::{BTreeMap, HashMap};

use faultline_store::{SeenSpool, SpoolMark};

/// How long a spool is remembered from which nothing comes: longer than terminals report old events (30 days).
const REMEMBERED_S: u32 = 32 * 24 * 60 * 60;

/// What was seen of the spools of one partition.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By tenant and terminal.
    spools: HashMap<String, HashMap<String, BTreeMap<u64, Spool>>>,
}

/// What was seen of one spool.
#[derive(Debug)]
pub(crate) struct Spool {
    sequence: u64,
    seen_s: u32,
    /// Since it was last kept.
    has_changed: bool,
}

impl Seen {
    pub(crate) fn load(spools: Vec<SeenSpool>) -> Seen {
        let mut seen = Seen::default();
        for SeenSpool { mark, is_kept } in spools {
            let spool = Spool { sequence: mark.sequence, seen_s: mark.seen_at, has_changed: !is_kept };
            seen.spools.entry(mark.tenant).or_default().entry(mark.terminal).or_default().insert(mark.spool, spool);
        }
        seen
    }

    /// Takes note of a spool's events at a moment, in seconds since 1970-01-01 UTC, and returns it.
    pub(crate) fn spool(&mut self, (tenant, terminal, id): (&str, &str, u64), now_s: u32) -> &mut Spool {
        let spools = self.spools.entry(tenant.to_owned()).or_default().entry(terminal.to_owned()).or_default();
        let spool = spools.entry(id).or_insert(Spool { sequence: 0, seen_s: now_s, has_changed: true });
        spool.seen_s = spool.seen_s.max(now_s);
        spool.has_changed = true;
        spool
    }

    /// How many spools are remembered.
    pub(crate) fn len(&self) -> usize {
        self.spools.values().flat_map(HashMap::values).map(BTreeMap::len).sum()
    }

    /// What changed since it was last kept, for the store to keep.
    pub(crate) fn changes(&self, partition: u16) -> Vec<SpoolMark> {
        let mut changes = Vec::new();
        for (tenant, terminals) in &self.spools {
            for (terminal, spools) in terminals {
                changes.extend(spools.iter().filter(|(_, spool)| spool.has_changed).map(|(id, spool)| SpoolMark {
                    kafka_partition: partition,
                    tenant: tenant.clone(),
                    terminal: terminal.clone(),
                    spool: *id,
                    sequence: spool.sequence,
                    seen_at: spool.seen_s,
                }));
            }
        }
        changes
    }

    /// What changed is kept; what is too old to matter is forgotten.
    pub(crate) fn kept(&mut self, now_s: u32) {
        for terminals in self.spools.values_mut() {
            terminals.retain(|_, spools| {
                spools.retain(|_, spool| {
                    spool.has_changed = false;
                    now_s.saturating_sub(spool.seen_s) < REMEMBERED_S
                });
                !spools.is_empty()
            });
        }
    }
}

impl Spool {
    /// Takes note of an event. Returns whether it is new.
    pub(crate) fn is_new(&mut self, sequence: u64) -> bool {
        let is_new = sequence > self.sequence;
        self.sequence = self.sequence.max(sequence);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u32 = 24 * 60 * 60;

    #[test]
    fn a_repeat_is_not_new_however_late_it_comes() {
        let mut seen = Seen::default();
        let mut is_new = |tenant, terminal, spool, sequence| seen.spool((tenant, terminal, spool), 0).is_new(sequence);
        assert!(is_new("acme", "T-1", 7, 1) && is_new("acme", "T-1", 7, 5));
        assert!(!is_new("acme", "T-1", 7, 5) && !is_new("acme", "T-1", 7, 1));
        // Another spool, terminal or tenant is another's business.
        assert!(is_new("acme", "T-1", 8, 1) && is_new("acme", "T-2", 7, 1) && is_new("other", "T-1", 7, 1));
        assert!(is_new("acme", "T-1", 7, 6));
    }

    #[test]
    fn what_was_kept_is_known_again() {
        let mut seen = Seen::default();
        seen.spool(("acme", "T-1", 7), 100).is_new(5);
        seen.spool(("acme", "T-1", 8), 200).is_new(1);
        let changes = seen.changes(3);
        assert_eq!(
            changes.iter().map(|mark| (mark.kafka_partition, mark.spool, mark.sequence, mark.seen_at)).collect::<Vec<_>>(),
            [(3, 7, 5, 100), (3, 8, 1, 200)]
        );
        seen.kept(200);
        assert_eq!(seen.changes(3), []);
        // A repeat is no news, but a sign of life.
        assert!(!seen.spool(("acme", "T-1", 7), 300).is_new(5));
        assert_eq!(seen.changes(3).iter().map(|mark| (mark.sequence, mark.seen_at)).collect::<Vec<_>>(), [(5, 300)]);

        // What was found in rows is kept the next time, whoever saw it first.
        let load = |is_kept| Seen::load(changes.iter().map(|mark| SeenSpool { mark: mark.clone(), is_kept }).collect());
        assert_eq!((load(true).changes(3), load(false).changes(3)), (vec![], changes.clone()));
        let mut again = load(true);
        assert!(!again.spool(("acme", "T-1", 7), 0).is_new(5) && again.spool(("acme", "T-1", 7), 0).is_new(6));
    }

    #[test]
    fn a_spool_is_forgotten_when_nothing_can_come_from_it() {
        let mut seen = Seen::default();
        seen.spool(("acme", "T-1", 7), 0).is_new(5);
        seen.kept(31 * DAY_S);
        assert!(!seen.spool(("acme", "T-1", 7), 0).is_new(5));
        seen.kept(33 * DAY_S);
        assert!(seen.spool(("acme", "T-1", 7), 33 * DAY_S).is_new(5));
    }
}
