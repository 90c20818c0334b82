//! What is known of this delivery: the event as it travelled, its position, the attempt.

use super::{Extract, Rejection};
use crate::{event::Envelope, handler::Invocation, transport::Position};

#[diagnostic::do_not_recommend]
impl Extract for Envelope {
    fn extract(invocation: &Invocation) -> Result<Self, Rejection> {
        Ok(invocation.envelope().clone())
    }
}

#[diagnostic::do_not_recommend]
impl Extract for Position {
    fn extract(invocation: &Invocation) -> Result<Self, Rejection> {
        Ok(invocation.position())
    }
}

/// Which attempt this is: 1 is the first.
///
/// ```
/// use oncue::{handler::extract::Attempt, prelude::*, transport::Position};
///
/// #[handler(on = "order.created")]
/// async fn audit(event: Envelope, Attempt(attempt): Attempt, position: Position) {
///     println!("{} at {position}, attempt {attempt}", event.event_type());
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u32);

#[diagnostic::do_not_recommend]
impl Extract for Attempt {
    fn extract(invocation: &Invocation) -> Result<Self, Rejection> {
        Ok(Self(invocation.attempt()))
    }
}
