//! Several processes serve one subscription of a broker: they join, leave and die, and each event has its outcome, in
//! the order of its key.

use std::{collections::HashMap, error::Error, ops::RangeInclusive, sync::Arc, time::Duration};

use oncue::{
    App, Bus, Clock,
    clock::{ManualClock, Timestamp},
    prelude::*,
    testing::{MemoryBroker, MemoryConnection},
    transport::{
        Publish, Transport as _,
        broker::{Broker, BrokerTransport},
    },
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const KEYS: u64 = 24;
/// So many events are looked at: two of each key.
const NEWEST: usize = 48;
/// Whatever does not happen within that, does not.
const WITHIN: Duration = Duration::from_secs(60);

/// What was handled: by whom, and up to which number of each key.
#[derive(Default)]
struct Handled {
    by: Vec<(usize, String, u64)>,
    /// Handled again, as is allowed after a death.
    again: u64,
    /// Handled before what is before it.
    out_of_order: Vec<(String, u64)>,
    /// The highest number of each key.
    reached: HashMap<String, u64>,
}

#[derive(Clone, Default)]
struct Seen(Arc<(Mutex<Handled>, Notify)>);

impl Seen {
    fn handled(&self, by: usize, envelope: &Envelope) {
        let key = envelope.key().unwrap_or_default().to_owned();
        let number: u64 = envelope.id().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(u64::MAX);
        let mut seen = self.0.0.lock();
        let reached = seen.reached.entry(key.clone()).or_default();
        if number == *reached + 1 {
            *reached = number;
        } else if number <= *reached {
            seen.again += 1;
        } else {
            seen.out_of_order.push((key.clone(), number));
        }
        seen.by.push((by, key, number));
        drop(seen);
        self.0.1.notify_waiters();
    }

    /// Waits until something is so.
    async fn until(&self, what: &str, is_so: impl Fn(&Handled) -> bool) {
        let waiting = async {
            loop {
                let changed = self.0.1.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if is_so(&self.0.0.lock()) {
                    return;
                }
                changed.await;
            }
        };
        assert!(tokio::time::timeout(WITHIN, waiting).await.is_ok(), "not within {WITHIN:?}: {what}");
    }

    /// How many keys each process has handled something of, among the newest events.
    fn keys_of(&self, by: usize, newest: usize) -> usize {
        let seen = self.0.0.lock();
        let mut keys: Vec<_> =
            seen.by.iter().rev().take(newest).filter(|(who, ..)| *who == by).map(|(_, key, _)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    }
}

struct Process {
    bus: Bus,
    connection: Arc<MemoryConnection>,
}

async fn process(broker: &MemoryBroker, number: usize, seen: &Seen) -> Result<Process> {
    process_by(Clock::system(), broker, number, seen).await
}

async fn process_by(clock: Clock, broker: &MemoryBroker, number: usize, seen: &Seen) -> Result<Process> {
    let (connection, seen) = (broker.connect(), seen.clone());
    let transport = BrokerTransport::new(Arc::clone(&connection) as Arc<dyn Broker>, clock.clone());
    let handler = move |envelope: Envelope| {
        let seen = seen.clone();
        async move { seen.handled(number, &envelope) }
    };
    let app = App::with_transport(Arc::new(transport), clock).on(handler.named("charge").types(["paid"]));
    Ok(Process { bus: app.start().await?, connection })
}

/// Publishes the next events, one of each key at a time.
async fn publish(bus: &Bus, numbers: RangeInclusive<u64>) -> Result<()> {
    for number in numbers {
        for key in 0..KEYS {
            let event = Envelope::builder("paid").id(format!("{key}-{number}")).subject(format!("k-{key}")).build()?;
            bus.publish(event).await?;
        }
    }
    // Nobody wants these: whoever waits until all is done must be told that they were passed by.
    for key in 0..KEYS {
        bus.publish(Envelope::builder("unpaid").subject(format!("k-{key}")).build()?).await?;
    }
    Ok(())
}

fn all_reached(number: u64) -> impl Fn(&Handled) -> bool {
    move |seen| (0..KEYS).all(|key| seen.reached.get(&format!("k-{key}")) == Some(&number))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_join_leave_and_die_and_each_event_has_its_outcome_in_order() -> Result<()> {
    let broker = MemoryBroker::new(Clock::system())?;
    let seen = Seen::default();
    let first = process(&broker, 1, &seen).await?;
    publish(&first.bus, 1..=3).await?;
    seen.until("one serves all", all_reached(3)).await;

    let second = process(&broker, 2, &seen).await?;
    let mut published = 3;
    while seen.keys_of(2, NEWEST) < 4 || seen.keys_of(1, NEWEST) < 4 {
        publish(&first.bus, published + 1..=published + 1).await?;
        published += 1;
        seen.until("two share", all_reached(published)).await;
    }
    first.bus.idle().await?;
    second.bus.idle().await?;
    assert_eq!(seen.0.0.lock().again, 0, "joining repeats nothing");

    second.bus.shutdown().await?;
    publish(&first.bus, published + 1..=published + 2).await?;
    published += 2;
    seen.until("one has left", all_reached(published)).await;
    assert_eq!(seen.0.0.lock().again, 0, "leaving repeats nothing");

    let third = process(&broker, 3, &seen).await?;
    while seen.keys_of(3, NEWEST) < 4 {
        publish(&third.bus, published + 1..=published + 1).await?;
        published += 1;
        seen.until("another joins", all_reached(published)).await;
    }
    publish(&third.bus, published + 1..=published + 20).await?;
    published += 20;
    first.connection.cut();
    seen.until("one has died", all_reached(published)).await;
    third.bus.idle().await?;

    let seen = seen.0.0.lock();
    assert_eq!(seen.out_of_order, []);
    assert_eq!(seen.by.len() as u64, published * KEYS + seen.again, "none is lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_a_lease_begins_no_more_of_what_it_was_given() -> Result<()> {
    let broker = MemoryBroker::new(Clock::system())?;
    let seen = Seen::default();
    let (connection, clock) = (broker.connect(), Clock::system());
    let transport = BrokerTransport::new(Arc::clone(&connection) as Arc<dyn Broker>, clock.clone());
    let (open, gate) = watch::channel(false);
    let (noted, handler_gate) = (seen.clone(), gate);
    let slow = move |envelope: Envelope| {
        let (seen, mut gate) = (noted.clone(), handler_gate.clone());
        async move {
            seen.handled(1, &envelope);
            let _ = gate.wait_for(|open| *open).await;
        }
    };
    let first =
        App::with_transport(Arc::new(transport), clock).on(slow.named("charge").types(["paid"])).start().await?;
    let event = |number: u64| Envelope::builder("paid").id(format!("0-{number}")).subject("k-0").build();
    for number in 1..=5 {
        first.publish(event(number)?).await?;
    }
    seen.until("the first one has it", |seen| !seen.by.is_empty()).await;

    // It is still at the first event when its lease is over, and has been given the others.
    connection.cut();
    let second = process(&broker, 2, &seen).await?;
    seen.until("another one handles all", |seen| seen.by.iter().filter(|(who, ..)| *who == 2).count() == 5).await;
    connection.mend();
    open.send_replace(true);
    second.bus.publish(event(6)?).await?;
    seen.until("it goes on", |seen| seen.reached.get("k-0") == Some(&6)).await;
    second.bus.idle().await?;
    first.idle().await?;

    let seen = seen.0.0.lock();
    let of_first: Vec<u64> = seen.by.iter().filter(|(who, ..)| *who == 1).map(|(.., number)| *number).collect();
    assert!(of_first == [1] || of_first == [1, 6], "what another one handled is not begun: {of_first:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_lease_ends_and_is_kept_up_again_nothing_is_repeated_or_out_of_order() -> Result<()> {
    let manual = ManualClock::new(Timestamp::from_micros(1));
    let broker = MemoryBroker::new(manual.clock())?;
    let seen = Seen::default();
    let Process { bus, .. } = process_by(manual.clock(), &broker, 1, &seen).await?;
    let publisher = BrokerTransport::new(broker.connect() as Arc<dyn Broker>, manual.clock());
    let event = |number: u64| Envelope::builder("paid").id(format!("0-{number}")).subject("k-0").build();
    for events in (0..50).map(|round| (1..=100).map(move |number| event(round * 100 + number))) {
        let events = events.collect::<std::result::Result<_, _>>()?;
        publisher.publish(&Publish { topic: "events".into(), events, source: None }).await?;
    }
    let passing = async {
        while seen.0.0.lock().by.len() < 5_000 {
            // A lease is over each time, whatever is on its way.
            manual.advance(Duration::from_secs(3));
            let _ = tokio::time::timeout(Duration::from_millis(1), seen.0.1.notified()).await;
        }
    };
    tokio::time::timeout(WITHIN, passing).await?;
    bus.shutdown().await?;
    let seen = seen.0.0.lock();
    assert_eq!((seen.by.len(), seen.again, &seen.out_of_order[..]), (5_000, 0, &[][..]));
    Ok(())
}

/// What it was given under the lease that it lost is still there when it has the lease again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_a_lease_again_hands_out_nothing_of_a_key_beside_what_is_still_at_its_handler() -> Result<()> {
    let manual = ManualClock::new(Timestamp::from_micros(1));
    let (broker, seen) = (MemoryBroker::new(manual.clock())?, Seen::default());
    // Each process goes as far as it is let.
    let serve = async |number: usize, begins: u64| -> Result<(Process, watch::Sender<u64>)> {
        let (connection, seen, (most, allowed)) = (broker.connect(), seen.clone(), watch::channel(begins));
        let transport = BrokerTransport::new(Arc::clone(&connection) as Arc<dyn Broker>, manual.clock());
        let handler = move |envelope: Envelope| {
            let (seen, mut allowed) = (seen.clone(), allowed.clone());
            async move {
                seen.handled(number, &envelope);
                let count = seen.0.0.lock().by.iter().filter(|(who, ..)| *who == number).count() as u64;
                let _ = allowed.wait_for(|most| *most >= count).await;
            }
        };
        let app = App::with_transport(Arc::new(transport), manual.clock());
        Ok((Process { bus: app.on(handler.named("charge").types(["paid"])).start().await?, connection }, most))
    };
    let so_far = |number: usize| seen.0.0.lock().by.iter().filter(|(who, ..)| *who == number).count();
    let until = async |what: &str, is_so: &dyn Fn() -> bool| {
        let passing = async {
            while !is_so() {
                manual.advance(Duration::from_millis(100));
                let _ = tokio::time::timeout(Duration::from_millis(1), seen.0.1.notified()).await;
            }
        };
        assert!(tokio::time::timeout(WITHIN, passing).await.is_ok(), "not within {WITHIN:?}: {what}");
    };
    let (first, let_first) = serve(1, 0).await?;
    for number in 1..=5 {
        first.bus.publish(Envelope::builder("paid").id(format!("0-{number}")).subject("k-0").build()?).await?;
    }
    until("the first is at an event", &|| so_far(1) == 1).await;
    first.connection.cut();
    let (second, let_second) = serve(2, 2).await?;
    until("the second is at the third", &|| so_far(2) == 3).await;
    second.connection.cut();
    first.connection.mend();
    let serves = || first.bus.inspect().subscriptions().iter().any(|known| known.parked_keys + known.in_flight > 0);
    until("the first knows that it lost it", &|| !serves()).await;
    until("the first has it again", &serves).await;
    let_first.send_replace(u64::MAX);
    until("the first has handled the rest", &|| so_far(1) == 4).await;
    let by_first: Vec<u64> =
        seen.0.0.lock().by.iter().filter(|(who, ..)| *who == 1).map(|(.., number)| *number).collect();
    assert_eq!(by_first, [1, 3, 4, 5]);
    let_second.send_replace(u64::MAX);
    Ok(())
}
