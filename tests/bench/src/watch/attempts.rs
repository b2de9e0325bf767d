//! The attempts of a large fleet: the same every time, twenty in each millisecond since 1970. An attempt's number says when it was, and everything else of it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use faultline_deploy::LocalConfig;
use faultline_store::{BatchId, Database, OutcomeRow};
use faultline_verdict::{Cause, Rules};
use tokio::time::{Instant, sleep};

use crate::fleet::RATE;
use crate::local::TENANT;
use crate::store::Store;

/// Attempts in a millisecond.
const OF_MS: u64 = 20;
const _: () = assert!(RATE == 20_000, "twenty in a millisecond");
/// Attempts in a second, in ten, and in an hour.
const OF_SECOND: u64 = OF_MS * 1000;
const OF_BUCKET: u64 = OF_SECOND * 10;
const OF_HOUR: u64 = OF_SECOND * HOUR_S;
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
/// Terminals of a shop, and shops of a merchant.
const OF_SHOP: u64 = 2;
const OF_MERCHANT: u64 = 2;
/// Attempts that are stored at once while there is a past to store, as by a classifier that catches up.
const AT_ONCE: u64 = 50_000;
/// How many batches are stored at the same time: as many as by a classifier (`classifier.concurrent_batches`).
const CONCURRENT: usize = 4;
/// By how many attempts it is known how large a slice is.
const SHARES_OF: u64 = 2_000_000;
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
const BANK: u64 = 0;
const OF_BANK: u64 = 600;
const REACH_FAULT: &str = "host_not_reached";
const REACH: (u64, u64) = (2, 7);
const OF_REACH: u64 = 500;
/// What the two are called.
pub(super) const FAULTY: [&str; 2] = ["issuer=i0", "carrier=c2&region=r7"];

/// The fleet, and from which attempt on something fails.
pub(super) struct Fleet {
    /// The approved first.
    endings: Vec<Ending>,
    rule_set: String,
    terminals: Names,
    shops: Names,
    merchants: Names,
    carriers: Names,
    regions: Names,
    models: Names,
    firmwares: Names,
    chains: Names,
    issuers: Names,
    hosts: Names,
    fault_from: AtomicU64,
}

/// How an attempt ends, and how many of a thousand do.
struct Ending {
    tag: String,
    cause: Cause,
    reason: String,
    confidence: u8,
    share: u64,
}

/// What things of a kind are called, by number.
struct Names(Vec<String>);

impl Names {
    fn new(prefix: &str, count: u64) -> Names {
        Names((0..count).map(|number| format!("{prefix}{number}")).collect())
    }

    fn of(&self, number: u64) -> &str {
        usize::try_from(number).ok().and_then(|number| self.0.get(number)).map_or("", String::as_str)
    }
}

/// The number of the first attempt of a moment.
pub(super) fn number_at(time: SystemTime) -> anyhow::Result<u64> {
    Ok(u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH)?.as_millis())? * OF_MS)
}

