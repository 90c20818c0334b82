//! One event on its way through the handlers of a subscription.

use tokio::sync::oneshot;

use super::member::Member;
use crate::{
    clock::{Clock, Timestamp},
    event::{MAX_HOPS, is_topic_name},
    handler::{Effects, Emitted, Outcome},
    policy::{Decision, ErrorClass, Failure},
    transport::{Action, Attempt, Delivered, Members, OnDeadLetter, Settlement, Written},
};

/// Its place among the dispatcher's runs; taken again once the run has left.
pub(crate) type RunId = usize;

/// Most bytes that one event's handling may write (emitted events and state): they must fit one frame of the log.
pub(crate) const MAX_EFFECT_BYTES: usize = 12 * 1024 * 1024;

/// One event in flight.
pub(crate) struct Run {
    pub(crate) delivered: Delivered,
    /// That of its lane, as long as it holds one.
    pub(crate) key: Option<u64>,
    /// When it was taken from the transport.
    arrived: Timestamp,
    /// Members that are due and not started.
    left: Members,
    running: Members,
    done: Members,
    /// Members that gave up on the event, or skip it because one before them did.
    dead: Members,
    /// Those of them whose dead letter holds its key.
    held: Members,
    /// A member will handle it later, or a dead letter holds its key: with strict order the key waits.
    pub(crate) waits: bool,
    /// Nothing is left to start.
    pub(crate) ended: bool,
    /// It went back to the transport unhandled, and holds no lane.
    pub(crate) given_back: bool,
    /// Settlements that are not durable yet.
    pub(crate) settling: usize,
    /// Who is told what follows from an outcome once it is durable.
    told: Vec<(oneshot::Sender<Action>, Action)>,
}

/// What a run needs next.
pub(crate) enum Step {
    /// Call this member's handler.
    Start(usize),
    /// Settle a member without calling it.
    Settle(Settlement),
    /// A handler is running.
    Wait,
    /// All of it is settled or on its way.
    End,
}

