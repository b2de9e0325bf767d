//! One tenant's fleet: its counts go into the detector, and questions of the detector to ClickHouse.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use faultline_detect::{
    Calendar, Change, Class, Counts, Detector, Dimension, HourLike, Incident, Leaf, Observed, Past, Question, Settings, Slice, Tick,
};
use faultline_store::{Database, Failed, FailingLeaf, LikeHour, SliceCounts, StoreError, Usual, values};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::counts;

const HOUR_S: u32 = 3600;
/// With less than so many seconds of counts at such hours, every day more says much.
const LITTLE_S: u64 = 4 * 3600;
/// How often it is learnt again then, in seconds.
const LEARN_AGAIN_S: u32 = 300;
/// So many seconds before an hour begins it is asked what is usual in it: of a large fleet, that takes longer than a tick may.
const AHEAD_S: u32 = 300;

/// A tenant's fleet, watched.
pub(crate) struct Tenant {
    name: String,
    detector: Detector,
    calendar: Arc<Calendar>,
    /// The bucket at which it was learnt what is usual, and whether little was known.
    learnt: u32,
    knows_little: bool,
    /// What is usual at the next hour, and which that is, once it is asked.
    ahead: Option<(u32, JoinHandle<Result<Past, StoreError>>)>,
}

impl Tenant {
    pub(crate) fn new(name: &str, (settings, calendar): (Settings, Arc<Calendar>)) -> Tenant {
        let mut detector = Detector::new(settings);
        detector.announce(calendar.announced(name));
        Tenant { name: name.into(), detector, calendar, learnt: 0, knows_little: true, ahead: None }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn open(&self) -> &[Incident] {
        self.detector.open()
    }

    /// Goes by this calendar from now on. Where it is another one, it is learnt again what is usual.
    pub(crate) fn keep_calendar(&mut self, calendar: Arc<Calendar>) {
        if !Arc::ptr_eq(&self.calendar, &calendar) {
            self.detector.announce(calendar.announced(&self.name));
            self.calendar = calendar;
            (self.learnt, self.knows_little, self.ahead) = (0, true, None);
        }
    }

    /// Learns what is usual at the hour of a bucket, unless it is known; where little is known, every few minutes.
    pub(crate) async fn learn(&mut self, bucket: u32, database: &Database) -> Result<(), StoreError> {
        let hour = bucket - bucket % HOUR_S;
        let is_stale = self.knows_little && self.learnt + LEARN_AGAIN_S <= bucket;
        if self.detector.hour() != Some(hour) || is_stale {
            let asked = self.ahead.take().filter(|(of, _)| *of == hour).map(|(_, asked)| asked);
            let past = match asked {
                // Where it was not answered it is asked again.
                Some(asked) => asked.await.ok().and_then(Result::ok),
                None => None,
            };
            let past = match past {
                Some(past) => past,
                None => usual(database.clone(), self.like(hour), bucket).await?,
            };
            let seconds: u64 = past.all_days.iter().map(|observed| observed.seconds).sum();
            tracing::debug!(tenant = self.name, hour, slices = past.slices.len(), seconds, "learnt what is usual");
            self.learnt = bucket;
            self.knows_little = seconds < LITTLE_S;
            self.detector.learn(past);
        }
        if bucket + AHEAD_S >= hour + HOUR_S && self.ahead.is_none() {
            let next = hour + HOUR_S;
            self.ahead = Some((next, tokio::spawn(usual(database.clone(), self.like(next), bucket))));
        }
        Ok(())
    }

    /// An hour of the fleet, and those that are like it.
    fn like(&self, hour: u32) -> Like {
        let like = |like: HourLike| LikeHour { begin: like.begin, is_same_day: like.is_same_day };
        Like { tenant: self.name.clone(), hour, hours: self.calendar.hours_like(hour).into_iter().map(like).collect() }
    }

    /// Attempts of the fleet a second.
    pub(crate) fn pace(&self) -> f64 {
        self.detector.pace()
    }

    /// Takes in what was counted before.
    pub(crate) fn recall(&mut self, tick: &Tick) {
        self.detector.recall(tick);
    }

    /// Goes on with what was open, or was a moment ago.
    pub(crate) fn resume(&mut self, incidents: Vec<Incident>) {
        self.detector.resume(incidents);
    }

    /// Takes in what was counted in the next ten seconds.
    pub(crate) fn observe(&mut self, tick: &Tick) {
        self.detector.observe(tick);
    }

    /// Answers what the detector has to know. If this fails it can be repeated.
    pub(crate) async fn settle(&mut self, database: &Database) -> Result<(), StoreError> {
        while let Some(Question { buckets, classes }) = self.detector.question() {
            let begin = Instant::now();
            let names: Vec<&str> = classes.iter().map(|class| class.name()).collect();
            let failing = database.failing(&self.name, buckets, &names).await?;
            tracing::debug!(tenant = self.name, ?buckets, classes = ?names, leaves = failing.len(), answered = ?begin.elapsed(), "looked at what failed");
            let leaves: Vec<Leaf> = failing.into_iter().flat_map(|found| leaves(found, classes)).collect();
            self.detector.answer(&leaves);
            counts::drilled_down(begin.elapsed());
        }
        Ok(())
    }

    /// What has changed.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        self.detector.changes()
    }
}

