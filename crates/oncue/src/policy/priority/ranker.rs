//! What was learned of how long events take, and which priority follows.

use oncue_learn::{Features, Learner, Loss, Ranks, StateError, Verdict};

use crate::{
    codec::{Malformed, Reader, Writer},
    event::MAX_PRIORITY,
};

/// How many priorities there are.
const PRIORITIES: usize = MAX_PRIORITY as usize + 1;
/// No time is expected that is shorter than that share of the mean: a line may lead below zero.
const SHORTEST: f64 = 0.01;
/// Nor one that is shorter than that, in seconds.
const INSTANT: f64 = 1e-6;
/// Urgencies are compared in so many steps from one to twice as much. What is expected moves as it is learned: events of a
/// kind would not be alike without that, and the newest always at the end of theirs.
const STEPS: f64 = 4.0;

/// How long the events of a subscription take, and how urgent each is among those that came lately.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranker {
    /// Handling times, in seconds.
    service: Learner,
    /// Cost of waiting for the time that was expected, in steps.
    urgencies: Ranks,
    /// Events that were handled, by the priority that they had.
    given: [u64; PRIORITIES],
}

impl Default for Ranker {
    fn default() -> Self {
        Self { service: Learner::new(Loss::Squared), urgencies: Ranks::default(), given: [0; PRIORITIES] }
    }
}

impl Ranker {
    /// How long an event is expected to take, in seconds: what was learned says it once that is better than the mean, beyond
    /// chance; before, the mean does.
    #[must_use]
    pub fn expected_s(&self, features: &Features) -> f64 {
        let mean = self.service.simple();
        let proven = self.service.progress().verdict() == Verdict::Better;
        let expected = if proven { self.service.estimate(features) } else { mean };
        expected.max(mean * SHORTEST).max(INSTANT)
    }

    /// The cost of waiting for the time that an event is expected to take: cµ.
    #[must_use]
    pub fn urgency(&self, cost: f64, features: &Features) -> f64 {
        cost / self.expected_s(features)
    }

    /// The priority of an event, 9 first: the tenth of those that were handled lately in which its urgency lies. Nothing
    /// before there are enough of them.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share between 0 and 1, in tenths")]
    pub fn priority(&self, cost: f64, features: &Features) -> Option<u8> {
        let share = self.urgencies.share_below(step(self.urgency(cost, features)))?;
        Some(((share * PRIORITIES as f64) as u8).min(MAX_PRIORITY))
    }

    /// An event of such a cost took so long, in seconds, and had this priority.
    pub fn learn(&mut self, cost: f64, features: &Features, seconds: f64, priority: u8) {
        // It refuses quantities that are none, which times are not.
        let _ = self.service.learn(features, seconds);
        self.urgencies.add(step(self.urgency(cost, features)));
        let given = &mut self.given[usize::from(priority.min(MAX_PRIORITY))];
        *given = given.saturating_add(1);
    }

    /// What was learned of how long events take.
    #[must_use]
    pub fn service(&self) -> &Learner {
        &self.service
    }

    /// Events that were handled, by the priority that they had, 0 first.
    #[must_use]
    pub fn given(&self) -> &[u64] {
        &self.given
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.bytes(&self.service.encode());
        out.bytes(&self.urgencies.encode());
        self.given.iter().for_each(|given| out.varint(*given));
    }

    /// One out of a checkpoint. What another version of `oncue-learn` wrote is left behind: all is learned anew.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let service = Learner::decode(from.bytes()?).and_then(|learner| match learner.loss() {
            Loss::Squared => Ok(learner),
            Loss::Logistic => Err(StateError::Malformed("a learner of times estimates something else")),
        });
        let urgencies = Ranks::decode(from.bytes()?);
        let mut given = [0; PRIORITIES];
        for count in &mut given {
            *count = from.varint()?;
        }
        match (service, urgencies) {
            (Ok(service), Ok(urgencies)) => Ok(Self { service, urgencies, given }),
            (Err(StateError::Malformed(what)), _) | (_, Err(StateError::Malformed(what))) => Err(Malformed(what)),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "what was learned of a subscription's priorities cannot be read");
                Ok(Self { given, ..Self::default() })
            }
        }
    }
}

/// Which of the steps an urgency is nearest to.
fn step(urgency: f64) -> f64 {
    (urgency.max(f64::MIN_POSITIVE).log2() * STEPS).round()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Long ones take ten times as long as short ones.
    fn features(long: bool) -> Features {
        let mut features = Features::default();
        features.category("kind", if long { "long" } else { "short" });
        features
    }

    fn taught(examples: u32) -> Ranker {
        let mut ranker = Ranker::default();
        for number in 0..examples {
            let (long, cost) = (number % 2 == 0, if number % 4 < 2 { 1.0 } else { 100.0 });
            ranker.learn(cost, &features(long), if long { 10.0 } else { 1.0 }, 4);
        }
        ranker
    }

    #[test]
    fn what_takes_long_waits_unless_its_waiting_costs_more() {
        let ranker = taught(800);
        let priority = |cost, long| ranker.priority(cost, &features(long)).unwrap();
        let first_to_last = [(100.0, false), (100.0, true), (1.0, false), (1.0, true)];
        let given = first_to_last.map(|(cost, long)| priority(cost, long));
        assert!(given.is_sorted_by(|one, other| one > other), "{given:?}");
        assert!((8.0..12.0).contains(&ranker.expected_s(&features(true))), "{}", ranker.expected_s(&features(true)));
        assert_eq!(ranker.given()[4], 800);
    }

    #[test]
    fn before_anything_is_proven_costs_alone_count_and_before_enough_was_seen_nothing() {
        assert_eq!(Ranker::default().priority(1.0, &features(true)), None);
        let ranker = taught(60);
        assert_eq!(ranker.priority(1.0, &features(true)), ranker.priority(1.0, &features(false)));
        assert!(ranker.priority(2.0, &features(true)) > ranker.priority(0.5, &features(true)));
    }

    #[test]
    fn where_all_are_alike_none_comes_first() {
        let mut ranker = Ranker::default();
        (0..200).for_each(|_| ranker.learn(3.0, &features(true), 2.0, 4));
        assert_eq!(ranker.priority(3.0, &features(true)), Some(5));
    }

    proptest! {
        #[test]
        fn the_same_in_the_same_order_is_the_same_bytes_and_goes_on_from_them(
            examples in proptest::collection::vec((any::<bool>(), 0.0_f64..9.0, 0.0_f64..99.0, 0_u8..10), 0..300),
            stop in 0_usize..300,
        ) {
            let (mut one, mut other) = (Ranker::default(), Ranker::default());
            let bytes = |ranker: &Ranker| {
                let mut out = Writer::default();
                ranker.encode(&mut out);
                out.into_bytes()
            };
            for (place, (long, cost, seconds, priority)) in examples.into_iter().enumerate() {
                if place == stop {
                    other = Ranker::decode(&mut Reader::new(&bytes(&other))).unwrap();
                }
                for ranker in [&mut one, &mut other] {
                    ranker.learn(cost, &features(long), seconds, priority);
                }
                prop_assert_eq!(one.priority(cost, &features(long)), other.priority(cost, &features(long)));
            }
            prop_assert_eq!(bytes(&one), bytes(&other));
        }
    }
}
