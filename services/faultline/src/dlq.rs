//! `faultline dlq`: dead letters looked at, replayed and dropped. Everything that is known of them is in Kafka.

mod text;

use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use faultline_stream::{Cluster, DeadLetter, DeadLetterId, DeadLetterQueue, KafkaConfig, Settled, Settlement, Topic, Unfit};

use crate::answer;
use crate::consent::Consent;
use crate::dlq::text::Shown;

/// What is to be done.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters that were neither replayed nor dropped, newest last: a table on a terminal, else one JSON object a line.
    List(List),
    /// Show one with all that is known of it and its record, decoded as far as possible. What looked like card numbers was overwritten when it was kept.
    Show {
        /// The dead letter, as `list` calls it (3-77-1790000000); partition and offset (3-77) are enough where only one has them
        id: String,
        /// As a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Bring records back into the outcomes topic, once what they were rejected for is mended. Each event is counted once, however often this is done.
    Replay {
        #[command(flatten)]
        choice: Choice,
        /// Also those in which something was overwritten, as they are now
        #[arg(long)]
        redacted: bool,
    },
    /// Settle dead letters of which nothing is to come: they are not listed any more. Kafka keeps them as long as it would have.
    Drop {
        #[command(flatten)]
        choice: Choice,
    },
}

/// What is listed, and how.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    filter: Filter,
    /// Also those that were replayed or dropped
    #[arg(long)]
    settled: bool,
    /// The last so many alone
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// One JSON object a line, also on a terminal
    #[arg(long)]
    json: bool,
}

/// Which dead letters are meant.
#[derive(Debug, Default, Args)]
struct Filter {
    /// Of this tenant alone
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Of this terminal alone
    #[arg(long, value_name = "ID")]
    terminal: Option<String>,
    /// Rejected at this stage alone
    #[arg(long, value_name = "STAGE", value_parser = ["record", "batch", "event"])]
    stage: Option<String>,
    /// Kept within this time alone, such as 90m or 3days
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
}

/// With which dead letters something is done.
#[derive(Debug, Args)]
struct Choice {
    /// Dead letters, as `list` calls them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All that `list` lists, with the same filters
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    consent: Consent,
}

/// Does what is asked for.
pub(crate) async fn run(config: &KafkaConfig, options: Options) -> anyhow::Result<()> {
    let queue = DeadLetterQueue::new(config)?;
    // It says best why Kafka is not there.
    Cluster::new(config)?.reach().await?;
    let letters = queue.list().await?;
    match options.command {
        Command::List(options) => list(&letters, &options),
        Command::Show { id, json } => show(&queue, find(&letters, &id)?, json).await,
        Command::Replay { choice, redacted } => {
            let chosen = choice.of(&letters)?;
            let (fit, unfit) = sorted_out(chosen, redacted);
            if let (false, Some((letter, why))) = (choice.all, unfit.first()) {
                bail!("{} is not replayed: {why}", letter.id);
            }
            replay(&queue, (&fit, &unfit), &choice, &config.topic(Topic::Outcomes)).await
        }
        Command::Drop { choice } => drop_letters(&queue, &choice.of(&letters)?, &choice).await,
    }
}

impl Filter {
    fn lets_pass(&self, letter: &DeadLetter, now: SystemTime) -> bool {
        let is = |wanted: &Option<String>, value: Option<&String>| wanted.is_none() || wanted.as_ref() == value;
        let since_ms = self.since.map(|since| now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(since).as_millis());
        is(&self.tenant, letter.tenant.as_ref())
            && is(&self.terminal, letter.terminal.as_ref())
            && is(&self.stage, Some(&letter.stage))
            && since_ms.is_none_or(|since| letter.kept_ms.is_some_and(|kept| i128::from(kept) >= since.cast_signed()))
    }

    fn is_empty(&self) -> bool {
        self.tenant.is_none() && self.terminal.is_none() && self.stage.is_none() && self.since.is_none()
    }
}

impl Choice {
    /// The dead letters that are chosen, each once.
    fn of<'a>(&self, letters: &'a [DeadLetter]) -> anyhow::Result<Vec<&'a DeadLetter>> {
        if self.all {
            let now = SystemTime::now();
            return Ok(letters.iter().filter(|letter| letter.settled.is_none() && self.filter.lets_pass(letter, now)).collect());
        }
        if !self.filter.is_empty() {
            bail!("--tenant, --terminal, --stage and --since choose among all: they go with --all, not with the names of dead letters");
        }
        let mut chosen: Vec<&DeadLetter> = Vec::new();
        for id in &self.ids {
            let letter = find(letters, id)?;
            if chosen.iter().all(|other| other.id != letter.id) {
                chosen.push(letter);
            }
        }
        Ok(chosen)
    }
}

