//! The fleet: terminals in shops, and the cards that are presented to them.
//!
//! Everything is drawn once, from the scenario's seed. What is drawn here decides the shares of every slice; [`crate::history`] sums exactly what
//! [`crate::traffic`] draws from.

use std::sync::LazyLock;

use faultline_proto::outcome::v1::EntryMode;
use faultline_proto::terminal::v1::{AccessNetwork, TerminalProfile};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use rand_pcg::Pcg64;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::scenario::Scenario;

/// The acquirer that all terminals are of, as ISO 8583 field 32 names one.
pub(crate) const ACQUIRER: &str = "48020000";
/// Share of a local bank's transactions that are in its own province.
const AT_HOME: f64 = 0.85;
/// Of shops, how many are of a chain.
const OF_CHAINS: f64 = 0.35;
/// How differently busy terminals are: the standard deviation of the logarithm of their shares.
const BUSYNESS: f64 = 0.8;

/// How cards are read, and the share of sales.
pub(crate) const ENTRY_MODES: [(EntryMode, f64); 5] = [
    (EntryMode::Contactless, 0.55),
    (EntryMode::Qr, 0.22),
    (EntryMode::Chip, 0.19),
    (EntryMode::MagneticStripe, 0.035),
    (EntryMode::Keyed, 0.005),
];

/// Carriers: how a shop reaches the internet by them, and the share of shops. In each province they differ by up to a factor of 1.5.
const CARRIERS: [Carrier; 6] = [
    Carrier { name: "china-mobile", access: AccessNetwork::Cellular4g, apn: "cmnet", share: 0.27 },
    Carrier { name: "china-telecom", access: AccessNetwork::Cellular4g, apn: "ctnet", share: 0.17 },
    Carrier { name: "china-unicom", access: AccessNetwork::Cellular4g, apn: "3gnet", share: 0.16 },
    Carrier { name: "china-telecom-fixed", access: AccessNetwork::Wifi, apn: "", share: 0.19 },
    Carrier { name: "china-unicom-fixed", access: AccessNetwork::Wifi, apn: "", share: 0.12 },
    Carrier { name: "china-mobile-fixed", access: AccessNetwork::Ethernet, apn: "", share: 0.09 },
];

/// The acquirer's hosts, and the share of shops.
const HOSTS: [(&str, f64); 3] = [("pos-1", 0.45), ("pos-2", 0.33), ("pos-3", 0.22)];

/// Chains, which have their shops in all provinces. A shop of none has no merchant group.
const CHAINS: [&str; 12] = [
    "chain-01", "chain-02", "chain-03", "chain-04", "chain-05", "chain-06", "chain-07", "chain-08", "chain-09", "chain-10", "chain-11",
    "chain-12",
];

#[derive(Clone, Copy, Debug)]
struct Carrier {
    name: &'static str,
    access: AccessNetwork,
    apn: &'static str,
    share: f64,
}

/// A bank whose cards are presented.
#[derive(Debug, Deserialize)]
pub(crate) struct Issuer {
    #[serde(rename = "issuer")]
    pub(crate) name: String,
    #[serde(rename = "name_zh_cn")]
    _name_zh_cn: String,
    pub(crate) name_en: String,
    share: f64,
    home: String,
    bins: String,
}

impl Issuer {
    /// Leading digits of its cards.
    pub(crate) fn bins(&self) -> impl Iterator<Item = &str> {
        self.bins.split(' ')
    }
}

#[derive(Debug, Deserialize)]
struct Region {
    #[serde(rename = "region")]
    code: String,
    #[serde(rename = "name_zh_cn")]
    _name_zh_cn: String,
    #[serde(rename = "name_en")]
    _name_en: String,
    share: f64,
}

#[derive(Debug, Deserialize)]
struct Model {
    model: String,
    firmware: String,
    share: f64,
}

/// What the world is made of.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) issuers: Vec<Issuer>,
    regions: Vec<Region>,
    models: Vec<Model>,
}

impl Tables {
    /// The tables that come with the program.
    pub(crate) fn built_in() -> &'static Tables {
        static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
            issuers: table(include_str!("../data/issuers.csv")),
            regions: table(include_str!("../data/regions.csv")),
            models: table(include_str!("../data/models.csv")),
        });
        &TABLES
    }

    pub(crate) fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(|issuer| issuer.name.as_str())
    }

    pub(crate) fn regions(&self) -> impl Iterator<Item = &str> {
        self.regions.iter().map(|region| region.code.as_str())
    }

    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(|model| model.model.as_str())
    }

    pub(crate) fn firmwares_of(&self, model: &str) -> impl Iterator<Item = &str> {
        self.models.iter().filter(move |known| known.model == model).map(|known| known.firmware.as_str())
    }

    /// The share of each issuer's cards among those that are presented in a region.
    fn issuer_shares(&self, region: &Region) -> Vec<f64> {
        let whole: f64 = self.regions.iter().map(|region| region.share).sum();
        let part = region.share / whole;
        let share = |issuer: &Issuer| match issuer.home.as_str() {
            "" => issuer.share,
            home if home == region.code => issuer.share * AT_HOME / part,
            _ => issuer.share * (1.0 - AT_HOME) / (1.0 - part),
        };
        normalised(self.issuers.iter().map(share).collect())
    }
}

