//! What happens to a fleet: a file in TOML.
//!
//! ```toml
//! title = "The largest bank fails for three minutes"
//! seed = 1                             # The same seed makes the same fleet; begun at the same second, the same transactions.
//!
//! [fleet]
//! terminals = 1000                     # 1 to 100,000
//! transactions_per_minute = 1200.0     # Sales that customers begin, on average over a week: 1 to 600,000
//! rhythm = 0.3                         # 0: the same rate day and night; 1: that of shops in China
//!
//! [history]
//! weeks = 4                            # Counts of the weeks before the fleet was switched on: 0 to 8
//!
//! [[fault]]                            # At most 100
//! kind = "bank_outage"
//! issuer = "icbc"
//! share = 1.0                          # Of the transactions that it would concern: above 0, up to 1. Missing: all
//! start = "2m"                         # From when the fleet was switched on
//! duration = "3m"                      # Missing: until the end
//! ```
//!
//! | kind | what it needs | what the terminals see |
//! |---|---|---|
//! | `bank_outage` | `issuer`, `carrier` (missing: all) | the host answers at once that the issuer does not work: `91`, and `96` for one in five |
//! | `refusing_bank` | `issuer` | the issuer answers `05` where it would have approved |
//! | `silent_bank` | `issuer`, `timeout` (missing: 60s) | no answer, `timeout` later; then a reversal, which is answered |
//! | `host_down` | `host` | no connection to this host of the acquirer, ten seconds later |
//! | `carrier_outage` | `carrier`, `region` (missing: all) | no connection, and for one in three no answer of the name server; what terminals report gets through all the same |
//! | `bad_firmware` | `model`, `firmware`, `factor` | that many times as many cards are not read |
//! | `key_fault` | `model`, `firmware` | the host refuses with `A0` what it would have decided |
//! | `power_cut` | `region` | nothing: nobody sells, and nothing is reported |
//! | `flash_sale` | `factor`, `merchant_group` (missing: all) | that many times the usual number of sales: no fault, a detector has to stay silent |
//! | `payday` | `factor` | that many times as many refusals with `51`: no fault |
//! | `holiday` | `factor` | that part of the usual number of sales: no fault |
//!
//! `share` is of transactions, of connections (`host_down`, `carrier_outage`) or of terminals (`power_cut`). `opened_within` says how soon `--check` wants the incident; missing: 60s.
//!
//! Every key is optional but `kind`, `start`, and what a kind needs. Lengths of time are written `90s`, `2m`, `1h 30m`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use crate::fault::{Device, Expected, Fault, Kind};
use crate::fleet::Fleet;

/// Most faults of a scenario.
const MAX_FAULTS: usize = 100;
/// Most sales a minute that a fleet may come to, all flash sales together.
const MOST_SALES: f64 = 1_200_000.0;

/// A scenario that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a scenario.
    #[error("scenario {}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place.
        reason: String,
    },
    /// A value makes no sense.
    #[error("scenario {}: `{key}`: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with its value, with the value.
        reason: String,
    },
}

/// A scenario. Its form is in the documentation of this module.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What happens, in a few words.
    pub title: String,
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// The fleet.
    pub fleet: FleetSize,
    /// What was before.
    pub history: History,
    /// What goes wrong.
    #[serde(rename = "fault")]
    pub faults: Vec<Fault>,
}

/// How large a fleet is, and how busy.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetSize {
    /// Terminals.
    pub terminals: u32,
    /// Sales that customers begin in a minute, on average over a week. Repeated attempts and reversals come on top.
    pub transactions_per_minute: f64,
    /// How much day and week show: 0 not at all, 1 as in shops in China.
    pub rhythm: f64,
}

impl Default for FleetSize {
    fn default() -> Self {
        FleetSize { terminals: 1000, transactions_per_minute: 1200.0, rhythm: 0.3 }
    }
}

/// Counts of the time before the fleet was switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Weeks.
    pub weeks: u32,
}

