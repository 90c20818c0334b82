//! The client's end: one connection for all questions, made again when it is lost.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use oncue::transport::{BoxFuture, OpenError};
use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as Turn, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{
    ENVELOPE_BYTES, MAX_PARTS, PATH,
    url::Address,
    zmtp::{Limits, Outgoing, Reader, Received, Socket, connect, handshake},
};
use crate::wire::{Link, LinkError, MAX_WAIT, message::MAX_MESSAGE_BYTES};

/// How long the peer may take to say who it is.
const GREET: Duration = Duration::from_secs(3);
/// How long an answer may take beyond the time that a question may wait at the node.
const ANSWER: Duration = Duration::from_secs(25);
/// Questions that wait to be written.
const QUEUE: usize = 64;
const LIMITS: Limits = Limits { bytes: MAX_MESSAGE_BYTES + ENVELOPE_BYTES, parts: MAX_PARTS };

pub(crate) struct ZmqLink {
    host: String,
    path: Bytes,
    shown: String,
    /// How often a connection was tried for.
    tried: AtomicU64,
    current: Turn<Option<Result<Arc<Connection>, LinkError>>>,
}

impl ZmqLink {
    pub(crate) fn new(url: &str) -> Result<Self, OpenError> {
        let Address { host, log } = Address::parse(url)?;
        let path = if log.is_empty() { PATH.to_owned() } else { format!("{PATH}/{log}") };
        let shown = url.trim_end_matches('/').to_owned();
        Ok(Self { host, path: path.into(), shown, tried: AtomicU64::new(0), current: Turn::default() })
    }

    async fn ask_once(&self, question: Bytes) -> Result<Bytes, LinkError> {
        let connection = self.connection().await?;
        let (number, answer) = connection.waiting.lock().begin()?;
        let _forget = Forget { connection: &connection, number };
        let parts = vec![Bytes::copy_from_slice(&number.to_be_bytes()), self.path.clone(), question];
        if connection.questions.send(Outgoing::Message(parts)).await.is_err() {
            return Err(connection.why());
        }
        match timeout(MAX_WAIT + ANSWER, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(connection.why()),
            Err(_) => {
                // A peer that went without a word is found out by asking on another connection.
                connection.waiting.lock().end(LinkError(format!("no answer within {:?}", MAX_WAIT + ANSWER)));
                Err(connection.why())
            }
        }
    }

    /// The connection, made if there is none. Who waits while somebody else tries has the same result.
    async fn connection(&self) -> Result<Arc<Connection>, LinkError> {
        let tried = self.tried.load(Ordering::Acquire);
        let mut current = self.current.lock().await;
        match &*current {
            Some(Ok(connection)) if connection.waiting.lock().ended.is_none() => return Ok(Arc::clone(connection)),
            Some(Err(error)) if self.tried.load(Ordering::Acquire) != tried => return Err(error.clone()),
            _ => {}
        }
        let made = Connection::open(&self.host).await.map(Arc::new);
        self.tried.fetch_add(1, Ordering::AcqRel);
        *current = Some(made.clone());
        made
    }
}

impl Link for ZmqLink {
    fn url(&self) -> &str {
        &self.shown
    }

    fn ask(&self, question: Bytes) -> BoxFuture<'_, Result<Bytes, LinkError>> {
        Box::pin(self.ask_once(question))
    }
}

struct Connection {
    questions: mpsc::Sender<Outgoing>,
    waiting: Arc<Mutex<Waiting>>,
    /// What reads and what writes; they end with this.
    _tasks: JoinSet<()>,
}

/// Questions without an answer, by their numbers.
#[derive(Default)]
struct Waiting {
    last: u64,
    open: HashMap<u64, oneshot::Sender<Bytes>>,
    /// Why there are no more answers.
    ended: Option<LinkError>,
}