impl Run {
    pub(crate) fn new(delivered: Delivered, members: &[Member], now: Timestamp) -> Self {
        let known = delivered.due.union(delivered.done).union(delivered.dead);
        // A member that is not due now will be, or a dead letter holds the key: either way the event is not over.
        let waits = !known.contains_all(Members::first(members.len())) || !delivered.held.is_empty();
        Self {
            key: delivered.envelope.key_hash(),
            arrived: now,
            left: delivered.due,
            running: Members::NONE,
            done: delivered.done,
            dead: delivered.dead,
            held: delivered.held,
            waits,
            ended: false,
            given_back: false,
            settling: 0,
            told: Vec::new(),
            delivered,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let copies = self.delivered.copies.iter().map(|(_, copy)| copy.encoded_bytes());
        self.delivered.envelope.encoded_bytes() + copies.sum::<usize>()
    }

    pub(crate) fn next_step(&mut self, members: &[Member]) -> Step {
        for member in self.left.iter() {
            let after = members[member].after;
            if self.done.contains_all(after) {
                self.left.remove(member);
                self.running.insert(member);
                return Step::Start(member);
            }
            if self.dead.intersects(after) {
                self.left.remove(member);
                return Step::Settle(if self.held.intersects(after) {
                    self.unhandled(member, Action::Release)
                } else {
                    self.dead.insert(member);
                    self.unhandled(member, Action::Skip)
                });
            }
        }
        if !self.running.is_empty() {
            return Step::Wait;
        }
        // What is left waits for a member that will try again: it comes back with it.
        let Some(member) = self.left.iter().next() else { return Step::End };
        self.left.remove(member);
        self.waits = true;
        Step::Settle(self.unhandled(member, Action::Release))
    }

    /// A member that is due is called already.
    pub(crate) fn begin(&mut self, member: usize) {
        self.left.remove(member);
        self.running.insert(member);
    }

    /// Whether the event is too old to be handled by a member.
    pub(crate) fn is_expired(&self, member: usize, clock: &Clock) -> bool {
        self.delivered.envelope_of(member).expires().is_some_and(|expires| expires <= clock.now())
    }

    /// Ends the run for a member whose turn came too late.
    pub(crate) fn expire(&mut self, member: usize) -> Settlement {
        self.running.remove(member);
        self.done.insert(member);
        self.unhandled(member, Action::Expire)
    }

    /// Gives back a member that has run, whatever it returned: an event of its key before this one is to be tried again.
    pub(crate) fn repeat(&mut self, member: usize) -> Settlement {
        self.running.remove(member);
        self.unhandled(member, Action::Release)
    }

    /// Gives back every member, none having started.
    pub(crate) fn release(&mut self) -> Vec<Settlement> {
        let left = std::mem::take(&mut self.left);
        left.iter().map(|member| self.unhandled(member, Action::Release)).collect()
    }

    fn unhandled(&self, member: usize, action: Action) -> Settlement {
        Settlement {
            position: self.delivered.position,
            member: u8::try_from(member).unwrap_or(u8::MAX),
            action,
            attempt: Attempt { number: 0, class: None, read: self.arrived, ended: self.arrived },
            error: None,
            written: None,
        }
    }

    /// What an outcome leads to.
    pub(crate) fn settle(
        &mut self,
        member: &Member,
        index: usize,
        (outcome, mut effects): (Outcome, Option<Box<Effects>>),
        times: (Timestamp, Timestamp),
    ) -> Settlement {
        let told = effects.as_mut().and_then(|effects| effects.told.take());
        let settlement = self.conclude(member, index, (outcome, effects), times);
        self.told.extend(told.map(|told| (told, settlement.action)));
        settlement
    }

    /// Tells those who wait that all that was settled so far is durable.
    pub(crate) fn tell(&mut self) {
        if self.settling == 0 {
            for (told, action) in self.told.drain(..) {
                // A client that does not wait for it.
                let _ = told.send(action);
            }
        }
    }

    fn conclude(
        &mut self,
        member: &Member,
        index: usize,
        (outcome, effects): (Outcome, Option<Box<Effects>>),
        (read, now): (Timestamp, Timestamp),
    ) -> Settlement {
        self.running.remove(index);
        let number = self.delivered.attempts_of(index) + 1;
        let mut settlement = self.unhandled(index, Action::Ack);
        settlement.attempt = Attempt { number, class: None, read, ended: now };
        let failed = match outcome {
            Outcome::Ack => match self.accept((member, index), effects, &mut settlement) {
                Ok(()) => {
                    self.done.insert(index);
                    return settlement;
                }
                Err(error) => (ErrorClass::Permanent, error, true),
            },
            Outcome::Fail { class, error } => (class, error, false),
            Outcome::Reject { class, error } => (class, error, true),
            Outcome::Defer(delay) => {
                settlement.attempt.number = number - 1;
                settlement.action = Action::Retry(now.after(delay));
                self.waits = true;
                return settlement;
            }
        };
        let (class, error, for_good) = failed;
        let decision =
            if for_good { Decision::DeadLetter } else { self.decide((member, index), number, (class, &error), now) };
        settlement.action = match decision {
            Decision::Retry(delay) => Action::Retry(now.after(delay)),
            Decision::DeadLetter => Action::DeadLetter,
        };
        self.log_failure(member, number, class, &error, settlement.action);
        settlement.attempt.class = Some(class);
        settlement.error = Some(error.into());
        match settlement.action {
            Action::DeadLetter => {
                self.dead.insert(index);
                if member.on_dead_letter == OnDeadLetter::Hold {
                    self.held.insert(index);
                    // A held key waits as behind a retry.
                    self.waits = true;
                }
            }
            _ => self.waits = true,
        }
        settlement
    }

    fn decide(
        &self,
        (member, index): (&Member, usize),
        attempt: u32,
        (class, error): (ErrorClass, &str),
        now: Timestamp,
    ) -> Decision {
        let age = now.since(self.delivered.envelope.published());
        let failing_for = self.delivered.failing_for(index, now);
        member.policy.decide(&Failure { attempt, class, error, age, failing_for, random: fastrand::f64() })
    }

    fn log_failure(&self, member: &Member, attempt: u32, class: ErrorClass, error: &str, action: Action) {
        let (handler, id) = (&*member.id, self.delivered.envelope.id());
        match action {
            Action::DeadLetter => tracing::warn!(handler, event = id, attempt, %class, error, "dead letter"),
            _ => tracing::debug!(handler, event = id, attempt, %class, error, "will be tried again"),
        }
    }

    /// Takes over what an acking handler leaves behind, if it keeps the rules.
    fn accept(
        &self,
        (member, index): (&Member, usize),
        effects: Option<Box<Effects>>,
        settlement: &mut Settlement,
    ) -> Result<(), String> {
        let Some(effects) = effects else { return Ok(()) };
        if let Some(error) = effects.error {
            return Err(error);
        }
        let parent = self.delivered.envelope_of(index);
        if !effects.emits.is_empty() && parent.hops() >= MAX_HOPS {
            return Err(format!(
                "an event after {} emissions in a row may emit nothing more (MAX_HOPS): the handlers form a loop",
                parent.hops()
            ));
        }
        if let Some(wrong) = effects.emits.iter().find(|emitted| !is_topic_name(&emitted.topic)) {
            return Err(format!(
                "`{}` goes to topic `{}`, which is no name: 1 to 200 letters, digits, `.`, `_` or `-`",
                wrong.envelope.event_type(),
                wrong.topic
            ));
        }
        let emitted = |(index, emitted): (usize, Emitted)| {
            (emitted.topic.into_owned(), emitted.envelope.emitted_by(parent, &member.id, index))
        };
        let emits = effects.emits.into_iter().enumerate().map(emitted).collect();
        let written = Written { emits, state: effects.state, routed: None };
        let bytes = written.bytes();
        if bytes > MAX_EFFECT_BYTES {
            return Err(format!("{bytes} bytes emitted and kept from one event: the limit is {MAX_EFFECT_BYTES}"));
        }
        settlement.written = Some(Box::new(written));
        Ok(())
    }
}
