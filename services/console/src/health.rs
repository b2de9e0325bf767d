//! How well terminals, shops' networks and merchants' staff do: put together from what the store has counted, judged by `faultline_verdict::health`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use faultline_store::{CountedMerchant, CountedShop, CountedTerminal, Database, MOST_COUNTED, SampledTerminal, StoreError};
use faultline_verdict::health::{self, Counted, Device, Fleet, NetworkQuality, PartScore, Score, Shown, Trend};
use faultline_verdict::{MerchantCause, Rules};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::Text;

/// Reasons that are less certain say nothing of an operator, in percent: a customer may have done it.
const CERTAIN: u8 = 75;

/// Terminals and how they stand.
#[derive(Debug, Serialize, ToSchema)]
pub struct TerminalsHealth {
    /// The worst comes first.
    pub terminals: Vec<TerminalHealth>,
    /// Whether all that reported were looked at: of more than 200,000 terminals, the rest is left out.
    pub complete: bool,
}

/// How a terminal stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct TerminalHealth {
    /// Which.
    pub terminal: String,
    /// Where it stood last.
    pub merchant: String,
    /// The same.
    pub store: String,
    /// Its model: it is compared with others of that.
    pub model: String,
    /// Its firmware.
    pub firmware: String,
    /// From 0 to 100; 100 where nothing is known against it.
    #[schema(minimum = 0.0, maximum = 100.0)]
    pub score: f64,
    /// Parts that something is known against, the worst first.
    pub parts: Vec<PartHealth>,
    /// Hours of which there are health samples.
    pub sampled_hours: u64,
    /// First attempts at sales and the like.
    pub attempts: u64,
    /// Mean strength of its signal, in dBm; nothing where it was not measured.
    pub signal_dbm: Option<f64>,
}

/// What is known against a part.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartHealth {
    /// Which: `reader`, `pin_pad`, `printer`, `battery`, `power`, `signal`, `connection`.
    pub part: &'static str,
    /// What it would take from the score by itself, from 0 to 1.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub loss: f64,
    /// Its share of what is missing from 100, from 0 to 1.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub share: f64,
    /// What shows it, the worst first.
    pub reasons: Vec<PartReason>,
}

/// What shows that a part is worn.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartReason {
    /// What: `failed_reads`.
    pub measure: &'static str,
    /// What that means.
    pub meaning: Text,
    /// What maintenance is to be done.
    pub advice: Text,
    /// How often it happened; of a trend, percent an hour more each day.
    pub counted: f64,
    /// Of how many, or in how many hours or days.
    pub of: f64,
    /// The least rate that it surely is.
    pub at_least: f64,
    /// The usual rate of others of the model.
    pub usual: f64,
    /// What it would take from the score by itself, from 0 to 1.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub loss: f64,
}

/// Shops and how their networks are.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShopsHealth {
    /// Those that are worse than others come first.
    pub shops: Vec<ShopHealth>,
    /// Whether all that reported were looked at: of more than 200,000 shops, the rest is left out.
    pub complete: bool,
}

/// How a shop's network is, by one carrier.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShopHealth {
    /// The merchant.
    pub merchant: String,
    /// Its shop; empty where outcomes do not say it.
    pub store: String,
    /// The carrier.
    pub carrier: String,
    /// The region.
    pub region: String,
    /// Whose it is that it is bad: `shop`, `carrier`, or `unsettled` where there are too few nearby to compare; `fine`; `too_few` where there were too few attempts to say.
    pub quality: &'static str,
    /// What is to be done.
    pub advice: Option<Text>,
    /// Attempts that needed the network.
    pub attempts: u64,
    /// Of these, those that failed because of it.
    pub failed: u64,
    /// The least share that surely fails.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub at_least: f64,
    /// Attempts of other shops of the carrier in the region, in the same hours.
    pub nearby_attempts: u64,
    /// Of these, those that failed because of the network.
    pub nearby_failed: u64,
    /// Failures that there would have been here at the rate of those.
    pub expected_nearby: f64,
    /// Failures that there would have been here at the rate of all others of the fleet.
    pub expected_elsewhere: f64,
    /// Milliseconds that connecting takes: the geometric mean; nothing where it was not measured.
    pub connect_ms: Option<f64>,
    /// The same of other shops of the carrier in the region.
    pub nearby_connect_ms: Option<f64>,
    /// The same of all others of the fleet.
    pub elsewhere_connect_ms: Option<f64>,
    /// Mean strength of the signal during attempts, in dBm; nothing where it was not measured.
    pub signal_dbm: Option<f64>,
}

