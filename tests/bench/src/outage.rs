//! ClickHouse hangs for ten minutes, while a fleet goes on reporting: what the services grow by meanwhile, how fast what has piled up is counted
//! afterwards, and whether all that was acknowledged is counted once. And what it costs to judge all of it again.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use faultline_deploy::Wanted;
use nix::sys::signal::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::fleet::RATE;
use crate::gateway::Gateway;
use crate::load::{Load, TERMINALS};
use crate::local::{Local, TENANT, of_a_million, until};
use crate::processes::{Service, cpu_time, gauge, resident_mib};
use crate::replay;
use crate::report::{Figure, Report, say};
use crate::store::{COUNTED, Store};

const PORT: u16 = 29_031;
const GATEWAY: u16 = PORT + 4;
const CLASSIFIER: u16 = PORT + 6;
const ALERTER: u16 = PORT + 7;
/// How long everything works before ClickHouse hangs.
const WARM_UP: Duration = Duration::from_secs(90);
/// Seconds of what comes that are on their way where nothing has piled up: a batch waits a second, and is stored.
const ON_THEIR_WAY: u32 = 5;
/// How many times longer than it hung the rest may take.
const PATIENCE: u32 = 5;
const TELL: Duration = Duration::from_secs(30);
/// What a service grows by, and what it takes, by name.
const GROWTH: [&str; 3] = ["outage_gateway_growth", "outage_classifier_growth", "outage_alerter_growth"];
const RESIDENT: [&str; 3] = ["outage_gateway_rss_mib", "outage_classifier_rss_mib", "outage_alerter_rss_mib"];

/// Measures it, with a ClickHouse that hangs for so long.
pub(crate) async fn measure(program: &Path, hang: Duration) -> anyhow::Result<Report> {
    let local = Local::start(program, PORT, Wanted { kafka: true, clickhouse: true }).await?;
    let store = Store::new(local.clickhouse()?)?;
    let gateway = Gateway::start(program, &local, GATEWAY).await?;
    let start = |command, port: u16| {
        let mut command = local.command(program, command);
        Service::start(command.env("FAULTLINE__MONITORING__LISTEN", format!("127.0.0.1:{port}")))
    };
    let (classifier, alerter) = (start("classifier", CLASSIFIER)?, start("alerter", ALERTER)?);
    let partitions = f64::from(local.kafka.partitions);
    until("the classifier works", hang.max(WARM_UP), async || {
        Ok(gauge(CLASSIFIER, "faultline_classifier_partitions").await.is_some_and(|held| held >= partitions))
    })
    .await?;

    let load = Load::start(&gateway).await?;
    say(&format!("outage: {TERMINALS} terminals report {RATE} events/s; ClickHouse will hang for {} s\n", hang.as_secs()));
    let mut watch = Watch { load, pids: [gateway.service.pid()?, classifier.pid()?, alerter.pid()?], samples: Vec::new() };
    watch.during(hang.min(WARM_UP)).await?;
    let (counted_before, acknowledged_before) = (store.counted().await?, watch.load.acknowledged());

    let (begin, hung) = (Instant::now(), SystemTime::now());
    local.signal_clickhouse(Signal::SIGSTOP)?;
    watch.during(hang).await?;
    local.signal_clickhouse(Signal::SIGCONT)?;
    let (end, acknowledged_then) = (Instant::now(), watch.load.acknowledged());
    let mut figures = watch.figures(begin..end)?;
    // What follows may take long on a busy machine.
    figures.iter().for_each(|figure| say(&format!("outage: {}\n", figure.row().trim_end())));

    let [_, pid, _] = watch.pids;
    let used = || anyhow::Ok(local.used_by_clickhouse()? + cpu_time(pid)?);
    let used_before = used()?;
    let counted = watch.until_caught_up(&store, hang * PATIENCE).await?;
    let (took, acknowledged_after) = (end.elapsed(), watch.load.acknowledged());
    let cpu = of_a_million(used()? - used_before, usize::try_from(counted - counted_before)?)?;
    let lag = gauge(CLASSIFIER, "faultline_classifier_lag_seconds").await.context("the classifier does not say how far behind it is")?;
    let rate = |events: u64, time: Duration| anyhow::Ok(f64::from(u32::try_from(events)?) / time.as_secs_f64());
    let arrival = rate(acknowledged_then - acknowledged_before, end - begin)?.min(rate(acknowledged_after - acknowledged_then, took)?);
    figures.extend([
        Figure::at_least(("outage_catch_up_ratio", ""), 5.0, rate(counted - counted_before, took)? / f64::from(RATE)),
        Figure::stated(("outage_catch_up_s", "s"), took.as_secs_f64()),
        // Of classifier and ClickHouse: what else works on the machine takes time, but not this.
        Figure::stated(("outage_catch_up_cpu_s_per_m", "CPU s"), cpu),
        Figure::stated(("outage_lag_s_then", "s"), lag),
        // Of the two parts, hanging and catching up, that where less came.
        Figure::at_least(("outage_arrival_events_per_s", "events/s"), 0.97 * f64::from(RATE), arrival),
        Figure::stated(("outage_batches_sent_again", ""), rate(watch.load.sent_again(), Duration::from_secs(1))?),
    ]);

    let acknowledged = watch.load.stop().await?;
    store.until_counted(usize::try_from(acknowledged)?).await?;
    for service in [gateway.service, classifier, alerter] {
        service.stop().await?;
    }
    check(&store, acknowledged).await?;
    say(&format!("outage: all {acknowledged} events that were acknowledged are counted once\n"));
    figures.extend(replay::measure(program, (&local, &store), hung).await?);
    local.stop().await;
    Ok(Report { bench: "outage", figures })
}

