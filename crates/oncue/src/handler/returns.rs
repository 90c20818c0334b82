//! What a handler returns becomes an [`Outcome`] and the events to publish.

use std::{any::Any, borrow::Cow, error::Error, fmt, sync::Arc};

use super::{Emitted, Invocation, Outcome, error::Classed};
use crate::{
    event::{Envelope, Event},
    policy::ErrorClass,
};

/// What a handler may return: `()`, an event, an `Option`, `Vec` or tuple of these, a `Result` of these with any error,
/// or an [`Outcome`]. The events are published with the acknowledgement, in order.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "not a return type of a handler",
    note = "a handler returns `()`, an event, an `Option`, `Vec` or tuple of events, or a `Result` of these"
)]
pub trait IntoOutcome {
    /// Whether events can be in it.
    const EMITTING: bool;

    /// The error that the handler may return; [`Infallible`](std::convert::Infallible) if none.
    type Error;

    /// The types of the events that can be in it.
    fn emits() -> Vec<&'static str>;

    /// The outcome; what is to be published is added to `emits`.
    fn into_outcome(self, emits: &mut Vec<Emitted>, classify: &Classify) -> Outcome;
}

#[diagnostic::do_not_recommend]
impl IntoOutcome for () {
    const EMITTING: bool = false;
    type Error = std::convert::Infallible;

    fn emits() -> Vec<&'static str> {
        Vec::new()
    }

    #[inline]
    fn into_outcome(self, _: &mut Vec<Emitted>, _: &Classify) -> Outcome {
        Outcome::Ack
    }
}

#[diagnostic::do_not_recommend]
impl IntoOutcome for Outcome {
    const EMITTING: bool = false;
    type Error = std::convert::Infallible;

    fn emits() -> Vec<&'static str> {
        Vec::new()
    }

    fn into_outcome(self, _: &mut Vec<Emitted>, _: &Classify) -> Outcome {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<E: Event> IntoOutcome for E {
    const EMITTING: bool = true;
    type Error = std::convert::Infallible;

    fn emits() -> Vec<&'static str> {
        E::TYPES.to_vec()
    }

    fn into_outcome(self, emits: &mut Vec<Emitted>, _: &Classify) -> Outcome {
        match Envelope::of(&self) {
            Ok(envelope) => {
                emits.push(Emitted { topic: Cow::Borrowed(E::TOPIC), envelope });
                Outcome::Ack
            }
            Err(error) => Outcome::Reject {
                class: ErrorClass::Permanent,
                error: format!("the returned `{}` cannot be published: {error}", self.event_type()),
            },
        }
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcome> IntoOutcome for Option<T> {
    const EMITTING: bool = T::EMITTING;
    type Error = T::Error;

    fn emits() -> Vec<&'static str> {
        T::emits()
    }

    fn into_outcome(self, emits: &mut Vec<Emitted>, classify: &Classify) -> Outcome {
        self.map_or(Outcome::Ack, |value| value.into_outcome(emits, classify))
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcome> IntoOutcome for Vec<T> {
    const EMITTING: bool = T::EMITTING;
    type Error = T::Error;

    fn emits() -> Vec<&'static str> {
        T::emits()
    }

    fn into_outcome(self, emits: &mut Vec<Emitted>, classify: &Classify) -> Outcome {
        let outcomes = self.into_iter().map(|value| value.into_outcome(emits, classify));
        first_failure(outcomes)
    }
}

/// All, or the first that is not an ack.
fn first_failure(mut outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    outcomes.find(|outcome| *outcome != Outcome::Ack).unwrap_or(Outcome::Ack)
}

macro_rules! tuple {
    ($($part:ident),+) => {
        #[diagnostic::do_not_recommend]
        impl<$($part: IntoOutcome),+> IntoOutcome for ($($part,)+) {
            const EMITTING: bool = $($part::EMITTING)||+;
            type Error = std::convert::Infallible;

            fn emits() -> Vec<&'static str> {
                let mut types = Vec::new();
                $(types.extend($part::emits());)+
                types
            }

            #[allow(non_snake_case, reason = "a part is named as its type")]
            fn into_outcome(self, emits: &mut Vec<Emitted>, classify: &Classify) -> Outcome {
                let ($($part,)+) = self;
                $(match $part.into_outcome(emits, classify) {
                    Outcome::Ack => {}
                    failure => return failure,
                })+
                Outcome::Ack
            }
        }
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);

impl<T: IntoOutcome, E: Into<Box<dyn Error + Send + Sync>> + 'static> IntoOutcome for Result<T, E> {
    const EMITTING: bool = T::EMITTING;
    type Error = E;

    fn emits() -> Vec<&'static str> {
        T::emits()
    }

    fn into_outcome(self, emits: &mut Vec<Emitted>, classify: &Classify) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(emits, classify),
            Err(error) => failure(error, classify),
        }
    }
}

#[cold]
pub(super) fn failure<E: Into<Box<dyn Error + Send + Sync>> + 'static>(error: E, classify: &Classify) -> Outcome {
    let class = classify.class(&error);
    let error: Box<dyn Error + Send + Sync> = error.into();
    if let Some(classed) = error.downcast_ref::<Classed>() {
        return classed.outcome(class);
    }
    Outcome::Fail { class: class.unwrap_or(ErrorClass::Transient), error: with_causes(&*error) }
}

/// The error's text and those of its causes, each cause once: many errors repeat their cause in their own text.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.ends_with(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

type ClassOf = dyn Fn(&dyn Any) -> Option<ErrorClass> + Send + Sync;

/// Tells the class of a handler's errors; the default knows none, which makes them transient.
#[derive(Clone, Default)]
pub struct Classify(Option<Arc<ClassOf>>);

impl Classify {
    /// Classes errors of type `E`.
    pub fn by<E: 'static>(class_of: impl Fn(&E) -> ErrorClass + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(move |error| error.downcast_ref().map(&class_of))))
    }

    /// Whether somebody said how to class.
    pub(super) fn is_said(&self) -> bool {
        self.0.is_some()
    }

    /// The class of this error, if it is known.
    #[must_use]
    pub fn class(&self, error: &dyn Any) -> Option<ErrorClass> {
        self.0.as_ref().and_then(|class_of| class_of(error))
    }
}

impl fmt::Debug for Classify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Classify(by a function)" } else { "Classify(transient)" })
    }
}

/// The end of a call: turns what was returned into the outcome, and keeps what is to be published. `keyed`: the handler
/// may have written to its state.
#[inline]
pub(super) fn conclude<R: IntoOutcome>(invocation: &Invocation, keyed: bool, returned: R) -> Outcome {
    let mut emits = Vec::new();
    let outcome = returned.into_outcome(&mut emits, &invocation.binding().classify);
    if !R::EMITTING {
        // Nothing is in it; the compiler does not see that, and would free it.
        std::mem::forget(emits);
        return if keyed { keep(outcome, Vec::new(), invocation) } else { outcome };
    }
    keep(outcome, emits, invocation)
}

/// An ack keeps what was emitted, unless an effect could not be recorded.
fn keep(outcome: Outcome, mut emits: Vec<Emitted>, invocation: &Invocation) -> Outcome {
    if outcome != Outcome::Ack {
        return outcome;
    }
    let mut effects = invocation.effects();
    effects.emits.append(&mut emits);
    match &effects.error {
        Some(error) => Outcome::Reject { class: ErrorClass::Permanent, error: error.clone() },
        None => outcome,
    }
}
