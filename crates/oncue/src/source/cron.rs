//! When a schedule is due.

use std::time::Duration;

use croner::{
    Cron,
    parser::{CronParser, Year},
};
use jiff::{Zoned, tz::TimeZone};
use thiserror::Error;

use crate::clock::Timestamp;

/// The fields of a cron expression; the first may be left out.
const FIELDS: [&str; 6] = ["second", "minute", "hour", "day of month", "month", "day of week"];

/// Why a cron schedule cannot be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CronError {
    /// It is no cron expression.
    #[error(
        "`{expression}` is no cron expression: {reason}; write `minute hour day-of-month month day-of-week`, such as \
         `0 9 * * MON-FRI`, with the second as a sixth field before them if you need it"
    )]
    Expression {
        /// The expression.
        expression: String,
        /// Which field is wrong, and how.
        reason: String,
    },
    /// No such time ever comes.
    #[error("`{expression}` is never due: no month has such a day")]
    Never {
        /// The expression.
        expression: String,
    },
    /// There is no such time zone.
    #[error("there is no time zone `{name}`: write a name of the IANA database, such as `Europe/Berlin`")]
    TimeZone {
        /// What was asked for.
        name: String,
    },
}

/// When a schedule is due: a set of times, which depends on nothing else.
#[derive(Clone, Debug)]
pub(super) enum Due {
    /// Each multiple of so many microseconds since 1970.
    Every(i64),
    /// By a cron expression in a time zone.
    Cron(Box<Cron>, TimeZone),
}

impl Due {
    pub(super) fn every(every: Duration) -> Self {
        Self::Every(i64::try_from(every.as_micros()).unwrap_or(i64::MAX).max(1000))
    }

    pub(super) fn cron(expression: &str) -> Result<Self, CronError> {
        let parsed = parser().parse(expression).map_err(|error| CronError::Expression {
            expression: expression.to_owned(),
            reason: wrong_field(expression).unwrap_or_else(|| plain(&error.to_string())),
        })?;
        let due = Self::Cron(Box::new(parsed), TimeZone::UTC);
        // Without years in it, what is not due after one time is due after none.
        due.next_after(Timestamp::from_micros(0)).ok_or(CronError::Never { expression: expression.to_owned() })?;
        Ok(due)
    }

    pub(super) fn in_time_zone(self, name: &str) -> Result<Self, CronError> {
        let zone = TimeZone::get(name).map_err(|_| CronError::TimeZone { name: name.to_owned() })?;
        Ok(match self {
            Self::Every(every) => Self::Every(every),
            Self::Cron(cron, _) => Self::Cron(cron, zone),
        })
    }

    /// The first due time after `time`; none at the end of all times.
    pub(super) fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(every) => {
                let next = time.as_micros().div_euclid(*every).checked_add(1)?.checked_mul(*every)?;
                Some(Timestamp::from_micros(next))
            }
            Self::Cron(cron, zone) => {
                let next = cron.find_next_occurrence(&zoned(time, zone)?, false).ok()?;
                Some(Timestamp::from_micros(next.timestamp().as_microsecond()))
            }
        }
    }

    /// The last due time up to `time`, that included.
    pub(super) fn last_until(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(every) => {
                Some(Timestamp::from_micros(time.as_micros().div_euclid(*every).checked_mul(*every)?))
            }
            Self::Cron(cron, zone) => {
                let last = cron.find_previous_occurrence(&zoned(time, zone)?, true).ok()?;
                Some(Timestamp::from_micros(last.timestamp().as_microsecond()))
            }
        }
    }
}

fn parser() -> CronParser {
    CronParser::builder().year(Year::Disallowed).build()
}

fn zoned(time: Timestamp, zone: &TimeZone) -> Option<Zoned> {
    Some(jiff::Timestamp::from_microsecond(time.as_micros()).ok()?.to_zoned(zone.clone()))
}

/// Which field is wrong: the one that is wrong among fields that are not.
fn wrong_field(expression: &str) -> Option<String> {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let names = match fields.len() {
        5 => &FIELDS[1..],
        6 => &FIELDS[..],
        count => return Some(format!("it has {count} fields, not 5 or 6")),
    };
    fields.iter().zip(names).enumerate().find_map(|(index, (field, name))| {
        let mut others = vec!["*"; fields.len()];
        others[index] = field;
        let error = parser().parse(&others.join(" ")).err()?;
        Some(format!("{name} `{field}`: {}", plain(&error.to_string())))
    })
}

