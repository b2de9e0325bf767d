//! `faultline import`: outcomes from the logs of a switch, for terminals that cannot report themselves; and it is said in plain words how that goes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use faultline_importer::{
    Beside, Checked, Gateway, Import, ImportError, Input, Known, Log, LogError, Manner, Mapping, Progress, Refusal, RefusalFile, SendError,
    StateFile, check,
};
use faultline_runtime::error::with_causes;
use faultline_runtime::shutdown::StopSignals;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::output::say;

/// How often it is said how it goes: on a terminal, and elsewhere.
const SHOW: Duration = Duration::from_millis(500);
const TELL: Duration = Duration::from_secs(10);
/// How often it is looked for what is new.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is imported, how, and where to.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// The mapping (TOML): how lines become outcomes; docs/import.md explains it, services/importer/mappings has one to begin with
    mapping: PathBuf,
    /// The logs, plain or gzip, one after the other; `-` is standard input
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// Send nothing: show what the first lines become, and count what could not be imported
    #[arg(long, visible_alias = "dry-run")]
    check: bool,
    /// With --check, how many lines are shown
    #[arg(long, value_name = "LINES", default_value_t = 3, requires = "check")]
    show: usize,
    /// The gateway to report to
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15051")]
    gateway: String,
    /// File with a token of every terminal of a tenant, as `faultline token --any-terminal` prints it [default: that of `faultline up`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// For a gateway with TLS, the certificate (PEM) of the authority that vouches for it
    #[arg(long, value_name = "FILE")]
    ca_certificate: Option<PathBuf>,
    /// Keep in this file how far each log is imported [default: LOG.faultline-import beside the log; nowhere for standard input]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// What tells this log from others, instead of how it begins. For one log; another log needs another name
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Nothing will be added to the logs any more: a last line without an end is whole, and a short log is a log
    #[arg(long)]
    finished: bool,
    /// Add a line (NDJSON) to this file for each line that cannot be imported: its number, field and reason, never what is in it
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// At the end, look every second for what is new, until Ctrl-C: outcomes are then soon enough for incidents
    #[arg(long, conflicts_with_all = ["check", "finished"])]
    follow: bool,
    /// End at the first line that cannot be imported, instead of going on without it
    #[arg(long)]
    strict: bool,
    /// End when the gateway has not been reached for so long, such as 90s or 10m, instead of trying for ever
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    give_up_after: Option<Duration>,
    /// Batches that are on their way at a time, each of another terminal
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
}

const AFTER_HELP: &str = "\
A line is counted once, however often and wherever its log is imported: a log is known by how it begins, and a line by its number. So a log that grows can be \
imported again and again, and an import that was interrupted is started again with the same command.

Ends with 0 when every line was imported, with 3 when some could not be, and with 1 when it did not get to the end.";

/// Everything was read to its end, and some lines could not be taken.
#[derive(Debug)]
pub(crate) struct SomeRefused {
    pub(crate) lines: u64,
    /// What is wrong with them.
    pub(crate) said: &'static str,
}

impl SomeRefused {
    /// What the program ends with then.
    pub(crate) const EXIT_CODE: u8 = 3;
}

impl fmt::Display for SomeRefused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} lines {}", self.lines, self.said)
    }
}

impl std::error::Error for SomeRefused {}

/// Imports logs until their ends, or a signal.
pub(crate) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    if options.source.is_some() && options.logs.len() > 1 {
        bail!("--source names one log, and {} were given", options.logs.len());
    }
    if options.follow && options.logs.iter().any(|path| Input::named(path) == Input::Standard) {
        bail!("--follow is for files; standard input is read to its end anyway");
    }
    let mapping = Mapping::load(&options.mapping)?;
    let mut refusals = options.rejects.as_deref().map(open).transpose()?;
    if options.check {
        return tokio::task::block_in_place(|| check_all(&Arc::new(mapping), &options, refusals.as_mut()));
    }
    let mut signals = StopSignals::catch().context("cannot catch signals")?;
    let import = Import::new(mapping, &gateway(config, &options)?, manner(&options))?;
    let stop = CancellationToken::new();
    let stopping = async {
        let signal = signals.next().await;
        tracing::info!(signal, "asked to stop; a second signal ends everything at once");
        stop.cancel();
        signals.next().await
    };
    tokio::select! {
        done = import_all(&import, &options, refusals, &stop) => done,
        signal = stopping => bail!("ended at once by a second signal ({signal})"),
    }
}

fn open(path: &Path) -> anyhow::Result<RefusalFile> {
    RefusalFile::open(path).with_context(|| format!("cannot open {} (--rejects)", path.display()))
}

fn gateway(config: &Config, options: &Options) -> anyhow::Result<Gateway> {
    let read = |path: &Path, what: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {} ({what})", path.display()));
    let ca_certificate = options.ca_certificate.as_deref().map(|path| read(path, "--ca-certificate")).transpose()?;
    let token = match &options.token_file {
        Some(path) => read(path, "--token-file")?,
        None => read(&config.local.data_directory()?.join("gateway/token"), "the token of `faultline up`; --token-file names another")?,
    };
    Ok(Gateway { address: options.gateway.clone(), token: token.trim().into(), ca_certificate })
}

