//! `faultline simulate`: a fleet that does not exist reports to a gateway, and it is said in plain words how that goes.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use faultline_proto::verdict::v1::Cause;
use faultline_runtime::error::with_causes;
use faultline_runtime::shutdown::StopSignals;
use faultline_simulator::{Gateway, Progress, Simulation};
use faultline_store::Database;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::incidents::{compare, follow, until_over};
use crate::output::say;

/// How often it is said how it goes.
const TELL: Duration = Duration::from_secs(10);
/// For how long it is tried to write the past, and the pause between.
const HISTORY_PATIENCE: Duration = Duration::from_secs(60);
const HISTORY_PAUSE: Duration = Duration::from_secs(2);
/// Length of a bucket of counts. What completed in the last one may not be counted yet.
const BUCKET_S: u32 = 10;
const MINUTE_S: u32 = 60;
/// How far behind the simulator may be before that is said.
const BEHIND: Duration = Duration::from_secs(2);

/// What is played, and to whom.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The scenario (TOML); services/simulator/scenarios has some, services/simulator/src/scenario.rs explains the keys
    scenario: PathBuf,
    /// The gateway to report to
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15051")]
    gateway: String,
    /// File with a token of every terminal of a tenant, as `faultline token --any-terminal` prints it [default: that of `faultline up`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// For a gateway with TLS, the certificate (PEM) of the authority that vouches for it
    #[arg(long, value_name = "FILE")]
    ca_certificate: Option<PathBuf>,
    /// Another seed than the scenario's
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Another number of terminals
    #[arg(long, value_name = "NUMBER")]
    terminals: Option<u32>,
    /// Another rate, in sales a minute on average over a week
    #[arg(long, value_name = "RATE")]
    transactions_per_minute: Option<f64>,
    /// Switch the fleet off after this time, such as 90s or 10m, instead of at Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    run_for: Option<Duration>,
    /// First write the counts of the weeks before into ClickHouse (settings `clickhouse`), as those of this tenant: the one of the token
    #[arg(long, value_name = "TENANT")]
    history_of: Option<String>,
}

/// Plays a scenario until a signal, or as long as it was asked for. Ends in an error when not everything was acknowledged.
pub(crate) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch().context("cannot catch signals")?;
    let simulation = Simulation::load(&options.scenario, |scenario| {
        scenario.seed = options.seed.unwrap_or(scenario.seed);
        scenario.fleet.terminals = options.terminals.unwrap_or(scenario.fleet.terminals);
        scenario.fleet.transactions_per_minute = options.transactions_per_minute.unwrap_or(scenario.fleet.transactions_per_minute);
    })?;
    let ca_certificate = options.ca_certificate.as_deref().map(|path| read(path, "--ca-certificate")).transpose()?;
    let token = match &options.token_file {
        Some(path) => read(path, "--token-file")?,
        None => read(&config.local.data_directory()?.join("gateway/token"), "the token of `faultline up`; --token-file names another")?,
    };
    let gateway = Gateway { address: options.gateway, token: token.trim().into(), ca_certificate };
    let database = Database::new(&config.clickhouse)?;
    let (tenant, length) = (options.history_of.as_deref(), options.run_for.map_or(Length::Unlimited, Length::Limited));
    let show = Show { simulation: &simulation, gateway: &gateway, database: &database, tenant, length };
    let stop = CancellationToken::new();
    let stopping = async {
        let signal = signals.next().await;
        tracing::info!(signal, "asked to stop; a second signal ends everything at once");
        stop.cancel();
        signals.next().await
    };
    let last = tokio::select! {
        last = show.play(&stop) => last?,
        signal = stopping => bail!("ended at once by a second signal ({signal})"),
    };
    if last.waiting() + last.lost > 0 {
        let why = if last.problem.is_empty() { "there was no time left" } else { &last.problem };
        bail!("{} of {} outcomes were not acknowledged: {why}", last.waiting() + last.lost, last.reported);
    }
    Ok(())
}

