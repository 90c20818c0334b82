//! The call itself: to emit events, and to know where one is.

use std::{borrow::Cow, time::Duration};

use thiserror::Error;

use super::{Extract, Rejection};
use crate::{
    event::{DEFAULT_TOPIC, Envelope, EnvelopeBuilder, EnvelopeError, Event, InvalidEvent},
    handler::{Emitted, Invocation},
    transport::Position,
};

/// The call of a handler: emits events, and knows the delivery.
///
/// ```
/// use oncue::prelude::*;
/// use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "order.created")]
/// # struct OrderCreated { lines: Vec<String> }
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "line.reserved")]
/// # struct LineReserved { line: String }
///
/// #[handler(emits(LineReserved))]
/// async fn reserve(order: OrderCreated, context: Context) -> Result<(), HandlerError> {
///     for line in order.lines {
///         context.emit(LineReserved { line })?;
///     }
///     Ok(())
/// }
/// ```
///
/// What is emitted is published with the acknowledgement, atomically; if the handler fails, it is dropped.
#[derive(Clone, Debug)]
pub struct Context(Invocation);

/// Why an event was not emitted.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EmitError {
    /// The handler neither returns nor declares this type, so the graph would not show it.
    #[error(
        "handler `{handler}` emits `{event_type}` undeclared: add the event to `emits(…)` of its annotation, or `.emits::<…>()`"
    )]
    Undeclared {
        /// The handler.
        handler: String,
        /// The event type.
        event_type: String,
    },
    /// The event that it replies to is no request.
    #[error(
        "handler `{handler}` replies to `{event_type}`, which is no request (it has no `replyto`): publish it with `bus.request(…)`, or answer with `context.emit(…)`"
    )]
    NotARequest {
        /// The handler.
        handler: String,
        /// The type of the event that is no request.
        event_type: String,
    },
    /// The event breaks a rule.
    #[error("the emitted `{event_type}` cannot be published: {error}")]
    Invalid {
        /// The event type.
        event_type: String,
        /// Which rule.
        error: InvalidEvent,
    },
}

impl Context {
    pub(crate) fn of(invocation: &Invocation) -> Self {
        Self(invocation.clone())
    }

    /// A context of an event that no bus delivered: for tests that call a handler directly. It emits whatever it is
    /// given; see [`emitted`](Self::emitted).
    #[must_use]
    pub fn for_test(envelope: Envelope) -> Self {
        Self(Invocation::for_test(envelope))
    }

    /// Publishes an event with the acknowledgement.
    ///
    /// # Errors
    /// The handler does not declare that it emits this type, or the event breaks a rule.
    #[expect(clippy::needless_pass_by_value, reason = "an event is given away: `context.emit(OrderPaid { … })`")]
    pub fn emit<E: Event>(&self, event: E) -> Result<(), EmitError> {
        let invalid = |error| EmitError::Invalid { event_type: event.event_type().to_owned(), error };
        self.emit_to(E::TOPIC, Envelope::of(&event).map_err(invalid)?)
    }

    /// As [`emit`](Self::emit), with attributes of one's own: `context.emit_with(paid, |event| event.subject("o-1"))`.
    ///
    /// # Errors
    /// The handler does not declare that it emits this type, or the event breaks a rule.
    #[expect(clippy::needless_pass_by_value, reason = "an event is given away, as to `emit`")]
    pub fn emit_with<E: Event>(
        &self,
        event: E,
        with: impl FnOnce(EnvelopeBuilder) -> EnvelopeBuilder,
    ) -> Result<(), EmitError> {
        let invalid = |error| EmitError::Invalid { event_type: event.event_type().to_owned(), error };
        let envelope = with(Envelope::builder_of(&event).map_err(invalid)?).build();
        self.emit_to(E::TOPIC, envelope.map_err(|error| invalid(error.into()))?)
    }

    /// Publishes an event without a Rust type with the acknowledgement, to the default topic.
    ///
    /// # Errors
    /// The handler does not declare that it emits this type.
    pub fn emit_envelope(&self, envelope: Envelope) -> Result<(), EmitError> {
        self.emit_to(DEFAULT_TOPIC, envelope)
    }

    fn emit_to(&self, topic: &'static str, envelope: Envelope) -> Result<(), EmitError> {
        let event_type = envelope.event_type();
        if let Some(declared) = &self.0.binding().emits
            && declared.iter().all(|known| known != event_type)
        {
            return Err(EmitError::Undeclared {
                handler: self.subscription().to_owned(),
                event_type: event_type.to_owned(),
            });
        }
        self.0.effects().emits.push(Emitted { topic: Cow::Borrowed(topic), envelope });
        Ok(())
    }

    /// Answers a request ([`Bus::request`](crate::Bus::request)): published with the acknowledgement to the topic that
    /// the request names. It need not be declared. If several replies are given, the requester takes the first.
    ///
    /// # Errors
    /// The event is no request, or the reply breaks a rule.
    #[expect(clippy::needless_pass_by_value, reason = "an event is given away, as to `emit`")]
    pub fn reply<E: Event>(&self, event: E) -> Result<(), EmitError> {
        let invalid = |error| EmitError::Invalid { event_type: event.event_type().to_owned(), error };
        self.reply_envelope(Envelope::of(&event).map_err(invalid)?)
    }

    /// As [`reply`](Self::reply), with an event without a Rust type.
    ///
    /// # Errors
    /// The event is no request, or the reply breaks a rule.
    pub fn reply_envelope(&self, envelope: Envelope) -> Result<(), EmitError> {
        let request = self.envelope();
        let Some(topic) = request.reply_to() else {
            return Err(EmitError::NotARequest {
                handler: self.subscription().to_owned(),
                event_type: request.event_type().to_owned(),
            });
        };
        let event_type = envelope.event_type().to_owned();
        let reply = envelope.into_builder().in_reply_to(request.id()).build();
        let invalid = |error: EnvelopeError| EmitError::Invalid { event_type, error: error.into() };
        let reply = Emitted { topic: Cow::Owned(topic.to_owned()), envelope: reply.map_err(invalid)? };
        self.0.effects().emits.push(reply);
        Ok(())
    }

    /// What was emitted so far.
    #[must_use]
    pub fn emitted(&self) -> Vec<Envelope> {
        self.0.effects().emits.iter().map(|emitted| emitted.envelope.clone()).collect()
    }

    /// Gives the attempt more time: at least this long from now, whatever its timeout. Where a pulling client holds the
    /// event, its lease is extended.
    pub fn extend(&self, time: Duration) {
        self.0.extend(time);
    }

    /// How much time is left to the attempt; none if it has no timeout.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.0.time_left()
    }

    /// Which attempt this is: 1 is the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt()
    }

    /// Where the event stands in its topic.
    #[must_use]
    pub fn position(&self) -> Position {
        self.0.position()
    }

    /// The event as it travelled.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        self.0.envelope()
    }

    /// The id of the handler's subscription.
    #[must_use]
    pub fn subscription(&self) -> &str {
        self.0.subscription()
    }

    /// The id of the first event of the chain that led here: this event's own if it is the first.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        self.envelope().correlation_id().unwrap_or_else(|| self.envelope().id())
    }

    /// The id of the event whose handling emitted this one, if it was emitted.
    #[must_use]
    pub fn causation_id(&self) -> Option<&str> {
        self.envelope().causation_id()
    }
}

#[diagnostic::do_not_recommend]
impl Extract for Context {
    const EMITTING: bool = true;

    fn extract(invocation: &Invocation) -> Result<Self, Rejection> {
        Ok(Self(invocation.clone()))
    }
}
