//! Every state within small bounds. `make model` goes further.

use std::io::{Write, stderr};

use crate::{Bounds, Protocol, Report, Variant};

/// Checks, and says how much was looked at, also when tests are silent.
fn check(variant: Variant, bounds: Bounds) -> Report {
    let report = Report::of(Protocol { variant, bounds });
    stderr().write_all(report.to_string().as_bytes()).unwrap();
    report
}

fn assert_holds(report: &Report) {
    let failing: String = report.findings.iter().filter(|finding| !finding.holds).map(ToString::to_string).collect();
    assert!(failing.is_empty(), "{report}{failing}");
}

#[test]
fn no_reachable_state_loses_or_doubles() {
    for bounds in Bounds::SMALL {
        assert_holds(&check(Variant::Real, bounds));
    }
}

#[test]
fn every_part_of_the_protocol_is_needed() {
    for (variant, property) in Variant::BROKEN {
        let report = check(variant, variant.least());
        assert!(!report.finding(property).unwrap().holds, "{report}: {property:?} holds all the same");
    }
}

#[test]
fn a_commit_before_the_sums_would_need_no_clock() {
    assert_holds(&check(Variant::CommitsForClock, Bounds::LEAST));
}
