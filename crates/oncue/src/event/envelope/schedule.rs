//! When an event may be delivered, until when, and how urgent it is: extension attributes, so that every transport and
//! every `CloudEvents` binding carries them as they are.
//!
//! `expirytime` is a [documented extension](https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/expirytime.md)
//! of `CloudEvents`. The others are Oncue's; priorities are those of JMS.

use std::time::Duration;

use super::{Envelope, EnvelopeBuilder, EnvelopeError, Slot, attributes::Attributes};
use crate::clock::Timestamp;

/// The priority of an event that names none, as in JMS.
pub const DEFAULT_PRIORITY: u8 = 4;
/// The most urgent priority; 0 is the least.
pub const MAX_PRIORITY: u8 = 9;

const NOT_BEFORE: &str = "notbefore";
const DELAY: &str = "delay";
const EXPIRY_TIME: &str = "expirytime";
const TIME_TO_LIVE: &str = "ttl";
const PRIORITY: &str = "priority";

impl Envelope {
    /// The earliest time to deliver it: `notbefore`, or `delay` after it was [`published`](Self::published), whichever is
    /// later. `None`: at once. A `delay` counts from when a transport accepts the event; before that it says nothing.
    #[must_use]
    #[inline]
    pub fn due(&self) -> Option<Timestamp> {
        if self.has_no_extensions() {
            return None;
        }
        self.time_of(NOT_BEFORE, DELAY, Timestamp::max)
    }

    /// When it is of no use any more: `expirytime`, or `ttl` after it was [`published`](Self::published), whichever is
    /// earlier. An event is not delivered at that time or later. `None`: never. A `ttl` counts from when a transport
    /// accepts the event; before that it says nothing.
    #[must_use]
    #[inline]
    pub fn expires(&self) -> Option<Timestamp> {
        if self.has_no_extensions() {
            return None;
        }
        self.time_of(EXPIRY_TIME, TIME_TO_LIVE, Timestamp::min)
    }

    /// How urgent it is: 9 first, 0 last, [`DEFAULT_PRIORITY`] if it does not say.
    #[must_use]
    pub fn priority(&self) -> u8 {
        if self.has_no_extensions() {
            return DEFAULT_PRIORITY;
        }
        self.extension(PRIORITY).and_then(priority).unwrap_or(DEFAULT_PRIORITY)
    }

    fn has_no_extensions(&self) -> bool {
        let extensions = Slot::Extensions as usize;
        self.parts.ends[extensions] == self.parts.ends[extensions - 1]
    }

    /// The time that two extensions name, a point in time and a duration from publishing; with both, the one that is
    /// chosen. Malformed ones, which only a foreign record can have, are passed by.
    fn time_of(&self, point: &str, duration: &str, choose: fn(Timestamp, Timestamp) -> Timestamp) -> Option<Timestamp> {
        let times = self.extensions().filter_map(|(name, value)| {
            if name == point {
                Timestamp::parse_rfc3339(value).ok()
            } else if name == duration {
                milliseconds(value).map(|duration| self.published().after(duration))
            } else {
                None
            }
        });
        times.reduce(choose)
    }
}

impl EnvelopeBuilder {
    /// Not delivered before `time` (extension `notbefore`). With a [`delay`](Self::delay) too, the later one counts.
    #[must_use]
    pub fn not_before(self, time: Timestamp) -> Self {
        self.only(NOT_BEFORE, time.to_rfc3339())
    }

    /// Not delivered before `delay` has passed since it was published (extension `delay`, in milliseconds: a part of one
    /// counts as a whole).
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        self.only(DELAY, whole_milliseconds(delay))
    }

    /// Not delivered at `time` or later (`CloudEvents` extension `expirytime`). With a
    /// [`time_to_live`](Self::time_to_live) too, the earlier one counts.
    #[must_use]
    pub fn expires(self, time: Timestamp) -> Self {
        self.only(EXPIRY_TIME, time.to_rfc3339())
    }

    /// Not delivered once `time_to_live` has passed since it was published (extension `ttl`, in milliseconds: a part of
    /// one counts as a whole). More than zero.
    #[must_use]
    pub fn time_to_live(self, time_to_live: Duration) -> Self {
        self.only(TIME_TO_LIVE, whole_milliseconds(time_to_live))
    }

    /// How urgent it is, 0 to 9: 9 first (extension `priority`). Another number is an error when the event is built.
    #[must_use]
    pub fn priority(self, priority: u8) -> Self {
        self.only(PRIORITY, priority.to_string())
    }
}

