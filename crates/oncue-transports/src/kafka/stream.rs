//! One stream: a partition of a topic, appended to, followed as it grows, and read from an offset on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use oncue::{Envelope, clock::Timestamp, transport::broker::BrokerError};
use parking_lot::Mutex;
use rdkafka::{
    admin::AdminOptions,
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::FutureRecord,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    clients::{ANSWER_WITHIN, Clients, Partition, TRIED_FOR, failed},
    message::{self, Coming, Message, Stored},
};
use crate::streams::{self, Coming as _, From as Place, Taking, TakingOurs};

/// How long records may be missing that are known to be there, before it is looked whether they are records at all.
const GAP: Duration = Duration::from_millis(500);
/// How long is waited where a client has as much to send as it holds.
const FULL: Duration = Duration::from_millis(10);
/// The last records that are read to find one: some offsets have none.
const LAST: u64 = 64;
/// Records that are taken before those who wait for one are told.
const TOGETHER: usize = 64;

pub(crate) struct Stream {
    clients: Arc<Clients>,
    partition: Partition,
    /// Bytes of the largest record.
    limit: usize,
    /// Whether others write to it, who may use transactions: their marks have offsets, and are no records.
    has_marks: bool,
    taken: Mutex<Taken>,
    /// Everything before was taken: for those who wait for it.
    next: watch::Sender<u64>,
}

/// What was taken, by who follows and by who appends.
#[derive(Default)]
struct Taken {
    /// Everything before was.
    next: u64,
    take: Option<Taking<Stream>>,
}

impl Stream {
    pub(super) fn new(clients: &Arc<Clients>, partition: Partition, limit: usize, has_marks: bool) -> Arc<Self> {
        Arc::new(Self {
            clients: Arc::clone(clients),
            partition,
            limit,
            has_marks,
            taken: Mutex::default(),
            next: watch::Sender::new(0),
        })
    }

    async fn reached(&self, offset: u64, within: Duration) -> bool {
        let mut next = self.next.subscribe();
        timeout(within, next.wait_for(|next| *next > offset)).await.is_ok_and(|reached| reached.is_ok())
    }

    /// Those who wait for what was taken are told.
    fn tell(&self) {
        let to = self.taken.lock().next;
        self.next.send_if_modified(|next| {
            let is_more = to > *next;
            *next = to.max(*next);
            is_more
        });
    }

    /// Offsets that are marks of transactions have no records: they are passed by.
    async fn pass_gap(&self, end: u64) -> Result<(), BrokerError> {
        let (from, mut found) = (self.taken.lock().next, false);
        let is_record = |_| {
            found = true;
            true
        };
        self.clients.read(&self.partition, from, end, is_record).await?;
        if !found {
            let mut taken = self.taken.lock();
            taken.next = taken.next.max(end);
            drop(taken);
            self.tell();
        }
        Ok(())
    }

    /// Takes a record that came, unless it was taken.
    fn take(&self, coming: Coming<'_>) {
        let (offset, mut taken) = (coming.offset(), self.taken.lock());
        if offset >= taken.next {
            if let Some(take) = &taken.take {
                take(coming);
            }
            taken.next = offset + 1;
        }
    }

    /// Takes those of one's own records that are next.
    fn take_ours(&self, offsets: &[u64], ours: TakingOurs<'_>) {
        let mut taken = self.taken.lock();
        for (index, offset) in offsets.iter().enumerate() {
            if *offset == taken.next && taken.take.is_some() {
                ours(index, *offset);
                taken.next = offset + 1;
            }
        }
        drop(taken);
        self.tell();
    }

    async fn follow_on(&self, from: u64) -> Result<(), BrokerError> {
        let following = &self.clients.following;
        let queue = following.split_partition_queue(&self.partition.topic, self.partition.number);
        let queue = queue.ok_or(BrokerError::Closed)?;
        following.incremental_assign(&self.partition.from(from)?).map_err(failed)?;
        loop {
            let (mut received, mut left) = (queue.recv().await, TOGETHER);
            loop {
                match received {
                    Ok(record) => self.take(Coming(record)),
                    Err(KafkaError::PartitionEOF(_)) => {}
                    // It goes on by itself.
                    Err(error) => tracing::debug!(%error, topic = self.partition.topic, "following was interrupted"),
                }
                left -= 1;
                match (left > 0).then(|| queue.recv().now_or_never()).flatten() {
                    Some(another) => received = another,
                    None => break,
                }
            }
            self.tell();
        }
    }

