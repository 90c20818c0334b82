//! What was meant by a name that is not known.

/// Slips that are taken for one: a letter too many, too few, or another one.
const MOST_SLIPS: usize = 2;
/// Longer names are not compared.
const LONGEST: usize = 100;

/// `did you mean …`, or which names there are.
pub(super) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, what: &str) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, &known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => format!("there are no {what}"),
        None => format!("the {what} are {}", known.join(", ")),
    }
}

/// The known name that is nearest to `name`, if it is near.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let slips = |known: &str| match (name.len(), known.len()) {
        (length, other) if length.max(other) > LONGEST => None,
        // Begun, or said with more than is asked for.
        (3.., 3..) if known.starts_with(name) || name.starts_with(known) => Some(1),
        _ => Some(distance(name, known)).filter(|slips| *slips <= MOST_SLIPS && *slips < known.chars().count()),
    };
    known.iter().filter_map(|known| Some((slips(known)?, *known))).min().map(|(_, known)| known)
}

/// The Levenshtein distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let keys = ["concurrency", "order", "ordered", "timeout"];
        assert_eq!(nearest("concurency", &keys), Some("concurrency"));
        assert_eq!(nearest("tiemout", &keys), Some("timeout"));
        assert_eq!(nearest("orderd", &keys), Some("order"), "as near as `ordered`, and the first");
        assert_eq!(nearest("time", &keys), Some("timeout"));
        assert_eq!(nearest("on", &keys), None);
        assert_eq!(nearest("threads", &keys), None);
        assert_eq!(nearest(&"timeout".repeat(1_000), &keys), None);
    }

    #[test]
    fn without_a_near_one_all_are_named() {
        assert_eq!(suggestion("x", ["strict", "relaxed"], "values"), "the values are strict, relaxed");
        assert_eq!(suggestion("x", [], "policies"), "there are no policies");
    }

    #[test]
    fn the_distance_counts_characters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("zürich", "zurich"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
