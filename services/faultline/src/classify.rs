//! `faultline classify`: outcomes in, verdicts out, a line each; with `--settle`, what each is settled as by all of them together.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use faultline_attribution::{Attempt, Fault, Fleet, Settled, Settlement};
use faultline_proto::ingest::v1::ReportedOutcome;
use faultline_proto::json::Json;
use faultline_proto::outcome::v1::{Outcome, TransactionType};
use faultline_proto::verdict::v1::{self, ClassifiedOutcome, Evidence, FleetFault};
use faultline_verdict::{Issuers, Rules, Verdict};
use prost_types::Timestamp;

use crate::config::Config;
use crate::import::SomeRefused;
use crate::rules::in_force;

const REPORTED: &str = "faultline.ingest.v1.ReportedOutcome";
const OUTCOME: &str = "faultline.outcome.v1.Outcome";
const CLASSIFIED: &str = "faultline.verdict.v1.ClassifiedOutcome";

/// Which outcomes, and how they are judged.
#[derive(Debug, Args)]
#[command(
    after_help = "A line is a `faultline.ingest.v1.ReportedOutcome` (terminalId, spoolId, sequence, profile, outcome) or an `Outcome` alone, in the JSON mapping of \
    Protocol Buffers; an answer is a `faultline.verdict.v1.ClassifiedOutcome`. Without a terminal, a profile and a time, `--settle` has little to go by. Lines that are \
    no outcomes are told on standard error and left out; the exit code is 3 then."
)]
pub(crate) struct Options {
    /// Outcomes (JSON lines); `-`: from standard input
    #[arg(value_name = "FILE", default_value = "-")]
    outcomes: PathBuf,
    /// Settle what one outcome leaves open by all of them, as if they were the fleet
    #[arg(long)]
    settle: bool,
    /// Settle again and again as they come, so often, and tell how long it took until each was settled for good
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "settle")]
    every: Option<Duration>,
    /// With `--every`, how far back is looked each time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "every", default_value = "1h")]
    window: Duration,
    /// Rule sets beside those that come with the program: a file (TOML), or a directory of them [default: `classifier.rules`]
    #[arg(long, value_name = "PATH")]
    rules: Option<PathBuf>,
    /// Table of issuers (CSV) [default: `classifier.issuers_file`, or that which comes with the program]
    #[arg(long, value_name = "FILE")]
    issuers: Option<PathBuf>,
}

/// Reads, judges, writes.
pub(crate) fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let rules = in_force(config, options.rules.as_deref())?;
    let issuers = issuers(config, options)?;
    let input: Box<dyn BufRead> = if options.outcomes.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = std::fs::File::open(&options.outcomes);
        Box::new(BufReader::new(opened.with_context(|| format!("cannot read {}", options.outcomes.display()))?))
    };
    let mut lines = Lines::new(input)?;
    let mut answers = Answers::new()?;
    if options.settle {
        let reported: Vec<(u64, ReportedOutcome)> = lines.by_ref().collect::<Result<_, _>>()?;
        settle((&rules, &issuers), options, &reported, &mut answers)?;
    } else {
        for line in lines.by_ref() {
            let (number, reported) = line?;
            answers.write(&first(&rules, number, &reported))?;
        }
    }
    answers.finish()?;
    if lines.refused == 0 { Ok(()) } else { Err(SomeRefused { lines: lines.refused, said: "are no outcomes" }.into()) }
}

fn issuers(config: &Config, options: &Options) -> anyhow::Result<Issuers> {
    let path = options.issuers.as_ref().unwrap_or(&config.classifier.issuers_file);
    if path.as_os_str().is_empty() {
        return Ok(Issuers::built_in()?);
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Issuers::parse(&text).with_context(|| format!("{} is no table of issuers", path.display()))
}

/// What is said of an outcome alone.
fn first(rules: &Rules, line: u64, reported: &ReportedOutcome) -> ClassifiedOutcome {
    let nothing = Outcome::default();
    let outcome = reported.outcome.as_ref().unwrap_or(&nothing);
    let verdict = rules.in_words(&rules.verdict(outcome), outcome);
    let ReportedOutcome { terminal_id, spool_id, sequence, .. } = reported;
    ClassifiedOutcome {
        line,
        terminal_id: terminal_id.clone(),
        spool_id: *spool_id,
        sequence: *sequence,
        verdict: Some(verdict),
        ..ClassifiedOutcome::default()
    }
}

/// Says of all outcomes what they are by all of them.
fn settle(
    (rules, issuers): (&Rules, &Issuers),
    options: &Options,
    reported: &[(u64, ReportedOutcome)],
    answers: &mut Answers,
) -> anyhow::Result<()> {
    let attempts = Attempts { rules, issuers, reported };
    let (settlement, places, after) = match options.every {
        None => {
            let (settlement, places) = attempts.settled(0..reported.len());
            (settlement, places, vec![0; reported.len()])
        }
        Some(every) => attempts.settled_as_they_come(every, options.window),
    };
    let faults: Vec<FleetFault> = settlement.faults.iter().map(Fault::message).collect();
    for ((place, (number, reported)), after) in reported.iter().enumerate().zip(after) {
        let mut answer = first(rules, *number, reported);
        let settled = places.get(place).copied().flatten().and_then(|number| settlement.failures.get(number));
        if let (Some(settled), Some(outcome)) = (settled, &reported.outcome) {
            let fault = settled.fault.and_then(|fault| settlement.faults.get(fault));
            answer.settled = Some(in_words(rules, outcome, (settled, fault)));
            answer.fault = settled.fault.and_then(|fault| faults.get(fault)).cloned();
            answer.settled_after_s = after;
        }
        answers.write(&answer)?;
    }
    Ok(())
}

/// The outcomes of a fleet.
struct Attempts<'a> {
    rules: &'a Rules,
    issuers: &'a Issuers,
    reported: &'a [(u64, ReportedOutcome)],
}

