//! What the model knows of events, of how subscriptions stand with them, and of how these are served.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use oncue::{
    Clock, Envelope, Timestamp,
    event::EnvelopeBuilder,
    handler::Ordered,
    transport::{EventRef, InspectError, LogTransport, Position, Settled, Transport as _},
};
use oncue_log::storage::FaultyStorage;

use super::{
    filters::{Kind, LeftOut},
    flaws::Flaw,
    program::{Act, New, Orders, Program},
};

/// Names an event; an emitted one by the event and the subscription that it came of.
pub(super) type Number = u32;

/// One of the apps that serve the log, one after another or two at once.
pub(super) type AppNumber = u32;

/// The number of what a subscription emits for an event, having begun anew so often.
pub(super) fn echo(number: Number, subscription: usize, generation: u32) -> Number {
    assert!(number < 1_000 && generation < 100, "numbers are apart");
    1_000 * (number + 1) + 10 * generation + u32::try_from(subscription).unwrap()
}

pub(super) fn is_echo(number: Number) -> bool {
    number >= 1_000
}

pub(super) fn id_of(subscription: usize) -> String {
    format!("s{subscription}")
}

pub(super) fn subscription_of(id: &str) -> usize {
    id[1..].parse().unwrap()
}

/// What is known of an event.
pub(super) struct Known {
    pub(super) key: Option<String>,
    /// When its time comes, if it is delayed.
    pub(super) due: Option<Timestamp>,
    /// When it is too late for it.
    pub(super) expires: Option<Timestamp>,
    pub(super) priority: u8,
    pub(super) kind: Option<Kind>,
    pub(super) position: Option<Position>,
    /// Publishing it was acknowledged, or it was seen.
    pub(super) certain: bool,
    /// Between which two rests it came.
    pub(super) epoch: usize,
    pub(super) acts: Vec<Vec<Act>>,
}

/// How a subscription stands with an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    pub(super) calls: usize,
    /// Attempts that failed, and how many of those are known to be durable.
    pub(super) attempts: u32,
    pub(super) durable_attempts: u32,
    /// It is not known which of them are durable: a crash came, or the app went.
    pub(super) doubtful: bool,
    pub(super) running: bool,
    /// Who called its handler last.
    pub(super) by: AppNumber,
    /// It was started and is not settled: nothing else of its key may start.
    pub(super) open: bool,
    pub(super) acked: bool,
    /// The event that was emitted with the ack.
    pub(super) emitted: Option<Number>,
    pub(super) dead: bool,
    /// As a dead letter it holds its key.
    pub(super) holds: bool,
    /// What was said of `acked` and `dead` is durable.
    pub(super) durable: bool,
    pub(super) discarded: bool,
    /// As a dead letter it was taken up again: it is handled whatever the filter says.
    pub(super) redriven: bool,
    /// It was redriven and need not come first in its key.
    pub(super) exempt: bool,
    /// It was edited, which nobody else sees; or the power went meanwhile.
    pub(super) edited: bool,
    pub(super) edit_in_doubt: bool,
}

/// How an app serves a subscription.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InApp {
    /// It may call the handler.
    pub(super) serves: bool,
    pub(super) concurrency: usize,
    pub(super) running: usize,
    /// Since when it is being stopped: what does not run by then waits.
    pub(super) stops_since: Option<Duration>,
}

/// Whether the log knows of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    No,
    /// It is being made, or the power went meanwhile.
    Perhaps,
    Yes,
}

/// How a subscription is served now.
pub(super) struct Served {
    pub(super) apps: BTreeMap<AppNumber, InApp>,
    /// Instances that share it.
    pub(super) instances: usize,
    /// How often it was attached by the first of them: all is read anew then.
    pub(super) attachments: u32,
    pub(super) orders: Orders,
    pub(super) left_out: LeftOut,
    pub(super) made: Made,
    /// It was not made before it was attached.
    pub(super) is_new: bool,
    /// It takes nothing that stands before; and where it would begin if it were made now.
    pub(super) from: u64,
    pub(super) first: u64,
    /// How often it began anew.
    pub(super) generation: u32,
    /// What it acked, by key, in order, and in which generation.
    pub(super) kept: BTreeMap<String, Vec<(Number, u32)>>,
}

/// What came of a program.
pub(super) struct Story {
    /// The laws that are broken.
    pub(super) broken: Vec<String>,
    /// All that happened.
    pub(super) trace: String,
}

pub(super) struct Model {
    pub(super) program: Program,
    /// What the product does wrong on purpose.
    pub(super) flaw: Option<Flaw>,
    /// Whether all that happens is told at once.
    told: bool,
    pub(super) clock: Clock,
    /// The apps that are there.
    pub(super) apps: BTreeSet<AppNumber>,
    /// Whether two were there since the log was opened.
    pub(super) had_two: bool,
    pub(super) epoch: usize,
    pub(super) transport: Option<Arc<LogTransport>>,
    pub(super) storage: FaultyStorage,
    pub(super) served: Vec<Served>,
    pub(super) events: BTreeMap<Number, Known>,
    pub(super) tracks: BTreeMap<(usize, Number), Track>,
    /// What was given up once, and held nothing: what comes after it may have been skipped.
    pub(super) gave_up: BTreeSet<(usize, Number)>,
    /// What filters left out while the subscription was served: it may be settled for that.
    pub(super) passed_by: BTreeSet<(usize, Number)>,
    /// What was emitted by subscriptions before they began anew.
    pub(super) emitted: Vec<Number>,
    /// A subscription that is beginning anew, from an offset on; without one it is being forgotten.
    pub(super) anew: Option<(usize, Option<u64>)>,
    violations: Vec<String>,
    trace: String,
}

