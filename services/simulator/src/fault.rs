//! What goes wrong in a scenario, or only looks like it: how it is written, what it means, and what Faultline is to make of it.

use std::time::Duration;

use faultline_verdict::Cause;
use serde::Deserialize;

use crate::fleet::{self, Tables, Terminal};
use crate::scenario::{known, number};

/// The latest start and the longest duration, in seconds: a year.
pub(crate) const LONGEST_S: f64 = 366.0 * 86_400.0;
/// How soon an incident is to be opened, unless the scenario says otherwise.
const OPENED_WITHIN: Duration = Duration::from_secs(60);

/// Something that goes wrong, or only looks like it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Entry")]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// The share of what it would concern: of transactions, of connections, of terminals.
    pub share: f64,
    /// When it begins, from when the fleet was switched on.
    pub start: Duration,
    /// How long it lasts; nothing: until the end.
    pub duration: Option<Duration>,
    /// How long after its start its incident is to be open.
    pub opened_within: Duration,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// An issuer does not work, and its switch says so.
    BankOutage {
        /// The issuer.
        issuer: String,
        /// For terminals of this carrier only; nothing: for all.
        carrier: Option<String>,
    },
    /// An issuer does not work, and refuses what it is asked.
    RefusingBank {
        /// The issuer.
        issuer: String,
    },
    /// An issuer does not answer.
    SilentBank {
        /// The issuer.
        issuer: String,
        /// How long terminals wait.
        timeout: Duration,
    },
    /// A host of the acquirer cannot be reached.
    HostDown {
        /// The host.
        host: String,
    },
    /// A carrier fails.
    CarrierOutage {
        /// The carrier.
        carrier: String,
        /// Where; nothing: everywhere.
        region: Option<String>,
    },
    /// A firmware reads cards worse than it did.
    BadFirmware {
        /// The model, and its firmware.
        device: Device,
        /// How many times as many reads fail.
        factor: f64,
    },
    /// Terminals of a firmware have a wrong key.
    KeyFault {
        /// The model, and its firmware.
        device: Device,
    },
    /// There is no power: nothing is sold, and nobody says so.
    PowerCut {
        /// Where.
        region: String,
    },
    /// More sales than usual.
    FlashSale {
        /// How many times the usual number.
        factor: f64,
        /// Where; nothing: everywhere.
        merchant_group: Option<String>,
    },
    /// Accounts are empty, on the days before wages are paid.
    Payday {
        /// How many times as many transactions are refused for that.
        factor: f64,
    },
    /// Shops are quiet everywhere.
    Holiday {
        /// The part of the usual sales that is left.
        factor: f64,
    },
}

/// Terminals of one model with one firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The model.
    pub model: String,
    /// The firmware.
    pub firmware: String,
}

impl Device {
    pub(crate) fn is_of(&self, terminal: &Terminal) -> bool {
        (&self.model, &self.firmware) == (&terminal.profile.model, &terminal.profile.firmware)
    }

    fn slice(&self) -> String {
        format!("firmware={}&model={}", self.firmware, self.model)
    }
}

/// An incident that Faultline is to make of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What fails: `issuer=icbc`; several values, by name of the dimension, joined by `&`.
    pub slice: String,
    /// Whose fault it is.
    pub cause: Cause,
    /// When it begins, from when the fleet was switched on.
    pub start: Duration,
    /// When it is over; nothing: not before the end.
    pub end: Option<Duration>,
    /// How long after it began it is to be open.
    pub opened_within: Duration,
}

/// A fault as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: KindName,
    issuer: Option<String>,
    host: Option<String>,
    carrier: Option<String>,
    region: Option<String>,
    model: Option<String>,
    firmware: Option<String>,
    merchant_group: Option<String>,
    factor: Option<f64>,
    #[serde(default, with = "humantime_serde::option")]
    timeout: Option<Duration>,
    share: Option<f64>,
    #[serde(with = "humantime_serde")]
    start: Duration,
    #[serde(default, with = "humantime_serde::option")]
    duration: Option<Duration>,
    #[serde(default, with = "humantime_serde::option")]
    opened_within: Option<Duration>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindName {
    BankOutage,
    RefusingBank,
    SilentBank,
    HostDown,
    CarrierOutage,
    BadFirmware,
    KeyFault,
    PowerCut,
    FlashSale,
    Payday,
    Holiday,
}

impl TryFrom<Entry> for Fault {
    type Error = String;