/// What outcomes are settled as; by outcome, the number of what is settled.
type Placed<'a> = (Settlement<'a>, Vec<Option<usize>>);

impl<'a> Attempts<'a> {
    /// Some of them, as if they were all.
    fn settled(&self, which: impl Iterator<Item = usize>) -> Placed<'a> {
        let mut fleet = Fleet::new(self.rules);
        let mut places = vec![None; self.reported.len()];
        for place in which {
            if let Some((number, reported)) = self.reported.get(place)
                && let Some(settled) = places.get_mut(place)
            {
                *settled = self.observe(&mut fleet, *number, reported);
            }
        }
        (fleet.settle(), places)
    }

    fn observe(&self, fleet: &mut Fleet<'a>, line: u64, reported: &ReportedOutcome) -> Option<usize> {
        let outcome = reported.outcome.as_ref()?;
        // They are answered while everything else is not, and are no sales.
        if matches!(outcome.r#type(), TransactionType::Reversal | TransactionType::Query | TransactionType::Settlement) {
            return None;
        }
        let verdict: Verdict<'_> = self.rules.verdict(outcome);
        let profile = reported.profile.clone().unwrap_or_default();
        let issuer = self.issuers.of(&outcome.bin);
        // Without a place in a spool, every line is a sale.
        let own = if reported.sequence == 0 { line } else { reported.sequence };
        fleet.observe(&Attempt {
            completed_ms: completed_ms(outcome),
            terminal: &reported.terminal_id,
            spool: reported.spool_id,
            sale: if outcome.first_attempt_sequence == 0 { own } else { outcome.first_attempt_sequence },
            merchant: &outcome.merchant_id,
            store: &outcome.store_id,
            issuer: &issuer,
            bin: &outcome.bin,
            card: outcome.card_token.map(|token| (token.key_id, token.value)),
            carrier: &profile.carrier,
            region: &profile.region,
            model: &profile.model,
            firmware: &profile.firmware,
            application: &profile.application,
            acquirer: &outcome.acquirer_id,
            host: &outcome.host_id,
            route: &outcome.route_id,
            response_code: &outcome.response_code,
            rule_set: verdict.rule_set,
            reason: &verdict.reason.id,
            confidence: verdict.confidence,
        })
    }

    /// As [`Attempts::settled`], once `every` time, each time by those of the last `window`; and after how many seconds each was settled for good.
    fn settled_as_they_come(&self, every: Duration, window: Duration) -> (Settlement<'a>, Vec<Option<usize>>, Vec<u32>) {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX).max(1);
        let (every, window) = (ms(every), ms(window));
        let mut order: Vec<(i64, usize)> = self
            .reported
            .iter()
            .enumerate()
            .map(|(place, (_, reported))| (reported.outcome.as_ref().map_or(0, completed_ms), place))
            .collect();
        order.sort_unstable();
        let (Some((begin, _)), Some((end, _))) = (order.first().copied(), order.last().copied()) else {
            return (Settlement::default(), Vec::new(), Vec::new());
        };
        let mut last: Placed<'a> = (Settlement::default(), vec![None; self.reported.len()]);
        let mut after = vec![0; self.reported.len()];
        let mut now = begin.saturating_add(every);
        loop {
            let from = order.partition_point(|(at, _)| *at < now.saturating_sub(window));
            let until = order.partition_point(|(at, _)| *at < now);
            let some = order.get(from..until).unwrap_or_default();
            let (settlement, places) = self.settled(some.iter().map(|(_, place)| *place));
            for (at, place) in some {
                let Some(settled) = places.get(*place).copied().flatten().and_then(|number| settlement.failures.get(number)) else {
                    continue;
                };
                let before = last.1.get(*place).copied().flatten().and_then(|number| last.0.failures.get(number));
                let first = self
                    .reported
                    .get(*place)
                    .and_then(|(_, reported)| reported.outcome.as_ref())
                    .map(|outcome| self.rules.verdict(outcome).reason);
                let before = before.map(|before| before.reason).or(first);
                if before.is_none_or(|before| before.id != settled.reason.id)
                    && let Some(after) = after.get_mut(*place)
                {
                    *after = u32::try_from((now - at) / 1000).unwrap_or(u32::MAX);
                }
            }
            last.take_in(settlement, &places);
            if now > end {
                return (last.0, last.1, after);
            }
            now = now.saturating_add(every);
        }
    }
}

