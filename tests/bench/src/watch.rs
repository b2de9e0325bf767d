//! What it takes to watch a large fleet: the alerter, as it is, over more than 10,000 slices of a fleet that reports 20,000 events a second. ClickHouse holds
//! them (ten minutes in the end) and goes on taking them in pieces as the classifier writes them, an hour of counts, and four weeks of what is usual. Then the
//! largest bank and a carrier in one region begin to fail, and after five minutes of that what explains them is looked for among the rows of five minutes.

mod attempts;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use faultline_backtest::percentile;
use faultline_deploy::Wanted;
use faultline_store::Database;
use tokio::time::{Instant, sleep};

use self::attempts::{FAULTY, Fleet, number_at};
use crate::fleet::RATE;
use crate::local::{Local, until};
use crate::processes::{Service, cpu_time, metrics, resident_mib};
use crate::report::{Figure, Report, say};
use crate::store::Store;

const PORT: u16 = 29_051;
const ALERTER: u16 = PORT + 7;
/// How long all is quiet, and how long something fails: an incident is looked at two minutes after it was opened, and again five minutes later.
const QUIET: Duration = Duration::from_secs(60);
const FAILING: Duration = Duration::from_secs(480);
const BUCKET_S: u32 = 10;
const SLICES: f64 = 10_000.0;
const TICK_MS: f64 = 1000.0;
const DRILL_DOWN_MS: f64 = 2000.0;
/// How long ago the last ten seconds ended that an alerter judged which has nothing to catch up with.
const WATCHES_S: f64 = 20.0;
/// How late a second may be stored: the alerter waits for so long. Where it was later, the machine was too busy for the rest to be believed.
const LATE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);
/// How often it is said how it goes.
const SAY: Duration = Duration::from_secs(30);