#[expect(clippy::expect_used, reason = "constants that a test reads")]
fn table<T: DeserializeOwned>(text: &str) -> Vec<T> {
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().expect("a constant")
}

/// What people call an issuer.
pub(crate) fn issuer_name(issuer: &str) -> &'static str {
    let issuers = &Tables::built_in().issuers;
    issuers.iter().find(|known| known.name == issuer).map_or("an unknown bank", |known| &known.name_en)
}

pub(crate) fn hosts() -> [&'static str; HOSTS.len()] {
    HOSTS.map(|(host, _)| host)
}

pub(crate) fn carriers() -> [&'static str; CARRIERS.len()] {
    CARRIERS.map(|carrier| carrier.name)
}

pub(crate) fn merchant_groups() -> [&'static str; CHAINS.len()] {
    CHAINS
}

/// A terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) id: String,
    pub(crate) merchant: String,
    pub(crate) store: String,
    pub(crate) host: &'static str,
    pub(crate) profile: TerminalProfile,
    /// Its province, as an index into [`Fleet::issuer_shares`].
    pub(crate) region: usize,
    /// Its share of all sales.
    pub(crate) share: f64,
}

/// All terminals, and whose cards they see.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) terminals: Vec<Terminal>,
    /// How many shops they are in.
    pub(crate) stores: usize,
    /// By region, the share of each issuer.
    pub(crate) issuer_shares: Vec<Vec<f64>>,
}

/// What all terminals of a shop have in common.
struct Store {
    merchant: String,
    id: String,
    group: &'static str,
    region: usize,
    carrier: &'static Carrier,
    host: &'static str,
    busyness: f64,
}

impl Fleet {
    /// Draws the fleet of a scenario.
    pub(crate) fn draw(scenario: &Scenario) -> Fleet {
        let tables = Tables::built_in();
        let mut rng = Pcg64::seed_from_u64(scenario.seed);
        let carrier_shares: Vec<Vec<f64>> = tables.regions.iter().map(|_| carrier_shares(&mut rng)).collect();
        let mut terminals = Vec::new();
        let mut stores = 0;
        let wanted = usize::try_from(scenario.fleet.terminals).unwrap_or(usize::MAX);
        while terminals.len() < wanted {
            stores += 1;
            let store = draw_store(stores, tables, &carrier_shares, &mut rng);
            let tills = choose(&[(1, 0.6), (2, 0.25), (3, 0.1), (5, 0.05)], |(_, share)| *share, &mut rng).0;
            for _ in 0..tills.min(wanted - terminals.len()) {
                let number = terminals.len() + 1;
                terminals.push(draw_terminal(number, &store, tables, &mut rng));
            }
        }
        let whole: f64 = terminals.iter().map(|terminal| terminal.share).sum();
        for terminal in &mut terminals {
            terminal.share /= whole;
        }
        let issuer_shares = tables.regions.iter().map(|region| tables.issuer_shares(region)).collect();
        Fleet { terminals, stores, issuer_shares }
    }
}

fn carrier_shares(rng: &mut Pcg64) -> Vec<f64> {
    normalised(CARRIERS.iter().map(|carrier| carrier.share * rng.random_range(0.67..1.5)).collect())
}

fn draw_store(number: usize, tables: &Tables, carrier_shares: &[Vec<f64>], rng: &mut Pcg64) -> Store {
    let place = choose(&Vec::from_iter(tables.regions.iter().enumerate()), |(_, region)| region.share, rng).0;
    let shares = carrier_shares.get(place).map_or(&[][..], Vec::as_slice);
    let carriers: Vec<(&Carrier, f64)> = CARRIERS.iter().zip(shares.iter().copied()).collect();
    let group = if rng.random_bool(OF_CHAINS) { CHAINS.choose(rng).copied().unwrap_or_default() } else { "" };
    Store {
        // 15 digits: acquirer, place, category (ISO 18245: a grocer, a department store), and a number. The fleet is larger than four digits tell apart
        // only where it has more than 10,000 shops of a kind in a province.
        merchant: format!("898{}{}{:04}", place_code(tables, place), if group.is_empty() { "5411" } else { "5311" }, number % 10_000),
        id: format!("S-{number:05}"),
        group,
        region: place,
        carrier: choose(&carriers, |(_, share)| *share, rng).0,
        host: choose(&HOSTS, |(_, share)| *share, rng).0,
        busyness: busyness(rng),
    }
}

/// The first four digits of the province.
fn place_code(tables: &Tables, place: usize) -> &str {
    tables.regions.get(place).and_then(|region| region.code.get(..4)).unwrap_or("0000")
}

