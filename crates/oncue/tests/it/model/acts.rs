//! What is done to the world, one operation at a time.

use std::{sync::atomic::Ordering, time::Duration};

use oncue::{
    Bus, DEFAULT_GRACE, Envelope, Error,
    config::HandlerConfig,
    transport::{ControlError, Start},
};

use super::{
    filters::LeftOut,
    flaws::Flaw,
    handler::number_of,
    known::{Made, Number, id_of, of_kind},
    program::{From, New, Operation, Orders, Resolve},
    world::{Running, World},
};

impl World {
    pub(super) async fn act(&mut self, operation: &Operation) -> oncue::Result<()> {
        let Some(app) = self.app.clone() else { return Ok(()) };
        let bus = &app.bus;
        let exists = |which: &usize| *which < self.program.subscriptions.len();
        let is_served = |which: &usize| exists(which) && has(bus, *which);
        self.announce(&app, operation);
        match operation {
            Operation::Publish(events) => self.publish(bus, events).await?,
            Operation::Advance(seconds) => self.time.advance(Duration::from_secs(*seconds)).await,
            Operation::Pause(which) | Operation::Unsubscribe(which) if self.flaw == Some(Flaw::Unpaused) => {
                return self.pretend_to_stop(&app, *which);
            }
            Operation::Pause(which) if is_served(which) => bus.pause(&id_of(*which)).await?,
            Operation::Resume(which) if is_served(which) => {
                let mut others = self.program.joined(*which).filter(|other| other != which);
                if !others.any(|other| is_paused(bus, other)) {
                    self.widen(&app, *which, 0);
                }
                bus.resume(&id_of(*which)).await?;
            }
            Operation::Concurrency(which, concurrency) if is_served(which) => {
                self.widen(&app, *which, *concurrency);
                let options = HandlerConfig { concurrency: Some(*concurrency), ..HandlerConfig::default() };
                bus.configure(&id_of(*which), options).await?;
            }
            Operation::Reorder(which, orders) if is_served(which) => {
                self.reorder(bus, *which, *orders).await?;
            }
            Operation::Filter(which, left_out) if is_served(which) => self.filter(bus, *which, *left_out).await?,
            Operation::Reset(which, from) if exists(which) => self.reset(bus, *which, *from).await?,
            Operation::Remove(which) if exists(which) && self.is_alone(*which) => self.remove(bus, *which).await?,
            Operation::Unsubscribe(which) if is_served(which) && self.is_alone(*which) => {
                bus.unsubscribe(&id_of(*which)).await?;
            }
            Operation::Subscribe(which) if exists(which) && !has(bus, *which) => {
                self.widen(&app, *which, usize::MAX);
                bus.subscribe(self.registration(*which, app.number)).await?;
            }
            Operation::Resolve(which, letter, resolve) if exists(which) => {
                self.resolve(bus, *which, *letter, *resolve).await?;
            }
            Operation::Idle => bus.idle().await?,
            Operation::Leave { first, dropped } => {
                drop(app);
                return self.leave(*first, *dropped).await;
            }
            Operation::Join => self.join(bus).await,
            Operation::Restart => {
                let twin = self.twin.take();
                let grace = if self.flaw == Some(Flaw::Abrupt) { Duration::ZERO } else { DEFAULT_GRACE };
                let twins =
                    async { if let Some(twin) = &twin { twin.bus.shutdown_within(grace).await } else { Ok(()) } };
                let (twins, own) = tokio::join!(twins, bus.shutdown_within(grace));
                twins.and(own)?;
                drop(app);
                self.gone().await;
                self.open().await;
                return Ok(());
            }
            Operation::PowerOffAt(nth) => self.storage.power_off_at(*nth),
            Operation::Crash => {
                drop(app);
                self.crash().await;
                return Ok(());
            }
            _ => {}
        }
        self.notice(&app);
        Ok(())
    }

