//! What a subscription learns from the end of an event: recorded with that end, so that replay learns the same.

use oncue_learn::{Feature, Features, Learner, StateError};

use super::records::SubscriptionNumber;
use crate::{
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
    /// What the [`Label`] says came true; nothing of what was held back: nobody knows.
    pub(crate) lost: Option<bool>,
    pub(crate) features: Features,
}

impl Lesson {
    /// What is learned from a settlement. Nothing from one that ends nothing, or that passes the event by.
    pub(crate) fn of(
        subscription: SubscriptionNumber,
        learns: &Lessons,
        event: &Envelope,
        settlement: &Settlement,
    ) -> Option<Self> {
        let lost = match settlement.action {
            Action::Ack => Some(learns.label == Label::Failed && settlement.attempt.number > 1),
            Action::DeadLetter => {
                // What did not run teaches nothing.
                let ran = !matches!(settlement.attempt.class, Some(ErrorClass::Filtered | ErrorClass::Shed));
                ran.then_some(true)
            }
            Action::Skip | Action::Expire | Action::Retry(_) | Action::Release => return None,
        };
        let offset = settlement.position.offset();
        Some(Self { subscription, offset, lost, features: learns.features_of(event) })
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(u64::from(self.subscription));
        out.varint(self.offset);
        out.u8(match self.lost {
            Some(lost) => u8::from(lost),
            None => 2,
        });
        out.varint(self.features.all().len() as u64);
        for Feature { slot, negative, number } in self.features.all() {
            out.varint(u64::from(*slot) << 2 | u64::from(*negative) << 1 | u64::from(number.is_some()));
            if let Some(number) = number {
                out.u64(number.to_bits());
            }
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (subscription, offset) = (from.small()?, from.varint()?);
        let lost = match from.u8()? {
            0 => Some(false),
            1 => Some(true),
            2 => None,
            _ => return Err(Malformed("a lesson ends in a way that is not known")),
        };
        let mut features = Features::default();
        for _ in 0..from.count(1)? {
            let flags: u32 = from.small()?;
            let number = if flags & 1 == 1 { Some(f64::from_bits(from.u64()?)) } else { None };
            if !features.push(Feature { slot: flags >> 2, negative: flags & 2 == 2, number }) {
                return Err(Malformed("a feature of a lesson is none"));
            }
        }
        Ok(Self { subscription, offset, lost, features })
    }
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

    fn ended(action: Action, number: u32, class: Option<ErrorClass>, label: Label) -> Option<Option<bool>> {
        let event = Envelope::builder("order.created").data(r#"{"bank": "north"}"#).build().unwrap();
        let attempt = Attempt { number, class, read: event.published(), ended: event.published() };
        let position = Position::new(0, 7, 0);
        let settlement = Settlement { position, member: 0, action, attempt, error: None, written: None };
        let learns = Lessons { label, ..Lessons::default() };
        Lesson::of(3, &learns, &event, &settlement).map(|lesson| lesson.lost)
    }

    #[test]
    fn only_ends_are_learned_from_and_of_what_was_held_back_nobody_knows() {
        use ErrorClass::{Filtered, Transient};
        assert_eq!(ended(Action::Ack, 1, None, Label::Dead), Some(Some(false)));
        assert_eq!(ended(Action::Ack, 3, None, Label::Dead), Some(Some(false)));
        assert_eq!(ended(Action::Ack, 3, None, Label::Failed), Some(Some(true)));
        assert_eq!(ended(Action::DeadLetter, 1, Some(Transient), Label::Dead), Some(Some(true)));
        assert_eq!(ended(Action::DeadLetter, 1, Some(Filtered), Label::Dead), Some(None));
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

    proptest! {
        #[test]
        fn lessons_go_there_and_back(
            offset in any::<u64>(), lost in any::<Option<bool>>(),
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