    fn try_from(mut entry: Entry) -> Result<Fault, String> {
        let kind = entry.take_kind()?;
        let can_be_partial = kind.slice().is_some() && !matches!(kind, Kind::BadFirmware { .. });
        let share = if can_be_partial { entry.share.take() } else { None };
        let opened_within = if kind.slice().is_some() { entry.opened_within.take() } else { None };
        let left = [
            ("issuer", entry.issuer.is_some()),
            ("host", entry.host.is_some()),
            ("carrier", entry.carrier.is_some()),
            ("region", entry.region.is_some()),
            ("model", entry.model.is_some()),
            ("firmware", entry.firmware.is_some()),
            ("merchant_group", entry.merchant_group.is_some()),
            ("factor", entry.factor.is_some()),
            ("timeout", entry.timeout.is_some()),
            ("share", entry.share.is_some()),
            ("opened_within", entry.opened_within.is_some()),
        ];
        if let Some((key, _)) = left.into_iter().find(|(_, is_left)| *is_left) {
            return Err(format!("`{key}` means nothing in a fault of this kind"));
        }
        let opened_within = opened_within.unwrap_or(OPENED_WITHIN);
        Ok(Fault { kind, share: share.unwrap_or(1.0), start: entry.start, duration: entry.duration, opened_within })
    }
}

impl Entry {
    /// The kind, with what it needs.
    fn take_kind(&mut self) -> Result<Kind, String> {
        fn needed<T>(value: &mut Option<T>, key: &str) -> Result<T, String> {
            value.take().ok_or_else(|| format!("`{key}` is missing in a fault of this kind"))
        }
        let device = |entry: &mut Entry| {
            Ok::<_, String>(Device { model: needed(&mut entry.model, "model")?, firmware: needed(&mut entry.firmware, "firmware")? })
        };
        Ok(match self.kind {
            KindName::BankOutage => Kind::BankOutage { issuer: needed(&mut self.issuer, "issuer")?, carrier: self.carrier.take() },
            KindName::RefusingBank => Kind::RefusingBank { issuer: needed(&mut self.issuer, "issuer")? },
            KindName::SilentBank => {
                let timeout = self.timeout.take().unwrap_or(Duration::from_secs(60));
                Kind::SilentBank { issuer: needed(&mut self.issuer, "issuer")?, timeout }
            }
            KindName::HostDown => Kind::HostDown { host: needed(&mut self.host, "host")? },
            KindName::CarrierOutage => Kind::CarrierOutage { carrier: needed(&mut self.carrier, "carrier")?, region: self.region.take() },
            KindName::BadFirmware => Kind::BadFirmware { device: device(self)?, factor: needed(&mut self.factor, "factor")? },
            KindName::KeyFault => Kind::KeyFault { device: device(self)? },
            KindName::PowerCut => Kind::PowerCut { region: needed(&mut self.region, "region")? },
            KindName::FlashSale => {
                Kind::FlashSale { factor: needed(&mut self.factor, "factor")?, merchant_group: self.merchant_group.take() }
            }
            KindName::Payday => Kind::Payday { factor: needed(&mut self.factor, "factor")? },
            KindName::Holiday => Kind::Holiday { factor: needed(&mut self.factor, "factor")? },
        })
    }
}

impl Kind {
    /// The part of the fleet that fails, and whose fault that is; nothing where nothing does.
    fn slice(&self) -> Option<(String, Cause)> {
        Some(match self {
            Kind::BankOutage { issuer, .. } | Kind::RefusingBank { issuer } | Kind::SilentBank { issuer, .. } => {
                (format!("issuer={issuer}"), Cause::Bank)
            }
            Kind::HostDown { host } => (format!("acquirer={}&host={host}", fleet::ACQUIRER), Cause::Other),
            Kind::CarrierOutage { carrier, region: None } => (format!("carrier={carrier}"), Cause::Network),
            Kind::CarrierOutage { carrier, region: Some(region) } => (format!("carrier={carrier}&region={region}"), Cause::Network),
            Kind::BadFirmware { device, .. } | Kind::KeyFault { device } => (device.slice(), Cause::Device),
            Kind::PowerCut { region } => (format!("region={region}"), Cause::Network),
            Kind::FlashSale { .. } | Kind::Payday { .. } | Kind::Holiday { .. } => return None,
        })
    }

