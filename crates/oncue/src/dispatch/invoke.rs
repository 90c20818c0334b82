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
use tracing::Instrument as _;

use super::run::RunId;
use crate::{
    clock::{Clock, Timestamp},
    event::Envelope,
    handler::{Call, Effects, ErasedHandler, Invocation, Outcome, StateMap},
    policy::ErrorClass,
    transport::{ConsumeError, Delivered, Position},
};

/// A handler that ended.
pub(crate) struct Finished {
    pub(crate) run: RunId,
    pub(crate) member: usize,
    /// When the handler was given the event.
    pub(crate) read: Timestamp,
    pub(crate) outcome: Outcome,
    pub(crate) effects: Effects,
}

/// What starting a handler gives.
pub(crate) enum Started {
    /// It ended already.
    Finished(Finished),
    /// It needs a task.
    Pending(BoxFuture<'static, Finished>),
}

/// What a handler is given.
pub(crate) struct Given {
    envelope: Envelope,
    position: Position,
    attempt: u32,
}

impl Given {
    pub(crate) fn of(delivered: &Delivered, member: usize) -> Self {
        Self {
            envelope: delivered.envelope.clone(),
            position: delivered.position,
            attempt: delivered.attempts_of(member) + 1,
        }
    }
}

/// A call about to be made.
pub(crate) struct Prepared {
    pub(crate) run: RunId,
    pub(crate) member: usize,
    pub(crate) handler: Arc<dyn ErasedHandler>,
    pub(crate) id: Arc<str>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) given: Given,
    pub(crate) states: Arc<StateMap>,
    pub(crate) clock: Clock,
    /// When the handler is given the event.
    pub(crate) read: Timestamp,
}

/// The keyed state being read.
pub(crate) type StateRead = BoxFuture<'static, Result<Option<Bytes>, ConsumeError>>;

impl Prepared {
    /// Goes as far as it can without waiting. `state` reads the keyed state, where the handler takes it.
    pub(crate) fn start(self, state: Option<StateRead>) -> Started {
        let keyed = match state {
            None => Ok(None),
            Some(mut state) => match poll_once(&mut state) {
                Poll::Ready(loaded) => loaded,
                Poll::Pending => {
                    return Started::Pending(
                        async move {
                            let loaded = state.await;
                            match self.with_state(loaded) {
                                Started::Finished(finished) => finished,
                                Started::Pending(task) => task.await,
                            }
                        }
                        .boxed(),
                    );
                }
            },
        };
        self.with_state(keyed)
    }

    fn with_state(self, keyed: Result<Option<Bytes>, ConsumeError>) -> Started {
        let keyed = match keyed {
            Ok(keyed) => keyed,
            Err(error) => {
                let error = format!("its keyed state cannot be read: {error}");
                let outcome = Outcome::Fail { class: ErrorClass::Transient, error };
                let ending = Ending { run: self.run, member: self.member, read: self.read };
                return Started::Finished(ending.with(outcome, Effects::default()));
            }
        };
        let span = tracing::info_span!("handle", handler = &*self.id, event = self.given.envelope.id(),
            r#type = self.given.envelope.event_type(), position = %self.given.position, attempt = self.given.attempt);
        let Self { run, member, handler, id, timeout, given, states, clock, read } = self;
        let ending = Ending { run, member, read };
        let invocation = Invocation::new(given.envelope, given.position, given.attempt, id, states, keyed);
        let call = {
            let _entered = span.enter();
            catch_unwind(AssertUnwindSafe(|| handler.call(&invocation)))
        };
        match call {
            Err(panic) => Started::Finished(ending.finished(panicked(&*panic), &invocation)),
            Ok(Call::Done(outcome)) => Started::Finished(ending.finished(outcome, &invocation)),
            Ok(Call::Blocking(blocking)) => {
                let ended = on_blocking_pool(blocking, span, clock, timeout);
                Started::Pending(async move { ending.finished(ended.await, &invocation) }.boxed())
            }
            Ok(Call::Future(future)) => {
                let mut guarded = AssertUnwindSafe(future.instrument(span)).catch_unwind().boxed();
                if let Poll::Ready(ended) = poll_once(&mut guarded) {
                    let outcome = ended.unwrap_or_else(|panic| panicked(&*panic));
                    return Started::Finished(ending.finished(outcome, &invocation));
                }
                let task = async move {
                    let ended = match timeout {
                        None => guarded.await,
                        Some(timeout) => match select(guarded, clock.sleep(timeout)).await {
                            Either::Left((ended, _)) => ended,
                            Either::Right(((), _)) => Ok(timed_out(timeout)),
                        },
                    };
                    ending.finished(ended.unwrap_or_else(|panic| panicked(&*panic)), &invocation)
                };
                Started::Pending(task.boxed())
            }
        }
    }
}

/// Which call it is that ends.
#[derive(Clone, Copy)]
struct Ending {
    run: RunId,
    member: usize,
    read: Timestamp,
}

impl Ending {
    fn finished(self, outcome: Outcome, invocation: &Invocation) -> Finished {
        let effects = match outcome {
            Outcome::Ack => invocation.take_effects(),
            _ => Effects::default(),
        };
        self.with(outcome, effects)
    }

    fn with(self, outcome: Outcome, effects: Effects) -> Finished {
        Finished { run: self.run, member: self.member, read: self.read, outcome, effects }
    }
}

/// Runs a plain function where it may block. It cannot be cancelled: its key is held until it returns, and if that was
/// too late its outcome is the timeout.
fn on_blocking_pool(
    blocking: Box<dyn FnOnce() -> Outcome + Send>,
    span: tracing::Span,
    clock: Clock,
    timeout: Option<Duration>,
) -> impl Future<Output = Outcome> + Send {
    let started = clock.monotonic();
    let task = tokio::task::spawn_blocking(move || {
        let _entered = span.enter();
        catch_unwind(AssertUnwindSafe(blocking)).unwrap_or_else(|panic| panicked(&*panic))
    });
    async move {
        // Only a runtime that shuts down does not run it: it is delivered again.
        let outcome = task.await.unwrap_or(Outcome::Defer(Duration::ZERO));
        match timeout {
            Some(timeout) if clock.monotonic() - started > timeout => timed_out(timeout),
            _ => outcome,
        }
    }
}

/// Polls once; what is pending is polled again by whoever gets it, so this poll need not wake anybody.
fn poll_once<T>(future: &mut BoxFuture<'_, T>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(&noop_waker()))
}

fn timed_out(timeout: Duration) -> Outcome {
    Outcome::Fail { class: ErrorClass::Timeout, error: format!("took longer than its timeout of {timeout:?}") }
}

fn panicked(panic: &(dyn Any + Send)) -> Outcome {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Outcome::Fail { class: ErrorClass::Panic, error: format!("panicked: {}", text.unwrap_or("(no message)")) }
}
