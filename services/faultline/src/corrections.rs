//! `faultline corrections`: what was corrected of stored outcomes, and how it is taken back. What every correction has in common that a person makes: it is
//! shown first, then made.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Subcommand;
use faultline_alerter::{Corrections, CorrectionsError, correction};
use faultline_proto::correction::v1::{CorrectedVerdict, Correction, CorrectionKind, CorrectionState, VerdictChange};
use faultline_proto::verdict::v1::Cause;
use faultline_runtime::shutdown::StopSignals;
use faultline_store::{Change, Corrector, Database, StoreError, Windows, tally};
use faultline_stream::CorrectionLog;
use prost_types::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::consent::Consent;
use crate::output::say;

/// How often it is said how it goes, and written down that it does.
const TELL: Duration = Duration::from_secs(5);
/// How often it is looked whether another has ended.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show every correction, the first begun first.
    List {
        /// Of this tenant alone
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
    },
    /// Take a correction back: outcomes that stand as it made them become what they were before.
    Undo {
        /// The correction, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        consent: Consent,
    },
}

pub(crate) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    let known = CorrectionLog::read(&config.kafka).await?;
    match command {
        Command::List { tenant } => {
            let wanted: Vec<_> = known.iter().filter(|known| tenant.as_ref().is_none_or(|tenant| known.tenant == *tenant)).collect();
            if wanted.is_empty() {
                say("Nothing was ever corrected.");
            }
            wanted.into_iter().for_each(|correction| say(&line(correction)));
            Ok(())
        }
        Command::Undo { id, consent } => {
            let undone = known.into_iter().find(|known| known.correction_id == id);
            let undone = undone.with_context(|| format!("there is no correction `{id}`; `faultline corrections list` shows all"))?;
            let time = seconds(undone.from_time)..seconds(undone.until_time);
            let undo = Correction {
                undone_correction_id: id.clone(),
                ..correction(&undone.tenant, CorrectionKind::Undo, format!("takes back {id}: {}", undone.description))
            };
            let database = Database::new(&config.clickhouse)?;
            let proposal = Proposal { config, database: &database, correction: undo, time, consent };
            Box::pin(proposal.carry_out(async |window| database.undoing(&undone, window).await)).await
        }
    }
}

/// A correction that a person wants.
pub(crate) struct Proposal<'a> {
    pub(crate) config: &'a Config,
    pub(crate) database: &'a Database,
    pub(crate) correction: Correction,
    /// When its outcomes were completed, in seconds since 1970-01-01 UTC.
    pub(crate) time: Range<u32>,
    pub(crate) consent: Consent,
}

