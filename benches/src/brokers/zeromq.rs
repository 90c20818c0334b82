//! ZeroMQ by the crate zeromq, used by hand: a DEALER that publishes, a DEALER that handles, and a ROUTER between them
//! that keeps what comes in a file.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinSet,
};
use zeromq::{DealerSendHalf, DealerSocket, RouterSocket, Socket as _, SocketRecv as _, SocketSend as _, ZmqMessage};

use super::{
    Place, WINDOW,
    measured::{Client, Handled},
    message::Template,
};
use crate::{measure::Result, raw::Raw as Log};

pub(super) const HOW: &str = "Both: client and server in one process, over TCP on loopback; the server appends what is \
    published, and which events are acknowledged, to a file, and calls fdatasync before it answers. Theirs: a DEALER sends \
    a batch as one message, a part for each event (its data, id and attributes), and the answer has an offset for each; \
    another DEALER asks for 512 events at a time, for the next ones as soon as there is an answer, and acknowledges by one \
    message with the offset of each event of an answer, eight of them under way. The ROUTER keeps what was published in memory, and writes and syncs all messages \
    at hand together. Ours: the transport `zmq://` and a node on a log (`file:`).";

/// What a message begins with that says what it is: a batch, the wish for events from an offset on, offsets.
const PUBLISH: u8 = 1;
const READ: u8 = 2;
const ACK: u8 = 3;
/// Events that one request asks for.
const READ_EVENTS: usize = 512;
/// Acknowledgements under way.
const ACKING: usize = 8;
/// Room of the file that is written again and again: blocks are there, as in a segment of ours that is used again.
const FILE_BYTES: u64 = 256 << 20;

/// Answers that are waited for, by number.
type Waiting = Arc<std::sync::Mutex<HashMap<u64, oneshot::Sender<ZmqMessage>>>>;

fn malformed() -> Box<dyn std::error::Error + Send + Sync> {
    "a message is not what it should be".into()
}

fn parts_of(parts: Vec<Bytes>) -> Result<ZmqMessage> {
    // Without any, it would be no message.
    ZmqMessage::try_from(parts).map_err(|_| malformed())
}

/// What the server keeps.
struct Kept {
    log: Log,
    events: Vec<Bytes>,
    /// Requests for events that are not there yet.
    reading: VecDeque<(Bytes, Bytes, usize)>,
}

