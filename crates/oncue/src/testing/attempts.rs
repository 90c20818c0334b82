//! Stands before every handler: sees each call, and lets some of them fail instead.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use futures_util::future::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::seen::shown;
use crate::{
    clock::{PausedClock, Timestamp},
    event::Envelope,
    handler::{Call, Classify, ErasedHandler, HandlerError, IntoOutcome as _, Invocation, Outcome, Registration},
    policy::ErrorClass,
    transport::Position,
};

/// A handler that is called more often than this for one event, in its app's life, is taken for one that always will be.
pub const MOST_CALLS: u32 = 5_000;

/// One call of a handler for one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The event.
    pub event: Envelope,
    /// Which attempt: 1 is the first.
    pub number: u32,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// What the handler made of the event, before any layer around it; none while it runs, and if the app stopped it.
    pub outcome: Option<Outcome>,
    /// The handler was not called: [`fail`](super::TestApp::fail) answered for it.
    pub injected: bool,
}

type Answer = Box<dyn Fn(&Invocation) -> Option<Outcome> + Send + Sync>;

/// What all the handlers' watchers share.
pub(super) struct Attempts {
    /// With the handler's id, in the order in which they began.
    made: Mutex<Vec<(Arc<str>, Attempt)>>,
    /// What is to fail, by handler; the last is asked first.
    answers: Mutex<HashMap<String, Vec<Answer>>>,
    calls: Mutex<HashMap<(Arc<str>, Position), u32>>,
    /// Handler and event.
    endless: watch::Sender<Option<(String, String)>>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            made: Mutex::default(),
            answers: Mutex::default(),
            calls: Mutex::default(),
            endless: watch::Sender::new(None),
        }
    }
}

impl Attempts {
    /// Stands before a handler from now on.
    pub(super) fn watch(self: &Arc<Self>, handler: &mut Registration, clock: &PausedClock) {
        let (attempts, clock, inner) = (Arc::clone(self), clock.clone(), Arc::clone(&handler.handler));
        handler.handler = Arc::new(Watched { handler: inner, attempts, clock });
    }

    pub(super) fn of(&self, handler: &str) -> Vec<Attempt> {
        let made = self.made.lock();
        made.iter().filter(|(known, _)| **known == *handler).map(|(_, attempt)| attempt.clone()).collect()
    }

    pub(super) fn fail(&self, handler: &str, times: u32, error: HandlerError) {
        let (outcome, calls) = (outcome(error), Mutex::new(HashMap::<Position, u32>::new()));
        self.answer(handler, move |invocation| {
            let mut calls = calls.lock();
            let calls = calls.entry(invocation.position()).or_default();
            *calls = calls.saturating_add(1);
            (*calls <= times).then(|| outcome.clone())
        });
    }

    pub(super) fn fail_with(
        &self,
        handler: &str,
        error: impl Fn(&Invocation) -> Option<HandlerError> + Send + Sync + 'static,
    ) {
        self.answer(handler, move |invocation| error(invocation).map(outcome));
    }

    fn answer(&self, handler: &str, answer: impl Fn(&Invocation) -> Option<Outcome> + Send + Sync + 'static) {
        self.answers.lock().entry(handler.to_owned()).or_default().push(Box::new(answer));
    }

    pub(super) fn recover(&self, handler: &str) {
        self.answers.lock().remove(handler);
    }

