//! The reward of one arm as a line in its context, and how sure that is: ridge regression, one example at a time. `LinUCB`
//! with disjoint models (Li, Chu, Langford and Schapire, *A Contextual-Bandit Approach to Personalized News Article
//! Recommendation*, WWW 2010, algorithm 1).

use crate::state::{Reader, StateError, Writer};

/// Numbers of a context: features are hashed into one fewer, the first is always 1.
pub(crate) const WIDTH: usize = 32;
/// No number of a context is farther from zero.
pub(crate) const FARTHEST: f64 = 10.0;
/// Cells of A⁻¹ are 1 at most, as A is the identity and more; with what rounding may add.
const LARGEST_CELL: f64 = 1.0 + 1e-6;
/// Sums of so many examples that nobody lives to see them.
const LARGEST_SUM: f64 = 1e18;

/// What an arm is chosen by.
pub(crate) type Context = [f64; WIDTH];

/// A = I + Σ x xᵀ, of which A⁻¹ is kept, and b = Σ r x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// By rows.
    inverse: Box<[Context; WIDTH]>,
    sums: Context,
}

impl Default for Line {
    fn default() -> Self {
        let mut inverse = Box::new([[0.0; WIDTH]; WIDTH]);
        (0..WIDTH).for_each(|at| inverse[at][at] = 1.0);
        Self { inverse, sums: [0.0; WIDTH] }
    }
}

impl Line {
    /// The reward that is expected, and its standard deviation in units of that of one reward: √(xᵀ A⁻¹ x).
    pub(crate) fn estimate(&self, x: &Context) -> (f64, f64) {
        let solved = self.solved(x);
        // Rounding may lead below zero, where there is no root.
        (dot(&solved, &self.sums), dot(x, &solved).max(0.0).sqrt())
    }

    /// A += x xᵀ, by Sherman and Morrison; b += r x.
    pub(crate) fn learn(&mut self, x: &Context, reward: f64) {
        let solved = self.solved(x);
        let scale = 1.0 + dot(x, &solved).max(0.0);
        for (row, one) in self.inverse.iter_mut().zip(solved) {
            row.iter_mut().zip(solved).for_each(|(cell, two)| *cell -= one * two / scale);
        }
        self.sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += reward * x);
    }

    /// A⁻¹ x
    fn solved(&self, x: &Context) -> Context {
        self.inverse.map(|row| dot(&row, x))
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        // It is its own mirror image: half of it is all of it.
        (0..WIDTH).for_each(|at| out.all(&self.inverse[at][at..]));
        out.all(&self.sums);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let mut line = Self::default();
        for at in 0..WIDTH {
            from.fill(&mut line.inverse[at][at..])?;
            (at..WIDTH).for_each(|other| line.inverse[other][at] = line.inverse[at][other]);
        }
        from.fill(&mut line.sums)?;
        let fits = line.inverse.iter().flatten().all(|cell| cell.abs() <= LARGEST_CELL)
            && (0..WIDTH).all(|at| line.inverse[at][at] > 0.0)
            && line.sums.iter().all(|sum| sum.abs() <= LARGEST_SUM);
        if fits { Ok(line) } else { Err(StateError::Malformed("what an arm stands on is no inverse, or no sum")) }
    }

    /// Bytes of one that is written.
    pub(crate) const BYTES: usize = 8 * (WIDTH * (WIDTH + 1) / 2 + WIDTH);
}

