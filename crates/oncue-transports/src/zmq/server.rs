//! The node's end: a ROUTER that answers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{
    ENVELOPE_BYTES, MAX_PARTS, PATH,
    zmtp::{Limits, Outgoing, Reader, Received, Socket, Writer, ZmtpError, handshake},
};
use crate::wire::{
    Listening, Node, ServeError, encode_answer,
    message::{self, MAX_MESSAGE_BYTES, Refusal, Reply, VERSION},
    version_and_log,
};

/// Most questions of all clients that are under way; more wait to be read.
const MAX_UNDER_WAY: usize = 4096;
/// A client has so long to say who it is.
const GREET: Duration = Duration::from_secs(10);
/// Answers of a connection that wait to be written.
const QUEUE: usize = 16;
/// How long a client that is sent away may take to hear why.
const LINGER: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits { bytes: MAX_MESSAGE_BYTES + ENVELOPE_BYTES, parts: MAX_PARTS };

/// A node that listens for `ZeroMQ`. It stops when this is dropped.
pub struct ZmqServer(Listening);

impl ZmqServer {
    /// Listens on `HOST:PORT`; port 0 is any that is free.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn listen(address: &str, node: Arc<Node>) -> Result<Self, ServeError> {
        let room = Arc::new(Semaphore::new(MAX_UNDER_WAY));
        let handle = node.handle().clone();
        let listening = Listening::start(address, &handle, move |stream, stopped| {
            converse(stream, Arc::clone(&node), Arc::clone(&room), stopped)
        });
        let listening = listening.await?;
        if !listening.address().ip().is_loopback() {
            tracing::warn!(address = %listening.address(), "whoever reaches this address may do anything: ZeroMQ has no encryption and no password here");
        }
        Ok(Self(listening))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// The URL that clients open.
    #[must_use]
    pub fn url(&self) -> String {
        format!("zmq://{}", self.0.address())
    }

    /// Stops listening, lets questions that are on their way end, and closes all connections.
    pub async fn stop(self) {
        self.0.stop().await;
    }
}

async fn converse(stream: TcpStream, node: Arc<Node>, room: Arc<Semaphore>, mut stopped: watch::Receiver<bool>) {
    let greeted = tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => return,
        greeted = handshake(stream, Socket::Router, GREET) => greeted,
    };
    let ended = match greeted {
        Ok((reader, writer)) => serve(reader, writer, &node, &room, stopped).await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Why questions are read no more.
enum End {
    /// The client is gone: nobody waits for what is under way.
    Gone,
    /// What was asked is answered still.
    Stopped,
    /// The client is told why, and sent away.
    Refused,
}

async fn serve(
    mut reader: Reader,
    writer: Writer,
    node: &Arc<Node>,
    room: &Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), ZmtpError> {
    let (answers, queue) = mpsc::channel(QUEUE);
    let (mut writing, mut under_way) = (JoinSet::new(), JoinSet::new());
    writing.spawn(writer.send_all(queue));
    let end = loop {
        while under_way.try_join_next().is_some() {}
        let received = async {
            let place = Arc::clone(room).acquire_owned().await.ok();
            (reader.next(LIMITS).await, place)
        };
        let (received, place) = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break End::Stopped,
            () = answers.closed() => break End::Gone,
            received = received => received,
        };
        match received {
            Ok(Some(Received::Message(parts))) => {
                under_way.spawn(answer(Arc::clone(node), parts, answers.clone(), place));
            }
            // A writer that is gone is seen above.
            Ok(Some(Received::Ping(context))) => drop(answers.send(Outgoing::Pong(context)).await),
            Ok(None) => break End::Gone,
            Err(ZmtpError::TooLarge { mut before, bytes, .. }) => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                before.pop();
                let refusal = Err(Refusal::TooLarge { bytes, limit: MAX_MESSAGE_BYTES });
                drop(answers.send(outgoing(before, &refusal)).await);
                break End::Refused;
            }
            Err(error) => return Err(error),
        }
    };
    if matches!(end, End::Gone) {
        return Ok(());
    }
    while under_way.join_next().await.is_some() {}
    drop(answers);
    while writing.join_next().await.is_some() {}
    if matches!(end, End::Refused) {
        reader.linger(LINGER).await;
    }
    Ok(())
}

/// Answers a question: the last two parts are where it goes and what is asked; what stands before them comes back.
async fn answer(
    node: Arc<Node>,
    mut parts: Vec<Bytes>,
    answers: mpsc::Sender<Outgoing>,
    place: Option<OwnedSemaphorePermit>,
) {
    let (question, path) = (parts.pop().unwrap_or_default(), parts.pop().unwrap_or_default());
    let answer = answer_to(&node, &path, &question).await;
    drop(question);
    // A client that is gone needs no answer.
    let _ = answers.send(outgoing(parts, &answer)).await;
    drop(place);
}

async fn answer_to(node: &Node, path: &[u8], question: &[u8]) -> Result<Reply, Refusal> {
    let known = std::str::from_utf8(path).ok().and_then(version_and_log);
    let (version, log) = known.ok_or_else(|| {
        Refusal::Malformed(format!("the last two parts of a question are `{PATH}`, or `{PATH}/LOG`, and the message"))
    })?;
    if version != VERSION {
        return Err(Refusal::Version { node: VERSION, client: version });
    }
    if question.len() > MAX_MESSAGE_BYTES {
        return Err(Refusal::TooLarge { bytes: question.len(), limit: MAX_MESSAGE_BYTES });
    }
    node.answer(log, message::decode_request(question)?).await
}

fn outgoing(mut envelope: Vec<Bytes>, answer: &Result<Reply, Refusal>) -> Outgoing {
    let encoded = encode_answer(answer).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer cannot be written down");
        Vec::new()
    });
    envelope.extend([Bytes::from_static(PATH.as_bytes()), encoded.into()]);
    Outgoing::Message(envelope)
}