fn manner(options: &Options) -> Manner {
    Manner { concurrency: options.concurrency.into(), is_strict: options.strict, give_up_after: options.give_up_after }
}

fn known(options: &Options) -> Known {
    Known { source: options.source.clone(), is_finished: options.finished }
}

/// Logs that are imported one after the other, and with `--follow` again and again.
struct Round<'a> {
    import: &'a Import,
    options: &'a Options,
    refusals: Option<RefusalFile>,
    stop: &'a CancellationToken,
    /// Lines that were refused.
    refused: u64,
    /// By log, what is wrong with it, as it was said.
    wrong: BTreeMap<PathBuf, String>,
}

/// Imports logs. What is wrong with one does not keep the others from being imported, as long as there is a gateway.
async fn import_all(import: &Import, options: &Options, refusals: Option<RefusalFile>, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut round = Round { import, options, refusals, stop, refused: 0, wrong: BTreeMap::new() };
    for path in &options.logs {
        say(&format!("Importing {}.", path.display()));
    }
    loop {
        let mut failed = None;
        for path in &options.logs {
            match round.import(path).await {
                Ok(()) => drop(round.wrong.remove(path)),
                // The log may be there, or longer, when it is looked at again.
                Err(error) if is_of_the_log(&error) => {
                    let error = error.context(path.display().to_string());
                    let text = with_causes(error.as_ref());
                    if round.wrong.insert(path.clone(), text.clone()).as_ref() != Some(&text) {
                        say(&format!("NOT IMPORTED: {text}"));
                    }
                    failed = Some(error);
                }
                Err(_) if options.follow && stop.is_cancelled() => break,
                Err(error) => return Err(error.context(path.display().to_string())),
            }
        }
        if !options.follow {
            return failed.map_or_else(|| all_taken(round.refused), Err);
        }
        tokio::select! {
            () = sleep(LOOK_AGAIN) => {}
            () = stop.cancelled() => return all_taken(round.refused),
        }
    }
}

fn is_of_the_log(error: &anyhow::Error) -> bool {
    error.is::<LogError>() || matches!(error.downcast_ref(), Some(ImportError::Log(_) | ImportError::State(_)))
}

impl Round<'_> {
    /// Imports what is new in a log.
    async fn import(&mut self, path: &Path) -> anyhow::Result<()> {
        let input = Input::named(path);
        let state = match (&self.options.state, &input) {
            (Some(file), _) => Some(StateFile::at(file.clone())),
            (None, Input::File(path)) => Some(StateFile::beside(path)),
            (None, Input::Standard) => None,
        };
        let known = known(self.options);
        // Standard input may have nothing yet.
        let opening = spawn_blocking(move || Log::open(&input, &known));
        let log = tokio::select! {
            log = opening => log.context("a task failed")??,
            () = self.stop.cancelled() => return Err(ImportError::from(SendError::Stopped).into()),
        };
        let name = log.name.clone();
        let files = Beside {
            state: state.as_ref(),
            source: self.options.source.as_deref(),
            refusals: self.refusals.as_mut().zip(self.options.rejects.clone()),
        };
        let progress = watch::Sender::default();
        let done = tokio::select! {
            done = self.import.run(log, files, (self.stop.clone(), &progress)) => done,
            never = show(&name, progress.subscribe()) => never,
        };
        let last = progress.borrow().clone();
        self.refused += last.refused.lines();
        if last.lines > 0 || !self.options.follow {
            tell(&name, &last);
        }
        if let (Err(_), Some(state)) = (&done, &state) {
            say(&format!("  The next import goes on after line {} ({}).", last.imported.lines, state.path().display()));
        }
        Ok(done?)
    }
}

/// Whether no line was refused.
fn all_taken(refused: u64) -> anyhow::Result<()> {
    if refused > 0 {
        Err(SomeRefused { lines: refused, said: "cannot be imported; docs/import.md says what can be done" }.into())
    } else {
        Ok(())
    }
}

/// Shows how it goes: a moving line on a terminal, plain lines elsewhere.
async fn show(name: &str, mut progress: watch::Receiver<Progress>) -> ! {
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar
    });
    let _cleared = bar.clone().map(Cleared);
    let mut tick = interval(if bar.is_some() { SHOW } else { TELL });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let mut before = (Instant::now(), 0);
    loop {
        tick.tick().await;
        let now = progress.borrow_and_update().clone();
        let lines = now.settled();
        let text = format!("{name}: {}", going(&now, rate(lines.saturating_sub(before.1), before.0.elapsed())));
        before = (Instant::now(), lines);
        match &bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            None => say(&text),
        }
    }
}

/// A moving line that is gone when this is dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn rate(lines: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate that is shown")]
    let lines = lines as f64;
    lines / time.as_secs_f64().max(0.001)
}

