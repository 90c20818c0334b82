//! Random programs: subscriptions, and what is done to them.

use std::time::Duration;

use oncue::handler::{OnDeadLetter, Order, Ordered};
use proptest::{collection::vec, option, prelude::*};
use serde::{Deserialize, Serialize};

use super::filters::{KINDS, Kind, LeftOut, left_out};

/// Most subscriptions of a program.
pub(super) const SUBSCRIPTIONS: usize = 3;

/// What is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Program {
    /// What a crash keeps.
    pub(super) seed: u64,
    /// Whether events stay when they are settled.
    pub(super) forever: bool,
    /// Whether two apps serve the subscriptions from the start.
    #[serde(default)]
    pub(super) twin: bool,
    /// Whether one reader feeds all subscriptions, or each reads for itself.
    #[serde(default)]
    pub(super) fed: bool,
    /// Whether keyed states come late.
    #[serde(default)]
    pub(super) slow_states: bool,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) operations: Vec<Operation>,
}

/// How a subscription is served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Subscription {
    #[serde(flatten)]
    pub(super) orders: Orders,
    pub(super) concurrency: usize,
    /// Events of a batch, at most.
    pub(super) batch: Option<usize>,
    pub(super) retry_after: u64,
    pub(super) max_attempts: u32,
    /// Whether an attempt may take five seconds, or as long as it wants.
    pub(super) timeout: bool,
    /// Whether it takes emitted events too.
    pub(super) echoes: bool,
    /// Whether it comes after the subscription before it.
    pub(super) after: bool,
    /// Whether it keeps a state for each key; not if it handles batches.
    #[serde(default)]
    pub(super) keyed: bool,
    /// Whether the next event of a key starts before the last one is settled, where that can be.
    #[serde(default)]
    pub(super) pipelined: bool,
    /// What its filter leaves out; without a filter, nothing.
    #[serde(default)]
    pub(super) left_out: LeftOut,
}

/// What is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Operation {
    /// Publishes events as one batch.
    Publish(Vec<New>),
    /// Seconds pass.
    Advance(u64),
    Pause(usize),
    Resume(usize),
    Unsubscribe(usize),
    Subscribe(usize),
    Concurrency(usize, usize),
    /// Another order.
    Reorder(usize, Orders),
    /// Another filter.
    Filter(usize, LeftOut),
    /// Begins anew.
    Reset(usize, From),
    /// Forgets a subscription.
    Remove(usize),
    /// One of two apps goes: the first one or the other, dropped or in good order.
    Leave {
        first: bool,
        dropped: bool,
    },
    /// Another app comes.
    Join,
    /// What is done next is followed by the next thing after so many turns, not when all rests.
    Hurry(usize),
    Idle,
    Restart,
    /// The power goes with the nth write from now on.
    PowerOffAt(u64),
    /// The power goes now.
    Crash,
    Resolve(usize, usize, Resolve),
}

/// In which order events are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) order: Order,
    pub(super) ordered: Ordered,
    pub(super) on_dead_letter: OnDeadLetter,
}