    /// What makes no sense, by key.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let tables = Tables::built_in();
        let device = |Device { model, firmware }: &Device| {
            known(model, tables.models()).map_err(|reason| ("model", reason))?;
            known(firmware, tables.firmwares_of(model)).map_err(|reason| ("firmware", reason))
        };
        let factor = |factor: f64, limits| number(factor, limits).map_err(|reason| ("factor", reason));
        let region = |region: &String| known(region, tables.regions()).map_err(|reason| ("region", reason));
        let carrier = |carrier: &String| known(carrier, fleet::carriers().into_iter()).map_err(|reason| ("carrier", reason));
        match self {
            Kind::BankOutage { issuer, carrier: only } => {
                known(issuer, tables.issuers()).map_err(|reason| ("issuer", reason))?;
                only.as_ref().map_or(Ok(()), carrier)
            }
            Kind::RefusingBank { issuer } => known(issuer, tables.issuers()).map_err(|reason| ("issuer", reason)),
            Kind::SilentBank { issuer, timeout } => {
                known(issuer, tables.issuers()).map_err(|reason| ("issuer", reason))?;
                number(timeout.as_secs_f64(), 1.0..=600.0).map_err(|reason| ("timeout", reason))
            }
            Kind::HostDown { host } => known(host, fleet::hosts().into_iter()).map_err(|reason| ("host", reason)),
            Kind::CarrierOutage { carrier: failing, region: place } => {
                carrier(failing)?;
                place.as_ref().map_or(Ok(()), region)
            }
            Kind::BadFirmware { device: of, factor: times } => device(of).and_then(|()| factor(*times, 1.0..=100.0)),
            Kind::KeyFault { device: of } => device(of),
            Kind::PowerCut { region: place } => region(place),
            Kind::FlashSale { factor: times, merchant_group } => {
                factor(*times, 1.0..=100.0)?;
                let groups = fleet::merchant_groups().into_iter();
                merchant_group.as_ref().map_or(Ok(()), |group| known(group, groups).map_err(|reason| ("merchant_group", reason)))
            }
            Kind::Payday { factor: times } => factor(*times, 1.0..=50.0),
            Kind::Holiday { factor: part } => factor(*part, 0.01..=1.0),
        }
    }
}

impl Fault {
    /// Whether it holds at this moment.
    pub(crate) fn holds_at(&self, moment: Duration) -> bool {
        self.start <= moment && self.end().is_none_or(|end| moment < end)
    }

    /// When it is over; nothing where it lasts until the end.
    pub(crate) fn end(&self) -> Option<Duration> {
        Some(self.start.saturating_add(self.duration?))
    }

    /// What makes no sense, by key.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Err(("share", format!("{} is not above 0 and up to 1", self.share)));
        }
        for (key, time, least) in
            [("start", Some(self.start), 0.0), ("duration", self.duration, 1.0), ("opened_within", Some(self.opened_within), 1.0)]
        {
            time.map_or(Ok(()), |time| number(time.as_secs_f64(), least..=LONGEST_S)).map_err(|reason| (key, reason))?;
        }
        self.kind.check()
    }

    /// The incident that Faultline is to make of it; nothing where it is to stay silent.
    pub(crate) fn expected(&self) -> Option<Expected> {
        let (slice, cause) = self.kind.slice()?;
        Some(Expected { slice, cause, start: self.start, end: self.end(), opened_within: self.opened_within })
    }

    /// What begins, in plain words.
    pub(crate) fn described(&self) -> String {
        let share = if self.share < 1.0 { format!("{} % of", (self.share * 1e5).round() / 1e3) } else { "all".into() };
        let device = |Device { model, firmware }: &Device| format!("{model} with firmware {firmware}");
        match &self.kind {
            Kind::BankOutage { issuer, carrier } => {
                let only = carrier.as_ref().map_or_else(String::new, |carrier| format!(" by carrier {carrier}"));
                format!("{} ({issuer}) fails: {share} its transactions{only} are answered with 91 or 96", fleet::issuer_name(issuer))
            }
            Kind::RefusingBank { issuer } => {
                format!("{} ({issuer}) fails and refuses: {share} its transactions are answered with 05", fleet::issuer_name(issuer))
            }
            Kind::SilentBank { issuer, timeout } => format!(
                "{} ({issuer}) falls silent: {share} its transactions get no answer, which terminals see after {} s",
                fleet::issuer_name(issuer),
                timeout.as_secs()
            ),
            Kind::HostDown { host } => format!("host {host} of the acquirer is down: {share} connections to it fail"),
            Kind::CarrierOutage { carrier, region } => {
                let place = region.as_ref().map_or_else(String::new, |region| format!(" in region {region}"));
                format!("carrier {carrier} fails{place}: {share} connections by it fail")
            }
            Kind::BadFirmware { device: of, factor } => format!("{}: cards are not read {factor} times as often as usual", device(of)),
            Kind::KeyFault { device: of } => format!("{}: {share} transactions are refused with A0, since a key is wrong", device(of)),
            Kind::PowerCut { region } => format!("region {region} has no power: {share} terminals sell and report nothing"),
            Kind::FlashSale { factor, merchant_group } => {
                let place = merchant_group.as_ref().map_or("everywhere".into(), |group| format!("at {group}"));
                format!("a flash sale {place}: {factor} times the usual number of sales, which is not a fault")
            }
            Kind::Payday { factor } => {
                format!("accounts are empty: {factor} times as many refusals with 51 as usual, which is not a fault")
            }
            Kind::Holiday { factor } => format!("a holiday: {factor} of the usual number of sales, which is not a fault"),
        }
    }
}
