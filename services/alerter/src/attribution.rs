//! Whose fault failures were that one outcome leaves open: looked at together once a minute, and written down as corrections, one for each fault.
//!
//! ```text
//! open failures of the last hour, and the attempts of all parts of the fleet ─▶ faults ─▶ what failures stand as, and should ─▶ a correction for each fault
//! ```
//!
//! What was found before is looked at again as long as it is in the window, so a verdict can still become another, or the first again. What an operator took back stays taken back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use faultline_attribution::{Attempt, Fault, Fleet, Settled, Settlement};
use faultline_proto::correction::v1::{CorrectedColumns, Correction, CorrectionKind, CorrectionState};
use faultline_store::{Change, History, Open, OpenFailure, Tried};
use faultline_stream::CorrectionLog;
use faultline_verdict::{Cause, Family, Reason, Rules};
use prost_types::Timestamp;
use tokio::time::{Instant, sleep};

use crate::corrections::{Corrections, correction};
use crate::counts;
use crate::settlement::{now_ms, said};
use crate::watch::Shared;

/// What is completed after this may not be counted yet, in milliseconds.
const ARRIVAL_MS: i64 = 5000;
/// How much is compared with what stands at once, in milliseconds of completion.
const STRETCH_MS: i64 = 5 * 60 * 1000;
/// A fault of the same part that begins so soon after the end of one that is known is that one, in milliseconds.
const SAME_FAULT_MS: i64 = 10 * 60 * 1000;
/// What nothing else has failed with for so long stands alone, in milliseconds.
const ALONE_AFTER_MS: i64 = 10 * 60 * 1000;
/// Most failures of a tenant that are looked at together, so that memory has a bound: with more, the window is shorter.
const MOST_FAILURES: u64 = 1_000_000;
/// What is settled with less stays as it stands: it may be otherwise a minute later.
const LEAST_CONFIDENCE: f64 = 0.6;

/// Attributes, for ever. What cannot be done now is done the next time.
pub(crate) async fn attribute(shared: &Shared) -> ! {
    let config = &shared.config;
    let mut rules = shared.rules.in_force();
    let mut looked_at = LookedAt::default();
    loop {
        sleep(config.attribution.interval).await;
        let until = now_ms() - ARRIVAL_MS;
        // A part of the failures may be all that is counted.
        if !shared.progress.behind(until).await.is_ok_and(|behind| behind.is_empty()) {
            continue;
        }
        let in_force = shared.rules.in_force();
        if !Arc::ptr_eq(&in_force, &rules) {
            // What other rules make of what did not change may be something else.
            looked_at.clear();
            rules = in_force;
        }
        let reasons: Vec<String> = open_reasons(&rules);
        let window = i64::try_from(config.attribution.window.as_millis()).unwrap_or(i64::MAX);
        let time = stretch_of(until - window)..until;
        looked_at.retain(|(_, stretch), _| *stretch >= time.start);
        let tenants = shared.database.counted(None, u32::try_from(until / 1000).unwrap_or(u32::MAX)).await.unwrap_or_default();
        for tenant in tenants {
            let begin = Instant::now();
            let open = Open { tenant: &tenant.tenant, time: &time, reasons: &reasons };
            let time = match bounded(shared, open).await {
                Ok(time) => time,
                Err(reason) => {
                    tracing::warn!(tenant = tenant.tenant, reason, "failures are attributed later");
                    continue;
                }
            };
            let open = Open { time: &time, ..open };
            match attribute_tenant((shared, &rules), open, &mut looked_at).await {
                Ok(()) => counts::attributed_in(begin.elapsed()),
                Err(reason) => tracing::warn!(tenant = tenant.tenant, reason, "failures are attributed later"),
            }
        }
    }
}

/// By tenant and stretch of time, what its failures were to stand as when that was last compared with what they do: a number that differs when it does.
type LookedAt = HashMap<(String, i64), u64>;

/// When the stretch began that a moment is in.
fn stretch_of(ms: i64) -> i64 {
    ms - ms.rem_euclid(STRETCH_MS)
}

/// The reasons that leave open whose fault it is.
fn open_reasons(rules: &Rules) -> Vec<String> {
    let symptoms: HashSet<&str> = rules.attributions().map(|attribution| attribution.symptom).collect();
    let reasons = rules.sets().flat_map(|set| rules.reasons(set)).filter(|reason| symptoms.contains(reason.symptom.as_str()));
    let reasons: HashSet<&String> = reasons.map(|reason| &reason.id).collect();
    let mut reasons: Vec<String> = reasons.into_iter().cloned().collect();
    reasons.sort_unstable();
    reasons
}