    /// Sends records, one after the other, and waits until all are confirmed.
    async fn send(&self, messages: Vec<Message>) -> Result<Vec<u64>, BrokerError> {
        let writer = self.clients.writer();
        let mut confirming = Vec::with_capacity(messages.len());
        for Message { key, headers, data, timestamp } in messages {
            let mut record = FutureRecord::<str, [u8]>::to(&self.partition.topic);
            record = record.partition(self.partition.number).payload(&data);
            record = record.headers(headers);
            if let Some(key) = &key {
                record = record.key(key);
            }
            if let Some(timestamp) = timestamp {
                record = record.timestamp(timestamp);
            }
            loop {
                match writer.send_result(record) {
                    Ok(sent) => break confirming.push((sent, data.len())),
                    Err((KafkaError::MessageProduction(Code::QueueFull), again)) => {
                        record = again;
                        sleep(FULL).await;
                    }
                    Err((error, _)) => return Err(self.refusal(&error, data.len())),
                }
            }
        }
        let mut offsets = Vec::with_capacity(confirming.len());
        for (confirming, bytes) in confirming {
            match confirming.await {
                Ok(Ok(confirmed)) => offsets.push(u64::try_from(confirmed.offset).map_err(failed)?),
                Ok(Err((error, _))) => return Err(self.refusal(&error, bytes)),
                Err(_) => return Err(BrokerError::Closed),
            }
        }
        Ok(offsets)
    }

    fn refusal(&self, error: &KafkaError, bytes: usize) -> BrokerError {
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge) => BrokerError::TooLarge { bytes, limit: self.limit },
            Some(Code::TopicAuthorizationFailed) => {
                let mend = "give the account the right to write to it";
                BrokerError::Refused(format!(
                    "the account may not write to the topic `{}`: {mend}",
                    self.partition.topic
                ))
            }
            _ => failed(format!("the topic `{}`: {error}", self.partition.topic)),
        }
    }
}

impl streams::Stream for Stream {
    type Message = Message;
    type Stored = Stored;
    type Coming<'a> = Coming<'a>;

    fn event(event: &Envelope, published: Timestamp) -> Message {
        message::encode(event, published)
    }

    fn decode(topic: &str, stored: &Stored) -> Result<Envelope, String> {
        message::decode(topic, stored)
    }

    fn record(numbers: &[(&'static str, u64)], data: Bytes) -> Message {
        message::record(numbers, data)
    }

    fn name(&self) -> &str {
        &self.partition.topic
    }

    fn next(&self) -> u64 {
        *self.next.borrow()
    }

    async fn first(&self) -> Result<u64, BrokerError> {
        self.clients.extent(&self.partition).await.map(|(first, _)| first)
    }

    async fn last(&self, _: Duration) -> Result<Option<Stored>, BrokerError> {
        let (first, end) = self.clients.extent(&self.partition).await?;
        let mut last = None;
        for back in [1, LAST] {
            let from = end.saturating_sub(back).max(first);
            self.clients
                .read(&self.partition, from, end, |stored| {
                    last = Some(stored);
                    false
                })
                .await?;
            if last.is_some() || from == first {
                break;
            }
        }
        Ok(last)
    }

    fn follow(self: &Arc<Self>, from: u64, take: Taking<Self>) {
        *self.taken.lock() = Taken { next: from, take: Some(take) };
        self.next.send_replace(from);
        let stream = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = stream.follow_on(from).await {
                tracing::warn!(%error, topic = stream.partition.topic, "it cannot be followed");
            }
        });
    }

    async fn catch_up(&self) -> Result<(), BrokerError> {
        let (_, end) = self.clients.extent(&self.partition).await?;
        if end == 0 || self.reached(end - 1, GAP).await {
            return Ok(());
        }
        if self.has_marks {
            self.pass_gap(end).await?;
        }
        streams::Stream::reach(self, end - 1).await
    }

    async fn reach(&self, offset: u64) -> Result<(), BrokerError> {
        if self.reached(offset, TRIED_FOR).await {
            return Ok(());
        }
        Err(failed(format!("record {offset} of `{}` does not come", self.partition.topic)))
    }

    async fn read(&self, from: Place, is_enough: impl FnMut(Stored) -> bool + Send) -> Result<(), BrokerError> {
        let from = match from {
            Place::Offset(offset) => Some(offset),
            Place::Time(time) => self.clients.since(&self.partition, time).await?,
        };
        match from {
            Some(from) => self.clients.read(&self.partition, from, self.next(), is_enough).await,
            None => Ok(()),
        }
    }

    async fn append(&self, messages: Vec<Message>, ours: Option<TakingOurs<'_>>) -> Result<Vec<u64>, BrokerError> {
        if let Some(large) = messages.iter().find(|message| message.data.len() > self.limit) {
            return Err(BrokerError::TooLarge { bytes: large.data.len(), limit: self.limit });
        }
        let sent = self.send(messages).await;
        if sent.is_err() {
            self.clients.renew_writer();
        }
        let offsets = sent?;
        if let Some(ours) = ours {
            self.take_ours(&offsets, ours);
        }
        if let Some(last) = offsets.iter().max() {
            streams::Stream::reach(self, *last).await?;
        }
        Ok(offsets)
    }

    /// What could not be deleted is, the next time.
    async fn purge(&self, before: u64) -> Result<(), BrokerError> {
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        if let Err(error) = self.clients.admin.delete_records(&self.partition.from(before)?, &options).await {
            tracing::warn!(%error, topic = self.partition.topic, "what is not wanted any more cannot be deleted");
        }
        Ok(())
    }
}
