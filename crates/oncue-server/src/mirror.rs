//! Moving topics from one transport to another while events flow: what `oncue mirror` runs.
//!
//! Each topic is a subscription of the transport it is read from, so its place is kept there. An event is acknowledged
//! once the other side has confirmed it; what a crash repeats is known there by its id, and counts once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use oncue::{
    Clock, Envelope, bridge,
    policy::ErrorClass,
    transport::{
        Action, Attempt, ConsumeError, Delivered, Limit, MemberSpec, OpenError, Publish, PublishError, SettleError,
        Settlement, SubscribeError, SubscriptionSpec, Transport,
    },
};
use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;

/// What is moved at once.
const LIMIT: Limit = Limit { events: 512, bytes: 512 * 1024 };
/// How often it is looked whether there is more.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why nothing is moved, or nothing more.
#[derive(Debug, Error)]
pub enum MirrorError {
    /// One of the two cannot be used.
    #[error("{which}: {source}")]
    Open {
        /// Whether it is `FROM` or `TO`.
        which: &'static str,
        /// Why.
        source: OpenError,
    },
    /// Both are the same.
    #[error("FROM and TO are the same, `{0}`: each event would come back for ever")]
    Same(String),
    /// There is nothing to read.
    #[error("FROM: there is nothing at `{0}`: it has no topic")]
    Empty(String),
    /// There is no such topic to read.
    #[error("FROM has no topic `{topic}`: it has {known}")]
    NoTopic {
        /// The topic.
        topic: String,
        /// Those that there are.
        known: String,
    },
    /// The topic cannot be subscribed to.
    #[error("FROM: {0}")]
    Subscribe(#[from] SubscribeError),
    /// It cannot be read on.
    #[error("FROM: {0}")]
    Read(#[from] ConsumeError),
    /// What was moved cannot be acknowledged: it is moved again next time, and is known then.
    #[error("FROM: {0}")]
    Settle(#[from] SettleError),
    /// The other side takes nothing more.
    #[error("TO: {0}")]
    Publish(PublishError),
    /// Interrupted in the middle.
    #[error("interrupted a second time: stopped at once; run the same command again, and it goes on from there")]
    Killed,
    /// Some could not be moved.
    #[error(
        "{0} events were refused by TO, and are dead letters of `{1}` at FROM: `oncue dlq list {1}` says why, and they can be edited and redriven"
    )]
    Refused(u64, String),
}

impl MirrorError {
    /// Whether the cause is what was asked for, not what happened on the way.
    #[must_use]
    pub fn is_callers(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Same(_) | Self::Empty(_) | Self::NoTopic { .. })
    }
}

/// What was moved of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Events that are at the other side now.
    pub events: u64,
    /// Of these, those that were there already.
    pub duplicates: u64,
    /// Events that the other side would not take.
    pub refused: u64,
    /// Bytes of the events.
    pub bytes: u64,
}

/// Two transports, and what has been moved.
pub struct Mirror {
    from: Arc<dyn Transport>,
    to: Arc<dyn Transport>,
    clock: Clock,
    name: String,
    moved: Mutex<BTreeMap<String, Moved>>,
}

impl Mirror {
    /// A mirror whose places are kept at `from`, under `name` and the topic's.
    #[must_use]
    pub fn new(from: Arc<dyn Transport>, to: Arc<dyn Transport>, clock: Clock, name: String) -> Self {
        Self { from, to, clock, name, moved: Mutex::default() }
    }

    /// The subscription of a topic.
    #[must_use]
    pub fn subscription(&self, topic: &str) -> String {
        format!("{}.{topic}", self.name)
    }

    /// What was moved so far, by topic.
    #[must_use]
    pub fn moved(&self) -> BTreeMap<String, Moved> {
        self.moved.lock().clone()
    }

    /// How many events wait to be moved, at most.
    #[must_use]
    pub fn to_go(&self) -> u64 {
        let moved = self.moved.lock().keys().map(|topic| self.subscription(topic)).collect::<Vec<_>>();
        self.from
            .inspect()
            .subscriptions()
            .iter()
            .filter(|known| moved.contains(&known.id))
            .map(|known| known.lag)
            .sum()
    }

    /// The topics to move: those that are named, or all that there are.
    ///
    /// # Errors
    /// One is named that there is not, or there is none.
    pub fn topics(&self, named: &[String]) -> Result<Vec<String>, MirrorError> {
        let known: Vec<String> = self.from.inspect().topics().into_iter().map(|topic| topic.name).collect();
        if known.is_empty() {
            return Err(MirrorError::Empty(self.from.url()));
        }
        if let Some(topic) = named.iter().find(|topic| !known.contains(topic)) {
            return Err(MirrorError::NoTopic { topic: topic.clone(), known: format!("`{}`", known.join("`, `")) });
        }
        Ok(if named.is_empty() { known } else { named.to_vec() })
    }

