//! What the model learns: how calls end, and what is done to subscriptions.

use std::collections::BTreeSet;

use oncue::{
    handler::OnDeadLetter,
    transport::{ControlError, Settled, SubscriptionSpec},
};

use super::{
    filters::LeftOut,
    flaws::Flaw,
    known::{AppNumber, Made, Model, Number, Track, echo, is_echo, subscription_of},
    program::{End, Orders, Resolve},
};

/// How calls end.
impl Model {
    /// A call ended: what it came to, event by event. The subscription will not be told what was made of an event behind
    /// one of its key in the same batch that failed.
    pub(super) fn end(&mut self, app: AppNumber, subscription: usize, ended: &[(Number, End)]) {
        self.note(&format!("s{subscription} ends {ended:?}"));
        self.leaves(app, subscription);
        let (strict, config) = (self.is_strict(subscription), self.program.subscriptions[subscription].clone());
        let hold = self.served[subscription].orders.on_dead_letter == OnDeadLetter::Hold;
        let (generation, volatile) = (self.served[subscription].generation, self.flaw == Some(Flaw::Volatile));
        let mut failed = BTreeSet::new();
        for (number, end) in ended {
            let key = self.events[number].key.clone();
            let track = self.tracks.entry((subscription, *number)).or_default();
            track.running = false;
            if strict && key.as_ref().is_some_and(|key| failed.contains(key)) {
                track.open = false;
                continue;
            }
            track.durable = volatile;
            let dies = match end {
                End::Ack | End::Emit => {
                    (track.acked, track.open) = (true, false);
                    let emits = *end == End::Emit && !is_echo(*number);
                    track.emitted = emits.then(|| echo(*number, subscription, generation));
                    if let Some(key) = key.filter(|_| config.is_keyed()) {
                        self.served[subscription].kept.entry(key).or_default().push((*number, generation));
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
                (track.dead, track.holds, track.open) = (true, hold, hold);
                if !hold {
                    self.gave_up.insert((subscription, *number));
                }
            }
            if track.open {
                failed.extend(key);
            }
        }
    }

    /// A call is over.
    fn leaves(&mut self, app: AppNumber, subscription: usize) {
        if let Some(in_app) = self.served[subscription].apps.get_mut(&app) {
            in_app.running = in_app.running.saturating_sub(1);
        }
    }

    /// A call ended without an outcome, in an app that is still there.
    pub(super) fn cancelled(&mut self, app: AppNumber, subscription: usize, numbers: &[Number]) {
        let what = format!("s{subscription} is cancelled with {numbers:?}");
        if self.storage.is_on() {
            self.broken(&what);
        }
        self.note(&what);
        self.leaves(app, subscription);
        for number in numbers {
            let track = self.tracks.entry((subscription, *number)).or_default();
            (track.running, track.open) = (false, false);
        }
    }

    /// An app is there no more. What it was doing is given up; of what it had done, that counts which the log has.
    pub(super) fn gone(&mut self, app: AppNumber) {
        self.apps.remove(&app);
        for served in &mut self.served {
            served.apps.remove(&app);
        }
        let of_app = |(key, track): (&(usize, Number), &Track)| {
            (track.by == app && (track.running || !track.durable)).then_some(*key)
        };
        let keys: Vec<_> = self.tracks.iter().filter_map(of_app).collect();
        let settled: Vec<_> = keys.into_iter().map(|key| (key, self.settled(key.0, key.1))).collect();
        // Without power nobody can tell what is settled: it is seen when the log is opened again.
        let is_on = self.storage.is_on();
        for (key, settled) in settled {
            let Some(track) = self.tracks.get_mut(&key) else { continue };
            if is_on && track.acked && settled != Some(Settled::Acked) {
                (track.acked, track.emitted) = (false, None);
                let served = &mut self.served[key.0];
                for kept in served.kept.values_mut() {
                    kept.retain(|kept| *kept != (key.1, served.generation));
                }
            }
            track.dead &= !is_on || matches!(settled, Some(Settled::DeadLettered { .. }));
            (track.running, track.doubtful) = (false, true);
            track.open &= track.dead;
        }
    }
}

/// What is done to subscriptions.
impl Model {
    /// An app is told to stop serving a subscription. Of those that are joined the ones behind still have their turn.
    pub(super) fn stops(&mut self, app: AppNumber, which: usize) {
        let now = self.now();
        if let Some(in_app) = self.served[which].apps.get_mut(&app).filter(|_| self.program.joined(which).len() == 1) {
            in_app.stops_since = Some(now);
        }
    }

    /// Members are about to be served together; `first` is the topic's first event.
    pub(super) fn subscribes(&mut self, spec: &SubscriptionSpec, first: u64) {
        for member in &spec.members {
            let (which, on_dead_letter) = (subscription_of(&member.id), member.on_dead_letter);
            let orders = Orders { order: spec.order, ordered: spec.ordered, on_dead_letter };
            if self.served[which].orders.ordered != orders.ordered {
                // Several of a key may be under way where order was relaxed; the first of them goes first now.
                self.of(which).for_each(|track| track.open = false);
            }
            let served = &mut self.served[which];
            served.apps.values_mut().for_each(|in_app| in_app.stops_since = None);
            served.orders = orders;
            served.left_out = LeftOut::of(member.filter.as_ref());
            served.attachments += u32::from(served.instances == 0);
            served.first = first;
            served.is_new = served.made == Made::No;
            if served.is_new {
                (served.made, served.from) = (Made::Perhaps, first);
            }
            self.pass_by(which);
        }
    }

    /// They are served. `created`: which of them are new.
    pub(super) fn subscribed(&mut self, members: &[usize], created: &[Option<u64>]) {
        for (which, created) in members.iter().zip(created) {
            if created.is_some() {
                if self.served[*which].made == Made::Yes {
                    if self.anew != Some((*which, None)) {
                        self.broken(&format!("s{which} was forgotten"));
                    }
                    self.forget(*which, None);
                }
                self.served[*which].from = self.served[*which].first;
            }
            if created.is_none() && self.served[*which].is_new {
                self.broken(&format!("s{which} was not forgotten"));
            }
            self.served[*which].made = Made::Yes;
            self.served[*which].instances += 1;
        }
    }

    /// An instance of them is gone.
    pub(super) fn detached(&mut self, members: &[usize]) {
        for which in members {
            self.served[*which].instances = self.served[*which].instances.saturating_sub(1);
        }
    }

    /// A subscription that nobody serves is about to begin anew from an offset on, or to be forgotten.
    pub(super) fn begins_anew(&mut self, which: usize, from: Option<u64>) {
        self.anew = self.storage.is_on().then_some((which, from));
    }

    /// What came of that.
    pub(super) fn began_anew(&mut self, done: &Result<(), ControlError>) {
        let Some((which, from)) = self.anew else { return };
        match done {
            Ok(()) => {
                if self.served[which].instances > 0 {
                    self.broken(&format!("s{which} begins anew while it is served"));
                }
                self.forget(which, from);
            }
            Err(ControlError::Served(_) | ControlError::UnknownSubscription(_)) => self.anew = None,
            // It is seen when the log is opened again. Nobody served it: all that ended is durable.
            Err(_) => self.of(which).for_each(|track| track.durable = true),
        }
    }

    pub(super) fn of(&mut self, which: usize) -> impl Iterator<Item = &mut Track> {
        self.tracks.range_mut((which, 0)..(which + 1, 0)).map(|(_, track)| track)
    }

    /// A subscription knows nothing of what it did; without `from`, there is none any more.
    pub(super) fn forget(&mut self, which: usize, from: Option<u64>) {
        self.note(&format!("s{which} begins anew at {from:?}"));
        self.anew = None;
        let emitted: Vec<Number> =
            self.of(which).filter(|track| track.acked).filter_map(|track| track.emitted).collect();
        self.emitted.extend(emitted);
        self.tracks.retain(|(subscription, _), _| *subscription != which);
        self.passed_by.retain(|(subscription, _)| *subscription != which);
        let served = &mut self.served[which];
        served.generation += 1;
        match from {
            Some(from) => served.from = from,
            None => {
                served.made = Made::No;
                served.kept.clear();
            }
        }
    }

    /// A dead letter was resolved.
    pub(super) fn resolved(&mut self, subscription: usize, number: Number, resolve: Resolve) {
        let track = self.tracks.entry((subscription, number)).or_default();
        track.dead = false;
        track.discarded = resolve == Resolve::Discard;
        track.redriven = resolve != Resolve::Discard;
        track.edited |= resolve == Resolve::Edit;
        track.open = false;
        track.exempt |= !track.holds;
        (track.attempts, track.durable_attempts) = (0, 0);
    }
}