/// How it goes, in a line.
fn going(now: &Progress, rate: f64) -> String {
    let share = now.share_settled();
    let mut text = share.map_or_else(String::new, |share| format!("{:.0} %, ", 100.0 * share));
    text.push_str(&format!("{rate:.0} lines/s; {} outcomes acknowledged", now.acknowledged));
    if now.refused.lines() > 0 {
        text.push_str(&format!(", {} lines NOT IMPORTABLE", now.refused.lines()));
    }
    if let Some(share) = share.filter(|share| *share > 0.01) {
        let left = now.elapsed.mul_f64(((1.0 - share) / share).max(0.0));
        text.push_str(&format!(", {} to go", humantime::format_duration(Duration::from_secs(left.as_secs()))));
    }
    if !now.problem.is_empty() {
        text.push_str(&format!(". The gateway does not take more at the moment: {}", now.problem));
    }
    text
}

/// What became of a log.
fn tell(name: &str, last: &Progress) {
    let new = match last.from.lines {
        0 => String::new(),
        lines => format!(" after line {lines}, where the last import ended"),
    };
    let seconds = last.elapsed.as_secs_f64();
    let per_second = rate(last.imported.lines.saturating_sub(last.from.lines), last.elapsed);
    say(&format!(
        "{name}: {} lines read{new}: {} outcomes acknowledged, {} lines skipped, {} not importable. {seconds:.1} s, {per_second:.0} lines/s.",
        last.lines,
        last.acknowledged,
        last.skipped,
        last.refused.lines()
    ));
    tell_wrong((&last.refused.told(), &last.first_refused), &last.left_out);
    if last.redacted > 0 {
        say(&format!("  CARD NUMBERS: in {} free texts, the gateway overwrote what looks like one. Map another column.", last.redacted));
    }
    if last.has_unfinished {
        say("  The last line has no end and may be half written: it is left for the next import. (--finished takes it.)");
    }
}

/// What was wrong in a log.
fn tell_wrong((told, first): (&[String], &[Refusal]), left_out: &BTreeMap<String, u64>) {
    for reason in told {
        say(&format!("  {reason}"));
    }
    if !first.is_empty() {
        let lines: Vec<String> = first.iter().map(|refusal| refusal.line.to_string()).collect();
        say(&format!("  The first of them: line {}", lines.join(", ")));
    }
    for (field, lines) in left_out {
        say(&format!("  {lines} lines without {field}, whose value is against its grammar"));
    }
}

/// Says what would become of logs.
fn check_all(mapping: &Arc<Mapping>, options: &Options, mut refusals: Option<&mut RefusalFile>) -> anyhow::Result<()> {
    let mut refused = 0;
    for path in &options.logs {
        let log = Log::open(&Input::named(path), &known(options))?;
        let (name, spool) = (log.name.clone(), log.spool);
        let checked = check(mapping, log, options.show, |refusal| match refusals.as_deref_mut() {
            Some(file) => file.write((&name, spool), refusal).context("cannot write the file of --rejects"),
            None => Ok(()),
        })?;
        if let Some(file) = refusals.as_deref_mut() {
            file.keep().context("cannot write the file of --rejects")?;
        }
        tell_checked(&name, &checked);
        refused += checked.refused.lines();
    }
    say("Nothing was sent (--check).");
    all_taken(refused)
}

fn tell_checked(name: &str, checked: &Checked) {
    for (line, fields) in &checked.examples {
        say(&format!("{name}, line {line}:"));
        for (field, value) in fields {
            say(&format!("  {field} = {value}"));
        }
    }
    let Checked { lines, outcomes, terminals, skipped, .. } = checked;
    let times = match (checked.first, checked.last) {
        (Some(first), Some(last)) => format!(", completed from {first:.0} to {last:.0}"),
        _ => String::new(),
    };
    let refused = checked.refused.lines();
    say(&format!(
        "{name}: {lines} lines: {outcomes} outcomes of {terminals} terminals{times}; {skipped} skipped, {refused} not importable."
    ));
    tell_wrong((&checked.refused.told(), &checked.first_refused), &checked.left_out);
    if checked.has_unfinished {
        say("  The last line has no end and may be half written: it would be left. (--finished takes it.)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_it_goes_is_said_in_a_line() {
        let well = Progress {
            elapsed: Duration::from_secs(30),
            lines: 2000,
            acknowledged: 900,
            skipped: 100,
            share_read: Some(0.5),
            ..Progress::default()
        };
        assert_eq!(going(&well, 40.0), "25 %, 40 lines/s; 900 outcomes acknowledged, 1m 30s to go");
        // The other half was imported before.
        let resumed = Progress { share_read: Some(0.75), share_before: 0.5, ..well.clone() };
        assert!(going(&resumed, 40.0).starts_with("25 %, "));
        let ill = Progress { share_read: None, problem: "no way".into(), ..well };
        assert_eq!(going(&ill, 0.0), "0 lines/s; 900 outcomes acknowledged. The gateway does not take more at the moment: no way");
    }
}
