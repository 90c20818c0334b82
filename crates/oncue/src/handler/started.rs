//! The first poll of an async function, where it is called: most handlers that find what they need at hand end there.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::{Call, Invocation, Outcome};

type Place<F> = Pin<Box<Option<F>>>;

/// The memory of a call's future, kept for the next call when that one ended at its first poll: then no call allocates.
pub(super) struct Futures<F>(Mutex<Option<Place<F>>>);

impl<F> Default for Futures<F> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<F: Future + Send + 'static> Futures<F> {
    /// Polls the future once. What is pending then is to be polled again, so that this poll need not wake anybody.
    pub(super) fn start(
        &self,
        future: F,
        invocation: &Invocation,
        conclude: fn(&Invocation, F::Output) -> Outcome,
    ) -> Call {
        // Nobody waits for it: who comes while another call is being polled has memory of its own.
        let mut kept = self.0.try_lock();
        // Taken out: of a panic nothing is kept.
        let mut place = kept.as_mut().and_then(|kept| kept.take()).unwrap_or_else(|| Box::pin(None));
        place.set(Some(future));
        match poll(&mut place, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(returned) => {
                place.set(None);
                if let Some(mut kept) = kept {
                    *kept = Some(place);
                }
                Call::Done(conclude(invocation, returned))
            }
            Poll::Pending => {
                drop(kept);
                let ending = invocation.clone();
                Call::Future(Box::pin(async move {
                    let returned = poll_fn(|cx| poll(&mut place, cx)).await;
                    conclude(&ending, returned)
                }))
            }
        }
    }
}

fn poll<F: Future>(place: &mut Place<F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    match place.as_mut().as_pin_mut() {
        Some(future) => future.poll(cx),
        // It holds a future until that has ended, and is not polled after.
        None => Poll::Pending,
    }
}

/// As [`Futures::start`], for a future that borrows, whose memory cannot be kept.
pub(super) fn start(future: impl Future<Output = Outcome> + Send + 'static) -> Call {
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Call::Done(outcome),
        Poll::Pending => Call::Future(future),
    }
}
