//! Events for other programs: a PUB or a PUSH socket, as a handler.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use oncue::{
    Envelope,
    handler::{Handle, extract::Context},
};
use thiserror::Error;
use tokio::sync::{Mutex as Turn, mpsc, oneshot};

use super::{
    endpoint::{Endpoint, EndpointError},
    message,
    peers::Peers,
    queue::{Queue, Queued},
    subscribers::Subscribers,
    zmtp::{Limits, Outgoing, Reader, Received, Socket, Writer, ZmtpError},
};

/// What a peer of a sink says: what it subscribes to.
const LIMITS: Limits = Limits { bytes: 4 << 10, parts: 1 };
/// Pings that wait for their answer.
const PINGS: usize = 4;

/// An event was not sent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SinkError {
    /// The peer went while the event was being written to it. Whether it arrived is not known.
    #[error("the peer was lost while the event was written to it; whether it arrived is not known")]
    Lost,
}

/// What became of the events of a [`Sink`] since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Messages handed to a peer's connection: one for each subscriber that takes the event, or for the peer that it was
    /// pushed to.
    pub sent: u64,
    /// Events that no subscriber wanted.
    pub unheard: u64,
    /// Messages that a subscriber wanted and did not get: it is too slow, and its high-water mark was reached.
    pub dropped: u64,
}

/// Sends the events that it handles to other programs over `ZeroMQ`: as a PUB socket ([`publish`](Self::publish)), or as a
/// PUSH socket ([`push`](Self::push)). It is a handler; clones are the same socket.
///
/// A message has two parts: the event's type, which subscribers choose by, and the event in structured `CloudEvents` JSON.
///
/// **At most once.** Nothing confirms a message of `ZeroMQ`: an event is acknowledged when it is handed to the socket. As with every
/// handler, an attempt that failed, or was cut off by a crash before its acknowledgement was written, is made again: then
/// the event is sent twice, with the same `source` and `id`.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use oncue::{App, prelude::*};
/// use oncue_transports::zmq;
///
/// let feed = zmq::Sink::publish(zmq::bind("tcp://127.0.0.1:5556")?)?;
/// let app = App::open("file:./data").await?.on(feed.named("feed").types(["order.created", "order.paid"]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sink(Arc<Inner>);

struct Inner {
    url: String,
    out: Out,
    sent: AtomicU64,
    unheard: AtomicU64,
    dropped: AtomicU64,
    _peers: Peers,
}

enum Out {
    Publish(Arc<Subscribers>),
    Push(Queue),
}

impl Sink {
    fn new(url: String, out: Out, peers: Peers) -> Self {
        let (sent, unheard, dropped) = Default::default();
        Self(Arc::new(Inner { url, out, sent, unheard, dropped, _peers: peers }))
    }

    /// A PUB socket: each event goes to all SUB (or XSUB) sockets that subscribe to a beginning of its type. It never waits:
    /// nobody may want an event, and a subscriber that is more than [`HIGH_WATER_MARK`](super::HIGH_WATER_MARK) messages
    /// or [`HIGH_WATER_BYTES`](super::HIGH_WATER_BYTES) behind misses it. Both are acknowledged and
    /// [counted](Self::counts). What waits for a subscriber when the process ends is lost.
    ///
    /// # Errors
    /// What is bound cannot be listened on any more.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: peers are met from now on.
    pub fn publish(endpoint: Endpoint) -> Result<Self, EndpointError> {
        let (url, subscribers) = (endpoint.url(), Arc::new(Subscribers::default()));
        let known = Arc::clone(&subscribers);
        let converse = move |reader, writer| {
            let (seat, queued) = Subscribers::join(&known);
            exchange(reader, writer, Arc::new(Turn::new(queued)), move |said| seat.take(said))
        };
        let peers = Peers::meet(endpoint, Socket::Pub, converse, lost)?;
        Ok(Self::new(url, Out::Publish(subscribers), peers))
    }

