use super::{
    super::records::{Ack, End, Times},
    *,
};
use crate::{clock::Timestamp, transport::StateChange};

fn times() -> Times {
    let time = Timestamp::from_micros(1);
    Times { generated: None, published: time, read: time, ended: time }
}

fn subscription(number: u32, id: &str) -> Change {
    let types = vec!["a".to_owned()];
    Change::Subscription(Subscription {
        number,
        id: id.to_owned(),
        topic: 1,
        types,
        filter: None,
        emits: Vec::new(),
        after: Vec::new(),
        from: 3,
    })
}

fn ack(subscription: u32, offset: u64) -> Change {
    let ack = Ack { offset, event_type: 0, end: End::Acked, attempts: 1, times: times() };
    Change::Settle(Settle { subscription, entries: vec![ack] })
}

#[test]
fn a_checkpoint_restores_all_of_it() {
    let mut state = State::default();
    let retry = Retry {
        subscription: 0,
        offset: 5,
        event_type: 0,
        attempts: 2,
        due: Timestamp::from_micros(77),
        times: times(),
        failed: None,
        previous: None,
    };
    let keyed = Keyed { subscription: 0, key: "k".into(), change: StateChange::Set(Bytes::from_static(b"v")) };
    let source = Source { id: "s".into(), place: "12".into(), accepted: 3, duplicates: 1 };
    let changes = [
        subscription(0, "one"),
        subscription(1, "two"),
        ack(0, 3),
        ack(0, 9),
        Change::Retry(retry),
        Change::Keyed(keyed),
        Change::Source(source),
    ];
    for (lsn, change) in changes.iter().enumerate() {
        state.apply(change, lsn as u64).unwrap();
    }
    let mut restored = State::default();
    restored.restore(&state.checkpoint()).unwrap();
    let one = restored.find("one").unwrap();
    assert_eq!((one.settled.low(), one.settled.contains(9), one.stats.acked), (4, true, 2));
    assert_eq!(one.failing[&5], Failing { attempts: 2, due: Timestamp::from_micros(77), lsn: 4 });
    assert!(one.keyed.get("k").is_some());
    assert_eq!(restored.source("s").accepted, 3);
    assert_eq!(restored.next_number(), 2);
    assert_eq!(restored.checkpoint(), state.checkpoint());
}

#[test]
fn settling_twice_changes_nothing() {
    let mut state = State::default();
    for change in [subscription(0, "one"), ack(0, 3), ack(0, 3)] {
        state.apply(&change, 0).unwrap();
    }
    assert_eq!(state.find("one").unwrap().stats.acked, 1);
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let mut state = State::default();
    assert!(state.apply(&ack(0, 1), 0).is_err());
    assert!(state.apply(&subscription(1, "skips"), 0).is_err());
}
