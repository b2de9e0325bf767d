//! Health samples: which of them are stored, and their rows.

use std::ops::RangeInclusive;

use faultline_proto::terminal::v1::HealthSample;
use faultline_store::SampleRow;

use crate::judged::{number, storable};
use crate::report::{MAX_SEQUENCE, Report};

/// What the contract says that fields may hold. Whoever else than the gateway writes into the topic may not have looked.
const MAX_AGE_MS: u64 = 30 * 24 * 60 * 60 * 1000;
const SIGNALS_DBM: RangeInclusive<i32> = -150..=0;
const MAX_BATTERY_PERCENT: u32 = 100;
const MAX_UPTIME_MS: u64 = 315_360_000_000;
const MAX_SPOOL_BYTES: u64 = 1 << 40;

/// The rows of all samples of some records that are within the contract, and how many are not.
pub(crate) fn rows(reports: &[Report]) -> (Vec<SampleRow<'_>>, usize) {
    let samples = || reports.iter().flat_map(|report| report.batch.health_samples.iter().map(move |sample| (report, sample)));
    let rows: Vec<SampleRow<'_>> = samples().filter(|(_, sample)| is_within(sample)).map(|(report, sample)| row(report, sample)).collect();
    let out_of_range = samples().count() - rows.len();
    (rows, out_of_range)
}

fn is_within(sample: &HealthSample) -> bool {
    (1..=MAX_SEQUENCE).contains(&sample.sequence)
        && sample.age_ms.is_none_or(|age| age <= MAX_AGE_MS)
        && sample.battery_percent.is_none_or(|percent| percent <= MAX_BATTERY_PERCENT)
        && sample.signal_dbm.is_none_or(|signal| SIGNALS_DBM.contains(&signal))
        && sample.uptime_ms.is_none_or(|uptime| uptime <= MAX_UPTIME_MS)
        && sample.spool_bytes.is_none_or(|bytes| bytes <= MAX_SPOOL_BYTES)
}

fn row<'a>(report: &'a Report, sample: &HealthSample) -> SampleRow<'a> {
    let profile = &report.profile;
    let time = report.clock.date(sample.age_ms, sample.sample_time.as_ref());
    SampleRow {
        tenant: &report.tenant,
        terminal: &report.terminal,
        spool: report.batch.spool_id,
        sequence: sample.sequence,
        sampled_at: storable(time.unix_ms),
        received_at: storable(report.receipt_ms),
        clock: time.clock.number(),
        model: &profile.model,
        firmware: &profile.firmware,
        region: &profile.region,
        access_network: number(profile.access_network),
        carrier: &profile.carrier,
        battery_percent: sample.battery_percent.and_then(|percent| u8::try_from(percent).ok()),
        charging: sample.charging,
        signal_dbm: sample.signal_dbm.and_then(|signal| i16::try_from(signal).ok()),
        printer: number(sample.printer),
        pin_pad: number(sample.pin_pad),
        reader_reads: sample.reader_reads,
        reader_failures: sample.reader_failures,
        reader_failed_sales: sample.reader_failed_sales,
        fallbacks: sample.fallbacks,
        boots: sample.boots,
        reconnects: sample.reconnects,
        uptime_ms: sample.uptime_ms,
        spool_depth: sample.spool_depth,
        spool_bytes: sample.spool_bytes,
    }
}

#[cfg(test)]
mod tests {
    use faultline_proto::ingest::v1::OutcomeBatch;
    use faultline_proto::terminal::v1::{PrinterState, TerminalProfile};
    use faultline_stream::BatchClock;

    use super::*;

    const NOON_MS: i64 = 1_790_000_000_000;

    fn report(samples: Vec<HealthSample>) -> Report {
        Report {
            offset: 7,
            tenant: "acme".into(),
            terminal: "T-1".into(),
            receipt_ms: NOON_MS,
            is_redated: false,
            is_replay: false,
            profile: TerminalProfile { model: "PAX A920".into(), ..TerminalProfile::default() },
            batch: OutcomeBatch { spool_id: 9, health_samples: samples, ..OutcomeBatch::default() },
            clock: BatchClock { receipt_ms: NOON_MS, send_ms: Some(NOON_MS) },
            span: None,
        }
    }

    #[test]
    fn a_sample_becomes_the_row_that_its_terminal_meant() {
        let sample = HealthSample {
            sequence: 3,
            age_ms: Some(1500),
            battery_percent: Some(0),
            charging: Some(false),
            signal_dbm: Some(-101),
            printer: PrinterState::PaperOut.into(),
            pin_pad: 70_000,
            reader_reads: Some(12),
            ..HealthSample::default()
        };
        let reports = [report(vec![sample])];
        let (rows, out_of_range) = rows(&reports);
        let expected = SampleRow {
            tenant: "acme",
            terminal: "T-1",
            spool: 9,
            sequence: 3,
            sampled_at: NOON_MS - 1500,
            received_at: NOON_MS,
            clock: 1,
            model: "PAX A920",
            battery_percent: Some(0),
            charging: Some(false),
            signal_dbm: Some(-101),
            printer: 2,
            pin_pad: u16::MAX,
            reader_reads: Some(12),
            ..SampleRow::default()
        };
        assert_eq!((rows, out_of_range), (vec![expected], 0));
    }

    #[test]
    fn a_sample_that_is_out_of_range_is_left_out_and_counted() {
        let right = HealthSample { sequence: 1, ..HealthSample::default() };
        for wrong in [
            HealthSample { sequence: 0, ..right },
            HealthSample { sequence: u64::MAX, ..right },
            HealthSample { age_ms: Some(MAX_AGE_MS + 1), ..right },
            HealthSample { battery_percent: Some(101), ..right },
            HealthSample { signal_dbm: Some(1), ..right },
            HealthSample { signal_dbm: Some(i32::MIN), ..right },
            HealthSample { uptime_ms: Some(u64::MAX), ..right },
            HealthSample { spool_bytes: Some(MAX_SPOOL_BYTES + 1), ..right },
        ] {
            let reports = [report(vec![right, wrong]), report(vec![wrong])];
            let (rows, out_of_range) = rows(&reports);
            assert_eq!((rows.len(), out_of_range), (1, 2), "{wrong:?}");
        }
    }
}
