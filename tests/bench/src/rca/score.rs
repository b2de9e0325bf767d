//! The score of a set: micro F1 over elements, as `score.py` beside the sets has it.

use std::collections::BTreeSet;

/// Elements that were named rightly, wrongly, or not, over instances.
#[derive(Debug, Default)]
pub(super) struct Score {
    right: u32,
    wrong: u32,
    missing: u32,
    instances: u32,
    /// Instances of which exactly the truth was named.
    exact: u32,
}

impl Score {
    /// Counts an instance: elements joined by `;`, the attributes of each by `&`, in any order.
    pub(super) fn count(&mut self, named: &str, truth: &str) {
        let (named, truth) = (elements(named), elements(truth));
        let count = |elements: usize| u32::try_from(elements).unwrap_or(u32::MAX);
        self.right += count(named.intersection(&truth).count());
        self.wrong += count(named.difference(&truth).count());
        self.missing += count(truth.difference(&named).count());
        self.instances += 1;
        self.exact += u32::from(named == truth);
    }

    pub(super) fn f1(&self) -> f64 {
        ratio(2 * self.right, 2 * self.right + self.wrong + self.missing)
    }

    pub(super) fn precision(&self) -> f64 {
        ratio(self.right, self.right + self.wrong)
    }

    pub(super) fn recall(&self) -> f64 {
        ratio(self.right, self.right + self.missing)
    }

    /// Share of instances.
    pub(super) fn exact(&self) -> f64 {
        ratio(self.exact, self.instances)
    }
}

fn ratio(part: u32, all: u32) -> f64 {
    f64::from(part) / f64::from(all.max(1))
}

/// Elements, each with its attributes in one order.
fn elements(text: &str) -> BTreeSet<String> {
    let ordered = |element: &str| {
        let mut values: Vec<&str> = element.split('&').collect();
        values.sort_unstable();
        values.join("&")
    };
    text.split(';').filter(|element| !element.is_empty()).map(ordered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_count_in_any_order() {
        let mut score = Score::default();
        score.count("b=2&a=1;c=3", "c=3;a=1&b=2");
        assert_eq!((score.f1(), score.exact()), (1.0, 1.0));
        score.count("a=1", "a=1&b=2;c=3");
        score.count("", "d=4");
        // 2 right, 1 wrong, 3 missing.
        assert_eq!((score.f1(), score.precision(), score.recall()), (0.5, 2.0 / 3.0, 0.4));
        assert_eq!(score.exact(), 1.0 / 3.0);
    }
}
