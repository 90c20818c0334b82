//! A transport that is broken on purpose.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::{
    Envelope, Timestamp,
    transport::{
        self, Action, Consumer, Control, Delivered, Limit, Members, OnDeadLetter, Order, Ordered, Position, Publish,
        PublishError, Published, Resolution, SettleError, Settled, Settlement, Start, SubscriptionSpec, Transport,
    },
};
use oncue_conformance::tap::Tap;
use tokio::sync::watch;

/// How a transport is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Says that it published when it is closed.
    AcceptsWhenClosed,
    /// Changes a byte of each payload.
    ChangesBytes,
    /// Forgets the extensions.
    DropsExtensions,
    /// Keeps all topics in one.
    MixesTopics,
    /// Every tenth publish is acknowledged and lost.
    Loses,
    /// Cannot be closed twice.
    ClosesOnce,
    /// Acknowledges what it writes when the next publish comes.
    WritesLate,
    /// Publishes the first half of a batch that it refuses.
    HalfABatch,
    /// Refuses no size, and cuts.
    CutsLarge,
    /// Every publish is a new event.
    NoDuplicates,
    /// Hands out what it read in reverse.
    Reverses,
    /// Forgets how often an event was tried.
    ForgetsAttempts,
    /// Retries at once, whenever it should be.
    RetriesAtOnce,
    /// A retry counts as handled.
    RetryIsAck,
    /// Says that an outcome is durable, and writes it later.
    SettlesLate,
    /// What a consumer leaves unfinished counts as handled.
    LeavingIsAck,
    /// A failing event does not hold its key.
    LetsPass,
    /// A held dead letter does not hold its key.
    NeverHolds,
    /// New subscriptions begin with the latest event.
    NoHistory,
    /// Hands out each event once more.
    Repeats,
    /// Hands out an event when all before it are settled.
    OneAtATime,
    /// Hands out as much as there is.
    NoLimit,
    /// Says that every predecessor is through.
    IgnoresAfter,
    /// Says that everything was handled.
    OutcomeIsAck,
    /// Forgets the state of keys.
    ForgetsState,
    /// Forgets what was emitted.
    DropsEmits,
    /// Begins anew at each opening.
    Forgets,
    /// Each instance has a subscription of its own.
    NotShared,
    /// Says that it remembers what is said about a subscription, and does not.
    ForgetsOptions,
    /// The oldest event is next, whatever was asked for.
    AlwaysFifo,
    /// Hands out events that a filter is against.
    IgnoresFilters,
    /// Finds the place of a time to the nearest ten milliseconds.
    RoundsTimes,
    /// Says that a dead letter is taken up again, and drops it.
    DropsRedriven,
    /// After a cut, acknowledges some events and loses them.
    LosesWhenCut,
    /// Lets in whoever comes.
    LetsAnybodyIn,
    /// Keeps some places in one.
    MixesPlaces,
    /// A second process keeps everything in its memory.
    KeepsNothing,
}

pub(super) struct Broken {
    fault: Fault,
    late: parking_lot::Mutex<Option<Publish>>,
    published: AtomicU64,
    /// Events to be lost.
    losing: AtomicU64,
    unsettled: watch::Sender<usize>,
    handed_out: parking_lot::Mutex<Vec<Delivered>>,
}

impl Broken {
    pub(super) fn new(fault: Fault) -> Self {
        Self {
            fault,
            late: parking_lot::Mutex::default(),
            published: AtomicU64::new(0),
            losing: AtomicU64::new(0),
            unsettled: watch::Sender::default(),
            handed_out: parking_lot::Mutex::default(),
        }
    }

    /// The connection was cut.
    pub(super) fn cut(&self) {
        self.losing.store(3, Ordering::SeqCst);
    }

    fn loses(&self) -> bool {
        self.losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |losing| losing.checked_sub(1)).is_ok()
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// What is published instead of an event.
    fn publishes(&self, event: &Envelope) -> Envelope {
        let mut changed = Envelope::builder(event.event_type()).source(event.source()).hops(event.hops());
        changed = event.key().into_iter().fold(changed, |changed, key| changed.key(key));
        let mut data = event.data().to_vec();
        if self.is(Fault::ChangesBytes) {
            data.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        }
        if self.is(Fault::CutsLarge) {
            data.truncate(1024 * 1024);
        }
        if !self.is(Fault::DropsExtensions) {
            changed = event.extensions().fold(changed, |changed, (name, value)| changed.extension(name, value));
        }
        if !self.is(Fault::NoDuplicates) && event.id_supplied() {
            changed = changed.id(event.id());
        }
        changed.data(data).build().expect("a part of an event that is valid")
    }
}

fn rounded(start: Start) -> Start {
    match start {
        Start::Since(time) => Start::Since(Timestamp::from_micros(time.as_micros() / 10_000 * 10_000)),
        other => other,
    }
}

fn nowhere(batch: &Publish) -> Vec<Published> {
    let position = Position::new(0, 0, 0);
    batch.events.iter().map(|_| Published { position, duplicate: false }).collect()
}