impl Default for History {
    fn default() -> Self {
        History { weeks: 4 }
    }
}

impl Scenario {
    /// Reads a scenario and makes sure of it.
    ///
    /// # Errors
    /// When the file cannot be read, is not a scenario, or a value makes no sense.
    pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.into(), source })?;
        let scenario: Scenario = toml::from_str(&text)
            .map_err(|error| ScenarioError::Format { path: path.into(), reason: error.to_string().trim_end().to_owned() })?;
        scenario.check().map_err(|(key, reason)| ScenarioError::Value { path: path.into(), key, reason })?;
        Ok(scenario)
    }

    /// The incidents that Faultline is to make of it, and no others.
    #[must_use]
    pub fn expected(&self) -> Vec<Expected> {
        self.faults.iter().filter_map(Fault::expected).collect()
    }

    /// When all of it is over, from when the fleet was switched on; nothing where some of it lasts until the end.
    #[must_use]
    pub fn end(&self) -> Option<Duration> {
        self.faults.iter().map(Fault::end).try_fold(Duration::ZERO, |last, end| Some(last.max(end?)))
    }

    /// Sales a minute at a moment at most: each flash sale adds as if it were everywhere.
    fn peak_at(&self, moment: Duration) -> f64 {
        let sales = self.faults.iter().filter(|fault| fault.holds_at(moment));
        let more = sales.map(|fault| if let Kind::FlashSale { factor, .. } = fault.kind { factor - 1.0 } else { 0.0 });
        self.fleet.transactions_per_minute * (1.0 + more.sum::<f64>())
    }

    /// When the power is back at a terminal, by its place in the fleet, that has none at this moment; the end of time where it is not.
    pub(crate) fn power_is_back(&self, (fleet, place): (&Fleet, usize), moment: Duration) -> Option<Duration> {
        let terminal = fleet.terminals.get(place)?;
        // Always the same of the terminals, where it is not all of them.
        let is_hit =
            |share: f64| f64::from(u32::try_from(place).unwrap_or(u32::MAX).wrapping_mul(0x9E37_79B1)) < share * f64::from(u32::MAX);
        let cuts = self.faults.iter().filter(|fault| fault.holds_at(moment));
        let of_terminal = cuts
            .filter(|fault| matches!(&fault.kind, Kind::PowerCut { region } if *region == terminal.profile.region) && is_hit(fault.share));
        of_terminal.map(|fault| fault.end().unwrap_or(Duration::MAX)).max()
    }

    /// The sales at a moment, relative to those of an ordinary day.
    pub(crate) fn business_at(&self, moment: Duration) -> f64 {
        let holidays = self.faults.iter().filter(|fault| fault.holds_at(moment));
        holidays.map(|fault| if let Kind::Holiday { factor } = fault.kind { factor } else { 1.0 }).product()
    }

    /// What makes no sense, by key.
    ///
    /// # Errors
    /// With the key and what is wrong with its value.
    pub fn check(&self) -> Result<(), (String, String)> {
        if self.title.chars().any(char::is_control) {
            return Err(("title".into(), "has control characters".into()));
        }
        for (key, value, limits) in [
            ("fleet.terminals", self.fleet.terminals.into(), 1.0..=100_000.0),
            ("fleet.transactions_per_minute", self.fleet.transactions_per_minute, 1.0..=600_000.0),
            ("fleet.rhythm", self.fleet.rhythm, 0.0..=1.0),
            ("history.weeks", self.history.weeks.into(), 0.0..=8.0),
        ] {
            number(value, limits).map_err(|reason| (key.to_owned(), reason))?;
        }
        if self.faults.len() > MAX_FAULTS {
            return Err(("fault".into(), format!("are {}, at most {MAX_FAULTS} are played", self.faults.len())));
        }
        for (place, fault) in self.faults.iter().enumerate() {
            let key = |name: &str| format!("fault[{place}].{name}");
            fault.check().map_err(|(name, reason)| (key(name), reason))?;
            if let Kind::FlashSale { factor, .. } = &fault.kind {
                let peak = self.peak_at(fault.start);
                if peak > MOST_SALES {
                    return Err((key("factor"), format!("{factor} makes {peak:.0} sales a minute, at most {MOST_SALES} are played")));
                }
            }
        }
        Ok(())
    }
}

