//! What a first attempt of a route brought, and which of its handlers made it: recorded with its end, so that replay learns
//! the same.

use super::{
    feedback::Kept,
    lesson::{Waits, decode_features, encode_features, has_run},
    records::SubscriptionNumber,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    event::Envelope,
    policy::{Choice, LearnedRoute, Routed},
    transport::{Action, RouteChoice, Settlement},
};

/// One of the handlers of a route was tried.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trial {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) offset: u64,
    pub(crate) worked: Worked,
    pub(crate) routed: Routed,
}

/// Whether a first attempt was a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worked {
    Known(bool),
    /// It was handled, and feedback will tell.
    Waits(Waits),
}

impl Trial {
    /// What is learned from a settlement. Nothing but from first attempts whose handler was chosen by what is learned; and, where
    /// feedback tells, nothing of an event without a key.
    pub(crate) fn of(
        subscription: SubscriptionNumber,
        rules: &LearnedRoute,
        event: &Envelope,
        settlement: &Settlement,
    ) -> Option<Self> {
        let attempt = settlement.attempt;
        let choice = settlement.written.as_ref()?.routed.filter(|_| attempt.number == 1 && has_run(settlement))?;
        let worked = match settlement.action {
            Action::Ack => true,
            // Put off by the handler is neither.
            Action::Retry(_) if attempt.class.is_none() => return None,
            Action::Retry(_) | Action::DeadLetter => false,
            Action::Skip | Action::Expire | Action::Release => return None,
        };
        let worked = match rules.told_by() {
            Some(_) => {
                let waits = Waits { key: event.key_hash()?, published: event.published(), ended: attempt.ended };
                if worked { Worked::Waits(waits) } else { Worked::Known(false) }
            }
            None => Worked::Known(worked),
        };
        let (micros, features) = (attempt.ended.micros_since(attempt.read), rules.features_of(event));
        let routed = Routed { choice: choice.into(), micros, features };
        Some(Self { subscription, offset: settlement.position.offset(), worked, routed })
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(u64::from(self.subscription));
        out.varint(self.offset);
        match self.worked {
            Worked::Known(worked) => out.u8(u8::from(worked)),
            Worked::Waits(waits) => {
                out.u8(3);
                waits.encode(out);
            }
        }
        self.routed.encode(out);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (subscription, offset) = (from.small()?, from.varint()?);
        let worked = match from.u8()? {
            0 => Worked::Known(false),
            1 => Worked::Known(true),
            3 => Worked::Waits(Waits::decode(from)?),
            _ => return Err(Malformed("a trial of a route ends in a way that is not known")),
        };
        Ok(Self { subscription, offset, worked, routed: Routed::decode(from)? })
    }
}

