use std::sync::Arc;

use super::*;
use crate::{
    clock::ManualClock,
    event::Envelope,
    policy::ErrorClass,
    testing::{MemoryBroker, MemoryConnection},
    transport::{
        FailedAttempt, MemberSpec, StateChange,
        log::{
            offsets::Stride,
            records::{
                Ack, Dead, DeadAbout, Discard, End, Redrive, RedriveAbout, Remove, Retry, Settle, Subscription, Times,
            },
        },
    },
};

fn subscription() -> Change {
    Change::Subscription(Subscription::of(&MemberSpec::default(), oncue_log::TopicId(0)))
}

fn times() -> Times {
    let time = Timestamp::from_micros(1);
    Times { generated: None, published: time, read: time, ended: time }
}

fn ack(offset: u64) -> Change {
    let ack = Ack { offset, event_type: 0, end: End::Acked, attempts: 1, times: times() };
    Change::Settle(Settle { subscription: 0, entries: vec![ack] })
}

fn attempt(error: &str) -> FailedAttempt {
    let time = Timestamp::from_micros(1);
    FailedAttempt { number: 1, read: time, ended: time, class: ErrorClass::Transient, error: error.to_owned() }
}

fn retry(offset: u64) -> Change {
    Change::Retry(Retry {
        subscription: 0,
        offset,
        event_type: 0,
        attempts: 2,
        due: Timestamp::from_micros(77),
        times: times(),
        failed: Some(attempt("not yet")),
        previous: None,
    })
}

fn keyed(key: &str, bytes: usize) -> Change {
    let value = Bytes::from(vec![7; bytes]);
    Change::Keyed(Keyed { subscription: 0, key: key.to_owned(), change: StateChange::Set(value) })
}

fn event() -> Envelope {
    Envelope::builder("t").id("1").key("k").data(vec![1; 1_000]).build().unwrap()
}

fn dead(offset: u64) -> Change {
    let history = vec![attempt("never")];
    let about = DeadAbout {
        subscription: 0,
        partition: 0,
        offset,
        hold: true,
        copy: false,
        event_type: 0,
        times: times(),
        history,
    };
    Change::DeadLetter(Dead { about, envelope: event() })
}

fn redrive(offset: u64) -> Change {
    let about = RedriveAbout { subscription: 0, partition: 0, offset, history: vec![attempt("never")] };
    Change::Redrive(Redrive { about, envelope: event() })
}

/// One of everything that a state may point to.
fn story() -> Vec<Change> {
    let mut story = vec![subscription(), dead(20), dead(21), redrive(21), retry(21), retry(30), dead(22)];
    story.extend([keyed("small", 10), keyed("large", 700_000), keyed("old", 5_000), keyed("old", 6_000)]);
    story.extend((0..10).map(ack));
    story
}

struct Server {
    broker: MemoryBroker,
}

impl Server {
    fn new() -> Self {
        Self { broker: MemoryBroker::new(ManualClock::new(Timestamp::from_micros(5)).clock()).unwrap() }
    }

    /// A ledger with the story in it, each change a record of its own, and held by somebody.
    async fn told(&self) -> (Arc<MemoryConnection>, Ledger) {
        let (connection, ledger) = (self.broker.connect(), ledger());
        let writing = ledger.write().await;
        for change in story() {
            ledger.append(&*connection, &mut Pending::new([change]), &writing).await.unwrap();
        }
        ledger.lease(&*connection, ("me", Timestamp::from_micros(9)), &writing).await.unwrap();
        drop(writing);
        (connection, ledger)
    }

    /// What somebody finds who reads all that there is.
    async fn found(&self) -> Ledger {
        let found = ledger();
        self.read(&found).await;
        found
    }

    async fn read(&self, ledger: &Ledger) {
        let writing = ledger.write().await;
        ledger.catch_up(&*self.broker.connect(), &writing).await.unwrap();
    }

    async fn assert_same(&self, found: &Ledger, expected: &Ledger) {
        let connection = self.broker.connect();
        for key in ["small", "large", "old", "none"] {
            let (found, expected) = (found.value(&*connection, key).await, expected.value(&*connection, key).await);
            assert_eq!(found.unwrap(), expected.unwrap(), "{key}");
        }
        for offset in [20, 22] {
            let pointer = |known: &Known| known.subscription()?.dead.get(&offset).map(|dead| dead.lsn);
            let Some(Change::DeadLetter(dead)) = found.pointed(&*connection, pointer).await.unwrap() else {
                panic!("dead letter {offset} is gone")
            };
            assert_eq!((dead.envelope, dead.about.history), (event(), vec![attempt("never")]));
        }
        let (found, expected) = (found.known(), expected.known());
        assert_eq!(found.histories, expected.histories);
        assert_eq!(found.copies.keys().collect::<Vec<_>>(), expected.copies.keys().collect::<Vec<_>>());
        assert_eq!(found.lease, expected.lease);
        let (found, expected) = (found.subscription().unwrap(), expected.subscription().unwrap());
        assert_eq!((found.stats(), found.dead_ever()), (expected.stats(), expected.dead_ever()));
        assert_eq!(found.dead.keys().collect::<Vec<_>>(), expected.dead.keys().collect::<Vec<_>>());
        assert_eq!(found.failing.keys().collect::<Vec<_>>(), expected.failing.keys().collect::<Vec<_>>());
        assert_eq!((found.settled.low(), found.settled.missing_below(40, Stride::ALL)), (10, 30));
    }
}

