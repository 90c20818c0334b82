//! Numbers as people read them.

use std::time::Duration;

/// `28881` as `28,881`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Cents as `1,234.05`.
pub(crate) fn money(cents: u64) -> String {
    format!("{}.{:02}", grouped(cents / 100), cents % 100)
}

/// A time in the unit that suits it, with three digits that count.
pub(crate) fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        ..1e3 => (micros, "µs"),
        ..1e6 => (micros / 1e3, "ms"),
        ..1e9 => (micros / 1e6, "s"),
        _ => return format!("{} s", grouped(time.as_secs())),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let all = [0, 999, 1_000, 28_881, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "28,881", "1,234,567"]);
        assert_eq!([money(0), money(5), money(123_456)], ["0.00", "0.05", "1,234.56"]);
    }

    #[test]
    fn times_are_in_the_unit_that_suits() {
        let all = [0, 7, 999, 1_500, 45_600, 999_000, 2_000_000, 61_000_000, 5_000_000_000].map(Duration::from_micros);
        let expected = ["0.00 µs", "7.00 µs", "999 µs", "1.50 ms", "45.6 ms", "999 ms", "2.00 s", "61.0 s", "5,000 s"];
        assert_eq!(all.map(time), expected);
    }
}
