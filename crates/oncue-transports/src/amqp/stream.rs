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
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    BasicProperties, Channel, Consumer, ErrorKind,
    message::{BasicReturnMessage, Delivery},
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use oncue::{clock::Timestamp, transport::broker::BrokerError};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::connecting::{ANSWER_WITHIN, Link, NO_ANSWER, Session, answered, failed};

/// Messages that are on their way at once.
const PREFETCH: u16 = 128;
/// How long what may be repeated is, where nobody answers: a broker that starts again is back by then.
const TRIED_FOR: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
/// Those that wait to know that everything was read.
const WAITING: usize = 256;
/// The code of a queue that is there with other properties.
const OTHERWISE: u16 = 406;

/// A message, to be appended.
pub(super) struct Message {
    pub(super) properties: BasicProperties,
    pub(super) data: Bytes,
}

/// A message that stands in a stream.
pub(super) struct Stored {
    pub(super) offset: u64,
    pub(super) properties: BasicProperties,
    pub(super) data: Bytes,
}

impl Stored {
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        number(self.properties.headers().as_ref()?, name)
    }
}

pub(super) fn number(headers: &FieldTable, name: &str) -> Option<u64> {
    match headers.inner().get(name)? {
        AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::LongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::ShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::LongUInt(number) => Some(u64::from(*number)),
        _ => None,
    }
}

/// Where to read from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Offset(u64),
    /// The last messages that were written together.
    Last,
    /// What was written together at that time or later.
    Time(Timestamp),
}