/// The one dead letter that is called so.
fn find<'a>(letters: &'a [DeadLetter], id: &str) -> anyhow::Result<&'a DeadLetter> {
    let found: Vec<&DeadLetter> = letters.iter().filter(|letter| letter.id.is_meant_by(id)).collect();
    match found.as_slice() {
        [letter] => Ok(letter),
        [] => bail!("there is no dead letter `{id}`; `faultline dlq list --settled` lists all that Kafka still has"),
        several => {
            let names: Vec<String> = several.iter().map(|letter| letter.id.to_string()).collect();
            bail!("`{id}` may be any of {}: the topic was made again in between", names.join(", "))
        }
    }
}

fn list(letters: &[DeadLetter], options: &List) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let is_meant = |letter: &&DeadLetter| options.filter.lets_pass(letter, now);
    let wanted: Vec<&DeadLetter> = letters.iter().filter(is_meant).filter(|letter| options.settled || letter.settled.is_none()).collect();
    let begin = options.limit.map_or(0, |limit| wanted.len().saturating_sub(limit));
    let shown = wanted.get(begin..).unwrap_or_default();
    let mut summary = text::summary(&letters.iter().filter(is_meant).collect::<Vec<_>>());
    if begin > 0 {
        summary.push_str(&format!(" The last {} of {} are listed.", shown.len(), wanted.len()));
    }
    if !options.json && std::io::stdout().is_terminal() {
        return answer(&format!("{}{summary}\n", text::table(shown)));
    }
    let mut lines = String::new();
    for letter in shown {
        lines.push_str(&serde_json::to_string(letter)?);
        lines.push('\n');
    }
    answer(&lines)?;
    // What reads lines gets lines alone.
    writeln!(std::io::stderr(), "{summary}").context("cannot write to standard error")
}

async fn show(queue: &DeadLetterQueue, letter: &DeadLetter, json: bool) -> anyhow::Result<()> {
    let Some((_, record)) = queue.records(HashSet::from([letter.id])).next().await? else { bail!("{}", gone(letter.id)) };
    let shown = Shown::new(letter, &record)?;
    if json {
        return answer(&format!("{}\n", serde_json::to_string(&shown)?));
    }
    answer(&shown.to_string())
}

/// Those that can be replayed, and those that cannot, with why.
fn sorted_out(chosen: Vec<&DeadLetter>, even_redacted: bool) -> (Vec<&DeadLetter>, Vec<(&DeadLetter, Unfit)>) {
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for letter in chosen {
        match letter.check_fit(even_redacted) {
            Ok(()) => fit.push(letter),
            Err(why) => unfit.push((letter, why)),
        }
    }
    (fit, unfit)
}

async fn replay(
    queue: &DeadLetterQueue,
    (fit, unfit): (&[&DeadLetter], &[(&DeadLetter, Unfit)]),
    choice: &Choice,
    topic: &str,
) -> anyhow::Result<()> {
    for (letter, why) in unfit {
        answer(&format!("{} is left: {why}\n", text::named(letter)))?;
    }
    if choice.consent.dry_run {
        for letter in fit {
            answer(&format!("{} would be replayed{}\n", text::named(letter), before(letter)))?;
        }
        return answer(&format!("{} would be replayed into {topic}.\n", text::dead_letters(fit.len())));
    }
    if fit.is_empty() {
        return answer("Nothing to replay.\n");
    }
    if !choice.consent.is_given(&format!("Replay {} into {topic}?", text::dead_letters(fit.len()))).await? {
        return answer("Nothing was replayed.\n");
    }
    let mut left: HashMap<DeadLetterId, &DeadLetter> = fit.iter().map(|letter| (letter.id, *letter)).collect();
    let mut originals = queue.records(left.keys().copied().collect());
    while let Some((id, record)) = originals.next().await? {
        let Some(letter) = left.remove(&id) else { continue };
        let (partition, offset) = queue.replay(letter, &record).await.with_context(|| {
            format!("{id} may not be replayed, and {} after it are not; whatever is counted already will not be counted again", left.len())
        })?;
        answer(&format!("{} is replayed as {partition}-{offset}{}\n", text::named(letter), before(letter)))?;
    }
    if let Some(id) = left.keys().min() {
        bail!("{}", gone(*id));
    }
    answer(&format!(
        "{} replayed into {topic}. Classifiers read them next; what they reject again is a dead letter again, and says of which it is a replay.\n",
        text::dead_letters(fit.len())
    ))
}

