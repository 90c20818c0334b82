//! Calling a handler: inline as far as it goes, then as a task; panics and timeouts become outcomes.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    future::{BoxFuture, Either, FutureExt as _, select},
    task::noop_waker,
};
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::{
    layered::{self, unless_stopped},
    member::{Callee, Member},
    run::RunId,
};
use crate::{
    clock::Timestamp,
    handler::{Call, Effects, Invocation, Memory, Next, Outcome},
    policy::ErrorClass,
    transport::{ConsumeError, Delivered},
};

/// An event that a handler is through with.
pub(crate) struct Finished {
    pub(crate) run: RunId,
    /// When the handler was given the event: when the call had come through its layers.
    pub(crate) read: Timestamp,
    pub(crate) outcome: Outcome,
    /// Nothing, if the handler left none.
    pub(crate) effects: Option<Box<Effects>>,
    /// The call, whose memory the next one may take.
    pub(crate) over: Option<Invocation>,
}

/// A call that ended: of one event, or of a batch.
pub(crate) struct Ended {
    pub(crate) member: usize,
    pub(crate) finished: Events,
}

/// The events of a call.
pub(crate) enum Events {
    One(Finished),
    Batch(Vec<Finished>),
    /// None is finished: the handler was stopped while the call waited in a layer.
    GivenUp,
}

/// What starting a call gives.
pub(crate) enum Started {
    /// It ended already.
    Ended(Ended),
    /// It needs a task.
    Pending(BoxFuture<'static, Ended>),
}

/// A call of one event, as far as it has come.
pub(super) enum Progress<T = Outcome> {
    Done(Outcome),
    Pending(BoxFuture<'static, T>),
}

/// The keyed state being read.
pub(crate) type StateRead = BoxFuture<'static, Result<Option<Bytes>, ConsumeError>>;

/// An event to call a member's handler with, before its keyed state is known.
pub(crate) struct Prepared<'run> {
    pub(crate) run: RunId,
    pub(crate) index: usize,
    pub(crate) member: &'run Member,
    pub(crate) delivered: &'run Delivered,
    /// When the handler is given the event.
    pub(crate) read: Timestamp,
}

impl Prepared<'_> {
    /// Goes as far as it can without waiting. `state` reads the keyed state, where the handler takes it.
    pub(crate) fn start(&self, over: Option<Invocation>, memory: &mut Memory, state: Option<StateRead>) -> Started {
        match state {
            None => self.call(over, memory, None),
            Some(state) => self.call_with(over, memory, state),
        }
    }

    fn call(&self, over: Option<Invocation>, memory: &mut Memory, keyed: Option<Bytes>) -> Started {
        let (envelope, position) = (self.delivered.envelope_of(self.index).clone(), self.delivered.position);
        let attempt = self.delivered.attempts_of(self.index) + 1;
        let invocation = Invocation::again(over, &self.member.callee.binding, envelope, position, attempt, keyed);
        self.ending().follow(&self.member.callee, memory, invocation)
    }

    fn call_with(&self, over: Option<Invocation>, memory: &mut Memory, mut state: StateRead) -> Started {
        let (ending, attempt) = (self.ending(), self.delivered.attempts_of(self.index) + 1);
        if let Poll::Ready(loaded) = poll_once(&mut state) {
            return match loaded {
                Ok(keyed) => self.call(over, memory, keyed),
                Err(error) => Started::Ended(ending.unreadable(&error)),
            };
        }
        let callee = Arc::clone(&self.member.callee);
        let (envelope, position) = (self.delivered.envelope_of(self.index).clone(), self.delivered.position);
        Started::Pending(
            async move {
                let started = match state.await {
                    Ok(keyed) => {
                        let binding = Arc::clone(&callee.binding);
                        let invocation = Invocation::new(binding, envelope, position, attempt, keyed);
                        ending.follow(&callee, &mut Memory::default(), invocation)
                    }
                    Err(error) => return ending.unreadable(&error),
                };
                match started {
                    Started::Ended(ended) => ended,
                    Started::Pending(task) => task.await,
                }
            }
            .boxed(),
        )
    }

    fn ending(&self) -> Ending {
        Ending { run: self.run, member: self.index, read: self.read }
    }
}

