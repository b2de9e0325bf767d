//! The attempts of a large fleet, as ClickHouse draws them: the same every time, twenty in each millisecond since 1970. An attempt's number says when it was,
//! and everything else of it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use faultline_store::{families, values};
use faultline_verdict::Rules;
use tokio::time::sleep;

use crate::fleet::RATE;
use crate::local::TENANT;
use crate::replay::key;
use crate::store::Store;

/// Attempts in a millisecond.
const OF_MS: u64 = 20;
const _: () = assert!(RATE == 20_000, "twenty in a millisecond");
/// Attempts in ten seconds, and in an hour.
const OF_BUCKET: u64 = OF_MS * 10_000;
const OF_HOUR: u64 = OF_MS * 3_600_000;
const HOUR_S: u64 = 3600;
/// How the fleet is made up. Of chains and banks the first are much larger than the last, of regions somewhat.
const TERMINALS: u64 = 400_000;
const CHAINS: u64 = 5_500;
const ISSUERS: u64 = 400;
const REGIONS: u64 = 340;
const CARRIERS: u64 = 5;
const HOSTS: u64 = 40;
const MODELS: u64 = 20;
const FIRMWARES: u64 = 5;
/// Attempts by which it is found how large slices are.
const SAMPLE: u64 = 12_000_000;
/// Attempts that are stored at once while there is a past to store; and into how many pieces a second of the present is cut: as many as there are partitions
/// where `faultline up` makes the topic of outcomes, each of which is a batch of the classifier's.
const AT_ONCE: u64 = 1_000_000;
const PIECES: u64 = 8;
/// How attempts end that are not approved: reason, stage, and how many of a thousand.
const ENDINGS: [(&str, &str, u64); 11] = [
    ("insufficient_funds", "host_decision", 60),
    ("wrong_pin", "host_decision", 20),
    ("issuer_refused", "host_decision", 10),
    (BANK_FAULT, "host_decision", 4),
    ("issuer_no_reply", "host_decision", 4),
    ("no_answer", "wait", 4),
    (REACH_FAULT, "connect", 6),
    ("no_network", "connect", 6),
    ("card_not_read", "card_read", 10),
    ("invalid_transaction", "host_decision", 2),
    ("pin_not_entered", "pin_entry", 4),
];
/// What fails while there is a fault: of the largest bank, of a carrier in a region; and how many of a thousand attempts there.
const BANK_FAULT: &str = "issuer_down";
const REACH_FAULT: &str = "host_not_reached";
const FAULTS: [(&str, &str, u64); 2] = [(BANK_FAULT, "issuer = 'i0'", 600), (REACH_FAULT, "carrier = 'c2' AND region = 'r7'", 500)];
/// What the two are called.
pub(super) const FAULTY: [&str; 2] = ["issuer=i0", "carrier=c2&region=r7"];

/// The fleet, and from which attempt on something fails.
pub(super) struct Fleet {
    /// What `outcomes` holds of an ending, as lists in SQL, the approved first: tags, causes, reasons, confidences.
    endings: [String; 4],
    rule_set: String,
    fault_from: AtomicU64,
}

/// The number of the first attempt of a moment.
pub(super) fn number_at(time: SystemTime) -> anyhow::Result<u64> {
    Ok(u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH)?.as_millis())? * OF_MS)
}

fn draw(of: &str, what: u32) -> String {
    format!("intHash64({of} * 64 + {what})")
}

/// A number below `below`: the greater, the rarer, the more so the greater the power.
fn skewed(of: &str, what: u32, (below, power): (u64, u32)) -> String {
    format!("toUInt32(floor({below} * pow(({} % 1000003) / 1000003, {power})))", draw(of, what))
}

impl Fleet {
    pub(super) fn new() -> anyhow::Result<Fleet> {
        let rules = Rules::built_in()?;
        let set = rules.sets().find(|set| set.is_home()).context("no rules are the home set")?;
        let mut endings = vec![["approved/host_decision".into(), "approved".into(), "approved".into(), "100".into()]];
        for (id, stage, _) in ENDINGS {
            let reason = rules.reason(set.version(), id).with_context(|| format!("no reason is called {id}"))?;
            let cause = format!("{:?}", reason.cause).to_lowercase();
            endings.push([format!("{}/{stage}", reason.class), cause, id.into(), reason.confidence.to_string()]);
        }
        let list = |place: usize| {
            let texts: Vec<String> = endings.iter().filter_map(|ending| ending.get(place)).map(|text| format!("'{text}'")).collect();
            format!("[{}]", texts.join(", "))
        };
        let endings = [list(0), list(1), list(2), list(3)];
        Ok(Fleet { endings, rule_set: set.version().into(), fault_from: AtomicU64::new(u64::MAX) })
    }