/// Where a subscription begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum From {
    Earliest,
    Latest,
    /// With an event that was published.
    At(u32),
    /// So many seconds ago.
    Ago(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Resolve {
    Redrive,
    Edit,
    Discard,
}

/// An event to publish.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct New {
    pub(super) key: Option<u8>,
    /// Seconds.
    pub(super) delay: Option<u64>,
    /// Seconds.
    pub(super) time_to_live: Option<u64>,
    pub(super) priority: Option<u8>,
    /// What filters see of it.
    #[serde(default)]
    pub(super) kind: Option<Kind>,
    /// What each subscription's calls come to; those after the last are acked.
    pub(super) acts: Vec<Vec<Act>>,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Act {
    pub(super) way: Way,
    pub(super) end: End,
}

/// How long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Way {
    /// It is there at once.
    Now,
    /// It is pending once.
    Yield,
    /// It takes seconds.
    Sleep(u64),
    /// A plain function, on the blocking pool.
    Block,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum End {
    Ack,
    Emit,
    Fail,
    Reject,
    /// Seconds.
    Defer(u64),
    Panic,
}

impl Act {
    pub(super) const ACK: Self = Self { way: Way::Now, end: End::Ack };
}

/// The longest that an attempt may take, where it has a limit.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

fn orders() -> impl Strategy<Value = Orders> {
    let order = prop_oneof![3 => Just(Order::Fifo), 1 => Just(Order::Lifo), 1 => Just(Order::Priority)];
    (order, any::<bool>(), any::<bool>()).prop_map(|(order, strict, hold)| {
        let strict = strict && order != Order::Lifo;
        Orders {
            order,
            ordered: if strict { Ordered::Strict } else { Ordered::Relaxed },
            on_dead_letter: if strict && hold { OnDeadLetter::Hold } else { OnDeadLetter::Continue },
        }
    })
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let retry = (prop_oneof![Just(0_u64), Just(1), Just(7)], 1_u32..4);
    (
        orders(),
        (1_usize..=4, option::weighted(0.3, 1_usize..=5)),
        (retry, any::<bool>(), any::<bool>(), prop::bool::weighted(0.3), any::<bool>(), any::<bool>()),
        option::weighted(0.5, left_out()),
    )
        .prop_map(|(orders, (concurrency, batch), (retry, timeout, echoes, after, keyed, pipelined), left_out)| {
            Subscription {
                orders,
                concurrency,
                batch,
                retry_after: retry.0,
                max_attempts: retry.1,
                timeout,
                echoes,
                after,
                keyed,
                pipelined,
                left_out: left_out.unwrap_or_default(),
            }
        })
}

fn act() -> impl Strategy<Value = Act> {
    let way = prop_oneof![
        4 => Just(Way::Now),
        2 => Just(Way::Yield),
        2 => prop_oneof![Just(1_u64), Just(3), Just(8)].prop_map(Way::Sleep),
        1 => Just(Way::Block),
    ];
    let end = prop_oneof![
        2 => Just(End::Ack),
        2 => Just(End::Emit),
        4 => Just(End::Fail),
        1 => Just(End::Reject),
        1 => prop_oneof![Just(0_u64), Just(2)].prop_map(End::Defer),
        1 => Just(End::Panic),
    ];
    (way, end).prop_map(|(way, end)| Act { way, end })
}

fn new() -> impl Strategy<Value = New> {
    (
        option::weighted(0.8, prop_oneof![Just(0_u8), 0_u8..3]),
        option::weighted(0.15, 1_u64..12),
        option::weighted(0.1, 1_u64..12),
        option::weighted(0.3, 0_u8..=9),
        option::weighted(0.8, 0..KINDS),
        vec(vec(act(), 0..4), SUBSCRIPTIONS),
    )
        .prop_map(|(key, delay, time_to_live, priority, kind, acts)| New {
            key,
            delay,
            time_to_live,
            priority,
            kind,
            acts,
        })
}

fn operation() -> impl Strategy<Value = Operation> {
    let which = 0..SUBSCRIPTIONS;
    let resolve = prop_oneof![3 => Just(Resolve::Redrive), 1 => Just(Resolve::Edit), 1 => Just(Resolve::Discard)];
    let from = prop_oneof![
        2 => Just(From::Earliest),
        1 => Just(From::Latest),
        2 => (0_u32..40).prop_map(From::At),
        1 => (0_u64..20).prop_map(From::Ago),
    ];
    prop_oneof![
        12 => vec(new(), 1..5).prop_map(Operation::Publish),
        8 => prop_oneof![Just(0_u64), 1_u64..4, 5_u64..15].prop_map(Operation::Advance),
        1 => which.clone().prop_map(Operation::Pause),
        2 => which.clone().prop_map(Operation::Resume),
        1 => which.clone().prop_map(Operation::Unsubscribe),
        2 => which.clone().prop_map(Operation::Subscribe),
        1 => (which.clone(), 1_usize..=4).prop_map(|(which, concurrency)| Operation::Concurrency(which, concurrency)),
        2 => (which.clone(), orders()).prop_map(|(which, orders)| Operation::Reorder(which, orders)),
        2 => (which.clone(), left_out()).prop_map(|(which, left_out)| Operation::Filter(which, left_out)),
        2 => (which.clone(), from).prop_map(|(which, from)| Operation::Reset(which, from)),
        1 => which.clone().prop_map(Operation::Remove),
        2 => any::<(bool, bool)>().prop_map(|(first, dropped)| Operation::Leave { first, dropped }),
        1 => Just(Operation::Join),
        6 => (0_usize..12).prop_map(Operation::Hurry),
        1 => Just(Operation::Idle),
        2 => Just(Operation::Restart),
        2 => (0_u64..40).prop_map(Operation::PowerOffAt),
        1 => Just(Operation::Crash),
        4 => (which, 0_usize..4, resolve).prop_map(|(which, letter, resolve)| Operation::Resolve(which, letter, resolve)),
    ]
}

pub(super) fn program() -> impl Strategy<Value = Program> {
    let subscriptions = vec(subscription(), 1..=SUBSCRIPTIONS).prop_map(|mut subscriptions| {
        for index in 0..subscriptions.len() {
            let apart = index == 0 || subscriptions[index].stands_alone() || subscriptions[index - 1].stands_alone();
            subscriptions[index].after &= !apart;
        }
        subscriptions
    });
    let log = (any::<u64>(), any::<bool>(), prop::bool::weighted(0.2), any::<bool>(), prop::bool::weighted(0.3));
    (log, subscriptions, vec(operation(), 1..30)).prop_map(|(log, subscriptions, operations)| {
        let (seed, forever, twin, fed, slow_states) = log;
        Program { seed, forever, twin, fed, slow_states, subscriptions, operations }
    })
}

impl Subscription {
    pub(super) fn is_keyed(&self) -> bool {
        self.keyed && self.batch.is_none()
    }

    pub(super) fn is_pipelined(&self) -> bool {
        self.pipelined && self.batch.is_none() && !self.keyed
    }

    fn stands_alone(&self) -> bool {
        self.orders.order != Order::Fifo || self.batch.is_some()
    }
}

impl Program {
    /// Whether the next event of a key starts before the last one is settled: all of those that are served as one say so.
    pub(super) fn is_pipelined(&self, which: usize) -> bool {
        self.subscriptions[self.joined(which)].iter().all(Subscription::is_pipelined)
    }

    /// The subscriptions that are served as one with this one.
    pub(super) fn joined(&self, which: usize) -> std::ops::Range<usize> {
        let begin = (0..=which).rev().find(|index| !self.subscriptions[*index].after).unwrap_or(0);
        let more = self.subscriptions[begin + 1..].iter().take_while(|subscription| subscription.after).count();
        begin..begin + 1 + more
    }
}
