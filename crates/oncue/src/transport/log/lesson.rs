//! What a subscription learns from the end of an event: recorded with that end, so that replay learns the same.

use oncue_learn::{Feature, Features, Learner, StateError};

use super::records::SubscriptionNumber;
use crate::{
    clock::Timestamp,
    codec::{Malformed, Reader, Writer},
    event::Envelope,
    filter::{Label, Lessons},
    policy::ErrorClass,
    transport::{Action, Settlement},
};

/// An event ended: what was looked at of it, and whether it was lost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lesson {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) offset: u64,
    pub(crate) lost: Lost,
    pub(crate) features: Features,
}

/// Whether what the [`Label`] says came true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    Known(bool),
    /// It was held back: nobody knows.
    Unknown,
    /// Feedback will tell.
    Waits(Waits),
}

/// An event that waits for feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    /// See `Envelope::key_hash`.
    pub(crate) key: u64,
    /// When it was published: the time from which feedback counts.
    pub(crate) published: Timestamp,
    /// When its handler was through with it.
    pub(crate) ended: Timestamp,
}

impl Waits {
    pub(super) fn encode(&self, out: &mut Writer) {
        out.u64(self.key);
        out.signed(self.published.as_micros());
        out.signed(self.ended.as_micros());
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (key, published) = (from.u64()?, Timestamp::from_micros(from.signed()?));
        Ok(Self { key, published, ended: Timestamp::from_micros(from.signed()?) })
    }
}

impl Lesson {
    /// What is learned from a settlement. Nothing from one that ends nothing, or that passes the event by; and, where
    /// feedback tells, nothing from an event without a key.
    pub(crate) fn of(
        subscription: SubscriptionNumber,
        learns: &Lessons,
        event: &Envelope,
        settlement: &Settlement,
    ) -> Option<Self> {
        let lost = match settlement.action {
            Action::Ack => learns.label == Label::Failed && settlement.attempt.number > 1,
            Action::DeadLetter => true,
            Action::Skip | Action::Expire | Action::Retry(_) | Action::Release => return None,
        };
        let lost = match learns.feedback() {
            // What did not run teaches nothing.
            _ if !has_run(settlement) => Lost::Unknown,
            None => Lost::Known(lost),
            Some(_) => {
                let (published, ended) = (event.published(), settlement.attempt.ended);
                Lost::Waits(Waits { key: event.key_hash()?, published, ended })
            }
        };
        let offset = settlement.position.offset();
        Some(Self { subscription, offset, lost, features: learns.features_of(event) })
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(u64::from(self.subscription));
        out.varint(self.offset);
        match self.lost {
            Lost::Known(lost) => out.u8(u8::from(lost)),
            Lost::Unknown => out.u8(2),
            Lost::Waits(waits) => {
                out.u8(3);
                waits.encode(out);
            }
        }
        encode_features(&self.features, out);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (subscription, offset) = (from.small()?, from.varint()?);
        let lost = match from.u8()? {
            0 => Lost::Known(false),
            1 => Lost::Known(true),
            2 => Lost::Unknown,
            3 => Lost::Waits(Waits::decode(from)?),
            _ => return Err(Malformed("a lesson ends in a way that is not known")),
        };
        Ok(Self { subscription, offset, lost, features: decode_features(from)? })
    }
}

/// Whether the handler ran before the event ended.
pub(super) fn has_run(settlement: &Settlement) -> bool {
    !matches!(settlement.attempt.class, Some(ErrorClass::Filtered | ErrorClass::Shed))
}

pub(super) fn encode_features(features: &Features, out: &mut Writer) {
    out.varint(features.all().len() as u64);
    for Feature { slot, negative, number } in features.all() {
        out.varint(u64::from(*slot) << 2 | u64::from(*negative) << 1 | u64::from(number.is_some()));
        if let Some(number) = number {
            out.u64(number.to_bits());
        }
    }
}

pub(super) fn decode_features(from: &mut Reader<'_>) -> Result<Features, Malformed> {
    let mut features = Features::default();
    for _ in 0..from.count(1)? {
        let flags: u32 = from.small()?;
        let number = if flags & 1 == 1 { Some(f64::from_bits(from.u64()?)) } else { None };
        if !features.push(Feature { slot: flags >> 2, negative: flags & 2 == 2, number }) {
            return Err(Malformed("a feature of a lesson is none"));
        }
    }
    Ok(features)
}