    /// Lets the two faults begin with the attempt of this number.
    pub(super) fn fail_from(&self, number: u64) {
        self.fault_from.store(number, Ordering::Relaxed);
    }

    /// A question for attempts.
    fn attempts(&self, numbers: &Range<u64>) -> String {
        let number_of = |wanted: &str| ENDINGS.iter().zip(2..).find(|((id, ..), _)| *id == wanted).map_or(1, |(_, number)| number);
        let from = self.fault_from.load(Ordering::Relaxed);
        let mut choice = Vec::new();
        for (id, of, share) in FAULTS {
            choice.push(format!("number >= {from} AND {of} AND {} % 1000 < {share}, {}", draw("number", 1), number_of(id)));
        }
        let mut below = 0;
        for (id, _, share) in ENDINGS {
            below += share;
            choice.push(format!("{} % 1000 < {below}, {}", draw("number", 2), number_of(id)));
        }
        let [tags, causes, reasons, confidences] = &self.endings;
        format!(
            "SELECT number, fromUnixTimestamp64Milli(toInt64(intDiv(number, {OF_MS})), 'UTC') AS at, toUInt32({terminal} % {TERMINALS}) AS t, \
             concat('c', toString({carrier} % {CARRIERS})) AS carrier, concat('r', toString({region})) AS region, \
             concat('m', toString({model} % {MODELS})) AS model, concat('f', toString({firmware} % {FIRMWARES})) AS firmware, \
             concat('chain-', toString({chain})) AS merchant_group, concat('i', toString({issuer})) AS issuer, \
             toUInt16(1 + {entry} % 5) AS entry_mode, \
             ['chip', 'contactless', 'magnetic_stripe', 'qr', 'keyed'][entry_mode] AS entry, 'a' AS acquirer, concat('h', toString({host} % {HOSTS})) AS host, \
             100 + number % 10000 AS amount_minor, multiIf({choice}, 1) AS ending, \
             {tags}[ending] AS tag, {causes}[ending] AS cause, {reasons}[ending] AS reason, {confidences}[ending] AS confidence \
             FROM numbers({first}, {count})",
            terminal = draw("number", 3),
            carrier = draw("t", 4),
            region = skewed("t", 5, (REGIONS, 2)),
            model = draw("t", 6),
            firmware = draw("t", 7),
            chain = skewed("t", 8, (CHAINS, 2)),
            issuer = skewed("number", 9, (ISSUERS, 3)),
            entry = draw("number", 10),
            host = draw("number", 11),
            choice = choice.join(", "),
            first = numbers.start,
            count = numbers.end - numbers.start,
        )
    }

    /// Stores attempts and their counts, these as the classifier does: they are sums already.
    async fn store(&self, store: &Store, numbers: &Range<u64>) -> anyhow::Result<()> {
        let attempts = self.attempts(numbers);
        let rows = format!(
            "INSERT INTO outcomes (tenant, terminal, spool, sequence, completed_at, received_at, clock, merchant, store, merchant_group, model, firmware, \
             application, region, carrier, type, entry_mode, amount_minor, currency, bin, issuer, card_token, card_token_key, acquirer, host, attempt, \
             first_attempt_sequence, stage, result, tag, cause, reason, confidence, rule_set, sign, revision, kafka_log, kafka_partition, kafka_offset) \
             SELECT '{TENANT}', concat('T', toString(t)), 1, number, at, at, 'age', concat('M', toString(intDiv(t, 4))), concat('S', toString(intDiv(t, 2))), \
             merchant_group, model, firmware, 'pay 1', region, carrier, 1, entry_mode, amount_minor, 'CNY', '620000', issuer, {card} % 1048576, 1, acquirer, \
             host, 1, number, if(ending = 1, 10, 9), ending = 1, tag, cause, reason, toUInt8(confidence), '{set}', 1, 0, 'bench', number % {PIECES}, number \
             FROM ({attempts})",
            card = draw("number", 12),
            set = self.rule_set,
        );
        store.query(&rows).await?;
        let counts = format!(
            "INSERT INTO rollup (tenant, family, key, bucket, tag, cause, currency, count, amount_minor) SETTINGS optimize_on_insert = 0 \
             SELECT '{TENANT}', slice.1 AS family, slice.2 AS key, toStartOfInterval(at, INTERVAL 10 SECOND) AS bucket, tag, cause, 'CNY', count(), \
             sum(amount_minor) FROM ({attempts}) ARRAY JOIN {} AS slice GROUP BY family, key, bucket, tag, cause",
            slices()?
        );
        store.query(&counts).await?;
        Ok(())
    }

