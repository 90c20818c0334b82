//! The value of a policy by elimination: where states are few, or lead to no others than their neighbours, as in queues.

use crate::backup::Chain;

/// Elimination is worth the time of so many sweeps.
const SWEEPS: usize = 1_000;
/// Most numbers in the matrix.
const MOST_ENTRIES: usize = 1 << 26;

/// How far from itself a state leads at most, if that is near enough for elimination to be quick.
pub(crate) fn band(chain: &Chain) -> Option<usize> {
    let (rows, states) = (chain.rows(), chain.states());
    let far = |state: usize| rows.row(state).0.iter().map(|next| state.abs_diff(*next as usize)).max().unwrap_or(0);
    let band = (0..states).map(far).max().unwrap_or(0);
    let work = states.saturating_mul(band).saturating_mul(band);
    let fits = states.saturating_mul(2 * band + 1) <= MOST_ENTRIES;
    (fits && work <= SWEEPS.saturating_mul(rows.next.len())).then_some(band)
}

/// Solves x = r + W x, where no row of W leads farther than `band`. In each row the diagonal of I − W outweighs the rest, so that
/// no pivots have to be looked for (Golub & Van Loan, *Matrix Computations*, 4.1.1), and what was outside of the band stays 0.
pub(crate) fn solve(chain: &Chain, band: usize, values: &mut [f64]) {
    let (rows, size, width) = (chain.rows(), values.len(), 2 * band + 1);
    // Row i, column j stands at i · width + j − i + band.
    let mut matrix = vec![0.0; size * width];
    for row in 0..size {
        let start = row * width + band;
        matrix[start] = 1.0;
        let (next, weights) = rows.row(row);
        for (next, weight) in next.iter().zip(weights) {
            matrix[start + *next as usize - row] -= rows.factor * weight;
        }
    }
    values.copy_from_slice(rows.rewards);
    for pivot in 0..size {
        let (above, below) = matrix.split_at_mut((pivot + 1) * width);
        let pivot_row = &above[pivot * width + band..];
        for (distance, row) in (1..=band).zip(below.chunks_exact_mut(width)) {
            let row = &mut row[band - distance..];
            let share = row[0] / pivot_row[0];
            if share != 0.0 {
                for (entry, pivot_entry) in row.iter_mut().zip(pivot_row) {
                    *entry -= share * pivot_entry;
                }
                values[pivot + distance] -= share * values[pivot];
            }
        }
    }
    for row in (0..size).rev() {
        let entries = &matrix[row * width + band..(row + 1) * width];
        let after = &values[row + 1..];
        let known: f64 = entries[1..].iter().zip(after).map(|(entry, value)| entry * value).sum();
        values[row] = (values[row] - known) / entries[0];
    }
}