/// As much of the time as has not too many failures; what is longer ago stays as it was settled.
async fn bounded(shared: &Shared, open: Open<'_>) -> Result<Range<i64>, String> {
    let counts = shared.database.open_counts(open).await.map_err(said)?;
    Ok(begin_of(&counts, open.time.end).max(open.time.start)..open.time.end)
}

/// From when on there are not too many failures, by the counts of stretches, the latest first; at least the latest is looked at.
fn begin_of(counts: &[(i64, u64)], end: i64) -> i64 {
    let mut all = 0;
    let too_many = counts.iter().skip_while(|(_, failures)| {
        all += failures;
        all <= MOST_FAILURES
    });
    too_many.map(|(begin, _)| begin + STRETCH_MS).next().map_or(i64::MIN, |begin| begin.min(stretch_of(end)))
}

async fn attribute_tenant((shared, rules): (&Shared, &Rules), open: Open<'_>, looked_at: &mut LookedAt) -> Result<(), String> {
    let begin = Instant::now();
    let (known, settlement) = look((shared, rules), open).await?;
    let found = begin.elapsed();
    let log = CorrectionLog::read(&shared.kafka).await.map_err(said)?;
    let past = Past::of(&log, open.tenant);
    let is_taken_back = |fault: usize| settlement.faults.get(fault).is_some_and(|fault| past.has_taken_back(fault));
    let mut wanted: HashMap<(&str, u64, u64), Wanted<'_>> = HashMap::new();
    let mut stretches: BTreeMap<i64, u64> = BTreeMap::new();
    for (failure, settled) in known.failures.iter().zip(&settlement.failures) {
        let of = failure.wanted(settled, is_taken_back, open.time.end);
        let name = (known.terminal(failure.terminal), failure.spool, failure.sequence);
        let number = stretches.entry(stretch_of(failure.completed_ms)).or_default();
        *number = number.wrapping_add(BuildHasherDefault::<DefaultHasher>::default().hash_one((name, of.reason.map(|reason| &reason.id))));
        wanted.insert(name, of);
    }
    let mut corrected = 0;
    for (stretch, number) in stretches {
        let place = (open.tenant.to_owned(), stretch);
        if looked_at.get(&place) == Some(&number) {
            continue;
        }
        let time = stretch..stretch + STRETCH_MS;
        let histories = shared.database.histories(Open { time: &time, ..open }).await.map_err(said)?;
        for (fault, changes) in changes(&past, &wanted, histories) {
            corrected += changes.len();
            let fault = fault.and_then(|fault| settlement.faults.get(fault));
            write(shared, (open.tenant, &time), fault, changes).await?;
        }
        looked_at.insert(place, number);
    }
    let (failures, faults) = (settlement.failures.len(), settlement.faults.len());
    tracing::debug!(tenant = open.tenant, failures, faults, corrected, ?found, took = ?begin.elapsed(), "attributed");
    Ok(())
}

/// What is to be changed of outcomes, by fault.
fn changes(
    past: &Past<'_>,
    wanted: &HashMap<(&str, u64, u64), Wanted<'_>>,
    histories: Vec<History>,
) -> BTreeMap<Option<usize>, Vec<Change>> {
    let mut changes: BTreeMap<Option<usize>, Vec<Change>> = BTreeMap::new();
    for history in histories.into_iter().filter(|history| !past.is_taken_back(history)) {
        let Some(of) = wanted.get(&(history.last.terminal.as_str(), history.last.spool, history.last.sequence)) else { continue };
        let columns = match of.reason {
            Some(Reason { id, cause, .. }) => {
                CorrectedColumns { cause: (*cause).into(), reason: id.clone(), confidence: of.percent, ..history.last.columns() }
            }
            None => past.own(&history, of.first),
        };
        if (columns.cause, &columns.reason) == (history.last.cause.into(), &history.last.reason) {
            continue;
        }
        if history.corrections.is_empty() {
            counts::attributed_after(Duration::from_millis(u64::try_from(now_ms() - history.last.completed_at).unwrap_or_default()));
        }
        changes.entry(of.fault).or_default().push(Change { standing: history.last, columns });
    }
    changes
}

/// What a failure is to stand as.
struct Wanted<'r> {
    /// Its reason; nothing: what rules say of it alone.
    reason: Option<&'r Reason>,
    /// The reason of its first verdict, where rules still have it.
    first: Option<&'r Reason>,
    percent: u32,
    /// The place of its fault.
    fault: Option<usize>,
}

