//! What was seen of every spool of one partition: of each, the greatest sequence that is counted.
//!
//! Sequences rise strictly within a spool, and one batch of a spool is unacknowledged at a time. So what is not greater than the greatest is a
//! repeat, however late it comes.

use faultline_store::{SeenSpool, SpoolMark};
use hashbrown::hash_map::EntryRef;
use hashbrown::{Equivalent, HashMap};

/// How long a spool is remembered from which nothing comes: longer than terminals report old events (30 days).
pub(crate) const REMEMBERED_S: u32 = 32 * 24 * 60 * 60;

/// What was seen of the spools of one partition.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By tenant. There are millions of spools and few tenants.
    spools: HashMap<String, HashMap<Name, Spool>>,
}

/// What a spool is called within its tenant.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Name {
    terminal: Box<str>,
    id: u64,
}

/// The same, of texts of somebody else.
#[derive(Hash)]
struct NameRef<'a> {
    terminal: &'a str,
    id: u64,
}

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        self.id == name.id && *self.terminal == *name.terminal
    }
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
            let name = Name { terminal: mark.terminal.into(), id: mark.spool };
            seen.spools.entry(mark.tenant).or_default().insert(name, spool);
        }
        seen
    }

    /// Takes note of a spool's events at a moment, in seconds since 1970-01-01 UTC, and returns it.
    pub(crate) fn spool(&mut self, (tenant, terminal, id): (&str, &str, u64), now_s: u32) -> &mut Spool {
        let spools = self.spools.entry_ref(tenant).or_default();
        let spool = match spools.entry_ref(&NameRef { terminal, id }) {
            EntryRef::Occupied(known) => known.into_mut(),
            EntryRef::Vacant(new) => {
                let name = Name { terminal: terminal.into(), id };
                new.insert_with_key(name, Spool { sequence: 0, seen_s: now_s, has_changed: true })
            }
        };
        spool.seen_s = spool.seen_s.max(now_s);
        spool.has_changed = true;
        spool
    }

    /// How many spools are remembered.
    pub(crate) fn len(&self) -> usize {
        self.spools.values().map(HashMap::len).sum()
    }

    /// What changed since it was last kept, for the store to keep.
    pub(crate) fn changes(&self, partition: u16) -> Vec<SpoolMark> {
        let spools = self.spools.iter().flat_map(|(tenant, spools)| spools.iter().map(move |(name, spool)| (tenant, name, spool)));
        let changes = spools.filter(|(.., spool)| spool.has_changed).map(|(tenant, name, spool)| SpoolMark {
            kafka_partition: partition,
            tenant: tenant.clone(),
            terminal: name.terminal.clone().into(),
            spool: name.id,
            sequence: spool.sequence,
            seen_at: spool.seen_s,
        });
        changes.collect()
    }

    /// What changed is kept; what is too old to matter is forgotten.
    pub(crate) fn kept(&mut self, now_s: u32) {
        for spools in self.spools.values_mut() {
            spools.retain(|_, spool| {
                spool.has_changed = false;
                now_s.saturating_sub(spool.seen_s) < REMEMBERED_S
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
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;
    use proptest::sample::Index;

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
        let mut changes = seen.changes(3);
        changes.sort_by_key(|mark| mark.spool);
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
        let mut loaded = load(false).changes(3);
        loaded.sort_by_key(|mark| mark.spool);
        assert_eq!((load(true).changes(3), &loaded), (vec![], &changes));
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

    /// Spools whose names are others' put together differently.
    const SPOOLS: [(&str, &str, u64); 7] = [
        ("acme", "T-1", 7),
        ("acme", "T-1", 8),
        ("acme", "T-17", 7),
        ("acmeT", "-1", 7),
        ("acme", "", 7),
        ("", "T-1", 7),
        ("other", "T-1", 7),
    ];

    /// What becomes of a partition.
    #[derive(Clone, Debug)]
    enum Happening {
        /// A batch of a spool arrives, that has so many events and leaves out so many sequences between them.
        Batch(Index, u64, u64),
        /// An earlier batch arrives once more, whatever came since: the answer was lost, and it was sent over another connection.
        Again(Index),
        /// Events of these sequences arrive, as no spool sends them.
        Anything(Index, Vec<u64>),
        /// What was seen is kept.
        Keep,
        /// Another process goes on.
        Load,
    }

    fn happenings(anything: bool) -> impl Strategy<Value = Vec<Happening>> {
        let happening = prop_oneof![
            8 => (any::<Index>(), 1..5_u64, 1..3_u64).prop_map(|(spool, events, step)| Happening::Batch(spool, events, step)),
            4 => any::<Index>().prop_map(Happening::Again),
            u32::from(anything) * 6 => (any::<Index>(), prop::collection::vec(1..20_u64, 0..5)).prop_map(|(spool, events)| Happening::Anything(spool, events)),
            1 => Just(Happening::Keep),
            1 => Just(Happening::Load),
        ];
        prop::collection::vec(happening, 0..80)
    }

    type Place = (&'static str, &'static str, u64);

    /// The tables that a classifier loads from: `high_water`, and the sequences of rows since.
    #[derive(Default)]
    struct Tables {
        kept: BTreeMap<Place, u64>,
        since: BTreeMap<Place, u64>,
    }

    impl Tables {
        fn load(&self) -> Vec<SeenSpool> {
            let spools: HashSet<_> = self.kept.keys().chain(self.since.keys()).collect();
            let load = |place: &Place| {
                let (kept, since) = (self.kept.get(place).copied(), self.since.get(place).copied());
                let sequence = kept.max(since).unwrap();
                let (tenant, terminal, spool) = (place.0.to_owned(), place.1.to_owned(), place.2);
                SeenSpool {
                    mark: SpoolMark { kafka_partition: 3, tenant, terminal, spool, sequence, seen_at: 0 },
                    is_kept: since.is_none(),
                }
            };
            spools.into_iter().map(load).collect()
        }

        fn keep(&mut self, marks: Vec<SpoolMark>) {
            for mark in marks {
                let place = SPOOLS.into_iter().find(|place| *place == (&*mark.tenant, &*mark.terminal, mark.spool)).unwrap();
                let kept = self.kept.entry(place).or_default();
                *kept = mark.sequence.max(*kept);
            }
            self.since.clear();
        }
    }

    /// Every event that arrives, in order: whether it was said to be new, and whether it is.
    fn verdicts(happenings: Vec<Happening>) -> Vec<(bool, bool)> {
        let (mut seen, mut tables, mut identities) = (Seen::default(), Tables::default(), HashSet::new());
        let (mut batches, mut next) = (Vec::<(Place, Vec<u64>)>::new(), BTreeMap::<Place, u64>::new());
        let mut verdicts = Vec::new();
        for happening in happenings {
            let (place, sequences) = match happening {
                Happening::Batch(spool, events, step) => {
                    let place = SPOOLS[spool.index(SPOOLS.len())];
                    let next = next.entry(place).or_default();
                    let sequences = (0..events).map(|event| *next + (event + 1) * step).collect();
                    *next += events * step;
                    batches.push((place, sequences));
                    batches.last().unwrap().clone()
                }
                Happening::Again(_) if batches.is_empty() => continue,
                Happening::Again(batch) => batches[batch.index(batches.len())].clone(),
                Happening::Anything(spool, sequences) => (SPOOLS[spool.index(SPOOLS.len())], sequences),
                Happening::Keep => {
                    tables.keep(seen.changes(3));
                    seen.kept(0);
                    continue;
                }
                Happening::Load => {
                    seen = Seen::load(tables.load());
                    continue;
                }
            };
            let spool = seen.spool(place, 0);
            for sequence in sequences {
                let is_new = spool.is_new(sequence);
                verdicts.push((is_new, identities.insert((place, sequence))));
                if is_new {
                    let since = tables.since.entry(place).or_default();
                    *since = sequence.max(*since);
                }
            }
        }
        verdicts
    }

    proptest! {
        /// Where sequences rise within a spool, and one batch of it is unacknowledged at a time.
        #[test]
        fn every_identity_is_new_once(happenings in happenings(false)) {
            for (said, is) in verdicts(happenings) {
                prop_assert_eq!(said, is);
            }
        }

        #[test]
        fn no_identity_is_new_twice_whatever_comes(happenings in happenings(true)) {
            for (said, is) in verdicts(happenings) {
                prop_assert!(is || !said);
            }
        }
    }
}