fn draw_terminal(number: usize, store: &Store, tables: &Tables, rng: &mut Pcg64) -> Terminal {
    let model = choose(&tables.models, |model| model.share, rng);
    Terminal {
        id: format!("SIM-{number:06}"),
        merchant: store.merchant.clone(),
        store: store.id.clone(),
        host: store.host,
        profile: TerminalProfile {
            model: model.model.clone(),
            firmware: model.firmware.clone(),
            application: "simulated-pos 1.0.0".into(),
            region: tables.regions.get(store.region).map(|region| region.code.clone()).unwrap_or_default(),
            access_network: store.carrier.access.into(),
            carrier: store.carrier.name.into(),
            apn: store.carrier.apn.into(),
            merchant_group: store.group.into(),
            ..TerminalProfile::default()
        },
        region: store.region,
        share: store.busyness * busyness(rng).sqrt(),
    }
}

fn busyness(rng: &mut Pcg64) -> f64 {
    // The parameters are constants, and right.
    LogNormal::new(0.0, BUSYNESS).map_or(1.0, |busyness| busyness.sample(rng))
}

/// One of `all` by its share, of which there is at least one above nothing.
#[expect(clippy::expect_used, reason = "every caller has constants, or a table that a test reads")]
pub(crate) fn choose<'a, T>(all: &'a [T], share: impl Fn(&T) -> f64, rng: &mut Pcg64) -> &'a T {
    all.choose_weighted(rng, share).expect("there are shares")
}

fn normalised(mut shares: Vec<f64>) -> Vec<f64> {
    let whole: f64 = shares.iter().sum();
    for share in &mut shares {
        *share /= whole;
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::scenario::FleetSize;

    fn fleet(seed: u64, terminals: u32) -> Fleet {
        Fleet::draw(&Scenario { seed, fleet: FleetSize { terminals, ..FleetSize::default() }, ..Scenario::default() })
    }

    #[test]
    fn the_seed_decides() {
        let said = |fleet: &Fleet| format!("{:?}", fleet.terminals);
        assert_eq!(said(&fleet(1, 50)), said(&fleet(1, 50)));
        assert_ne!(said(&fleet(1, 50)), said(&fleet(2, 50)));
        assert_eq!(fleet(1, 1).terminals.len(), 1);
    }

    #[test]
    fn every_table_is_whole() {
        let tables = Tables::built_in();
        let whole = |shares: Vec<f64>| assert!((shares.iter().sum::<f64>() - 100.0).abs() < 1e-6, "{shares:?}");
        whole(tables.issuers.iter().map(|issuer| issuer.share).collect());
        whole(tables.regions.iter().map(|region| region.share).collect());
        whole(tables.models.iter().map(|model| model.share).collect());
        let one = |shares: Vec<f64>| assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
        one(ENTRY_MODES.iter().map(|(_, share)| *share).collect());
        one(CARRIERS.iter().map(|carrier| carrier.share).collect());
        one(HOSTS.iter().map(|(_, share)| *share).collect());
    }

    /// A simulated card is of the bank that the classifier takes it for.
    #[test]
    fn the_classifier_knows_the_cards() {
        #[derive(Deserialize)]
        struct Known {
            prefix: String,
            issuer: String,
        }
        let known: Vec<Known> = table(include_str!("../../../crates/verdict/data/issuers.csv"));
        let known: HashMap<&str, &str> = known.iter().map(|row| (row.prefix.as_str(), row.issuer.as_str())).collect();
        for issuer in &Tables::built_in().issuers {
            for bin in issuer.bins() {
                let longest = (1..=bin.len()).rev().find_map(|length| known.get(&bin[..length]));
                assert_eq!(longest, Some(&issuer.name.as_str()), "{bin}");
                assert!((6..=8).contains(&bin.len()), "{bin}");
            }
        }
    }

    #[test]
    fn the_largest_banks_are_everywhere_and_local_ones_at_home() {
        let tables = Tables::built_in();
        let (beijing, guangdong) = (&tables.regions[0], tables.regions.iter().find(|region| region.code == "440000").unwrap());
        let share = |region, issuer: &str| {
            let place = tables.issuers().position(|known| known == issuer).unwrap();
            tables.issuer_shares(region)[place]
        };
        assert!(share(beijing, "bob") > 20.0 * share(guangdong, "bob"));
        assert!(share(beijing, "icbc") > 0.1 && share(guangdong, "icbc") > 0.1);
    }

    #[test]
    fn a_fleet_has_a_bit_of_everything_in_names_that_the_contract_takes() {
        let fleet = fleet(1, 3000);
        let distinct = |of: fn(&Terminal) -> &str| fleet.terminals.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|terminal| &terminal.id), 3000);
        assert_eq!(distinct(|terminal| &terminal.profile.region), 31);
        assert_eq!(distinct(|terminal| &terminal.profile.carrier), 6);
        assert_eq!(distinct(|terminal| terminal.host), 3);
        assert_eq!(distinct(|terminal| &terminal.profile.merchant_group), 13);
        assert_eq!(distinct(|terminal| &terminal.store), fleet.stores);
        assert!(fleet.terminals.iter().all(|terminal| terminal.merchant.len() == 15 && terminal.share > 0.0));
        let busiest = fleet.terminals.iter().map(|terminal| terminal.share).fold(0.0, f64::max);
        assert!((0.002..0.05).contains(&busiest), "{busiest}");
    }
}
