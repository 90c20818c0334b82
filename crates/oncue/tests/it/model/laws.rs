//! What must hold, checked at every call of a handler and whenever nothing moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use oncue::{
    Clock, Envelope, Timestamp,
    handler::{Invocation, Order, Ordered},
    transport::{EventRef, InspectError, LogTransport, Position, Settled, Transport as _},
};

use oncue_log::storage::FaultyStorage;

use super::program::{Act, New, Orders, Program};

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
    delayed: bool,
    /// When it is too late for it.
    pub(super) expires: Option<Timestamp>,
    priority: u8,
    pub(super) position: Option<Position>,
    /// Publishing it was acknowledged, or it was seen.
    pub(super) certain: bool,
    /// Between which two rests it came.
    epoch: usize,
    acts: Vec<Vec<Act>>,
}

/// How a subscription stands with an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    calls: usize,
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
    /// It was redriven and need not come first in its key.
    pub(super) exempt: bool,
    /// It was started when its key was in no order, and may still come before what it passed then.
    pub(super) passed_others: bool,
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

pub(super) struct Model {
    pub(super) program: Program,
    clock: Clock,
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
    /// What was given up once: what comes after it may have been skipped.
    pub(super) gave_up: BTreeSet<(usize, Number)>,
    /// What was emitted by subscriptions before they began anew.
    pub(super) emitted: Vec<Number>,
    /// A subscription that is beginning anew, from an offset on; without one it is being forgotten.
    pub(super) anew: Option<(usize, Option<u64>)>,
    violations: Vec<String>,
    trace: String,
}