/// A learner out of a checkpoint; empty: there is none. One that another version wrote is left behind: what was learned is
/// learned anew, and nothing else depends on it.
pub(super) fn restored(state: &[u8]) -> Result<Option<Box<Learner>>, Malformed> {
    if state.is_empty() {
        return Ok(None);
    }
    match Learner::decode(state) {
        Ok(learner) => Ok(Some(Box::new(learner))),
        Err(error @ StateError::Version { .. }) => {
            tracing::warn!(%error, "what was learned of a subscription cannot be read");
            Ok(None)
        }
        Err(StateError::Malformed(what)) => Err(Malformed(what)),
    }
}

#[cfg(test)]
mod tests {
    use oncue_learn::Loss;
    use proptest::prelude::*;

    use super::*;
    use crate::transport::{Attempt, Position};

    fn ended(action: Action, number: u32, class: Option<ErrorClass>, label: Label) -> Option<Lost> {
        let event = Envelope::builder("order.created").subject("o-1").data(r#"{"bank": "north"}"#).build().unwrap();
        let attempt = Attempt { number, class, read: event.published(), ended: event.published() };
        let position = Position::new(0, 7, 0);
        let settlement = Settlement { position, member: 0, action, attempt, error: None, written: None };
        let learns = Lessons { label, ..Lessons::default() };
        Lesson::of(3, &learns, &event, &settlement).map(|lesson| lesson.lost)
    }

    #[test]
    fn only_ends_are_learned_from_and_of_what_was_held_back_nobody_knows() {
        use ErrorClass::{Filtered, Transient};
        assert_eq!(ended(Action::Ack, 1, None, Label::Dead), Some(Lost::Known(false)));
        assert_eq!(ended(Action::Ack, 3, None, Label::Dead), Some(Lost::Known(false)));
        assert_eq!(ended(Action::Ack, 3, None, Label::Failed), Some(Lost::Known(true)));
        assert_eq!(ended(Action::DeadLetter, 1, Some(Transient), Label::Dead), Some(Lost::Known(true)));
        assert_eq!(ended(Action::DeadLetter, 1, Some(Filtered), Label::Dead), Some(Lost::Unknown));
        let feedback = || Label::from(crate::filter::feedback(["order.canceled"], std::time::Duration::from_secs(1)));
        for (action, class) in [(Action::Ack, None), (Action::DeadLetter, Some(Transient))] {
            assert!(matches!(ended(action, 1, class, feedback()), Some(Lost::Waits(_))), "whatever its end");
        }
        assert_eq!(ended(Action::DeadLetter, 1, Some(Filtered), feedback()), Some(Lost::Unknown));
        let later = Action::Retry(crate::clock::Timestamp::default());
        for action in [Action::Skip, Action::Expire, Action::Release, later] {
            assert_eq!(ended(action, 1, None, Label::Failed), None, "{action:?}");
        }
    }

    #[test]
    fn a_learner_of_another_version_learns_anew_and_damage_is_refused() {
        let mut state = Learner::new(Loss::Logistic).encode();
        assert_eq!(restored(&state), Ok(Some(Box::new(Learner::new(Loss::Logistic)))));
        assert_eq!(restored(&[]), Ok(None));
        state.pop();
        assert!(restored(&state).is_err());
        state[0] = 200;
        assert_eq!(restored(&state), Ok(None));
    }

    fn lost() -> impl Strategy<Value = Lost> {
        let waits = any::<(u64, i64, i64)>().prop_map(|(key, published, ended)| {
            let (published, ended) = (Timestamp::from_micros(published), Timestamp::from_micros(ended));
            Lost::Waits(Waits { key, published, ended })
        });
        prop_oneof![any::<bool>().prop_map(Lost::Known), Just(Lost::Unknown), waits]
    }

    proptest! {
        #[test]
        fn lessons_go_there_and_back(
            offset in any::<u64>(), lost in lost(),
            names in proptest::collection::vec(("[a-z]{1,5}", any::<Option<f64>>()), 0..300),
        ) {
            let mut features = Features::default();
            for (name, number) in names {
                match number {
                    Some(number) => features.number(&name, number),
                    None => features.category("name", &name),
                }
            }
            let lesson = Lesson { subscription: 9, offset, lost, features };
            let mut out = Writer::default();
            lesson.encode(&mut out);
            let bytes = out.into_bytes();
            prop_assert_eq!(Lesson::decode(&mut Reader::new(&bytes)), Ok(lesson));
        }
    }
}