    /// Tells the model what an app is about to stop.
    fn announce(&self, app: &Running, operation: &Operation) {
        let mut model = self.model.lock();
        match operation {
            Operation::Pause(which) | Operation::Unsubscribe(which) if has(&app.bus, *which) => {
                model.stops(app.number, *which);
            }
            Operation::Restart => {
                (0..self.program.subscriptions.len()).for_each(|which| model.stops(app.number, which));
            }
            Operation::Advance(_) if self.flaw == Some(Flaw::Unstopped) => model.stops(app.number, 0),
            _ => {}
        }
    }

    fn pretend_to_stop(&self, app: &Running, which: usize) -> oncue::Result<()> {
        if let Some(served) = self.model.lock().served.get_mut(which) {
            served.apps.entry(app.number).or_default().serves = false;
        }
        Ok(())
    }

    fn is_alone(&self, which: usize) -> bool {
        self.program.joined(which).len() == 1
    }

    /// From now on the app may call a handler, and those joined with it.
    fn widen(&self, app: &Running, which: usize, concurrency: usize) {
        let mut model = self.model.lock();
        for joined in self.program.joined(which) {
            let in_app = model.served[joined].apps.entry(app.number).or_default();
            in_app.serves |= has(&app.bus, joined) || joined == which;
        }
        let in_app = model.served[which].apps.entry(app.number).or_default();
        in_app.concurrency = in_app.concurrency.max(concurrency);
    }

    async fn publish(&mut self, bus: &Bus, events: &[New]) -> oncue::Result<()> {
        let mut envelopes = Vec::new();
        let first = self.next;
        for (number, new) in (first..).zip(events) {
            self.model.lock().publish(number, new);
            let mut new = new.clone();
            match self.flaw {
                Some(Flaw::Hasty) => new.delay = None,
                Some(Flaw::Everlasting) => new.time_to_live = None,
                _ => {}
            }
            envelopes.push(envelope(number, &new));
            self.next += 1;
        }
        // One alone goes another way.
        let receipts = match &envelopes[..] {
            [one] => vec![bus.publish(one.clone()).await?],
            _ => bus.publish_all("events", envelopes.clone(), None).await?,
        };
        let mut model = self.model.lock();
        for ((number, receipt), envelope) in (first..).zip(receipts).zip(&envelopes) {
            model.see(number, receipt.position(), envelope);
        }
        Ok(())
    }

    /// What two apps say of the order must be the same: it is not changed then.
    async fn reorder(&self, bus: &Bus, which: usize, orders: Orders) -> oncue::Result<()> {
        if self.twin.is_some() {
            return Ok(());
        }
        // What is joined reads in one order.
        let order = if self.is_alone(which) { orders.order } else { oncue::handler::Order::Fifo };
        let options = HandlerConfig {
            order: Some(order),
            ordered: Some(orders.ordered),
            on_dead_letter: Some(orders.on_dead_letter),
            ..HandlerConfig::default()
        };
        bus.configure(&id_of(which), options).await
    }

    /// What two apps say of the filter must be the same, too.
    async fn filter(&self, bus: &Bus, which: usize, left_out: LeftOut) -> oncue::Result<()> {
        if self.twin.is_some() {
            return Ok(());
        }
        let options = HandlerConfig { filter: Some(left_out.filter()), ..HandlerConfig::default() };
        bus.configure(&id_of(which), options).await
    }

    async fn reset(&self, bus: &Bus, which: usize, from: From) -> oncue::Result<()> {
        let (start, is_known, serves) = {
            let model = self.model.lock();
            let start = match from {
                From::Earliest => Start::Earliest,
                From::Latest => Start::Latest,
                From::Ago(seconds) => {
                    let now = self.clock().now().as_micros();
                    Start::Since(oncue::Timestamp::from_micros(now - 1_000_000 * i64::try_from(seconds).unwrap()))
                }
                From::At(number) => {
                    let known = model.events.range(number..).find_map(|(_, known)| known.position);
                    known.map_or(Start::Latest, Start::At)
                }
            };
            (start, model.served[which].made == Made::Yes, self.twin.is_some())
        };
        match bus.reset(&id_of(which), start).await {
            Err(Error::Control(ControlError::Served(_))) if serves => Ok(()),
            Err(Error::Control(ControlError::UnknownSubscription(_))) if !is_known => Ok(()),
            done => done,
        }
    }

