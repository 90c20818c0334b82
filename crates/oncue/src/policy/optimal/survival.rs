//! How long trouble lasts: a life table over the age of trouble, on a geometric grid.

use std::f64::consts::LN_2;

use crate::codec::{Malformed, Reader, Writer};

/// Ages that are told apart: from now to three days.
pub(crate) const AGES: usize = 44;
/// What stands in for the age of trouble that has just begun, in seconds.
pub(crate) const FIRST_S: f64 = 0.1;
/// ln ρ: each age of the grid is ρ = √2 times the one before, counted from [`FIRST_S`].
pub(crate) const STEP: f64 = LN_2 / 2.0;
/// α of the prior P(over by t + d | not by t) = 1 − (t/(t + d))^α (Lindy, Pareto).
const ALPHA: f64 = 1.0;
/// How many observations the prior weighs as many as, and, for one class of errors, what all classes say together.
const PRIOR_WEIGHT: f64 = 2.0;
/// A cell remembers no more than so many: older ones fade.
const MEMORY: f64 = 50.0;
/// However sure the counts are, nothing is certain.
const MOST_CERTAIN: f64 = 0.999;

/// Where an age stands on the grid.
pub(crate) fn place(age_s: f64) -> f64 {
    (((age_s / FIRST_S).max(0.0) + 1.0).ln() / STEP).min((AGES - 1) as f64)
}

/// The age at a place of the grid, in seconds.
pub(crate) fn age_s(place: f64) -> f64 {
    FIRST_S * ((place * STEP).exp() - 1.0)
}

/// What was seen between one age of the grid and the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Cell {
    /// Troubles that reached this age, those that were seen over a part of it in part.
    pub reached: f64,
    /// Those of them that were over before the next.
    pub over: f64,
}

/// A life table: for each age that trouble may reach, how often it was over before the next. What is old fades.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Survival {
    /// None until something was seen.
    cells: Vec<Cell>,
}

impl Survival {
    /// The cells, by age; none before anything was seen.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// An attempt at the age `from` failed, and the next was made at the age `to` (seconds): `over` if it worked. When
    /// within that time trouble was over is not known: it is spread as the prior has it.
    pub(crate) fn observe(&mut self, from: f64, to: f64, over: bool) {
        let (from, to) = (place(from), place(to));
        if to <= from {
            return;
        }
        self.cells.resize(AGES, Cell::default());
        let left = |place: f64| (-ALPHA * STEP * (place - from)).exp();
        let ended = 1.0 - left(to);
        for (number, cell) in self.cells.iter_mut().enumerate() {
            let (begins, ends) = ((number as f64).max(from), (number as f64 + 1.0).min(to));
            if begins >= ends {
                continue;
            }
            if over {
                let here = (left(begins) - left(ends)) / ended;
                cell.over += here;
                cell.reached += here.max((ends - begins) * (left(begins) - left(to)) / ended);
            } else {
                cell.reached += ends - begins;
            }
            if cell.reached > MEMORY {
                cell.over *= MEMORY / cell.reached;
                cell.reached = MEMORY;
            }
        }
    }

    /// What was seen counts `share` of what it did.
    pub(crate) fn fade(&mut self, share: f64) {
        for cell in &mut self.cells {
            cell.reached *= share;
            cell.over *= share;
        }
    }

    /// Adds what another saw.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.cells.is_empty() {
            return;
        }
        self.cells.resize(AGES, Cell::default());
        for (cell, other) in self.cells.iter_mut().zip(&other.cells) {
            cell.reached += other.reached;
            cell.over += other.over;
        }
    }

    /// P(over before the next age) of each age: a Beta posterior, whose prior is `before`.
    fn hazards(&self, before: [f64; AGES]) -> [f64; AGES] {
        let mut hazards = before;
        for (hazard, cell) in hazards.iter_mut().zip(&self.cells) {
            *hazard = (PRIOR_WEIGHT * *hazard + cell.over) / (PRIOR_WEIGHT + cell.reached);
        }
        hazards
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(self.cells.len() as u64);
        for cell in &self.cells {
            out.u64(cell.reached.to_bits());
            out.u64(cell.over.to_bits());
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(16)?;
        if count != 0 && count != AGES {
            return Err(Malformed("attempts are counted on another grid"));
        }
        let mut cells = Vec::with_capacity(count);
        for _ in 0..count {
            let cell = Cell { reached: f64::from_bits(from.u64()?), over: f64::from_bits(from.u64()?) };
            if !(cell.over >= 0.0 && cell.reached >= cell.over && cell.reached.is_finite()) {
                return Err(Malformed("a count of attempts is none"));
            }
            cells.push(cell);
        }
        Ok(Self { cells })
    }
}

