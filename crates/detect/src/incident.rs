//! One fault, from the first failing attempt until approvals are back.

use faultline_proto::verdict::v1::Cause;

use crate::baseline::real;
use crate::class::{self, Class, Signal};
use crate::fleet::Fleet;
use crate::series::TICK_S;
use crate::slice::Slice;

/// Evidence that the usual is back, in nats, that closes an incident.
const RETURN: f64 = 9.0;
/// More than this is not remembered.
const MOST_RETURN: f64 = 30.0;
/// With so many ticks an incident is a long one.
const LONG_TICKS: f64 = 60.0;
/// Ticks that it must have been back for.
const LEAST_RETURN_TICKS: u32 = 3;
/// A rate up to this many times the usual one is the usual one again.
const RATE_MARGIN: f64 = 1.3;
/// This part of the expected approvals is enough.
const VOLUME_MARGIN: f64 = 0.8;
/// What is left of approvals in a fault of which nothing else is known, and how many expected approvals that is worth.
const LEFT: f64 = 0.25;
const LEFT_PRIOR: f64 = 20.0;
/// Ticks without attempts after which nobody can say how the slice is.
const DARK_TICKS: u32 = 12;
/// What is left of attempts when they are gone, and what must be there for them to be back.
const DARK: f64 = 0.1;
const LIGHT: f64 = 0.2;
/// With fewer attempts in that time, none of them may be chance.
const LEAST_DARK: f64 = 8.0;
/// With fewer approvals expected in that time, none are missing.
const LEAST_EXPECTED: f64 = 1.0;
/// After so many seconds without a sign of it, an incident is not followed any more.
const ABANDONED_AFTER_S: u32 = 86_400;

/// How an incident stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It goes on.
    #[default]
    Open,
    /// Hardly anything is attempted in its slice any more: whether it is over cannot be seen.
    Unobserved,
    /// Approvals are back at the usual rate.
    Closed,
    /// It was unobserved for a day, and is not followed any more: firmware that was replaced has no more attempts.
    Abandoned,
}

impl State {
    /// Whether it is followed.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, State::Open | State::Unobserved)
    }
}

/// One fault. Times are in seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Incident {
    /// What fails.
    pub slice: Slice,
    /// What it was called when it was opened. With `opened`, it tells incidents apart.
    pub first_slice: Slice,
    /// Beginning of the first tick that shows it.
    pub began: u32,
    /// End of the tick that convinced: no earlier could it have been seen.
    pub opened: u32,
    /// End of the tick that convinced that it is over, or after which it was abandoned.
    pub closed: Option<u32>,
    /// Since when it is unobserved: the end of a tick.
    pub unobserved: Option<u32>,
    /// How it stands.
    pub state: State,
    /// What is watched.
    pub watches: Vec<Watch>,
}

/// A signal of an incident, from its beginning until what is usual returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// What is watched.
    pub signal: Signal,
    /// Attempts in the slice.
    pub attempts: u64,
    /// Those that failed so; or approvals, where these are missing.
    pub counted: u64,
    /// What would have been usual.
    pub expected: f64,
    /// What convinced, in nats.
    pub evidence: f64,
    /// Where approvals are missing, how the slice was before, relative to its past.
    pub level: f64,
    /// How plainly the usual is back, in nats, and since which tick.
    pub(crate) back: f64,
    pub(crate) back_since: Option<u32>,
}

/// What was counted in one tick of an incident's slice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) attempts: u64,
    pub(crate) approved: u64,
    /// Failures of the class that is watched.
    pub(crate) failures: u64,
    /// Failures that would be usual; or approvals.
    pub(crate) expected: f64,
}

impl Watch {
    /// Of a signal of which nothing was seen yet.
    #[must_use]
    pub fn of(signal: Signal) -> Watch {
        Watch { signal, attempts: 0, counted: 0, expected: 0.0, evidence: 0.0, level: 1.0, back: 0.0, back_since: None }
    }

    /// Takes in a tick. While the usual seems to be back, nothing is added to the sums: they are of the fault.
    pub(crate) fn step(&mut self, tick: u32, seen: Seen) {
        let back = match self.signal {
            Signal::Failures(_) => self.usual_failures(seen),
            Signal::MissingApprovals => self.usual_approvals(seen),
        };
        // However long all was well: what fails again is seen at once.
        self.back = (self.back + back).clamp(0.0, MOST_RETURN);
        if self.back > 0.0 {
            self.back_since.get_or_insert(tick);
            return;
        }
        self.back_since = None;
        self.add(seen);
    }