    async fn remove(&mut self, bus: &Bus, which: usize) -> oncue::Result<()> {
        let id = id_of(which);
        let is_known = || self.model.lock().served[which].made == Made::Yes;
        if has(bus, which) {
            match bus.remove(&id).await {
                Err(Error::Control(ControlError::Served(_))) => {}
                Err(Error::Control(ControlError::UnknownSubscription(_))) if !is_known() => {}
                // It is paused.
                Ok(()) if is_paused(bus, which) => {
                    self.estranged = true;
                    return Ok(());
                }
                Ok(()) => self.broken(&format!("{id} is removed while it is served")),
                Err(error) => return Err(error),
            }
            bus.unsubscribe(&id).await?;
        }
        match bus.remove(&id).await {
            Err(Error::Control(ControlError::Served(_))) if self.twin.is_some() => Ok(()),
            Err(Error::Control(ControlError::UnknownSubscription(_))) if !is_known() => Ok(()),
            done => done,
        }
    }

    async fn resolve(&mut self, bus: &Bus, which: usize, letter: usize, resolve: Resolve) -> oncue::Result<()> {
        let dead = self.dead(which);
        let Some(letter) = dead.get(letter % dead.len().max(1)) else { return Ok(()) };
        let number = number_of(&letter.envelope);
        let letters = bus.dead_letters(&id_of(which));
        // It may be handled before we are told that it can be.
        let before = self.model.lock().tracks[&(which, number)].clone();
        self.model.lock().resolved(which, number, resolve);
        let done = match resolve {
            Resolve::Redrive => letters.redrive(letter.position).await,
            Resolve::Edit => letters.edit(letter.position, |event| event.extension("edited", "yes")).await,
            Resolve::Discard => letters.discard(letter.position).await,
        };
        if done.is_err() {
            self.model.lock().tracks.insert((which, number), before);
            self.in_doubt = Some((which, number));
        }
        done
    }

    /// One of two apps goes, and the other goes on.
    async fn leave(&mut self, first: bool, dropped: bool) -> oncue::Result<()> {
        let Some(twin) = self.twin.take() else { return Ok(()) };
        let Some(app) = self.app.take() else { return Ok(()) };
        let (goes, stays) = if first { (app, twin) } else { (twin, app) };
        self.app = Some(stays);
        if dropped {
            self.open.fetch_sub(1, Ordering::SeqCst);
        } else {
            goes.bus.shutdown().await?;
        }
        self.model.lock().gone(goes.number);
        Ok(())
    }

    /// Another app comes, if all that it serves is served as it would.
    async fn join(&mut self, bus: &Bus) {
        let has_all = (0..self.program.subscriptions.len()).all(|which| has(bus, which));
        if self.twin.is_some() || self.estranged || !has_all {
            return;
        }
        self.model.lock().had_two = true;
        match self.start().await {
            Ok(twin) => self.twin = Some(twin),
            Err(error) if self.storage.is_on() => self.broken(&format!("cannot join: {error}")),
            Err(_) => {}
        }
    }
}

/// Whether the app has the handler.
fn has(bus: &Bus, which: usize) -> bool {
    bus.handlers().iter().any(|handler| handler.id == id_of(which))
}

fn is_paused(bus: &Bus, which: usize) -> bool {
    bus.handlers().iter().any(|handler| handler.id == id_of(which) && handler.options.paused)
}

fn envelope(number: Number, new: &New) -> Envelope {
    let mut envelope = of_kind(Envelope::builder("step").data(number.to_string()), new.kind);
    if let Some(key) = new.key {
        envelope = envelope.key(format!("k{key}"));
    }
    if let Some(seconds) = new.delay {
        envelope = envelope.delay(Duration::from_secs(seconds));
    }
    if let Some(seconds) = new.time_to_live {
        envelope = envelope.time_to_live(Duration::from_secs(seconds));
    }
    if let Some(priority) = new.priority {
        envelope = envelope.priority(priority);
    }
    envelope.build().unwrap()
}