/// Calls a batch handler.
pub(crate) fn start_batch<'run>(
    member: &Member,
    index: usize,
    runs: impl Iterator<Item = (RunId, &'run Delivered)>,
    read: Timestamp,
) -> Started {
    let (runs, batch): (Vec<RunId>, Vec<Invocation>) = runs
        .map(|(run, delivered)| {
            let (binding, envelope) = (Arc::clone(&member.callee.binding), delivered.envelope_of(index).clone());
            let attempt = delivered.attempts_of(index) + 1;
            (run, Invocation::new(binding, envelope, delivered.position, attempt, None))
        })
        .unzip();
    let callee = &member.callee;
    let first = batch.first().filter(|_| !callee.layers.is_empty()).cloned();
    let mut call = begin_batch(callee, &batch);
    let end = move |outcomes: Vec<Outcome>, batch: Vec<Invocation>| {
        let read = batch.first().and_then(Invocation::through_at).unwrap_or(read);
        let ended = runs.into_iter().zip(batch).zip(outcomes).map(|((run, invocation), outcome)| {
            let effects = effects_of(&outcome, &invocation);
            Finished { run, read, outcome, effects, over: None }
        });
        Ended { member: index, finished: Events::Batch(ended.collect()) }
    };
    match (poll_once(&mut call), first) {
        (Poll::Ready(outcomes), _) => Started::Ended(end(outcomes, batch)),
        (Poll::Pending, None) => Started::Pending(async move { end(call.await, batch) }.boxed()),
        (Poll::Pending, Some(first)) => {
            let call = unless_stopped(call, first);
            let given_up = Ended { member: index, finished: Events::GivenUp };
            Started::Pending(call.map(|outcomes| outcomes.map_or(given_up, |outcomes| end(outcomes, batch))).boxed())
        }
    }
}

/// Calls the handler with a batch. A layer sees its first event, and the first of its outcomes that is no ack.
fn begin_batch(callee: &Arc<Callee>, batch: &[Invocation]) -> BoxFuture<'static, Vec<Outcome>> {
    let count = batch.len();
    let Some(first) = batch.first().cloned() else { return std::future::ready(Vec::new()).boxed() };
    let given = first.clone();
    let (layers, callee) = (Arc::clone(&callee.layers), Arc::clone(callee));
    let outcomes: Arc<parking_lot::Mutex<Option<Vec<Outcome>>>> = Arc::default();
    let (told, batch) = (Arc::clone(&outcomes), batch.to_vec());
    let next = Next::new(layers, move |first| {
        given.comes_through();
        let span = span_of(&first, count);
        first.begin_timeout();
        let Some(call) = callee.handler.call_batch(batch) else {
            let error = "it handles one event at a time: remove `batch`".to_owned();
            return std::future::ready(Outcome::Reject { class: ErrorClass::Permanent, error }).boxed();
        };
        let call = async move {
            let given = call.await;
            let worst = given.iter().find(|outcome| **outcome != Outcome::Ack).cloned().unwrap_or(Outcome::Ack);
            *told.lock() = Some(given);
            worst
        };
        in_time(caught(call.instrument(span)), first)
    });
    caught(async move { next.run(first).await })
        .map(move |of_all| outcomes.lock().take().unwrap_or_else(|| vec![of_all; count]))
        .boxed()
}

/// Calls the handler itself, in its span, with its timeout; a panic becomes an outcome.
/// `layered` is the call that layers were given: who waits for its end waits for a plain function on the blocking pool, too,
/// whatever the layers say meanwhile.
#[inline]
pub(super) fn guarded(
    callee: &Callee,
    memory: &mut Memory,
    invocation: &Invocation,
    layered: Option<&Invocation>,
) -> Progress {
    let span = span_of(invocation, 1);
    invocation.begin_timeout();
    let call = {
        let _entered = span.enter();
        catch_unwind(AssertUnwindSafe(|| callee.handler.call_in(memory, invocation)))
    };
    match call {
        Err(panic) => Progress::Done(panicked(&*panic)),
        Ok(Call::Done(outcome)) => Progress::Done(outcome),
        Ok(Call::Blocking(blocking)) => {
            let running = layered.map(Invocation::runs);
            Progress::Pending(on_blocking_pool(blocking, span, invocation.clone(), running).boxed())
        }
        Ok(Call::Future(future)) => {
            let guarded = caught(future.instrument(span));
            let timed = invocation.binding().timeout.is_some();
            Progress::Pending(if timed { in_time(guarded, invocation.clone()) } else { guarded })
        }
    }
}

fn span_of(invocation: &Invocation, events: usize) -> tracing::Span {
    tracing::info_span!("handle", handler = invocation.subscription(), event = invocation.envelope().id(),
        r#type = invocation.envelope().event_type(), position = %invocation.position(), attempt = invocation.attempt(),
        events)
}

