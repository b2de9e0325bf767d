//! What it costs to attribute an incident of a million failures on the real road: ClickHouse holds an hour of a fleet in which a large bank does not answer and a
//! carrier fails in one region; the alerter asks for it, finds both, and writes down whose fault each failure was.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use faultline_deploy::Wanted;
use faultline_store::Database;
use faultline_verdict::Rules;
use tokio::time::Instant;

use crate::local::{Local, TENANT, until};
use crate::processes::{Service, cpu_time, gauge, resident_mib};
use crate::replay::{self, key};
use crate::report::{Figure, Report, say};
use crate::store::Store;

const PORT: u16 = 29_041;
const ALERTER: u16 = PORT + 7;
/// Attempts of the hour.
const ATTEMPTS: u64 = 12_200_000;
/// How many are stored at once.
const STORED_AT_ONCE: u64 = 1_000_000;
const HOUR_MS: u64 = 3_600_000;
/// How long before the present the hour ends, in seconds: while it is stored, time passes.
const ENDS_BEFORE_S: u64 = 30;
/// How long the alerter may take for its first look, and for the one after.
const PATIENCE: Duration = Duration::from_secs(900);
const LOOKS: &str = "faultline_alerter_attribution_seconds_count";
const SECONDS: &str = "faultline_alerter_attribution_seconds_sum";

/// Measures it.
pub(crate) async fn measure(program: &Path) -> anyhow::Result<Report> {
    let local = Local::start(program, PORT, Wanted { kafka: true, clickhouse: true }).await?;
    let store = Store::new(local.clickhouse()?)?;
    Database::new(&store.config)?.migrate().await?;
    say(&format!("incident: storing {ATTEMPTS} attempts of an hour\n"));
    let failures = fill(&store).await?;
    store.until_settled().await?;

    let mut command = local.command(program, "alerter");
    command
        .env("FAULTLINE__MONITORING__LISTEN", format!("127.0.0.1:{ALERTER}"))
        .env("FAULTLINE__ALERTER__ATTRIBUTION__INTERVAL", "1s")
        // The hour is to be looked at as a whole also when it takes minutes.
        .env("FAULTLINE__ALERTER__ATTRIBUTION__WINDOW", "2h");
    let alerter = Service::start(&mut command)?;
    let first = look(&local, &alerter, 1).await?;
    say(&format!("incident: {failures} failures were settled and corrected in {:.1} s\n", first.seconds));
    let again = look(&local, &alerter, 2).await?;
    alerter.stop().await?;
    let (corrected, bank) = check(&store).await?;
    replay::check_sums(&store).await?;
    local.stop().await;

    let millions = |number: u64| anyhow::Ok(f64::from(u32::try_from(number)?) / 1e6);
    let figures = vec![
        Figure::at_most(("incident_cpu_s", "CPU s"), 180.0, (first.alerter + first.clickhouse).as_secs_f64()),
        Figure::stated(("incident_settled_and_corrected_s", "s"), first.seconds),
        Figure::stated(("incident_alerter_cpu_s", "CPU s"), first.alerter.as_secs_f64()),
        Figure::stated(("incident_clickhouse_cpu_s", "CPU s"), first.clickhouse.as_secs_f64()),
        Figure::at_most(("incident_alerter_rss_mib", "MiB"), 2048.0, first.resident_mib.max(again.resident_mib)),
        Figure::stated(("incident_looked_again_s", "s"), again.seconds),
        Figure::stated(("incident_again_alerter_cpu_s", "CPU s"), again.alerter.as_secs_f64()),
        Figure::stated(("incident_again_clickhouse_cpu_s", "CPU s"), again.clickhouse.as_secs_f64()),
        Figure::stated(("incident_failures_m", "million"), millions(failures)?),
        Figure::stated(("incident_corrected_m", "million"), millions(corrected)?),
        Figure::at_least(("incident_bank_recall", ""), 0.98, bank),
    ];
    Ok(Report { bench: "incident", figures })
}

