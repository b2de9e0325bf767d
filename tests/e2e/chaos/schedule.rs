//! What is done to the parts, and when: drawn from a seed, the same for the same seed.

use std::fmt;
use std::time::Duration;

/// One thing that is done to a part, and undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillGateway,
    KillClassifier,
    KillAlerter,
    KillKafka,
    KillClickHouse,
    /// In the middle of an insert, and for longer than the others wait for it.
    StopClassifier,
    StopKafka,
    StopClickHouse,
    Cut(Between),
    Silence(Between),
    Slow(Between),
    RefuseInserts,
    FillKafka,
    FillClickHouse,
    /// It leaves as it is asked to, and joins again.
    ClassifierLeaves,
    ClocksJump,
}

/// Two parts with a network between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    TerminalsAndGateway,
    GatewaysAndKafka,
    ClassifierAndKafka,
    AlerterAndKafka,
    ClassifierAndClickHouse,
    AlerterAndClickHouse,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = match self {
            Fault::KillGateway => "SIGKILL of a gateway",
            Fault::KillClassifier => "SIGKILL of a classifier",
            Fault::KillAlerter => "SIGKILL of the alerter",
            Fault::KillKafka => "SIGKILL of Kafka",
            Fault::KillClickHouse => "SIGKILL of ClickHouse",
            Fault::StopClassifier => "SIGSTOP of a classifier in the middle of an insert",
            Fault::StopKafka => "SIGSTOP of Kafka",
            Fault::StopClickHouse => "SIGSTOP of ClickHouse",
            Fault::Cut(between) => return write!(formatter, "the network is cut between {between}"),
            Fault::Silence(between) => return write!(formatter, "the network is half open between {between}"),
            Fault::Slow(between) => return write!(formatter, "the network is slow between {between}"),
            Fault::RefuseInserts => "ClickHouse refuses inserts",
            Fault::FillKafka => "Kafka's disk is full",
            Fault::FillClickHouse => "ClickHouse's disk is full",
            Fault::ClassifierLeaves => "a classifier leaves and joins",
            Fault::ClocksJump => "the terminals' clocks jump",
        };
        formatter.write_str(plain)
    }
}

impl fmt::Display for Between {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Between::TerminalsAndGateway => "terminals and a gateway",
            Between::GatewaysAndKafka => "gateways and Kafka",
            Between::ClassifierAndKafka => "a classifier and Kafka",
            Between::AlerterAndKafka => "the alerter and Kafka",
            Between::ClassifierAndClickHouse => "a classifier and ClickHouse",
            Between::AlerterAndClickHouse => "the alerter and ClickHouse",
        })
    }
}

/// One thing that is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Since what was done before is over.
    pub(crate) pause: Duration,
    pub(crate) fault: Fault,
    /// To which of two of a kind: 0 or 1.
    pub(crate) which: usize,
    pub(crate) lasts: Duration,
}

/// What is done at the same time, one after the other each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// To the terminals, gateways, Kafka and the alerter.
    pub(crate) front: Vec<Planned>,
    /// To the classifiers and ClickHouse.
    pub(crate) back: Vec<Planned>,
}

const FRONT: [Fault; 6] = [Fault::KillGateway, Fault::KillAlerter, Fault::KillKafka, Fault::StopKafka, Fault::FillKafka, Fault::ClocksJump];
const BACK: [Fault; 7] = [
    Fault::KillClassifier,
    Fault::KillClickHouse,
    Fault::StopClassifier,
    Fault::StopClickHouse,
    Fault::RefuseInserts,
    Fault::FillClickHouse,
    Fault::ClassifierLeaves,
];
const NETWORK: [fn(Between) -> Fault; 3] = [Fault::Cut, Fault::Silence, Fault::Slow];
const FRONT_NETWORKS: [Between; 4] =
    [Between::TerminalsAndGateway, Between::GatewaysAndKafka, Between::ClassifierAndKafka, Between::AlerterAndKafka];
const BACK_NETWORKS: [Between; 2] = [Between::ClassifierAndClickHouse, Between::AlerterAndClickHouse];

impl Schedule {
    /// Rounds in each of which everything is done once, in an order of its own: of the networks of the front all three kinds, of those of the back one.
    pub(crate) fn new(seed: u64, rounds: usize) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let first = random.usize(..FRONT_NETWORKS.len());
        for round in 0..rounds {
            let mut of_front = FRONT.to_vec();
            let networks = NETWORK.iter().enumerate();
            of_front.extend(networks.map(|(kind, fault)| fault(FRONT_NETWORKS[(first + round + kind) % FRONT_NETWORKS.len()])));
            let mut of_back = BACK.to_vec();
            of_back.push(NETWORK[(first + round) % NETWORK.len()](BACK_NETWORKS[round % BACK_NETWORKS.len()]));
            for (faults, lane) in [(&mut of_front, &mut front), (&mut of_back, &mut back)] {
                random.shuffle(faults);
                lane.extend(faults.iter().map(|fault| Planned::new(*fault, &mut random)));
            }
        }
        Schedule { front, back }
    }
}

impl Planned {
    fn new(fault: Fault, random: &mut fastrand::Rng) -> Planned {
        let lasts_ms = match fault {
            Fault::KillGateway | Fault::KillClassifier | Fault::KillAlerter | Fault::KillKafka | Fault::KillClickHouse => 500..4000,
            Fault::StopClassifier | Fault::StopKafka | Fault::StopClickHouse => 8000..11_000,
            Fault::Cut(_) | Fault::Silence(_) | Fault::Slow(_) => 3000..8000,
            Fault::RefuseInserts | Fault::FillKafka | Fault::FillClickHouse => 4000..7000,
            Fault::ClassifierLeaves => 1000..6000,
            Fault::ClocksJump => 0..1,
        };
        let (pause, lasts) = (random.u64(500..2500), random.u64(lasts_ms));
        Planned { pause: Duration::from_millis(pause), fault, which: random.usize(..2), lasts: Duration::from_millis(lasts) }
    }
}

#[test]
fn a_seed_gives_one_schedule_in_which_everything_is_done_as_often_as_there_are_rounds() {
    let schedule = Schedule::new(7, 5);
    assert_eq!(schedule, Schedule::new(7, 5));
    assert_ne!(schedule, Schedule::new(8, 5));
    let all = || schedule.front.iter().chain(&schedule.back).map(|planned| planned.fault);
    for fault in FRONT.into_iter().chain(BACK) {
        assert_eq!(all().filter(|planned| *planned == fault).count(), 5, "{fault}");
    }
    for network in NETWORK {
        let is_of_kind = |fault: &Fault| FRONT_NETWORKS.into_iter().chain(BACK_NETWORKS).any(|between| *fault == network(between));
        assert!(all().filter(is_of_kind).count() >= 5);
    }
    for between in FRONT_NETWORKS.into_iter().chain(BACK_NETWORKS) {
        assert!(all().any(|fault| NETWORK.iter().any(|network| fault == network(between))), "{between}");
    }
}
