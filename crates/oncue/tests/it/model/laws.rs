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
    handler::{Invocation, OnDeadLetter, Order},
    transport::{EventRef, LogTransport, Position, Settled, Transport as _},
};

use oncue_log::storage::FaultyStorage;

use super::program::{Act, End, New, Program, Resolve};

/// Names an event; an emitted one by the event and the subscription that it came of.
pub(super) type Number = u32;

/// What tells a life of the log from the one after a restart or a crash.
pub(super) type Life = u32;

/// The number of what a subscription emits for an event.
pub(super) fn echo(number: Number, subscription: usize) -> Number {
    1_000 * (number + 1) + u32::try_from(subscription).unwrap()
}

pub(super) fn is_echo(number: Number) -> bool {
    number >= 1_000
}

pub(super) fn id_of(subscription: usize) -> String {
    format!("s{subscription}")
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
    /// In which operation it came.
    operation: usize,
    acts: Vec<Vec<Act>>,
}

/// How a subscription stands with an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    calls: usize,
    /// Attempts that failed, and how many of those are known to be durable.
    attempts: u32,
    durable_attempts: u32,
    /// A crash came before it was known which of them are durable.
    doubtful: bool,
    running: bool,
    /// It was started and is not settled: nothing else of its key may start.
    open: bool,
    pub(super) acked: bool,
    /// The ack came with an emitted event.
    emitted: bool,
    pub(super) dead: bool,
    /// What was said of `acked` and `dead` is durable.
    durable: bool,
    pub(super) discarded: bool,
    /// It was given up once, so what comes after may have been skipped.
    pub(super) was_dead: bool,
    /// It was redriven and need not come first in its key.
    exempt: bool,
    /// It was edited, which nobody else sees; or the power went meanwhile.
    edited: bool,
    edit_in_doubt: bool,
}

/// How a subscription is served now.
pub(super) struct Served {
    pub(super) paused: bool,
    pub(super) attached: bool,
    pub(super) concurrency: usize,
    /// How often it was attached.
    attachments: u32,
    running: usize,
    /// What it acked, by key, in order.
    pub(super) kept: BTreeMap<String, Vec<Number>>,
}

pub(super) struct Model {
    pub(super) program: Program,
    clock: Clock,
    pub(super) life: Life,
    pub(super) operation: usize,
    pub(super) transport: Option<Arc<LogTransport>>,
    pub(super) storage: FaultyStorage,
    pub(super) served: Vec<Served>,
    pub(super) events: BTreeMap<Number, Known>,
    pub(super) tracks: BTreeMap<(usize, Number), Track>,
    violations: Vec<String>,
    trace: String,
}

impl Model {
    pub(super) fn new(program: Program, clock: Clock, storage: FaultyStorage) -> Self {
        let serve = |subscription: &super::program::Subscription| Served {
            paused: false,
            attached: true,
            concurrency: subscription.concurrency * program.instances(),
            attachments: 0,
            running: 0,
            kept: BTreeMap::new(),
        };
        let served = program.subscriptions.iter().map(serve).collect();
        Self {
            program,
            clock,
            life: 0,
            operation: 0,
            transport: None,
            storage,
            served,
            events: BTreeMap::new(),
            tracks: BTreeMap::new(),
            violations: Vec::new(),
            trace: String::new(),
        }
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

    /// A subscription, with those that it is joined with, is about to be attached anew.
    pub(super) fn attach(&mut self, subscription: usize) {
        for joined in self.program.joined(subscription) {
            self.served[joined].attachments += 1;
        }
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
            operation: self.operation,
            acts: new.acts.clone(),
        };
        self.events.insert(number, known);
    }

