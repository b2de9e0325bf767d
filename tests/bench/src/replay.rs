//! What it costs to judge stored outcomes again: `faultline replay`, with a table of issuers by which every outcome changes, and then once more, where
//! nothing does.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use faultline_store::{families, values};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::time::Instant;

use crate::local::{Local, TENANT, of_a_million};
use crate::report::{Figure, say};
use crate::store::Store;

/// The version of the other table of issuers.
const VERSION: &str = "bench";

/// Measures it with what was completed before some moment, where nobody else works.
pub(crate) async fn measure(program: &Path, (local, store): (&Local, &Store), until: SystemTime) -> anyhow::Result<[Figure; 4]> {
    let issuers = local.directory.path().join("issuers.csv");
    std::fs::write(&issuers, other_issuers())?;
    let until = humantime::format_rfc3339_seconds(until).to_string();
    let of_time = format!("FROM outcomes WHERE tenant = '{TENANT}' AND completed_at < parseDateTime64BestEffort('{until}')");
    let events: u32 = store.query(&format!("SELECT sum(sign) {of_time}")).await?.parse()?;
    let mut measured = Vec::new();
    for what in ["where all change", "where none does"] {
        store.until_settled().await?;
        let (begin, used_before) = (Instant::now(), used(local)?);
        replay(program, local, (&issuers, &until)).await?;
        let took = begin.elapsed();
        store.until_settled().await?;
        let cpu = of_a_million(used(local)? - used_before, usize::try_from(events)?)?;
        let rate = f64::from(events) / took.as_secs_f64();
        say(&format!("replay: {events} outcomes, {what}: {:.0} s, {rate:.0} a second, {cpu:.1} CPU s a million\n", took.as_secs_f64()));
        measured.extend([rate, cpu]);
    }
    // Each was judged again once, whatever it was corrected by before.
    let found = store
        .query(&format!(
            "SELECT sum(sign), sumIf(sign, issuer_map = '{VERSION}'), countIf(sign = 1 AND issuer_map = '{VERSION}') {of_time}"
        ))
        .await?;
    let expected = format!("{events}\t{events}\t{events}");
    if found != expected {
        bail!("outcomes, outcomes with the other issuers, rows with them: {found} instead of {expected}");
    }
    check_sums(store).await?;
    let [rate, cpu, unchanged_rate, unchanged_cpu] = *measured.as_slice() else { bail!("not everything was measured") };
    Ok([
        Figure::stated(("replay_events_per_s", "events/s"), rate),
        Figure::stated(("replay_cpu_s_per_m", "CPU s"), cpu),
        Figure::stated(("replay_unchanged_events_per_s", "events/s"), unchanged_rate),
        Figure::stated(("replay_unchanged_cpu_s_per_m", "CPU s"), unchanged_cpu),
    ])
}

/// CPU time that ClickHouse and commands that have ended used so far.
fn used(local: &Local) -> anyhow::Result<Duration> {
    let ended = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let of_ended = [ended.user_time(), ended.system_time()]
        .map(|time| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or_default()));
    Ok(local.used_by_clickhouse()? + of_ended.into_iter().sum::<Duration>())
}

async fn replay(program: &Path, local: &Local, (issuers, until): (&Path, &str)) -> anyhow::Result<()> {
    let mut command = local.command(program, "replay");
    command.args(["--tenant", TENANT, "--from", "24h", "--until", until, "--yes", "--issuers"]).arg(issuers).stdin(Stdio::null());
    let ended = command.output().await.context("cannot replay")?;
    if !ended.status.success() {
        bail!("replay ended with an error: {}", String::from_utf8_lossy(&ended.stderr));
    }
    Ok(())
}

/// A hundred banks by the first four digits of what begins with 62, ten by the first digit of everything else.
fn other_issuers() -> String {
    let prefixes = (0..10).chain(6200..6300).map(|prefix| format!("{prefix},other-{prefix},,\n"));
    format!("# version: {VERSION}\nprefix,issuer,name_zh_cn,name_en\n{}", prefixes.collect::<String>())
}

/// Whether the sums of each family are those of the rows.
pub(crate) async fn check_sums(store: &Store) -> anyhow::Result<()> {
    for family in families() {
        let columns: Vec<&str> = values(family, "|").context("a family has no columns")?.into_iter().map(|(column, _)| column).collect();
        let sql = format!(
            "WITH transform(entry_mode, [0, 1, 2, 3, 4, 5], ['', 'chip', 'contactless', 'magnetic_stripe', 'qr', 'keyed'], 'newer') AS entry \
             SELECT count() FROM (SELECT key, bucket, tag, cause, currency FROM ( \
             SELECT {} AS key, toStartOfInterval(completed_at, INTERVAL 10 SECOND) AS bucket, toString(tag) AS tag, cause, \
             toString(currency) AS currency, sum(sign) AS count, sum(sign * amount_minor) AS amount FROM outcomes \
             WHERE tenant = '{TENANT}' GROUP BY ALL UNION ALL \
             SELECT toString(key), bucket, toString(tag), cause, toString(currency), -sum(count), -sum(amount_minor) FROM rollup \
             WHERE tenant = '{TENANT}' AND family = '{family}' GROUP BY ALL) \
             GROUP BY ALL HAVING sum(count) != 0 OR sum(amount) != 0)",
            key(&columns)
        );
        let others = store.query(&sql).await?;
        if others != "0" {
            bail!("{others} counts of family {family} are not those of the rows");
        }
    }
    Ok(())
}

/// The key of a family, of the columns that it is made of.
pub(crate) fn key(columns: &[&str]) -> String {
    let texts: Vec<_> = columns.iter().map(|column| if *column == "entry_mode" { "entry" } else { column }).collect();
    match texts.as_slice() {
        [] => "''".into(),
        [only] => format!("toString({only})"),
        several => format!("concat({})", several.join(", '|', ")),
    }
}
