//! Which of several sets judges an outcome. Everything is laid out when the rules are read: an outcome costs three look-ups.

use std::collections::HashMap;

use faultline_proto::outcome::v1::{CardNetwork, Outcome};

use super::{RuleSet, RulesError};

/// For each acquirer, network and specification that tells sets apart, the sets that may judge.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// From 1; 0 is any other.
    acquirers: HashMap<String, usize>,
    /// From 1; 0 is an outcome that states none, or one that nobody knows.
    specs: HashMap<String, usize>,
    /// Networks of the contract; the last stands for those of a newer one.
    networks: usize,
    /// Sets, the most specific first, by acquirer, network and specification.
    cells: Vec<Vec<usize>>,
    /// The set for what is left.
    home: usize,
}

/// How specific a set is for an outcome, the greatest first: for its acquirer, its network, its specification; the home one.
type Rank = [bool; 4];

impl Choice {
    pub(super) fn new(sets: &[RuleSet]) -> Result<Choice, RulesError> {
        let homes = || sets.iter().enumerate().filter(|(_, set)| set.judges && set.home && set.acquirer.is_none());
        let Some((home, _)) = homes().next() else {
            let place = sets.last().map(|set| set.place.clone()).unwrap_or_default();
            return Err(RulesError { place, reason: "no set is `home`, for outcomes that do not say which network they are of".into() });
        };
        let numbered = |mut names: Vec<&str>| {
            names.sort_unstable();
            names.dedup();
            names.into_iter().map(str::to_owned).zip(1..).collect::<HashMap<_, _>>()
        };
        let acquirers = numbered(sets.iter().filter_map(|set| set.acquirer.as_deref()).collect());
        let specs = numbered(sets.iter().flat_map(|set| &set.specs).map(String::as_str).collect());
        let networks = (0..).map_while(|number| CardNetwork::try_from(number).ok()).count() + 1;
        let mut choice = Choice { cells: Vec::new(), home, networks, acquirers: HashMap::new(), specs: HashMap::new() };
        for acquirer in in_order(&acquirers) {
            for network in 0..networks {
                for spec in in_order(&specs) {
                    choice.cells.push(ranked(sets, acquirer, i32::try_from(network).unwrap_or(i32::MAX), spec)?);
                }
            }
        }
        Ok(Choice { acquirers, specs, ..choice })
    }

    /// The sets that may judge an outcome, the most specific first, by its specification; and those without regard to it.
    pub(super) fn candidates(&self, outcome: &Outcome) -> (&[usize], &[usize]) {
        let number = |names: &HashMap<String, usize>, name: &str| if name.is_empty() { 0 } else { names.get(name).copied().unwrap_or(0) };
        let acquirer = if self.acquirers.is_empty() { 0 } else { number(&self.acquirers, &outcome.acquirer_id) };
        let newer = self.networks - 1;
        let network = usize::try_from(outcome.network).map_or(newer, |network| network.min(newer));
        let place = (acquirer * self.networks + network) * (self.specs.len() + 1);
        let cell = |spec: usize| self.cells.get(place + spec).map_or(&[][..], Vec::as_slice);
        let spec = number(&self.specs, &outcome.response_spec);
        (if spec > 0 || outcome.response_spec.is_empty() { cell(spec) } else { &[] }, cell(0))
    }

    /// Whether a set may judge anything.
    pub(super) fn has(&self, set: usize) -> bool {
        self.home == set || self.cells.iter().any(|cell| cell.contains(&set))
    }

    pub(super) fn home(&self) -> usize {
        self.home
    }
}

/// Names by their numbers, with none for 0.
fn in_order(names: &HashMap<String, usize>) -> Vec<Option<&str>> {
    let mut names: Vec<(usize, &str)> = names.iter().map(|(name, number)| (*number, name.as_str())).collect();
    names.sort_unstable();
    [None].into_iter().chain(names.into_iter().map(|(_, name)| Some(name))).collect()
}

fn rank(set: &RuleSet, acquirer: Option<&str>, network: i32, spec: Option<&str>) -> Option<Rank> {
    if !set.judges || (set.acquirer.is_some() && set.acquirer.as_deref() != acquirer) {
        return None;
    }
    let knows = |specs: &[String]| spec.is_some_and(|spec| specs.iter().any(|own| own == spec));
    let own_spec = knows(&set.specs);
    if spec.is_some() && !own_spec && !knows(&set.inherited_specs) {
        return None;
    }
    let own_network = if network == 0 { set.home } else { set.network.is_some_and(|own| i32::from(own) == network) };
    let may_judge = own_network || own_spec || set.network.is_none() || (spec.is_none() && set.home);
    may_judge.then_some([set.acquirer.is_some(), own_network, own_spec, set.home])
}

/// The sets that may judge, down to the first that always holds.
fn ranked(sets: &[RuleSet], acquirer: Option<&str>, network: i32, spec: Option<&str>) -> Result<Vec<usize>, RulesError> {
    let mut candidates: Vec<(Rank, usize, &RuleSet)> =
        sets.iter().enumerate().filter_map(|(place, set)| Some((rank(set, acquirer, network, spec)?, place, set))).collect();
    candidates.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
    let mut chosen: Vec<(Rank, usize, &RuleSet)> = Vec::new();
    for (rank, place, set) in candidates {
        if let Some((last, _, before)) = chosen.last()
            && before.force.covers(set.force)
            && *last != rank
        {
            continue;
        }
        let equal = chosen.iter().find(|(other, _, before)| *other == rank && rank != Rank::default() && before.force.overlaps(set.force));
        if let Some((_, _, before)) = equal {
            let reason = format!(
                "set `{}` judges the same outcomes as `{}` ({}): name another network, acquirer or specification, or dates that do not overlap",
                set.version, before.version, before.place
            );
            return Err(RulesError { place: set.place.clone(), reason });
        }
        chosen.push((rank, place, set));
    }
    Ok(chosen.into_iter().map(|(_, place, _)| place).collect())
}
