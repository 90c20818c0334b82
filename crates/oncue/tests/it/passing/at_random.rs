//! Whoever consumes settles one by one, in whatever order: as over a wire, where outcomes come when they come.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*, test_runner::RngSeed};

use super::*;

/// An event's key, and whether it is wanted.
type New = (u8, bool);

#[derive(Clone, Debug)]
enum Operation {
    Publish(Vec<New>),
    /// Asks for so many at most.
    Next(usize),
    /// Settles one of those that are out.
    Settle(usize, End),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Ack,
    Retry,
    Release,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let new = (prop_oneof![3 => Just(0_u8), 1 => Just(1)], prop::bool::weighted(0.7));
    let end = prop_oneof![3 => Just(End::Ack), 2 => Just(End::Retry), 2 => Just(End::Release)];
    let operation = prop_oneof![
        2 => vec(new, 1..4).prop_map(Operation::Publish),
        3 => prop_oneof![1_usize..4, Just(100)].prop_map(Operation::Next),
        4 => (0_usize..8, end).prop_map(|(which, end)| Operation::Settle(which, end)),
    ];
    vec(operation, 1..40)
}

/// What is known of the wanted events, by their offsets.
#[derive(Default)]
struct Known {
    keys: BTreeMap<u64, u8>,
    /// In the order in which they were handed out.
    out: Vec<Delivered>,
    acked: BTreeSet<u64>,
}

impl Known {
    /// An event is handed out: those before it in its key are acked or out, and none behind it is.
    fn hand_out(&mut self, delivered: Delivered) -> Result<(), TestCaseError> {
        let offset = delivered.position.offset();
        let is_out = |offset: u64| self.out.iter().any(|out| out.position.offset() == offset);
        let key = self.keys.get(&offset);
        prop_assert!(key.is_some(), "{offset} is not wanted");
        prop_assert!(!self.acked.contains(&offset) && !is_out(offset), "{offset} is handed out again");
        for (other, _) in self.keys.iter().filter(|(_, of)| Some(*of) == key) {
            let waits = !self.acked.contains(other) && !is_out(*other);
            prop_assert!(*other >= offset || !waits, "{offset} passes {other}");
            prop_assert!(*other <= offset || !is_out(*other), "{offset} is out beside {other}, which stands behind it");
        }
        self.out.push(delivered);
        Ok(())
    }

    /// Whether one of those that are out is the first of its key.
    fn is_first(&self, which: usize) -> bool {
        let offset = self.out[which].position.offset();
        let mut before = self.keys.range(..offset).filter(|(_, key)| Some(*key) == self.keys.get(&offset));
        before.all(|(other, _)| self.acked.contains(other))
    }
}

struct World {
    transport: LogTransport,
    consumer: Box<dyn Consumer>,
    known: Known,
    published: u64,
}

impl World {
    async fn new(feed_from: usize) -> Self {
        let (transport, consumer) = served(feed_from).await;
        Self { transport, consumer, known: Known::default(), published: 0 }
    }

    async fn operate(&mut self, operation: Operation) -> Result<(), TestCaseError> {
        match operation {
            Operation::Publish(events) => {
                for (offset, (key, wanted)) in (self.published..).zip(&events) {
                    if *wanted {
                        self.known.keys.insert(offset, *key);
                    }
                }
                self.published += events.len() as u64;
                let event = |(key, wanted): (u8, bool)| {
                    let event = Envelope::builder(if wanted { "step" } else { "other" });
                    event.key(key.to_string()).build().unwrap()
                };
                let events = events.into_iter().map(event).collect();
                self.transport.publish(&Publish { topic: "events".into(), events, source: None }).await.unwrap();
            }
            Operation::Next(events) => self.next(events).await?,
            Operation::Settle(which, end) if !self.known.out.is_empty() => {
                let which = which % self.known.out.len();
                // Only what is first in its key was handled.
                let end = if self.known.is_first(which) { end } else { End::Release };
                self.settle(which, end).await;
            }
            Operation::Settle(..) => {}
        }
        Ok(())
    }

    /// Takes what can be handed out now.
    async fn next(&mut self, events: usize) -> Result<(), TestCaseError> {
        let mut given = Vec::new();
        for _ in 0..4 {
            // Whoever reads for it has its turn.
            tokio::task::yield_now().await;
            let mut next = self.consumer.next(Limit { events, bytes: usize::MAX }, &mut given);
            if poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_ready())).await {
                break;
            }
        }
        given.into_iter().try_for_each(|delivered| self.known.hand_out(delivered))
    }

    async fn settle(&mut self, which: usize, end: End) {
        let delivered = self.known.out.remove(which);
        let action = match end {
            End::Ack => Action::Ack,
            End::Retry => Action::Retry(Timestamp::default()),
            End::Release => Action::Release,
        };
        if matches!(end, End::Ack) {
            self.known.acked.insert(delivered.position.offset());
        }
        self.consumer.settle(vec![settled(&delivered, action)]).await.unwrap();
    }

    /// In the end all are handled.
    async fn finish(&mut self) -> Result<(), TestCaseError> {
        loop {
            while !self.known.out.is_empty() {
                self.settle(0, End::Ack).await;
            }
            if self.known.acked.len() == self.known.keys.len() {
                return Ok(());
            }
            next(&mut self.consumer).await.into_iter().try_for_each(|delivered| self.known.hand_out(delivered))?;
        }
    }
}

/// As many as are asked for; without that few, and always the same.
fn config() -> ProptestConfig {
    let asked = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return asked;
    }
    ProptestConfig { cases: 128, rng_seed: RngSeed::Fixed(0), ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn none_passes_those_of_its_key_that_wait(operations in operations(), fed in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(if fed { 1 } else { 8 }).await;
            for operation in operations {
                world.operate(operation).await?;
            }
            world.finish().await
        })?;
    }
}
