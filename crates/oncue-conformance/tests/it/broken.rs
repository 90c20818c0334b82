//! Proof that the cases can fail: each, on a transport that is broken in a way that the case is there to find.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::{
    Clock, Envelope, Timestamp,
    transport::{
        self, Action, Consumer, Delivered, Limit, Members, OnDeadLetter, Ordered, Position, Publish, PublishError,
        Published, SettleError, Settled, Settlement, Start, SubscriptionSpec, Transport,
    },
};
use oncue_conformance::{
    CATALOGUE, Factory, Filter, Opened, Suite, Tier, Urls, Verdict,
    tap::{Tap, Tapped},
};
use tokio::sync::watch;

/// How a transport is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
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
}

struct Broken {
    fault: Fault,
    late: parking_lot::Mutex<Option<Publish>>,
    published: AtomicU64,
    unsettled: watch::Sender<usize>,
    handed_out: parking_lot::Mutex<Vec<Delivered>>,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            late: parking_lot::Mutex::default(),
            published: AtomicU64::new(0),
            unsettled: watch::Sender::default(),
            handed_out: parking_lot::Mutex::default(),
        }
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

fn nowhere(batch: &Publish) -> Vec<Published> {
    let position = Position::new(0, 0, 0);
    batch.events.iter().map(|_| Published { position, duplicate: false }).collect()
}

impl Tap for Broken {
    fn publish<'a>(
        &'a self,
        inner: &'a dyn Transport,
        mut batch: Publish,
    ) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        let nth = self.published.fetch_add(1, Ordering::SeqCst);
        async move {
            match self.fault {
                Fault::ChangesBytes | Fault::DropsExtensions | Fault::NoDuplicates | Fault::CutsLarge => {
                    batch.events = batch.events.iter().map(|event| self.publishes(event)).collect();
                }
                Fault::MixesTopics => "one".clone_into(&mut batch.topic),
                Fault::Loses if nth % 10 == 9 => return Ok(nowhere(&batch)),
                Fault::WritesLate => {
                    let answer = nowhere(&batch);
                    let earlier = self.late.lock().replace(batch);
                    if let Some(earlier) = earlier {
                        inner.publish(earlier).await?;
                    }
                    return Ok(answer);
                }
                _ => {}
            }
            let half = Publish { events: batch.events[..batch.events.len() / 2].to_vec(), ..batch.clone() };
            match inner.publish(batch).await {
                Err(PublishError::Closed) if self.is(Fault::AcceptsWhenClosed) => Ok(Vec::new()),
                Err(refused) if self.is(Fault::HalfABatch) => {
                    inner.publish(half).await?;
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
            _ => {}
        }
        spec
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
                (Fault::DropsEmits, _) => settlement.emits.clear(),
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
            emits: Vec::new(),
            state: None,
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

/// Opens `file:` logs with a fault.
struct BrokenFiles {
    files: Urls,
    fault: Fault,
    openings: AtomicU64,
}

impl Factory for BrokenFiles {
    fn open(&self, place: &str, clock: Clock) -> BoxFuture<'static, Opened> {
        let mut place = place.to_owned();
        if self.fault == Fault::Forgets {
            place = format!("{place}-{}", self.openings.fetch_add(1, Ordering::SeqCst));
        }
        let (opening, fault) = (self.files.open(&place, clock), self.fault);
        async move {
            let tapped = Tapped::new(opening.await?, Arc::new(Broken::new(fault)));
            Ok(Arc::new(tapped) as Arc<dyn Transport>)
        }
        .boxed()
    }
}

/// For each case a fault that it finds, and what it says of it.
const FINDS: &[(u8, Fault, &str)] = &[
    (1, Fault::AcceptsWhenClosed, "published to a closed transport"),
    (2, Fault::ChangesBytes, "attributes of id-1"),
    (3, Fault::MixesTopics, "nobody published it"),
    (4, Fault::Loses, "was never given"),
    (5, Fault::ClosesOnce, "-once: "),
    (6, Fault::WritesLate, "events after closing"),
    (7, Fault::ForgetsAttempts, "waiting for: every handler"),
    (8, Fault::RetryIsAck, "attempts of `storm-0`"),
    (9, Fault::SettlesLate, "waiting for: every handler"),
    (10, Fault::RetriesAtOnce, "20ms was promised"),
    (11, Fault::LeavingIsAck, "outcomes of a cancelled handler"),
    (13, Fault::Reverses, "came after"),
    (15, Fault::Forgets, "was never given"),
    (16, Fault::NoHistory, "earlier events"),
    (18, Fault::Loses, "was never given"),
    (19, Fault::Repeats, "twice"),
    (23, Fault::HalfABatch, "a batch that was refused"),
    (25, Fault::DropsEmits, "the chain"),
    (27, Fault::DropsExtensions, "event 1"),
    (28, Fault::CutsLarge, "a dead letter lost bytes"),
    (31, Fault::Loses, "were acknowledged"),
    (35, Fault::NoLimit, "events are held"),
    (36, Fault::NeverHolds, "the held key"),
    (37, Fault::OneAtATime, "events in strict order beside"),
    (38, Fault::IgnoresAfter, "skip: "),
    (39, Fault::NoDuplicates, "publishers that were first"),
    (40, Fault::OutcomeIsAck, "outcome of `doomed`"),
    (43, Fault::ForgetsAttempts, "waiting for: every handler"),
    (44, Fault::LetsPass, "strict order: calls"),
    (45, Fault::OneAtATime, "waiting for: `slow`"),
    (46, Fault::ForgetsState, "sums by key"),
];

#[test]
fn every_case_of_the_suite_has_a_fault_to_find() {
    let anything = transport::open("memory:", Clock::system()).unwrap().capabilities();
    let can = transport::Capabilities { durable: true, ..anything };
    let implemented = CATALOGUE.iter().filter(|case| case.run.is_some() && (case.needs)(&can).is_none());
    let implemented: Vec<u8> = implemented.map(|case| case.number).collect();
    let found: Vec<u8> = FINDS.iter().map(|(case, ..)| *case).collect();
    assert_eq!(found, implemented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_finds_its_fault() {
    let directory = tempfile::tempdir().unwrap();
    let mut missed = Vec::new();
    for (case, fault, text) in FINDS {
        let place = directory.path().join(format!("{case}"));
        let files = BrokenFiles { files: Urls::File(place), fault: *fault, openings: AtomicU64::new(0) };
        let suite = Suite::new("broken:", files).deadline(Duration::from_secs(3));
        let report = suite.run(&Filter::only([*case]), Tier::Fast).await;
        let entry = &report.entries[usize::from(*case) - 1];
        println!("{case:>2} {fault:?}: {}: {}", entry.verdict.as_str(), entry.reason);
        if entry.verdict != Verdict::Failed || !entry.reason.contains(text) {
            missed.push((case, fault));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