async fn drop_letters(queue: &DeadLetterQueue, chosen: &[&DeadLetter], choice: &Choice) -> anyhow::Result<()> {
    let (settled, open): (Vec<&DeadLetter>, Vec<&DeadLetter>) = chosen.iter().copied().partition(|letter| letter.settled.is_some());
    for letter in settled {
        answer(&format!("{} is left{}\n", text::named(letter), before(letter)))?;
    }
    if choice.consent.dry_run {
        for letter in &open {
            answer(&format!("{} would be dropped\n", text::named(letter)))?;
        }
        return answer(&format!("{} would be dropped.\n", text::dead_letters(open.len())));
    }
    if open.is_empty() {
        return answer("Nothing to drop.\n");
    }
    if !choice.consent.is_given(&format!("Drop {}? What they report will be counted nowhere.", text::dead_letters(open.len()))).await? {
        return answer("Nothing was dropped.\n");
    }
    for (done, letter) in open.iter().enumerate() {
        queue.drop_letter(letter.id).await.with_context(|| format!("{} may not be dropped; {done} before it are", letter.id))?;
        answer(&format!("{} is dropped\n", text::named(letter)))?;
    }
    answer(&format!("{} dropped.\n", text::dead_letters(open.len())))
}

/// What was done with it before, for the end of a line.
fn before(letter: &DeadLetter) -> String {
    let Some(Settled { how, at_ms, replayed_as }) = &letter.settled else { return String::new() };
    let place = replayed_as.as_ref().map(|place| format!(" as {place}")).unwrap_or_default();
    let note = if *how == Settlement::Replayed { "; what is counted already is not counted again" } else { "" };
    format!(" (it was {}{place} before, {}{note})", how.name(), text::time(*at_ms))
}

fn gone(id: DeadLetterId) -> String {
    format!("the record of {id} is gone: Kafka has just deleted it, since it is older than the topic keeps records")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn letter(offset: i64, append_s: i64) -> DeadLetter {
        DeadLetter {
            id: DeadLetterId { partition: 3, offset, append_s },
            stage: "batch".into(),
            reason: "`spool_id` is 0".into(),
            topic: "faultline.outcomes".into(),
            partition: 3,
            offset,
            append_ms: Some(append_s * 1000),
            kept_ms: Some(append_s * 1000),
            rule_set: None,
            program: None,
            tenant: Some("acme".into()),
            terminal: Some("T-1".into()),
            bytes: 5,
            is_redacted: false,
            is_cut: false,
            replay_of: None,
            settled: None,
        }
    }

    fn chosen(line: &[&str], letters: &[DeadLetter]) -> Result<Vec<i64>, String> {
        let line = Line::try_parse_from([&["dlq", "drop"], line].concat()).map_err(|error| error.to_string())?;
        let Command::Drop { choice } = line.options.command else { panic!("{line:?}") };
        let chosen = choice.of(letters).map_err(|error| error.to_string())?;
        Ok(chosen.into_iter().map(|letter| letter.offset).collect())
    }

    #[test]
    fn dead_letters_are_chosen_by_name_or_all_of_a_kind() {
        let settled = Settled { how: Settlement::Dropped, at_ms: None, replayed_as: None };
        let letters = [
            letter(1, 1000),
            DeadLetter { stage: "event".into(), ..letter(2, 1000) },
            DeadLetter { settled: Some(settled), ..letter(3, 1000) },
            letter(4, 1000),
            letter(4, 2000),
        ];
        assert_eq!(chosen(&["3-2", "3-1-1000", "3-1"], &letters), Ok(vec![2, 1]));
        // What was settled can be chosen, since a decision can be a wrong one; all are those that are open.
        assert_eq!(chosen(&["3-3"], &letters), Ok(vec![3]));
        assert_eq!(chosen(&["--all"], &letters), Ok(vec![1, 2, 4, 4]));
        assert_eq!(chosen(&["--all", "--stage", "event"], &letters), Ok(vec![2]));
        assert_eq!(chosen(&["--all", "--tenant", "acme", "--terminal", "T-2"], &letters), Ok(vec![]));
        assert_eq!(chosen(&["--all", "--since", "1h"], &letters), Ok(vec![]));
        for (line, said) in [
            (&["3-9"][..], "no dead letter `3-9`"),
            (&["3-4"], "any of 3-4-1000, 3-4-2000"),
            (&["3-1", "--stage", "batch"], "they go with --all"),
            (&[], "<ID>"),
            (&["3-1", "--all"], "cannot be used with"),
            (&["--all", "--stage", "words"], "possible values: record, batch, event"),
        ] {
            let error = chosen(line, &letters).unwrap_err();
            assert!(error.contains(said), "{line:?}: {error}");
        }
    }

    #[test]
    fn what_was_done_before_is_said() {
        let settled = |how, replayed_as| Some(Settled { how, at_ms: Some(1_790_000_000_000), replayed_as });
        assert_eq!(before(&letter(1, 0)), "");
        let dropped = DeadLetter { settled: settled(Settlement::Dropped, None), ..letter(1, 0) };
        assert_eq!(before(&dropped), " (it was dropped before, 2026-09-21T14:13:20Z)");
        let replayed = DeadLetter { settled: settled(Settlement::Replayed, Some("3-9".into())), ..letter(1, 0) };
        assert!(before(&replayed).starts_with(" (it was replayed as 3-9 before, 2026-09-21T14:13:20Z; what is counted"));
    }
}
