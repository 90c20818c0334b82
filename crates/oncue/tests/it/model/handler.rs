//! The handlers of a program: they do as their script says, and tell the model.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use oncue::{
    Clock, Envelope,
    handler::{Call, Emitted, ErasedHandler, Invocation, Location, Outcome, Registration, StateChange},
    policy::{self, ErrorClass},
};
use parking_lot::Mutex;

use super::{
    flaws::Flaw,
    known::{AppNumber, Model, Number, echo, id_of, is_echo},
    program::{Act, End, Subscription, TIMEOUT, Way},
};

/// A subscription's handler in one app.
pub(super) struct Scripted {
    subscription: usize,
    keyed: bool,
    app: AppNumber,
    clock: Clock,
    model: Arc<Mutex<Model>>,
}

pub(super) fn registration(
    which: usize,
    config: &Subscription,
    app: AppNumber,
    clock: &Clock,
    model: &Arc<Mutex<Model>>,
) -> Registration {
    let (keyed, flaw) = (config.is_keyed(), model.lock().flaw);
    let scripted = Scripted { subscription: which, keyed, app, clock: clock.clone(), model: Arc::clone(model) };
    let mut registration = Registration::new(id_of(which), Arc::new(scripted), Location::caller())
        .types(if config.echoes { vec!["step", "echo"] } else { vec!["step"] })
        .retry(policy::fixed(Duration::from_secs(config.retry_after)).max_attempts(config.max_attempts))
        .ordered(config.orders.ordered)
        .order(config.orders.order)
        .on_dead_letter(config.orders.on_dead_letter)
        .concurrency(config.concurrency);
    registration.keyed = keyed;
    if config.is_pipelined() {
        registration = registration.pipelined();
    }
    if !config.left_out.is_nothing() {
        registration = registration.filter(config.left_out.filter());
    }
    if let Some(batch) = config.batch {
        let batch = batch + usize::from(flaw == Some(Flaw::Crammed));
        registration = registration.batch(batch).batch_wait(Duration::from_millis(500));
    }
    if config.timeout {
        registration = registration.timeout(TIMEOUT);
    }
    if config.after && flaw != Some(Flaw::Unlinked) { registration.after_id(id_of(which - 1)) } else { registration }
}

pub(super) fn number_of(envelope: &Envelope) -> Number {
    serde_json::from_slice(envelope.data()).unwrap()
}

impl Scripted {
    /// Tells the model; nothing if this app is gone.
    fn start(&self, batch: &[Invocation]) -> Option<Started> {
        let mut model = self.model.lock();
        if !model.apps.contains(&self.app) {
            return None;
        }
        let numbered: Vec<_> = batch.iter().map(|call| (number_of(call.envelope()), call.clone())).collect();
        let acts = model.start(self.app, self.subscription, &numbered);
        let calls = numbered.into_iter().zip(acts).collect();
        Some(Started {
            subscription: self.subscription,
            keyed: self.keyed,
            app: self.app,
            generation: model.served[self.subscription].generation,
            model: Arc::clone(&self.model),
            calls,
            ended: false,
        })
    }
}

impl ErasedHandler for Scripted {
    fn call(&self, invocation: &Invocation) -> Call {
        let Some(started) = self.start(std::slice::from_ref(invocation)) else {
            return Call::Future(std::future::pending().boxed());
        };
        let clock = self.clock.clone();
        match started.way() {
            Way::Now => Call::Done(started.end().remove(0)),
            Way::Block => Call::Blocking(Box::new(move || started.end().remove(0))),
            way => Call::Future(
                async move {
                    wait(way, &clock).await;
                    started.end().remove(0)
                }
                .boxed(),
            ),
        }
    }

    fn call_batch(&self, batch: Vec<Invocation>) -> Option<Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>>> {
        let clock = self.clock.clone();
        let Some(started) = self.start(&batch) else { return Some(std::future::pending().boxed()) };
        let called = async move {
            wait(started.way(), &clock).await;
            started.end()
        };
        Some(called.boxed())
    }
}

