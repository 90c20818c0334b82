//! One stream: appended to, followed as it grows, and read from an offset on.
//!
//! A confirmation does not say where a message stands. Whoever appends follows the stream, too, and knows its own messages
//! by their ids when they come: that they come is what tells that they stand there, and where.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, ErrorKind,
    message::BasicReturnMessage,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable, ShortString},
};
use oncue::{Envelope, clock::Timestamp, transport::broker::BrokerError};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    connecting::{ANSWER_WITHIN, Link, NO_ANSWER, OTHERWISE, Session, answered, failed, is_refusal},
    message,
    reading::{Begin, Reader, Stored},
};
use crate::streams::{self, From, Stream as _, Taking, TakingOurs};

/// How long what may be repeated is, where nobody answers: a broker that starts again is back by then.
const TRIED_FOR: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
/// Those that wait to know that everything was read.
const WAITING: usize = 256;

/// A message, to be appended.
pub(super) struct Message {
    pub(super) properties: BasicProperties,
    pub(super) data: Bytes,
}

pub(super) struct Stream {
    link: Arc<Link>,
    name: String,
    arguments: FieldTable,
    /// Everything before was taken.
    next: AtomicU64,
    /// Who waits for messages of ids.
    waiting: Mutex<HashMap<ShortString, oneshot::Sender<u64>>>,
    caught_up: mpsc::Sender<oneshot::Sender<()>>,
    asked: Mutex<Option<mpsc::Receiver<oneshot::Sender<()>>>>,
}

