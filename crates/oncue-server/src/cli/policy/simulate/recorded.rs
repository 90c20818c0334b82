//! A dependency that was there: what it answered is in a log, and what it would have answered between is assumed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use oncue::{
    clock::Timestamp,
    policy::ErrorClass,
    transport::{Attempt, RecordedAttempt},
};
use thiserror::Error;

use super::world::Dependency;

/// Most events that are lived again: the newest.
const MOST_EVENTS: usize = 2_000;
/// Less tells nothing of a policy.
const LEAST_EVENTS: usize = 100;
const LEAST_FAILED: usize = 10;

/// What was recorded of a subscription's attempts, by event.
#[derive(Debug)]
pub(super) struct Record {
    events: Vec<Past>,
    /// When the dependency was called, by whom, and how it was: that of events whose trouble is their own is not among it.
    calls: Vec<(f64, usize, Option<ErrorClass>)>,
    pub(super) call_takes: Duration,
    /// Attempts that failed.
    pub(super) failed: usize,
}

/// What is known of an event.
#[derive(Debug, Default)]
struct Past {
    published: f64,
    /// When each attempt began, and how it failed; in their order.
    attempts: Vec<(f64, Option<ErrorClass>)>,
    /// How it fails at any time, if that is its own.
    own: Option<ErrorClass>,
}

/// The record is too short.
#[derive(Debug, Error)]
#[error(
    "the log has {attempts} attempts of `{subscription}` at {events} events, of which {failed} failed: policies are told apart by \
     {LEAST_EVENTS} events and {LEAST_FAILED} failures at least; let the app run on, or compare by --scenario"
)]
pub(in crate::cli) struct TooFew {
    subscription: String,
    attempts: usize,
    events: usize,
    failed: usize,
}

impl Record {
    pub(super) fn of(subscription: &str, mut attempts: Vec<RecordedAttempt>) -> Result<Self, TooFew> {
        attempts.sort_by_key(|recorded| recorded.attempt.read);
        let mut by_event: BTreeMap<(Timestamp, u64), Vec<Attempt>> = BTreeMap::new();
        for recorded in &attempts {
            by_event.entry((recorded.published, recorded.offset)).or_default().push(recorded.attempt);
        }
        let has_failed = |attempt: &Attempt| attempt.class.is_some();
        let failed = attempts.iter().filter(|recorded| has_failed(&recorded.attempt)).count();
        if by_event.len() < LEAST_EVENTS || failed < LEAST_FAILED {
            let (subscription, events) = (subscription.to_owned(), by_event.len());
            return Err(TooFew { subscription, attempts: attempts.len(), events, failed });
        }
        let newest = by_event.len().saturating_sub(MOST_EVENTS);
        let newest: Vec<_> = by_event.into_iter().skip(newest).collect();
        let begin = newest.first().map(|((published, _), _)| *published).unwrap_or_default();
        let seconds = |time: Timestamp| time.since(begin).as_secs_f64();
        let mut takes: Vec<Duration> =
            newest.iter().flat_map(|(_, all)| all).map(|attempt| attempt.ended.since(attempt.read)).collect();
        let middle = takes.len() / 2;
        let call_takes = *takes.select_nth_unstable(middle).1;
        let failed = newest.iter().flat_map(|(_, all)| all).filter(|attempt| has_failed(attempt)).count();
        let past = |((published, _), attempts): ((Timestamp, u64), Vec<Attempt>)| Past {
            published: seconds(published),
            attempts: attempts.iter().map(|attempt| (seconds(attempt.read), attempt.class)).collect(),
            own: None,
        };
        let mut record = Self { events: newest.into_iter().map(past).collect(), calls: Vec::new(), call_takes, failed };
        record.tell_apart();
        Ok(record)
    }

    /// Whose trouble was whose: of an event that never worked, although others did between its attempts, it was its own.
    fn tell_apart(&mut self) {
        let calls = self.events.iter().enumerate().flat_map(|(event, past)| {
            // Who refuses for good answers.
            let was = |class: &Option<ErrorClass>| class.filter(|class| class.is_retryable());
            past.attempts.iter().map(move |(at, class)| (*at, event, was(class)))
        });
        let mut calls: Vec<_> = calls.collect();
        calls.sort_by(|one, other| one.0.total_cmp(&other.0));
        for (event, past) in self.events.iter_mut().enumerate() {
            let (Some(first), Some((last, Some(class)))) = (past.attempts.first(), past.attempts.last()) else {
                continue;
            };
            let between = calls.partition_point(|call| call.0 <= first.0)..calls.partition_point(|call| call.0 < *last);
            let others = calls.get(between).unwrap_or_default();
            let others_work = others.iter().any(|(_, other, class)| *other != event && class.is_none());
            past.own = (!class.is_retryable() || others_work).then_some(*class);
        }
        calls.retain(|(_, event, class)| class.is_none() || self.events[*event].own.is_none());
        self.calls = calls;
    }

    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    /// How the call of another event was that is nearest to a time, if there is one within these bounds.
    fn nearest(&self, event: usize, at: f64, within: (f64, f64)) -> Option<Option<ErrorClass>> {
        let next = self.calls.partition_point(|call| call.0 < at);
        let is_others = |call: &&(f64, usize, Option<ErrorClass>)| call.1 != event;
        let before = self.calls[..next].iter().rev().take_while(|call| call.0 > within.0).find(is_others);
        let after = self.calls[next..].iter().take_while(|call| call.0 < within.1).find(is_others);
        let nearest = match (before, after) {
            (Some(before), Some(after)) if after.0 - at < at - before.0 => Some(after),
            (before, after) => before.or(after),
        };
        nearest.map(|call| call.2)
    }
}