/// A failure that was looked at.
struct LookedAtOne<'r> {
    terminal: u32,
    spool: u64,
    sequence: u64,
    completed_ms: i64,
    first: Option<&'r Reason>,
}

impl<'r> LookedAtOne<'r> {
    /// What it is to stand as. What is doubtful, or was taken back, is left to its first verdict; and so is what may still turn out not to stand alone.
    fn wanted(&self, settled: &Settled<'r>, is_taken_back: impl Fn(usize) -> bool, now_ms: i64) -> Wanted<'r> {
        let is_sure = settled.confidence >= LEAST_CONFIDENCE;
        let stands = match settled.fault {
            Some(fault) => is_sure && !is_taken_back(fault),
            None => is_sure && self.completed_ms + ALONE_AFTER_MS < now_ms && self.first.is_some_and(|first| first.id != settled.reason.id),
        };
        let percent = (0..=100).rev().find(|percent| f64::from(*percent) <= settled.confidence * 100.0).unwrap_or_default();
        Wanted { reason: stands.then_some(settled.reason), first: self.first, percent, fault: settled.fault.filter(|_| stands) }
    }
}

/// The failures that were looked at, by their numbers.
#[derive(Default)]
struct Known<'r> {
    terminals: Vec<String>,
    by_terminal: HashMap<String, u32>,
    failures: Vec<LookedAtOne<'r>>,
}

impl<'r> Known<'r> {
    fn take(&mut self, failure: OpenFailure, first: Option<&'r Reason>) {
        let OpenFailure { terminal, spool, sequence, completed_at, .. } = failure;
        let number = self.by_terminal.get(&terminal).copied().unwrap_or_else(|| {
            let number = u32::try_from(self.terminals.len()).unwrap_or(u32::MAX);
            self.terminals.push(terminal.clone());
            self.by_terminal.insert(terminal, number);
            number
        });
        self.failures.push(LookedAtOne { terminal: number, spool, sequence, completed_ms: completed_at, first });
    }

    fn terminal(&self, number: u32) -> &str {
        self.terminals.get(number as usize).map_or("", String::as_str)
    }
}

/// Looks at everything together.
async fn look<'a>((shared, rules): (&Shared, &'a Rules), open: Open<'_>) -> Result<(Known<'a>, Settlement<'a>), String> {
    let (mut fleet, mut known) = (Fleet::new(rules), Known::default());
    let tried = |Tried { family, part, at, attempts }: Tried| {
        if let Some(part) = named(&family, &part) {
            fleet.tried(part, i64::from(at) * 1000, u32::try_from(attempts).unwrap_or(u32::MAX));
        }
    };
    shared.database.tried(open, tried).await.map_err(said)?;
    let failed = |failure: OpenFailure| {
        let attempt = Attempt {
            completed_ms: failure.completed_at,
            terminal: &failure.terminal,
            spool: failure.spool,
            sale: if failure.first_attempt_sequence == 0 { failure.sequence } else { failure.first_attempt_sequence },
            merchant: &failure.merchant,
            store: &failure.store,
            issuer: &failure.issuer,
            bin: &failure.bin,
            card: (failure.card_token_key > 0).then_some((failure.card_token_key, failure.card_token)),
            carrier: &failure.carrier,
            region: &failure.region,
            model: &failure.model,
            firmware: &failure.firmware,
            application: &failure.application,
            acquirer: &failure.acquirer,
            host: &failure.host,
            route: &failure.route,
            response_code: &failure.response_code,
            rule_set: &failure.rule_set,
            reason: &failure.reason,
            confidence: failure.confidence,
        };
        if fleet.failed(&attempt).is_some() {
            let first = rules.reason(&failure.rule_set, &failure.reason);
            known.take(failure, first);
        }
    };
    shared.database.open_failures(open, failed).await.map_err(said)?;
    Ok((known, tokio::task::block_in_place(|| fleet.settle())))
}

/// A part of the fleet, as failures name it; nothing where they do not: what is not known is in no part.
fn named<'p>(family: &str, part: &'p str) -> Option<(Family, &'p str)> {
    let family = Family::ALL.into_iter().find(|known| known.name() == family)?;
    let is_known = match (family, part.split_once('|')) {
        (Family::Fleet, _) => return Some((family, "fleet")),
        (Family::CarrierRegion, Some((carrier, region))) => !carrier.is_empty() && !region.is_empty(),
        (Family::Host | Family::ModelFirmware, Some((_, second))) => !second.is_empty(),
        _ => !part.is_empty(),
    };
    is_known.then_some((family, part))
}

/// What corrections there were of a tenant.
struct Past<'a> {
    kinds: HashMap<&'a str, CorrectionKind>,
    /// The faults whose attributions were taken back.
    taken_back: Vec<&'a Correction>,
}