impl Stream {
    /// A stream, made if it is not there; of so many bytes, or of as many as there are.
    pub(super) async fn open(link: &Arc<Link>, name: String, bytes: Option<u64>) -> Result<Arc<Self>, BrokerError> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        if let Some(bytes) = bytes {
            let (most, segment) = (i64::try_from(bytes), i64::try_from(bytes / 16));
            arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(most.unwrap_or(i64::MAX)));
            arguments
                .insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongLongInt(segment.unwrap_or(i64::MAX)));
        }
        let (caught_up, asked) = mpsc::channel(WAITING);
        let (next, waiting, asked) = (AtomicU64::new(0), Mutex::default(), Mutex::new(Some(asked)));
        let stream = Arc::new(Self { link: Arc::clone(link), name, arguments, next, waiting, caught_up, asked });
        let opened = &*stream;
        opened.again(|session| async move { opened.declare(&session).await }).await?;
        Ok(stream)
    }

    /// Asks until somebody answers. Only what changes nothing when it is asked twice.
    async fn again<T, F>(&self, ask: impl Fn(Arc<Session>) -> F) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, BrokerError>>,
    {
        let mut last = failed(NO_ANSWER);
        let trying = async {
            loop {
                let error = match self.link.session().await {
                    Ok(session) => match ask(Arc::clone(&session)).await {
                        Err(BrokerError::Failed(reason)) => {
                            if !session.connection.status().connected() || reason == NO_ANSWER {
                                self.link.lose(&session);
                            }
                            BrokerError::Failed(reason)
                        }
                        answer => return answer,
                    },
                    Err(error) => error,
                };
                if !matches!(error, BrokerError::Failed(_)) {
                    return Err(error);
                }
                tracing::debug!(%error, stream = self.name, "no answer: asked again");
                last = error;
                sleep(PAUSE).await;
            }
        };
        let tried = timeout(TRIED_FOR, trying).await;
        tried.unwrap_or(Err(last))
    }

    /// Makes it, if it is not there. One that keeps something else than was asked for is somebody's who knew why.
    async fn declare(&self, session: &Session) -> Result<(), BrokerError> {
        for passive in [false, true] {
            let channel = answered(session.connection.create_channel()).await?;
            let options = QueueDeclareOptions { durable: true, passive, ..QueueDeclareOptions::default() };
            let declaring = channel.queue_declare(self.name.as_str().into(), options, self.arguments.clone());
            match timeout(ANSWER_WITHIN, declaring).await.map_err(|_| failed(NO_ANSWER))? {
                Ok(_) => return answered(channel.close(200, "declared".into())).await,
                Err(error) => match error.kind() {
                    ErrorKind::ProtocolError(refused) if !passive && refused.get_id() == OTHERWISE => {}
                    // Any other may be over soon: of a broker that has just been started, not all is there.
                    ErrorKind::ProtocolError(refused) if is_refusal(&error) => {
                        let (name, reason) = (&self.name, refused.get_message());
                        return Err(BrokerError::Refused(format!(
                            "the queue `{name}`: {reason}: streams need RabbitMQ 3.9 or newer, and the right to \
                             `configure` queues"
                        )));
                    }
                    _ => return Err(failed(error)),
                },
            }
        }
        Ok(())
    }

    async fn follow_by(
        &self,
        session: &Session,
        asked: &mut mpsc::Receiver<oneshot::Sender<()>>,
        take: &Taking<Self>,
    ) -> Result<(), BrokerError> {
        // The last one that is known comes again: from then on what the broker sends is in step with what it answers.
        let mut reader =
            Reader::attach(session, &self.name, Begin::At(From::Offset(self.next().saturating_sub(1)))).await?;
        if self.next() > 0 {
            let first = reader.next().await?;
            self.take(first, take);
        }
        loop {
            let delivery = tokio::select! {
                delivery = reader.consumer.next() => Some(delivery),
                Some(first) = asked.recv() => {
                    let mut who = vec![first];
                    while let Ok(another) = asked.try_recv() {
                        who.push(another);
                    }
                    loop {
                        reader.synchronize().await?;
                        let before = self.next();
                        self.take_arrived(&mut reader, take).await?;
                        if self.next() == before {
                            break;
                        }
                    }
                    // Who asked may have given up.
                    who.into_iter().for_each(|who| who.send(()).unwrap_or(()));
                    None
                }
            };
            if let Some(delivery) = delivery {
                let stored = reader.stored(delivery).await?;
                self.take(stored, take);
                self.take_arrived(&mut reader, take).await?;
            }
        }
    }

    async fn take_arrived(&self, reader: &mut Reader, take: &Taking<Self>) -> Result<(), BrokerError> {
        while let Some(stored) = reader.arrived().await? {
            self.take(stored, take);
        }
        Ok(())
    }

    fn take(&self, stored: Stored, take: &Taking<Self>) {
        let (offset, id) = (stored.offset, stored.properties.message_id().clone());
        if offset < self.next() {
            return;
        }
        take(stored);
        self.next.store(offset + 1, Ordering::Release);
        if let Some(waiting) = id.and_then(|id| self.waiting.lock().remove(&id)) {
            // Who waits may have given up.
            let _ = waiting.send(offset);
        }
    }

    async fn append_seen(&self, messages: &[Message], seen: &mut [Standing]) -> Result<(), BrokerError> {
        let mut last = failed(NO_ANSWER);
        let trying = async {
            loop {
                let missing = messages.iter().zip(&*seen).filter(|(_, (_, offset))| offset.is_none());
                let missing: Vec<&Message> = missing.map(|(message, _)| message).collect();
                if missing.is_empty() {
                    return Ok(());
                }
                let session = self.link.session().await?;
                let Err(error) = self.send(&session, &missing, seen).await else { return Ok(()) };
                if !matches!(error, BrokerError::Failed(_)) {
                    return Err(error);
                }
                tracing::debug!(%error, stream = self.name, "not confirmed: what is not there is sent again");
                last = error;
                self.link.lose(&session);
                sleep(PAUSE).await;
                // What stands there, though that was not told, is known then.
                self.again(|session| async move { self.declare(&session).await }).await?;
                self.catch_up().await?;
                seen.iter_mut().for_each(|(standing, offset)| *offset = offset.or_else(|| standing.try_recv().ok()));
            }
        };
        let tried = timeout(TRIED_FOR, trying).await;
        tried.unwrap_or(Err(last))
    }

    /// Sends messages, and waits until they are confirmed and seen.
    async fn send(&self, session: &Session, messages: &[&Message], seen: &mut [Standing]) -> Result<(), BrokerError> {
        let confirms = session.send(&self.name, messages).await?;
        for confirm in confirms {
            let confirmed = timeout(ANSWER_WITHIN, confirm).await.map_err(|_| failed("no confirmation"))?;
            let confirmed = confirmed.map_err(|error| not_taken(&self.name, &error))?;
            if !confirmed.is_ack() {
                return Err(failed("the broker did not take a message"));
            }
            if let Some(returned) = confirmed.take_message() {
                return Err(failed(refusal(&self.name, &returned)));
            }
        }
        for (standing, offset) in seen.iter_mut().filter(|(_, offset)| offset.is_none()) {
            let stands =
                timeout(ANSWER_WITHIN, standing).await.map_err(|_| failed("a confirmed message did not come"))?;
            *offset = Some(stands.map_err(|_| BrokerError::Closed)?);
        }
        Ok(())
    }
}

impl streams::Stream for Stream {
    type Message = Message;
    type Stored = Stored;
    type Coming<'a> = Stored;

    fn event(event: &Envelope, published: Timestamp) -> Message {
        message::encode(event, published)
    }

    fn decode(topic: &str, stored: &Stored) -> Result<Envelope, String> {
        message::decode(topic, stored)
    }

