//! What is written once for all brokers, on one in memory: the contract, and what goes wrong.

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use oncue::{
    Clock, Envelope,
    clock::{ManualClock, Timestamp},
    policy::ErrorClass,
    testing::{MemoryBroker, MemoryConnection},
    transport::{
        Action, Attempt, Consumer, Delivered, Limit, MemberSpec, Publish, Settlement, SubscriptionSpec, Transport as _,
        broker::{Broker, BrokerTransport},
    },
};
use oncue_conformance::{Filter, Suite, Tier};
use parking_lot::Mutex;

use super::{DEADLINE, assert_holds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_of_partitions_keeps_the_contract() {
    let brokers: Arc<Mutex<HashMap<String, MemoryBroker>>> = Arc::default();
    let open = move |place: String, clock: Clock| {
        let mut brokers = brokers.lock();
        let broker = brokers.entry(place).or_insert_with(|| MemoryBroker::new(clock.clone()).unwrap());
        let connection: Arc<dyn Broker> = broker.connect();
        let transport = BrokerTransport::new(connection, clock);
        async move { Ok(Arc::new(transport) as Arc<dyn oncue::transport::Transport>) }
    };
    let suite = Suite::new("memory-broker:", open).instances(true).deadline(DEADLINE);
    assert_holds(&suite.run(&Filter::all(), Tier::Fast).await);
}

const ONE: Limit = Limit { events: 1, bytes: usize::MAX };

/// A subscription that was given the first of three events of a key.
struct Served {
    connection: Arc<MemoryConnection>,
    _kept: (MemoryBroker, BrokerTransport),
    consumer: Box<dyn Consumer>,
    given: Vec<Delivered>,
}

async fn at_the_first_of_three(clock: &Clock) -> Result<Served, Box<dyn Error>> {
    let broker = MemoryBroker::new(clock.clone())?;
    let connection = broker.connect();
    let transport = BrokerTransport::new(Arc::clone(&connection) as Arc<dyn Broker>, clock.clone());
    let numbers = (1..=3).map(|number| Envelope::builder("step").subject("key").id(number.to_string()).build());
    let events = numbers.collect::<Result<Vec<_>, _>>()?;
    transport.publish(&Publish { topic: "events".into(), events, source: None }).await?;
    let member = MemberSpec { id: "careful".to_owned(), ..MemberSpec::default() };
    let spec = SubscriptionSpec { topic: "events".to_owned(), members: vec![member], ..SubscriptionSpec::default() };
    let mut consumer = transport.subscribe(spec).await?.consumer;
    let mut given = Vec::new();
    consumer.next(ONE, &mut given).await?;
    assert_eq!(given[0].envelope.id(), "1");
    Ok(Served { connection, _kept: (broker, transport), consumer, given })
}

/// While a lease cannot be kept up, its end comes, and another process may take over: by its own clock, who had it knows that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_handed_out_under_a_lease_that_is_over() -> Result<(), Box<dyn Error>> {
    let manual = ManualClock::new(Timestamp::from_micros(1));
    let Served { connection, mut consumer, mut given, _kept } = at_the_first_of_three(&manual.clock()).await?;

    connection.cut();
    given.clear();
    manual.advance(Duration::from_millis(2_999));
    // The others were read with the first.
    consumer.next(ONE, &mut given).now_or_never().ok_or("it is good for 3 s")??;
    assert_eq!(given[0].envelope.id(), "2");
    given.clear();
    manual.advance(Duration::from_millis(1));
    assert!(consumer.next(ONE, &mut given).now_or_never().is_none(), "handed out: {given:?}");
    connection.mend();
    next(&manual, &mut *consumer, &mut given).await?;
    assert_eq!(given[0].envelope.id(), "3", "it is kept up again");
    Ok(())
}

/// The next event, as time passes.
async fn next(
    manual: &ManualClock,
    consumer: &mut dyn Consumer,
    given: &mut Vec<Delivered>,
) -> Result<(), Box<dyn Error>> {
    let passing = async {
        while tokio::time::timeout(Duration::from_millis(10), consumer.next(ONE, given)).await.is_err() {
            manual.advance(Duration::from_secs(1));
        }
    };
    Ok(tokio::time::timeout(DEADLINE, passing).await?)
}

/// Settled, and not written yet: that takes a while, and is when a later event of the key passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_failed_holds_its_key_before_that_is_written() -> Result<(), Box<dyn Error>> {
    let clock = Clock::system();
    let Served { connection, mut consumer, mut given, _kept } = at_the_first_of_three(&clock).await?;

    connection.cut();
    let now = clock.now();
    let attempt = Attempt { number: 1, class: Some(ErrorClass::Transient), read: now, ended: now };
    let (position, error) = (given[0].position, Some("not yet".into()));
    let retry = Settlement { position, member: 0, action: Action::Retry(now), attempt, error, written: None };
    let settling = consumer.settle(vec![retry]);
    given.clear();
    // The others were read with the first.
    assert!(consumer.next(ONE, &mut given).now_or_never().is_none(), "{given:?} passed the first");
    connection.mend();
    settling.await?;
    consumer.next(ONE, &mut given).await?;
    assert_eq!((given[0].envelope.id(), given[0].attempts_of(0)), ("1", 1));
    Ok(())
}