/// What is wrong with a number, if it is not within its limits.
pub(crate) fn number(value: f64, limits: RangeInclusive<f64>) -> Result<(), String> {
    if limits.contains(&value) { Ok(()) } else { Err(format!("{value} is not within {} to {}", limits.start(), limits.end())) }
}

/// What is wrong with a name, if it is not one of these.
pub(crate) fn known<'a>(value: &str, all: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let all: BTreeSet<&str> = all.collect();
    if all.contains(value) {
        return Ok(());
    }
    Err(format!("`{value}` is not one of the fleet's: {}", Vec::from_iter(all).join(", ")))
}

#[cfg(test)]
mod tests {
    use faultline_verdict::Cause;

    use super::*;

    fn load(text: &str) -> Result<Scenario, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scenario.toml");
        std::fs::write(&path, text).unwrap();
        Scenario::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let scenario = load("[[fault]]\nkind = 'silent_bank'\nissuer = 'icbc'\nstart = '1m 30s'").unwrap();
        assert_eq!(scenario.fleet, FleetSize::default());
        let fault = &scenario.faults[0];
        let timeout = Duration::from_secs(60);
        assert_eq!(fault.kind, Kind::SilentBank { issuer: "icbc".into(), timeout });
        assert_eq!((fault.share, fault.start.as_secs(), fault.duration), (1.0, 90, None));
        assert!(!fault.holds_at(Duration::from_secs(89)) && fault.holds_at(Duration::from_secs(90_000)));
        assert_eq!(load("").unwrap(), Scenario::default());
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_value() {
        let fault = |rest: &str| format!("[[fault]]\nstart = '0s'\n{rest}");
        for (text, said) in [
            ("[fleet]\nterminal = 3".into(), "unknown field `terminal`"),
            ("[fleet]\nterminals = 0".into(), "`fleet.terminals`: 0 is not within 1 to 100000"),
            ("[fleet]\ntransactions_per_minute = nan".into(), "`fleet.transactions_per_minute`: NaN is not within"),
            ("title = \"a\\u001b[31m\"".into(), "`title`: has control characters"),
            (
                "[fleet]\ntransactions_per_minute = 20000.0\n[[fault]]\nkind = 'flash_sale'\nfactor = 99.0\nstart = '1m'".into(),
                "`fault[0].factor`: 99 makes 1980000 sales a minute, at most 1200000 are played",
            ),
            ("[fleet]\nrhythm = 1.5".into(), "`fleet.rhythm`: 1.5 is not within 0 to 1"),
            ("[history]\nweeks = 9".into(), "`history.weeks`: 9 is not within 0 to 8"),
            (fault("kind = 'bank_holiday'"), "unknown variant `bank_holiday`"),
            (fault("kind = 'bank_outage'"), "`issuer` is missing in a fault of this kind"),
            (fault("kind = 'bank_outage'\nissuer = 'icbc'\nhost = 'pos-1'"), "`host` means nothing in a fault of this kind"),
            (fault("kind = 'flash_sale'\nfactor = 2.0\nshare = 0.5"), "`share` means nothing"),
            (fault("kind = 'bank_outage'\nissuer = 'icbk'"), "`fault[0].issuer`: `icbk` is not one of the fleet's: abc, "),
            (fault("kind = 'bank_outage'\nissuer = 'icbc'\nshare = 0"), "`fault[0].share`: 0 is not above 0"),
            (fault("kind = 'bank_outage'\nissuer = 'icbc'\nduration = '0s'"), "`fault[0].duration`: 0 is not within 1 to "),
            ("[[fault]]\nkind = 'flash_sale'\nfactor = 2.0\nstart = '500000000000y'".into(), "start"),
            ("[[fault]]\nkind = 'flash_sale'\nfactor = 2.0\nstart = '30y'".into(), "`fault[0].start`: 946728000 is not within 0 to "),
            (fault("kind = 'silent_bank'\nissuer = 'icbc'\ntimeout = '1h'"), "`fault[0].timeout`: 3600 is not within 1 to 600"),
            (fault("kind = 'host_down'\nhost = 'nowhere'"), "`fault[0].host`: `nowhere` is not one of the fleet's: "),
            (fault("kind = 'flash_sale'\nfactor = 0.5"), "`fault[0].factor`: 0.5 is not within 1 to 100"),
            ("[[fault]]\nkind = 'host_down'\nhost = 'pos-1'\nstart = 'soon'".into(), "line 4"),
            (String::from("title = "), "line 1"),
        ] {
            let message = load(&text).unwrap_err();
            assert!(message.contains(said) && message.contains("scenario.toml"), "{text}\n{message}");
        }
        let missing = Scenario::load(Path::new("nowhere.toml")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read the scenario nowhere.toml");
    }

    #[test]
    fn the_scenarios_that_come_with_it_can_be_played() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut kinds = BTreeSet::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let scenario = Scenario::load(&entry.unwrap().path()).unwrap();
            assert!(!scenario.title.is_empty());
            kinds.extend(scenario.faults.iter().map(|fault| format!("{:?}", std::mem::discriminant(&fault.kind))));
        }
        assert_eq!(kinds.len(), 11, "every kind has a scenario");
    }

    #[test]
    fn the_example_in_the_documentation_can_be_played() {
        let documented = include_str!("scenario.rs").lines().skip_while(|line| !line.contains("```toml")).skip(1);
        let documented: Vec<&str> =
            documented.take_while(|line| !line.contains("```")).map(|line| line.trim_start_matches("//!")).collect();
        assert_eq!(load(&documented.join("\n")).unwrap().faults.len(), 1);
    }

    #[test]
    fn a_fault_is_to_become_an_incident_and_a_sale_is_not() {
        let text = "[[fault]]\nkind = 'host_down'\nhost = 'pos-2'\nstart = '1m'\nduration = '2m'\n\
                    [[fault]]\nkind = 'flash_sale'\nfactor = 2.0\nstart = '2m'\nduration = '5m'\n\
                    [[fault]]\nkind = 'silent_bank'\nissuer = 'ccb'\nstart = '3m'";
        let scenario = load(text).unwrap();
        let expected: Vec<_> = scenario.expected().into_iter().map(|expected| (expected.slice, expected.cause)).collect();
        assert_eq!(expected, [("acquirer=48020000&host=pos-2".into(), Cause::Other), ("issuer=ccb".into(), Cause::Bank)]);
        assert_eq!(scenario.end(), None);
        let ending = Scenario { faults: scenario.faults[..2].to_vec(), ..scenario };
        assert_eq!(ending.end(), Some(Duration::from_secs(420)));
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;

    use super::*;
    use crate::fault::LONGEST_S;

    #[test]
    fn a_scenario_can_be_played_or_the_key_is_named() {
        let fates = target!(Text, "scenario").run(|bytes| {
            let Ok(scenario) = toml::from_str::<Scenario>(std::str::from_utf8(bytes).unwrap()) else { return "no scenario" };
            if let Err((key, reason)) = scenario.check() {
                assert!(!key.is_empty() && !reason.is_empty());
                return "a wrong value";
            }
            let longest = Duration::from_secs_f64(2.0 * LONGEST_S);
            assert!(scenario.end().is_none_or(|end| end <= longest));
            assert!(scenario.expected().iter().all(|expected| expected.start <= longest && expected.slice.contains('=')));
            assert!(scenario.faults.iter().all(|fault| scenario.peak_at(fault.start) <= MOST_SALES));
            "played"
        });
        fates.include(["played", "a wrong value", "no scenario"]);
    }
}