    pub(crate) fn add(&mut self, seen: Seen) {
        self.attempts += seen.attempts;
        self.counted += match self.signal {
            Signal::Failures(_) => seen.failures,
            Signal::MissingApprovals => seen.approved,
        };
        self.expected += seen.expected;
    }

    /// How much likelier a tick is at the usual rate than at that of the fault. Only approvals speak for it.
    fn usual_failures(&self, seen: Seen) -> f64 {
        let attempts = real(self.attempts.max(1));
        let usual = (RATE_MARGIN * self.expected / attempts).clamp(1e-6, 0.45);
        let faulty = (real(self.counted) / attempts).clamp(2.0 * usual, 0.99);
        real(seen.approved) * ((1.0 - usual) / (1.0 - faulty)).ln() - real(seen.failures) * (faulty / usual).ln()
    }

    /// The same for approvals: how many there are, beside how many there were.
    fn usual_approvals(&self, seen: Seen) -> f64 {
        // What is counted while the usual seems to be back is not in the sums, so that they tell of less than there is.
        let share = (real(self.counted) + LEFT * LEFT_PRIOR) / (self.expected + LEFT_PRIOR);
        let share = share.clamp(0.01, VOLUME_MARGIN - 0.1);
        real(seen.approved) * (VOLUME_MARGIN / share).ln() - (VOLUME_MARGIN - share) * seen.expected
    }

    /// Whether the usual is back, in something that began in this tick. The longer it lasts, the more often it seems to be over by chance.
    pub(crate) fn is_back(&self, began: u32, now: u32) -> bool {
        let lasted = f64::from((now + 1).saturating_sub(began)) / LONG_TICKS;
        let is_plain = self.back >= RETURN + lasted.max(1.0).ln();
        is_plain && self.back_since.is_some_and(|since| now - since + 1 >= LEAST_RETURN_TICKS)
    }
}

impl Incident {
    /// Whose fault it is.
    #[must_use]
    pub fn cause(&self) -> Cause {
        class::cause(self.watches.iter().map(|watch| watch.signal), &self.slice.kind())
    }

    /// Whose fault it seemed to be by what opened it, which never changes.
    #[must_use]
    pub fn first_cause(&self) -> Cause {
        class::cause(self.watches.first().map(|watch| watch.signal).into_iter(), &self.first_slice.kind())
    }

    /// Whether it explains failures of this class at this place and time.
    pub(crate) fn explains(&self, class: Class, at: &Slice, tick: u32) -> bool {
        let is_during = tick >= self.began / TICK_S && self.closed.is_none_or(|closed| tick < closed / TICK_S);
        is_during && self.watches(Signal::Failures(class)) && self.slice.holds(at)
    }

    /// Whether it takes away so many approvals that whatever is missing in its slice is its doing.
    pub(crate) fn takes_approvals(&self) -> bool {
        self.watches.iter().any(|watch| match watch.signal {
            Signal::MissingApprovals => true,
            Signal::Failures(class) => class.is_silence() || 4 * watch.counted >= watch.attempts,
        })
    }

    pub(crate) fn watches(&self, signal: Signal) -> bool {
        self.watches.iter().any(|watch| watch.signal == signal)
    }

    /// Takes in the last tick, in which so many of a class failed in its slice that nothing else explains. Says whether that changed how it stands.
    pub(crate) fn step(&mut self, fleet: &Fleet, failures: impl Fn(Class) -> u64) -> bool {
        let (now, end) = (fleet.now(), (fleet.now() + 1) * TICK_S);
        for watch in &mut self.watches {
            let failures = watch.signal.class().map_or(0, &failures);
            watch.step(now, Seen { failures, ..seen(fleet, &self.slice, watch, now) });
        }
        let before = self.state;
        if self.watches.iter().all(|watch| watch.is_back(self.began / TICK_S, now)) {
            self.state = State::Closed;
        } else if self.is_dark(fleet) {
            self.state = State::Unobserved;
            let since = *self.unobserved.get_or_insert(end);
            if end - since >= ABANDONED_AFTER_S {
                self.state = State::Abandoned;
            }
        } else {
            self.state = State::Open;
            self.unobserved = None;
        }
        self.closed = (!self.state.is_open()).then_some(end);
        self.state != before
    }

