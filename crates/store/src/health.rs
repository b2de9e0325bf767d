//! What was counted of terminals, shops and merchants over a time, for those who judge how well they do: of samples by what terminals counted themselves, of
//! outcomes as they stand.

use std::ops::Range;

use clickhouse::Row;
use serde::Deserialize;

use crate::database::{Database, StoreError};
use crate::families::completed_in;

/// Most terminals, shops or merchants of one answer.
pub const MOST_COUNTED: usize = 200_000;

/// What a terminal's samples say of a time. Counters fall to zero when a terminal starts again, so what is here are increases: of each life of the terminal, from its
/// first to its last sample of the time, and from nothing where it began within it.
#[derive(Clone, Debug, Default, PartialEq, Row, Deserialize)]
pub struct SampledTerminal {
    /// The terminal.
    pub terminal: String,
    /// Its model.
    pub model: String,
    /// Its firmware.
    pub firmware: String,
    /// Hours in which it measured something.
    pub hours: u64,
    /// From the first of them to the end of the last.
    pub days: f64,
    /// Card reads.
    pub reads: u64,
    /// Sales in which one failed.
    pub failed_sales: u64,
    /// Times that the stripe was taken because the chip was not read.
    pub fallbacks: u64,
    /// Times that it started, after its first sample.
    pub starts: u64,
    /// Connections that were set up again.
    pub reconnects: u64,
    /// Hours that it ran.
    pub powered_hours: f64,
    /// Hours in which it said how its PIN pad is.
    pub pin_pad_hours: u64,
    /// Of these, those in which it was away or faulty.
    pub pin_pad_bad_hours: u64,
    /// Of these, those in which it was found opened or attacked.
    pub tampered_hours: u64,
    /// Hours in which it said how its printer is.
    pub printer_hours: u64,
    /// Of these, those in which it was faulty or too hot.
    pub printer_bad_hours: u64,
    /// Hours in which it measured its signal.
    pub signal_hours: u64,
    /// Of these, those in which it was weak.
    pub weak_signal_hours: u64,
    /// Mean strength of its signal, in dBm; 0 where it was not measured.
    pub signal_dbm: f64,
    /// Percent of a full charge that went in hours without a charger, and how long these were.
    pub drained_percent: f64,
    /// In hours.
    pub drained_hours: f64,
    /// Of those hours: how many, and sums over the loss of charge an hour (y) by the day of the time (x): x, y, x², xy, y².
    pub drain_sums: (f64, f64, f64, f64, f64, f64),
}

/// What a terminal's outcomes say of a time.
#[derive(Clone, Debug, Default, PartialEq, Row, Deserialize)]
pub struct CountedTerminal {
    /// The terminal.
    pub terminal: String,
    /// Where it stood last.
    pub merchant: String,
    /// The same.
    pub store: String,
    /// Its model.
    pub model: String,
    /// Its firmware.
    pub firmware: String,
    /// First attempts at a sale.
    pub attempts: u64,
    /// Of these, those with a card.
    pub with_card: u64,
    /// Of those, those that ended because the card was not read, by the terminal's fault.
    pub unread: u64,
    /// Of all attempts, those with a card, and those at which the stripe was taken because the chip was not read.
    pub card_attempts: u64,
    /// The latter.
    pub fallbacks: u64,
    /// Attempts at which a PIN was to be entered, and those that ended because of the PIN pad.
    pub with_pin: u64,
    /// The latter.
    pub pin_pad_failures: u64,
    /// Attempts whose receipt a broken printer did not print.
    pub unprinted: u64,
    /// Attempts that ended because the battery was too low.
    pub battery_low: u64,
}

/// What was counted of a shop's way to the acquirer, and in the same hours of others. Of connecting: how many times it was measured, and the sum of the logarithms
/// of milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Row, Deserialize)]
pub struct CountedShop {
    /// The merchant.
    pub merchant: String,
    /// Its shop; empty where outcomes do not say it.
    pub store: String,
    /// By which carrier.
    pub carrier: String,
    /// In which region.
    pub region: String,
    /// Attempts that needed the network.
    pub attempts: u64,
    /// Of these, those that failed because of it.
    pub failed: u64,
    /// Attempts of other shops of the carrier in the region, in the hours in which this one had some.
    pub nearby_attempts: u64,
    /// Of these, those that failed because of the network.
    pub nearby_failed: u64,
    /// Failures that there would have been here at the rate of those, hour by hour.
    pub expected_nearby: f64,
    /// Failures that there would have been here at the rate of everybody else, hour by hour.
    pub expected_elsewhere: f64,
    /// How often, and the sum of logarithms: here.
    pub connects: (f64, f64),
    /// The same of the other shops nearby.
    pub nearby_connects: (f64, f64),
    /// The same of everybody else.
    pub elsewhere_connects: (f64, f64),
    /// Mean strength of the signal during attempts, in dBm; 0 where it was not measured.
    pub signal_dbm: f64,
}