impl Model {
    pub(super) fn new(
        program: Program,
        (flaw, told): (Option<Flaw>, bool),
        clock: Clock,
        storage: FaultyStorage,
    ) -> Self {
        let serve = |subscription: &super::program::Subscription| Served {
            apps: BTreeMap::new(),
            instances: 0,
            attachments: 0,
            orders: subscription.orders,
            left_out: subscription.left_out,
            made: Made::No,
            is_new: true,
            from: 0,
            first: 0,
            generation: 0,
            kept: BTreeMap::new(),
        };
        let served = program.subscriptions.iter().map(serve).collect();
        Self {
            program,
            flaw,
            told,
            clock,
            apps: BTreeSet::new(),
            had_two: false,
            epoch: 0,
            transport: None,
            storage,
            served,
            events: BTreeMap::new(),
            tracks: BTreeMap::new(),
            gave_up: BTreeSet::new(),
            passed_by: BTreeSet::new(),
            emitted: Vec::new(),
            anew: None,
            violations: Vec::new(),
            trace: String::new(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) fn note(&mut self, what: &str) {
        if self.told {
            println!("{:>8.1?} {what}", self.clock.monotonic());
        }
        let _ = writeln!(self.trace, "{:>8.1?} {what}", self.clock.monotonic());
    }

    /// A law is broken.
    pub(super) fn broken(&mut self, what: &str) {
        self.note(&format!("BROKEN: {what}"));
        self.violations.push(what.to_owned());
    }

    pub(super) fn is_broken(&self) -> bool {
        !self.violations.is_empty()
    }

    /// The laws that are broken, and all that happened.
    pub(super) fn story(&self) -> Story {
        Story { broken: self.violations.clone(), trace: self.trace.clone() }
    }

    /// Whether an event stands before the place where the subscription began.
    pub(super) fn is_passed(&self, subscription: usize, number: Number) -> bool {
        let position = self.events.get(&number).and_then(|known| known.position);
        position.is_some_and(|position| position.offset() < self.served[subscription].from)
    }

    /// Whether a handler that comes before gave the event up: then this one may skip it.
    pub(super) fn may_be_skipped(&self, subscription: usize, number: Number) -> bool {
        (self.program.joined(subscription).start..subscription).any(|before| self.gave_up.contains(&(before, number)))
    }

    /// Strict order of one is strict order of all those that are served as one.
    pub(super) fn is_strict(&self, subscription: usize) -> bool {
        self.served[self.program.joined(subscription)].iter().any(|served| served.orders.ordered == Ordered::Strict)
    }

    /// Whether what is under way is known: of two apps on a log that fails, the one has given up what it was doing, and
    /// may not have noticed yet.
    pub(super) fn is_certain(&self) -> bool {
        self.storage.is_on() || !self.had_two
    }

    /// An event is about to be published.
    pub(super) fn publish(&mut self, number: Number, new: &New) {
        let key = new.key.map(|key| format!("k{key}"));
        let in_seconds = |seconds| self.clock.now().after(Duration::from_secs(seconds));
        let known = Known {
            key,
            due: new.delay.map(in_seconds),
            expires: new.time_to_live.map(in_seconds),
            priority: new.priority.unwrap_or(4),
            kind: new.kind,
            position: None,
            certain: false,
            epoch: self.epoch,
            acts: new.acts.clone(),
        };
        self.events.insert(number, known);
        for which in 0..self.served.len() {
            if self.served[which].instances > 0 && self.leaves_out(which, number) {
                self.passed_by.insert((which, number));
            }
        }
    }

    /// An event is seen, for the first time perhaps.
    pub(super) fn see(&mut self, number: Number, position: Position, envelope: &Envelope) {
        let epoch = self.epoch;
        let known = self.events.entry(number).or_insert_with(|| Known {
            key: envelope.key().map(str::to_owned),
            due: None,
            expires: None,
            priority: envelope.priority(),
            kind: None,
            position: None,
            certain: true,
            epoch,
            acts: Vec::new(),
        });
        known.certain = true;
        let before = known.position.replace(position);
        if before.is_some_and(|before| before != position) {
            self.broken(&format!("event {number} stands at two positions"));
        }
    }

    /// How an event ended for a subscription, as the transport has it.
    pub(super) fn settled(&self, subscription: usize, number: Number) -> Option<Settled> {
        self.outcome(subscription, number, None)?.ok()
    }

    /// Whether the subscription begins after it, as the transport has it.
    pub(super) fn is_before_all(&self, subscription: usize, number: Number) -> bool {
        matches!(self.outcome(subscription, number, None), Some(Err(_)))
    }

    /// Whether the subscription takes it, as the transport has it.
    pub(super) fn is_said_to_be_taken(&self, subscription: usize, number: Number) -> bool {
        let kind = self.events.get(&number).and_then(|known| known.kind);
        !matches!(self.outcome(subscription, number, kind), Some(Err(InspectError::NotTaken { .. })))
    }

    /// Nothing if it is yet to come. What is of no kind no filter leaves out: the end of an event is told without.
    fn outcome(
        &self,
        subscription: usize,
        number: Number,
        kind: Option<Kind>,
    ) -> Option<Result<Settled, InspectError>> {
        let position = self.events.get(&number)?.position?;
        let event_type = if is_echo(number) { "echo" } else { "step" };
        let envelope = of_kind(Envelope::builder(event_type), kind).build().unwrap();
        let event = EventRef { topic: "events".into(), position, envelope };
        self.transport.as_ref()?.outcome(&event, &id_of(subscription)).now_or_never()
    }
}

/// An event of a kind.
pub(super) fn of_kind(envelope: EnvelopeBuilder, kind: Option<Kind>) -> EnvelopeBuilder {
    match kind {
        Some(kind) => envelope.extension("kind", kind.to_string()),
        None => envelope,
    }
}
