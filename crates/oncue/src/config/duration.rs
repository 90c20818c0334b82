//! Durations as text: "200ms", "1m30s".

use std::time::Duration;

use jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};

static PARSER: SpanParser = SpanParser::new();
static PRINTER: SpanPrinter = SpanPrinter::new().spacing(Spacing::None);

/// The units, longest first; the short name of each is the one to write.
const UNITS: [&[&str]; 6] = [
    &["h", "hr", "hrs", "hour", "hours"],
    &["m", "min", "mins", "minute", "minutes"],
    &["s", "sec", "secs", "second", "seconds"],
    &["ms", "msec", "msecs", "milli", "millis", "millisecond", "milliseconds"],
    &["us", "usec", "usecs", "µs", "µsec", "µsecs", "micro", "micros", "microsecond", "microseconds"],
    &["ns", "nsec", "nsecs", "nano", "nanos", "nanosecond", "nanoseconds"],
];

/// Reads a duration.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    PARSER.parse_unsigned_duration(text).map_err(|_| {
        let wrong = match text.split(|c: char| !c.is_alphabetic()).find(|word| !word.is_empty() && !is_unit(word)) {
            Some(unit) => format!("`{unit}` is no unit; the units are h, m, s, ms, us and ns"),
            None if !text.contains(char::is_alphabetic) => "a number needs its unit: h, m, s, ms, us or ns".to_owned(),
            None => "each number has its unit behind it, the longest unit is first, and none is there twice".to_owned(),
        };
        format!("{text:?} is not a duration such as \"200ms\", \"5s\" or \"1m30s\": {wrong}")
    })
}

fn is_unit(word: &str) -> bool {
    UNITS.iter().any(|names| names.contains(&word))
}

/// The text that [`parse`] reads as `duration`.
pub(super) fn text(duration: Duration) -> String {
    PRINTER.unsigned_duration_to_string(&duration)
}

/// For `#[serde(serialize_with = …)]`.
pub(super) fn serialize<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*duration))
}

/// For `#[serde(serialize_with = …)]`; the field itself is left out if there is none.
pub(super) fn serialize_option<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serialize(duration, serializer),
        None => serializer.serialize_none(),
    }
}

/// For `#[serde(serialize_with = …)]`.
pub(super) fn serialize_list<S: serde::Serializer>(durations: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(durations.iter().copied().map(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in
            [("200ms", 200), ("5s", 5_000), ("1m30s", 90_000), ("1h 30m", 5_400_000), ("1.5s", 1_500), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn every_unit_that_is_named_is_one() {
        for unit in UNITS.concat() {
            assert!(parse(&format!("1{unit}")).is_ok(), "{unit}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |text| parse(text).unwrap_err();
        assert!(
            wrong("5 sek").ends_with("`sek` is no unit; the units are h, m, s, ms, us and ns"),
            "{}",
            wrong("5 sek")
        );
        assert!(wrong("1d").contains("`d` is no unit"));
        assert!(wrong("30").ends_with("a number needs its unit: h, m, s, ms, us or ns"));
        assert!(wrong("").contains("a number needs its unit"));
        assert!(wrong("5s1h").contains("the longest unit is first"));
        assert!(wrong("-5s").starts_with("\"-5s\" is not a duration such as"));
        assert!(wrong("99999999999999999999h").contains("is not a duration"));
    }

    proptest! {
        #[test]
        fn text_goes_there_and_back(seconds in any::<u64>(), nanos in 0_u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&text(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), number in any::<i64>(), unit in "[a-zµ]{0,4}") {
            let _ = parse(&text);
            let _ = parse(&format!("{number}{unit}"));
        }
    }
}