    /// Moves topics: for ever, or `once`, until there is nothing more.
    ///
    /// # Errors
    /// See [`MirrorError`].
    pub async fn run(&self, topics: &[String], once: bool) -> Result<(), MirrorError> {
        try_join_all(topics.iter().map(|topic| self.topic(topic, once))).await.map(drop)
    }

    async fn topic(&self, topic: &str, once: bool) -> Result<(), MirrorError> {
        let id = self.subscription(topic);
        let member = MemberSpec { id: id.clone(), ..MemberSpec::default() };
        let spec = SubscriptionSpec { topic: topic.to_owned(), members: vec![member], ..SubscriptionSpec::default() };
        self.moved.lock().entry(topic.to_owned()).or_default();
        let mut consumer = self.from.subscribe(spec).await?.consumer;
        let mut events = Vec::new();
        loop {
            tokio::select! {
                read = consumer.next(LIMIT, &mut events) => read?,
                () = self.clock.sleep(LOOK_EVERY), if once => {
                    let known = self.from.inspect().subscriptions();
                    if known.iter().any(|known| known.id == id && known.lag == 0) {
                        return Ok(());
                    }
                    continue;
                }
            }
            let settlements = self.carry(topic, std::mem::take(&mut events)).await?;
            tracing::debug!(topic, events = settlements.len(), "carried");
            match consumer.settle(settlements).await {
                // Another process moves them, too: what was published is recognised there.
                Ok(()) | Err(SettleError::LeaseLost) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Publishes events at the other side; what is then to be said of each.
    async fn carry(&self, topic: &str, events: Vec<Delivered>) -> Result<Vec<Settlement>, MirrorError> {
        let read = self.clock.now();
        let envelopes = events.iter().map(|event| event.envelope_of(0).clone()).collect();
        let taken = self.publish(topic, envelopes).await?;
        let ended = self.clock.now();
        let mut moved = self.moved.lock();
        let moved = moved.entry(topic.to_owned()).or_default();
        let settlement = |(event, taken): (Delivered, Taken)| {
            let (action, class, error) = match taken {
                Taken::Published { duplicate } => {
                    moved.events += 1;
                    moved.duplicates += u64::from(duplicate);
                    moved.bytes += event.envelope_of(0).encoded_bytes() as u64;
                    (Action::Ack, None, None)
                }
                Taken::Refused(error) => {
                    moved.refused += 1;
                    (Action::DeadLetter, Some(ErrorClass::Permanent), Some(error.to_string().into_boxed_str()))
                }
            };
            let attempt = Attempt { number: event.attempts_of(0) + 1, class, read, ended };
            Settlement { position: event.position, member: 0, action, attempt, error, written: None }
        };
        Ok(events.into_iter().zip(taken).map(settlement).collect())
    }

    /// Publishes a batch in its order; where one of it is at fault, one by one.
    async fn publish(&self, topic: &str, events: Vec<Envelope>) -> Result<Vec<Taken>, MirrorError> {
        if let Ok(taken) = self.publish_batch(topic, events.clone()).await? {
            return Ok(taken);
        }
        let mut all = Vec::with_capacity(events.len());
        for event in events {
            match self.publish_batch(topic, vec![event]).await? {
                Ok(taken) => all.extend(taken),
                Err(refused) => all.push(Taken::Refused(refused)),
            }
        }
        Ok(all)
    }

    /// Publishes all of a batch, however long the other side cannot be reached; or gives why it never will be.
    async fn publish_batch(
        &self,
        topic: &str,
        events: Vec<Envelope>,
    ) -> Result<Result<Vec<Taken>, PublishError>, MirrorError> {
        let batch = Publish { topic: topic.into(), events, source: None };
        match bridge::publish(&*self.to, &batch, &self.clock).await {
            Ok(published) => {
                let taken = published.into_iter().map(|one| Taken::Published { duplicate: one.duplicate });
                Ok(Ok(taken.collect()))
            }
            Err(refused @ (PublishError::TooLarge { .. } | PublishError::Invalid { .. })) => Ok(Err(refused)),
            Err(error) => Err(MirrorError::Publish(error)),
        }
    }
}

/// What the other side made of an event.
enum Taken {
    Published { duplicate: bool },
    Refused(PublishError),
}
