use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{
    branches::{Exact, Table},
    *,
};
use crate::clock::Timestamp;

/// What each registration asks for, as the naive way keeps it.
type Naive = BTreeMap<u8, (Vec<String>, Option<Filter>)>;

#[derive(Clone, Debug)]
enum Change {
    Insert(u8, Vec<String>, Option<Filter>),
    Remove(u8),
}

/// Values so few that filters match, and long enough for several steps of a trie.
fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{1,2}", "[ab]{1,2}", "aaaaaaaa[ab]{0,2}", "(ab){3,10}", "b{7,9}a{7,9}"]
}

fn attribute() -> impl Strategy<Value = &'static str> {
    select(&["type", "subject", "source", "partitionkey", "tenant", "region", "oncuehops"][..])
}

fn leaf() -> impl Strategy<Value = Filter> {
    let test = select(&[Filter::exact, Filter::prefix, Filter::suffix] as &[fn(&str, String) -> Filter]);
    prop_oneof![
        8 => (test, attribute(), value()).prop_map(|(test, attribute, value)| test(attribute, value)),
        1 => Just(Filter::exact("time", "1970-01-01T00:00:00Z")),
        // Not valid, and taken all the same.
        1 => select(vec![Filter::prefix("subject", ""), Filter::exact("tenant", ""), Filter::all([]), Filter::any([])]),
        1 => (value(), value()).prop_map(|(subject, tenant)| {
            serde_json::from_value(serde_json::json!({"exact": {"subject": subject, "tenant": tenant}})).unwrap()
        }),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    leaf().prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..6).prop_map(Filter::all),
            vec(inner.clone(), 1..6).prop_map(Filter::any),
            inner.prop_map(Filter::negate),
        ]
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..40_u8, vec("[ab]{1,2}", 0..4), option::weighted(0.8, filter()))
            .prop_map(|(id, types, filter)| Change::Insert(id, types, filter)),
        1 => (0..40_u8).prop_map(Change::Remove),
    ]
}

fn event() -> impl Strategy<Value = Envelope> {
    let optional = || option::weighted(0.7, value());
    (value(), value(), optional(), optional(), optional(), optional(), any::<bool>()).prop_map(
        |(event_type, source, subject, key, tenant, region, time)| {
            let mut builder = Envelope::builder(event_type).source(source).hops(u8::from(time));
            builder = builder.subject(subject.unwrap_or_default()).key(key.unwrap_or_default());
            if let Some(tenant) = tenant {
                builder = builder.extension("tenant", tenant);
            }
            if let Some(region) = region {
                builder = builder.extension("region", region);
            }
            if time {
                builder = builder.time(Timestamp::default());
            }
            builder.build().unwrap()
        },
    )
}

fn naive(registered: &Naive, event: &Envelope) -> Vec<u8> {
    let wanted = |(types, filter): &(Vec<String>, Option<Filter>)| {
        takes(types, event.event_type()) && filter.as_ref().is_none_or(|filter| filter.matches(event))
    };
    registered.iter().filter(|(_, asked)| wanted(asked)).map(|(id, _)| *id).collect()
}

fn with_weak_hashes(weak: bool) -> FilterIndex<u8> {
    let mut index = FilterIndex::new();
    index.seed.weak = weak;
    index
}

fn found<T: Copy + Ord>(index: &FilterIndex<T>, event: &Envelope) -> Vec<T> {
    let mut out = Vec::new();
    index.matches(event, &mut out);
    out
}

proptest! {
    #[test]
    fn the_index_finds_what_trying_each_filter_finds(
        changes in vec(change(), 0..120),
        events in vec(event(), 1..12),
        weak in any::<bool>(),
    ) {
        let (mut index, mut registered) = (with_weak_hashes(weak), Naive::new());
        for (at, change) in changes.into_iter().enumerate() {
            match change {
                Change::Insert(id, types, filter) => {
                    index.insert(id, &types, filter.as_ref());
                    registered.insert(id, (types, filter));
                }
                Change::Remove(id) => prop_assert_eq!(index.remove(id), registered.remove(&id).is_some()),
            }
            let event = &events[at % events.len()];
            prop_assert_eq!(found(&index, event), naive(&registered, event));
        }
        prop_assert_eq!(index.len(), registered.len());
        for event in &events {
            prop_assert_eq!(found(&index, event), naive(&registered, event));
        }
        for id in registered.into_keys() {
            prop_assert!(index.remove(id));
        }
        prop_assert!(index.is_empty() && index.root.is_empty() && index.inexact.is_empty(), "{index:?}");
    }
}