/// What was counted in the buckets from one to another, as ticks: by the first second of their bucket, and by tenant.
pub(crate) async fn counted(
    database: &Database,
    buckets: &RangeInclusive<u32>,
) -> Result<BTreeMap<u32, HashMap<String, Tick>>, StoreError> {
    Ok(ticks(&database.counts(buckets, &Class::ALL.map(Class::name)).await?))
}

/// Counts of all classes, in order of slices, as ticks.
fn ticks(counts: &[SliceCounts]) -> BTreeMap<u32, HashMap<String, Tick>> {
    let mut ticks: BTreeMap<u32, HashMap<String, Tick>> = BTreeMap::new();
    for of_slice in counts.chunk_by(|one, next| one.slice() == next.slice()) {
        let Some(slice) = of_slice.first().and_then(|first| slice(&first.family, &first.key)) else { continue };
        for SliceCounts { tenant, begin: bucket, attempts, .. } in of_slice {
            let mut counts = Counts::default();
            for (class, attempts) in Class::ALL.into_iter().chain([Class::Unknown]).zip(attempts) {
                // What was corrected since may be of another class.
                if let Some(attempts) = u64::try_from(*attempts).ok().filter(|attempts| *attempts > 0) {
                    counts.add(class, attempts);
                }
            }
            if counts.attempts > 0 {
                let of_tenant = ticks.entry(*bucket).or_default().entry(tenant.clone());
                of_tenant.or_insert_with(|| Tick { bucket: *bucket, ..Tick::default() }).counts.push((slice.clone(), counts));
            }
        }
    }
    ticks
}

/// An hour of a tenant's, and those that are like it.
struct Like {
    tenant: String,
    hour: u32,
    hours: Vec<LikeHour>,
}

/// Asks what is usual at an hour, as far as something was counted until `now`.
async fn usual(database: Database, like: Like, now: u32) -> Result<Past, StoreError> {
    let begin = Instant::now();
    let usual = database.usual(&like.tenant, &like.hours, now).await?;
    counts::learnt(begin.elapsed());
    Ok(past(like.hour, usual))
}

fn past(hour: u32, usual: Usual) -> Past {
    let mut past = Past { hour, ..Past::default() };
    for count in usual.counts {
        if let Some(slice) = slice(&count.family, &count.key) {
            let (of_slice, class) = (past.slices.entry(slice).or_default(), Class::of_tag(&count.class));
            of_slice.at_hour.add(class, count.at_hour);
            of_slice.around.add(class, count.around);
            if class == Class::Approved {
                of_slice.same_day = count.on_day.into();
                of_slice.all_days = count.on_days.into();
            }
        }
    }
    for observed in usual.observed {
        let place = usize::from(observed.hour);
        let of_days = [(true, &mut past.all_days), (observed.same_day, &mut past.same_day)];
        for (_, hours) in of_days.into_iter().filter(|(counts, _)| *counts) {
            if let Some(Observed { approved, seconds }) = hours.get_mut(place) {
                *approved += observed.approved;
                *seconds += observed.seconds;
            }
        }
    }
    past
}