fn read(path: &Path, what: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {} ({what})", path.display()))
}

/// A scenario, the gateway that it is played to, and where the counts are, where they are known.
pub(crate) struct Show<'a> {
    pub(crate) simulation: &'a Simulation,
    pub(crate) gateway: &'a Gateway,
    pub(crate) database: &'a Database,
    /// The tenant that is counted; nothing: neither is a past written, nor asked what was counted.
    pub(crate) tenant: Option<&'a str>,
    pub(crate) length: Length,
}

/// How long a fleet is switched on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    /// Until it is stopped.
    Unlimited,
    /// So long.
    Limited(Duration),
    /// Until the scenario is over, which is then; and the incidents that Faultline made of it must be those that it is to make.
    Checked(Duration),
}

impl Show<'_> {
    /// Writes the past where there is none, then plays as long as it is to, or until `stop`.
    pub(crate) async fn play(&self, stop: &CancellationToken) -> anyhow::Result<Progress> {
        say(&self.simulation.described());
        tokio::select! {
            written = self.write_history() => written?,
            () = stop.cancelled() => return Ok(Progress::default()),
        }
        let (begin, since) = (Instant::now(), now_s());
        let (progress, incidents) = (watch::Sender::default(), watch::Sender::default());
        let off = stop.child_token();
        let switching_off = async {
            match self.length {
                Length::Unlimited => std::future::pending().await,
                Length::Limited(time) => sleep(time).await,
                Length::Checked(end) => until_over(end, begin, incidents.subscribe()).await,
            }
            off.cancel();
            std::future::pending().await
        };
        let announce = |text: String| say(&format!("{} {text}", clock(begin.elapsed())));
        let following = async {
            match self.tenant {
                Some(tenant) => follow((self.database, tenant, since), begin, (announce, &incidents)).await,
                None => std::future::pending().await,
            }
        };
        let last = tokio::select! {
            last = self.simulation.run(self.gateway, off.clone(), (announce, &progress)) => last?,
            never = switching_off => never,
            never = self.tell(begin, progress.subscribe()) => never,
            never = following => never,
        };
        say(&format!("{} Verdicts in the terminals: {}.", clock(begin.elapsed()), verdicts(&last)));
        say(&format!("{} The fleet is switched off: {}.", clock(begin.elapsed()), reported(&last)));
        if let Length::Checked(_) = self.length
            && !stop.is_cancelled()
        {
            let compared = compare(&self.simulation.scenario().expected(), &incidents.borrow());
            let passed = compared.map_err(|wrong| anyhow!("the incidents are not those that the scenario is to make: {wrong}"))?;
            say(&format!("Passed: {passed}."));
        }
        Ok(last)
    }

    async fn write_history(&self) -> anyhow::Result<()> {
        let Some(tenant) = self.tenant else { return Ok(()) };
        let told = |day, days| {
            if day % 7 == 0 || day == days {
                say(&format!("Counts of the time before the fleet was switched on: day {day} of {days} written."));
            }
        };
        let begin = Instant::now();
        loop {
            // What was written is not written again.
            let error = match self.simulation.write_history(self.database, tenant, told).await {
                Ok(written) => {
                    tracing::debug!(counts = written, tenant, "the past is there");
                    return Ok(());
                }
                Err(error) => error,
            };
            if begin.elapsed() > HISTORY_PATIENCE {
                return Err(error).with_context(|| format!("cannot write the past of tenant {tenant}"));
            }
            say(&format!("The past is not written yet: {}", with_causes(&error)));
            sleep(HISTORY_PAUSE).await;
        }
    }

    /// Says again and again how it goes, and what Faultline makes of it.
    async fn tell(&self, begin: Instant, progress: watch::Receiver<Progress>) -> ! {
        let mut before = Progress::default();
        loop {
            sleep(TELL).await;
            let now = progress.borrow().clone();
            let counted = match self.tenant {
                Some(tenant) => self.counted(tenant, begin.elapsed()).await,
                None => String::new(),
            };
            say(&format!("{} {}{counted}", clock(begin.elapsed()), told(&now, &before)));
            before = now;
        }
    }

    /// What was counted in the last minute, as far as it is over, of what happened since the fleet was switched on.
    async fn counted(&self, tenant: &str, elapsed: Duration) -> String {
        let now = now_s();
        let end = now - now % BUCKET_S - BUCKET_S;
        let begin = now.saturating_sub(u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX)).max(end - MINUTE_S);
        let causes = match self.database.causes(tenant, begin..end).await {
            Ok(causes) => causes,
            Err(error) => return format!(" What was counted is not known: {}", with_causes(&error)),
        };
        let all: i64 = causes.iter().map(|(_, attempts)| attempts).sum();
        if all == 0 {
            return String::new();
        }
        #[expect(clippy::cast_precision_loss, reason = "of counts of a minute")]
        let shares = causes.iter().map(|(cause, attempts)| (cause, 100.0 * *attempts as f64 / all as f64));
        let shares: Vec<String> = shares.map(|(cause, share)| format!("{} {share:.1} %", name(*cause))).collect();
        format!(" Counted in the last minute: {}", shares.join(", "))
    }
}

