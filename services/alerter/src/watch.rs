//! The alerter's work, from counts to incidents.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use faultline_detect::Tick;
use faultline_rules::RuleFiles;
use faultline_runtime::error::with_causes;
use faultline_runtime::readiness::Readiness;
use faultline_store::{Database, StoreError};
use faultline_stream::{KafkaConfig, LogError, Progress, StreamError, Topic};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::alertmanager::Board;
use crate::calendar::CalendarFile;
use crate::config::AlerterConfig;
use crate::counts;
use crate::desk::{Desk, News};
use crate::explanations::{self, Explanations};
use crate::tenant::{Tenant, counted};
use crate::watermarks::Watermarks;
use crate::webhook::Notices;

/// What the alerter calls itself, where it says what is in its way.
pub(crate) const DETECTION: &str = "detection";
/// Length of a bucket of counts, in seconds.
pub(crate) const BUCKET_S: u32 = 10;
/// How far back counts are taken in at the start, in seconds: as far as the detector remembers.
pub(crate) const RECALL_S: u32 = 3600;
/// Where counting is behind at the start, how far back it is looked how far it came, in seconds.
const STEPS_BACK_S: [u32; 5] = [0, 60, 300, 900, RECALL_S];
/// Most buckets that are asked for at once: of 10,000 slices, each is some 10 MiB.
const MOST_BUCKETS: u32 = 12;
/// How often it is looked whether there is something new.
const LOOK: Duration = Duration::from_millis(250);
/// Pause before something that a server did not do is tried again.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// What everything here needs.
pub(crate) struct Shared {
    pub(crate) config: AlerterConfig,
    pub(crate) kafka: KafkaConfig,
    pub(crate) database: Database,
    pub(crate) progress: Progress,
    pub(crate) watermarks: Watermarks,
    pub(crate) readiness: Readiness,
    pub(crate) notices: Notices,
    /// The incidents that are known, for those who are told again and again.
    pub(crate) board: Board,
    /// Which days are like which, and what is announced.
    pub(crate) calendar: CalendarFile,
    /// By which outcomes are judged.
    pub(crate) rules: RuleFiles,
    /// Whoever here corrects something: there is one at a time.
    pub(crate) correcting: Mutex<()>,
}

/// Watches all tenants until another takes over.
///
/// ```text
/// the last hour ─▶ recall ─▶ ┌▶ ten seconds are over, and counted ─▶ by tenant: observe, ask what failed ─▶ explain ─▶ publish ─┐
/// open incidents ─▶ resume ──┘                                                                                                  │
///                            └──────────────────────────────────────────────────────────────────────────────────────────────────┘
/// ```
pub(crate) async fn watch(shared: &Shared) -> Result<(), LogError> {
    let mut desk = Desk::open(shared).await?;
    // What was judged is not judged again, by what is counted of it when counting is behind: an incident would be unobserved before it began.
    let mut done = shared.begin().await.max(desk.judged().min(shared.last_over()));
    let mut tenants = recall(shared, &desk, done).await;
    let mut explanations = Explanations::default();
    tracing::info!(tenants = tenants.len(), "the alerter watches");
    shared.is_behind(done);
    loop {
        let until = shared.until_counted(done).await.min(done + MOST_BUCKETS * BUCKET_S);
        let buckets = done + BUCKET_S..=until;
        let mut begin = Instant::now();
        let mut ticks = shared.insist(async || counted(&shared.database, &buckets).await).await;
        for bucket in buckets.step_by(step()) {
            let mut of_bucket = ticks.remove(&bucket).unwrap_or_default();
            for name in of_bucket.keys() {
                meet(shared, (&mut tenants, name), bucket).await;
            }
            for tenant in tenants.values_mut() {
                let tick = of_bucket.remove(tenant.name()).unwrap_or(Tick { bucket, ..Tick::default() });
                learn(shared, tenant, bucket).await;
                tenant.observe(&tick);
                settle(shared, tenant).await;
            }
            counts::tick(begin.elapsed());
            let (end, deadline) = (bucket + BUCKET_S, Instant::now() + explanations::LIMIT);
            for tenant in tenants.values_mut() {
                let changes = tenant.changes();
                let mut explained = BTreeMap::new();
                // What is behind catches up first.
                if bucket == until {
                    explained = explanations.look(&shared.database, tenant, (end, deadline)).await;
                }
                desk.publish(tenant.name(), end, News { changes, open: tenant.open(), explained }).await?;
            }
            begin = Instant::now();
        }
        counts::open(tenants.values().map(|tenant| tenant.open().len()).sum());
        shared.is_behind(until);
        shared.tell_progress(until + BUCKET_S).await;
        if until / RECALL_S > done / RECALL_S {
            desk.tidy(until).await?;
        }
        done = until;
    }
}

/// The tenants as they were: what was counted in the last hour, and which incidents there were. One of which nothing was counted begins with its first count.
async fn recall(shared: &Shared, desk: &Desk<'_>, done: u32) -> BTreeMap<String, Tenant> {
    let mut tenants = BTreeMap::new();
    for name in desk.tenants() {
        meet(shared, (&mut tenants, name), done).await;
    }
    let mut recalled = done.saturating_sub(RECALL_S);
    while recalled <= done {
        let last = (recalled + (MOST_BUCKETS - 1) * BUCKET_S).min(done);
        let mut ticks = shared.insist(async || counted(&shared.database, &(recalled..=last)).await).await;
        for bucket in (recalled..=last).step_by(step()) {
            let mut of_bucket = ticks.remove(&bucket).unwrap_or_default();
            for name in of_bucket.keys() {
                meet(shared, (&mut tenants, name), done).await;
            }
            for tenant in tenants.values_mut() {
                tenant.recall(&of_bucket.remove(tenant.name()).unwrap_or(Tick { bucket, ..Tick::default() }));
            }
        }
        recalled = last + BUCKET_S;
    }
    for tenant in tenants.values_mut() {
        tenant.resume(desk.incidents(tenant.name()));
        settle(shared, tenant).await;
    }
    tenants
}

