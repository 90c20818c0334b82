//! The attributes of the event, by name.

use std::borrow::Cow;

use super::{Extract, Rejection};
use crate::{event::Envelope, handler::Invocation};

/// All attributes of the event by their `CloudEvents` names, extensions included.
///
/// ```
/// use oncue::prelude::*;
///
/// #[handler(on = "order.created")]
/// async fn trace(event: &Envelope, headers: Headers) {
///     let parent = headers.get("traceparent").unwrap_or_default();
///     println!("{} {parent}", event.id());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Headers(Envelope);

impl Headers {
    /// The attributes of this event: for tests.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        Self(envelope.clone())
    }

    /// One attribute, such as `type`, `subject`, `time` or an extension's name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All attributes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.0.attributes()
    }
}

#[diagnostic::do_not_recommend]
impl Extract for Headers {
    fn extract(invocation: &Invocation) -> Result<Self, Rejection> {
        Ok(Self(invocation.envelope().clone()))
    }
}