/// One of some draws of something: the finalizer of SplitMix64.
fn draw(of: u64, what: u64) -> u64 {
    let mixed = of.wrapping_mul(64).wrapping_add(what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A number below `below`: the greater, the rarer, the more so the greater the power.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number below some thousand")]
fn skewed(of: u64, what: u64, (below, power): (u64, i32)) -> u64 {
    const PARTS: u64 = 1 << 32;
    (below as f64 * ((draw(of, what) % PARTS) as f64 / PARTS as f64).powi(power)) as u64
}

impl Fleet {
    pub(super) fn new() -> anyhow::Result<Fleet> {
        let rules = Rules::built_in()?;
        let set = rules.sets().find(|set| set.is_home()).context("no rules are the home set")?;
        let failed: u64 = ENDINGS.iter().map(|(.., share)| share).sum();
        let (tag, reason) = ("approved/host_decision".into(), "approved".into());
        let mut endings = vec![Ending { tag, cause: Cause::Approved, reason, confidence: 100, share: 1000 - failed }];
        for (id, stage, share) in ENDINGS {
            let reason = rules.reason(set.version(), id).with_context(|| format!("no reason is called {id}"))?;
            let (tag, confidence) = (format!("{}/{stage}", reason.class), reason.confidence);
            endings.push(Ending { tag, cause: reason.cause, reason: id.into(), confidence, share });
        }
        Ok(Fleet {
            endings,
            rule_set: set.version().into(),
            terminals: Names::new("T", TERMINALS),
            shops: Names::new("S", TERMINALS / OF_SHOP),
            merchants: Names::new("M", TERMINALS / OF_SHOP / OF_MERCHANT),
            carriers: Names::new("c", CARRIERS),
            regions: Names::new("r", REGIONS),
            models: Names::new("m", MODELS),
            firmwares: Names::new("f", FIRMWARES),
            chains: Names::new("chain-", CHAINS),
            issuers: Names::new("i", ISSUERS),
            hosts: Names::new("h", HOSTS),
            fault_from: AtomicU64::new(u64::MAX),
        })
    }

    /// Lets the two faults begin with the attempt of this number.
    pub(super) fn fail_from(&self, number: u64) {
        self.fault_from.store(number, Ordering::Relaxed);
    }

    /// How an attempt ends, of these.
    fn ending(&self, number: u64, (issuer, reach): (u64, (u64, u64))) -> Option<&Ending> {
        let of_reason = |reason: &str| self.endings.iter().find(|ending| ending.reason == reason);
        if number >= self.fault_from.load(Ordering::Relaxed) {
            let place = draw(number, 1) % 1000;
            if issuer == BANK && place < OF_BANK {
                return of_reason(BANK_FAULT);
            }
            if reach == REACH && place < OF_REACH {
                return of_reason(REACH_FAULT);
            }
        }
        let mut place = draw(number, 2) % 1000;
        self.endings.iter().find(|ending| {
            let is_it = place < ending.share;
            place = place.saturating_sub(ending.share);
            is_it
        })
    }

    fn row(&self, number: u64, id: &BatchId<'static>) -> anyhow::Result<OutcomeRow<'_>> {
        let terminal = draw(number, 3) % TERMINALS;
        let (carrier, region) = (draw(terminal, 4) % CARRIERS, skewed(terminal, 5, (REGIONS, 2)));
        let issuer = skewed(number, 9, (ISSUERS, 3));
        let ending = self.ending(number, (issuer, (carrier, region))).context("an attempt has no ending")?;
        let at = i64::try_from(number / OF_MS)?;
        Ok(OutcomeRow {
            tenant: TENANT,
            terminal: self.terminals.of(terminal),
            spool: 1,
            sequence: number,
            completed_at: at,
            received_at: at,
            clock: 1,
            merchant: self.merchants.of(terminal / OF_SHOP / OF_MERCHANT),
            store: self.shops.of(terminal / OF_SHOP),
            merchant_group: self.chains.of(skewed(terminal, 8, (CHAINS, 2))),
            model: self.models.of(draw(terminal, 6) % MODELS),
            firmware: self.firmwares.of(draw(terminal, 7) % FIRMWARES),
            application: "pay 1",
            region: self.regions.of(region),
            carrier: self.carriers.of(carrier),
            r#type: 1,
            entry_mode: u16::try_from(1 + draw(number, 10) % 5)?,
            amount_minor: 100 + i64::try_from(number % 10_000)?,
            currency: "CNY",
            bin: "620000",
            issuer: self.issuers.of(issuer),
            card_token: u32::try_from(draw(number, 12) % (1 << 20))?,
            card_token_key: 1,
            acquirer: "a",
            host: self.hosts.of(draw(number, 11) % HOSTS),
            attempt: 1,
            first_attempt_sequence: number,
            tag: &ending.tag,
            cause: i8::try_from(i32::from(ending.cause))?,
            reason: &ending.reason,
            confidence: ending.confidence,
            rule_set: &self.rule_set,
            sign: 1,
            kafka_log: id.log,
            kafka_partition: id.partition,
            kafka_offset: number,
            batch_first_offset: id.first,
            batch_last_offset: id.last,
            ..OutcomeRow::default()
        })
    }

    /// Stores attempts and their counts, as the classifier does.
    async fn store(&self, database: &Database, numbers: Range<u64>, partition: u16) -> anyhow::Result<()> {
        let since = Instant::now();
        let since_ms = i64::try_from(numbers.start / OF_MS)?;
        let id = BatchId { log: "bench", partition, first: numbers.start, last: numbers.end - 1, since_ms };
        let rows: Vec<OutcomeRow<'_>> = numbers.map(|number| self.row(number, &id)).collect::<anyhow::Result<_>>()?;
        Ok(database.deliver(&id, &rows, since).await?)
    }

    /// Stores attempts from this number on: first those of the past, then each second's when it begins, in pieces. Says how far it is, by number; never ends
    /// by itself.
    pub(super) async fn feed(&self, database: &Database, from: u64, reached: &AtomicU64) -> anyhow::Result<()> {
        // Each partition is a batch, of as many as there are where `faultline up` makes the topic of outcomes.
        let pieces = u16::try_from(LocalConfig::default().kafka_partitions)?;
        let mut next = from;
        loop {
            // A second that has begun is one that will be over.
            let until = number_at(SystemTime::now())? + OF_SECOND;
            let until = until - until % OF_SECOND;
            if until > next + AT_ONCE {
                self.store(database, next..next + AT_ONCE, 0).await?;
                next += AT_ONCE;
            } else if until > next {
                let piece = (until - next).div_ceil(pieces.into());
                let stored = async |first: u16| {
                    for partition in (first..pieces).step_by(CONCURRENT) {
                        let from = next + u64::from(partition) * piece;
                        self.store(database, from..until.min(from + piece), partition).await?;
                    }
                    anyhow::Ok(())
                };
                tokio::try_join!(stored(0), stored(1), stored(2), stored(3))?;
                next = until;
            } else {
                sleep(Duration::from_millis(20)).await;
            }
            reached.store(next, Ordering::Relaxed);
        }
    }

    /// Stores counts of what came before the attempt of this number: an hour in buckets, and before that four weeks in hours, of which those that are near this hour of the day are enough.
    /// Slices are as large as they are among some attempts, which are not stored in the end, and fail as often as the fleet. All is merged, as it is where it came in weeks.
    pub(super) async fn store_past(&self, (store, database): (&Store, &Database), until: u64) -> anyhow::Result<()> {
        let list = |of: &dyn Fn(&Ending) -> String| self.endings.iter().map(of).collect::<Vec<_>>().join(", ");
        let tags = list(&|ending| format!("'{}'", ending.tag));
        let causes = list(&|ending| format!("'{}'", format!("{:?}", ending.cause).to_lowercase()));
        let shares = list(&|ending| ending.share.to_string());
        for ago in (1..=SHARES_OF / AT_ONCE).rev() {
            let from = until - ago * AT_ONCE;
            self.store(database, from..from + AT_ONCE, 0).await?;
        }
        store.query("CREATE TABLE shares (family String, key String, share Float64) ENGINE = Memory").await?;
        store
            .query(&format!(
                "INSERT INTO shares SELECT family, key, sum(count) / (SELECT sum(count) FROM rollup WHERE tenant = '{TENANT}' AND family = 'fleet') AS share \
                 FROM rollup WHERE tenant = '{TENANT}' GROUP BY family, key"
            ))
            .await?;
        // What is expected, as a whole number that is expected too.
        let insert = |simulated: u8, attempts: u64, buckets: &str| {
            format!(
                "INSERT INTO rollup (tenant, family, key, bucket, tag, cause, currency, count, amount_minor, simulated) SETTINGS optimize_on_insert = 0 \
                 WITH arrayZip([{tags}], [{causes}], [{shares}]) AS endings \
                 SELECT '{TENANT}', family, key, bucket, ending.1, ending.2, 'CNY', \
                 toInt64(floor(share * {attempts} * ending.3 / 1000 + rand() / 4294967296)) AS some, 5000 * some, {simulated} \
                 FROM shares CROSS JOIN ({buckets}) AS buckets ARRAY JOIN endings AS ending WHERE some > 0"
            )
        };
        for table in ["outcomes", "drilldown", "rollup"] {
            store.query(&format!("TRUNCATE TABLE {table}")).await?;
        }
        let until_s = until / OF_SECOND / 10 * 10;
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
        store.query("OPTIMIZE TABLE rollup FINAL").await?;
        Ok(())
    }
}
