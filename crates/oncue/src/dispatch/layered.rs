//! Calls with layers around: they may wait before the handler is called, and are given up if it is stopped meanwhile.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
};

use futures_util::future::{BoxFuture, Either, FutureExt as _, select};

use super::{
    invoke::{Progress, caught, guarded, panicked, poll_once},
    member::Callee,
};
use crate::handler::{Invocation, Memory, Next, Outcome};

/// Calls the outermost layer, and at last the handler; goes as far as it can without waiting. Nothing comes of a call that
/// is given up.
pub(super) fn begin(callee: &Arc<Callee>, invocation: &Invocation) -> Progress<Option<Outcome>> {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let mut call = next(callee, invocation).run(invocation.clone());
        match poll_once(&mut call) {
            Poll::Ready(outcome) => Ok(outcome),
            Poll::Pending => Err(call),
        }
    }));
    let outcome = match polled {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(call)) => return Progress::Pending(unless_stopped(caught(call), invocation.clone()).boxed()),
        Err(panic) => panicked(&*panic),
    };
    match invocation.take_running() {
        None => Progress::Done(outcome),
        Some(running) => Progress::Pending(running.map(|_| Some(outcome)).boxed()),
    }
}

/// What is inside of the outermost layer. Layers may run it with a call of their own making: when the handler was called is
/// kept with the one that they were given.
fn next(callee: &Arc<Callee>, given: &Invocation) -> Next {
    let (layers, callee, given) = (Arc::clone(&callee.layers), Arc::clone(callee), given.clone());
    Next::new(layers, move |invocation| {
        given.comes_through();
        match guarded(&callee, &mut Memory::default(), &invocation, Some(&given)) {
            Progress::Done(outcome) => std::future::ready(outcome).boxed(),
            Progress::Pending(call) => call,
        }
    })
}

/// A call until it ends; nothing if its handler is stopped before the call has come through its layers. If a layer gave up
/// on a plain function, which cannot be cancelled, the call ends when that returns: until then its key is held.
pub(super) async fn unless_stopped<T>(call: BoxFuture<'static, T>, invocation: Invocation) -> Option<T> {
    let stopped = invocation.binding().draining.begun();
    // The stop is looked for first: a call that waits by then does not begin.
    let ended = match select(Box::pin(stopped), call).await {
        Either::Left(((), call)) if invocation.through_at().is_some() => call.await,
        Either::Left(_) => return None,
        Either::Right((ended, _)) => ended,
    };
    if let Some(running) = invocation.take_running() {
        // Nothing is ever said: that it returned is told by the end that it held.
        let _ = running.await;
    }
    Some(ended)
}