/// Merchants and how their terminals are operated.
#[derive(Debug, Serialize, ToSchema)]
pub struct MerchantsHealth {
    /// Those that make the most errors for sure come first.
    pub merchants: Vec<MerchantHealth>,
    /// Whether all that reported were looked at: of more than 200,000 merchants, the rest is left out.
    pub complete: bool,
}

/// How a merchant's terminals are operated.
#[derive(Debug, Serialize, ToSchema)]
pub struct MerchantHealth {
    /// The merchant.
    pub merchant: String,
    /// The chain or group that it belongs to.
    pub merchant_group: String,
    /// About how many terminals.
    pub terminals: u64,
    /// Attempts at sales, refunds, voids and pre-authorisations.
    pub attempts: u64,
    /// Of these, those that ended by an error of operation.
    pub errors: u64,
    /// The least share of them that surely is.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub at_least: f64,
    /// The share of the rest of the fleet.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub usual: f64,
    /// Whether that is conspicuously more than elsewhere; nothing where there were too few attempts to say.
    pub needs_training: Option<bool>,
    /// What is to be done.
    pub advice: Option<Text>,
}

/// The tenant's terminals as they stand over some seconds since 1970-01-01 UTC, the worst first: so many at most, or one by its name.
///
/// # Errors
/// When the store does not answer.
pub async fn terminals(
    database: &Database,
    (tenant, terminal): (&str, Option<&str>),
    time: &Range<u32>,
    limit: usize,
) -> Result<TerminalsHealth, StoreError> {
    let (sampled, counted) = tokio::try_join!(database.sampled_terminals(tenant, time), database.counted_terminals(tenant, time))?;
    let complete = is_complete(&sampled) && is_complete(&counted);
    let mut known: BTreeMap<String, (SampledTerminal, CountedTerminal)> = BTreeMap::new();
    for sampled in sampled {
        let (slot, _) = known.entry(sampled.terminal.clone()).or_default();
        *slot = sampled;
    }
    for counted in counted {
        let (_, slot) = known.entry(counted.terminal.clone()).or_default();
        *slot = counted;
    }
    let devices: Vec<(&str, Device)> =
        known.values().map(|(sampled, counted)| (model(sampled, counted), device(sampled, counted))).collect();
    let mut fleets: HashMap<&str, Fleet> = HashMap::new();
    for (model, device) in &devices {
        fleets.entry(*model).or_default().add(device);
    }
    let wanted = known.iter().zip(&devices).filter(|((name, _), _)| terminal.is_none_or(|wanted| wanted == name.as_str()));
    let mut scored: Vec<_> = wanted.filter_map(|(known, (model, device))| Some((known, fleets.get(model)?.score(device)))).collect();
    scored.sort_by(|((one, _), first), ((other, _), second)| first.score.total_cmp(&second.score).then_with(|| one.cmp(other)));
    scored.truncate(limit);
    let terminals = scored.into_iter().map(|((name, known), score)| TerminalHealth::new(name, known, score)).collect();
    Ok(TerminalsHealth { terminals, complete })
}

/// Whether an answer of the store has everything.
fn is_complete<T>(rows: &[T]) -> bool {
    rows.len() < MOST_COUNTED
}

/// The networks of the tenant's shops over some seconds since 1970-01-01 UTC, those that are worse than others first: so many at most.
///
/// # Errors
/// When the store does not answer.
pub async fn shops(database: &Database, tenant: &str, time: &Range<u32>, limit: usize) -> Result<ShopsHealth, StoreError> {
    let counted = database.counted_shops(tenant, time).await?;
    let complete = is_complete(&counted);
    let mut shops: Vec<_> = counted.into_iter().map(|shop| (network(&shop), shop)).collect();
    let excess = |network: &health::ShopNetwork| network.at_least() * network.failed.of - network.expected_elsewhere;
    shops.sort_by(|(one, _), (other, _)| {
        one.quality().cmp(&other.quality()).then_with(|| excess(other).partial_cmp(&excess(one)).unwrap_or(Ordering::Equal))
    });
    shops.truncate(limit);
    Ok(ShopsHealth { shops: shops.into_iter().map(|(network, shop)| ShopHealth::new(&network, shop)).collect(), complete })
}

