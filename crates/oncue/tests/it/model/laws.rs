//! What must hold at every call of a handler; what must hold when nothing moves is in `rests.rs`.

use oncue::{
    handler::{Invocation, Order},
    transport::{Position, Settled},
};

use super::{
    known::{AppNumber, Known, Model, Number, is_echo},
    program::Act,
};

impl Model {
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
        if !self.takes(subscription, number) && !track.redriven {
            return Some(format!("handles {number}, which it does not want"));
        }
        // Without power nothing more becomes durable, and a handler that is attached anew gets it again.
        if (track.acked || track.dead || track.discarded) && (track.durable || self.storage.is_on()) {
            return Some(format!("handles {number} again: {track:?}"));
        }
        if !(track.durable_attempts + 1..=track.attempts + 1).contains(&attempt) {
            return Some(format!("handles {number} as attempt {attempt}: {track:?}"));
        }
        let known = &self.events[&number];
        if known.due.is_some_and(|due| due > now) {
            return Some(format!("handles {number} before its time"));
        }
        if known.expires.is_some_and(|expires| expires <= now) {
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
            let through = settled == Some(Settled::Expired) || self.is_passed_by(subscription - 1, number);
            return (self.storage.is_on() && !through)
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
            event.key == known.key && (event.due.is_some() || track.is_some_and(|track| track.exempt))
        };
        let lenient = self.served[subscription].attachments > 1 && self.events.iter().any(is_late);
        // A crash forgets what was passed by: wanted by now, it takes its place before those that were tried meanwhile.
        let comes_back = self.passed_by.contains(&(subscription, number));
        let is_earlier_than = |event: &Known| known.position < event.position;
        let of_key = self.events.iter().filter(|(other, event)| {
            let has_turn = self.has_turn(subscription, **other) && !self.is_passed(subscription, **other);
            event.key == known.key && !batch.contains(other) && has_turn
        });
        for (other, event) in of_key {
            let track = self.tracks.get(&(subscription, *other)).cloned().unwrap_or_default();
            if track.running && self.is_certain() {
                return Some(format!("handles {number} beside {other}, of one key"));
            }
            let expired = event.expires.is_some_and(|expires| expires <= self.clock.now());
            if strict
                && track.open
                && !track.running
                && !lenient
                && !expired
                && !self.may_be_skipped(subscription, *other)
                && !self.is_passed_by(subscription, *other)
                && !(comes_back && is_earlier_than(event))
            {
                return Some(format!("handles {number} while {other} is not settled, of one key: {track:?}"));
            }
            let is_earlier = event.position.is_some_and(|position| Some(position) < known.position);
            if strict && is_earlier && event.due.is_none() && !track.exempt && !expired {
                // Once the power is off, nobody can tell any more what is settled: retention may lose it at this moment.
                let settled = self.settled(subscription, *other);
                match settled {
                    _ if !self.storage.is_on() => {}
                    None if self.is_through(subscription, *other) => {}
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
            event.key == known.key && event.position > known.position && event.due.is_none()
        };
        (strict && known.due.is_none() && !own.exempt && batch[..at].iter().any(earlier))
            .then(|| format!("has {batch:?} in a wrong order"))
    }

    /// Whether the next event of its key may start though this one is not settled: its handler is through with it, or is not
    /// called.
    fn is_through(&self, subscription: usize, number: Number) -> bool {
        let handled = self.tracks.get(&(subscription, number)).is_some_and(|track| {
            let given_up = track.dead && !track.holds;
            !track.running && !track.open && (track.acked || given_up)
        });
        self.program.is_pipelined(subscription) && (handled || self.may_be_skipped(subscription, number))
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
                && event.due.is_none()
                && event.expires.is_none()
                && event.position.is_some()
                && event.epoch < self.epoch
                && !is_echo(**other)
                && self.takes(subscription, **other)
                && !self.is_passed(subscription, **other)
                && rank(event) < own
                && !self.tracks.contains_key(&(subscription, **other))
                && self.settled(subscription, **other).is_none()
        };
        let first = self.events.iter().find(waits).filter(|_| self.storage.is_on())?;
        Some(format!("handles {number} although {} waits and is before it", first.0))
    }
}