/// The leaves of what has all values in common, where these classes were asked for.
fn leaves(FailingLeaf { values, failed }: FailingLeaf, classes: &[Class]) -> impl Iterator<Item = Leaf> {
    let at = Slice::new(values.into_iter().filter_map(|(name, value)| Some((Dimension::named(name)?, value))));
    failed.into_iter().filter_map(move |Failed { bucket, class, failures, witnessed }| {
        let failures = u32::try_from(failures).unwrap_or(u32::MAX);
        Some(Leaf { at: at.clone(), bucket, class: *classes.get(class)?, failures, witnessed })
    })
}

/// The slice of a family's key; nothing where the family, or what it is made of, is not known here.
pub(crate) fn slice(family: &str, key: &str) -> Option<Slice> {
    let values = values(family, key)?.into_iter().map(|(name, value)| Some((Dimension::named(name)?, value)));
    Some(Slice::new(values.collect::<Option<Vec<_>>>()?))
}

#[cfg(test)]
mod tests {
    use faultline_store::{UsualApprovals, UsualCount, families};

    use super::*;

    #[test]
    fn every_family_is_one_of_slices() {
        for family in families() {
            assert!(slice(family, "a|b").is_some(), "{family}");
        }
        assert_eq!(slice("model_firmware", "PAX A920|7.1").unwrap().to_string(), "firmware=7.1&model=PAX A920");
        assert_eq!(slice("ledger", "log:0:5-7"), None);
    }

    #[test]
    fn counts_are_sorted_by_tenant_slice_and_class() {
        let counted = |tenant: &str, begin, of_classes: &[(Option<Class>, i64)]| {
            let of_class = |class| of_classes.iter().filter(|(own, _)| *own == class).map(|(_, attempts)| attempts).sum();
            let attempts = Class::ALL.into_iter().map(Some).chain([None]).map(of_class).collect();
            SliceCounts { tenant: tenant.into(), family: "issuer".into(), key: "icbc".into(), begin, attempts }
        };
        let (approved, down, lost) = (Some(Class::Approved), Some(Class::IssuerDown), Some(Class::LocalNetwork));
        let counts = [
            counted("a", 10, &[(approved, 3), (down, 3)]),
            // One was corrected whose failure was not counted in these buckets.
            counted("a", 20, &[(approved, 3), (lost, -1)]),
            counted("b", 10, &[(None, 3)]),
        ];
        let ticks = ticks(&counts);
        let (icbc, of_a) = &ticks[&10]["a"].counts[0];
        assert_eq!((icbc.to_string().as_str(), of_a.attempts, of_a.approved, of_a.failures[&Class::IssuerDown]), ("issuer=icbc", 6, 3, 3));
        let (_, later) = &ticks[&20]["a"].counts[0];
        assert_eq!((later.attempts, later.failures.len()), (3, 0));
        assert_eq!(ticks[&10]["b"].counts[0].1.failures[&Class::Unknown], 3);
    }

    #[test]
    fn all_days_include_the_same_day() {
        let approvals = |same_day, approved| UsualApprovals { hour: 1, same_day, approved, seconds: 3600 };
        let counts = vec![UsualCount {
            family: "fleet".into(),
            key: String::new(),
            class: "approved".into(),
            at_hour: 5,
            around: 50,
            on_day: (2, 5, 8),
            on_days: (20, 10, 20),
        }];
        let past = past(7200, Usual { counts, observed: vec![approvals(true, 7), approvals(false, 30)] });
        assert_eq!(
            (past.same_day[1], past.all_days[1]),
            (Observed { approved: 7, seconds: 3600 }, Observed { approved: 37, seconds: 7200 })
        );
        let fleet = &past.slices[&Slice::fleet()];
        assert_eq!((fleet.at_hour.approved, fleet.around.approved, fleet.same_day, fleet.all_days), (5, 50, [2, 5, 8], [20, 10, 20]));
    }
}
