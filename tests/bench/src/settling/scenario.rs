//! Labelled scenarios: files in TOML that say what a fleet is, what usually fails in it, and what goes wrong.
//!
//! ```toml
//! title = "One issuer does not answer"
//!
//! [fleet]
//! terminals = 800              # one to three in a shop
//! sales_per_minute = 500.0
//! minutes = 60
//!
//! [[usual]]                    # What fails without a fault; without any, what `USUAL` says.
//! cause = "account"
//! rate = 0.008                 # Of sales that came so far
//! endings = [{ code = "05" }]
//!
//! [[fault]]
//! cause = "bank"               # Whose fault it is: the truth
//! family = "issuer"            # How the fleet is cut into parts that may have it: those of rule sets' attributions
//! part = "icbc"                # Which part; without it, the seed draws `parts` of them (missing: 1)
//! start = "10m"                # From the beginning; missing: there was always
//! duration = "20m"             # Missing: until the end
//! rate = 0.8                   # Of the part's sales that come as far
//! endings = [{ condition = "response_timeout", stage = "wait", share = 0.9 }, { code = "68", share = 0.1 }]
//! ```
//!
//! An ending is a response code, or a condition with the stage at which it is met. Of several, each has its share (missing: 1). What a fault does to a sale it does at the
//! stage of its endings: a card that is not read never comes as far as a bank that does not answer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use faultline_proto::outcome::v1::{Stage, TerminalCondition};
use faultline_proto::verdict::v1::Cause;
use faultline_verdict::Family;
use serde::Deserialize;

/// What usually fails: rates in the range of what acquirers report for card-present sales, and none of them measured here.
const USUAL: &str = include_str!("../../scenarios/usual.toml");

/// A scenario.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) fleet: Size,
    pub(crate) usual: Vec<Process>,
    pub(crate) faults: Vec<Planned>,
}

/// How large a fleet is, and how long it is watched.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Size {
    pub(crate) terminals: usize,
    pub(crate) sales_per_minute: f64,
    pub(crate) minutes: u32,
}

impl Default for Size {
    fn default() -> Size {
        Size { terminals: 800, sales_per_minute: 500.0, minutes: 60 }
    }
}

/// Something that makes sales fail.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) cause: Cause,
    pub(crate) rate: f64,
    pub(crate) endings: Vec<(Ending, f64)>,
}

/// A fault that is to happen.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) process: Process,
    pub(crate) family: Family,
    pub(crate) part: Option<String>,
    pub(crate) parts: usize,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
}

/// How a sale ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) code: String,
    pub(crate) condition: TerminalCondition,
    pub(crate) stage: Stage,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    title: String,
    #[serde(default)]
    fleet: Size,
    #[serde(default)]
    usual: Vec<WrittenProcess>,
    #[serde(default)]
    fault: Vec<WrittenFault>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenProcess {
    cause: String,
    rate: f64,
    endings: Vec<WrittenEnding>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFault {
    cause: String,
    family: String,
    part: Option<String>,
    parts: Option<usize>,
    #[serde(default, with = "humantime_serde::option")]
    start: Option<Duration>,
    #[serde(default, with = "humantime_serde::option")]
    duration: Option<Duration>,
    rate: f64,
    endings: Vec<WrittenEnding>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEnding {
    code: Option<String>,
    condition: Option<String>,
    stage: Option<String>,
    share: Option<f64>,
}

impl Scenario {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Scenario> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Scenario::parse(name, &text).with_context(|| format!("{} is no scenario", path.display()))
    }

    fn parse(name: String, text: &str) -> anyhow::Result<Scenario> {
        let written: Written = toml::from_str(text)?;
        let Size { terminals, sales_per_minute, minutes } = written.fleet;
        ensure!((1..=1_000_000).contains(&terminals), "fleet.terminals {terminals} is not 1 to 1,000,000");
        ensure!(
            sales_per_minute > 0.0 && sales_per_minute <= 1e6,
            "fleet.sales_per_minute {sales_per_minute} is not above 0 and up to 1,000,000"
        );
        ensure!((1..=1440).contains(&minutes), "fleet.minutes {minutes} is not 1 to 1440");
        let usual = if written.usual.is_empty() { toml::from_str::<Written>(USUAL)?.usual } else { written.usual };
        let usual = usual.into_iter().map(|usual| process(&usual.cause, usual.rate, usual.endings)).collect::<Result<_, _>>()?;
        let end = Duration::from_secs(60) * minutes;
        let faults = written.fault.into_iter().map(|fault| {
            let family = Family::ALL.into_iter().find(|family| family.name() == fault.family);
            let start = fault.start.unwrap_or_default();
            anyhow::Ok(Planned {
                process: process(&fault.cause, fault.rate, fault.endings)?,
                family: family.with_context(|| format!("family `{}` is none", fault.family))?,
                part: fault.part,
                parts: fault.parts.unwrap_or(1),
                start,
                end: fault.duration.map_or(end, |duration| start + duration),
            })
        });
        Ok(Scenario { name, title: written.title, fleet: written.fleet, usual, faults: faults.collect::<Result<_, _>>()? })
    }
}

fn process(cause: &str, rate: f64, endings: Vec<WrittenEnding>) -> anyhow::Result<Process> {
    let named = Cause::from_str_name(&format!("CAUSE_{}", cause.to_uppercase()));
    let cause = named.filter(|cause| *cause != Cause::Unspecified).with_context(|| format!("cause `{cause}` is none"))?;
    ensure!(rate > 0.0 && rate <= 1.0, "rate {rate} is not above 0 and up to 1");
    ensure!(!endings.is_empty(), "there are no endings");
    let all: f64 = endings.iter().map(|ending| ending.share.unwrap_or(1.0)).sum();
    let endings = endings.into_iter().map(|ending| {
        let share = ending.share.unwrap_or(1.0) / all;
        anyhow::Ok((ending.read()?, share))
    });
    let endings: Vec<(Ending, f64)> = endings.collect::<Result<_, _>>()?;
    Ok(Process { cause, rate, endings })
}

impl WrittenEnding {
    fn read(self) -> anyhow::Result<Ending> {
        match (self.code, self.condition, self.stage) {
            (Some(code), None, None) => Ok(Ending { code, condition: TerminalCondition::Unspecified, stage: Stage::HostDecision }),
            (None, Some(condition), Some(stage)) => {
                let named = TerminalCondition::from_str_name(&format!("TERMINAL_CONDITION_{}", condition.to_uppercase()));
                let at = Stage::from_str_name(&format!("STAGE_{}", stage.to_uppercase()));
                Ok(Ending {
                    code: String::new(),
                    condition: named.with_context(|| format!("condition `{condition}` is none of the contract's"))?,
                    stage: at.with_context(|| format!("stage `{stage}` is none of the contract's"))?,
                })
            }
            (code, condition, stage) => bail!("an ending has a code, or a condition and a stage: {code:?}, {condition:?}, {stage:?}"),
        }
    }
}