fn types(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

#[test]
fn many_that_share_a_type_are_told_apart_by_what_else_they_want() {
    let mut index = FilterIndex::new();
    for id in 0..10_000_u32 {
        let filter = match id % 4 {
            0 => Filter::exact("subject", format!("o-{id}")),
            1 => Filter::prefix("subject", format!("customer-{id}/")),
            2 => Filter::suffix("subject", format!("/item-{id}")),
            _ => Filter::exact("tenant", format!("{}", id % 100)).and(Filter::exact("region", format!("{}", id / 100))),
        };
        index.insert(id, &types("order.created"), Some(&filter));
    }
    let event = |subject: &str| Envelope::builder("order.created").subject(subject);
    assert_eq!(found(&index, &event("o-400").build().unwrap()), [400]);
    assert_eq!(found(&index, &event("customer-401/item-402").build().unwrap()), [401, 402]);
    let of_region = event("x").extension("tenant", "3").extension("region", "44").build().unwrap();
    assert_eq!(found(&index, &of_region), [4403]);
    assert!(found(&index, &Envelope::builder("order.paid").subject("o-400").build().unwrap()).is_empty());
    assert_eq!(index.scanned(), 0);
}

#[test]
fn what_cannot_be_looked_up_is_counted() {
    let mut index = FilterIndex::new();
    let not = !Filter::prefix("subject", "test-");
    for id in 0..10_u32 {
        index.insert(id, &types("a"), Some(&not));
    }
    assert_eq!(index.scanned(), 0);
    index.insert(10, &[], Some(&not));
    index.insert(11, &[], None);
    index.insert(12, &[], Some(&not.clone().or(Filter::exact("type", "b"))));
    assert_eq!(index.scanned(), 3);
    assert_eq!(found(&index, &Envelope::builder("b").subject("test-1").build().unwrap()), [11, 12]);
}

#[test]
fn a_registration_is_replaced_and_found_once() {
    let mut index = FilterIndex::new();
    let either = Filter::exact("subject", "s").or(Filter::prefix("tenant", "t"));
    index.insert(1_u32, &types("a"), Some(&either));
    let event = Envelope::builder("a").subject("s").extension("tenant", "t1").build().unwrap();
    assert_eq!(found(&index, &event), [1]);
    index.insert(1, &types("b"), None);
    assert_eq!((found(&index, &event), index.len()), (vec![], 1));
    assert!(index.remove(1) && !index.remove(1));
    assert!(index.root.is_empty());
}

#[test]
fn a_filter_with_too_many_combinations_is_asked_itself() {
    let of = |attribute: &str, ids: std::ops::Range<u32>| {
        Filter::any(ids.map(|id| Filter::exact(attribute, format!("{attribute}{id}"))))
    };
    let filter = Filter::all([of("subject", 0..80), of("tenant", 0..80), of("region", 0..80)]);
    assert_eq!(filter.validate(), Ok(()));
    let mut index = FilterIndex::new();
    (0..20_u32).for_each(|id| index.insert(id, &types("a"), Some(&filter)));
    let event = |subject: u32, tenant: u32, region: u32| {
        let builder = Envelope::builder("a").subject(format!("subject{subject}"));
        let builder = builder.extension("tenant", format!("tenant{tenant}"));
        builder.extension("region", format!("region{region}")).build().unwrap()
    };
    assert_eq!(found(&index, &event(7, 9, 79)).len(), 20);
    for [subject, tenant, region] in [[80, 9, 79], [7, 80, 79], [7, 9, 80]] {
        assert!(found(&index, &event(subject, tenant, region)).is_empty());
    }
    (0..20).for_each(|id| assert!(index.remove(id)));
    assert!(index.root.is_empty() && index.inexact.is_empty());
}

#[test]
fn churn_leaves_no_memory_behind() {
    let mut index = FilterIndex::new();
    let filter = |id: u32| match id % 5 {
        0 => Filter::exact("subject", format!("o-{id}")),
        1 => Filter::prefix("subject", format!("customer-{id}/of-a-long-name/")),
        2 => Filter::suffix(format!("x{id}").as_str(), format!("{id}")),
        3 => !Filter::exact("subject", "o"),
        _ => Filter::any([Filter::exact("id", format!("{id}")), Filter::prefix("source", format!("/{id}"))]),
    };
    // Some stay, so that no table is given up as a whole.
    for id in 0..8 {
        index.insert(id, &[], Some(&filter(id)));
    }
    let (before, one_type) = (index.root.slots(), types("a"));
    for _ in 0..2 {
        for id in 8..4_000_u32 {
            index.insert(id, if id % 3 == 0 { &one_type } else { &[] }, Some(&filter(id)));
        }
        let event = Envelope::builder("a").subject("o-10").extension("x7", "7").build().unwrap();
        assert!(found(&index, &event).contains(&10));
        let most = index.root.slots();
        for id in 8..4_000 {
            assert!(index.remove(id));
        }
        let after = index.root.slots();
        assert!(most > 4_000 && after <= 8 * before, "{before} before, {most} at most, {after} after");
    }
}

/// How many things there is room for, in all lists and tables.
impl<T> Level<T> {
    fn slots(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Few(list) => list.capacity(),
            Self::Many(many) => {
                let branches = &many.branches;
                let core = branches.core.iter().map(|(_, table)| table);
                let tables = core.chain(branches.extensions.values().flatten());
                let below: usize = tables.map(Table::slots).sum();
                many.list.capacity() + branches.core.capacity() + branches.extensions.capacity() + below
            }
        }
    }
}

impl<T> Table<T> {
    fn slots(&self) -> usize {
        match self {
            Self::Exact(Exact { levels, collided, .. }) => {
                levels.capacity() + levels.values().chain(collided.values()).map(Level::slots).sum::<usize>()
            }
            Self::Prefix(trie) | Self::Suffix(trie) => trie.capacity() + trie.values().map(Level::slots).sum::<usize>(),
        }
    }
}