    /// A PUSH socket: each event goes to one of the PULL sockets that are connected. It waits until there is one that
    /// takes it: give the handler a [timeout](oncue::handler::HandlerExt::timeout) if an attempt is to fail instead. It is
    /// acknowledged when it is written to the connection; what the peer does with it is not known.
    ///
    /// # Errors
    /// What is bound cannot be listened on any more.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: peers are met from now on.
    pub fn push(endpoint: Endpoint) -> Result<Self, EndpointError> {
        let url = endpoint.url();
        let (queue, queued) = Queue::new(1);
        let queued = Arc::new(Turn::new(queued));
        let converse = move |reader, writer| {
            let nothing = |_| Err(ZmtpError::Malformed("a PULL socket sends nothing"));
            exchange(reader, writer, Arc::clone(&queued), nothing)
        };
        let peers = Peers::meet(endpoint, Socket::Push, converse, lost)?;
        Ok(Self::new(url, Out::Push(queue), peers))
    }

    /// Sends one event, as the handler does: for handlers of your own.
    ///
    /// # Errors
    /// The peer went while the event was written to it.
    pub async fn send(&self, event: &Envelope) -> Result<(), SinkError> {
        let Inner { out, sent, unheard, dropped, .. } = &*self.0;
        let parts = message::encode(event);
        match out {
            Out::Push(queue) => {
                let (told, written) = oneshot::channel();
                queue.put(parts, Some(told)).await;
                written.await.map_err(|_| SinkError::Lost)?;
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Out::Publish(subscribers) => {
                let (taken, missed) = subscribers.offer(&parts);
                sent.fetch_add(taken, Ordering::Relaxed);
                unheard.fetch_add(u64::from(taken + missed == 0), Ordering::Relaxed);
                let before = dropped.fetch_add(missed, Ordering::Relaxed);
                // At the first, and whenever they have doubled.
                if (before + missed).checked_ilog2() > before.checked_ilog2() {
                    tracing::warn!(
                        url = self.0.url,
                        dropped = before + missed,
                        "subscribers are too slow and miss events"
                    );
                }
            }
        }
        Ok(())
    }

    /// What became of its events so far.
    #[must_use]
    pub fn counts(&self) -> SinkCounts {
        let count = |counted: &AtomicU64| counted.load(Ordering::Relaxed);
        let Inner { sent, unheard, dropped, .. } = &*self.0;
        SinkCounts { sent: count(sent), unheard: count(unheard), dropped: count(dropped) }
    }
}

impl Handle<Envelope, Result<(), SinkError>> for Sink {
    async fn handle(&self, event: Envelope, _: Context) -> Result<(), SinkError> {
        self.send(&event).await
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("url", &self.0.url).field("counts", &self.counts()).finish_non_exhaustive()
    }
}

fn lost(reason: &str) {
    tracing::warn!(reason, "nobody to send events to; it is tried again");
}

/// Writes what is queued, and takes what the peer says, until there is no more of either.
async fn exchange(
    mut reader: Reader,
    mut writer: Writer,
    queue: Arc<Turn<mpsc::Receiver<Queued>>>,
    mut take: impl FnMut(Vec<Bytes>) -> Result<(), ZmtpError>,
) -> Result<(), ZmtpError> {
    let (pings, mut pinged) = mpsc::channel(PINGS);
    let reading = async {
        while let Some(received) = reader.next(LIMITS).await? {
            match received {
                Received::Message(said) => take(said)?,
                // Who writes is there as long as who reads is.
                Received::Ping(context) => drop(pings.send(context).await),
            }
        }
        Ok(())
    };
    let writing = async {
        loop {
            // Peers that share a queue take turns.
            let next = async { queue.lock().await.recv().await };
            let queued = tokio::select! {
                Some(context) = pinged.recv() => {
                    writer.send(Outgoing::Pong(context)).await?;
                    continue;
                }
                queued = next => queued,
            };
            let Some(queued) = queued else { return Ok(()) };
            if queued.is_wanted() {
                writer.send(Outgoing::Message(queued.parts)).await?;
                // Who does not wait any more need not be told.
                queued.written.map(|written| written.send(()));
            }
        }
    };
    // A peer that is gone is given nothing more.
    tokio::select! {
        biased;
        ended = reading => ended,
        ended = writing => ended,
    }
}
