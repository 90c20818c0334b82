//! Requests: events that are published, and then waited for until they are answered.
//!
//! A reply is an event as any other, in a topic of its own, which each bus reads from its first request on, without a
//! subscription: what nobody waits for any more is dropped.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::{sync::oneshot, task::JoinSet};

use super::{Bus, IntoEvent};
use crate::{
    error::RequestError,
    event::{CodecError, Envelope, Event, InvalidEvent, REPLY_TOPIC},
    receipt::Receipt,
    transport::{Settled, Tail, Transport},
};

/// Requests of one bus that wait for their replies, at most.
pub const MAX_PENDING_REQUESTS: usize = 10_000;

/// Replies read at once.
const BATCH: usize = 256;

impl Bus {
    /// Publishes an event as a request, and waits for the reply that a handler gives by
    /// [`Context::reply`](crate::handler::extract::Context::reply), at most `timeout` long. A handler that fails first and
    /// replies in a later attempt has replied. If several reply, the first one counts.
    ///
    /// The request is as durable as any event: it is handled although nobody waits for the reply any more. Who does not
    /// want that gives it a [`time_to_live`](crate::event::EnvelopeBuilder::time_to_live).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use oncue::prelude::*;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Event, Serialize, Deserialize)]
    /// #[event(type = "price.asked")]
    /// struct PriceAsked { article: String }
    ///
    /// #[derive(Event, Serialize, Deserialize)]
    /// #[event(type = "price.quoted")]
    /// struct PriceQuoted { cents: u64 }
    ///
    /// #[handler]
    /// async fn quote(asked: PriceAsked, context: Context) -> Result<(), HandlerError> {
    ///     Ok(context.reply(PriceQuoted { cents: asked.article.len() as u64 * 100 })?)
    /// }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> oncue::Result<()> {
    /// let app = App::open("memory:").await?.on(quote).start().await?;
    /// let asked = PriceAsked { article: "pear".into() };
    /// let quoted: PriceQuoted = app.request(asked, Duration::from_secs(5)).await?;
    /// assert_eq!(quoted.cents, 400);
    /// # app.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// No reply came in time, every handler of this app that takes the request gave up on it, the reply is of another type,
    /// or the request could not be published.
    pub async fn request<Reply: Event>(&self, event: impl IntoEvent, timeout: Duration) -> Result<Reply, RequestError> {
        let (topic, request) = event.into_event()?;
        let reply = self.request_to(topic, request, timeout).await?;
        if !Reply::TYPES.contains(&reply.event_type()) {
            let reason = format_args!("asked for was {}", Reply::TYPES.join(" or "));
            return Err(CodecError::new::<Reply>(reply.event_type(), &reason).into());
        }
        Ok(reply.decode()?)
    }

    /// As [`request`](Self::request), to a topic of the caller's choice, with a reply of any type.
    ///
    /// # Errors
    /// As [`request`](Self::request), but for the reply's type.
    pub async fn request_to(
        &self,
        topic: &str,
        envelope: Envelope,
        timeout: Duration,
    ) -> Result<Envelope, RequestError> {
        let over = self.clock().sleep(timeout);
        let request = envelope.into_builder().reply_to(REPLY_TOPIC).build().map_err(InvalidEvent::from)?;
        let event_type = request.event_type().to_owned();
        let mut published = None;
        tokio::select! {
            biased;
            reply = self.ask(topic, request, &mut published) => return reply,
            () = over => {}
        }
        let handlers = match published {
            Some(receipt) => Some(standing(&receipt).await),
            None => None,
        };
        Err(RequestError::Timeout { event_type, waited: timeout, handlers })
    }

    async fn ask(
        &self,
        topic: &str,
        request: Envelope,
        published: &mut Option<Receipt>,
    ) -> Result<Envelope, RequestError> {
        // Read from before the request is published: its reply cannot be missed.
        let waiting = self.0.requests.wait_for(request.id(), self.transport()).await?;
        let receipt = self.write(topic, vec![request], None).await?.pop().ok_or(RequestError::Closed)?;
        if receipt.is_duplicate() {
            return Err(RequestError::Duplicate { id: receipt.id().to_owned() });
        }
        let receipt = &*published.insert(receipt);
        tokio::select! {
            biased;
            reply = waiting.reply() => reply,
            failed = given_up(receipt) => Err(failed),
        }
    }
}

/// Completes when every handler of this app that takes the request is through with it, and none can have replied.
async fn given_up(receipt: &Receipt) -> RequestError {
    let handlers = takers(receipt);
    let outcomes = handlers.iter().map(|handler| receipt.bus.transport().outcome(&receipt.event, handler));
    let mut failed = None;
    for (settled, handler) in join_all(outcomes).await.into_iter().zip(handlers) {
        let error = match settled {
            // It has replied, or may.
            Ok(Settled::Acked) | Err(_) => return std::future::pending().await,
            Ok(Settled::DeadLettered { error }) => error,
            Ok(Settled::Missed) => "its topic dropped it before it was handled".to_owned(),
            Ok(Settled::Expired) => "its time to live was over".to_owned(),
            // The one that it comes after tells why.
            Ok(Settled::Skipped) => continue,
        };
        failed.get_or_insert(RequestError::Failed { handler, error });
    }
    match failed {
        Some(failed) => failed,
        // Nobody here takes it: perhaps somebody elsewhere.
        None => std::future::pending().await,
    }
}