impl Attributes<'_> {
    /// Refuses values that could not be kept. Those of a foreign record are whatever its writer meant by them.
    pub(super) fn check_schedule(&self) -> Result<(), EnvelopeError> {
        if self.foreign {
            return Ok(());
        }
        for (name, value) in &self.extensions {
            let (is_allowed, allowed) = match *name {
                NOT_BEFORE | EXPIRY_TIME => {
                    (Timestamp::parse_rfc3339(value).is_ok(), "an RFC 3339 time, such as 2030-01-31T08:00:00Z")
                }
                DELAY => (milliseconds(value).is_some(), "whole milliseconds, such as 5000"),
                TIME_TO_LIVE => {
                    let is_some_time = milliseconds(value).is_some_and(|duration| !duration.is_zero());
                    (is_some_time, "whole milliseconds, 1 or more, such as 5000")
                }
                PRIORITY => (priority(value).is_some(), "one digit, 0 to 9, and 9 is delivered first"),
                _ => continue,
            };
            if !is_allowed {
                return Err(EnvelopeError::Attribute { name: (*name).to_owned(), value: (*value).to_owned(), allowed });
            }
        }
        Ok(())
    }
}

/// Digits alone.
fn milliseconds(text: &str) -> Option<Duration> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).map(Duration::from_millis)
}

/// Rounded up: not delivered too early, and not expired at once.
fn whole_milliseconds(duration: Duration) -> String {
    duration.as_nanos().div_ceil(1_000_000).min(u128::from(u64::MAX)).to_string()
}