/// What a merchant's staff did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct CountedMerchant {
    /// The merchant.
    pub merchant: String,
    /// The chain or group that it belongs to.
    pub merchant_group: String,
    /// Attempts.
    pub attempts: u64,
    /// Of these, those that ended by an error of operation.
    pub errors: u64,
    /// Terminals.
    pub terminals: u64,
}

/// A terminal, and when it reported: by hour, as first second since 1970-01-01 UTC, with how much.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Deserialize)]
#[expect(missing_docs, reason = "the schema documents its columns")]
pub struct ReportingTerminal {
    pub terminal: String,
    pub merchant: String,
    pub store: String,
    pub carrier: String,
    pub region: String,
    /// When it completed an attempt last, in seconds since 1970-01-01 UTC.
    pub last: u32,
    /// Hours in which it completed some, with how many.
    pub hours: Vec<(u32, u32)>,
}

impl Database {
    /// When a tenant's terminals reported within these seconds since 1970-01-01 UTC; 200,000 terminals at most.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn reporting_terminals(&self, tenant: &str, time: &Range<u32>) -> Result<Vec<ReportingTerminal>, StoreError> {
        let of = |column: &str| format!("argMax({column}, latest) AS {column}");
        let of_hour = |column: &str| format!("argMax({column}, completed_at) AS {column}");
        let columns = ["merchant", "store", "carrier", "region"];
        let sql = format!(
            "SELECT terminal, {}, toUnixTimestamp(max(latest)) AS last, groupArray((toUnixTimestamp(hour), reports)) AS hours FROM \
             (SELECT terminal, toStartOfHour(completed_at) AS hour, {}, max(toDateTime(completed_at)) AS latest, toUInt32(count()) AS reports FROM outcomes \
             WHERE tenant = ? AND {} AND revision = 0 AND sign = 1 GROUP BY terminal, hour) GROUP BY terminal ORDER BY terminal LIMIT ?",
            columns.map(of).join(", "),
            columns.map(of_hour).join(", "),
            completed_in(time)
        );
        let query = self.looking().query(&sql).bind(tenant);
        self.look("say when terminals reported", query.bind(MOST_COUNTED).fetch_all::<ReportingTerminal>()).await
    }

    /// What a tenant's terminals measured of themselves within these seconds since 1970-01-01 UTC, and in the rest of the first hour; 200,000 terminals at most. A
    /// sample that was sent or stored more than once counts once: everything here is made of least and greatest values.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn sampled_terminals(&self, tenant: &str, time: &Range<u32>) -> Result<Vec<SampledTerminal>, StoreError> {
        let by_hour = "SELECT terminal, life, hour, model, firmware, access_network AS access, boots AS boot, started_ms AS started, \
             (least_reads, most_reads) AS of_reads, (least_failed_sales, most_failed_sales) AS of_failed, \
             (least_fallbacks, most_fallbacks) AS of_fallbacks, (least_reconnects, most_reconnects) AS of_reconnects, \
             (least_uptime_ms, most_uptime_ms) AS of_uptime, has_pin_pad AS pin_pad, bad_pin_pad AS pin_pad_bad, \
             tampered AS pin_pad_tampered, has_printer AS printer, bad_printer AS printer_bad, \
             (least_signal_dbm + most_signal_dbm) / 2 AS strength, charged AS was_charged, \
             (last_battery_ms - first_battery_ms) / 3600000 AS span, \
             toFloat64(most_battery_percent) - toFloat64(least_battery_percent) AS drained FROM health_hours FINAL \
             WHERE tenant = ? AND hour >= toStartOfHour(fromUnixTimestamp(?)) AND hour < fromUnixTimestamp(?)";
        // Wi-Fi (2) is weak at another strength than what comes from afar. While no charger is there, the charge only falls.
        let hours = format!(
            "SELECT *, if(access = 2, -75, -105) AS weak, (dateDiff('second', fromUnixTimestamp(?), hour) / 86400) AS day, \
             ifNull(was_charged = 0 AND span >= 0.25, false) AS is_drain, if(is_drain, ifNull(drained, 0), 0) AS loss, \
             if(is_drain, ifNull(loss / span, 0), 0) AS speed FROM ({by_hour})"
        );
        let increase = |counter: &str| format!("max({counter}.2) - if(began, 0, min({counter}.1))");
        let by_life = format!(
            "SELECT terminal, life, argMax(model, hour) AS model, argMax(firmware, hour) AS firmware, min(hour) AS first, max(hour) AS last, \
             max(boot) AS boot, ifNull(min(started) >= ?, false) AS began, {} AS reads, {} AS failed, {} AS fell, {} AS again, {} AS up, \
             count() AS hours, \
             sum(pin_pad) AS has_pin_pad, sum(pin_pad_bad) AS bad_pin_pad, sum(pin_pad_tampered) AS tampered, sum(printer) AS has_printer, \
             sum(printer_bad) AS bad_printer, count(strength) AS has_signal, countIf(strength < weak) AS weak_signal, sum(strength) AS signal, \
             sum(loss) AS drained_percent, sum(if(is_drain, ifNull(span, 0), 0)) AS drained_hours, \
             (toFloat64(countIf(is_drain)), sumIf(day, is_drain), sum(speed), sumIf(day * day, is_drain), sum(day * speed), sum(speed * speed)) AS drain \
             FROM ({hours}) GROUP BY terminal, life",
            increase("of_reads"),
            increase("of_failed"),
            increase("of_fallbacks"),
            increase("of_reconnects"),
            increase("of_uptime")
        );
        let count = |name: &str| format!("toUInt64(greatest(sum(ifNull({name}, 0)), 0))");
        let sums = |number: u8| format!("sum(drain.{number})");
        let sql = format!(
            "SELECT terminal, argMax(model, last) AS model, argMax(firmware, last) AS firmware, sum(hours) AS hours, \
             (dateDiff('second', min(first), max(last)) + 3600) / 86400 AS days, {} AS reads, {} AS failed_sales, {} AS fallbacks, \
             toUInt64(ifNull(max(boot) - min(boot), 0)) AS starts, {} AS reconnects, \
             toFloat64(sum(ifNull(up, 0))) / 3600000 AS powered_hours, sum(has_pin_pad) AS pin_pad_hours, \
             sum(bad_pin_pad) AS pin_pad_bad_hours, sum(tampered) AS tampered_hours, sum(has_printer) AS printer_hours, sum(bad_printer) AS printer_bad_hours, \
             sum(has_signal) AS signal_hours, sum(weak_signal) AS weak_signal_hours, \
             if(signal_hours = 0, 0, toFloat64(sum(ifNull(signal, 0))) / signal_hours) AS signal_dbm, \
             toFloat64(sum(drained_percent)) AS drained_percent, toFloat64(sum(drained_hours)) AS drained_hours, \
             ({}, {}, {}, {}, {}, {}) AS drain_sums FROM ({by_life}) GROUP BY terminal ORDER BY terminal LIMIT ?",
            count("reads"),
            count("failed"),
            count("fell"),
            count("again"),
            sums(1),
            sums(2),
            sums(3),
            sums(4),
            sums(5),
            sums(6)
        );
        let began = i64::from(time.start) * 1000;
        let query = self.looking().query(&sql).bind(began).bind(time.start).bind(tenant).bind(time.start).bind(time.end);
        self.look("say what terminals measured of themselves", query.bind(MOST_COUNTED).fetch_all::<SampledTerminal>()).await
    }

    /// What a tenant's terminals reported within these seconds since 1970-01-01 UTC, as it stands; 200,000 terminals at most.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn counted_terminals(&self, tenant: &str, time: &Range<u32>) -> Result<Vec<CountedTerminal>, StoreError> {
        // A sale that is tried again and again is one: its first attempt tells. Without a number, an attempt is the first.
        let counted = |condition: &str| format!("toUInt64(greatest(sumIf(sign, {condition}), 0))");
        let is_card = "entry_mode IN (1, 2, 3)";
        let sql = format!(
            "SELECT terminal, argMax(merchant, completed_at) AS merchant, argMax(store, completed_at) AS store, argMax(model, completed_at) AS model, \
             argMax(firmware, completed_at) AS firmware, {} AS attempts, {} AS with_card, {} AS unread, {} AS card_attempts, {} AS fallbacks, \
             {} AS with_pin, {} AS pin_pad_failures, {} AS unprinted, {} AS battery_low \
             FROM outcomes WHERE tenant = ? AND {} AND type != 6 GROUP BY terminal HAVING sum(sign) > 0 ORDER BY terminal LIMIT ?",
            counted("attempt <= 1"),
            counted(&format!("attempt <= 1 AND {is_card}")),
            counted(&format!("attempt <= 1 AND {is_card} AND startsWith(tag, 'device_read/') AND cause = 'device'")),
            counted(is_card),
            counted("fallback"),
            counted("pin_entry_ms > 0 OR reason = 'pin_pad_fault'"),
            counted("reason = 'pin_pad_fault'"),
            counted("reason = 'receipt_not_printed' AND terminal_condition = 7"),
            counted("reason = 'battery_low'"),
            completed_in(time)
        );
        let query = self.looking().query(&sql).bind(tenant);
        self.look("say what was counted of terminals", query.bind(MOST_COUNTED).fetch_all::<CountedTerminal>()).await
    }

    /// What was counted of the ways of a tenant's shops to the acquirer within these seconds since 1970-01-01 UTC, as it stands; 200,000 shops at most.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn counted_shops(&self, tenant: &str, time: &Range<u32>) -> Result<Vec<CountedShop>, StoreError> {
        // What ended before the network was needed says nothing of it: reading the card (1), entering the PIN (2).
        let counts = "sum(sign) AS some, sumIf(sign, cause = 'network') AS bad, sumIf(sign, connect_ms > 0) AS measured, \
             sumIf(sign * log(connect_ms), connect_ms > 0) AS logs";
        let of_time = format!("FROM outcomes WHERE tenant = ? AND {} AND stage NOT IN (1, 2)", completed_in(time));
        let here = format!(
            "SELECT merchant, store, carrier, region, toStartOfHour(completed_at) AS hour, {counts}, sumIf(sign, signal_dbm != 0) AS signals, \
             sum(sign * signal_dbm) AS signal {of_time} GROUP BY merchant, store, carrier, region, hour HAVING some > 0"
        );
        // Of a carrier in a region, and, for each of those, of everybody but them, who may share their fault.
        let around = format!(
            "SELECT carrier, region, hour, some AS all_some, bad AS all_bad, measured AS all_measured, logs AS all_logs, \
             sum(some) OVER (PARTITION BY hour) - some AS far_some, sum(bad) OVER (PARTITION BY hour) - bad AS far_bad, \
             sum(measured) OVER (PARTITION BY hour) - measured AS far_measured, sum(logs) OVER (PARTITION BY hour) - logs AS far_logs FROM \
             (SELECT carrier, region, toStartOfHour(completed_at) AS hour, {counts} {of_time} GROUP BY carrier, region, hour)"
        );
        let sql = format!(
            "SELECT merchant, store, carrier, region, toUInt64(sum(some)) AS attempts, toUInt64(greatest(sum(bad), 0)) AS failed, \
             toUInt64(greatest(sum(all_some - some), 0)) AS nearby_attempts, toUInt64(greatest(sum(all_bad - bad), 0)) AS nearby_failed, \
             toFloat64(sum(if(all_some > some, some * (all_bad - bad) / (all_some - some), 0))) AS expected_nearby, \
             toFloat64(sum(if(far_some > 0, some * far_bad / far_some, 0))) AS expected_elsewhere, \
             (toFloat64(sum(measured)), toFloat64(sum(logs))) AS connects, \
             (toFloat64(sum(all_measured - measured)), toFloat64(sum(all_logs - logs))) AS nearby_connects, \
             (toFloat64(sum(far_measured)), toFloat64(sum(far_logs))) AS elsewhere_connects, \
             if(sum(signals) > 0, toFloat64(sum(signal)) / sum(signals), 0) AS signal_dbm \
             FROM ({here}) AS here INNER JOIN ({around}) AS around USING (carrier, region, hour) \
             GROUP BY merchant, store, carrier, region ORDER BY merchant, store, carrier, region LIMIT ?"
        );
        let query = self.looking().query(&sql).bind(tenant).bind(tenant);
        self.look("say what was counted of shops", query.bind(MOST_COUNTED).fetch_all::<CountedShop>()).await
    }

    /// What was counted of a tenant's merchants within these seconds since 1970-01-01 UTC, as it stands; 200,000 merchants at most. `errors` are the reasons of which the operator is
    /// the cause. What the customer gave up is none of the operator's.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn counted_merchants(&self, tenant: &str, time: &Range<u32>, errors: &[&str]) -> Result<Vec<CountedMerchant>, StoreError> {
        // Sales, refunds, voids, pre-authorisations and their completions: what an operator does. Condition 21: cancelled by the customer.
        let sql = format!(
            "SELECT merchant, argMax(merchant_group, completed_at) AS merchant_group, toUInt64(sum(sign)) AS attempts, \
             toUInt64(greatest(sumIf(sign, reason IN ? AND terminal_condition != 21), 0)) AS errors, uniq(terminal) AS terminals \
             FROM outcomes WHERE tenant = ? AND {} AND type IN (1, 2, 3, 4, 5) GROUP BY merchant HAVING sum(sign) > 0 ORDER BY merchant LIMIT ?",
            completed_in(time)
        );
        let query = self.looking().query(&sql).bind(errors).bind(tenant);
        self.look("say what was counted of merchants", query.bind(MOST_COUNTED).fetch_all::<CountedMerchant>()).await
    }
}
