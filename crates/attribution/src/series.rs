//! Counts over time.

/// How many there were in each step of time in which there were any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<(u32, u32)>);

impl Series {
    pub(crate) fn add(&mut self, step: u32, count: u32) {
        match self.0.last_mut() {
            Some((last, counted)) if *last == step => *counted = counted.saturating_add(count),
            _ => self.0.push((step, count)),
        }
    }

    /// Brings them into order, each step once.
    pub(crate) fn sort(&mut self) {
        if !self.0.is_sorted_by(|(one, _), (other, _)| one < other) {
            self.0.sort_unstable();
            let counted = std::mem::take(&mut self.0);
            for (step, count) in counted {
                self.add(step, count);
            }
        }
    }

    pub(crate) fn steps(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// How many there were from one step to another, both included.
    pub(crate) fn within(&self, (first, last): (u32, u32)) -> f64 {
        let begin = self.0.partition_point(|(step, _)| *step < first);
        let counts = self.0.iter().skip(begin).take_while(|(step, _)| *step <= last);
        counts.map(|(_, count)| f64::from(*count)).sum()
    }
}
