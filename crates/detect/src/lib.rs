//! When a part of the fleet fails more than it should, and which part it is. Pure: no clock, no file, no network; the same ticks give the same
//! incidents.
//!
//! # Model
//!
//! Attempts are counted in ticks of ten seconds of event time, by [`Slice`] (of each family that the fleet is cut into) and by [`Class`] of how they
//! ended. For each slice and class there is a usual rate at this hour of the week (`baseline`), and a level at which it is now, that follows drifts
//! slowly (`drift`). What stands out is found in two steps:
//!
//! 1. **Suspicion.** Over windows of one tick to nearly an hour, the failures of each class are compared with the rate that is to be expected, and
//!    approvals with the expected number, by a likelihood ratio that a drift of some ten percent does not move (`evidence`). Several windows at once are
//!    a generalised likelihood-ratio scan over the moment of change (Lorden, 1971; Lai, 1995). Each class is tested alone: a fifth of a bank's
//!    transactions failing is a hundred times its usual rate of "issuer down", and three times its usual failures.
//! 2. **Name.** A fault shows in every slice that overlaps it. The failing attempts of the window, with all their values (*leaves*), are summed in all
//!    slices; the one whose excess is most evident, less the price of its narrowness (Bayesian information, roughly), is the fault. Its failures are
//!    then taken out of all slices, and what still stands out is another fault. One shop whose till tries a hundred times is one witness, so four failures that
//!    count are of three shops at least. As more is known the name is looked at again: it may be narrower, wider, or that of the other slice in which
//!    most of the failures are.
//!
//! How much evidence is asked for grows with the logarithm of the number of slices and of the days of which one may have a false incident
//! ([`Settings`]), and falls with that of the window: there are fewer long windows in a month than short ones, so fewer of them look so by chance.
//!
//! Missing approvals are compared with what is usual for the slice at this moment, at its level before relative to the rest of the fleet (at most the
//! usual one), and as busy as the rest of the fleet is now, but no busier than that was before: neither the end of a flash sale nor a fleet that is quiet as a whole is a fault of a slice.
//!
//! An incident closes when approvals at the usual rate make that likelier than the fault by `e^9` (and more, the longer it has lasted), for at least
//! half a minute: a cumulative sum (Page, 1954). Without traffic it is unobserved. One that comes back soon is the same again. Whatever fails where
//! maintenance was announced ([`Announced`]) is the maintenance.
//!
//! # Assumptions
//!
//! At first failures vary by a quarter more than independent ones (customers try again), approvals by a tenth. The logarithm of a rate drifts with a
//! standard deviation of a fifth over hours, of 0.15 within the time until it is learnt, and as much from minute to minute; that of a slice's share of the
//! approvals with 0.11. The sizes of these drifts follow those of the simulated fleets of the yardstick (`make bench-detect`), as its generator has them,
//! but for the 0.15 until it is learnt, which are more (`drift` has the 0.13 that follow).
//! Where a fleet varies more than that, it is learnt from its own time without faults, class by class (`dispersion`), over days; where it varies less, it is not.
//!
//! # Memory
//!
//! A slice takes 5.8 kB for the hour of ticks that is kept (running sums of attempts, approvals and what is usual: 16 bytes a tick), eight bytes for each tick and
//! class in which something failed, and 2 to 3 kB for what is usual in it and how it drifts. A slice of which nothing was seen for an hour takes nothing but
//! what is usual. Places of leaves are remembered up to two hundred thousand.
//!
//! # Limits
//!
//! Nothing is concluded of a fleet of which less than half an hour is known, nor of a slice with fewer than fifty attempts of its own at such hours.
//! A slice is one of the counted families, not any combination of values: which of these its failures have in common, [`drilldown`] finds afterwards.
//! Which hours say what is usual, whoever drives the detector takes from a [`Calendar`]; without one, hours of the week are those of UTC, and a holiday is
//! only seen as a fleet that is quiet as a whole. What terminals that fall silent have in common is found by [`silence`], which opens no incident; here they
//! are approvals that are missing in their slices. Times are seconds since 1970-01-01 UTC; evidence is in nats.

mod announced;
mod baseline;
mod calendar;
mod class;
mod detector;
mod dispersion;
mod drift;
pub mod drilldown;
mod evidence;
mod fleet;
mod incident;
mod leaf;
pub mod localise;
mod series;
mod settings;
pub mod silence;
mod slice;

pub use faultline_proto::verdict::v1::Cause;

pub use crate::announced::Announced;
pub use crate::baseline::{Counts, Observed, Past, PastCounts};
pub use crate::calendar::{Calendar, CalendarError, HourLike};
pub use crate::class::{Class, Signal};
pub use crate::detector::{Change, Detector, Question, Tick, What};
pub use crate::incident::{Incident, State, Watch};
pub use crate::leaf::Leaf;
pub use crate::settings::Settings;
pub use crate::slice::{Dimension, NoSlice, Slice};