/// What is done with each message, in their order.
pub(super) type Taking = Box<dyn Fn(Stored) + Send + Sync>;

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
    pub(super) async fn open(
        link: &Arc<Link>,
        name: String,
        bytes: Option<u64>,
    ) -> Result<Arc<Self>, BrokerError> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        if let Some(bytes) = bytes {
            let (most, segment) = (i64::try_from(bytes), i64::try_from(bytes / 16));
            arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(most.unwrap_or(i64::MAX)));
            arguments.insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongLongInt(segment.unwrap_or(i64::MAX)));
        }
        let (caught_up, asked) = mpsc::channel(WAITING);
        let (next, waiting, asked) = (AtomicU64::new(0), Mutex::default(), Mutex::new(Some(asked)));
        let stream = Arc::new(Self { link: Arc::clone(link), name, arguments, next, waiting, caught_up, asked });
        let opened = &*stream;
        opened.again(|session| async move { opened.declare(&session).await }).await?;
        Ok(stream)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Everything before was taken.
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Asks until somebody answers. Only what changes nothing when it is asked twice.
    async fn again<T, F>(&self, ask: impl Fn(Arc<Session>) -> F) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, BrokerError>>,
    {
        let until = Instant::now() + TRIED_FOR;
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
            if Instant::now() >= until || !matches!(error, BrokerError::Failed(_)) {
                return Err(error);
            }
            tracing::debug!(%error, stream = self.name, "no answer: asked again");
            sleep(PAUSE).await;
        }
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
                    ErrorKind::ProtocolError(refused) => {
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

    /// Reads messages that were taken already, from a place on, until it is enough.
    pub(super) async fn read(&self, from: From, mut is_enough: impl FnMut(Stored) -> bool) -> Result<(), BrokerError> {
        let end = self.next();
        if end == 0 || matches!(from, From::Offset(offset) if offset >= end) {
            return Ok(());
        }
        let session = self.link.session().await?;
        let mut reader = Reader::attach(&session, &self.name, from).await?;
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

    /// The first of the last messages that were written together; nothing if there is none, or none came in time.
    pub(super) async fn last(&self, within: Duration) -> Result<Option<Stored>, BrokerError> {
        self.again(|session| async move {
            let mut reader = Reader::attach(&session, &self.name, From::Last).await?;
            let last = timeout(within, reader.next()).await.ok().transpose();
            reader.detach();
            last
        })
        .await
    }

    /// Takes all messages from an offset on, until the transport is gone.
    pub(super) fn follow(self: &Arc<Self>, from: u64, take: Taking) {
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

    async fn follow_by(
        &self,
        session: &Session,
        asked: &mut mpsc::Receiver<oneshot::Sender<()>>,
        take: &Taking,
    ) -> Result<(), BrokerError> {
        // The last one that is known comes again: from then on what the broker sends is in step with what it answers.
        let mut reader = Reader::attach(session, &self.name, From::Offset(self.next().saturating_sub(1))).await?;
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

    async fn take_arrived(&self, reader: &mut Reader, take: &Taking) -> Result<(), BrokerError> {
        while let Some(stored) = reader.arrived().await? {
            self.take(stored, take);
        }
        Ok(())
    }

    fn take(&self, stored: Stored, take: &Taking) {
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

    /// Everything that was confirmed before is taken when this returns.
    pub(super) async fn catch_up(&self) -> Result<(), BrokerError> {
        let until = Instant::now() + TRIED_FOR;
        loop {
            let (caught_up, waiting) = oneshot::channel();
            let asking = async {
                self.caught_up.send(caught_up).await.ok()?;
                waiting.await.ok()
            };
            match timeout_at(until, asking).await {
                Ok(Some(())) => return Ok(()),
                Ok(None) if self.link.is_closed() => return Err(BrokerError::Closed),
                Ok(None) => sleep(PAUSE).await,
                Err(_) => {
                    self.link.session().await?;
                    return Err(failed(format!("`{}` cannot be read", self.name)));
                }
            }
        }
    }

    /// A message that is known to be there is taken when this returns.
    pub(super) async fn reach(&self, offset: u64) -> Result<(), BrokerError> {
        let until = Instant::now() + TRIED_FOR;
        while self.next() <= offset {
            self.catch_up().await?;
            if Instant::now() >= until {
                return Err(failed(format!("message {offset} of `{}` does not come", self.name)));
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Appends messages, each with an id of its own, and gives their offsets once the broker has confirmed all of them. It
    /// may have been done where there is an error.
    pub(super) async fn append(&self, messages: &[Message]) -> Result<Vec<u64>, BrokerError> {
        let id = |message: &Message| message.properties.message_id().clone().unwrap_or_default();
        let mut seen = Vec::with_capacity(messages.len());
        for message in messages {
            let (stands, standing) = oneshot::channel();
            self.waiting.lock().insert(id(message), stands);
            seen.push((standing, None));
        }
        let appended = self.append_seen(messages, &mut seen).await;
        if appended.is_err() {
            let mut waiting = self.waiting.lock();
            messages.iter().for_each(|message| drop(waiting.remove(&id(message))));
        }
        appended?;
        Ok(seen.into_iter().filter_map(|(_, offset)| offset).collect())
    }

    async fn append_seen(&self, messages: &[Message], seen: &mut [Standing]) -> Result<(), BrokerError> {
        let until = Instant::now() + TRIED_FOR;
        loop {
            let missing: Vec<&Message> =
                messages.iter().zip(&*seen).filter(|(_, (_, offset))| offset.is_none()).map(|(message, _)| message).collect();
            let session = self.link.session().await?;
            let Err(error) = self.send(&session, &missing, seen).await else { return Ok(()) };
            if !matches!(error, BrokerError::Failed(_)) || Instant::now() >= until {
                return Err(error);
            }
            tracing::debug!(%error, stream = self.name, "not confirmed: what is not there is sent again");
            self.link.lose(&session);
            sleep(PAUSE).await;
            // What stands there, though that was not told, is known then.
            self.again(|session| async move { self.declare(&session).await }).await?;
            self.catch_up().await?;
            seen.iter_mut().for_each(|(standing, offset)| *offset = offset.or_else(|| standing.try_recv().ok()));
            if seen.iter().all(|(_, offset)| offset.is_some()) {
                return Ok(());
            }
        }
    }

    /// Sends messages, and waits until they are confirmed and seen.
    async fn send(&self, session: &Session, messages: &[&Message], seen: &mut [Standing]) -> Result<(), BrokerError> {
        let confirms = session.send(&self.name, messages).await?;
        let until = Instant::now() + ANSWER_WITHIN;
        for confirm in confirms {
            let confirmed = timeout_at(until, confirm).await.map_err(|_| failed("no confirmation"))?.map_err(failed)?;
            if !confirmed.is_ack() {
                return Err(failed("the broker did not take a message"));
            }
            if let Some(returned) = confirmed.take_message() {
                return Err(failed(refusal(&self.name, &returned)));
            }
        }
        for (standing, offset) in seen.iter_mut().filter(|(_, offset)| offset.is_none()) {
            let stands = timeout_at(until, standing).await.map_err(|_| failed("a confirmed message did not come"))?;
            *offset = Some(stands.map_err(|_| BrokerError::Closed)?);
        }
        Ok(())
    }
}

/// A message that is waited for, and where it stands once that is known.
type Standing = (oneshot::Receiver<u64>, Option<u64>);

fn refusal(queue: &str, returned: &BasicReturnMessage) -> String {
    format!("the queue `{queue}` took no message: {} {}", returned.reply_code, returned.reply_text)
}

/// Reads a stream on a channel of its own.
struct Reader {
    channel: Channel,
    consumer: Consumer,
    /// The last message that was taken, and how many were since it was told.
    last: u64,
    taken: u16,
}

impl Reader {
    async fn attach(session: &Session, queue: &str, from: From) -> Result<Self, BrokerError> {
        let channel = answered(session.connection.create_channel()).await?;
        answered(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let from = match from {
            From::Offset(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
            From::Last => AMQPValue::LongString("last".into()),
            From::Time(time) => {
                AMQPValue::Timestamp(u64::try_from(time.as_micros().div_euclid(1_000_000)).unwrap_or_default())
            }
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from);
        let consuming = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments);
        let consumer = answered(consuming).await?;
        Ok(Self { channel, consumer, last: 0, taken: 0 })
    }

    /// What was sent before is on its way, or here, when this returns.
    async fn synchronize(&mut self) -> Result<(), BrokerError> {
        self.tell().await?;
        // It changes nothing. The broker answers in its order, after what it sends.
        answered(self.channel.basic_qos(PREFETCH, BasicQosOptions::default())).await
    }

    /// The next message, which is known to be there.
    async fn next(&mut self) -> Result<Stored, BrokerError> {
        let delivery = timeout(ANSWER_WITHIN, self.consumer.next()).await.map_err(|_| failed(NO_ANSWER))?;
        self.stored(delivery).await
    }

    /// The next message; nothing if none has come.
    async fn arrived(&mut self) -> Result<Option<Stored>, BrokerError> {
        match self.consumer.next().now_or_never() {
            Some(delivery) => self.stored(delivery).await.map(Some),
            None => {
                self.tell().await?;
                Ok(None)
            }
        }
    }

    async fn stored(&mut self, delivery: Option<lapin::Result<Delivery>>) -> Result<Stored, BrokerError> {
        let delivery = delivery.ok_or_else(|| failed("the stream is gone"))?.map_err(failed)?;
        self.last = delivery.delivery_tag;
        self.taken += 1;
        if self.taken >= PREFETCH / 4 {
            self.tell().await?;
        }
        let headers = delivery.properties.headers().as_ref();
        let offset = headers.and_then(|headers| number(headers, "x-stream-offset"));
        let offset = offset.ok_or_else(|| BrokerError::Refused("the queue is no stream: use another name".to_owned()))?;
        Ok(Stored { offset, properties: delivery.properties, data: delivery.data.into() })
    }

    /// Tells the broker what was taken: it sends more for that.
    async fn tell(&mut self) -> Result<(), BrokerError> {
        if std::mem::take(&mut self.taken) == 0 {
            return Ok(());
        }
        answered(self.channel.basic_ack(self.last, BasicAckOptions { multiple: true })).await
    }

    /// The broker is told, and not waited for.
    fn detach(self) {
        tokio::spawn(async move { answered(self.channel.close(200, "read".into())).await });
    }
}