    /// Completes when a handler was called too often for one event: its id, and the event.
    pub(super) async fn endless(&self) -> (String, String) {
        let mut endless = self.endless.subscribe();
        let found = endless.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        match found {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }
}

fn outcome(error: HandlerError) -> Outcome {
    Err::<(), _>(error).into_outcome(&mut Vec::new(), &Classify::default())
}

/// A handler that is watched.
struct Watched {
    handler: Arc<dyn ErasedHandler>,
    attempts: Arc<Attempts>,
    clock: PausedClock,
}

/// How a call goes on.
enum Begun {
    /// The handler is to be called.
    Call(Running),
    /// It is answered for.
    Answered(Outcome),
    /// It was called too often: it hangs, so that the test goes on and tells.
    Endless,
}

impl Watched {
    fn begin(&self, invocation: &Invocation) -> Begun {
        let id = &invocation.binding().subscription;
        let calls = {
            let mut calls = self.attempts.calls.lock();
            let calls = calls.entry((Arc::clone(id), invocation.position())).or_default();
            *calls += 1;
            *calls
        };
        if calls > MOST_CALLS {
            // Only the first is told.
            let found = (id.to_string(), shown(invocation.envelope()));
            self.attempts.endless.send_if_modified(|known| known.is_none() && known.replace(found).is_none());
            return Begun::Endless;
        }
        let answered = {
            let answers = self.attempts.answers.lock();
            let answers = answers.get(&**id).map_or(&[][..], Vec::as_slice);
            answers.iter().rev().find_map(|answer| answer(invocation))
        };
        let now = self.clock.clock().now();
        let attempt = Attempt {
            event: invocation.envelope().clone(),
            number: invocation.attempt(),
            started: now,
            ended: answered.is_some().then_some(now),
            outcome: answered.clone(),
            injected: answered.is_some(),
        };
        let mut made = self.attempts.made.lock();
        made.push((Arc::clone(id), attempt));
        match answered {
            Some(outcome) => Begun::Answered(outcome),
            None => Begun::Call(Running {
                attempts: Arc::clone(&self.attempts),
                clock: self.clock.clone(),
                invocation: invocation.clone(),
                index: made.len() - 1,
                ended: false,
            }),
        }
    }
}

impl ErasedHandler for Watched {
    fn call(&self, invocation: &Invocation) -> Call {
        let running = match self.begin(invocation) {
            Begun::Call(running) => running,
            Begun::Answered(outcome) => return Call::Done(outcome),
            Begun::Endless => return Call::Future(std::future::pending().boxed()),
        };
        match self.handler.call(invocation) {
            Call::Done(outcome) => Call::Done(running.end(outcome)),
            Call::Future(future) => Call::Future(
                async move {
                    let running = running;
                    let outcome = future.await;
                    running.end(outcome)
                }
                .boxed(),
            ),
            Call::Blocking(blocking) => Call::Blocking(Box::new(move || {
                let running = running;
                let outcome = blocking();
                running.end(outcome)
            })),
        }
    }

    /// Those that are answered for are not in the batch that the handler gets.
    fn call_batch(&self, batch: Vec<Invocation>) -> Option<Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>>> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(batch.len());
        let mut running = Vec::new();
        for invocation in &batch {
            match self.begin(invocation) {
                Begun::Call(call) => {
                    running.push(call);
                    outcomes.push(None);
                }
                Begun::Answered(outcome) => outcomes.push(Some(outcome)),
                Begun::Endless => return Some(std::future::pending().boxed()),
            }
        }
        let called = match running.is_empty() {
            true => std::future::ready(Vec::new()).boxed(),
            false => self.handler.call_batch(running.iter().map(|call| call.invocation.clone()).collect())?,
        };
        let all = async move {
            let running = running;
            let mut given = called.await.into_iter().zip(running).map(|(outcome, running)| running.end(outcome));
            outcomes.into_iter().filter_map(|answered| answered.or_else(|| given.next())).collect()
        };
        Some(all.boxed())
    }
}

/// A call under way. Dropped before its end, it panicked, took too long, or was stopped.
struct Running {
    attempts: Arc<Attempts>,
    clock: PausedClock,
    invocation: Invocation,
    index: usize,
    ended: bool,
}

impl Running {
    fn end(mut self, outcome: Outcome) -> Outcome {
        self.record(Some(outcome.clone()));
        outcome
    }

    fn record(&mut self, outcome: Option<Outcome>) {
        self.ended = true;
        let now = self.clock.clock().now();
        if let Some((_, attempt)) = self.attempts.made.lock().get_mut(self.index) {
            attempt.ended = Some(now);
            attempt.outcome = outcome;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let failed = |class, error: &str| Some(Outcome::Fail { class, error: error.to_owned() });
        let is_late = self.invocation.time_left().is_some_and(|left| left.is_zero());
        self.record(if std::thread::panicking() {
            failed(ErrorClass::Panic, "panicked")
        } else if is_late {
            failed(ErrorClass::Timeout, "took longer than its timeout")
        } else {
            None
        });
    }
}
