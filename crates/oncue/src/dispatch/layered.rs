//! Calls with layers around: they may wait before the handler is called, and are given up if it is stopped meanwhile.

use std::sync::{Arc, OnceLock};

use futures_util::future::{BoxFuture, Either, FutureExt as _, select};
use tokio::sync::oneshot;

use super::invoke::caught;
use crate::{
    clock::Timestamp,
    handler::{Invocation, Layers, Next, Outcome},
};

/// When a call came through its layers and the handler was called.
pub(super) type Began = Arc<OnceLock<Timestamp>>;

/// Held by a plain function until it returns, also when nobody waits for it any more.
pub(super) type Running = oneshot::Sender<()>;

/// Calls the outermost layer; `innermost` calls the handler itself.
pub(super) fn call(
    layers: Layers,
    invocation: Invocation,
    began: Began,
    innermost: impl FnOnce(&Invocation, Option<Running>) -> BoxFuture<'static, Outcome> + Send + 'static,
) -> BoxFuture<'static, Outcome> {
    let (running, over) = oneshot::channel();
    let next = Next::new(layers, move |invocation| {
        began.get_or_init(|| invocation.binding().clock.now());
        innermost(&invocation, Some(running))
    });
    // A layer may have given up on a plain function, which cannot be cancelled: its key is held until it returns.
    caught(async move { next.run(invocation).await }).then(|outcome| over.map(|_| outcome)).boxed()
}

/// A call until it ends; nothing if its handler is stopped before the call has come through its layers.
pub(super) async fn unless_stopped<T>(call: BoxFuture<'static, T>, invocation: Invocation, began: Began) -> Option<T> {
    let stopped = invocation.binding().draining.begun();
    // The stop is looked for first: a call that waits by then does not begin.
    match select(Box::pin(stopped), call).await {
        Either::Left(((), call)) if began.get().is_some() => Some(call.await),
        Either::Left(_) => None,
        Either::Right((outcome, _)) => Some(outcome),
    }
}
