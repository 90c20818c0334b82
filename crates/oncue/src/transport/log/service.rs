//! How long an event took to be handled, and which priority it had: recorded with its end, so that replay learns the same.

use oncue_learn::Features;

use super::{
    lesson::{decode_features, encode_features, has_run},
    records::SubscriptionNumber,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    event::{Envelope, MAX_PRIORITY},
    policy::LearnedPriority,
    transport::{Action, Settlement},
};

/// An event was handled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Service {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) offset: u64,
    /// The priority that it was handed out with.
    pub(crate) priority: u8,
    /// What a second of its waiting cost.
    pub(crate) cost: f64,
    /// How long its last attempt took.
    pub(crate) micros: u64,
    pub(crate) features: Features,
}

impl Service {
    /// What is learned from a settlement. Nothing from one that ends nothing, or before which no handler ran.
    pub(crate) fn of(
        subscription: SubscriptionNumber,
        rules: &LearnedPriority,
        (event, priority): (&Envelope, u8),
        settlement: &Settlement,
    ) -> Option<Self> {
        let ends = matches!(settlement.action, Action::Ack | Action::DeadLetter);
        (ends && has_run(settlement)).then(|| Self {
            subscription,
            offset: settlement.position.offset(),
            priority,
            cost: rules.cost_of_waiting(event),
            micros: settlement.attempt.ended.micros_since(settlement.attempt.read),
            features: rules.features_of(event),
        })
    }

    /// How long it took, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.micros as f64 / 1e6
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(u64::from(self.subscription));
        out.varint(self.offset);
        out.u8(self.priority);
        out.u64(self.cost.to_bits());
        out.varint(self.micros);
        encode_features(&self.features, out);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (subscription, offset, priority) = (from.small()?, from.varint()?, from.u8()?);
        let (cost, micros) = (f64::from_bits(from.u64()?), from.varint()?);
        if priority > MAX_PRIORITY || !cost.is_finite() || cost < 0.0 {
            return Err(Malformed("a priority or a cost of waiting is none"));
        }
        Ok(Self { subscription, offset, priority, cost, micros, features: decode_features(from)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::Timestamp,
        policy::{ErrorClass, learned_priority},
        transport::{Attempt, Position},
    };

    fn ended(action: Action, class: Option<ErrorClass>) -> Option<Service> {
        let event = Envelope::builder("report.asked").data(r#"{"pages": 3}"#).build().unwrap();
        let at = Timestamp::from_micros;
        let attempt = Attempt { number: 2, class, read: at(1_000_000), ended: at(3_500_000) };
        let position = Position::new(0, 7, 0);
        let settlement = Settlement { position, member: 0, action, attempt, error: None, written: None };
        Service::of(3, &learned_priority().cost("pages"), (&event, 6), &settlement)
    }

    #[test]
    fn what_was_handled_says_how_long_it_took_and_what_was_not_says_nothing() {
        let service = ended(Action::Ack, None).unwrap();
        assert_eq!((service.offset, service.priority, service.cost, service.seconds()), (7, 6, 3.0, 2.5));
        assert!(ended(Action::DeadLetter, Some(ErrorClass::Transient)).is_some());
        assert!(ended(Action::DeadLetter, Some(ErrorClass::Shed)).is_none());
        let later = Action::Retry(Timestamp::default());
        for action in [Action::Skip, Action::Expire, Action::Release, later] {
            assert_eq!(ended(action, None), None);
        }
    }

    proptest! {
        #[test]
        fn it_goes_there_and_back(
            offset in any::<u64>(), priority in 0..=MAX_PRIORITY, cost in 0.0_f64..1e12, micros in any::<u64>(),
            names in proptest::collection::vec("[a-z]{1,5}", 0..9),
        ) {
            let mut features = Features::default();
            names.iter().for_each(|name| features.category("name", name));
            let service = Service { subscription: 9, offset, priority, cost, micros, features };
            let mut out = Writer::default();
            service.encode(&mut out);
            let bytes = out.into_bytes();
            prop_assert_eq!(Service::decode(&mut Reader::new(&bytes)), Ok(service));
        }
    }
}
