//! What the tests of all layers need: calls that end when they are told to, polled by hand.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    clock::{Clock, ManualClock, Timestamp},
    event::Envelope,
    handler::{Binding, Invocation, Layer, Next, Outcome},
    policy::ErrorClass,
    transport::Position,
};

/// A call with a layer around, polled by hand.
pub(super) struct Polled(BoxFuture<'static, Outcome>);

impl Polled {
    /// Hands the call to a task, which is woken as the dispatcher's are.
    pub(super) fn spawn(self) -> tokio::task::JoinHandle<Outcome> {
        tokio::spawn(self.0)
    }

    /// Polls once; what became of the call, if it ended.
    pub(super) fn poll(&mut self) -> Option<Outcome> {
        match Pin::new(&mut self.0).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }
}

/// Calls of a handler, by number.
#[derive(Clone)]
pub(super) struct Calls {
    clock: Clock,
    running: Arc<Mutex<BTreeSet<u32>>>,
    ends: Ends,
}

impl Default for Calls {
    fn default() -> Self {
        Self::by(&at_zero())
    }
}

/// How calls are told what becomes of them.
type Ends = Arc<Mutex<Vec<(u32, oneshot::Sender<Outcome>)>>>;

/// Takes a call off those that run.
struct Leave(Calls, u32);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.running.lock().remove(&self.1);
    }
}

pub(super) fn at_zero() -> ManualClock {
    ManualClock::new(Timestamp::from_micros(0))
}

pub(super) fn transient() -> Outcome {
    Outcome::Fail { class: ErrorClass::Transient, error: "down".to_owned() }
}

impl Calls {
    pub(super) fn by(manual: &ManualClock) -> Self {
        Self { clock: manual.clock(), running: Arc::default(), ends: Arc::default() }
    }

    fn call(&self, layer: &impl Layer, key: Option<&str>, inside: Inside) -> Polled {
        let binding = Binding { clock: self.clock.clone(), ..Binding::alone("test") };
        let event = Envelope::builder("tested").id("e-1");
        let event = match key {
            Some(key) => event.subject(key),
            None => event,
        };
        let event = event.build().unwrap();
        let invocation = Invocation::new(Arc::new(binding), event, Position::new(0, 0, 0), 1, None);
        Polled(layer.call(invocation, Next::new([].into(), inside)))
    }

    /// A call that runs until [`end`](Self::end) says what becomes of it.
    pub(super) fn pending(&self, layer: &impl Layer, number: u32) -> Polled {
        let calls = self.clone();
        let inside = move |_| {
            let (end, ended) = oneshot::channel();
            calls.running.lock().insert(number);
            calls.ends.lock().push((number, end));
            let leave = Leave(calls, number);
            async move {
                let _leave = leave;
                ended.await.expect("the test ends it")
            }
            .boxed()
        };
        self.call(layer, None, Box::new(inside))
    }

    /// A call that ends at once.
    pub(super) fn ready(&self, layer: &impl Layer, outcome: Outcome) -> Polled {
        self.call(layer, None, Box::new(|_| std::future::ready(outcome).boxed()))
    }

    /// A call that ends at once, of an event with a key.
    pub(super) fn of_key(&self, layer: &impl Layer, key: &str) -> Polled {
        self.call(layer, Some(key), Box::new(|_| std::future::ready(Outcome::Ack).boxed()))
    }

    /// A call of which a layer further inside panics.
    pub(super) fn panicking(&self, layer: &impl Layer) -> Polled {
        self.call(layer, None, Box::new(|_| async { panic!("broken") }.boxed()))
    }

    /// A call of a plain function, which runs until [`end`](Self::end) and says that it cannot be cancelled.
    pub(super) fn blocking(&self, layer: &impl Layer) -> Polled {
        let ends = Arc::clone(&self.ends);
        let inside = move |invocation: Invocation| {
            invocation.block();
            let (end, ended) = oneshot::channel();
            ends.lock().push((0, end));
            async move { ended.await.expect("the test ends it") }.boxed()
        };
        self.call(layer, None, Box::new(inside))
    }

    /// A call with two layers, which ends at once if it gets through.
    pub(super) fn around(&self, outer: &impl Layer, inner: &(impl Layer + Clone)) -> Polled {
        let inner = inner.clone();
        let ends = |_| std::future::ready(Outcome::Ack).boxed();
        self.call(outer, None, Box::new(move |invocation| inner.call(invocation, Next::new([].into(), ends))))
    }

    /// The calls that came through the layer and have not ended.
    pub(super) fn running(&self) -> Vec<u32> {
        self.running.lock().iter().copied().collect()
    }

    pub(super) fn finish(&self, number: u32) {
        self.end(number, Outcome::Ack);
    }

    pub(super) fn end(&self, number: u32, outcome: Outcome) {
        let mut ends = self.ends.lock();
        let at = ends.iter().position(|(known, _)| *known == number).expect("it runs");
        ends.swap_remove(at).1.send(outcome).expect("it is waited for");
    }
}

type Inside = Box<dyn FnOnce(Invocation) -> BoxFuture<'static, Outcome> + Send>;
