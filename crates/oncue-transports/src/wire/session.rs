//! Sessions at the node: a consumer or a tail, and the last answer, which is given again if it got lost.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use oncue::{
    Envelope,
    transport::{ConsumeError, Consumer, Delivered, Limit, Position, SettleError, Settlement, Subscribed, Tail},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as Turn, mpsc, oneshot},
    time::Sleep,
};

/// Requests of one session that wait for its turn.
const WAITING: usize = 64;

/// Most settle batches whose answers are kept.
const MAX_UNANSWERED: usize = 1_024;

/// An answer, and its number.
pub(super) type Numbered<T> = (u64, Vec<T>);

/// The last answer of a session that gave something.
struct Last<T> {
    number: u64,
    events: Vec<T>,
}

impl<T: Clone> Last<T> {
    const NONE: Self = Self { number: 0, events: Vec::new() };

    /// What a client whose last answer is `last` has not got.
    fn lost(&self, last: u64) -> Option<Numbered<T>> {
        (last != self.number).then(|| (self.number, self.events.clone()))
    }

    /// The next answer. One that is empty needs no number: there is nothing to lose.
    fn give(&mut self, events: Vec<T>) -> Numbered<T> {
        if !events.is_empty() {
            self.number += 1;
            self.events.clone_from(&events);
        }
        (self.number, events)
    }
}

/// A client's end of a subscription: a task that owns the consumer, so that settling waits for no reading. It ends, and
/// gives back what is not settled, when this is dropped.
pub(super) struct Serving {
    pub(super) created: Vec<Option<u64>>,
    asked: mpsc::Sender<Asked>,
    /// Settle batches whose answers are kept, by number.
    settled: Mutex<BTreeMap<u64, Settled>>,
}

/// What becomes of a settle batch, for everybody who asks: the number of the last answer that was given before it was taken
/// in, neither more nor less. What was given until then knew nothing of it; what is given from then on does.
type Settled = Shared<BoxFuture<'static, Result<u64, SettleError>>>;

enum Asked {
    Next { limit: Limit, last: u64, wait: Duration, reply: oneshot::Sender<Result<Numbered<Delivered>, ConsumeError>> },
    Settle(Batch),
    State { member: usize, partition: u16, key: String, reply: oneshot::Sender<Result<Option<Bytes>, ConsumeError>> },
    End { ended: oneshot::Sender<()> },
}

/// A settle batch, and who asks what becomes of it.
struct Batch {
    number: u64,
    /// Those below come no more.
    answered: u64,
    settlements: Vec<Settlement>,
    reply: oneshot::Sender<Result<u64, SettleError>>,
}

impl Serving {
    pub(super) fn new(Subscribed { consumer, created }: Subscribed) -> Self {
        let (asked, questions) = mpsc::channel(WAITING);
        tokio::spawn(serve(consumer, questions));
        Self { created, asked, settled: Mutex::default() }
    }

    pub(super) async fn next(
        &self,
        limit: Limit,
        last: u64,
        wait: Duration,
    ) -> Result<Numbered<Delivered>, ConsumeError> {
        let (reply, answer) = oneshot::channel();
        let asked = Asked::Next { limit, last, wait, reply };
        let _ = self.asked.send(asked).await;
        answer.await.unwrap_or(Err(ConsumeError::Closed))
    }

    /// Settles a batch; gives the number of the last answer that was given before it was taken in. A batch whose number was
    /// asked before is not settled again: it has the same answer.
    pub(super) async fn settle(&self, number: u64, answered: u64, batch: Vec<Settlement>) -> Result<u64, SettleError> {
        let settled = {
            let mut known = self.settled.lock();
            *known = known.split_off(&answered);
            while known.len() >= MAX_UNANSWERED {
                known.pop_first();
            }
            known.entry(number).or_insert_with(|| self.begin(number, answered, batch)).clone()
        };
        settled.await
    }

    fn begin(&self, number: u64, answered: u64, settlements: Vec<Settlement>) -> Settled {
        let asked = self.asked.clone();
        let settling = async move {
            let (reply, answer) = oneshot::channel();
            let _ = asked.send(Asked::Settle(Batch { number, answered, settlements, reply })).await;
            answer.await.unwrap_or(Err(SettleError::Closed))
        };
        // It is settled whether or not the connection stays that asked for it.
        let settling = tokio::spawn(settling).map(|settled| settled.unwrap_or(Err(SettleError::Closed)));
        settling.boxed().shared()
    }

    /// Gives back what is not settled; completes when that is done.
    pub(super) async fn end(&self) {
        let (ended, ending) = oneshot::channel();
        let _ = self.asked.send(Asked::End { ended }).await;
        // Told or gone, it has ended.
        let _ = ending.await;
    }

