//! `faultline replay`: outcomes that are stored are judged again, by other rules than they were.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use faultline_alerter::correction;
use faultline_proto::correction::v1::{CorrectedColumns, CorrectionKind};
use faultline_store::{Change, Database, Standing};
use faultline_verdict::{Issuers, Rules};

use crate::config::Config;
use crate::consent::Consent;
use crate::corrections::Proposal;

/// What is judged again, and by what.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Whose outcomes
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// Those completed from then on: a moment in UTC (2026-11-29T08:00:00Z), or how long ago it is (24h)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: SystemTime,
    /// Those completed before then [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<SystemTime>,
    /// Rule sets beside those that come with the program: a file (TOML), or a directory of them [default: `classifier.rules`]
    #[arg(long, value_name = "PATH")]
    rules: Option<PathBuf>,
    /// The table of issuers (CSV) [default: `classifier.issuers_file`]
    #[arg(long, value_name = "FILE")]
    issuers: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

/// Shows how verdicts would change, asks, and changes them.
pub(crate) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    // Seconds are whole, and this one is meant too.
    let until = options.until.unwrap_or_else(|| SystemTime::now() + Duration::from_secs(1));
    if options.from >= until {
        bail!("--from is not before --until");
    }
    let rules = match &options.rules {
        Some(path) => faultline_rules::rules(path).context("--rules")?,
        None => faultline_rules::rules(&config.classifier.rules).context("configuration key `classifier.rules`")?,
    };
    let issuers = match &options.issuers {
        Some(path) => Issuers::parse(&read(path, "--issuers")?).with_context(|| format!("{} (--issuers)", path.display()))?,
        None => faultline_classifier::issuers(&config.classifier.issuers_file)?,
    };
    let database = Database::new(&config.clickhouse)?;
    let description = format!("judges by {}, and issuers {}", rules.version(), issuers.version());
    let proposal = Proposal {
        config,
        database: &database,
        correction: correction(&options.tenant, CorrectionKind::Replay, description),
        time: second(options.from)..second(until),
        consent: options.consent,
    };
    let changes = async |window: &std::ops::Range<i64>| {
        let standing = database.standing(&options.tenant, window).await?;
        Ok(standing.into_iter().filter_map(|standing| judged(standing, &rules, &issuers)).collect())
    };
    Box::pin(proposal.carry_out(changes)).await
}

/// What an outcome is by these rules, where that is something else than what is said of it.
fn judged(standing: Standing, rules: &Rules, issuers: &Issuers) -> Option<Change> {
    let verdict = rules.verdict_at(&standing.outcome(), standing.completed_at);
    let before = standing.columns();
    let said = CorrectedColumns {
        tag: verdict.tag.into(),
        cause: verdict.reason.cause.into(),
        reason: verdict.reason.id.clone(),
        confidence: verdict.confidence.into(),
        issuer: issuers.of(&standing.bin).into_owned(),
        ..before.clone()
    };
    // Which text of the rules says the same is no news.
    (said != before).then(|| Change {
        columns: CorrectedColumns { rule_set: verdict.rule_set.into(), issuer_map: issuers.version().into(), ..said },
        standing,
    })
}

fn read(path: &Path, option: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {} ({option})", path.display()))
}

/// A moment, or how long ago it is.
pub(crate) fn moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return SystemTime::now().checked_sub(ago).ok_or_else(|| "is too long ago".into());
    }
    humantime::parse_rfc3339_weak(text).map_err(|_| "is neither a moment (2026-11-29T08:00:00Z) nor how long ago it is (24h)".into())
}

/// In seconds since 1970-01-01 UTC.
pub(crate) fn second(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use faultline_proto::verdict::v1::Cause;

    use super::*;

    fn standing() -> Standing {
        Standing {
            terminal: "T-1".into(),
            spool: 7,
            sequence: 1,
            bin: "622202".into(),
            stage: 8,
            response_code: "51".into(),
            response_spec: "unionpay-pos".into(),
            result: 2,
            money_outcome: 2,
            tag: "old/host_decision".into(),
            cause: 7,
            reason: "old".into(),
            confidence: 1,
            rule_set: "old".into(),
            issuer: "unknown-622202".into(),
            issuer_map: "old".into(),
            ..Standing::default()
        }
    }

    #[test]
    fn an_outcome_is_judged_once() {
        let (rules, issuers) = (Rules::built_in().unwrap(), Issuers::built_in().unwrap());
        let change = judged(standing(), &rules, &issuers).unwrap();
        let columns = change.columns;
        assert_eq!(
            (columns.cause(), columns.issuer.as_str(), columns.rule_set.as_str().split('/').next()),
            (Cause::Account, "icbc", Some("unionpay-pos"))
        );
        assert_eq!(columns.money_outcome, 2);
        let again = Standing {
            tag: columns.tag,
            cause: i8::try_from(columns.cause).unwrap(),
            reason: columns.reason,
            confidence: u8::try_from(columns.confidence).unwrap(),
            issuer: columns.issuer,
            ..standing()
        };
        assert_eq!(judged(again, &rules, &issuers), None);
    }

    #[test]
    fn a_moment_is_said_in_two_ways() {
        assert_eq!(moment("1970-01-01T00:01:00Z").unwrap(), UNIX_EPOCH + Duration::from_secs(60));
        assert!(moment("2h").unwrap() < SystemTime::now() - Duration::from_secs(7100));
        assert!(moment("yesterday").unwrap_err().contains("nor how long ago"));
    }
}