/// What the terminals said of everything that was reported, without the network.
fn verdicts(last: &Progress) -> String {
    let verdicts: Vec<String> = last.verdicts.iter().map(|(cause, count)| format!("{} {count}", name(*cause))).collect();
    if verdicts.is_empty() { "none".into() } else { verdicts.join(", ") }
}

/// A cause, as it is written everywhere.
fn name(cause: Cause) -> String {
    cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase()
}

/// What became of everything that was reported.
fn reported(last: &Progress) -> String {
    match (last.reported, last.waiting() + last.lost) {
        (0, _) => "nothing was reported".into(),
        (all, 0) => format!("{all} outcomes reported, all acknowledged"),
        (all, some) => format!("{all} outcomes reported, {some} not acknowledged"),
    }
}

/// Seconds since 1970-01-01 UTC.
fn now_s() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
}

/// How it goes, in a line.
fn told(now: &Progress, before: &Progress) -> String {
    let seconds = (now.elapsed.saturating_sub(before.elapsed)).as_secs_f64().max(1.0);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = now.reported.saturating_sub(before.reported) as f64 / seconds;
    let mut text = format!("{rate:.0} outcomes/s; {} of {} acknowledged.", now.acknowledged, now.reported);
    if now.lost > 0 {
        text.push_str(&format!(" {} lost.", now.lost));
    }
    if now.behind > BEHIND {
        text.push_str(&format!(" This machine is too slow for that rate: {} s behind.", now.behind.as_secs()));
    }
    if !now.problem.is_empty() {
        text.push_str(&format!(" Problem: {}.", now.problem));
    }
    text
}

/// Minutes and seconds since the fleet was switched on.
fn clock(elapsed: Duration) -> String {
    format!("[{:02}:{:02}]", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_it_goes_is_said_in_a_line() {
        let before = Progress { elapsed: Duration::from_secs(10), reported: 100, ..Progress::default() };
        let well = Progress { elapsed: Duration::from_secs(20), reported: 300, acknowledged: 280, ..Progress::default() };
        assert_eq!(told(&well, &before), "20 outcomes/s; 280 of 300 acknowledged.");
        let ill = Progress { lost: 3, behind: Duration::from_secs(5), problem: "no way".into(), ..well };
        let said = told(&ill, &before);
        assert!(said.ends_with(" 3 lost. This machine is too slow for that rate: 5 s behind. Problem: no way."), "{said}");
        assert_eq!(clock(Duration::from_secs(3725)), "[62:05]");
    }
}