/// The parser's reason as a part of a sentence.
fn plain(reason: &str) -> String {
    let reason = reason.trim_start_matches("Component error: ").trim_start_matches("Invalid pattern: ");
    reason.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn next(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let due = Due::cron(expression).unwrap().in_time_zone(zone).unwrap();
        let times = std::iter::successors(due.next_after(at(after)), |time| due.next_after(*time));
        times.take(count).map(Timestamp::to_rfc3339).collect()
    }

    #[test]
    fn expressions_are_due_when_cron_has_them() {
        assert_eq!(
            next("0 9 * * MON-FRI", "UTC", "2026-01-02T09:00:00Z", 2),
            ["2026-01-05T09:00:00Z", "2026-01-06T09:00:00Z"]
        );
        assert_eq!(next("30 */5 * * * *", "UTC", "2026-01-01T00:00:30Z", 1), ["2026-01-01T00:05:30Z"]);
        // The last month has a last day too.
        assert_eq!(
            next("0 0 L * *", "UTC", "2026-12-05T00:00:00Z", 2),
            ["2026-12-31T00:00:00Z", "2027-01-31T00:00:00Z"]
        );
        assert_eq!(next("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
        assert_eq!(next("@daily", "UTC", "2026-01-01T00:00:00Z", 1), ["2026-01-02T00:00:00Z"]);
    }

    #[test]
    fn a_time_that_summer_time_skips_comes_at_once_and_one_that_comes_twice_comes_once() {
        let half_past_two = |after| next("30 2 * * *", "Europe/Berlin", after, 2);
        assert_eq!(half_past_two("2026-03-28T12:00:00Z"), ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        assert_eq!(half_past_two("2026-10-24T12:00:00Z"), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn a_wrong_schedule_says_what_is_wrong_with_it() {
        for (expression, reason) in [
            ("", "it has 0 fields"),
            ("0 9 * *", "it has 4 fields"),
            ("0 9 * * * * 2026", "it has 7 fields"),
            ("0 25 * * *", "hour `25`"),
            ("0 9 * * MONDAY-", "day of week `MONDAY-`"),
            ("x 0 9 * * MON", "second `x`"),
        ] {
            let error = Due::cron(expression).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(&format!("`{expression}`")), "{error}");
        }
        assert!(matches!(Due::cron("0 0 30 2 *").unwrap_err(), CronError::Never { .. }));
        let error = Due::every(Duration::ZERO).in_time_zone("Europe/Berlim").unwrap_err().to_string();
        assert!(error.contains("Europe/Berlim"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_due_next_is_due_and_nothing_lies_between(
            after in prop_oneof![
                0_i64..4_000_000_000_000_000,
                // Around the changes of the clocks in 2026: Berlin's, and Lord Howe's of half an hour.
                (-7_200_000_000_i64..7_200_000_000, proptest::sample::select(vec![
                    "2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2026-04-04T15:00:00Z", "2026-10-03T15:30:00Z",
                ])).prop_map(|(offset, change)| at(change).as_micros() + offset),
            ],
            schedule in 0_usize..6,
            zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
        ) {
            let due = match schedule {
                0 => Due::every(Duration::from_millis(1500)),
                1 => Due::every(Duration::from_secs(86_400)),
                _ => Due::cron(["*/7 * * * * *", "30 2 * * *", "0 9 * * MON-FRI", "*/30 1-3 L * *"][schedule - 2])
                    .unwrap().in_time_zone(zone).unwrap(),
            };
            let after = Timestamp::from_micros(after);
            let next = due.next_after(after).unwrap();
            prop_assert!(next > after);
            prop_assert_eq!(due.last_until(next), Some(next));
            prop_assert_eq!(due.last_until(next.after(Duration::from_micros(1))), Some(next));
            let last = due.last_until(after).unwrap();
            prop_assert!(last <= after);
            prop_assert_eq!(due.next_after(last), Some(next));
        }
    }
}