/// How a handler was chosen, how long it took, and what was looked at.
impl Kept for Routed {
    fn encode(&self, out: &mut Writer) {
        let RouteChoice { arm, best, explores, among } = self.choice.into();
        [arm, best, u8::from(explores), among].into_iter().for_each(|byte| out.u8(byte));
        out.varint(self.micros);
        encode_features(&self.features, out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (arm, best, explores, among) = (from.u8()?, from.u8()?, from.u8()?, from.u8()?);
        if explores > 1 {
            return Err(Malformed("a choice neither explores nor does not"));
        }
        let choice = RouteChoice { arm, best, explores: explores == 1, among }.into();
        Ok(Self { choice, micros: from.varint()?, features: decode_features(from)? })
    }
}

impl From<Choice> for RouteChoice {
    fn from(choice: Choice) -> Self {
        let Choice { arm, best, explores, among } = choice;
        // There are sixteen at most.
        let [arm, best, among] = [arm, best, among].map(|number| u8::try_from(number).unwrap_or(u8::MAX));
        Self { arm, best, explores, among }
    }
}

impl From<RouteChoice> for Choice {
    fn from(choice: RouteChoice) -> Self {
        let RouteChoice { arm, best, explores, among } = choice;
        Self { arm: arm.into(), best: best.into(), explores, among: among.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::Timestamp,
        filter::{Features, feedback},
        policy::ErrorClass,
        transport::{Attempt, Position, Written},
    };

    const CHOICE: RouteChoice = RouteChoice { arm: 1, best: 0, explores: true, among: 2 };

    fn ended(action: Action, number: u32, class: Option<ErrorClass>, rules: &LearnedRoute) -> Option<Trial> {
        let event = Envelope::builder("order.created").subject("o-1").data(r#"{"bank": "north"}"#).build().unwrap();
        let at = Timestamp::from_micros;
        let attempt = Attempt { number, class, read: at(1_000_000), ended: at(3_500_000) };
        let position = Position::new(0, 7, 0);
        let written = Some(Box::new(Written { routed: Some(CHOICE), ..Written::default() }));
        let settlement = Settlement { position, member: 0, action, attempt, error: None, written };
        Trial::of(3, rules, &event, &settlement)
    }

    #[test]
    fn first_attempts_teach_and_nothing_else_does() {
        use ErrorClass::{Filtered, Timeout};
        let (rules, later) = (LearnedRoute::default(), Action::Retry(Timestamp::default()));
        let worked = |action, number, class| ended(action, number, class, &rules).map(|trial| trial.worked);
        assert_eq!(worked(Action::Ack, 1, None), Some(Worked::Known(true)));
        assert_eq!(worked(later, 1, Some(Timeout)), Some(Worked::Known(false)));
        assert_eq!(worked(Action::DeadLetter, 1, Some(Timeout)), Some(Worked::Known(false)));
        assert_eq!(worked(Action::DeadLetter, 1, Some(Filtered)), None, "no handler ran");
        assert_eq!(worked(later, 0, None), None, "it was put off");
        for (action, number) in [(Action::Ack, 2), (later, 3), (Action::DeadLetter, 2), (Action::Release, 1)] {
            assert_eq!(worked(action, number, Some(Timeout)), None, "{action:?} {number}");
        }
        let routed = ended(Action::Ack, 1, None, &rules).unwrap().routed;
        assert_eq!((RouteChoice::from(routed.choice), routed.micros), (CHOICE, 2_500_000));
    }

    #[test]
    fn feedback_tells_of_what_was_handled_and_what_failed_is_known() {
        let rules = LearnedRoute::default().feedback(feedback(["order.canceled"], Duration::from_secs(1)));
        let worked = |action, class| ended(action, 1, class, &rules).map(|trial| trial.worked);
        assert!(matches!(worked(Action::Ack, None), Some(Worked::Waits(_))));
        assert_eq!(worked(Action::DeadLetter, Some(ErrorClass::Panic)), Some(Worked::Known(false)));
    }

    proptest! {
        #[test]
        fn trials_go_there_and_back(
            offset in any::<u64>(), micros in any::<u64>(), times in any::<Option<(u64, i64, i64)>>(), yes in any::<bool>(),
            arms in any::<(u8, u8, u8)>(), names in proptest::collection::vec("[a-z]{1,5}", 0..9),
        ) {
            let mut features = Features::default();
            names.iter().for_each(|name| features.category("name", name));
            let at = Timestamp::from_micros;
            let waits = |(key, published, ended)| Worked::Waits(Waits { key, published: at(published), ended: at(ended) });
            let choice = RouteChoice { arm: arms.0, best: arms.1, explores: yes, among: arms.2 }.into();
            let worked = times.map_or(Worked::Known(yes), waits);
            let trial = Trial { subscription: 9, offset, worked, routed: Routed { choice, micros, features } };
            let mut out = Writer::default();
            trial.encode(&mut out);
            let bytes = out.into_bytes();
            prop_assert_eq!(Trial::decode(&mut Reader::new(&bytes)), Ok(trial));
        }
    }
}