/// Measures it.
pub(crate) async fn measure(program: &Path) -> anyhow::Result<Report> {
    let local = Local::start(program, PORT, Wanted { kafka: true, clickhouse: true }).await?;
    let store = Store::new(local.clickhouse()?)?;
    let database = Database::new(&store.config)?;
    until("ClickHouse answers", PATIENCE, async || Ok(database.probe().await.is_ok())).await?;
    database.migrate().await?;

    let fleet = Arc::new(Fleet::new()?);
    // Attempts begin with a bucket, where counts without attempts end.
    let first = number_at(SystemTime::now())?;
    let first = first - first % (u64::from(RATE) * u64::from(BUCKET_S));
    say("watch: storing four weeks and an hour of counts\n");
    fleet.store_past((&store, &database), first).await?;
    say("watch: storing attempts, until those of now are\n");
    let reached = Arc::new(AtomicU64::new(first));
    let feeding = {
        let (fleet, database, reached) = (Arc::clone(&fleet), database.clone(), Arc::clone(&reached));
        tokio::spawn(async move { Box::pin(fleet.feed(&database, first, &reached)).await })
    };
    until("the attempts of now are stored", PATIENCE, async || {
        ensure!(!feeding.is_finished(), "attempts are not stored any more");
        anyhow::Ok(reached.load(Ordering::Relaxed) >= number_at(SystemTime::now())?)
    })
    .await?;

    let mut command = local.command(program, "alerter");
    let begin = Instant::now();
    command.env("FAULTLINE__MONITORING__LISTEN", format!("127.0.0.1:{ALERTER}"));
    // Counts of the past have no rows, to which failures of now would be compared: it would be attributed to all parts of the fleet that they fail.
    command.env("FAULTLINE__ALERTER__ATTRIBUTION__INTERVAL", "1h");
    let alerter = Service::start(&mut command)?;
    let mut watch = Watch { pid: alerter.pid()?, reached: &reached, seen: Seen::ALL, resident_mib: 0.0, late: Duration::ZERO };
    watch.until_it_watches().await?;
    let recalled = begin.elapsed();
    say(&format!("watch: the alerter has recalled an hour in {:.1} s, resident {:.0} MiB\n", recalled.as_secs_f64(), watch.resident_mib));
    let recalled_mib = watch.resident_mib;

    let (begin, cpu_before, clickhouse_before) = (SystemTime::now(), cpu_time(watch.pid)?, local.used_by_clickhouse()?);
    watch.during(QUIET).await?;
    say(&format!("watch: quiet: {}", watch.said()));
    let failing_from = reached.load(Ordering::Relaxed);
    fleet.fail_from(failing_from);
    let failing = Instant::now();
    while failing.elapsed() < FAILING {
        watch.during(SAY).await?;
        say(&format!("watch: {} s of a fault: {}", failing.elapsed().as_secs(), watch.said()));
    }
    let took = begin.elapsed()?;
    let used = |before: Duration, now: Duration| (now - before).as_secs_f64() / took.as_secs_f64();
    let (alerter_cores, clickhouse_cores) = (used(cpu_before, cpu_time(watch.pid)?), used(clickhouse_before, local.used_by_clickhouse()?));
    ensure!(!feeding.is_finished(), "attempts are not stored any more");
    feeding.abort();
    let opened = opened(&store, failing_from).await?;
    let held = Held::of(&store).await?;
    let [counts, failing, usual] = [
        Asked::of(&store, "AS place FROM rollup", begin).await?,
        Asked::of(&store, "AS witness", begin).await?,
        Asked::of(&store, "groupArray((began", SystemTime::UNIX_EPOCH).await?,
    ];
    let Watch { seen: [ticks, drills, learnt, explained], resident_mib, late, .. } = watch;
    alerter.stop().await?;
    local.stop().await;

    let figures = vec![
        Figure::at_least(("watch_slices", ""), SLICES, held.slices),
        Figure::at_least(("watch_events_per_s", "events/s"), 0.97 * f64::from(RATE), held.rate),
        Figure::at_most(("watch_stored_late_s", "s"), LATE.as_secs_f64(), late.as_secs_f64()),
        Figure::stated(("watch_attempts_held_m", "million"), held.attempts_m),
        Figure::stated(("watch_counts_held_m", "million"), held.counts_m),
        Figure::stated(("watch_tick_ms_p50", "ms"), percentile(&ticks.took_ms, 50.0)),
        Figure::stated(("watch_tick_ms_p95", "ms"), percentile(&ticks.took_ms, 95.0)),
        Figure::at_most(("watch_tick_ms_max", "ms"), TICK_MS, percentile(&ticks.took_ms, 100.0)),
        Figure::stated(("watch_tick_question_ms_p50", "ms"), counts.p50_ms),
        Figure::stated(("watch_tick_question_ms_max", "ms"), counts.most_ms),
        Figure::stated(("watch_tick_question_cpu_ms", "CPU ms"), counts.cpu_ms),
        Figure::stated(("watch_failing_ms_p50", "ms"), percentile(&drills.took_ms, 50.0)),
        Figure::at_most(("watch_failing_ms_max", "ms"), DRILL_DOWN_MS, percentile(&drills.took_ms, 100.0)),
        Figure::stated(("watch_drill_downs", ""), f64::from(u32::try_from(explained.took_ms.len())?)),
        Figure::stated(("watch_drill_down_ms_p50", "ms"), percentile(&explained.took_ms, 50.0)),
        Figure::at_most(("watch_drill_down_ms_max", "ms"), DRILL_DOWN_MS, percentile(&explained.took_ms, 100.0)),
        Figure::stated(("watch_failing_question_ms_max", "ms"), failing.most_ms),
        Figure::stated(("watch_failing_question_cpu_ms", "CPU ms"), failing.cpu_ms),
        Figure::stated(("watch_learn_ms_max", "ms"), percentile(&learnt.took_ms, 100.0)),
        Figure::stated(("watch_learn_question_cpu_ms", "CPU ms"), usual.cpu_ms),
        Figure::stated(("watch_recall_s", "s"), recalled.as_secs_f64()),
        Figure::stated(("watch_opened_after_s", "s"), opened),
        Figure::stated(("watch_alerter_cores", "cores"), alerter_cores),
        Figure::stated(("watch_clickhouse_cores", "cores"), clickhouse_cores),
        Figure::stated(("watch_recalled_rss_mib", "MiB"), recalled_mib),
        Figure::stated(("watch_alerter_rss_mib", "MiB"), resident_mib),
    ];
    Ok(Report { bench: "watch", figures })
}

/// What the alerter says that something took: each time that it was done.
struct Seen {
    /// The histogram's sum, in seconds, and its count.
    names: [&'static str; 2],
    sum: f64,
    count: f64,
    took_ms: Vec<f64>,
}

impl Seen {
    /// Ticks; questions of what failed, and of what is usual; and what explains an incident.
    const ALL: [Seen; 4] = [
        Seen::new(["faultline_alerter_tick_seconds_sum", "faultline_alerter_tick_seconds_count"]),
        Seen::new(["faultline_alerter_drill_down_seconds_sum", "faultline_alerter_drill_down_seconds_count"]),
        Seen::new(["faultline_alerter_learn_seconds_sum", "faultline_alerter_learn_seconds_count"]),
        Seen::new(["faultline_alerter_explanation_seconds_sum", "faultline_alerter_explanation_seconds_count"]),
    ];