/// How the terminals of the tenant's merchants were operated over some seconds since 1970-01-01 UTC, those that surely make the most errors first: so many at most. Which
/// reasons are an operator's the rules say.
///
/// # Errors
/// When the store does not answer.
pub async fn merchants(
    database: &Database,
    (tenant, rules): (&str, &Rules),
    time: &Range<u32>,
    limit: usize,
) -> Result<MerchantsHealth, StoreError> {
    let errors = operator_errors(rules);
    let merchants = database.counted_merchants(tenant, time, &Vec::from_iter(errors)).await?;
    let complete = is_complete(&merchants);
    let all = merchants.iter().fold((0, 0), |(errors, attempts), merchant| (errors + merchant.errors, attempts + merchant.attempts));
    let mut judged: Vec<MerchantHealth> = merchants.into_iter().map(|merchant| MerchantHealth::new(merchant, all)).collect();
    judged.sort_by(|one, other| {
        let is_said = |merchant: &MerchantHealth| merchant.needs_training.is_some();
        is_said(other)
            .cmp(&is_said(one))
            .then_with(|| other.at_least.total_cmp(&one.at_least))
            .then_with(|| one.merchant.cmp(&other.merchant))
    });
    judged.truncate(limit);
    Ok(MerchantsHealth { merchants: judged, complete })
}

/// Reasons of which whoever operates the terminal is the cause, and surely so.
fn operator_errors(rules: &Rules) -> BTreeSet<&str> {
    let reasons = rules.sets().flat_map(|set| rules.reasons(set));
    let errors = reasons.filter(|reason| reason.merchant_cause == MerchantCause::Operator && reason.confidence >= CERTAIN);
    errors.map(|reason| reason.id.as_str()).collect()
}

fn model<'a>(sampled: &'a SampledTerminal, counted: &'a CountedTerminal) -> &'a str {
    if sampled.model.is_empty() { &counted.model } else { &sampled.model }
}

/// What is known of a terminal, of both kinds.
fn device(sampled: &SampledTerminal, counted: &CountedTerminal) -> Device {
    let by_samples = Counted::new(sampled.fallbacks, sampled.reads);
    let running = if sampled.powered_hours > 0.0 { sampled.powered_hours } else { Counted::new(0, sampled.hours).of };
    let (number, x, y, xx, xy, yy) = sampled.drain_sums;
    Device {
        failed_reads: Counted::new(sampled.failed_sales, sampled.reads),
        unread_sales: Counted::new(counted.unread, counted.with_card),
        fallbacks: if sampled.reads > 0 { by_samples } else { Counted::new(counted.fallbacks, counted.card_attempts) },
        tampered: Counted::new(sampled.tampered_hours, sampled.pin_pad_hours),
        pin_pad_hours: Counted::new(sampled.pin_pad_bad_hours, sampled.pin_pad_hours),
        pin_pad_failures: Counted::new(counted.pin_pad_failures, counted.with_pin),
        printer_hours: Counted::new(sampled.printer_bad_hours, sampled.printer_hours),
        unprinted: Counted::new(counted.unprinted, counted.attempts),
        drained: Counted { times: sampled.drained_percent, of: sampled.drained_hours },
        battery_low: Counted::new(counted.battery_low, counted.attempts),
        drain_trend: Trend { number, x, y, xx, xy, yy },
        starts: Counted { of: sampled.days, ..Counted::new(sampled.starts, 0) },
        weak_signal: Counted::new(sampled.weak_signal_hours, sampled.signal_hours),
        reconnects: Counted { of: running, ..Counted::new(sampled.reconnects, 0) },
    }
}

fn network(shop: &CountedShop) -> health::ShopNetwork {
    let mean = |(of, times): (f64, f64)| Counted { times, of };
    health::ShopNetwork {
        failed: Counted::new(shop.failed, shop.attempts),
        nearby: Counted::new(shop.nearby_failed, shop.nearby_attempts),
        expected_nearby: shop.expected_nearby,
        expected_elsewhere: shop.expected_elsewhere,
        connects: [mean(shop.connects), mean(shop.nearby_connects), mean(shop.elsewhere_connects)],
    }
}

impl TerminalHealth {
    fn new(name: &str, (sampled, counted): &(SampledTerminal, CountedTerminal), score: Score) -> TerminalHealth {
        let newest = |sampled: &str, counted: &str| if sampled.is_empty() { counted.to_owned() } else { sampled.to_owned() };
        TerminalHealth {
            terminal: name.to_owned(),
            merchant: counted.merchant.clone(),
            store: counted.store.clone(),
            model: newest(&sampled.model, &counted.model),
            firmware: newest(&sampled.firmware, &counted.firmware),
            score: rounded(score.score, 1),
            parts: score.parts.into_iter().map(PartHealth::from).collect(),
            sampled_hours: sampled.hours,
            attempts: counted.attempts,
            signal_dbm: measured(sampled.signal_dbm),
        }
    }
}