    /// Whether too little happens in its slice to see how it is.
    fn is_dark(&self, fleet: &Fleet) -> bool {
        let lately = fleet.earliest(DARK_TICKS)..=fleet.now();
        if lately.clone().all(|tick| !fleet.is_live(tick)) || fleet.attempts_of_hour(&self.slice) == 0 {
            return true;
        }
        // That approvals are missing is the fault itself, unless none are to be expected.
        if let Some(missing) = self.watches.iter().find(|watch| watch.signal == Signal::MissingApprovals) {
            return self.watches.len() == 1 && fleet.expected_lately(&self.slice, missing.level, &lately) < LEAST_EXPECTED;
        }
        let (attempts, usual) = self.lately(fleet);
        let enough = if self.state == State::Unobserved { LIGHT } else { DARK };
        usual >= LEAST_DARK && attempts < enough * usual
    }

    /// Attempts of the last two minutes, and how many there were in such a time since the fault began.
    fn lately(&self, fleet: &Fleet) -> (f64, f64) {
        let window = fleet.earliest(DARK_TICKS)..=fleet.now();
        let attempts = fleet.series(&self.slice).map_or(0, |series| series.attempts(window.clone()));
        let ticks = f64::from((fleet.now() + 1).saturating_sub(self.began / TICK_S).max(1));
        let all = self.watches.iter().map(|watch| watch.attempts).max().unwrap_or_default();
        (real(attempts), real(all) / ticks * f64::from(DARK_TICKS))
    }
}

/// What a watch sees of a tick. Failures are those that nothing else explains.
pub(crate) fn seen(fleet: &Fleet, slice: &Slice, watch: &Watch, tick: u32) -> Seen {
    let Some(series) = fleet.series(slice) else { return Seen::default() };
    let (attempts, approved) = (series.attempts_at(tick), series.approved_at(tick));
    match watch.signal {
        Signal::Failures(class) => {
            let failures = series.failures(class, &(tick..=tick));
            Seen { attempts, approved, failures, expected: real(attempts) * fleet.rate(slice, class, &(tick..=tick)) }
        }
        Signal::MissingApprovals => Seen { attempts, approved, failures: 0, expected: fleet.expected_now(slice, watch.level) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(attempts: u64, failures: u64) -> Watch {
        let signal = Signal::Failures(Class::IssuerDown);
        Watch { attempts, counted: failures, expected: 0.001 * real(attempts), ..Watch::of(signal) }
    }

    fn tick(attempts: u64, failures: u64) -> Seen {
        Seen { attempts, approved: attempts - failures, failures, expected: 0.001 * real(attempts) }
    }

    #[test]
    fn approvals_at_the_usual_rate_end_it_and_nothing_else_does() {
        let mut watch = failing(30, 29);
        for now in 1..10 {
            watch.step(now, tick(10, 9));
            assert!(!watch.is_back(1, now) && watch.back == 0.0);
        }
        // Nobody tries any more, or nobody succeeds.
        for now in 10..60 {
            watch.step(now, Seen { attempts: 3, ..tick(0, 0) });
            assert!(!watch.is_back(1, now), "{watch:?}");
        }
        let (attempts, failures) = (watch.attempts, watch.counted);
        watch.step(60, tick(10, 0));
        watch.step(61, tick(10, 0));
        assert!(watch.back > RETURN && !watch.is_back(1, 61), "it has not lasted");
        watch.step(62, tick(10, 0));
        assert!(watch.is_back(1, 62));
        assert_eq!((watch.attempts, watch.counted), (attempts, failures), "what came after is not of the fault");
    }

    #[test]
    fn a_bank_that_fails_a_little_is_not_taken_for_well() {
        let mut watch = failing(1000, 200);
        for now in 1..500 {
            watch.step(now, tick(10, 2));
            assert!(!watch.is_back(1, now), "{now}: {watch:?}");
        }
        // A fifth of a small number may be none for a while.
        let mut returned = 500;
        while !watch.is_back(1, returned) {
            returned += 1;
            watch.step(returned, tick(10, 0));
        }
        assert!((503..510).contains(&returned), "{returned}");
    }

    #[test]
    fn missing_approvals_are_back_when_most_of_them_are() {
        let silent = || Watch { attempts: 100, counted: 1, expected: 90.0, ..Watch::of(Signal::MissingApprovals) };
        let seen = |approved| Seen { attempts: 30, approved, failures: 0, expected: 30.0 };
        let mut watch = silent();
        for now in 1..100 {
            watch.step(now, seen(1));
            assert!(!watch.is_back(1, now));
        }
        for now in 100..104 {
            watch.step(now, seen(27));
        }
        assert!(watch.is_back(1, 103), "{watch:?}");
        // None come at all.
        let mut watch = silent();
        for now in 1..100 {
            watch.step(now, Seen { attempts: 0, ..seen(0) });
            assert!(!watch.is_back(1, now));
        }
    }
}