async fn wait(way: Way, clock: &Clock) {
    match way {
        Way::Now => {}
        Way::Yield | Way::Block => tokio::task::yield_now().await,
        Way::Sleep(seconds) => clock.sleep(Duration::from_secs(seconds)).await,
    }
}

/// A call under way.
struct Started {
    subscription: usize,
    keyed: bool,
    app: AppNumber,
    /// How often the subscription had begun anew.
    generation: u32,
    model: Arc<Mutex<Model>>,
    calls: Vec<((Number, Invocation), Act)>,
    ended: bool,
}

impl Started {
    /// How long the whole takes: as its slowest event.
    fn way(&self) -> Way {
        let weight = |way: &Way| match way {
            Way::Now => 0,
            Way::Yield => 1,
            Way::Block => 2,
            Way::Sleep(seconds) => 2 + seconds,
        };
        self.calls.iter().map(|(_, act)| act.way).max_by_key(weight).unwrap_or(Way::Now)
    }

    /// What each event comes to, told to the model. One that panics takes all with it.
    fn end(mut self) -> Vec<Outcome> {
        let panics = self.calls.iter().any(|(_, act)| act.end == End::Panic);
        let ends: Vec<(Number, End)> =
            self.calls.iter().map(|((number, _), act)| (*number, if panics { End::Panic } else { act.end })).collect();
        self.tell(&ends);
        if panics {
            // Without the message that a panic prints.
            std::panic::resume_unwind(Box::new("scripted"));
        }
        self.calls.iter().zip(&ends).map(|(((number, call), _), (_, end))| self.outcome(*number, call, *end)).collect()
    }

    fn tell(&mut self, ends: &[(Number, End)]) {
        self.ended = true;
        let mut model = self.model.lock();
        if model.apps.contains(&self.app) {
            model.end(self.app, self.subscription, ends);
        }
    }

    fn outcome(&self, number: Number, call: &Invocation, end: End) -> Outcome {
        let error = format!("scripted for {number}");
        match end {
            End::Ack | End::Emit => {
                if end == End::Emit && !is_echo(number) {
                    let emitted = echo(number, self.subscription, self.generation);
                    let envelope = Envelope::builder("echo").data(emitted.to_string());
                    let envelope = match call.envelope().key() {
                        Some(key) => envelope.key(key),
                        None => envelope,
                    };
                    call.effects().emits.push(Emitted { topic: "events".into(), envelope: envelope.build().unwrap() });
                }
                if self.keyed && call.envelope().key().is_some() {
                    let kept =
                        call.keyed().map_or_else(|| "[]".into(), |kept| String::from_utf8(kept.to_vec()).unwrap());
                    let mut kept: Vec<Number> = serde_json::from_str(&kept).unwrap();
                    kept.push(number);
                    let kept = Bytes::from(serde_json::to_vec(&kept).unwrap());
                    call.effects().state = Some(StateChange::Set(kept));
                }
                Outcome::Ack
            }
            End::Fail | End::Panic => Outcome::Fail { class: ErrorClass::Transient, error },
            End::Reject => Outcome::Reject { class: ErrorClass::Permanent, error },
            End::Defer(seconds) => Outcome::Defer(Duration::from_secs(seconds)),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let numbers: Vec<Number> = self.calls.iter().map(|((number, _), _)| *number).collect();
        let is_late = self.calls[0].0.1.time_left().is_some_and(|left| left.is_zero());
        if is_late {
            let ends: Vec<_> = numbers.iter().map(|number| (*number, End::Fail)).collect();
            self.tell(&ends);
            return;
        }
        let mut model = self.model.lock();
        if model.apps.contains(&self.app) {
            model.cancelled(self.app, self.subscription, &numbers);
        }
    }
}