fn dot(one: &Context, two: &Context) -> f64 {
    one.iter().zip(two).map(|(one, two)| one * two).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by what it says: A as it is, inverted as a whole by Gauss and Jordan each time it is asked.
    struct Oracle {
        a: Vec<Vec<f64>>,
        b: Vec<f64>,
    }

    impl Oracle {
        fn new() -> Self {
            let one = |row: usize| (0..WIDTH).map(|column| f64::from(u8::from(row == column))).collect();
            Self { a: (0..WIDTH).map(one).collect(), b: vec![0.0; WIDTH] }
        }

        fn learn(&mut self, x: &Context, reward: f64) {
            for (row, one) in self.a.iter_mut().zip(x) {
                row.iter_mut().zip(x).for_each(|(cell, two)| *cell += one * two);
            }
            self.b.iter_mut().zip(x).for_each(|(sum, x)| *sum += reward * x);
        }

        fn inverse(&self) -> Vec<Vec<f64>> {
            let (mut left, mut right) = (self.a.clone(), Self::new().a);
            for at in 0..WIDTH {
                let pivot = (at..WIDTH).max_by(|one, two| left[*one][at].abs().total_cmp(&left[*two][at].abs()));
                let pivot = pivot.unwrap();
                left.swap(at, pivot);
                right.swap(at, pivot);
                let by = left[at][at];
                left[at].iter_mut().chain(&mut right[at]).for_each(|cell| *cell /= by);
                let (left_row, right_row) = (left[at].clone(), right[at].clone());
                for other in (0..WIDTH).filter(|other| *other != at) {
                    let by = left[other][at];
                    left[other].iter_mut().zip(&left_row).for_each(|(cell, pivot)| *cell -= by * pivot);
                    right[other].iter_mut().zip(&right_row).for_each(|(cell, pivot)| *cell -= by * pivot);
                }
            }
            right
        }

        fn estimate(&self, x: &Context) -> (f64, f64) {
            let inverse = self.inverse();
            let solved = |of: &[f64]| -> Vec<f64> {
                inverse.iter().map(|row| row.iter().zip(of).map(|(one, two)| one * two).sum()).collect()
            };
            let mean = solved(&self.b).iter().zip(x).map(|(one, two)| one * two).sum();
            let variance: f64 = solved(x).iter().zip(x).map(|(one, two)| one * two).sum();
            (mean, variance.sqrt())
        }
    }

    /// As contexts are: few numbers, most of them small, some far off, and often the same.
    fn contexts(largest: f64) -> impl Strategy<Value = Context> {
        let few = proptest::collection::vec((1..WIDTH, -largest..largest), 0..6);
        few.prop_map(|numbers| {
            let mut x = [0.0; WIDTH];
            x[0] = 1.0;
            numbers.into_iter().for_each(|(at, number)| x[at] = number);
            x
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_what_inverting_all_of_it_gives(
            seen in proptest::collection::vec((contexts(FARTHEST), -1.0..1.0_f64), 1..120), asked in contexts(FARTHEST),
        ) {
            let (mut line, mut oracle) = (Line::default(), Oracle::new());
            for (x, reward) in &seen {
                line.learn(x, *reward);
                oracle.learn(x, *reward);
            }
            for x in seen.iter().map(|(x, _)| x).take(3).chain([&asked]) {
                let ((mean, deviation), (by_all, deviation_by_all)) = (line.estimate(x), oracle.estimate(x));
                prop_assert!((mean - by_all).abs() < 1e-9, "{mean} and {by_all}");
                prop_assert!((deviation - deviation_by_all).abs() < 1e-9, "{deviation} and {deviation_by_all}");
            }
        }
    }

    #[test]
    fn it_still_is_after_many_examples() {
        let (mut line, mut oracle) = (Line::default(), Oracle::new());
        let mut x = [0.0; WIDTH];
        for number in 0..20_000_usize {
            x = [0.0; WIDTH];
            (x[0], x[1 + number % 31]) = (1.0, 1.0);
            x[1 + number * 7 % 31] += (number % 21) as f64 - FARTHEST;
            let reward = f64::from(u8::from(number % 3 == 0));
            line.learn(&x, reward);
            oracle.learn(&x, reward);
        }
        let ((mean, deviation), (by_all, deviation_by_all)) = (line.estimate(&x), oracle.estimate(&x));
        assert!((mean - by_all).abs() < 1e-9, "{mean} and {by_all}");
        assert!((deviation - deviation_by_all).abs() < 1e-9, "{deviation} and {deviation_by_all}");
        for (row, of_all) in line.inverse.iter().zip(oracle.inverse()) {
            assert!(row.iter().zip(of_all).all(|(one, two)| (one - two).abs() < 1e-9));
        }
        let mut out = Writer::default();
        line.encode(&mut out);
        assert_eq!(out.0.len(), Line::BYTES);
        assert_eq!(Line::decode(&mut Reader(&out.0)), Ok(line), "it is its own mirror image to the last bit");
    }

    #[test]
    fn what_is_no_inverse_is_refused() {
        let mut out = Writer::default();
        Line::default().encode(&mut out);
        for (at, wrong) in [(0, 0.0_f64), (0, -1.0), (0, 1.1), (8, 2.0), (Line::BYTES - 8, 1e30)] {
            let mut damaged = out.0.clone();
            damaged[at..at + 8].copy_from_slice(&wrong.to_le_bytes());
            assert!(Line::decode(&mut Reader(&damaged)).is_err(), "{wrong} at {at}");
        }
    }
}