fn ledger() -> Ledger {
    Ledger::new(LedgerName { subscription: "s".to_owned(), partition: 0 })
}

#[test]
fn what_is_written_is_what_is_read() {
    let discard = |offset| Change::Discard(Discard { subscription: 0, offset });
    let changes = vec![subscription(), discard(7), discard(9)];
    let pending = Pending::new(changes.clone());
    assert_eq!(pending.records.len(), 1);
    let mut known = Known::default();
    assert_eq!(known.take(5, &pending.records[0].0).unwrap(), changes);
    known.take(8, &lease("me", Timestamp::from_micros(3))).unwrap();
    assert_eq!((known.last, known.is_held_by("me")), (8, true));
    assert!(known.subscription().unwrap().settled.contains(9));
    assert_eq!(known.held_until("you", Timestamp::from_micros(2)), Some(Timestamp::from_micros(3)));
    assert_eq!(known.held_until("you", Timestamp::from_micros(3)), None);
}

#[tokio::test]
async fn a_checkpoint_says_all_and_what_is_before_it_goes() {
    let server = Server::new();
    let (connection, ledger) = server.told().await;
    let (expected, behind) = (server.found().await, self::ledger());
    let early = connection.records(&ledger.name, 0, 5).await.unwrap();
    early.iter().for_each(|(offset, record)| drop(behind.known().take(*offset, record).unwrap()));
    let before = server.broker.records_of("s", 0);
    for _ in 0..3 {
        let writing = ledger.write().await;
        ledger.checkpoint(&*connection, &writing).await.unwrap();
    }
    let after = server.broker.records_of("s", 0);
    assert!(before > 20 && after <= 8, "{before} records before, {after} after");
    assert_eq!(ledger.known().checkpoint.records, after as u64);
    server.assert_same(&server.found().await, &ledger).await;
    server.assert_same(&ledger, &server.found().await).await;
    // Who had read a part of what is gone.
    server.read(&behind).await;
    server.assert_same(&behind, &ledger).await;
    // Who had read all of it, but reads on only when it is asked for what is elsewhere now.
    server.assert_same(&expected, &ledger).await;
}

#[tokio::test]
async fn a_checkpoint_that_is_cut_off_anywhere_changes_nothing() {
    for requests in 0.. {
        let server = Server::new();
        let (connection, ledger) = server.told().await;
        let expected = server.found().await;
        connection.cut_after(requests);
        let writing = ledger.write().await;
        let whole = ledger.checkpoint(&*connection, &writing).await.is_ok();
        drop(writing);
        let next = server.found().await;
        if !whole {
            server.assert_same(&next, &expected).await;
        }
        // Whoever comes next goes on, and writes one.
        let another = server.broker.connect();
        let writing = next.write().await;
        next.append(&*another, &mut Pending::new([retry(31)]), &writing).await.unwrap();
        next.checkpoint(&*another, &writing).await.unwrap();
        drop(writing);
        let found = server.found().await;
        server.assert_same(&found, &next).await;
        assert!(found.known().histories.contains_key(&31));
        if whole {
            assert!(requests > 5, "it was cut off nowhere");
            break;
        }
    }
}

#[tokio::test]
async fn what_was_removed_leaves_little() {
    let server = Server::new();
    let (connection, ledger) = server.told().await;
    let writing = ledger.write().await;
    let remove = Change::Remove(Remove { subscription: 0 });
    ledger.append(&*connection, &mut Pending::new([remove]), &writing).await.unwrap();
    ledger.checkpoint(&*connection, &writing).await.unwrap();
    assert_eq!(server.broker.records_of("s", 0), 2);
    assert!(server.found().await.known().subscription().is_none());
}

#[tokio::test]
async fn what_was_appended_without_being_told_is_not_appended_again() {
    let server = Server::new();
    let (connection, ledger) = server.told().await;
    let writing = ledger.write().await;
    let mut pending = Pending::new([ack(40)]);
    connection.lose_confirmations(1);
    let appended = ledger.append(&*connection, &mut pending, &writing).await;
    assert!(matches!(appended, Err(BrokerError::Failed(_))), "{appended:?}");
    let again = ledger.append(&*connection, &mut pending, &writing).await;
    assert!(matches!(again, Err(BrokerError::Moved)), "{again:?}");
    let foreign = ledger.catch_up_with(&*connection, &mut pending, &writing).await.unwrap();
    assert!(foreign.is_empty() && pending.records.is_empty(), "{foreign:?}");
    assert_eq!(ledger.known().subscription().unwrap().stats().acked, 11);
    assert_eq!(server.found().await.known().subscription().unwrap().stats().acked, 11);
}
