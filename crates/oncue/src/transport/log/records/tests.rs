use proptest::prelude::*;

use super::*;

fn round_trip(change: &Change) -> Change {
    let mut out = Writer::default();
    change.encode(&mut out);
    Change::decode(change.kind(), &out.into_bytes()).unwrap().unwrap()
}

proptest! {
    #[test]
    fn acks_go_there_and_back(
        subscription in any::<u32>(),
        acks in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<[i64; 3]>(), any::<Option<i64>>()), 0..20),
    ) {
        let entries = acks.into_iter().map(|(offset, attempts, [published, read, ended], generated)| Ack {
            offset, attempts, event_type: attempts, end: [End::Acked, End::Skipped, End::Expired][offset as usize % 3],
            times: Times {
                generated: generated.map(Timestamp::from_micros),
                published: Timestamp::from_micros(published),
                read: Timestamp::from_micros(read),
                ended: Timestamp::from_micros(ended),
            },
        }).collect();
        let change = Change::Settle(Settle { subscription, entries });
        prop_assert_eq!(round_trip(&change), change);
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 17_u8..=31, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Change::decode(kind, &Bytes::from(bytes));
    }
}

#[test]
fn the_others_go_there_and_back() {
    let failed = FailedAttempt {
        number: 2,
        class: ErrorClass::Timeout,
        read: Timestamp::from_micros(5),
        ended: Timestamp::from_micros(9),
        error: "too slow".into(),
    };
    let envelope = Envelope::builder("t").id("1").data("x").build().unwrap();
    let time = Timestamp::from_micros(4);
    let times = Times { generated: None, published: time, read: time, ended: time };
    let history = vec![failed.clone()];
    let about =
        DeadAbout { subscription: 1, partition: 3, offset: 9, hold: true, copy: false, event_type: 2, times, history };
    let again = RedriveAbout { subscription: 1, partition: 3, offset: 9, history: vec![failed.clone()] };
    for change in [
        Change::Redrive(Redrive { about: again, envelope: envelope.clone() }),
        Change::DeadLetter(Dead { about, envelope }),
        Change::Retry(Retry {
            subscription: 1,
            offset: 7,
            event_type: 3,
            attempts: 2,
            due: Timestamp::from_micros(99),
            times,
            failed: Some(failed),
            previous: Some(4),
        }),
        Change::Keyed(Keyed { subscription: 1, key: "k".into(), change: StateChange::Set(Bytes::new()) }),
        Change::Keyed(Keyed { subscription: 1, key: "k".into(), change: StateChange::Clear }),
        Change::EventType(EventType { number: 1, name: "a".into() }),
        Change::Discard(Discard { subscription: 1, offset: 3 }),
        Change::Reset(Reset { subscription: 1, from: 3 }),
        Change::Dropped(Dropped {
            topic: 1,
            first: 9,
            missed: vec![Gap { subscription: 1, events: 3, ranges: vec![(2, 4), (6, 7)] }],
            expired: vec![(1, 5)],
        }),
        Change::Remove(Remove { subscription: 1 }),
        Change::Remember(Remember { subscription: 1, what: Bytes::from_static(b"{}") }),
        Change::Source(Source { id: "s".into(), place: "line 7".into(), accepted: 5, duplicates: 1 }),
    ] {
        assert_eq!(round_trip(&change), change);
    }
}
