//! Who has stopped reporting: by what the store knows of when terminals reported, judged by `faultline_detect::silence`.

use std::ops::Range;

use faultline_detect::silence::{self, Habit, Kind, Silence, Watched};
use faultline_store::{Database, MOST_COUNTED, ReportingTerminal, StoreError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::Text;

const WEEK_S: u32 = 7 * 86_400;
/// How many terminals of a silence are named.
const MOST_NAMED: usize = 10;

/// Parts of the fleet that have stopped reporting.
#[derive(Debug, Serialize, ToSchema)]
pub struct Silences {
    /// As of when: the last report of anybody, in seconds since 1970-01-01 UTC. What came later is not counted yet.
    pub as_of: u32,
    /// The plainest comes first.
    pub silent: Vec<Silent>,
    /// Terminals that were watched.
    pub watched: usize,
    /// Whether all that reported were looked at: of more than 200,000 terminals, the rest is left out.
    pub complete: bool,
}

/// A part of the fleet that has stopped reporting, though it usually does at such hours.
#[derive(Debug, Serialize, ToSchema)]
pub struct Silent {
    /// `region` (no power), `carrier`, `carrier_region`, `shop`, `terminal`.
    pub kind: &'static str,
    /// Which: a region, a carrier, both joined by `|`, a shop (merchant, or merchant and store joined by `|`), a terminal.
    pub part: String,
    /// Since when, in seconds since 1970-01-01 UTC.
    pub since: u32,
    /// How many terminals are silent.
    pub terminals: usize,
    /// Some of them.
    pub examples: Vec<String>,
    /// Of a terminal: whether others of its shop report.
    pub others_report: bool,
    /// How plain it is, in nats, beyond what is asked for.
    pub evidence_nats: f64,
    /// What it means, and what is to be done.
    pub advice: Text,
}

/// Who is silent among a tenant's terminals, by what was reported in some seconds since 1970-01-01 UTC: so many at most.
///
/// # Errors
/// When the store does not answer.
pub async fn silences(database: &Database, tenant: &str, time: &Range<u32>, limit: usize) -> Result<Silences, StoreError> {
    let reporting = database.reporting_terminals(tenant, time).await?;
    let complete = reporting.len() < MOST_COUNTED;
    let as_of = reporting.iter().map(|of| of.last).max().unwrap_or(time.end);
    let first = reporting.iter().flat_map(|of| &of.hours).map(|(hour, _)| *hour).min().unwrap_or(as_of);
    let weeks = (as_of - first).div_ceil(WEEK_S);
    let watched: Vec<Watched> = reporting.into_iter().map(|of| self::watched(of, weeks)).collect();
    let mut found = tokio::task::block_in_place(|| silence::silences(&watched, as_of));
    found.truncate(limit);
    let silent = found.into_iter().map(|silence| Silent::new(silence, &watched)).collect();
    Ok(Silences { as_of, silent, watched: watched.len(), complete })
}

fn watched(of: ReportingTerminal, weeks: u32) -> Watched {
    Watched {
        shop: if of.store.is_empty() { of.merchant } else { format!("{}|{}", of.merchant, of.store) },
        terminal: of.terminal,
        carrier: of.carrier,
        region: of.region,
        last: of.last,
        habit: Habit::of(weeks, of.hours),
    }
}

impl Silent {
    fn new(Silence { kind, part, since, terminals, evidence, others_report }: Silence, watched: &[Watched]) -> Silent {
        let (name, zh_cn, en) = match kind {
            Kind::Region => (
                "region",
                "该地区各运营商的终端同时停止上报，可能停电。请向当地核实，恢复后无需处理。",
                "Terminals of all carriers in the region fell silent together: there may be no power. Ask somebody there; nothing is to be done once it is back.",
            ),
            Kind::Carrier => (
                "carrier",
                "该运营商的终端同时停止上报，运营商网络可能中断。请联系运营商，并提示商户改用 Wi-Fi 或有线网络。",
                "Terminals of the carrier fell silent together: its network may be lost. Ask the carrier, and have merchants use Wi-Fi or a line.",
            ),
            Kind::CarrierRegion => (
                "carrier_region",
                "该运营商在该地区的终端同时停止上报，当地网络可能中断。请联系运营商，并提示商户改用 Wi-Fi 或有线网络。",
                "Terminals of the carrier in the region fell silent together: its network may be lost there. Ask the carrier, and have merchants use Wi-Fi or a line.",
            ),
            Kind::Shop => (
                "shop",
                "该门店所有终端停止上报：可能歇业、停电或断网。请致电门店。",
                "All terminals of the shop are silent: it may be closed, or have no power or no line. Call it.",
            ),
            Kind::Terminal if others_report => (
                "terminal",
                "该终端停止上报，而同店其他终端正常：请检查电源、网络和设备，必要时送修。",
                "The terminal is silent while others of its shop report: look at its power, its network and itself; send it in if need be.",
            ),
            Kind::Terminal => (
                "terminal",
                "该终端停止上报，门店没有其他终端可对比：可能歇业、停电、断网或设备故障。请致电门店。",
                "The terminal is silent, and the shop has no other that reports: it may be closed, without power or line, or the terminal is dead. Call the shop.",
            ),
        };
        let examples = terminals.iter().take(MOST_NAMED).filter_map(|place| watched.get(*place)).map(|of| of.terminal.clone()).collect();
        let advice = Text { zh_cn: zh_cn.into(), en: en.into() };
        Silent { kind: name, part, since, terminals: terminals.len(), examples, others_report, evidence_nats: evidence, advice }
    }
}