/// Stores the hour and its counts. Returns how many failures there are.
async fn fill(store: &Store) -> anyhow::Result<u64> {
    let rules = Rules::built_in()?;
    let set = rules.sets().find(|set| set.is_home()).context("no rules are the home set")?;
    let silent = rules.reason(set.version(), "no_answer").context("there is no reason for silence")?;
    let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() - ENDS_BEFORE_S;
    let begin_ms = end * 1000 - HOUR_MS;
    let draw = |what: u32, of: u32| format!("intHash64(number * 64 + {what}) % {of}");
    for from in (0..ATTEMPTS).step_by(usize::try_from(STORED_AT_ONCE)?) {
        let rows = STORED_AT_ONCE.min(ATTEMPTS - from);
        let sql = format!(
            "INSERT INTO outcomes (tenant, terminal, spool, sequence, completed_at, received_at, clock, merchant, model, firmware, application, region, carrier, type, entry_mode, \
             amount_minor, currency, bin, issuer, card_token, card_token_key, acquirer, host, attempt, first_attempt_sequence, stage, result, tag, cause, reason, \
             confidence, rule_set, sign, revision, kafka_log, kafka_partition, kafka_offset) \
             WITH {terminal} AS t, {issuer} AS i, t % 4 AS c, intDiv(t, 4) % 31 AS r, intDiv(number * {HOUR_MS}, {ATTEMPTS}) AS ms, \
             (i = 3 AND ms > {ten}) OR (c = 1 AND r = 7 AND ms > {twenty}) AS is_faulty, \
             {chance} < if(is_faulty, 700, 4) AS fails, fromUnixTimestamp64Milli(toInt64({begin_ms} + ms), 'UTC') AS at \
             SELECT '{TENANT}', concat('T', toString(t)), 1, number + 1, at, at, 'age', concat('M', toString(intDiv(t, 2))), 'm', toString(t % 3), 'pay 1', \
             concat('r', toString(r)), concat('c', toString(c)), 1, 1, 100 + number % 10000, 'CNY', concat('62000', toString(i)), concat('i', toString(i)), \
             {card}, 1, 'a', concat('h', toString({host})), 1, number + 1, if(fails, 9, 10), if(fails, 0, 1), \
             if(fails, 'no_answer/wait', 'approved/host_decision'), if(fails, '{cause}', 'approved'), if(fails, '{reason}', 'approved'), if(fails, {confidence}, 100), \
             '{set}', 1, 0, 'bench', number % 24, number FROM numbers({from}, {rows})",
            terminal = draw(1, 100_000),
            issuer = draw(2, 8),
            chance = draw(3, 1000),
            card = draw(4, 1 << 20),
            host = draw(5, 3),
            ten = HOUR_MS / 6,
            twenty = HOUR_MS / 3,
            cause = format!("{:?}", silent.cause).to_lowercase(),
            reason = silent.id,
            confidence = silent.confidence,
            set = set.version(),
        );
        store.query(&sql).await?;
    }
    for family in faultline_store::families() {
        let columns: Vec<&str> =
            faultline_store::values(family, "|").context("a family has no columns")?.into_iter().map(|(column, _)| column).collect();
        let sql = format!(
            "INSERT INTO rollup (tenant, family, key, bucket, tag, cause, currency, count, amount_minor) \
             WITH transform(entry_mode, [0, 1], ['', 'chip'], 'newer') AS entry \
             SELECT tenant, '{family}', {} AS name, toStartOfInterval(completed_at, INTERVAL 10 SECOND) AS step, tag, cause, currency, count(), sum(amount_minor) \
             FROM outcomes GROUP BY tenant, name, step, tag, cause, currency",
            key(&columns)
        );
        store.query(&sql).await?;
    }
    Ok(store.query(&format!("SELECT count() FROM outcomes WHERE reason = '{}'", silent.id)).await?.parse()?)
}

/// A look of the alerter.
struct Look {
    seconds: f64,
    alerter: Duration,
    clickhouse: Duration,
    /// At most.
    resident_mib: f64,
}

/// Waits until the alerter has looked so many times, and says what the last took.
async fn look(local: &Local, alerter: &Service, looks: u32) -> anyhow::Result<Look> {
    let pid = alerter.pid()?;
    let seconds_before = gauge(ALERTER, SECONDS).await.unwrap_or_default();
    let (alerter_before, clickhouse_before, begin) = (cpu_time(pid)?, local.used_by_clickhouse()?, Instant::now());
    let resident = std::cell::Cell::new(0.0_f64);
    until("the alerter has looked", PATIENCE, async || {
        resident.set(resident.get().max(resident_mib(pid)?));
        Ok(gauge(ALERTER, LOOKS).await.is_some_and(|looked| looked >= f64::from(looks)))
    })
    .await?;
    let seconds = gauge(ALERTER, SECONDS).await.context("the alerter does not say how long it looked")? - seconds_before;
    ensure!(seconds > 0.0 && seconds <= begin.elapsed().as_secs_f64() + 60.0, "a look of {seconds} s");
    Ok(Look {
        seconds,
        alerter: cpu_time(pid)? - alerter_before,
        clickhouse: local.used_by_clickhouse()? - clickhouse_before,
        resident_mib: resident.get(),
    })
}

/// How many outcomes were corrected, and which share of the bank's failures stand as the bank's.
async fn check(store: &Store) -> anyhow::Result<(u64, f64)> {
    let sql = format!(
        "WITH (SELECT toUnixTimestamp64Milli(min(completed_at)) FROM outcomes) AS begin \
         SELECT uniqExactIf((terminal, sequence), revision > 0), \
         sumIf(sign, issuer = 'i3' AND cause = 'bank' AND toUnixTimestamp64Milli(completed_at) > begin + {ten}) / \
         sumIf(sign, issuer = 'i3' AND cause != 'approved' AND toUnixTimestamp64Milli(completed_at) > begin + {ten}), sum(sign) FROM outcomes",
        ten = HOUR_MS / 6
    );
    let answer = store.query(&sql).await?;
    let [corrected, bank, all] = *answer.split('\t').collect::<Vec<_>>() else { bail!("three numbers were asked for, and {answer} said") };
    ensure!(all == ATTEMPTS.to_string(), "{all} outcomes instead of {ATTEMPTS}");
    Ok((corrected.parse()?, bank.parse()?))
}