/// What is settled anew takes the place of what was; what is too long ago stays as it is.
trait TakeIn<'a> {
    fn take_in(&mut self, settlement: Settlement<'a>, places: &[Option<usize>]);
}

impl<'a> TakeIn<'a> for Placed<'a> {
    fn take_in(&mut self, settlement: Settlement<'a>, places: &[Option<usize>]) {
        let (known, known_places) = self;
        let begin = known.faults.len();
        for (place, number) in places.iter().enumerate() {
            let Some(settled) = number.and_then(|number| settlement.failures.get(number)) else { continue };
            if let Some(known_place) = known_places.get_mut(place) {
                *known_place = Some(known.failures.len());
                known.failures.push(Settled { fault: settled.fault.map(|fault| begin + fault), ..*settled });
            }
        }
        known.faults.extend(settlement.faults);
    }
}

/// What an outcome is settled as, with the evidence for it.
fn in_words(rules: &Rules, outcome: &Outcome, (settled, fault): (&Settled<'_>, Option<&Fault>)) -> v1::Verdict {
    let verdict = rules.verdict(outcome);
    let mut message = rules.in_words(&Verdict { reason: settled.reason, ..verdict }, outcome);
    message.confidence = settled.confidence;
    message.evidence.extend(fault.map(|fault| Evidence { fact: "fleet".into(), text: Some(fault.in_words()) }));
    message
}

fn completed_ms(outcome: &Outcome) -> i64 {
    let ms = |time: &Timestamp| time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000);
    outcome.completion_time.as_ref().map_or(0, ms)
}

/// Outcomes, line by line, each with its number. Those that are none are told and counted.
struct Lines {
    input: std::iter::Enumerate<std::io::Lines<Box<dyn BufRead>>>,
    reported: Json<ReportedOutcome>,
    outcome: Json<Outcome>,
    refused: u64,
}

impl Lines {
    fn new(input: Box<dyn BufRead>) -> anyhow::Result<Lines> {
        Ok(Lines { input: input.lines().enumerate(), reported: Json::named(REPORTED)?, outcome: Json::named(OUTCOME)?, refused: 0 })
    }

    fn read(&self, line: &str) -> anyhow::Result<ReportedOutcome> {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)?;
        if fields.contains_key("outcome") {
            return Ok(self.reported.read(line)?);
        }
        Ok(ReportedOutcome { outcome: Some(self.outcome.read(line)?), ..ReportedOutcome::default() })
    }
}

impl Iterator for Lines {
    type Item = anyhow::Result<(u64, ReportedOutcome)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (place, line) = self.input.next()?;
            let number = u64::try_from(place).unwrap_or(u64::MAX).saturating_add(1);
            let line = match line {
                Ok(line) => line,
                Err(error) => return Some(Err(anyhow::Error::from(error).context(format!("cannot read line {number}")))),
            };
            if line.trim().is_empty() {
                continue;
            }
            match self.read(&line) {
                Ok(reported) => return Some(Ok((number, reported))),
                Err(error) => {
                    self.refused += 1;
                    // Whoever reads the answers wants to read nothing else there.
                    let _ = writeln!(std::io::stderr(), "line {number} is no outcome: {error:#}");
                }
            }
        }
    }
}

/// Answers, line by line.
struct Answers {
    output: std::io::BufWriter<std::io::StdoutLock<'static>>,
    json: Json<ClassifiedOutcome>,
}

impl Answers {
    fn new() -> anyhow::Result<Answers> {
        Ok(Answers { output: std::io::BufWriter::new(std::io::stdout().lock()), json: Json::named(CLASSIFIED)? })
    }

    fn write(&mut self, answer: &ClassifiedOutcome) -> anyhow::Result<()> {
        let line = self.json.line(answer)?;
        writeln!(self.output, "{line}").context("cannot write to standard output")
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.output.flush().context("cannot write to standard output")
    }
}
