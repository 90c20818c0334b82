//! Hearing of what is appended, by this process or another: its headers are enough, it is read by whoever wants it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use async_nats::{
    Client, jetstream,
    jetstream::consumer::{DeliverPolicy, pull::OrderedConfig},
};
use futures_util::StreamExt as _;
use oncue::transport::broker::BrokerError;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::api::failed;

/// Most messages that are heard of at once.
const HEARD_AT_ONCE: usize = 256;

/// How far each partition of a topic is heard to reach.
type Nexts = HashMap<u16, u64>;

/// How far streams are heard to reach.
pub(super) struct Heard {
    topics: Mutex<HashMap<String, Nexts>>,
    followed: Mutex<HashSet<String>>,
    growth: watch::Sender<u64>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { topics: Mutex::default(), followed: Mutex::default(), growth: watch::Sender::new(0) }
    }
}

impl Heard {
    /// Whether somebody listens to a topic.
    pub(super) fn follows(&self, topic: &str) -> bool {
        self.followed.lock().contains(topic)
    }

    /// A topic is listened to, and known as far as it reached before.
    pub(super) fn follow(&self, topic: &str) {
        self.followed.lock().insert(topic.to_owned());
    }

    pub(super) fn next(&self, topic: &str, partition: u16) -> u64 {
        self.topics.lock().get(topic).and_then(|nexts| nexts.get(&partition)).copied().unwrap_or(0)
    }

    pub(super) fn raise(&self, topic: &str, partition: u16, next: u64) {
        let grown = {
            let mut topics = self.topics.lock();
            if !topics.contains_key(topic) {
                topics.insert(topic.to_owned(), Nexts::new());
            }
            let known = topics.get_mut(topic).map(|nexts| nexts.entry(partition).or_default());
            known.is_some_and(|known| {
                let grown = next > *known;
                *known = next.max(*known);
                grown
            })
        };
        if grown {
            self.stir();
        }
    }

    /// Something was heard of.
    pub(super) fn stir(&self) {
        self.growth.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn growth(&self) -> watch::Receiver<u64> {
        self.growth.subscribe()
    }
}

/// Listens to a stream until the transport is gone. `depth`: the token of its subjects that is the partition.
pub(super) async fn watch(
    client: &Client,
    stream: &str,
    topic: &str,
    depth: usize,
    heard: Arc<Heard>,
) -> Result<(), BrokerError> {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream_no_info(stream).await.map_err(failed)?;
    let config = OrderedConfig { headers_only: true, deliver_policy: DeliverPolicy::New, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.map_err(failed)?;
    let mut messages = consumer.messages().await.map_err(failed)?.ready_chunks(HEARD_AT_ONCE);
    let (topic, heard) = (topic.to_owned(), Arc::downgrade(&heard));
    tokio::spawn(async move {
        while let Some(arrived) = messages.next().await {
            let Some(heard) = Weak::upgrade(&heard) else { return };
            let (mut nexts, mut stirs) = (Nexts::new(), false);
            for message in arrived {
                match message {
                    Ok(message) => {
                        let partition = message.subject.split('.').nth(depth).and_then(|token| token.parse().ok());
                        let sequence = message.info().map(|info| info.stream_sequence);
                        match (partition, sequence) {
                            (Some(partition), Ok(sequence)) => {
                                nexts.insert(partition, sequence + 1);
                            }
                            _ => stirs = true,
                        }
                    }
                    // It goes on by itself when the server is there again.
                    Err(error) => tracing::debug!(%error, topic, "listening was interrupted"),
                }
            }
            // Who reads looks once for all that came together.
            nexts.into_iter().for_each(|(partition, next)| heard.raise(&topic, partition, next));
            if stirs {
                heard.stir();
            }
        }
    });
    Ok(())
}
