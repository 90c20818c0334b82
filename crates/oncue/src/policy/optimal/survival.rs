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
/// How many observations the prior of a cell weighs as many as.
const PRIOR_WEIGHT: f64 = 2.0;
/// A cell remembers no more than so many: older ones fade.
const MEMORY: f64 = 50.0;
/// P(trouble reaches the age that is so many places later on the grid | it reached this one), by the prior.
pub(crate) fn left_by_lindy(ages: f64) -> f64 {
    (-ALPHA * STEP * ages).exp()
}

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
        let left = |place: f64| left_by_lindy(place - from);
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
    pub(crate) fn hazards(&self, before: &[f64; AGES]) -> [f64; AGES] {
        let mut hazards = *before;
        for (hazard, cell) in hazards.iter_mut().zip(&self.cells) {
            *hazard = (PRIOR_WEIGHT * *hazard + cell.over) / (PRIOR_WEIGHT + cell.reached);
        }
        hazards
    }

    /// The same, without a share of what was over before the second age.
    pub(crate) fn without(&self, share: f64) -> Self {
        let mut rest = self.clone();
        if let Some(first) = rest.cells.first_mut() {
            first.reached -= first.over * share;
            first.over -= first.over * share;
        }
        rest
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

    fn over_by(survival: &Survival, age_s: f64) -> f64 {
        let hazards = survival.hazards(&[0.3; AGES]);
        1.0 - hazards.iter().take(split(place(age_s)).0 + 1).map(|hazard| 1.0 - hazard).product::<f64>()
    }

    #[test]
    fn what_is_seen_often_is_believed_and_fades() {
        let mut seen = Survival::default();
        (0..200).for_each(|_| seen.observe(0.0, 0.25, true));
        assert!(over_by(&seen, 0.25) > 0.9);
        (0..400).for_each(|_| seen.observe(0.0, 0.25, false));
        assert!(over_by(&seen, 0.25) < 0.1, "the world changed");
        seen.fade(0.0);
        assert_eq!(over_by(&seen, 0.25), over_by(&Survival::default(), 0.25));
    }

    proptest! {
        #[test]
        fn whatever_was_seen_counts_are_some_and_go_there_and_back(
            seen in proptest::collection::vec((0.0..1e4_f64, 0.0..1e4_f64, any::<bool>()), 0..60),
        ) {
            let mut survival = Survival::default();
            for (from, delay, over) in seen {
                survival.observe(from, from + delay, over);
            }
            for cell in survival.cells() {
                prop_assert!(cell.over >= 0.0 && cell.over <= cell.reached + 1e-9 && cell.reached <= MEMORY + 1e-9);
            }
            let mut out = Writer::default();
            survival.encode(&mut out);
            let bytes = out.into_bytes();
            prop_assert_eq!(Survival::decode(&mut Reader::new(&bytes)), Ok(survival));
        }
    }
}