impl Waiting {
    fn begin(&mut self) -> Result<(u64, oneshot::Receiver<Bytes>), LinkError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let (given, answer) = oneshot::channel();
        self.last += 1;
        self.open.insert(self.last, given);
        Ok((self.last, answer))
    }

    /// Takes in what the peer said: its number, a path, the answer.
    fn answer(&mut self, mut parts: Vec<Bytes>) -> Result<(), LinkError> {
        let (answer, path, number) = (parts.pop(), parts.pop(), parts.pop());
        let number = number.and_then(|number| Some(u64::from_be_bytes(number[..].try_into().ok()?)));
        let known = path.is_some_and(|path| path.starts_with(b"wire/v")) && parts.is_empty();
        let (Some(answer), Some(number), true) = (answer, number, known) else {
            return Err(LinkError(format!("this is no Oncue node: its answer is not `{PATH}` and a message")));
        };
        if let Some(given) = self.open.remove(&number) {
            // Who does not wait any more needs no answer.
            let _ = given.send(answer);
        }
        Ok(())
    }

    fn end(&mut self, error: LinkError) {
        self.ended.get_or_insert(error);
        self.open.clear();
    }
}

impl Connection {
    async fn open(host: &str) -> Result<Self, LinkError> {
        let stream = connect(host).await.map_err(|error| LinkError(error.to_string()))?;
        let greeted = handshake(stream, Socket::Dealer, GREET).await;
        let (reader, writer) = greeted.map_err(|error| LinkError(format!("this is no Oncue node: {error}")))?;
        let (questions, queue) = mpsc::channel(QUEUE);
        let (waiting, mut tasks) = (Arc::<Mutex<Waiting>>::default(), JoinSet::new());
        let (ended, pongs) = (Arc::clone(&waiting), questions.downgrade());
        tasks.spawn(async move {
            if let Err(error) = writer.send_all(queue).await {
                ended.lock().end(LinkError(error.to_string()));
            }
        });
        tasks.spawn(read(reader, Arc::clone(&waiting), pongs));
        Ok(Self { questions, waiting, _tasks: tasks })
    }

    fn why(&self) -> LinkError {
        self.waiting.lock().ended.clone().unwrap_or_else(|| LinkError("the connection was lost".to_owned()))
    }
}

async fn read(mut reader: Reader, waiting: Arc<Mutex<Waiting>>, pongs: mpsc::WeakSender<Outgoing>) {
    let error = loop {
        match reader.next(LIMITS).await {
            Ok(Some(Received::Message(parts))) => {
                if let Err(error) = waiting.lock().answer(parts) {
                    break error;
                }
            }
            Ok(Some(Received::Ping(context))) => {
                if let Some(pongs) = pongs.upgrade() {
                    // A writer that is gone has said why.
                    let _ = pongs.send(Outgoing::Pong(context)).await;
                }
            }
            Ok(None) => break LinkError("the node closed the connection".to_owned()),
            Err(error) => break LinkError(error.to_string()),
        }
    };
    waiting.lock().end(error);
}

/// A question that is dropped waits for no answer.
struct Forget<'a> {
    connection: &'a Connection,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.connection.waiting.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_to_who_asked_and_what_is_none_ends_the_connection() {
        let mut waiting = Waiting::default();
        let (first, mut one) = waiting.begin().unwrap();
        let (second, mut two) = waiting.begin().unwrap();
        let answer = |number: u64, path: &'static str| {
            vec![Bytes::copy_from_slice(&number.to_be_bytes()), Bytes::from(path), Bytes::from_static(b"yes")]
        };
        waiting.answer(answer(second, PATH)).unwrap();
        waiting.answer(answer(second, PATH)).unwrap();
        assert_eq!(two.try_recv().unwrap(), "yes");
        assert!(one.try_recv().is_err());
        for wrong in [Vec::new(), vec![Bytes::new()], answer(first, "hello")] {
            assert!(waiting.answer(wrong).unwrap_err().0.contains("no Oncue node"));
        }
        waiting.end(LinkError("gone".to_owned()));
        assert!(matches!(one.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert_eq!(waiting.begin().unwrap_err().0, "gone");
    }
}