    pub(super) async fn state(
        &self,
        member: usize,
        partition: u16,
        key: String,
    ) -> Result<Option<Bytes>, ConsumeError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.asked.send(Asked::State { member, partition, key, reply }).await;
        answer.await.unwrap_or(Err(ConsumeError::Closed))
    }
}

/// Settle batches in the order of their numbers: an outcome was reached after those before it, and whatever carries them
/// may turn them round.
struct InOrder {
    next: u64,
    early: BTreeMap<u64, Batch>,
}

impl InOrder {
    const NONE: Self = Self { next: 1, early: BTreeMap::new() };

    /// Takes in a batch, and what was waiting for it. `last`: the number of the last answer.
    fn take(&mut self, consumer: &dyn Consumer, batch: Batch, last: u64) {
        if batch.number < self.next {
            // It was taken in, and is asked for once more.
            let _ = batch.reply.send(Ok(last));
            return;
        }
        if self.early.len() >= MAX_UNANSWERED {
            // Who waits for its answer is told that there is none.
            return;
        }
        self.next = self.next.max(batch.answered);
        self.early.insert(batch.number, batch);
        while let Some(entry) = self.early.first_entry().filter(|entry| *entry.key() <= self.next) {
            let Batch { number, settlements, reply, .. } = entry.remove();
            self.next = self.next.max(number + 1);
            let settled = consumer.settle(settlements);
            tokio::spawn(async move { reply.send(settled.await.map(|()| last)) });
        }
    }
}

/// What the client wants next of a session's task.
enum Want {
    Events(Credit),
    /// It has been done.
    Nothing,
    Leave(oneshot::Sender<()>),
}

async fn serve(mut consumer: Box<dyn Consumer>, mut questions: mpsc::Receiver<Asked>) {
    let (mut last, mut events, mut in_order) = (Last::NONE, Vec::new(), InOrder::NONE);
    // The credit that is open, if any. A newer one takes its place: the client has given up on the older.
    let mut credit: Option<Credit> = None;
    loop {
        let asked = match &mut credit {
            None => questions.recv().await,
            Some((limit, until, _)) => {
                let given = tokio::select! {
                    biased;
                    asked = questions.recv() => Err(asked),
                    given = consumer.next(*limit, &mut events) => Ok(given),
                    () = until => Ok(Ok(())),
                };
                match given {
                    Err(asked) => asked,
                    Ok(given) => {
                        let given = given.map(|()| last.give(std::mem::take(&mut events)));
                        if let Some((_, _, reply)) = credit.take() {
                            // Nobody listens any more? What was handed out is given to whoever asks next.
                            let _ = reply.send(given);
                        }
                        continue;
                    }
                }
            }
        };
        let Some(asked) = asked else { return };
        match take(&*consumer, asked, &last, &mut in_order) {
            Want::Nothing => {}
            Want::Events(newer) => {
                if let Some((_, _, older)) = credit.replace(newer) {
                    let _ = older.send(Ok((last.number, Vec::new())));
                }
            }
            Want::Leave(ended) => {
                drop(consumer);
                let _ = ended.send(());
                return;
            }
        }
    }
}

type Credit = (Limit, Pin<Box<Sleep>>, oneshot::Sender<Result<Numbered<Delivered>, ConsumeError>>);

/// Does what is asked, unless that is to read or to leave.
fn take(consumer: &dyn Consumer, asked: Asked, answered: &Last<Delivered>, in_order: &mut InOrder) -> Want {
    match asked {
        Asked::Next { limit, last, wait, reply } => match answered.lost(last) {
            Some(lost) => {
                let _ = reply.send(Ok(lost));
            }
            None => return Want::Events((limit, Box::pin(tokio::time::sleep(wait)), reply)),
        },
        Asked::Settle(batch) => in_order.take(consumer, batch, answered.number),
        Asked::State { member, partition, key, reply } => {
            let state = consumer.state(member, partition, &key);
            tokio::spawn(async move { reply.send(state.await) });
        }
        Asked::End { ended } => return Want::Leave(ended),
    }
    Want::Nothing
}

/// A client's tail of a topic.
pub(super) struct Following(Turn<Read>);

type Read = (Box<dyn Tail>, Last<(Position, Envelope)>);

impl Following {
    pub(super) fn new(tail: Box<dyn Tail>) -> Self {
        Self(Turn::new((tail, Last::NONE)))
    }

    pub(super) async fn next(
        &self,
        limit: usize,
        last: u64,
        wait: Duration,
    ) -> Result<Numbered<(Position, Envelope)>, ConsumeError> {
        let mut turn = self.0.lock().await;
        let (tail, answered) = &mut *turn;
        if let Some(lost) = answered.lost(last) {
            return Ok(lost);
        }
        let mut events = Vec::new();
        // Cancel-safe: what came before the time was over is in `events`.
        let read = tokio::time::timeout(wait, tail.next(limit, &mut events)).await;
        read.unwrap_or(Ok(()))?;
        Ok(answered.give(events))
    }
}