    const fn new(names: [&'static str; 2]) -> Seen {
        Seen { names, sum: 0.0, count: 0.0, took_ms: Vec::new() }
    }

    /// Of what was done more than once since it was looked, the mean.
    fn take_in(&mut self, sum: f64, count: f64) {
        if count > self.count {
            self.took_ms.push((sum - self.sum) * 1000.0 / (count - self.count));
            (self.sum, self.count) = (sum, count);
        }
    }
}

/// The alerter while it is measured.
struct Watch<'a> {
    pid: i32,
    /// The number of the first attempt that is not stored.
    reached: &'a AtomicU64,
    seen: [Seen; 4],
    resident_mib: f64,
    /// By how much attempts were stored too late, at most.
    late: Duration,
}

impl Watch<'_> {
    /// Looks for so long.
    async fn during(&mut self, time: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.look().await?;
            let now = number_at(SystemTime::now())?;
            let late = now.saturating_sub(self.reached.load(Ordering::Relaxed)) / u64::from(RATE / 1000);
            self.late = self.late.max(Duration::from_millis(late));
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Until it has recalled, and judged what came meanwhile: ticks of that are several at once.
    async fn until_it_watches(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            self.look().await?;
            let lag = metrics(ALERTER, ["faultline_alerter_lag_seconds"]).await.and_then(|[lag]| lag);
            let [ticks, ..] = &self.seen;
            if !ticks.took_ms.is_empty() && lag.is_some_and(|lag| lag <= WATCHES_S) {
                break;
            }
            ensure!(begin.elapsed() < PATIENCE, "the alerter does not watch after {} s", PATIENCE.as_secs());
            sleep(LOOK).await;
        }
        // The last of these may have been told since.
        self.look().await?;
        self.seen.iter_mut().take(2).for_each(|seen| seen.took_ms.clear());
        Ok(())
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        for seen in &mut self.seen {
            // It may not answer yet, or not have done it yet.
            if let Some([Some(sum), Some(count)]) = metrics(ALERTER, seen.names).await {
                seen.take_in(sum, count);
            }
        }
        self.resident_mib = self.resident_mib.max(resident_mib(self.pid)?);
        Ok(())
    }

    fn said(&self) -> String {
        let names = ["ticks", "questions what failed", "what is usual", "explanations"];
        let said = self.seen.iter().zip(names).filter(|(seen, _)| !seen.took_ms.is_empty());
        let said: Vec<String> = said
            .map(|(Seen { took_ms, .. }, name)| format!("{} {name} of at most {:.0} ms", took_ms.len(), percentile(took_ms, 100.0)))
            .collect();
        format!("{}; {:.0} MiB, late {:.1} s\n", said.join(", "), self.resident_mib, self.late.as_secs_f64())
    }
}

/// After how many seconds of a fault there was an incident of each, at most.
async fn opened(store: &Store, from: u64) -> anyhow::Result<f64> {
    let from_s = from / u64::from(RATE);
    let sql = "SELECT slice, toUnixTimestamp(max(opened)) FROM incidents GROUP BY slice ORDER BY slice";
    let found = store.query(sql).await?;
    say(&format!("watch: incidents: {}\n", found.replace('\t', " at ").replace('\n', ", ")));
    let mut most = 0.0_f64;
    for slice in FAULTY {
        let opened = found.lines().filter_map(|line| line.split_once('\t')).find(|(own, _)| *own == slice).map(|(_, opened)| opened);
        let opened: u64 = opened.with_context(|| format!("there is no incident of {slice}"))?.parse()?;
        most = most.max(f64::from(u32::try_from(opened.saturating_sub(from_s))?));
    }
    Ok(most)
}

/// What ClickHouse holds.
struct Held {
    slices: f64,
    /// Events a second in the last ten minutes but one.
    rate: f64,
    attempts_m: f64,
    counts_m: f64,
}

impl Held {
    async fn of(store: &Store) -> anyhow::Result<Held> {
        let number = async |sql: &str| anyhow::Ok(store.query(sql).await?.parse::<f64>()?);
        let of_hour = "FROM rollup WHERE NOT simulated AND family != 'ledger' AND bucket >= now() - 3600";
        Ok(Held {
            slices: number(&format!("SELECT uniqExact(family, key) {of_hour}")).await?,
            rate: number(
                "SELECT count() / 540 FROM outcomes WHERE revision = 0 AND completed_at >= now() - 600 AND completed_at < now() - 60",
            )
            .await?,
            attempts_m: number("SELECT count() / 1e6 FROM outcomes").await?,
            counts_m: number("SELECT count() / 1e6 FROM rollup").await?,
        })
    }
}

/// What it cost the server to answer questions of a kind.
struct Asked {
    p50_ms: f64,
    most_ms: f64,
    /// Mean.
    cpu_ms: f64,
}

impl Asked {
    /// Those that have something in their text.
    async fn of(store: &Store, text: &str, since: SystemTime) -> anyhow::Result<Asked> {
        let since = since.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let sql = format!(
            "SELECT median(query_duration_ms), max(query_duration_ms), \
             avg(ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']) / 1000 FROM system.query_log \
             WHERE type = 'QueryFinish' AND event_time >= fromUnixTimestamp({since}) AND position(query, '{text}') > 0 AND position(query, 'query_log') = 0"
        );
        let answer = store.query(&sql).await?;
        let [p50_ms, most_ms, cpu_ms] = *answer.split('\t').collect::<Vec<_>>() else {
            bail!("three numbers were asked for, and {answer} said")
        };
        Ok(Asked { p50_ms: p50_ms.parse()?, most_ms: most_ms.parse()?, cpu_ms: cpu_ms.parse()? })
    }
}