impl Tap for Broken {
    fn publish<'a>(
        &'a self,
        inner: &'a dyn Transport,
        batch: &'a Publish,
    ) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        let nth = self.published.fetch_add(1, Ordering::SeqCst);
        let mut batch = batch.clone();
        async move {
            match self.fault {
                Fault::ChangesBytes | Fault::DropsExtensions | Fault::NoDuplicates | Fault::CutsLarge => {
                    batch.events = batch.events.iter().map(|event| self.publishes(event)).collect();
                }
                Fault::MixesTopics => batch.topic = "one".into(),
                Fault::Loses if nth % 10 == 9 => return Ok(nowhere(&batch)),
                Fault::LosesWhenCut if self.loses() => return Ok(nowhere(&batch)),
                Fault::WritesLate => {
                    let answer = nowhere(&batch);
                    let earlier = self.late.lock().replace(batch);
                    if let Some(earlier) = earlier {
                        inner.publish(&earlier).await?;
                    }
                    return Ok(answer);
                }
                _ => {}
            }
            let half = Publish { events: batch.events[..batch.events.len() / 2].to_vec(), ..batch.clone() };
            match inner.publish(&batch).await {
                Err(PublishError::Closed) if self.is(Fault::AcceptsWhenClosed) => Ok(Vec::new()),
                Err(refused) if self.is(Fault::HalfABatch) => {
                    inner.publish(&half).await?;
                    Err(refused)
                }
                published => published,
            }
        }
        .boxed()
    }

    fn spec(&self, mut spec: SubscriptionSpec) -> SubscriptionSpec {
        match self.fault {
            Fault::MixesTopics => "one".clone_into(&mut spec.topic),
            Fault::LetsPass => spec.ordered = Ordered::Relaxed,
            Fault::NeverHolds => {
                spec.members.iter_mut().for_each(|member| member.on_dead_letter = OnDeadLetter::Continue);
            }
            Fault::NoHistory => spec.members.iter_mut().for_each(|member| member.start = Start::Latest),
            Fault::NotShared => {
                let nth = self.published.fetch_add(1, Ordering::SeqCst);
                spec.members.iter_mut().for_each(|member| member.id = format!("{}-{nth}", member.id));
            }
            Fault::AlwaysFifo => spec.order = Order::Fifo,
            Fault::IgnoresFilters => spec.members.iter_mut().for_each(|member| member.filter = None),
            Fault::RoundsTimes => {
                spec.members.iter_mut().for_each(|member| member.start = rounded(member.start));
            }
            _ => {}
        }
        spec
    }

    fn control(&self, control: Control) -> Option<Control> {
        match (self.fault, control) {
            (Fault::ForgetsOptions, Control::Remember(_)) => None,
            (Fault::RoundsTimes, Control::Reset(start)) => Some(Control::Reset(rounded(start))),
            (Fault::DropsRedriven, Control::Resolve(letters)) => {
                let drop = |(position, _)| (position, Resolution::Discard);
                Some(Control::Resolve(letters.into_iter().map(drop).collect()))
            }
            (_, control) => Some(control),
        }
    }

    fn may_read(&self) -> BoxFuture<'static, ()> {
        let mut unsettled = self.unsettled.subscribe();
        let waits = self.is(Fault::OneAtATime);
        async move {
            if waits {
                // The sender lives as long as the transport.
                let _ = unsettled.wait_for(|count| *count == 0).await;
            }
        }
        .boxed()
    }

    fn limit(&self, limit: Limit) -> Limit {
        match self.fault {
            Fault::OneAtATime => Limit { events: 1, ..limit },
            Fault::NoLimit => Limit { events: usize::MAX, bytes: usize::MAX },
            _ => limit,
        }
    }

    fn delivered(&self, events: &mut Vec<Delivered>) {
        match self.fault {
            Fault::Reverses => events.reverse(),
            Fault::Repeats => *events = events.iter().flat_map(|event| [event.clone(), event.clone()]).collect(),
            Fault::ForgetsAttempts => events.iter_mut().for_each(|event| event.attempts.clear()),
            Fault::IgnoresAfter => {
                events.iter_mut().for_each(|event| event.done = Members::first(transport::MAX_MEMBERS));
            }
            Fault::LeavingIsAck => self.handed_out.lock().extend_from_slice(events),
            _ => {}
        }
        self.unsettled.send_modify(|count| *count += events.len());
    }

    fn settle(&self, inner: &dyn Consumer, mut batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        self.unsettled.send_modify(|count| *count = count.saturating_sub(batch.len()));
        for settlement in &mut batch {
            match (self.fault, settlement.action) {
                (Fault::RetryIsAck, Action::Retry(_)) => settlement.action = Action::Ack,
                (Fault::RetriesAtOnce, Action::Retry(_)) => settlement.action = Action::Retry(Timestamp::default()),
                (Fault::DropsEmits, _) => {
                    settlement.written.as_mut().into_iter().for_each(|written| written.emits.clear());
                }
                _ => {}
            }
        }
        if self.is(Fault::SettlesLate) {
            // Dropped: what is not settled yet is lost.
            return std::future::ready(Ok(())).boxed();
        }
        inner.settle(batch)
    }

    fn state(&self, state: Option<bytes::Bytes>) -> Option<bytes::Bytes> {
        state.filter(|_| !self.is(Fault::ForgetsState))
    }

    fn outcome(&self, settled: Settled) -> Settled {
        if self.is(Fault::OutcomeIsAck) { Settled::Acked } else { settled }
    }

    fn dropped(&self, inner: &dyn Consumer) {
        let attempt =
            transport::Attempt { number: 1, class: None, read: Timestamp::default(), ended: Timestamp::default() };
        let ack = |event: Delivered| Settlement {
            position: event.position,
            member: 0,
            action: Action::Ack,
            attempt,
            error: None,
            written: None,
        };
        let left: Vec<_> = self.handed_out.lock().drain(..).map(ack).collect();
        if !left.is_empty() {
            drop(inner.settle(left));
        }
    }

    fn close<'a>(&'a self, inner: &'a dyn Transport) -> BoxFuture<'a, Result<(), SettleError>> {
        let again = self.is(Fault::ClosesOnce) && self.published.fetch_add(1 << 32, Ordering::SeqCst) >> 32 > 0;
        if again {
            return std::future::ready(Err(SettleError::Closed)).boxed();
        }
        inner.close()
    }
}