/// How long trouble lasts, as far as prior and counts say.
#[derive(Clone, Debug)]
pub(crate) struct Outlook {
    /// ln S at each age of the grid: the log of the probability that trouble lasts so long.
    log_survival: [f64; AGES],
}

impl Outlook {
    /// Of one class of errors, whose prior is what all say together; that of all is the Pareto distribution.
    pub(crate) fn of(own: &Survival, all: Option<&Survival>) -> Self {
        let pareto = [1.0 - (-ALPHA * STEP).exp(); AGES];
        let before = all.map_or(pareto, |all| all.hazards(pareto));
        let mut log_survival = [0.0; AGES];
        let mut sum = 0.0;
        for (at, hazard) in log_survival.iter_mut().zip(own.hazards(before)) {
            *at = sum;
            sum += (1.0 - hazard.min(MOST_CERTAIN)).ln();
        }
        Self { log_survival }
    }

    /// P(over by the age at `to` | not by the age at `from`), for places of the grid.
    pub(crate) fn over_by(&self, from: f64, to: f64) -> f64 {
        1.0 - (self.at(to) - self.at(from)).min(0.0).exp()
    }

    fn at(&self, place: f64) -> f64 {
        let (below, part) = split(place);
        let above = (below + 1).min(AGES - 1);
        self.log_survival[below] * (1.0 - part) + self.log_survival[above] * part
    }
}

/// The cell of a place, and how far it is to the next.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the number of ages")]
pub(crate) fn split(place: f64) -> (usize, f64) {
    let below = place.clamp(0.0, (AGES - 1) as f64).floor();
    (below as usize, place - below)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prior() -> Outlook {
        Outlook::of(&Survival::default(), None)
    }

    #[test]
    fn without_counts_the_law_is_paretos() {
        for (from, delay) in [(0.0, 0.1), (1.0, 2.5), (60.0, 60.0), (0.3, 900.0)] {
            let (began, ended) = (from + FIRST_S, from + FIRST_S + delay);
            let found = prior().over_by(place(from), place(from + delay));
            assert!((found - (1.0 - began / ended)).abs() < 1e-9, "{from} {delay}: {found}");
        }
    }

    #[test]
    fn what_is_seen_often_is_believed_and_fades() {
        let mut seen = Survival::default();
        for _ in 0..200 {
            seen.observe(0.0, 0.25, true);
        }
        assert!(Outlook::of(&seen, None).over_by(0.0, place(0.25)) > 0.95);
        for _ in 0..400 {
            seen.observe(0.0, 0.25, false);
        }
        assert!(Outlook::of(&seen, None).over_by(0.0, place(0.25)) < 0.1, "the world changed");
        seen.fade(0.0);
        assert_eq!(Outlook::of(&seen, None).over_by(0.0, 3.0), prior().over_by(0.0, 3.0));
    }

    #[test]
    fn one_class_begins_with_what_all_say() {
        let mut all = Survival::default();
        for _ in 0..100 {
            all.observe(0.0, 1.0, false);
        }
        let of_all = Outlook::of(&all, None).over_by(0.0, place(1.0));
        let of_none = Outlook::of(&Survival::default(), Some(&all)).over_by(0.0, place(1.0));
        assert!((of_all - of_none).abs() < 1e-12 && of_none < 0.3);
    }

    proptest! {
        #[test]
        fn whatever_was_seen_probabilities_are_some_and_longer_waits_never_help_less(
            seen in proptest::collection::vec((0.0..1e4_f64, 0.0..1e4_f64, any::<bool>()), 0..60),
        ) {
            let mut survival = Survival::default();
            for (from, delay, over) in seen {
                survival.observe(from, from + delay, over);
            }
            for cell in survival.cells() {
                prop_assert!(cell.over >= 0.0 && cell.over <= cell.reached + 1e-9 && cell.reached <= MEMORY + 1e-9);
            }
            let outlook = Outlook::of(&survival, None);
            for from in 0..AGES - 1 {
                let over: Vec<f64> = (from..AGES).map(|to| outlook.over_by(from as f64, to as f64)).collect();
                prop_assert!(over.is_sorted() && over.iter().all(|p| (0.0..=1.0).contains(p)));
            }
            let mut out = Writer::default();
            survival.encode(&mut out);
            let bytes = out.into_bytes();
            prop_assert_eq!(Survival::decode(&mut Reader::new(&bytes)), Ok(survival));
        }
    }
}