/// A fleet that reports, and the services that take it: gateway, classifier, alerter.
struct Watch {
    load: Load,
    pids: [i32; 3],
    /// What of each was resident when, in MiB.
    samples: Vec<(Instant, [f64; 3])>,
}

impl Watch {
    /// Looks each second, for so long.
    async fn during(&mut self, time: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        let (mut seconds, mut told) = (interval(Duration::from_secs(1)), begin);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while begin.elapsed() < time {
            tokio::select! {
                _ = seconds.tick() => self.look()?,
                error = self.load.failed() => return Err(error),
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                self.tell(begin, "");
            }
        }
        Ok(())
    }

    /// The same, until what has piled up is counted. Returns how many events are.
    async fn until_caught_up(&mut self, store: &Store, patience: Duration) -> anyhow::Result<u64> {
        let (begin, mut told) = (Instant::now(), Instant::now());
        loop {
            self.during(Duration::from_secs(1)).await?;
            let counted = store.counted().await?;
            if counted + u64::from(ON_THEIR_WAY * RATE) >= self.load.acknowledged() {
                return Ok(counted);
            }
            if told.elapsed() >= TELL / 3 {
                told = Instant::now();
                self.tell(begin, &format!(", {counted} counted"));
            }
            if begin.elapsed() > patience {
                bail!("after {} s, {counted} of {} events are counted", patience.as_secs(), self.load.acknowledged());
            }
        }
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let mut resident = [0.0; 3];
        for (resident, pid) in resident.iter_mut().zip(self.pids) {
            *resident = resident_mib(pid)?;
        }
        self.samples.push((Instant::now(), resident));
        Ok(())
    }

    fn tell(&self, begin: Instant, more: &str) {
        let Some((_, [gateway, classifier, alerter])) = self.samples.last() else { return };
        say(&format!(
            "outage: {} s: {} acknowledged{more}; gateway {gateway:.1}, classifier {classifier:.1}, alerter {alerter:.1} MiB\n",
            begin.elapsed().as_secs(),
            self.load.acknowledged()
        ));
    }

    /// What each service took at most in the last tenth of a time, alone and as a multiple of that in its second tenth.
    fn figures(&self, time: Range<Instant>) -> anyhow::Result<Vec<Figure>> {
        let tenth = (time.end - time.start) / 10;
        let most = |time: Range<Instant>, which: usize| {
            let of_time = self.samples.iter().filter(|(when, _)| time.contains(when));
            of_time.filter_map(|(_, resident)| resident.get(which).copied()).max_by(f64::total_cmp).context("nobody has looked")
        };
        let mut figures = Vec::new();
        for (which, (growth, resident)) in GROWTH.into_iter().zip(RESIDENT).enumerate() {
            let second = most(time.start + tenth..time.start + 2 * tenth, which)?;
            let last = most(time.end - tenth..time.end, which)?;
            figures.push(Figure::at_most((growth, ""), 1.1, last / second));
            figures.push(Figure::stated((resident, "MiB"), last));
        }
        Ok(figures)
    }
}

/// Whether so many events are counted and stored, and each once: the sequences of every terminal are all from 1 to the last.
async fn check(store: &Store, events: u64) -> anyhow::Result<()> {
    let of_terminals = format!(
        "SELECT sum(rows), countIf(rows != last OR rows != different), count() FROM (SELECT terminal, spool, sum(sign) AS rows, \
         max(sequence) AS last, groupBitmap(sequence) AS different FROM outcomes WHERE tenant = '{TENANT}' GROUP BY terminal, spool)"
    );
    for (what, sql, expected) in [
        ("events are counted", COUNTED.into(), events.to_string()),
        ("rows, terminals that lack one or have one twice, terminals", of_terminals, format!("{events}\t0\t{TERMINALS}")),
    ] {
        let found = store.query(&sql).await?;
        if found != expected {
            bail!("{what}: {found} instead of {expected}");
        }
    }
    replay::check_sums(store).await
}