/// One life: the record, and chance where that does not tell.
pub(super) struct Again {
    pub(super) record: Arc<Record>,
    pub(super) seed: u64,
}

impl Dependency for Again {
    fn arrivals(&self) -> Vec<f64> {
        self.record.events.iter().map(|past| past.published).collect()
    }

    fn call_takes(&self) -> Duration {
        self.record.call_takes
    }

    fn call(&self, event: usize, _attempt: u32, at: f64) -> Result<(), ErrorClass> {
        let Some(past) = self.record.events.get(event) else { return Ok(()) };
        let next = past.attempts.partition_point(|attempt| attempt.0 <= at);
        let (before, after) = (next.checked_sub(1).map(|last| past.attempts[last]), past.attempts.get(next).copied());
        let class = match (past.own, before, after) {
            (Some(own), ..) => Some(own),
            (None, Some((_, None)), _) => None,
            (None, Some((_, failed)), Some((_, Some(_)))) => failed,
            (None, Some((from, failed)), Some((to, None))) => {
                let over = from + Rng::with_seed(self.seed ^ (event as u64) << 20 ^ next as u64).f64() * (to - from);
                let unknown = || if at < over { failed } else { None };
                self.record.nearest(event, at, (from, to)).unwrap_or_else(unknown)
            }
            (None, Some((from, failed)), None) => self.record.nearest(event, at, (from, at)).unwrap_or(failed),
            (None, None, Some((to, class))) => self.record.nearest(event, at, (2.0 * at - to, to)).unwrap_or(class),
            (None, None, None) => None,
        };
        class.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILS: Option<ErrorClass> = Some(ErrorClass::Transient);
    const REFUSED: Option<ErrorClass> = Some(ErrorClass::Permanent);

    /// The first events are these, each with its attempts (second, how it ended); the others come much later.
    fn record(events: &[&[(i64, Option<ErrorClass>)]]) -> Arc<Record> {
        let at = |second: i64| Timestamp::from_micros(1_000_000 * second);
        let recorded = |offset: usize, number: usize, (second, class): (i64, Option<ErrorClass>)| {
            let attempt = Attempt { number: number as u32, class, read: at(second), ended: at(second) };
            RecordedAttempt { offset: offset as u64, published: at(0), attempt }
        };
        let mut all = Vec::new();
        for (event, attempts) in events.iter().enumerate() {
            all.extend(attempts.iter().enumerate().map(|(number, attempt)| recorded(event, number + 1, *attempt)));
        }
        all.extend(
            (0..LEAST_EVENTS + LEAST_FAILED)
                .map(|other| recorded(1_000 + other, 1, (1_000_000, REFUSED.filter(|_| other < LEAST_FAILED)))),
        );
        Arc::new(Record::of("call", all).unwrap())
    }

    fn fails_at(record: &Arc<Record>, event: usize, times: &[f64]) -> Vec<bool> {
        let life = Again { record: Arc::clone(record), seed: 1 };
        times.iter().map(|at| life.call(event, 1, *at).is_err()).collect()
    }

    #[test]
    fn an_event_is_what_its_own_attempts_say_and_between_them_what_others_found() {
        let record = record(&[&[(10, FAILS), (20, FAILS), (40, None)], &[(24, FAILS), (60, None)], &[(30, None)]]);
        // Own attempts, and between two that failed; then the nearest call, which at 26 is the failure at 24; then it works.
        assert_eq!(
            fails_at(&record, 0, &[10.0, 15.0, 20.0, 26.0, 28.0, 39.0, 40.0, 90.0]),
            [true, true, true, true, false, false, false, false]
        );
        // Before its first attempt the call at 24 is nearer than its own at 30; from 28 on its own is.
        assert_eq!(fails_at(&record, 2, &[25.0, 28.0, 30.0]), [true, false, false]);
    }

    #[test]
    fn where_nobody_called_any_time_is_as_likely_as_another() {
        let record = record(&[&[(10, FAILS), (20, None)]]);
        let fails = |at: f64| {
            let life = |seed| Again { record: Arc::clone(&record), seed };
            (0..1_000).filter(|seed| life(*seed).call(0, 2, at).is_err()).count()
        };
        assert_eq!((fails(10.0), fails(20.0)), (1_000, 0));
        assert!(
            (650..850).contains(&fails(12.5)) && (150..350).contains(&fails(17.5)),
            "{} {}",
            fails(12.5),
            fails(17.5)
        );
    }

    #[test]
    fn trouble_is_an_events_own_if_others_worked_meanwhile_or_it_was_refused() {
        let record = record(&[
            &[(10, FAILS), (20, FAILS)],
            &[(15, None)],
            &[(30, REFUSED)],
            &[(40, FAILS), (41, FAILS)],
            &[(50, None)],
        ]);
        assert_eq!(fails_at(&record, 0, &[1.0, 15.0, 9e5]), [true; 3]);
        assert_eq!(fails_at(&record, 2, &[1.0, 9e5]), [true; 2]);
        assert_eq!(Again { record: Arc::clone(&record), seed: 1 }.call(2, 1, 1.0), Err(ErrorClass::Permanent));
        // This one was given up while nobody came through: it works once somebody did.
        assert_eq!(fails_at(&record, 3, &[40.5, 45.0, 49.0, 51.0]), [true, true, true, false]);
    }

    #[test]
    fn too_short_a_record_is_none() {
        let error = Record::of("call", Vec::new()).unwrap_err().to_string();
        assert!(error.contains("0 attempts of `call`") && error.contains("100 events"), "{error}");
    }
}
