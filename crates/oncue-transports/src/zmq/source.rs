//! What other programs send, as events: a SUB or a PULL socket.

use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use oncue::{
    Clock, Envelope,
    event::{DEFAULT_TOPIC, MAX_DATA_BYTES},
    source::{Batch, SourceError},
    transport::BoxFuture,
};
use tokio::sync::mpsc;

use super::{
    MAX_PARTS,
    endpoint::Endpoint,
    message,
    peers::Peers,
    queue::{HIGH_WATER_MARK, Queue, Queued},
    subscribers::{SUBSCRIBE, begins_with_any},
    zmtp::{Limits, Outgoing, Reader, Received, Socket, Writer, ZmtpError},
};

/// Most bytes of a message, unless it is said otherwise: the largest event in JSON, its data in base64, and what its
/// attributes may take.
pub const MAX_RECEIVED_BYTES: usize = MAX_DATA_BYTES.div_ceil(3) * 4 + 128 * 1024;
/// Most messages of a batch.
const MAX_BATCH_MESSAGES: usize = 512;
/// A batch ends with the message that makes it this large.
const MAX_BATCH_BYTES: usize = 1 << 20;

type BoxError = Box<dyn Error + Send + Sync>;
type Map = dyn Fn(&[Bytes]) -> Result<Envelope, BoxError> + Send + Sync;

/// A source of what other programs send over `ZeroMQ`: as a SUB socket ([`subscribe`](Self::subscribe)), or as a PULL
/// socket ([`pull`](Self::pull)).
///
/// **At most once.** Nothing confirms a message of `ZeroMQ`. What was published is in the log; what arrives while this
/// process is away is lost, and so are up to [`HIGH_WATER_MARK`](super::HIGH_WATER_MARK) messages
/// ([`HIGH_WATER_BYTES`](super::HIGH_WATER_BYTES)) that it has read and not yet published when it ends. Who needs more
/// publishes to a node, over `zmq://` or `http://`.
///
/// **When the log is slow** no more is read. Then a PUSH peer waits; a PUB peer drops what is beyond its own high-water
/// mark, and nobody is told.
///
/// **A message is an event.** If its last part is one in structured `CloudEvents` JSON, it is that event. Anything else is
/// a foreign one: its type is the name of the source's topic, its data the last part, and its subject the first part if
/// there are several (what a PUB socket's subscribers choose by). Parts between are left out; [`map`](Self::map) is for what
/// is written otherwise. A message that is too large to be an event is passed by and logged.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use oncue::App;
/// use oncue_transports::zmq;
///
/// let weather = zmq::Source::subscribe(zmq::connect("tcp://127.0.0.1:5556")?, ["berlin", "oslo"]).topic("weather");
/// let jobs = zmq::Source::pull(zmq::bind("tcp://127.0.0.1:5557")?).topic("jobs");
/// let bus = App::open("file:./data").await?.source(weather).source(jobs).start().await?;
/// # bus.run_until_ctrl_c().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a source does nothing until an app has it"]
pub struct Source {
    id: String,
    topic: String,
    socket: Socket,
    prefixes: Vec<Bytes>,
    limits: Limits,
    map: Option<Box<Map>>,
    /// Until it has begun.
    endpoint: Option<Endpoint>,
    /// Since then.
    incoming: Option<Incoming>,
}

/// What comes.
struct Incoming {
    messages: mpsc::Receiver<Queued>,
    /// Why there is no peer.
    lost: mpsc::Receiver<String>,
    _peers: Peers,
}

impl Source {
    fn new(socket: Socket, endpoint: Endpoint) -> Self {
        Self {
            id: format!("zmq:{}", endpoint.url()),
            topic: DEFAULT_TOPIC.to_owned(),
            socket,
            prefixes: Vec::new(),
            limits: Limits { bytes: MAX_RECEIVED_BYTES, parts: MAX_PARTS },
            map: None,
            endpoint: Some(endpoint),
            incoming: None,
        }
    }

    /// A SUB socket: takes what PUB (or XPUB) sockets publish, of which the first part begins with one of these; `[""]` is
    /// all of it.
    pub fn subscribe<P: AsRef<[u8]>>(endpoint: Endpoint, prefixes: impl IntoIterator<Item = P>) -> Self {
        let prefixes = prefixes.into_iter().map(|prefix| Bytes::copy_from_slice(prefix.as_ref())).collect();
        Self { prefixes, ..Self::new(Socket::Sub, endpoint) }
    }

    /// A PULL socket: takes what PUSH sockets send.
    pub fn pull(endpoint: Endpoint) -> Self {
        Self::new(Socket::Pull, endpoint)
    }