impl Model {
    pub(super) fn new(program: Program, clock: Clock, storage: FaultyStorage) -> Self {
        let serve = |subscription: &super::program::Subscription| Served {
            apps: BTreeMap::new(),
            instances: 0,
            attachments: 0,
            orders: subscription.orders,
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
        if std::env::var_os("REPLAY").is_some() {
            eprintln!("{:>8.1?} {what}", self.clock.monotonic());
        }
        let _ = writeln!(self.trace, "{:>8.1?} {what}", self.clock.monotonic());
    }

    /// A law is broken.
    pub(super) fn broken(&mut self, what: &str) {
        self.note(&format!("BROKEN: {what}"));
        self.violations.push(what.to_owned());
    }

    /// The laws that are broken, with all that happened.
    pub(super) fn verdict(&self) -> Result<(), String> {
        if self.violations.is_empty() { Ok(()) } else { Err(format!("{:#?}\n{}", self.violations, self.trace)) }
    }

    pub(super) fn takes(&self, subscription: usize, number: Number) -> bool {
        !is_echo(number) || self.program.subscriptions[subscription].echoes
    }

    /// Whether an event stands before the place where the subscription began.
    pub(super) fn is_passed(&self, subscription: usize, number: Number) -> bool {
        let position = self.events.get(&number).and_then(|known| known.position);
        position.is_some_and(|position| position.offset() < self.served[subscription].from)
    }

    /// Strict order of one is strict order of all those that are served as one.
    pub(super) fn is_strict(&self, subscription: usize) -> bool {
        self.served[self.program.joined(subscription)].iter().any(|served| served.orders.ordered == Ordered::Strict)
    }

    /// Whether what is under way is known: of two apps on a log that fails, the one has given up what it was doing, and
    /// may not have noticed yet.
    fn is_certain(&self) -> bool {
        self.storage.is_on() || !self.had_two
    }

    /// An event is about to be published.
    pub(super) fn publish(&mut self, number: Number, new: &New) {
        let key = new.key.map(|key| format!("k{key}"));
        let known = Known {
            key,
            delayed: new.delay.is_some(),
            expires: new.time_to_live.map(|seconds| self.clock.now().after(Duration::from_secs(seconds))),
            priority: new.priority.unwrap_or(4),
            position: None,
            certain: false,
            epoch: self.epoch,
            acts: new.acts.clone(),
        };
        self.events.insert(number, known);
    }

    /// An event is seen, for the first time perhaps.
    pub(super) fn see(&mut self, number: Number, position: Position, envelope: &Envelope) {
        let epoch = self.epoch;
        let known = self.events.entry(number).or_insert_with(|| Known {
            key: envelope.key().map(str::to_owned),
            delayed: false,
            expires: None,
            priority: envelope.priority(),
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
        self.outcome(subscription, number)?.ok()
    }

    /// Whether the subscription begins after it, as the transport has it.
    pub(super) fn is_before_all(&self, subscription: usize, number: Number) -> bool {
        matches!(self.outcome(subscription, number), Some(Err(_)))
    }

    /// Nothing if it is yet to come.
    fn outcome(&self, subscription: usize, number: Number) -> Option<Result<Settled, InspectError>> {
        let position = self.events.get(&number)?.position?;
        let event_type = if is_echo(number) { "echo" } else { "step" };
        let envelope = Envelope::builder(event_type).build().unwrap();
        let event = EventRef { topic: "events".into(), position, envelope };
        self.transport.as_ref()?.outcome(&event, &id_of(subscription)).now_or_never()
    }

    /// A handler is called, with one event or with a batch.
    pub(super) fn start(&mut self, app: AppNumber, subscription: usize, batch: &[(Number, Invocation)]) -> Vec<Act> {
        let numbers: Vec<Number> = batch.iter().map(|(number, _)| *number).collect();
        self.note(&format!("s{subscription} starts {numbers:?} in app {app}"));
        let limit = self.program.subscriptions[subscription].batch.unwrap_or(1);
        let (mut broken, certain) = (Vec::new(), self.is_certain());
        let in_app = self.served[subscription].apps.entry(app).or_default();
        if !in_app.serves {
            broken.push("is called although nobody serves it".to_owned());
        }
        if in_app.running >= in_app.concurrency && certain {
            broken.push(format!("runs more than {} calls", in_app.concurrency));
        }
        if in_app.stops_since.is_some_and(|since| since < self.clock.monotonic()) {
            broken.push("starts another call while it is being stopped".to_owned());
        }
        in_app.running += 1;
        if batch.len() > limit {
            broken.push(format!("has a batch of {}", batch.len()));
        }
        for (number, invocation) in batch {
            self.see(*number, invocation.position(), invocation.envelope());
            broken.extend(self.wrong_event(subscription, *number, invocation));
            broken.extend(self.wrong_order(subscription, *number, &numbers));
        }
        if self.served[subscription].orders.order != Order::Fifo && limit == 1 && !self.had_two {
            broken.extend(self.wrong_rank(subscription, numbers[0]));
        }
        for what in broken {
            self.broken(&format!("s{subscription} {what}"));
        }
        let mut acts = Vec::new();
        for (number, invocation) in batch {
            let track = self.tracks.entry((subscription, *number)).or_default();
            (track.running, track.open, track.by) = (true, true, app);
            track.attempts = invocation.attempt() - 1;
            if self.storage.is_on() {
                (track.durable_attempts, track.doubtful) = (track.attempts, false);
            }
            let script = self.events.get(number).and_then(|known| known.acts.get(subscription));
            acts.push(script.and_then(|script| script.get(track.calls)).copied().unwrap_or(Act::ACK));
            track.calls += 1;
        }
        acts
    }

    /// What is wrong with handling this event now, whatever the others do.
    fn wrong_event(&self, subscription: usize, number: Number, invocation: &Invocation) -> Option<String> {
        let track = self.tracks.get(&(subscription, number)).cloned().unwrap_or_default();
        let (envelope, now, attempt) = (invocation.envelope(), self.clock.now(), invocation.attempt());
        let after = self.program.subscriptions[subscription].after && self.takes(subscription - 1, number);
        if track.running && self.is_certain() {
            return Some(format!("is called twice at once with {number}"));
        }
        if self.is_passed(subscription, number) {
            return Some(format!("handles {number} although it began after it"));
        }
        // Without power nothing more becomes durable, and a handler that is attached anew gets it again.
        if (track.acked || track.dead || track.discarded) && (track.durable || self.storage.is_on()) {
            return Some(format!("handles {number} again: {track:?}"));
        }
        if !(track.durable_attempts + 1..=track.attempts + 1).contains(&attempt) {
            return Some(format!("handles {number} as attempt {attempt}: {track:?}"));
        }
        if envelope.due().is_some_and(|due| due > now) {
            return Some(format!("handles {number} before its time"));
        }
        if envelope.expires().is_some_and(|expires| expires <= now) {
            return Some(format!("handles {number} although it is expired"));
        }
        if !track.edit_in_doubt && track.edited != envelope.extension("edited").is_some() {
            return Some(format!("handles {number} as another edited it: {track:?}"));
        }
        let before = self.tracks.get(&(subscription.wrapping_sub(1), number));
        let passed = after && self.is_passed(subscription - 1, number);
        if after && !passed && !before.is_some_and(|before| before.acked || before.discarded) {
            // It may have expired for the one before: there, not here.
            let settled = self.settled(subscription - 1, number);
            return (self.storage.is_on() && settled != Some(Settled::Expired))
                .then(|| format!("handles {number} before s{}", subscription - 1));
        }
        None
    }

    /// What is wrong with handling this event now, for others of its key.
    fn wrong_order(&self, subscription: usize, number: Number, batch: &[Number]) -> Option<String> {
        let known = &self.events[&number];
        known.key.as_ref()?;
        let strict = self.is_strict(subscription);
        let own = self.tracks.get(&(subscription, number)).cloned().unwrap_or_default();
        // Which of two comes first that are both under way, one of them late, is not kept when all is read anew.
        let is_late = |(other, event): (&Number, &Known)| {
            let track = self.tracks.get(&(subscription, *other));
            event.key == known.key && (event.delayed || track.is_some_and(|track| track.exempt))
        };
        let lenient = self.served[subscription].attachments > 1 && self.events.iter().any(is_late);
        let of_key = self.events.iter().filter(|(other, event)| {
            let takes = self.takes(subscription, **other) && !self.is_passed(subscription, **other);
            event.key == known.key && !batch.contains(other) && takes
        });
        for (other, event) in of_key {
            let track = self.tracks.get(&(subscription, *other)).cloned().unwrap_or_default();
            if track.running && self.is_certain() {
                return Some(format!("handles {number} beside {other}, of one key"));
            }
            let expired = event.expires.is_some_and(|expires| expires <= self.clock.now());
            if strict && track.open && !lenient && !expired {
                return Some(format!("handles {number} while {other} is not settled, of one key: {track:?}"));
            }
            let is_earlier = event.position.is_some_and(|position| Some(position) < known.position);
            // Once the power is off, nobody can tell any more what is settled.
            if strict
                && is_earlier
                && !own.passed_others
                && !event.delayed
                && !track.exempt
                && !expired
                && self.storage.is_on()
            {
                match self.settled(subscription, *other) {
                    None => return Some(format!("handles {number} before {other}, of one key: {track:?}")),
                    Some(Settled::DeadLettered { .. }) if track.holds => {
                        return Some(format!("handles {number} although {other} holds their key"));
                    }
                    Some(_) => {}
                }
            }
        }
        let at = batch.iter().position(|other| *other == number).unwrap_or(0);
        let earlier = |other: &Number| {
            let event = &self.events[other];
            event.key == known.key && event.position > known.position && !event.delayed
        };
        (strict && !known.delayed && !own.exempt && !own.passed_others && batch[..at].iter().any(earlier))
            .then(|| format!("has {batch:?} in a wrong order"))
    }

    /// Whether something waits that ought to come before.
    fn wrong_rank(&self, subscription: usize, number: Number) -> Option<String> {
        let rank = |event: &Known| {
            let offset = event.position.map(Position::offset);
            match self.served[subscription].orders.order {
                Order::Lifo => (0, offset.map(|offset| !offset)),
                _ => (9 - event.priority, offset),
            }
        };
        let own = rank(&self.events[&number]);
        let waits = |(other, event): &(&Number, &Known)| {
            event.key.is_none()
                && !event.delayed
                && event.expires.is_none()
                && event.position.is_some()
                && event.epoch < self.epoch
                && !is_echo(**other)
                && !self.is_passed(subscription, **other)
                && rank(event) < own
                && !self.tracks.contains_key(&(subscription, **other))
                && self.settled(subscription, **other).is_none()
        };
        let first = self.events.iter().find(waits)?;
        Some(format!("handles {number} although {} waits and is before it", first.0))
    }
}
