//! Whose fault failures are, seen together. One outcome leaves it open whether a timeout is the bank's, the carrier's or the shop's; a thousand of them do
//! not. This crate takes a fleet's attempts of a time, finds the parts of the fleet that failed and when, and says of each ambiguous failure what it belongs to. It
//! is pure: no clock, no I/O, no chance.
//!
//! # Model
//!
//! Failures of one *symptom* ([`faultline_verdict::Reason::symptom`]) have the same possible faults: parts of the fleet, each a value of one *family* (an issuer, a carrier
//! in a region, a terminal, a card), for a time. A sale that is tried five times is one witness. In ten seconds, `k` sales of a part fail in `n` attempts
//!
//! ```text
//! k ~ Poisson(n · (β + Σ λ_f))      over the faults f that it lies in
//! ```
//!
//! with the usual rate `β` of the symptom and a rate `λ_f` of each fault. Parts differ, so what is usual in one is `Gamma(S, S/β)` before anything is known, and what
//! the part itself did at other times is added to that. What failures look like (their reason and response code, the *mark*) has a distribution for each fault.
//!
//! # Finding faults
//!
//! Of every part the interval is searched that speaks most for a fault: the largest sum of `k ln r - n p (r - 1)` over consecutive times, for a ladder of ratios `r` (Kulldorff's
//! scan statistic for one cylinder each). It is then weighed as
//!
//! ```text
//! ln P(k | a fault of unknown rate) - ln P(k | Gamma-Poisson of what is usual) + ln odds of such a fault - ln (number of intervals)
//! ```
//!
//! The odds are those of the rule set (`faults_per_day`), so what is rare needs more evidence. The part with the most is a fault; the failures that it explains are
//! taken out by their posterior weight, rates and marks of all faults are fitted again (expectation maximisation), and the search goes on with what is left, until
//! nothing has more than even odds. A fault that the others explain meanwhile is dropped. So a silent issuer that is strong in one province is found as the issuer.
//! In a second round, parts that failed with one symptom are more likely to have failed with another.
//!
//! # Settling
//!
//! A failure belongs to each fault that it lies in with `π_f λ_f g_f(mark)`, to none with `β g_0(mark)`; `π_f` is the probability that there is that fault. The
//! cause with the most is the cause, and its share the confidence: of a hundred failures settled with 90 %, ninety have that cause. What belongs to no fault keeps the verdict of its outcome, or is what the rule
//! set says of a failure that nothing else fails with.
//!
//! # Assumptions
//!
//! Faults begin and end at once, and fail at one rate meanwhile. A sale's attempts have one cause. A part that always failed more than others, and is within what parts differ by,
//! is usual. Reversals and queries are no attempts: they are answered while everything else is not.

mod fault;
mod fleet;
mod mixture;
mod scan;
mod series;
#[cfg(test)]
mod tests;

pub use crate::fault::{Fault, Settled, Settlement};
pub use crate::fleet::{Attempt, Fleet};