impl Kept {
    /// Takes what was said, appends to `writing` what is to be durable before the answer, and gives the answer if there is
    /// one.
    fn take(&mut self, message: ZmqMessage, writing: &mut Vec<u8>) -> Result<Option<ZmqMessage>> {
        let mut parts = message.into_vec().into_iter();
        let (Some(who), Some(number), Some(what)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        match what.first() {
            Some(&PUBLISH) => {
                let mut offsets = BytesMut::new();
                for event in parts {
                    writing.put_u32(u32::try_from(event.len())?);
                    writing.extend_from_slice(&event);
                    offsets.put_u64(self.events.len() as u64);
                    self.events.push(event);
                }
                Ok(Some(parts_of(vec![who, number, offsets.freeze()])?))
            }
            Some(&ACK) => {
                parts.for_each(|offsets| writing.extend_from_slice(&offsets));
                Ok(Some(parts_of(vec![who, number])?))
            }
            Some(&READ) => {
                let from = usize::try_from(parts.next().ok_or_else(malformed)?.get_u64())?;
                self.reading.push_back((who, number, from));
                Ok(None)
            }
            _ => Err(malformed()),
        }
    }

    fn read(&mut self) -> Result<Option<ZmqMessage>> {
        let Some((who, number, from)) = self.reading.pop_front_if(|(_, _, from)| *from < self.events.len()) else {
            return Ok(None);
        };
        let until = self.events.len().min(from + READ_EVENTS);
        let mut offset = BytesMut::new();
        offset.put_u64(from as u64);
        let mut message = vec![who, number, offset.freeze()];
        message.extend_from_slice(&self.events[from..until]);
        Ok(Some(parts_of(message)?))
    }
}

/// Serves until it is aborted.
async fn serve(router: RouterSocket, mut kept: Kept) -> Result<()> {
    let (mut answers, mut asked) = router.split();
    let (arrive, mut arrived) = mpsc::channel(WINDOW);
    let receiving = tokio::spawn(async move {
        while let Ok(message) = asked.recv().await {
            if arrive.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut messages = Vec::new();
    while arrived.recv_many(&mut messages, WINDOW).await > 0 {
        let (mut writing, mut answering) = (Vec::new(), Vec::new());
        for message in messages.drain(..) {
            answering.extend(kept.take(message, &mut writing)?);
        }
        if !writing.is_empty() {
            tokio::task::block_in_place(|| kept.log.write(&writing))?;
        }
        for answer in answering {
            answers.send(answer).await?;
        }
        while let Some(answer) = kept.read()? {
            answers.send(answer).await?;
        }
    }
    receiving.abort();
    Ok(())
}

/// A socket that asks, and what waits for answers by it.
#[derive(Clone)]
struct Dealer {
    requests: Arc<Mutex<DealerSendHalf>>,
    waiting: Waiting,
    last: Arc<AtomicU64>,
    /// It ends with the last one who asks.
    _answering: Arc<JoinSet<()>>,
}

impl Dealer {
    async fn connect(url: &str) -> Result<Self> {
        let mut socket = DealerSocket::new();
        socket.connect(url).await?;
        let (requests, mut answers) = socket.split();
        let (waiting, mut tasks) = (Waiting::default(), JoinSet::new());
        let waited = Arc::clone(&waiting);
        tasks.spawn(async move {
            while let Ok(answer) = answers.recv().await {
                let number = answer.get(0).filter(|part| part.len() == 8).map(|part| part.clone().get_u64());
                let waits = number.and_then(|number| waited.lock().ok()?.remove(&number));
                if let Some(waits) = waits {
                    // Who waits may have given up.
                    let _ = waits.send(answer);
                }
            }
        });
        Ok(Self {
            requests: Arc::new(Mutex::new(requests)),
            waiting,
            last: Arc::default(),
            _answering: Arc::new(tasks),
        })
    }

    /// Sends a question; its answer comes later.
    async fn ask(&self, what: u8, parts: Vec<Bytes>) -> Result<oneshot::Receiver<ZmqMessage>> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        self.waiting.lock().map_err(|_| malformed())?.insert(number, answered);
        let mut message = vec![eight(number), Bytes::copy_from_slice(&[what])];
        message.extend(parts);
        self.requests.lock().await.send(parts_of(message)?).await?;
        Ok(answer)
    }

    async fn read(&self, from: u64) -> Result<oneshot::Receiver<ZmqMessage>> {
        self.ask(READ, vec![eight(from)]).await
    }
}

fn eight(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

#[derive(Clone)]
pub(super) struct Raw {
    publisher: Dealer,
    url: String,
    /// What is sent of each event beside its id.
    rest: Bytes,
    template: Template,
    server: Arc<JoinSet<()>>,
}

impl Client for Raw {
    async fn open(place: Place) -> Result<Self> {
        fs::create_dir_all(&place.directory)?;
        let log = Log::zeroed(place.directory.join("log"), FILE_BYTES)?;
        let mut router = RouterSocket::new();
        let url = router.bind("tcp://127.0.0.1:0").await?.to_string();
        let mut server = JoinSet::new();
        server.spawn(async move {
            if let Err(error) = serve(router, Kept { log, events: Vec::new(), reading: VecDeque::new() }).await {
                eprintln!("the ROUTER ended: {error}");
            }
        });
        let template = Template::new(place.keyed())?;
        let mut rest = BytesMut::new();
        for (name, value) in &*template.attributes {
            rest.extend_from_slice(name.as_bytes());
            rest.extend_from_slice(value.as_bytes());
        }
        rest.extend_from_slice(&template.data);
        let publisher = Dealer::connect(&url).await?;
        Ok(Self { publisher, url, rest: rest.freeze(), template, server: Arc::new(server) })
    }

    async fn publish(&self, count: usize) -> Result<()> {
        let event = |_| {
            let (id, key) = self.template.next();
            let key = key.map_or(String::new(), |(_, key)| key);
            Bytes::from([id.as_bytes(), key.as_bytes(), &self.rest].concat())
        };
        let answer = self.publisher.ask(PUBLISH, (0..count).map(event).collect()).await?.await?;
        let confirmed = answer.get(1).is_some_and(|offsets| offsets.len() == 8 * count);
        if confirmed { Ok(()) } else { Err(malformed()) }
    }

    async fn handle(&self, handled: Handled) -> Result<()> {
        let dealer = Dealer::connect(&self.url).await?;
        let (mut reading, mut acks) = (dealer.read(0).await?, VecDeque::new());
        loop {
            let mut parts = reading.await?.into_vec().into_iter().skip(1);
            let from = parts.next().filter(|from| from.len() == 8).ok_or_else(malformed)?.get_u64();
            let next = from + parts.len() as u64;
            reading = dealer.read(next).await?;
            let (mut offsets, mut is_over) = (BytesMut::new(), false);
            for (offset, event) in (from..).zip(parts) {
                black_box(event.len());
                is_over |= handled.arrived();
                offsets.put_u64(offset);
            }
            acks.push_back(dealer.ask(ACK, vec![offsets.freeze()]).await?);
            while acks.len() > if is_over { 0 } else { ACKING } {
                let Some(ack) = acks.pop_front() else { break };
                ack.await?;
            }
            if is_over {
                return Ok(());
            }
        }
    }

    async fn close(self) -> Result<()> {
        drop(self.server);
        Ok(())
    }
}