/// Makes sure that a tenant is watched, and that it is known what is usual there at the hour of a bucket.
async fn meet(shared: &Shared, (tenants, name): (&mut BTreeMap<String, Tenant>, &str), bucket: u32) {
    if !tenants.contains_key(name) {
        let mut tenant = shared.tenant(name);
        learn(shared, &mut tenant, bucket).await;
        tenants.insert(name.to_owned(), tenant);
    }
}

async fn learn(shared: &Shared, tenant: &mut Tenant, bucket: u32) {
    tenant.keep_calendar(shared.calendar.in_force());
    shared.insist(async || tenant.learn(bucket, &shared.database).await).await;
}

async fn settle(shared: &Shared, tenant: &mut Tenant) {
    shared.insist(async || tenant.settle(&shared.database).await).await;
}

impl Shared {
    fn tenant(&self, name: &str) -> Tenant {
        Tenant::new(name, (self.config.detection(), self.calendar.in_force()))
    }

    /// Waits until buckets after `done` are over and everything is counted that was in time for them. Returns the last of these.
    async fn until_counted(&self, done: u32) -> u32 {
        loop {
            let last = self.last_over();
            let next = done + BUCKET_S;
            // Where counting is behind, it may have come at least as far as the next.
            let mut is_known = true;
            for bucket in [Some(last), Some(next).filter(|next| *next < last)].into_iter().flatten().filter(|bucket| *bucket >= next) {
                match self.is_counted(bucket).await {
                    Ok(true) => return bucket,
                    Ok(false) => {}
                    Err(error) => {
                        self.is_in_trouble(with_causes(&error));
                        is_known = false;
                    }
                }
            }
            if is_known {
                self.is_behind(done);
            }
            sleep(LOOK).await;
        }
    }

    /// The bucket to begin behind: the last that is counted, but no further back than counts are recalled.
    async fn begin(&self) -> u32 {
        loop {
            let last = self.last_over();
            let mut is_known = true;
            for back in STEPS_BACK_S.map(|back| last.saturating_sub(back)) {
                match self.is_counted(back).await {
                    Ok(true) => return back,
                    Ok(false) => {}
                    Err(error) => {
                        self.is_in_trouble(with_causes(&error));
                        is_known = false;
                        break;
                    }
                }
            }
            if is_known {
                return last.saturating_sub(RECALL_S);
            }
            sleep(PAUSE).await;
        }
    }

    /// The last bucket that is over, and whose outcomes should have arrived.
    fn last_over(&self) -> u32 {
        let over = now_s().saturating_sub(self.arrival_s() + BUCKET_S);
        over - over % BUCKET_S
    }

    async fn is_counted(&self, bucket: u32) -> Result<bool, StreamError> {
        let appended = bucket + BUCKET_S + self.arrival_s();
        let behind = self.progress.behind(i64::from(appended) * 1000).await?;
        self.watermarks.raise(self.progress.partitions(), appended, &behind);
        Ok(behind.is_empty())
    }

    fn arrival_s(&self) -> u32 {
        u32::try_from(self.config.arrival_delay.as_millis().div_ceil(1000)).unwrap_or_default()
    }

    /// Says how far behind it is, of which the last bucket is `done`. What is not counted yet is not missing: no bucket is judged before.
    fn is_behind(&self, done: u32) {
        let behind = Duration::from_secs(now_s().saturating_sub(done + BUCKET_S).into());
        counts::lag(behind);
        self.watermarks.tell(now_s());
        let late = self.config.late_after;
        let state = if behind > late {
            let slow = self.watermarks.before(done + 2 * BUCKET_S + self.arrival_s());
            let late = humantime::format_duration(late);
            Err(format!("Faultline is late: what happened more than {late} ago is not counted yet (partitions {slow:?})"))
        } else {
            Ok(())
        };
        self.readiness.report(DETECTION, state);
    }

    /// Tells those who look at counts how far they reach. What is not told now is told with the next.
    async fn tell_progress(&self, counted_until: u32) {
        if let Err(error) = self.database.keep_progress(counted_until).await {
            tracing::debug!(error = with_causes(&error), "it is not kept how far counts reach");
        }
    }

    /// Tells them how far each partition is counted, every so often; also while one of them holds up all.
    pub(crate) async fn keep_watermarks(&self) -> ! {
        loop {
            sleep(Duration::from_secs(BUCKET_S.into())).await;
            if let Err(error) = self.database.keep_watermarks(&self.watermarks.rows()).await {
                tracing::debug!(error = with_causes(&error), "it is not kept how far partitions are counted");
            }
        }
    }

    /// Says what is in the way.
    pub(crate) fn is_in_trouble(&self, reason: String) {
        self.readiness.report(DETECTION, Err(reason));
    }

    /// Asks ClickHouse until it answers.
    pub(crate) async fn insist<T>(&self, mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => self.is_in_trouble(with_causes(&error)),
            }
            sleep(PAUSE).await;
        }
    }

    pub(crate) fn taken_over(&self) -> LogError {
        LogError::TakenOver { topic: self.kafka.topic(Topic::Incidents), brokers: self.kafka.brokers.clone() }
    }
}

fn step() -> usize {
    usize::try_from(BUCKET_S).unwrap_or(1)
}

/// Seconds since 1970-01-01 UTC.
pub(crate) fn now_s() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
}