impl Past<'_> {
    fn of<'a>(log: &'a [Correction], tenant: &str) -> Past<'a> {
        let own = || log.iter().filter(|known| known.tenant == tenant);
        let undone: HashSet<&str> = own().map(|known| known.undone_correction_id.as_str()).collect();
        let is_undone = |known: &&Correction| known.kind() == CorrectionKind::Attribution && undone.contains(known.correction_id.as_str());
        Past {
            kinds: own().map(|known| (known.correction_id.as_str(), known.kind())).collect(),
            taken_back: own().filter(is_undone).collect(),
        }
    }

    /// Whether what an outcome stands as was taken back by somebody: then it is left alone.
    fn is_taken_back(&self, history: &History) -> bool {
        history.corrections.last().is_some_and(|last| self.kinds.get(last.as_str()) == Some(&CorrectionKind::Undo))
    }

    /// Whether a fault is one that somebody took back.
    fn has_taken_back(&self, fault: &Fault) -> bool {
        self.taken_back.iter().any(|known| is_of(known, fault))
    }

    /// What an outcome says that belongs to no fault: what it said first, unless it was never said to belong to one.
    fn own(&self, history: &History, first: Option<&Reason>) -> CorrectedColumns {
        let is_attributed = history.corrections.iter().any(|id| self.kinds.get(id.as_str()) == Some(&CorrectionKind::Attribution));
        match first.filter(|_| is_attributed) {
            Some(Reason { id, cause, .. }) => {
                let confidence = history.first.confidence.into();
                CorrectedColumns { cause: (*cause).into(), reason: id.clone(), confidence, ..history.last.columns() }
            }
            None => history.last.columns(),
        }
    }
}

/// Whether a correction is of a fault.
fn is_of(known: &Correction, fault: &Fault) -> bool {
    let ms = |time: &Option<Timestamp>| time.as_ref().map_or(0, |time| time.seconds * 1000);
    known.kind() == CorrectionKind::Attribution
        && known.fault.as_ref().is_some_and(|of| {
            (of.symptom.as_str(), of.family.as_str(), of.part.as_str())
                == (fault.symptom.as_str(), fault.family.name(), fault.part.as_str())
                && ms(&of.from_time) <= fault.until_ms + SAME_FAULT_MS
                && fault.from_ms <= ms(&of.until_time) + SAME_FAULT_MS
        })
}

/// Whether a correction is of outcomes of the same day that are of no fault: there is one for each.
fn stands_alone(known: &Correction, ms: i64) -> bool {
    let day = |seconds: i64| seconds.div_euclid(86_400);
    let is_of_day = known.from_time.as_ref().is_some_and(|from| day(from.seconds) == day(ms / 1000));
    known.kind() == CorrectionKind::Attribution && known.fault.is_none() && is_of_day
}

