use super::{
    super::{
        lesson::{Lost, Waits},
        records::{Ack, End, Lesson, Times, Trial},
        trial::Worked,
    },
    *,
};
use crate::{
    clock::Timestamp,
    policy::Routed,
    transport::{RouteChoice, StateChange},
};

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
        topic_name: None,
        types,
        filter: None,
        emits: Vec::new(),
        after: Vec::new(),
        learns: None,
        learns_from: None,
        ranks: None,
        routes: None,
        routes_from: None,
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
    assert_eq!((one.settled.low(), one.settled.contains(9), one.stats().acked), (4, true, 2));
    assert_eq!(one.failing[&5], Failing { attempts: 2, due: Timestamp::from_micros(77), trouble: None, lsn: 4 });
    assert!(one.keyed.get("k").is_some());
    assert_eq!(restored.source("s").accepted, 3);
    assert_eq!(restored.next_number(), 2);
    assert_eq!(restored.checkpoint(), state.checkpoint());
}

#[test]
fn what_was_learned_is_restored_and_a_checkpoint_from_before_there_were_lessons_is_read() {
    let mut state = State::default();
    state.apply(&subscription(0, "one"), 0).unwrap();
    let before = state.checkpoint();
    let mut features = crate::filter::Features::default();
    features.category("bank", "north");
    for lost in [Lost::Known(true), Lost::Known(false), Lost::Unknown] {
        let lesson = Lesson { subscription: 0, offset: 3, lost, features: features.clone() };
        state.apply(&Change::Lesson(lesson), 1).unwrap();
    }
    let mut restored = State::default();
    restored.restore(&state.checkpoint()).unwrap();
    assert_eq!(restored.find("one").unwrap().learner, state.find("one").unwrap().learner);
    assert_eq!(restored.find("one").unwrap().learner.as_ref().unwrap().progress().examples, 2.0);

    // Version 7 has no lengths of what was learned of a route and of its attempts that wait for feedback, here 0, before what
    // stands behind the subscriptions; version 6 none of what waits for feedback and of a ranker, either, and version 5 none of a
    // learner.
    let mut behind = Writer::default();
    state.dedup.encode(&mut behind);
    behind.varint(0);
    let mut older = before.to_vec();
    for (version, lengths) in [(7, 2), (6, 2), (5, 1)] {
        for _ in 0..lengths {
            assert_eq!(older.remove(older.len() - behind.as_slice().len() - 1), 0);
        }
        older[0] = version;
        let mut restored = State::default();
        restored.restore(&older).unwrap();
        assert_eq!(restored.checkpoint(), before);
    }
    older[0] = 8;
    assert!(State::default().restore(&older).is_err());
}

#[test]
fn what_was_learned_of_a_route_is_restored_and_what_waits_for_feedback_goes_on() {
    let told = crate::filter::feedback(["back"], std::time::Duration::from_micros(50));
    let rules = crate::policy::LearnedRoute::default().with_arms(vec!["north".into(), "south".into()]).feedback(told);
    let Change::Subscription(about) = subscription(0, "one") else { unreachable!() };
    let about = Change::Subscription(Subscription { routes: Some(Box::new(rules)), ..about });
    let mut features = crate::filter::Features::default();
    features.category("bank", "north");
    let trial = |offset: u64, worked| {
        let choice = RouteChoice { arm: u8::from(offset > 4), best: 0, explores: false, among: 2 }.into();
        let routed = Routed { choice, micros: 1_000_000, features: features.clone() };
        Change::Trial(Trial { subscription: 0, offset, worked, routed })
    };
    let event = Envelope::builder("back").subject("o-1").build().unwrap();
    let waits = |at: i64| {
        let (published, ended) = (Timestamp::from_micros(at), Timestamp::from_micros(at + 1));
        Worked::Waits(Waits { key: event.key_hash().unwrap(), published, ended })
    };
    let mut state = State::default();
    for change in [about, trial(3, Worked::Known(false)), trial(4, waits(10)), trial(5, waits(100))] {
        state.apply(&change, 0).unwrap();
    }
    let mut restored = State::default();
    restored.restore(&state.checkpoint()).unwrap();
    for state in [&mut state, &mut restored] {
        // Offset 4 was a success, as nothing came in time; of 5 it is told that it was none.
        state.published(1, 9, Timestamp::from_micros(120), &event);
        let router = state.find("one").unwrap().router.as_ref().unwrap();
        let rewards: Vec<_> = router.arms().map(|(_, arm)| (arm.rewards.count(), arm.rewards.mean())).collect();
        assert_eq!(rewards, [(2.0, 0.4), (1.0, -0.1)]);
    }
    assert_eq!(restored.checkpoint(), state.checkpoint());
    // A handler of which the registration knows nothing is none to learn of, and no reason not to open.
    let Change::Trial(mut beyond) = trial(3, Worked::Known(true)) else { unreachable!() };
    beyond.routed.choice.arm = 2;
    let before = state.checkpoint();
    state.apply(&Change::Trial(beyond), 0).unwrap();
    assert_eq!(state.checkpoint(), before);
}

#[test]
fn settling_twice_changes_nothing() {
    let mut state = State::default();
    for change in [subscription(0, "one"), ack(0, 3), ack(0, 3)] {
        state.apply(&change, 0).unwrap();
    }
    assert_eq!(state.find("one").unwrap().stats().acked, 1);
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let mut state = State::default();
    assert!(state.apply(&ack(0, 1), 0).is_err());
    assert!(state.apply(&subscription(1, "skips"), 0).is_err());
}

#[test]
fn types_beyond_the_bound_are_counted_together_and_nothing_is_lost() {
    let mut state = State::default();
    state.apply(&subscription(0, "one"), 0).unwrap();
    let types = subscription::MAX_TYPES + 10;
    for number in 0..types {
        let number = u32::try_from(number).unwrap();
        state.apply(&Change::EventType(EventType { number, name: format!("t{number}") }), 0).unwrap();
        let ack =
            Ack { offset: u64::from(number) + 3, event_type: number, end: End::Acked, attempts: 1, times: times() };
        state.apply(&Change::Settle(Settle { subscription: 0, entries: vec![ack] }), 0).unwrap();
    }
    let one = state.find("one").unwrap();
    assert_eq!((one.by_type.len(), one.by_type[&OTHER_TYPES].acked), (subscription::MAX_TYPES + 1, 10));
    assert_eq!(one.by_type.values().map(|stats| stats.acked).sum::<u64>(), types as u64);
    assert_eq!(state.types().name(OTHER_TYPES), "", "it is shown as `(other)`");
}

#[test]
fn a_log_numbers_so_many_types_and_no_more() {
    let mut types = Types::default();
    for number in 0..MAX_NUMBERED_TYPES {
        types.add(&EventType { number: types.next(0), name: number.to_string() }).unwrap();
    }
    assert_eq!((types.next(0), types.next(1)), (OTHER_TYPES, OTHER_TYPES));
    let last = TypeNumber::try_from(MAX_NUMBERED_TYPES).unwrap() - 1;
    assert_eq!(types.number(&last.to_string()), Some(last));
}