impl From<PartScore> for PartHealth {
    fn from(part: PartScore) -> PartHealth {
        PartHealth {
            part: part.part.id(),
            loss: rounded(part.loss, 4),
            share: rounded(part.share, 4),
            reasons: part.reasons.into_iter().map(PartReason::from).collect(),
        }
    }
}

impl From<Shown> for PartReason {
    fn from(shown: Shown) -> PartReason {
        PartReason {
            measure: shown.measure.id(),
            meaning: (&shown.measure.meaning()).into(),
            advice: (&shown.measure.advice()).into(),
            counted: rounded(shown.counted.times, 2),
            of: rounded(shown.counted.of, 2),
            at_least: rounded(shown.at_least, 4),
            usual: rounded(shown.usual, 4),
            loss: rounded(shown.loss, 4),
        }
    }
}

impl ShopHealth {
    fn new(network: &health::ShopNetwork, shop: CountedShop) -> ShopHealth {
        let quality: NetworkQuality = network.quality();
        let [here, nearby, elsewhere] = network.connects.map(|connects| (connects.of > 0.0).then(|| rounded(connects.rate().exp(), 1)));
        ShopHealth {
            quality: quality.id(),
            advice: quality.advice().as_ref().map(Text::from),
            attempts: shop.attempts,
            failed: shop.failed,
            at_least: rounded(network.at_least(), 4),
            nearby_attempts: shop.nearby_attempts,
            nearby_failed: shop.nearby_failed,
            expected_nearby: rounded(shop.expected_nearby, 2),
            expected_elsewhere: rounded(shop.expected_elsewhere, 2),
            connect_ms: here,
            nearby_connect_ms: nearby,
            elsewhere_connect_ms: elsewhere,
            signal_dbm: measured(shop.signal_dbm),
            merchant: shop.merchant,
            store: shop.store,
            carrier: shop.carrier,
            region: shop.region,
        }
    }
}

impl MerchantHealth {
    /// `all` are errors and attempts of all merchants together.
    fn new(merchant: CountedMerchant, (errors, attempts): (u64, u64)) -> MerchantHealth {
        let own = Counted::new(merchant.errors, merchant.attempts);
        let others = Counted::new(errors.saturating_sub(merchant.errors), attempts.saturating_sub(merchant.attempts));
        let needs_training = health::needs_training(own, others);
        MerchantHealth {
            at_least: rounded(own.share_at_least(others.rate()), 4),
            usual: rounded(others.rate(), 4),
            advice: (needs_training == Some(true)).then(|| (&health::training_advice()).into()),
            needs_training,
            merchant: merchant.merchant,
            merchant_group: merchant.merchant_group,
            terminals: merchant.terminals,
            attempts: merchant.attempts,
            errors: merchant.errors,
        }
    }
}

/// A strength in dBm, of which none is 0.
fn measured(dbm: f64) -> Option<f64> {
    (dbm != 0.0).then(|| rounded(dbm, 1))
}

/// As many digits behind the point as are of use to people.
fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_customers_may_have_done_is_no_error_of_an_operator() {
        let rules = Rules::built_in().unwrap();
        let errors = operator_errors(&rules);
        for error in ["cancelled", "card_removed", "invalid_amount", "use_chip", "duplicate"] {
            assert!(errors.contains(error), "{error} is missing from {errors:?}");
        }
        for other in ["rejected_or_cancelled", "wrong_pin", "approved", "insufficient_funds"] {
            assert!(!errors.contains(other), "{other} is in {errors:?}");
        }
    }

    #[test]
    fn what_was_not_sampled_is_known_by_outcomes() {
        let counted =
            CountedTerminal { with_card: 50, unread: 9, card_attempts: 60, fallbacks: 7, attempts: 70, ..CountedTerminal::default() };
        let known = device(&SampledTerminal::default(), &counted);
        assert_eq!((known.unread_sales, known.fallbacks), (Counted::new(9, 50), Counted::new(7, 60)));
        assert_eq!((known.failed_reads, known.starts), (Counted::default(), Counted::default()));
        let sampled = SampledTerminal { reads: 100, fallbacks: 1, failed_sales: 3, starts: 2, days: 6.5, ..SampledTerminal::default() };
        let known = device(&sampled, &counted);
        assert_eq!((known.fallbacks, known.failed_reads), (Counted::new(1, 100), Counted::new(3, 100)));
        assert_eq!(known.starts, Counted { times: 2.0, of: 6.5 });
    }
}
