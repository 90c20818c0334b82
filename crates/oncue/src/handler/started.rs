//! The first poll of an async function, where it is called: most handlers that find what they need at hand end there.

use std::{
    any::Any,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{Call, Invocation, Outcome};

type Place<F> = Pin<Box<Option<F>>>;

/// The memory of a call's future, kept for the next call of the same handler when that one ended at its first poll. Whoever
/// calls holds it, one for the calls that it makes one after the other: so nothing is locked.
#[derive(Default)]
pub struct Memory(Option<Box<dyn Any + Send>>);

impl Memory {
    /// Polls the future once. What is pending then is to be polled again, so that this poll need not wake anybody.
    pub(super) fn start<F: Future + Send + 'static>(
        &mut self,
        future: F,
        invocation: &Invocation,
        conclude: fn(&Invocation, F::Output) -> Outcome,
    ) -> Call {
        // Taken out: of a panic nothing is kept, nor of another handler's call.
        let kept = self.0.take().and_then(|kept| kept.downcast::<Option<Place<F>>>().ok());
        let mut kept = kept.unwrap_or_default();
        let mut place = kept.take().unwrap_or_else(|| Box::pin(None));
        place.set(Some(future));
        match poll(&mut place, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(returned) => {
                place.set(None);
                *kept = Some(place);
                self.0 = Some(kept);
                Call::Done(conclude(invocation, returned))
            }
            Poll::Pending => {
                self.0 = Some(kept);
                let ending = invocation.clone();
                Call::Future(Box::pin(async move {
                    let returned = poll_fn(|cx| poll(&mut place, cx)).await;
                    conclude(&ending, returned)
                }))
            }
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Memory(kept)" } else { "Memory(none)" })
    }
}

fn poll<F: Future>(place: &mut Place<F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    match place.as_mut().as_pin_mut() {
        Some(future) => future.poll(cx),
        // It holds a future until that has ended, and is not polled after.
        None => Poll::Pending,
    }
}

/// As [`Memory::start`], for a future that borrows, whose memory cannot be kept.
pub(super) fn start(future: impl Future<Output = Outcome> + Send + 'static) -> Call {
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Call::Done(outcome),
        Poll::Pending => Call::Future(future),
    }
}