    /// Stores what came before the attempt of this number: an hour in buckets, and before that four weeks in hours, of which those that are near this hour of
    /// the day are enough. Slices are as large as in a sample, and fail as often as the fleet.
    pub(super) async fn store_past(&self, store: &Store, until: u64) -> anyhow::Result<()> {
        let [tags, causes, ..] = &self.endings;
        let shares: Vec<u64> = ENDINGS.iter().map(|(.., share)| *share).collect();
        let approved = 1000 - shares.iter().sum::<u64>();
        let sample = self.attempts(&(until - SAMPLE..until));
        store.query("CREATE TABLE shares (family String, key String, share Float64) ENGINE = Memory").await?;
        let measured = format!(
            "INSERT INTO shares SELECT slice.1 AS family, slice.2 AS key, count() / {SAMPLE} AS share FROM ({sample}) ARRAY JOIN {} AS slice GROUP BY family, key",
            slices()?
        );
        store.query(&measured).await?;
        // What is expected, as a whole number that is expected too.
        let insert = |simulated: u8, attempts: u64, buckets: &str| {
            format!(
                "INSERT INTO rollup (tenant, family, key, bucket, tag, cause, currency, count, amount_minor, simulated) \
                 WITH arrayZip({tags}, {causes}, arrayConcat([{approved}], {shares:?})) AS endings \
                 SELECT '{TENANT}', family, key, bucket, ending.1, ending.2, 'CNY', \
                 toInt64(floor(share * {attempts} * ending.3 / 1000 + rand() / 4294967296)) AS some, 5000 * some, {simulated} \
                 FROM shares CROSS JOIN ({buckets}) AS buckets ARRAY JOIN endings AS ending WHERE some > 0"
            )
        };
        let until_s = until / OF_MS / 1000 / 10 * 10;
        let hour = until_s - until_s % HOUR_S;
        let hours = |day: u64| {
            format!(
                "SELECT fromUnixTimestamp(toUInt32({} + number * {HOUR_S})) AS bucket FROM numbers(4) WHERE bucket < fromUnixTimestamp({})",
                hour - day * 24 * HOUR_S - HOUR_S,
                until_s - HOUR_S
            )
        };
        for day in 0..=28 {
            store.query(&insert(1, OF_HOUR, &hours(day))).await?;
        }
        let buckets = format!("SELECT fromUnixTimestamp(toUInt32({} + number * 10)) AS bucket FROM numbers(360)", until_s - HOUR_S);
        store.query(&insert(0, OF_BUCKET, &buckets)).await?;
        store.query("DROP TABLE shares").await?;
        Ok(())
    }

    /// Stores attempts from this number on: first those of the past, then each second's when it begins, in pieces. Says how far it is, by number; never ends
    /// by itself.
    pub(super) async fn feed(&self, store: &Store, from: u64, reached: &AtomicU64) -> anyhow::Result<()> {
        let mut next = from;
        let second = OF_MS * 1000;
        loop {
            // A second that has begun is one that will be over.
            let until = number_at(SystemTime::now())? + second;
            let until = until - until % second;
            if until > next + AT_ONCE {
                self.store(store, &(next..next + AT_ONCE)).await?;
                next += AT_ONCE;
            } else if until > next {
                let piece = second.div_ceil(PIECES);
                while next < until {
                    let end = until.min(next + piece);
                    self.store(store, &(next..end)).await?;
                    next = end;
                }
            } else {
                sleep(Duration::from_millis(20)).await;
            }
            reached.store(next, Ordering::Relaxed);
        }
    }
}

/// The slices that an attempt is in, as a list of families and keys in SQL.
fn slices() -> anyhow::Result<String> {
    let mut slices = Vec::new();
    for family in families() {
        let columns: Vec<&str> = values(family, "|").context("a family has no columns")?.into_iter().map(|(column, _)| column).collect();
        slices.push(format!("('{family}', {})", key(&columns)));
    }
    Ok(format!("[{}]", slices.join(", ")))
}
