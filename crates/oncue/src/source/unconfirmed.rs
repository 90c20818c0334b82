//! Events whose source wants to know what becomes of them.

use std::sync::Arc;

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, Either, FutureExt as _, join_all, select},
    stream::FuturesUnordered,
};

use super::{Confirm, Confirmed, run::Outlet};
use crate::{
    event::Envelope,
    transport::{EventRef, InspectError, Published, Settled},
};

/// Most events that are waited for at once; with more of them, the source generates nothing.
const MAX_EVENTS: usize = 4096;
/// Their bytes, at most (one batch more).
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Most events that a source is told of at once.
const MAX_TOLD: usize = 512;

/// Waits for the outcomes of a source's events.
pub(super) struct Unconfirmed {
    wanted: Option<Confirm>,
    waiting: FuturesUnordered<BoxFuture<'static, Confirmed>>,
    bytes: usize,
}

impl Unconfirmed {
    pub(super) fn new(wanted: Option<Confirm>) -> Self {
        Self { wanted, waiting: FuturesUnordered::new(), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more can be waited for.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_EVENTS && self.bytes < MAX_BYTES
    }

    /// Waits for these, if the source wants it.
    pub(super) fn add(&mut self, outlet: &Outlet, topic: &str, events: Vec<Envelope>, published: &[Published]) {
        let Some(wanted) = &self.wanted else { return };
        let topic: Arc<str> = topic.into();
        for (envelope, published) in events.into_iter().zip(published) {
            let handlers = match wanted.handlers.is_empty() {
                true => (outlet.takers)(&topic, &envelope),
                false => wanted.handlers.clone(),
            };
            self.bytes += envelope.encoded_bytes();
            let event = EventRef { topic: Arc::clone(&topic), position: published.position, envelope };
            self.waiting.push(confirmed(outlet.clone(), event, published.duplicate, handlers, wanted.clone()).boxed());
        }
    }

    /// Completes when some are known. Cancel-safe. With none that are waited for it never does.
    pub(super) async fn next(&mut self) -> Vec<Confirmed> {
        let Some(first) = self.waiting.next().await else { return std::future::pending().await };
        let mut known = vec![first];
        while known.len() < MAX_TOLD
            && let Some(Some(another)) = self.waiting.next().now_or_never()
        {
            known.push(another);
        }
        self.bytes -= known.iter().map(|known| known.event.envelope.encoded_bytes()).sum::<usize>();
        known
    }
}

async fn confirmed(
    outlet: Outlet,
    event: EventRef,
    duplicate: bool,
    handlers: Vec<String>,
    wanted: Confirm,
) -> Confirmed {
    let outcomes = handlers.into_iter().map(|handler| async {
        let outcome = outlet.transport.outcome(&event, &handler);
        let outcome = match select(outcome, outlet.clock.sleep(wanted.wait)).await {
            Either::Left((outcome, _)) => outcome.map(Some),
            Either::Right(_) => Ok(None),
        };
        told(handler, outcome)
    });
    let outcomes = join_all(outcomes).await.into_iter().flatten().collect();
    Confirmed { event, duplicate, outcomes }
}

/// What is told of one handler; nothing, if the event is none of its.
fn told(handler: String, outcome: Result<Option<Settled>, InspectError>) -> Option<(String, Option<Settled>)> {
    match outcome {
        Ok(outcome) => Some((handler, outcome)),
        Err(InspectError::NotTaken { .. } | InspectError::UnknownSubscription(_)) => None,
        Err(error) => {
            tracing::warn!(handler, %error, "what became of an event is not known");
            Some((handler, None))
        }
    }
}
