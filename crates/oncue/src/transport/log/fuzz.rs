//! The decoders of the log's records as functions of any bytes: see `crate::fuzz`.

use bytes::Bytes;

use super::{
    lesson::{Lost, Waits},
    records::{
        Ack, Change, Discard, End, EventType, Keyed, Lesson, Remember, Service, Settle, Source, Subscription, Times,
        Trial,
    },
    state::State,
    trial::Worked,
};
use crate::{
    clock::Timestamp,
    codec::Writer,
    policy::{LearnedRoute, Routed},
    transport::{RouteChoice, StateChange},
};

/// A state record: its kind in the first byte.
pub fn change(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let Ok(Some(change)) = Change::decode(*kind, &Bytes::copy_from_slice(data)) else { return };
    let mut out = Writer::default();
    change.encode(&mut out);
    let again = Change::decode(*kind, &out.into_bytes());
    assert!(again.is_ok_and(|again| again.as_ref() == Some(&change)), "what was read is what is written: {change:?}");
}

/// A checkpoint.
pub fn state(data: &[u8]) {
    let mut state = State::default();
    if state.restore(data).is_err() {
        return;
    }
    let (checkpoint, mut again) = (state.checkpoint(), State::default());
    assert!(again.restore(&checkpoint).is_ok(), "what was read is what is written");
    assert_eq!(again.checkpoint().len(), checkpoint.len());
}

fn sample() -> Vec<Change> {
    let time = Timestamp::from_micros(7);
    let times = Times { generated: Some(time), published: time, read: time, ended: time };
    let ack = |offset, end| Ack { offset, event_type: 0, end, attempts: 1, times };
    let label = crate::filter::feedback(["b"], std::time::Duration::from_secs(1)).into();
    let lessons = crate::filter::Lessons { label, ..crate::filter::Lessons::default() };
    let told = crate::filter::feedback(["c"], std::time::Duration::from_secs(1));
    let routes = LearnedRoute::default().with_arms(vec!["north".into(), "south".into()]).feedback(told);
    let about = Subscription {
        number: 0,
        id: "one".to_owned(),
        topic: 1,
        topic_name: None,
        types: vec!["a".to_owned()],
        filter: None,
        emits: Vec::new(),
        after: Vec::new(),
        learns: Some(Box::new(lessons)),
        learns_from: Some(3),
        ranks: Some(Box::new(crate::policy::learned_priority().cost("cents"))),
        routes: Some(Box::new(routes)),
        routes_from: Some(3),
        from: 3,
    };
    let mut features = crate::filter::Features::default();
    features.number("cents", 5.0);
    features.category("bank", "north");
    let waits = Waits { key: 5, published: time, ended: time };
    let choice = RouteChoice { arm: 1, best: 0, explores: true, among: 2 }.into();
    let routed = Routed { choice, micros: 7, features: features.clone() };
    vec![
        Change::Subscription(about),
        Change::EventType(EventType { number: 0, name: "a".to_owned() }),
        Change::Settle(Settle { subscription: 0, entries: vec![ack(3, End::Acked), ack(9, End::Expired)] }),
        Change::Keyed(Keyed { subscription: 0, key: "k".into(), change: StateChange::Set(Bytes::from_static(b"v")) }),
        Change::Discard(Discard { subscription: 0, offset: 4 }),
        Change::Remember(Remember { subscription: 0, what: Bytes::from_static(b"{}") }),
        Change::Source(Source { id: "s".into(), place: "line 7".into(), accepted: 5, duplicates: 1 }),
        Change::Lesson(Lesson { subscription: 0, offset: 3, lost: Lost::Known(true), features: features.clone() }),
        Change::Lesson(Lesson { subscription: 0, offset: 5, lost: Lost::Unknown, features: features.clone() }),
        Change::Lesson(Lesson { subscription: 0, offset: 7, lost: Lost::Waits(waits), features: features.clone() }),
        Change::Service(Service {
            subscription: 0,
            offset: 3,
            priority: 4,
            cost: 5.0,
            micros: 7,
            features: features.clone(),
        }),
        Change::Trial(Trial { subscription: 0, offset: 3, worked: Worked::Known(true), routed: routed.clone() }),
        Change::Trial(Trial { subscription: 0, offset: 5, worked: Worked::Waits(waits), routed }),
    ]
}

/// Some that can be read.
pub fn changes() -> Vec<Vec<u8>> {
    let encode = |change: Change| {
        let mut out = Writer::default();
        out.u8(change.kind());
        change.encode(&mut out);
        out.as_slice().to_vec()
    };
    sample().into_iter().map(encode).collect()
}

/// One that can be read.
pub fn states() -> Vec<Vec<u8>> {
    let mut state = State::default();
    for (lsn, change) in sample().iter().enumerate() {
        let _applied = state.apply(change, lsn as u64);
    }
    vec![state.checkpoint().to_vec()]
}