    fn record(numbers: &[(&'static str, u64)], data: Bytes) -> Message {
        let mut headers = FieldTable::default();
        for (name, value) in numbers {
            headers.insert((*name).into(), AMQPValue::LongLongInt(i64::try_from(*value).unwrap_or(i64::MAX)));
        }
        Message { properties: BasicProperties::default().with_headers(headers), data }
    }

    /// The broker drops the oldest by itself.
    async fn first(&self) -> Result<u64, BrokerError> {
        Ok(0)
    }

    async fn purge(&self, _: u64) -> Result<(), BrokerError> {
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    async fn read(&self, from: From, mut is_enough: impl FnMut(Stored) -> bool + Send) -> Result<(), BrokerError> {
        let end = self.next();
        if end == 0 || matches!(from, From::Offset(offset) if offset >= end) {
            return Ok(());
        }
        let session = self.link.session().await?;
        let mut reader = Reader::attach(&session, &self.name, Begin::At(from)).await?;
        let read = async {
            loop {
                let stored = reader.next().await?;
                let is_last = stored.offset + 1 >= end;
                if is_enough(stored) || is_last {
                    return Ok(());
                }
            }
        }
        .await;
        if read.is_err() && !session.connection.status().connected() {
            self.link.lose(&session);
        }
        reader.detach();
        read
    }

    async fn last(&self, within: Duration) -> Result<Option<Stored>, BrokerError> {
        self.again(|session| async move {
            let mut reader = Reader::attach(&session, &self.name, Begin::Last).await?;
            let last = timeout(within, reader.next()).await.ok().transpose();
            reader.detach();
            last
        })
        .await
    }

    fn follow(self: &Arc<Self>, from: u64, take: Taking<Self>) {
        let Some(mut asked) = self.asked.lock().take() else { return };
        self.next.store(from, Ordering::Release);
        let stream = Arc::clone(self);
        tokio::spawn(async move {
            while !stream.link.is_closed() {
                let Ok(session) = stream.link.session().await else { continue };
                if let Err(error) = stream.follow_by(&session, &mut asked, &take).await {
                    tracing::debug!(%error, stream = stream.name, "following was interrupted");
                }
                if !session.connection.status().connected() {
                    stream.link.lose(&session);
                }
                sleep(PAUSE).await;
            }
        });
    }

    async fn catch_up(&self) -> Result<(), BrokerError> {
        let trying = async {
            loop {
                let (caught_up, waiting) = oneshot::channel();
                // Who follows drops it when the connection is lost.
                if self.caught_up.send(caught_up).await.is_ok() && waiting.await.is_ok() {
                    return Ok(());
                }
                if self.link.is_closed() {
                    return Err(BrokerError::Closed);
                }
                sleep(PAUSE).await;
            }
        };
        match timeout(TRIED_FOR, trying).await {
            Ok(caught_up) => caught_up,
            // It says why it is not there.
            Err(_) => self.link.session().await.and_then(|_| Err(failed(format!("`{}` cannot be read", self.name)))),
        }
    }

    async fn reach(&self, offset: u64) -> Result<(), BrokerError> {
        let reaching = async {
            while self.next() <= offset {
                self.catch_up().await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        let reached = timeout(TRIED_FOR, reaching).await;
        reached.unwrap_or_else(|_| Err(failed(format!("message {offset} of `{}` does not come", self.name))))
    }

    /// Where a message stands is known once it comes.
    async fn append(&self, messages: Vec<Message>, _: Option<TakingOurs<'_>>) -> Result<Vec<u64>, BrokerError> {
        let id = |message: &Message| message.properties.message_id().clone().unwrap_or_default();
        let with_id = |Message { properties, data }| {
            let properties: BasicProperties = properties;
            Message { properties: properties.with_message_id(self.link.id().into()), data }
        };
        let messages: Vec<Message> = messages.into_iter().map(with_id).collect();
        let mut seen = Vec::with_capacity(messages.len());
        for message in &messages {
            let (stands, standing) = oneshot::channel();
            self.waiting.lock().insert(id(message), stands);
            seen.push((standing, None));
        }
        let appended = self.append_seen(&messages, &mut seen).await;
        if appended.is_err() {
            let mut waiting = self.waiting.lock();
            messages.iter().for_each(|message| drop(waiting.remove(&id(message))));
        }
        appended?;
        Ok(seen.into_iter().filter_map(|(_, offset)| offset).collect())
    }
}

/// A message that is waited for, and where it stands once that is known.
type Standing = (oneshot::Receiver<u64>, Option<u64>);

fn not_taken(queue: &str, error: &lapin::Error) -> BrokerError {
    if is_refusal(error) {
        let mend = "give the account the right to `write` to the exchange `amq.default`";
        return BrokerError::Refused(format!("the queue `{queue}` takes no message: {error}: {mend}"));
    }
    failed(error)
}

fn refusal(queue: &str, returned: &BasicReturnMessage) -> String {
    format!("the queue `{queue}` took no message: {} {}", returned.reply_code, returned.reply_text)
}
