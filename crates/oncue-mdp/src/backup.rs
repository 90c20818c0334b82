//! Backups: V ↦ max over the choices of [r + γ Σ P V], for all states, and the same along one policy. On several threads
//! where there is enough to do; the result does not depend on how many.

use std::{ops::Range, thread};

use crate::model::{Model, Rows};

/// Fewer transitions than this for each thread are not worth one.
const TRANSITIONS_PER_THREAD: usize = 100_000;

/// The least and the greatest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Extent {
    /// Of no numbers.
    pub(crate) const EMPTY: Self = Self { least: f64::INFINITY, greatest: f64::NEG_INFINITY };

    #[inline]
    pub(crate) fn with(self, number: f64) -> Self {
        Self { least: self.least.min(number), greatest: self.greatest.max(number) }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), greatest: self.greatest.max(other.greatest) }
    }

    pub(crate) fn of(numbers: &[f64]) -> Self {
        numbers.iter().fold(Self::EMPTY, |extent, number| extent.with(*number))
    }

    pub(crate) fn span(self) -> f64 {
        self.greatest - self.least
    }

    pub(crate) fn middle(self) -> f64 {
        self.least + self.span() / 2.0
    }

    /// The largest absolute value.
    pub(crate) fn magnitude(self) -> f64 {
        self.least.abs().max(self.greatest.abs())
    }
}

/// Rows in parts of about equal work, one for each thread.
#[derive(Clone, Debug)]
pub(crate) struct Parts(Vec<Range<usize>>);

impl Parts {
    /// `first` says where the transitions of each row begin, and ends with their number.
    pub(crate) fn of(first: impl Fn(usize) -> u32, rows: usize, threads: usize) -> Self {
        let all = first(rows) as usize;
        let count = threads.min(all / TRANSITIONS_PER_THREAD).max(1);
        let row_at = |transition: usize| {
            let (mut low, mut high) = (0, rows);
            while low < high {
                let middle = low.midpoint(high);
                if (first(middle) as usize) < transition { low = middle + 1 } else { high = middle }
            }
            low
        };
        let starts: Vec<usize> =
            (0..=count).map(|part| if part == count { rows } else { row_at(all / count * part) }).collect();
        Self(starts.windows(2).map(|pair| pair[0]..pair[1]).collect())
    }

    /// By the states of a model.
    pub(crate) fn of_states(model: &Model, threads: usize) -> Self {
        Self::of(|state| model.first[model.choices_of[state] as usize], model.states(), threads)
    }

    /// Runs `work` on each part, with the piece of `out` that belongs to it.
    pub(crate) fn fill<T: Send>(
        &self,
        out: &mut [T],
        work: impl Fn(Range<usize>, &mut [T]) -> Extent + Sync,
    ) -> Extent {
        let Some((last, others)) = self.0.split_last() else { return Extent::EMPTY };
        if others.is_empty() {
            return work(last.clone(), out);
        }
        thread::scope(|scope| {
            let mut rest = out;
            let mut running = Vec::with_capacity(others.len());
            for part in others {
                let (piece, tail) = rest.split_at_mut(part.len());
                rest = tail;
                let work = &work;
                running.push(scope.spawn(move || work(part.clone(), piece)));
            }
            let own = work(last.clone(), rest);
            running.into_iter().fold(own, |extent, thread| match thread.join() {
                Ok(part) => extent.and(part),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }
}

/// What a backup finds for a state: its new value and the choice that gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Best {
    pub(crate) value: f64,
    pub(crate) choice: u32,
}

/// The best of a state's choices. Of equal ones the first.
#[inline]
pub(crate) fn best(rows: Rows<'_>, choices: Range<usize>, values: &[f64]) -> Best {
    let mut best = Best { value: f64::NEG_INFINITY, choice: 0 };
    for choice in choices {
        let value = rows.value(choice, values);
        if value > best.value {
            // There are fewer than 2³² choices: the builder sees to it.
            best = Best { value, choice: choice as u32 };
        }
    }
    best
}

/// One backup of all states. Gives the extent of what changed, TV − V.
pub(crate) fn backup(model: &Model, parts: &Parts, values: &[f64], out: &mut [Best]) -> Extent {
    let rows = model.rows();
    parts.fill(out, |states, out| {
        let mut extent = Extent::EMPTY;
        for (state, out) in states.zip(out) {
            *out = best(rows, model.choices_of(state), values);
            extent = extent.with(out.value - values[state]);
        }
        extent
    })
}

/// One backup of all states in place, so that each sees what is new of those before it (Gauss–Seidel).
pub(crate) fn backup_in_place(model: &Model, values: &mut [f64]) {
    let rows = model.rows();
    for state in 0..model.states() {
        values[state] = best(rows, model.choices_of(state), values).value;
    }
}

/// The rows of one policy, copied together.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    first: Vec<u32>,
    next: Vec<u32>,
    weights: Vec<f64>,
    rewards: Vec<f64>,
    factor: f64,
    pub(crate) parts: Parts,
}

impl Chain {
    /// `policy` has one choice for each state.
    pub(crate) fn of(model: &Model, policy: &[u32], threads: usize) -> Self {
        let rows = model.rows();
        let mut chain = Self {
            first: Vec::with_capacity(policy.len() + 1),
            next: Vec::new(),
            weights: Vec::new(),
            rewards: Vec::with_capacity(policy.len()),
            factor: rows.factor,
            parts: Parts(Vec::new()),
        };
        chain.first.push(0);
        for choice in policy {
            let (next, weights) = rows.row(*choice as usize);
            chain.next.extend_from_slice(next);
            chain.weights.extend_from_slice(weights);
            chain.rewards.push(rows.rewards[*choice as usize]);
            // No more than the model's own.
            chain.first.push(chain.next.len() as u32);
        }
        chain.parts = Parts::of(|row| chain.first[row], policy.len(), threads);
        chain
    }

    pub(crate) fn states(&self) -> usize {
        self.rewards.len()
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows {
            first: &self.first,
            next: &self.next,
            weights: &self.weights,
            factor: self.factor,
            rewards: &self.rewards,
        }
    }

    /// One backup along the policy. Gives the extent of what changed.
    pub(crate) fn backup(&self, values: &[f64], out: &mut [f64]) -> Extent {
        let rows = self.rows();
        self.parts.fill(out, |states, out| {
            let mut extent = Extent::EMPTY;
            for (state, out) in states.zip(out) {
                *out = rows.value(state, values);
                extent = extent.with(*out - values[state]);
            }
            extent
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_of_equal_work_and_leave_nothing_out() {
        // The first row has half of all transitions.
        let first = |row: usize| if row == 0 { 0 } else { 500_000 + 50_000 * (row as u32 - 1) };
        let parts = Parts::of(first, 11, 4).0;
        assert_eq!(parts, [0..1, 1..1, 1..6, 6..11]);
        assert_eq!(Parts::of(|row| row as u32, 10, 4).0.len(), 1, "too little for two threads");
    }

    #[test]
    fn each_part_fills_its_own_piece() {
        let parts = Parts(vec![0..2, 2..5, 5..6]);
        let mut out = [0; 6];
        let extent = parts.fill(&mut out, |rows, out| {
            let numbers = rows.clone().zip(out).map(|(row, out)| {
                *out = row * 10;
                row as f64
            });
            numbers.fold(Extent::EMPTY, Extent::with)
        });
        assert_eq!(out, [0, 10, 20, 30, 40, 50]);
        assert_eq!(extent, Extent { least: 0.0, greatest: 5.0 });
    }
}