    /// An event is seen, for the first time perhaps.
    pub(super) fn see(&mut self, number: Number, position: Position, envelope: &Envelope) {
        let operation = self.operation;
        let known = self.events.entry(number).or_insert_with(|| Known {
            key: envelope.key().map(str::to_owned),
            delayed: false,
            expires: None,
            priority: envelope.priority(),
            position: None,
            certain: true,
            operation,
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
        let position = self.events.get(&number)?.position?;
        let event_type = if is_echo(number) { "echo" } else { "step" };
        let envelope = Envelope::builder(event_type).build().unwrap();
        let event = EventRef { topic: "events".into(), position, envelope };
        self.transport.as_ref()?.outcome(&event, &id_of(subscription)).now_or_never()?.ok()
    }

    /// A handler is called, with one event or with a batch.
    pub(super) fn start(&mut self, subscription: usize, batch: &[(Number, Invocation)]) -> Vec<Act> {
        let numbers: Vec<Number> = batch.iter().map(|(number, _)| *number).collect();
        self.note(&format!("s{subscription} starts {numbers:?}"));
        let (served, limit) = (&self.served[subscription], self.program.subscriptions[subscription].batch.unwrap_or(1));
        let mut broken = Vec::new();
        if served.paused || !served.attached {
            broken.push("is called although nobody serves it".to_owned());
        }
        // Two apps on a log that fails: what the one was doing is given up, and may not have noticed yet.
        let certain = self.storage.is_on() || !self.program.twin;
        if served.running >= served.concurrency && certain {
            broken.push(format!("runs more than {} calls", served.concurrency));
        }
        if batch.len() > limit {
            broken.push(format!("has a batch of {}", batch.len()));
        }
        self.served[subscription].running += 1;
        for (number, invocation) in batch {
            self.see(*number, invocation.position(), invocation.envelope());
            broken.extend(self.wrong_event(subscription, *number, invocation));
            broken.extend(self.wrong_order(subscription, *number, &numbers));
        }
        if self.program.subscriptions[subscription].order != Order::Fifo && limit == 1 && !self.program.twin {
            broken.extend(self.wrong_rank(subscription, numbers[0]));
        }
        for what in broken {
            self.broken(&format!("s{subscription} {what}"));
        }
        let mut acts = Vec::new();
        for (number, invocation) in batch {
            let track = self.tracks.entry((subscription, *number)).or_default();
            (track.running, track.open) = (true, true);
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
        if track.running && (self.storage.is_on() || !self.program.twin) {
            return Some(format!("is called twice at once with {number}"));
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
        if after && !before.is_some_and(|before| before.acked || before.discarded) {
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
        let strict = self.program.is_strict(subscription);
        // Which of two comes first that are both under way, one of them late, is not kept when all is read anew.
        let is_late = |(other, event): (&Number, &Known)| {
            let track = self.tracks.get(&(subscription, *other));
            event.key == known.key && (event.delayed || track.is_some_and(|track| track.exempt))
        };
        let lenient = self.served[subscription].attachments > 1 && self.events.iter().any(is_late);
        let of_key = self.events.iter().filter(|(other, event)| {
            event.key == known.key && !batch.contains(other) && self.takes(subscription, **other)
        });
        for (other, event) in of_key {
            let track = self.tracks.get(&(subscription, *other)).cloned().unwrap_or_default();
            if track.running && (self.storage.is_on() || !self.program.twin) {
                return Some(format!("handles {number} beside {other}, of one key"));
            }
            let expired = event.expires.is_some_and(|expires| expires <= self.clock.now());
            if strict && track.open && !lenient && !expired {
                return Some(format!("handles {number} while {other} is not settled, of one key: {track:?}"));
            }
            let is_earlier = event.position.is_some_and(|position| Some(position) < known.position);
            // Once the power is off, nobody can tell any more what is settled.
            if strict && is_earlier && !event.delayed && !track.exempt && !expired && self.storage.is_on() {
                let hold = self.program.subscriptions[subscription].on_dead_letter == OnDeadLetter::Hold;
                match self.settled(subscription, *other) {
                    None => return Some(format!("handles {number} before {other}, of one key: {track:?}")),
                    Some(Settled::DeadLettered { .. }) if hold => {
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
        let own_exempt = self.tracks.get(&(subscription, number)).is_some_and(|track| track.exempt);
        (strict && !known.delayed && !own_exempt && batch[..at].iter().any(earlier))
            .then(|| format!("has {batch:?} in a wrong order"))
    }

    /// Whether something waits that ought to come before.
    fn wrong_rank(&self, subscription: usize, number: Number) -> Option<String> {
        let rank = |event: &Known| {
            let offset = event.position.map(Position::offset);
            match self.program.subscriptions[subscription].order {
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
                && event.operation < self.operation
                && !is_echo(**other)
                && rank(event) < own
                && !self.tracks.contains_key(&(subscription, **other))
                && self.settled(subscription, **other).is_none()
        };
        let first = self.events.iter().find(waits)?;
        Some(format!("handles {number} although {} waits and is before it", first.0))
    }

    /// A call ended: what it came to, event by event. The subscription will not be told what was made of an event behind
    /// one of its key in the same batch that failed.
    pub(super) fn end(&mut self, subscription: usize, ended: &[(Number, End)]) {
        self.note(&format!("s{subscription} ends {ended:?}"));
        let served = &mut self.served[subscription];
        served.running = served.running.saturating_sub(1);
        let (strict, config) = (self.program.is_strict(subscription), self.program.subscriptions[subscription].clone());
        let mut failed = BTreeSet::new();
        for (number, end) in ended {
            let key = self.events[number].key.clone();
            let track = self.tracks.entry((subscription, *number)).or_default();
            track.running = false;
            if strict && key.as_ref().is_some_and(|key| failed.contains(key)) {
                track.open = false;
                continue;
            }
            track.durable = false;
            let dies = match end {
                End::Ack | End::Emit => {
                    (track.acked, track.open) = (true, false);
                    track.emitted = *end == End::Emit && !is_echo(*number);
                    if let Some(key) = key.filter(|_| config.batch.is_none()) {
                        self.served[subscription].kept.entry(key).or_default().push(*number);
                    }
                    continue;
                }
                End::Defer(_) => false,
                End::Reject => true,
                End::Fail | End::Panic => {
                    track.attempts += 1;
                    track.attempts >= config.max_attempts
                }
            };
            if dies {
                (track.dead, track.was_dead) = (true, true);
                track.open = config.on_dead_letter == OnDeadLetter::Hold;
            }
            if track.open {
                failed.extend(key);
            }
        }
    }

    /// A call ended without an outcome, in an app that is still there.
    pub(super) fn cancelled(&mut self, subscription: usize, numbers: &[Number]) {
        let what = format!("s{subscription} is cancelled with {numbers:?}");
        if self.storage.is_on() {
            self.broken(&what);
        }
        self.note(&what);
        self.served[subscription].running -= 1;
        for number in numbers {
            let track = self.tracks.entry((subscription, *number)).or_default();
            (track.running, track.open) = (false, false);
        }
    }
}

/// What is looked at when nothing moves, and after a crash.
impl Model {
    /// Everything that ended is durable, and as it ended.
    pub(super) fn at_rest(&mut self) {
        let mut broken = Vec::new();
        let settled: Vec<_> = self.tracks.keys().map(|key| (*key, self.settled(key.0, key.1))).collect();
        for ((subscription, number), settled) in settled {
            let Some(track) = self.tracks.get_mut(&(subscription, number)) else { continue };
            track.durable = true;
            if !track.doubtful {
                track.durable_attempts = track.attempts;
            }
            let is_as_known = match &settled {
                Some(Settled::Acked) => track.acked || track.discarded,
                Some(Settled::DeadLettered { .. }) => track.dead,
                Some(Settled::Expired) => !track.acked && !track.dead,
                Some(Settled::Skipped) => !track.acked && !track.dead,
                None => !track.acked && !track.dead && !track.discarded,
            };
            if !is_as_known {
                broken.push(format!("s{subscription} and {number}: {settled:?}, and {track:?}"));
            }
            if settled == Some(Settled::Expired) {
                track.open = false;
            }
        }
        for what in broken {
            self.broken(&what);
        }
    }

    /// Everything starts anew: what was durable must be there, and of the rest what is there counts. `in_doubt`: a dead
    /// letter that may have been resolved.
    pub(super) fn after_crash(&mut self, in_doubt: Option<(usize, Number)>) {
        let mut broken = Vec::new();
        let settled: Vec<_> = self.tracks.keys().map(|key| (*key, self.settled(key.0, key.1))).collect();
        for (key, settled) in settled {
            let hold = self.program.subscriptions[key.0].on_dead_letter == OnDeadLetter::Hold;
            let Some(track) = self.tracks.get_mut(&key) else { continue };
            let before = track.clone();
            let doubtful = in_doubt == Some(key);
            if doubtful && track.dead {
                (track.attempts, track.durable_attempts) = (0, 0);
                (track.exempt, track.open) = (!hold, false);
            }
            track.edit_in_doubt |= doubtful;
            track.running = false;
            track.doubtful |= !before.durable;
            track.acked = settled == Some(Settled::Acked) && (track.acked || !track.discarded && !doubtful);
            track.discarded = settled == Some(Settled::Acked) && !track.acked;
            track.dead = matches!(settled, Some(Settled::DeadLettered { .. }));
            track.was_dead |= track.dead;
            // A failure that is durable keeps its key, others are forgotten.
            let fails = track.open && before.durable && (!before.running || before.durable_attempts > 0);
            track.open = if track.dead { hold } else { fails && settled.is_none() };
            let kept = before.acked == track.acked && before.dead == track.dead && before.discarded == track.discarded;
            if before.durable && !kept && !doubtful {
                broken.push(format!("{key:?} was {before:?} and is {settled:?}"));
            }
        }
        for what in broken {
            self.broken(&what);
        }
        for (subscription, served) in self.served.iter_mut().enumerate() {
            served.running = 0;
            for kept in served.kept.values_mut() {
                kept.retain(|number| self.tracks[&(subscription, *number)].acked);
            }
        }
    }

    /// Subscriptions with the events that they have acked and emitted something for.
    pub(super) fn emitting(&self) -> Vec<(usize, Number)> {
        let emits = |((subscription, number), track): (&(usize, Number), &Track)| {
            (track.acked && track.emitted).then_some((*subscription, *number))
        };
        self.tracks.iter().filter_map(emits).collect()
    }

    /// A dead letter was resolved.
    pub(super) fn resolved(&mut self, subscription: usize, number: Number, resolve: Resolve) {
        let hold = self.program.subscriptions[subscription].on_dead_letter == OnDeadLetter::Hold;
        let track = self.tracks.entry((subscription, number)).or_default();
        track.dead = false;
        track.discarded = resolve == Resolve::Discard;
        track.edited |= resolve == Resolve::Edit;
        track.open = false;
        track.exempt = !hold;
        (track.attempts, track.durable_attempts) = (0, 0);
    }
}