impl Proposal<'_> {
    /// Shows what would change, asks, and changes it. `changes` says what is to change of the outcomes that were completed within a time (milliseconds).
    pub(crate) async fn carry_out(mut self, changes: impl AsyncFn(&Range<i64>) -> Result<Vec<Change>, StoreError>) -> anyhow::Result<()> {
        let mut signals = StopSignals::catch().context("cannot catch signals")?;
        let stop = CancellationToken::new();
        let stopping = async {
            signals.next().await;
            stop.cancel();
            signals.next().await
        };
        let working = async {
            let Some(windows) = self.show(&changes, &stop).await? else { return Ok(()) };
            if self.consent.dry_run {
                say("Nothing was changed (--dry-run).");
                return Ok(());
            }
            if !self.consent.is_given("Change this?").await? {
                say("Nothing was changed.");
                return Ok(());
            }
            self.make(&windows, &changes, &stop).await
        };
        tokio::select! {
            done = working => done,
            signal = stopping => bail!("ended at once by a second signal ({signal}); what was half done is settled by the next correction"),
        }
    }

    /// Says what would change; nothing where nothing would.
    async fn show(
        &self,
        changes: &impl AsyncFn(&Range<i64>) -> Result<Vec<Change>, StoreError>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Windows>> {
        let windows = self.database.windows(&self.correction.tenant, self.time.clone()).await?;
        say(&format!("Looking at {} outcomes of tenant {}, completed {}.", windows.outcomes, self.correction.tenant, during(&self.time)));
        let (mut totals, mut told) = (Vec::new(), Instant::now());
        for (number, window) in (1..).zip(&windows.windows) {
            if stop.is_cancelled() {
                bail!("stopped; nothing was changed");
            }
            tally(&mut totals, &changes(window).await?);
            if told.elapsed() >= TELL {
                say(&format!("  {} % looked at", number * 100 / windows.windows.len().max(1)));
                told = Instant::now();
            }
        }
        if totals.is_empty() {
            say("Nothing would change.");
            return Ok(None);
        }
        say(&table(&totals));
        Ok(Some(windows))
    }

    async fn make(
        &mut self,
        windows: &Windows,
        changes: &impl AsyncFn(&Range<i64>) -> Result<Vec<Change>, StoreError>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let Some(corrections) = self.open(stop).await? else { bail!("stopped; nothing was changed") };
        self.correction.from_time = Some(at(self.time.start));
        self.correction.until_time = Some(at(self.time.end));
        let mut corrector = corrections.make(self.correction.clone()).await?;
        let mut told = Instant::now();
        for (number, window) in (1..).zip(&windows.windows) {
            if stop.is_cancelled() {
                break;
            }
            corrector.add(changes(window).await?).await?;
            if told.elapsed() >= TELL {
                corrector.breathe().await?;
                say(&format!("  {} % done, {} outcomes corrected", number * 100 / windows.windows.len().max(1), count(&corrector)));
                told = Instant::now();
            }
        }
        let state = if stop.is_cancelled() { CorrectionState::Interrupted } else { CorrectionState::Finished };
        let Correction { correction_id: id, changes, .. } = corrector.end(state).await?;
        let some: u64 = changes.iter().map(|change| change.count).sum();
        if state == CorrectionState::Interrupted {
            bail!(
                "stopped: {some} outcomes were corrected (correction {id}). Run it again for the rest; `faultline corrections undo {id}` takes it back"
            );
        }
        say(&format!("{some} outcomes were corrected (correction {id}). `faultline corrections undo {id}` takes it back."));
        Ok(())
    }

    /// Waits for the right to correct, unless it is to stop.
    async fn open(&self, stop: &CancellationToken) -> anyhow::Result<Option<Corrections>> {
        let mut said = false;
        while !stop.is_cancelled() {
            match Corrections::open(&self.config.kafka, self.database).await {
                Err(busy @ CorrectionsError::Busy { .. }) => {
                    if !std::mem::replace(&mut said, true) {
                        say(&format!("Waiting, since {busy}."));
                    }
                }
                opened => return Ok(Some(opened?)),
            }
            sleep(LOOK).await;
        }
        Ok(None)
    }
}

fn count<J: faultline_store::Journal>(corrector: &Corrector<'_, J>) -> u64 {
    corrector.correction().changes.iter().map(|change| change.count).sum()
}

/// What changes into what, the most first.
fn table(totals: &[VerdictChange]) -> String {
    let mut totals: Vec<_> = totals.iter().collect();
    totals.sort_by_key(|change| std::cmp::Reverse(change.count));
    let verdict = |verdict: &Option<CorrectedVerdict>| {
        verdict.as_ref().map_or_else(String::new, |verdict| format!("{} {}", cause(verdict.cause), verdict.reason))
    };
    let rows = totals.iter().map(|change| (change.count, verdict(&change.before), verdict(&change.after)));
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(_, before, _)| before.len()).max().unwrap_or_default();
    let lines = rows.iter().map(|(count, before, after)| format!("  {count:>12}  {before:width$}  to  {after}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn line(correction: &Correction) -> String {
    let word = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_lowercase();
    let some: u64 = correction.changes.iter().map(|change| change.count).sum();
    format!(
        "{}  {}  {:<10}  {:<11}  {some:>10} of {}, {}",
        correction.correction_id,
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds(correction.begin_time).into())),
        word(correction.kind().as_str_name(), "CORRECTION_KIND_"),
        word(correction.state().as_str_name(), "CORRECTION_STATE_"),
        correction.tenant,
        correction.description
    )
}

fn cause(number: i32) -> String {
    let cause = Cause::try_from(number).unwrap_or(Cause::Unspecified);
    cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase()
}

fn during(time: &Range<u32>) -> String {
    let moment = |second: u32| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second.into()));
    format!("from {} until {}", moment(time.start), moment(time.end))
}

fn at(second: u32) -> Timestamp {
    SystemTime::into(UNIX_EPOCH + Duration::from_secs(second.into()))
}

fn seconds(time: Option<Timestamp>) -> u32 {
    time.map_or(0, |time| u32::try_from(time.seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_most_is_said_first() {
        let verdict = |cause: Cause, reason: &str| Some(CorrectedVerdict { cause: cause.into(), reason: reason.into() });
        let change =
            |count, reason| VerdictChange { before: verdict(Cause::Account, reason), after: verdict(Cause::Bank, "issuer_outage"), count };
        let table = table(&[change(7, "do_not_honour"), change(1200, "refused")]);
        assert_eq!(
            table,
            "          1200  account refused        to  bank issuer_outage\n             7  account do_not_honour  to  bank issuer_outage"
        );
    }
}