/// How it stands with a request now.
async fn standing(receipt: &Receipt) -> Vec<(String, Option<Settled>)> {
    let settled = |handler: String| async move {
        let now = receipt.bus.clock().sleep(Duration::ZERO);
        let settled = tokio::select! {
            biased;
            settled = receipt.bus.transport().outcome(&receipt.event, &handler) => settled.ok(),
            () = now => None,
        };
        (handler, settled)
    };
    join_all(takers(receipt).into_iter().map(settled)).await
}

fn takers(receipt: &Receipt) -> Vec<String> {
    receipt.bus.handlers_of(&receipt.event.topic, &receipt.event.envelope)
}

/// The requests of a bus that wait for their replies.
#[derive(Default)]
pub(super) struct Requests {
    pending: Arc<Mutex<Pending>>,
    /// Reads the replies, from the first request on.
    reader: tokio::sync::Mutex<JoinSet<()>>,
}

type Reply = Result<Envelope, RequestError>;

#[derive(Default)]
struct Pending {
    by_id: HashMap<String, oneshot::Sender<Reply>>,
    /// Replies are being read.
    read: bool,
    closed: bool,
}

/// A request that waits for its reply; it waits no more when this is dropped.
struct Waiting {
    pending: Arc<Mutex<Pending>>,
    id: String,
    reply: oneshot::Receiver<Reply>,
}

impl Waiting {
    async fn reply(mut self) -> Reply {
        (&mut self.reply).await.unwrap_or(Err(RequestError::Closed))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pending.lock().by_id.remove(&self.id);
    }
}

impl Requests {
    /// Replies to the request of this id are noticed from now on.
    async fn wait_for(&self, id: &str, transport: &dyn Transport) -> Result<Waiting, RequestError> {
        loop {
            if let Some(waiting) = self.enter(id)? {
                return Ok(waiting);
            }
            self.read(transport).await?;
        }
    }

    /// Nothing if replies are not read yet.
    fn enter(&self, id: &str) -> Result<Option<Waiting>, RequestError> {
        let mut pending = self.pending.lock();
        if pending.closed {
            return Err(RequestError::Closed);
        }
        if !pending.read {
            return Ok(None);
        }
        if pending.by_id.len() >= MAX_PENDING_REQUESTS {
            return Err(RequestError::TooMany { limit: MAX_PENDING_REQUESTS });
        }
        let (told, reply) = oneshot::channel();
        match pending.by_id.entry(id.to_owned()) {
            Entry::Occupied(_) => return Err(RequestError::Duplicate { id: id.to_owned() }),
            Entry::Vacant(free) => free.insert(told),
        };
        drop(pending);
        Ok(Some(Waiting { pending: Arc::clone(&self.pending), id: id.to_owned(), reply }))
    }

    /// Reads replies from now on, unless somebody does.
    async fn read(&self, transport: &dyn Transport) -> Result<(), RequestError> {
        let mut reader = self.reader.lock().await;
        if self.pending.lock().read {
            return Ok(());
        }
        let tail = transport.tail(REPLY_TOPIC).await;
        let tail = tail.map_err(|error| RequestError::Replies { reason: error.to_string() })?;
        let mut pending = self.pending.lock();
        if pending.closed {
            return Err(RequestError::Closed);
        }
        pending.read = true;
        reader.spawn(read(tail, Arc::clone(&self.pending)));
        Ok(())
    }

    /// Nobody waits any more.
    pub(super) async fn close(&self) {
        {
            let mut pending = self.pending.lock();
            pending.closed = true;
            pending.by_id.clear();
        }
        self.reader.lock().await.shutdown().await;
    }
}

/// Hands replies to those who wait for them.
async fn read(mut tail: Box<dyn Tail>, pending: Arc<Mutex<Pending>>) {
    let mut replies = Vec::new();
    loop {
        let read = tail.next(BATCH, &mut replies).await;
        let mut pending = pending.lock();
        for (position, reply) in replies.drain(..) {
            match reply.in_reply_to().and_then(|request| pending.by_id.remove(request)) {
                // Who gave up at this moment needs none.
                Some(waiting) => drop(waiting.send(Ok(reply))),
                None => {
                    tracing::debug!(%position, event = reply.id(), request = reply.in_reply_to(),
                        "a reply that nobody of this app waits for: too late, a second one, or another app's");
                }
            }
        }
        if let Err(error) = read {
            // The next request tries to read anew.
            pending.read = false;
            let failed = RequestError::Replies { reason: error.to_string() };
            for (_, waiting) in pending.by_id.drain() {
                let _ = waiting.send(Err(failed.clone()));
            }
            return;
        }
    }
}