/// Writes down what a fault's failures are, or that some are of none.
async fn write(shared: &Shared, (tenant, stretch): (&str, &Range<i64>), fault: Option<&Fault>, changes: Vec<Change>) -> Result<(), String> {
    let _one_at_a_time = shared.correcting.lock().await;
    let corrections = Corrections::open(&shared.kafka, &shared.database).await.map_err(said)?;
    let is_it = |known: &&Correction| match fault {
        Some(fault) => is_of(known, fault),
        None => {
            stands_alone(known, stretch.start) && corrections.known().iter().all(|other| other.undone_correction_id != known.correction_id)
        }
    };
    let known = corrections.known().iter().filter(|known| known.tenant == tenant).find(is_it).cloned();
    let description = match fault {
        Some(fault) => fault.in_words().en,
        None => "belongs to no fault of a part of the fleet: nothing else fails with it".into(),
    };
    let mut correction = known.unwrap_or_else(|| correction(tenant, CorrectionKind::Attribution, String::new()));
    let time = |ms: i64| Timestamp { seconds: ms.div_euclid(1000), nanos: 0 };
    let earlier = |known: Option<Timestamp>| known.map_or(stretch.start, |known| stretch.start.min(known.seconds * 1000));
    let later = |known: Option<Timestamp>| known.map_or(stretch.end, |known| stretch.end.max(known.seconds * 1000));
    let (from, until) = (earlier(correction.from_time), later(correction.until_time));
    (correction.from_time, correction.until_time) = (Some(time(from)), Some(time(until + 999)));
    correction.description = description;
    correction.fault = fault.map(Fault::message);
    for change in &changes {
        counts::attributed(Cause::try_from(change.columns.cause).unwrap_or_default());
    }
    let mut corrector = corrections.make(correction).await.map_err(said)?;
    corrector.add(changes).await.map_err(said)?;
    corrector.end(CorrectionState::Finished).await.map(|_| ()).map_err(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_in_no_part() {
        assert_eq!(named("fleet", ""), Some((Family::Fleet, "fleet")));
        assert_eq!(named("issuer", "icbc"), Some((Family::Issuer, "icbc")));
        assert_eq!(named("carrier_region", "46000|440300"), Some((Family::CarrierRegion, "46000|440300")));
        assert_eq!(named("host", "|h1"), Some((Family::Host, "|h1")));
        for nothing in
            [("issuer", ""), ("carrier_region", "|440300"), ("carrier_region", "46000|"), ("host", "acq|"), ("merchant_group", "a")]
        {
            assert_eq!(named(nothing.0, nothing.1), None, "{nothing:?}");
        }
    }

    #[test]
    fn with_too_many_failures_the_window_is_shorter() {
        let minutes = |minutes: i64| minutes * 60_000;
        let counts = [(minutes(20), 400_000), (minutes(15), 600_000), (minutes(10), 1), (minutes(5), 7)];
        assert_eq!(begin_of(&counts, minutes(22)), minutes(15));
        assert_eq!(begin_of(&counts[..2], minutes(22)), i64::MIN);
        assert_eq!(begin_of(&[(minutes(20), 5_000_000)], minutes(22)), minutes(20));
        assert_eq!(begin_of(&[], minutes(22)), i64::MIN);
    }

    #[test]
    fn only_what_is_sure_and_was_not_taken_back_is_corrected() {
        let rules = Rules::built_in().unwrap();
        let reason = |id: &str| rules.reason("unionpay-pos", id);
        let failure = |first| LookedAtOne { terminal: 0, spool: 1, sequence: 1, completed_ms: 0, first: reason(first) };
        let stands = |first: &'static str, (settled, confidence, fault): (&str, f64, Option<usize>), now_ms| {
            let settled = Settled { reason: reason(settled).unwrap(), confidence, fault };
            let wanted = failure(first).wanted(&settled, |fault| fault == 7, now_ms);
            (wanted.reason.map(|reason| reason.id.clone()), wanted.fault, wanted.percent)
        };
        let bank = Some("issuer_silent".to_owned());
        assert_eq!(stands("no_answer", ("issuer_silent", 0.987, Some(3)), 0), (bank, Some(3), 98));
        assert_eq!(stands("no_answer", ("issuer_silent", 0.55, Some(3)), 0).0, None);
        assert_eq!(stands("no_answer", ("issuer_silent", 0.99, Some(7)), 0), (None, None, 99));
        // What stands alone does so when nothing has followed it for a while, and only where that says something else.
        let card = ("card_worn", 0.9, None);
        assert_eq!(stands("chip_unreadable", card, ALONE_AFTER_MS).0, None);
        assert_eq!(stands("chip_unreadable", card, ALONE_AFTER_MS + 1).0, Some("card_worn".to_owned()));
        assert_eq!(stands("card_worn", card, ALONE_AFTER_MS + 1).0, None);
    }

    #[test]
    fn a_fault_goes_on_in_the_same_correction() {
        let fault = Fault {
            symptom: "unanswered".into(),
            family: Family::Issuer,
            part: "icbc".into(),
            from_ms: 10_000_000,
            until_ms: 10_600_000,
            failed: 50.0,
            tried: 100.0,
            usual: 0.01,
            probability: 1.0,
        };
        let known = Correction { fault: Some(fault.message()), ..correction("acme", CorrectionKind::Attribution, String::new()) };
        assert!(is_of(&known, &fault));
        let begun = |from_ms| Fault { from_ms, until_ms: from_ms + 60_000, ..fault.clone() };
        assert!(is_of(&known, &begun(fault.until_ms + SAME_FAULT_MS)) && !is_of(&known, &begun(fault.until_ms + SAME_FAULT_MS + 1000)));
        assert!(!is_of(&known, &Fault { part: "ccb".into(), ..fault.clone() }));
        assert!(!is_of(&correction("acme", CorrectionKind::Replay, String::new()), &fault));
        let alone = Correction {
            from_time: Some(Timestamp { seconds: 2 * 86_400 + 300, nanos: 0 }),
            ..correction("acme", CorrectionKind::Attribution, String::new())
        };
        assert!(stands_alone(&alone, 2 * 86_400_000) && !stands_alone(&alone, 3 * 86_400_000) && !stands_alone(&known, 2 * 86_400_000));
    }
}