/// A call whose panic is an outcome.
pub(super) fn caught(call: impl Future<Output = Outcome> + Send + 'static) -> BoxFuture<'static, Outcome> {
    AssertUnwindSafe(call).catch_unwind().map(|ended| ended.unwrap_or_else(|panic| panicked(&*panic))).boxed()
}

/// A call that is cancelled when its time is over.
fn in_time(call: BoxFuture<'static, Outcome>, invocation: Invocation) -> BoxFuture<'static, Outcome> {
    let Some(timeout) = invocation.binding().timeout else { return call };
    async move {
        let over = async move {
            // The handler may have asked for more time meanwhile.
            while let Some(left) = invocation.time_left().filter(|left| !left.is_zero()) {
                invocation.binding().clock.sleep(left).await;
            }
        };
        match select(call, Box::pin(over)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(((), _)) => timed_out(timeout),
        }
    }
    .boxed()
}

/// Which call it is that ends.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    pub(super) run: RunId,
    pub(super) member: usize,
    pub(super) read: Timestamp,
}

impl Ending {
    fn follow(self, callee: &Arc<Callee>, memory: &mut Memory, invocation: Invocation) -> Started {
        if callee.layers.is_empty() {
            self.after(guarded(callee, memory, &invocation, None), invocation)
        } else {
            self.after(layered::begin(callee, &invocation), invocation)
        }
    }

    /// What a call becomes, as far as it has come.
    pub(super) fn after<T: Into<Option<Outcome>> + 'static>(
        self,
        progress: Progress<T>,
        invocation: Invocation,
    ) -> Started {
        match progress {
            Progress::Done(outcome) => Started::Ended(self.ended(outcome, invocation)),
            Progress::Pending(call) => {
                let given_up = Ended { member: self.member, finished: Events::GivenUp };
                let end = move |outcome| self.ended(outcome, invocation);
                Started::Pending(call.map(move |outcome| outcome.into().map_or(given_up, end)).boxed())
            }
        }
    }

    fn ended(self, outcome: Outcome, invocation: Invocation) -> Ended {
        let effects = effects_of(&outcome, &invocation);
        // The time in its layers is no part of the attempt.
        let read = invocation.through_at().unwrap_or(self.read);
        let finished = Finished { run: self.run, read, outcome, effects, over: Some(invocation) };
        Ended { member: self.member, finished: Events::One(finished) }
    }

    fn unreadable(self, error: &ConsumeError) -> Ended {
        let error = format!("its keyed state cannot be read: {error}");
        let outcome = Outcome::Fail { class: ErrorClass::Transient, error };
        let finished = Finished { run: self.run, read: self.read, outcome, effects: None, over: None };
        Ended { member: self.member, finished: Events::One(finished) }
    }
}

/// What an acking handler leaves behind; of another, who waits for what follows.
fn effects_of(outcome: &Outcome, invocation: &Invocation) -> Option<Box<Effects>> {
    if invocation.is_untouched() {
        return None;
    }
    let effects = invocation.take_effects();
    let kept = if *outcome == Outcome::Ack { effects } else { Effects { told: effects.told, ..Effects::default() } };
    Some(Box::new(kept))
}

/// Runs a plain function where it may block. It cannot be cancelled: its key is held until it returns, and if that was
/// too late its outcome is the timeout.
fn on_blocking_pool(
    blocking: Box<dyn FnOnce() -> Outcome + Send>,
    span: tracing::Span,
    invocation: Invocation,
    running: Option<oneshot::Sender<()>>,
) -> impl Future<Output = Outcome> + Send {
    invocation.block();
    // Until it returns and its outcome is taken, if anybody takes it.
    let held = invocation.binding().draining.block();
    let task = tokio::task::spawn_blocking(move || {
        let _running = running;
        let _entered = span.enter();
        (catch_unwind(AssertUnwindSafe(blocking)).unwrap_or_else(|panic| panicked(&*panic)), held)
    });
    async move {
        // Only a runtime that shuts down does not run it: it is delivered again.
        let (outcome, _held) = task.await.unwrap_or((Outcome::Defer(Duration::ZERO), None));
        match invocation.binding().timeout {
            Some(timeout) if invocation.time_left().is_some_and(|left| left.is_zero()) => timed_out(timeout),
            _ => outcome,
        }
    }
}

/// Polls once; what is pending is polled again by whoever gets it, so this poll need not wake anybody.
pub(super) fn poll_once<T>(future: &mut BoxFuture<'_, T>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(&noop_waker()))
}

fn timed_out(timeout: Duration) -> Outcome {
    Outcome::Fail { class: ErrorClass::Timeout, error: format!("took longer than its timeout of {timeout:?}") }
}

pub(super) fn panicked(panic: &(dyn Any + Send)) -> Outcome {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Outcome::Fail { class: ErrorClass::Panic, error: format!("panicked: {}", text.unwrap_or("(no message)")) }
}