    /// The source's id, instead of `zmq:` and the address. It is unique in the app.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// The topic that its events go to; `events` if it is not said.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Most bytes of a message; [`MAX_RECEIVED_BYTES`] if it is not said. A peer that sends a larger one is cut off, as
    /// with `ZMQ_MAXMSGSIZE`. Where topics are on a broker, say what it takes: the source stops at what is refused.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// Reads messages of another kind: gets the parts of each. What it makes no event of is passed by and logged.
    pub fn map<E: Into<BoxError>>(
        mut self,
        map: impl Fn(&[Bytes]) -> Result<Envelope, E> + Send + Sync + 'static,
    ) -> Self {
        self.map = Some(Box::new(move |parts| map(parts).map_err(Into::into)));
        self
    }

    /// Meets its peers, the first time.
    fn begin(&mut self) -> Result<(), SourceError> {
        let Some(endpoint) = self.endpoint.take() else { return Ok(()) };
        let (queue, messages) = Queue::new(HIGH_WATER_MARK);
        let (losing, lost) = mpsc::channel(1);
        let (prefixes, limits) = (self.prefixes.clone(), self.limits);
        let converse = move |reader, writer| receive(reader, writer, prefixes.clone(), limits, queue.clone());
        let told = move |reason: &str| {
            // One that was not heard yet says the same.
            let _ = losing.try_send(reason.to_owned());
        };
        let peers = Peers::meet(endpoint, self.socket, converse, told).map_err(SourceError::permanent)?;
        self.incoming = Some(Incoming { messages, lost, _peers: peers });
        Ok(())
    }

    fn event(&self, parts: &[Bytes]) -> Result<Envelope, String> {
        let Some(map) = &self.map else {
            return message::decode(&self.topic, parts).map_err(|error| error.to_string());
        };
        // It would panic again: that is this message's fault, and nobody else's.
        let mapped = catch_unwind(AssertUnwindSafe(|| map(parts)));
        mapped.map_err(|_| "the mapping panicked".to_owned())?.map_err(|error| error.to_string())
    }

    /// A message, and those that are there already.
    fn batch(&mut self, first: Queued) -> Batch {
        let (mut events, mut taken, mut bytes) = (Vec::new(), 0, 0);
        let (mut malformed, mut why) = (0, None);
        let mut next = Some(first);
        while let Some(message) = next {
            taken += 1;
            bytes += message.bytes();
            match self.event(&message.parts) {
                Ok(event) => {
                    bytes += event.encoded_bytes();
                    events.push(event);
                }
                Err(reason) => {
                    malformed += 1;
                    why.get_or_insert(reason);
                }
            }
            let more = taken < MAX_BATCH_MESSAGES && bytes < MAX_BATCH_BYTES;
            next = self.incoming.as_mut().filter(|_| more).and_then(|incoming| incoming.messages.try_recv().ok());
        }
        if let Some(reason) = why {
            tracing::warn!(source = self.id, reason, malformed, "messages are no events: passed by");
        }
        Batch::new(events).to(self.topic.clone())
    }
}

impl oncue::source::Source for Source {
    fn id(&self) -> &str {
        &self.id
    }

    fn generate<'a>(
        &'a mut self,
        _: Option<&'a str>,
        _: &'a Clock,
    ) -> BoxFuture<'a, Result<Option<Batch>, SourceError>> {
        Box::pin(async move {
            self.begin()?;
            let Some(incoming) = &mut self.incoming else { return Ok(None) };
            let first = tokio::select! {
                biased;
                message = incoming.messages.recv() => message,
                Some(reason) = incoming.lost.recv() => return Err(SourceError::transient(reason)),
            };
            Ok(first.map(|first| self.batch(first)))
        })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("id", &self.id).field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Takes what a peer sends, as long as there is room for it.
async fn receive(
    mut reader: Reader,
    mut writer: Writer,
    prefixes: Vec<Bytes>,
    limits: Limits,
    queue: Queue,
) -> Result<(), ZmtpError> {
    for prefix in &prefixes {
        let wanted = [&[SUBSCRIBE], &prefix[..]].concat();
        writer.send(Outgoing::Message(vec![wanted.into()])).await?;
    }
    let is_wanted = |parts: &[Bytes]| prefixes.is_empty() || begins_with_any(parts, &prefixes);
    while let Some(received) = reader.next(limits).await? {
        match received {
            // Not every publisher chooses itself.
            Received::Message(parts) if !is_wanted(&parts) => {}
            Received::Message(parts) => {
                if !queue.put(parts, None).await {
                    break;
                }
            }
            Received::Ping(context) => writer.send(Outgoing::Pong(context)).await?,
        }
    }
    Ok(())
}
