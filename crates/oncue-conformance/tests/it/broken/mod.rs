//! Proof that the cases can fail: each, on a transport that is broken in a way that the case is there to find.

mod fault;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::{
    Clock, Observer,
    transport::{self, Transport},
};
use oncue_conformance::{
    CATALOGUE, Disturbance, Factory, Filter, Intruder, Opened, Suite, Tier, Urls, Verdict, tap::Tapped,
};
use parking_lot::Mutex;

use self::fault::{Broken, Fault};

/// Opens `file:` logs with a fault.
struct BrokenFiles {
    files: Urls,
    fault: Fault,
    openings: AtomicU64,
    opened: Mutex<Vec<Arc<Broken>>>,
}

impl BrokenFiles {
    fn new(directory: PathBuf, fault: Fault) -> Self {
        Self { files: Urls::file(directory), fault, openings: AtomicU64::new(0), opened: Mutex::default() }
    }
}

impl Factory for BrokenFiles {
    fn open(&self, place: &str, clock: Clock) -> BoxFuture<'static, Opened> {
        let place = match self.fault {
            Fault::Forgets => format!("{place}-{}", self.openings.fetch_add(1, Ordering::SeqCst)),
            Fault::MixesPlaces => place.replace("case-32-2", "case-32-1"),
            _ => place.to_owned(),
        };
        let (opening, broken) = (self.files.open(&place, clock), Arc::new(Broken::new(self.fault)));
        self.opened.lock().push(Arc::clone(&broken));
        async move { Ok(Arc::new(Tapped::new(opening.await?, broken)) as Arc<dyn Transport>) }.boxed()
    }

    fn open_as(&self, _: Intruder, place: &str, clock: Clock) -> Result<BoxFuture<'static, Opened>, &'static str> {
        let is_open = self.fault == Fault::LetsAnybodyIn;
        if is_open { Ok(self.open(&format!("{place}-side-door"), clock)) } else { Err("it is locked") }
    }

    fn observer(&self, place: &str, clock: Clock) -> Result<Observer, &'static str> {
        self.files.observer(place, clock)
    }

    fn disturb(&self, disturbance: Disturbance, _: &str) -> Result<BoxFuture<'static, ()>, &'static str> {
        if self.fault != Fault::LosesWhenCut || disturbance != Disturbance::Cut {
            return Err("it stands firm");
        }
        let opened = self.opened.lock().clone();
        Ok(async move { opened.iter().for_each(|broken| broken.cut()) }.boxed())
    }
}

/// For each case the faults that it is shown to find, and what it says of them.
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
    (12, Fault::Repeats, "calls of `"),
    (13, Fault::Reverses, "came after"),
    (14, Fault::NotShared, "twice"),
    (15, Fault::Forgets, "was never given"),
    (16, Fault::NoHistory, "earlier events"),
    (17, Fault::Forgets, "opened again: `steady` was never given"),
    (17, Fault::LosesWhenCut, "connection cut: `steady` was never given"),
    (18, Fault::Loses, "was never given"),
    (19, Fault::Repeats, "twice"),
    (20, Fault::ForgetsOptions, "while it is paused, after a restart"),
    (21, Fault::DropsEmits, "waiting for: 20 replies"),
    (22, Fault::DropsExtensions, "before its time"),
    (22, Fault::AlwaysFifo, "highest priority first"),
    (23, Fault::HalfABatch, "a batch that was refused"),
    (23, Fault::RetryIsAck, "calls with the key whose second event fails"),
    (24, Fault::LeavingIsAck, "events settled when it has gone"),
    (25, Fault::DropsEmits, "the chain"),
    (26, Fault::IgnoresFilters, "events that `exact` took"),
    (27, Fault::DropsExtensions, "event 1"),
    (28, Fault::CutsLarge, "a dead letter lost bytes"),
    (29, Fault::AcceptsWhenClosed, "published to a closed transport"),
    (30, Fault::LetsAnybodyIn, "WrongCredentials: it published an event"),
    (31, Fault::Loses, "were acknowledged"),
    (32, Fault::MixesPlaces, "round "),
    (33, Fault::KeepsNothing, "acknowledged events are lost"),
    (34, Fault::RoundsTimes, "a new subscription, from Since"),
    (35, Fault::NoLimit, "events are held"),
    (36, Fault::NeverHolds, "the held key"),
    (36, Fault::DropsRedriven, "from its dead letter on"),
    (37, Fault::OneAtATime, "waiting for: 1000 events in strict order beside"),
    (38, Fault::IgnoresAfter, "skip: "),
    (39, Fault::NoDuplicates, "publishers that were first"),
    (40, Fault::OutcomeIsAck, "outcome of `doomed`"),
    (40, Fault::KeepsNothing, "in another process"),
    (41, Fault::ForgetsAttempts, "after its lease was over"),
    (41, Fault::LetsPass, "whose first event failed"),
    (42, Fault::Forgets, "waiting for: the alert dead_letter of `doomed`"),
    (43, Fault::ForgetsAttempts, "waiting for: every handler"),
    (44, Fault::LetsPass, "strict order: calls"),
    (45, Fault::OneAtATime, "waiting for: `slow`"),
    (46, Fault::ForgetsState, "sums by key"),
];

/// How the text begins where the fault is that nothing goes on.
const STUCK: &str = "waiting for: ";
/// When a case counts as stuck there.
const UNTIL_STUCK: Duration = Duration::from_secs(3);

#[test]
fn every_case_of_the_suite_has_a_fault_to_find() {
    let anything = transport::open("memory:", Clock::system()).unwrap().capabilities();
    let can = transport::Capabilities { durable: true, ..anything };
    let implemented = CATALOGUE.iter().filter(|case| case.run.is_some() && (case.needs)(&can).is_none());
    let implemented: Vec<u8> = implemented.map(|case| case.number).collect();
    let mut found: Vec<u8> = FINDS.iter().map(|(case, ..)| *case).collect();
    found.dedup();
    assert_eq!(found, implemented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_finds_its_fault() {
    let directory = tempfile::tempdir().unwrap();
    let mut missed = Vec::new();
    for (case, fault, text) in FINDS {
        let place = directory.path().join(format!("{case}-{fault:?}"));
        let deadline = if text.starts_with(STUCK) { UNTIL_STUCK } else { crate::DEADLINE };
        let suite = Suite::new("broken:", BrokenFiles::new(place, *fault)).instances(true).deadline(deadline);
        let suite = suite.worker(|_| crate::worker("memory:"));
        let report = suite.run(&Filter::only([*case]), Tier::Fast).await;
        let entry = &report.entries[usize::from(*case) - 1];
        println!("{case:>2} {fault:?}: {}: {}", entry.verdict.as_str(), entry.reason);
        if entry.verdict != Verdict::Failed || !entry.reason.contains(text) {
            missed.push((case, fault));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
