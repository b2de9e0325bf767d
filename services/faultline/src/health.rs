//! `faultline health`: which terminals want maintenance, which shops' networks are weak, which merchants want training.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use clap::{Args, Subcommand};
use faultline_console::health::{self, MerchantHealth, ShopHealth, TerminalHealth};
use faultline_console::silence::{self, Silent};
use faultline_store::{Database, MOST_COUNTED};
use serde::Serialize;

use crate::answer;
use crate::columns::{self, Column};
use crate::config::Config;
use crate::replay::{moment, second};
use crate::rules::in_force;

/// What is usual of terminals is known by so long a time at least.
const LEAST_HABIT: Duration = Duration::from_secs(28 * 86_400);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show terminals that want maintenance, each with its score, what shows it, and what to do; the worst first.
    Terminals {
        #[command(flatten)]
        choice: Choice,
        /// Of this terminal alone
        #[arg(long, value_name = "ID")]
        terminal: Option<String>,
    },
    /// Show shops whose networks are worse than others, and whether that is the shop's or the carrier's.
    Shops {
        #[command(flatten)]
        choice: Choice,
    },
    /// Show terminals, shops, carriers and regions that have stopped reporting, by their own hours and by each other.
    Silent {
        #[command(flatten)]
        choice: Choice,
    },
    /// Show merchants at which terminals are operated wrongly more often than elsewhere.
    Merchants {
        #[command(flatten)]
        choice: Choice,
    },
}

/// What is looked at.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// Whose
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// By what was reported from then on: a moment in UTC (2026-11-29T08:00:00Z), or how long ago it is; at most 35 days
    #[arg(long, value_name = "TIME", value_parser = moment, default_value = "7days")]
    since: SystemTime,
    /// How many at most: the worst
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000), default_value_t = 20)]
    limit: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    let database = Database::new(&config.clickhouse)?;
    match command {
        Command::Terminals { choice, terminal } => {
            let of = (choice.tenant.as_str(), terminal.as_deref());
            let found = health::terminals(&database, of, &choice.time()?, choice.limit()).await?;
            choice.tell((&found.terminals, found.complete), &TERMINALS, "terminal")
        }
        Command::Shops { choice } => {
            let found = health::shops(&database, &choice.tenant, &choice.time()?, choice.limit()).await?;
            choice.tell((&found.shops, found.complete), &SHOPS, "shop")
        }
        Command::Silent { mut choice } => {
            choice.since = choice.since.min(SystemTime::now() - LEAST_HABIT);
            let found = silence::silences(&database, &choice.tenant, &choice.time()?, choice.limit()).await?;
            if found.watched > 0 && found.silent.is_empty() && !choice.json {
                return answer(&format!("Nobody has stopped reporting, of {} terminals.\n", found.watched));
            }
            choice.tell((&found.silent, found.complete), &SILENT, "terminal")
        }
        Command::Merchants { choice } => {
            let rules = in_force(config, None)?;
            let found = health::merchants(&database, (&choice.tenant, &rules), &choice.time()?, choice.limit()).await?;
            choice.tell((&found.merchants, found.complete), &MERCHANTS, "merchant")
        }
    }
}

impl Choice {
    fn time(&self) -> anyhow::Result<Range<u32>> {
        // What was reported in this second counts too.
        let time = second(self.since)..second(SystemTime::now()).saturating_add(1);
        if time.is_empty() {
            bail!("--since is still to come");
        }
        Ok(time)
    }

    fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    fn tell<R: Serialize>(&self, (found, complete): (&[R], bool), columns: &[Column<R>], what: &str) -> anyhow::Result<()> {
        if !complete {
            tracing::warn!("more than {MOST_COUNTED} {what}s reported in this time, and the rest is left out: ask for less time");
        }
        if self.json {
            return answer(&format!("{}\n", serde_json::to_string_pretty(found)?));
        }
        if found.is_empty() {
            return answer(&format!("Of no {what} was anything reported.\n"));
        }
        answer(&columns::table(columns, &found.iter().collect::<Vec<_>>()))
    }
}

const TERMINALS: [Column<TerminalHealth>; 7] = [
    ("TERMINAL", |row| row.terminal.clone()),
    ("SCORE", |row| format!("{:.0}", row.score)),
    ("MODEL", |row| row.model.clone()),
    ("MERCHANT", |row| row.merchant.clone()),
    ("STORE", |row| row.store.clone()),
    ("WHAT", |row| {
        let worst = row.parts.iter().filter_map(|part| Some((part.part, part.reasons.first()?)));
        let said = worst.map(|(part, reason)| format!("{part}: {} {} of {}", reason.measure, reason.counted, reason.of));
        said.collect::<Vec<_>>().join("; ")
    }),
    ("ADVICE", |row| row.parts.first().and_then(|part| part.reasons.first()).map_or_else(String::new, |reason| reason.advice.en.clone())),
];

const SHOPS: [Column<ShopHealth>; 9] = [
    ("MERCHANT", |row| row.merchant.clone()),
    ("STORE", |row| row.store.clone()),
    ("CARRIER", |row| row.carrier.clone()),
    ("REGION", |row| row.region.clone()),
    ("QUALITY", |row| row.quality.into()),
    ("FAILED", |row| format!("{} of {}", row.failed, row.attempts)),
    ("EXPECTED", |row| format!("{} nearby, {} elsewhere", row.expected_nearby, row.expected_elsewhere)),
    ("CONNECT", |row| row.connect_ms.map_or_else(String::new, |ms| format!("{ms:.0} ms"))),
    ("ADVICE", |row| row.advice.as_ref().map_or_else(String::new, |advice| advice.en.clone())),
];

const SILENT: [Column<Silent>; 6] = [
    ("WHAT", |row| row.kind.into()),
    ("WHICH", |row| row.part.clone()),
    ("SINCE", |row| humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(row.since.into())).to_string()),
    ("TERMINALS", |row| row.terminals.to_string()),
    ("EVIDENCE", |row| format!("{:.0} nats", row.evidence_nats)),
    ("ADVICE", |row| row.advice.en.clone()),
];

const MERCHANTS: [Column<MerchantHealth>; 6] = [
    ("MERCHANT", |row| row.merchant.clone()),
    ("GROUP", |row| row.merchant_group.clone()),
    ("ERRORS", |row| format!("{} of {}", row.errors, row.attempts)),
    ("AT LEAST", |row| percent(row.at_least)),
    ("USUAL", |row| percent(row.usual)),
    ("ADVICE", |row| match row.needs_training {
        None => "too few attempts to say".into(),
        Some(_) => row.advice.as_ref().map_or_else(String::new, |advice| advice.en.clone()),
    }),
];

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