fn priority(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUBLISHED: Timestamp = Timestamp::from_micros(1_000_000);

    fn built(builder: EnvelopeBuilder) -> Envelope {
        builder.build().unwrap().published_at(PUBLISHED)
    }

    fn with(name: &str, value: &str) -> Result<Envelope, EnvelopeError> {
        Envelope::builder("a").extension(name, value).build()
    }

    /// Microseconds of the years 1 to 9999, which RFC 3339 can write.
    fn time() -> impl Strategy<Value = Timestamp> {
        (-62_135_596_800_000_000_i64..253_402_300_799_000_000).prop_map(Timestamp::from_micros)
    }

    proptest! {
        #[test]
        fn what_is_said_is_what_is_read(
            not_before in proptest::option::of(time()),
            delay in proptest::option::of(0_u64..1 << 40),
            expires in proptest::option::of(time()),
            time_to_live in proptest::option::of(1_u64..1 << 40),
            priority in proptest::option::of(0_u8..=9),
        ) {
            let millis = Duration::from_millis;
            let mut builder = Envelope::builder("a").extension("traceparent", "00-1-1-00");
            if let Some(time) = not_before { builder = builder.not_before(time); }
            if let Some(delay) = delay { builder = builder.delay(millis(delay)); }
            if let Some(time) = expires { builder = builder.expires(time); }
            if let Some(time_to_live) = time_to_live { builder = builder.time_to_live(millis(time_to_live)); }
            if let Some(priority) = priority { builder = builder.priority(priority); }
            let event = built(builder);
            let delayed = delay.map(|delay| PUBLISHED.after(millis(delay)));
            prop_assert_eq!(event.due(), not_before.into_iter().chain(delayed).max());
            let outlived = time_to_live.map(|time_to_live| PUBLISHED.after(millis(time_to_live)));
            prop_assert_eq!(event.expires(), expires.into_iter().chain(outlived).min());
            prop_assert_eq!(event.priority(), priority.unwrap_or(4));
            // Carried unchanged by the log and by both bindings.
            let stored = Envelope::from_stored(&event.to_stored()).unwrap();
            prop_assert_eq!((stored.due(), stored.expires(), stored.priority()), (event.due(), event.expires(), event.priority()));
            let extensions = |event: &Envelope| -> Vec<(String, String)> {
                event.extensions().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
            };
            let json = Envelope::from_json(event.to_json().as_bytes()).unwrap();
            prop_assert_eq!(extensions(&json), extensions(&event));
            let attributes: Vec<_> = event.attributes().map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
            let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            prop_assert_eq!(extensions(&Envelope::from_binary(attributes, event.data().clone()).unwrap()), extensions(&event));
        }

        #[test]
        fn any_value_is_refused_or_understood(name in "notbefore|delay|expirytime|ttl|priority", value in "[0-9]{1,22}|[ -~]{0,25}") {
            match with(&name, &value) {
                Ok(event) => {
                    let event = event.published_at(PUBLISHED);
                    let says = (event.due().is_some(), event.expires().is_some(), event.priority().to_string() == value);
                    let expected = (name == "notbefore" || name == "delay", name == "expirytime" || name == "ttl");
                    prop_assert_eq!((says.0, says.1), expected);
                    prop_assert!(name != "priority" || says.2);
                }
                Err(EnvelopeError::Attribute { name: named, value: refused, .. }) => {
                    prop_assert_eq!((named, refused), (name, value));
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    #[test]
    fn an_event_that_says_nothing_is_due_and_lives_for_ever() {
        for builder in [Envelope::builder("a"), Envelope::builder("a").extension("tenant", "x")] {
            let event = built(builder);
            assert_eq!((event.due(), event.expires(), event.priority()), (None, None, DEFAULT_PRIORITY));
        }
    }

    #[test]
    fn the_later_delay_and_the_earlier_end_count() {
        let (early, late) = (Timestamp::from_micros(1_500_000), Timestamp::from_micros(9_000_000));
        let second = Duration::from_secs(1);
        let builder = |time| Envelope::builder("a").not_before(time).delay(second).expires(time).time_to_live(second);
        let (first, second) = (built(builder(early)), built(builder(late)));
        assert_eq!((first.due(), first.expires()), (Some(Timestamp::from_micros(2_000_000)), Some(early)));
        assert_eq!((second.due(), second.expires()), (Some(late), Some(Timestamp::from_micros(2_000_000))));
    }

    #[test]
    fn parts_of_a_millisecond_count_as_a_whole_and_no_end_is_too_far() {
        let value = |builder: EnvelopeBuilder, name| built(builder).extension(name).map(str::to_owned);
        let builder = || Envelope::builder("a");
        assert_eq!(value(builder().delay(Duration::from_micros(1_001)), "delay").as_deref(), Some("2"));
        assert_eq!(value(builder().time_to_live(Duration::from_nanos(1)), "ttl").as_deref(), Some("1"));
        assert_eq!(built(builder().delay(Duration::MAX)).due(), Some(Timestamp::from_micros(i64::MAX)));
        assert_eq!(built(builder().time_to_live(Duration::MAX)).expires(), Some(Timestamp::from_micros(i64::MAX)));
    }

    #[test]
    fn the_last_word_counts() {
        let event = built(Envelope::builder("a").priority(1).extension("tenant", "x").priority(7).priority(8));
        assert_eq!(event.extensions().collect::<Vec<_>>(), [("tenant", "x"), ("priority", "8")]);
    }

    #[test]
    fn a_value_that_cannot_be_kept_is_refused_with_what_is_allowed() {
        for (name, value, allowed) in [
            ("notbefore", "tomorrow", "RFC 3339"),
            ("expirytime", "2030-01-31", "RFC 3339"),
            ("delay", "-1", "whole milliseconds"),
            ("delay", "+1", "whole milliseconds"),
            ("delay", "1.5", "whole milliseconds"),
            ("delay", "99999999999999999999", "whole milliseconds"),
            ("ttl", "0", "1 or more"),
            ("ttl", "", "1 or more"),
            ("priority", "10", "0 to 9"),
            ("priority", "high", "0 to 9"),
        ] {
            let error = with(name, value).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(&format!("{value:?}")) && text.contains(allowed), "{text}");
            let json = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a","{name}":{value:?}}}"#);
            assert_eq!(Envelope::from_json(json.as_bytes()), Err(error.clone().into()), "{json}");
            let attributes = [("id", "1"), ("source", "/s"), ("type", "a"), (name, value)];
            assert_eq!(Envelope::from_binary(attributes, bytes::Bytes::new()), Err(error.into()));
        }
        assert_eq!(Envelope::builder("a").priority(10).build(), with("priority", "10"));
        assert_eq!(Envelope::builder("a").time_to_live(Duration::ZERO).build(), with("ttl", "0"));
        let out_of_years = Timestamp::from_micros(i64::MAX);
        assert!(matches!(Envelope::builder("a").expires(out_of_years).build(), Err(EnvelopeError::Attribute { .. })));
    }

    #[test]
    fn numbers_of_json_are_read_too() {
        let json = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a","priority":7,"delay":250}"#;
        let event = Envelope::from_json(json.as_bytes()).unwrap().published_at(PUBLISHED);
        assert_eq!((event.priority(), event.due()), (7, Some(Timestamp::from_micros(1_250_000))));
    }

    #[test]
    fn a_foreign_record_keeps_whatever_it_says() {
        let event = built(Envelope::builder("a").extension("priority", "high").extension("ttl", "soon").foreign());
        assert_eq!(event.extension("priority"), Some("high"));
        assert_eq!((event.priority(), event.expires()), (DEFAULT_PRIORITY, None));
    }

    #[test]
    fn an_emitted_event_does_not_wait_because_its_cause_did() {
        let builder = |event_type: &str| Envelope::builder(event_type).extension("traceparent", "00-1-1-00");
        let time = Timestamp::from_micros(7);
        let parent = built(
            builder("a")
                .not_before(time)
                .delay(Duration::from_secs(1))
                .expires(time)
                .time_to_live(Duration::MAX)
                .priority(9),
        );
        let child = Envelope::builder("b").build().unwrap().emitted_by(&parent, "h", 0);
        assert_eq!(child.extensions().collect::<Vec<_>>(), [("traceparent", "00-1-1-00")]);
        assert_eq!((child.due(), child.expires(), child.priority()), (None, None, DEFAULT_PRIORITY));
        let own = Envelope::builder("b").priority(2).build().unwrap().emitted_by(&parent, "h", 0);
        assert_eq!(own.priority(), 2);
    }
}
