//! Chaos: while terminals report, every part is killed, stopped and cut off, disks are full and inserts are refused; in the end, what was acknowledged is
//! there once, in the rows and in every family.
//!
//! ```text
//! writers ─▶ 2 gateways ─▶ Kafka ─▶ 2 classifiers ─▶ ClickHouse ◀─ alerter (settles by corrections meanwhile)
//!         ╰ a `Link` between any two; Kafka tells everyone to come through theirs ╯
//! ```
//!
//! Two lanes of faults run at once, as [`schedule`] draws them from a seed. `make chaos` runs all of it, `make test` one round.

mod audit;
pub(crate) mod disk;
pub(crate) mod link;
mod parts;
mod schedule;
mod whereabouts;
mod writers;

use std::time::Duration;

use tokio::time::Instant;

use crate::chaos::audit::audit;
use crate::chaos::parts::{Place, Victim};
use crate::chaos::schedule::{Fault, Planned, Schedule};
use crate::chaos::writers::{Volume, Writers};

/// How long the parts may take to work again after a fault, before the next one comes anyway.
const RECOVERY: Duration = Duration::from_secs(30);
/// How long a run goes on for the sake of its volume when all faults are over.
const LONGEST: Duration = Duration::from_secs(17 * 60);

/// How much is done.
struct Extent {
    rounds: usize,
    /// Events that are acknowledged, at least.
    events: u64,
    volume: Volume,
    disk_mib: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_parts_nothing_is_lost_and_nothing_doubled() {
    let volume = Volume { terminals: 40, events_a_batch: 50, pause: Duration::from_millis(800) };
    run(seed().unwrap_or(1), &Extent { rounds: 1, events: 50_000, volume, disk_mib: 512 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes up to 20 minutes: `make chaos`"]
async fn a_million_events_under_fire() {
    let volume = Volume { terminals: 60, events_a_batch: 100, pause: Duration::from_millis(1000) };
    let seed = seed().unwrap_or_else(|| fastrand::u64(1..1_000_000));
    run(seed, &Extent { rounds: 5, events: 1_000_000, volume, disk_mib: 1024 }).await;
}

/// The one that is asked for, if any is.
fn seed() -> Option<u64> {
    let seed = std::env::var_os("FAULTLINE_CHAOS_SEED").filter(|seed| !seed.is_empty())?;
    let number = seed.to_str().and_then(|seed| seed.parse().ok());
    Some(number.unwrap_or_else(|| panic!("the seed {seed:?} is not a number")))
}

async fn run(seed: u64, extent: &Extent) {
    println!("chaos: seed {seed}; `make chaos SEED={seed}` repeats its schedule");
    let mut schedule = Schedule::new(seed, extent.rounds);
    let place = Place::new(seed, extent.disk_mib);
    if !place.has_disks() {
        println!("chaos: NOT TESTED: full disks, for this user may not mount a small one");
        let fills = |planned: &Planned| matches!(planned.fault, Fault::FillKafka | Fault::FillClickHouse);
        schedule.front.retain(|planned| !fills(planned));
        schedule.back.retain(|planned| !fills(planned));
    }
    let (mut front, mut back) = place.start().await;
    let writers = Writers::start(front.ways(), extent.volume);
    until(Duration::from_secs(120), "something is counted", async || match back.counted().await {
        0 => Err("nothing is".into()),
        _ => Ok(()),
    })
    .await;

    let begin = Instant::now();
    tokio::join!(lane(&mut front, &schedule.front, (begin, &writers)), lane(&mut back, &schedule.back, (begin, &writers)));
    println!("chaos: {:.0} s: all faults are over, {} events are acknowledged", begin.elapsed().as_secs_f32(), writers.acknowledged());
    while writers.acknowledged() < extent.events && begin.elapsed() < LONGEST {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("chaos: {:?}; connections that the networks broke: {}", writers.counts(), front.broken() + back.broken());
    let acknowledged = writers.stop().await;
    let events = acknowledged.iter().sum::<u64>();
    println!("chaos: {:.0} s: the terminals have stopped, {events} events are acknowledged", begin.elapsed().as_secs_f32());
    audit(&acknowledged, &front, &back).await;
    println!("chaos: {:.0} s: of {events} events 0 are lost and 0 doubled, in the rows and in every family", begin.elapsed().as_secs_f32());
    assert!(events >= extent.events, "only {events} events were acknowledged");
    front.stop().await;
    back.stop().await;
}

/// Does one thing after the other to parts, each when they work again after the one before.
async fn lane(victim: &mut impl Victim, plan: &[Planned], (begin, writers): (Instant, &Writers)) {
    for planned in plan {
        tokio::time::sleep(planned.pause).await;
        println!(
            "chaos: {:>4.0} s, {:>8} events: {} ({}), {:.1} s",
            begin.elapsed().as_secs_f32(),
            writers.acknowledged(),
            planned.fault,
            planned.which,
            planned.lasts.as_secs_f32()
        );
        victim.suffer(planned, writers).await;
        let before = victim.progress(writers).await;
        let over = Instant::now();
        while victim.progress(writers).await <= before && over.elapsed() < RECOVERY {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Waits until something is so, and asserts that it is within this time.
async fn until(patience: Duration, what: &str, is_so: impl AsyncFn() -> Result<(), String>) {
    if let Err(instead) = wait(patience, is_so).await {
        panic!("{what}: not within {patience:?}; {instead}");
    }
}

/// Waits until something is so; what is instead, if that takes longer.
async fn wait(patience: Duration, is_so: impl AsyncFn() -> Result<(), String>) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        match is_so().await {
            Err(_) if begin.elapsed() < patience => tokio::time::sleep(Duration::from_millis(200)).await,
            said => return said,
        }
    }
}
