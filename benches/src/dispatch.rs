//! Rows 1a and 1b: calling a handler with an event that is there already.

use std::{
    hint::black_box,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use oncue::{
    Envelope,
    handler::{Binding, Call, HandlerExt as _, Invocation, Memory, Outcome, extract::Context},
    transport::Position,
};

use crate::{
    events,
    measure::{Plan, Result, Sample, Stopwatch, nanos_per_call},
    report::{Row, Target},
    walk::Walked,
};

/// What both sides' handlers do.
fn handle(event: &Envelope) {
    black_box(event.data().len());
}

/// What both sides' async handlers do.
async fn handle_later(event: Envelope) {
    handle(&event);
}

async fn handle_with_context(event: Envelope, context: Context) {
    handle(&event);
    black_box(context.attempt());
}

/// What an invocation is made of.
struct Parts {
    event: Envelope,
    binding: Arc<Binding>,
}

impl Parts {
    fn new() -> Result<Self> {
        let binding = Binding { inline: true, ..Binding::alone("bench") };
        Ok(Self { event: events::one()?, binding: Arc::new(binding) })
    }

    /// In the memory of the call before, as the dispatcher does.
    fn invocation_in(&self, over: Option<Invocation>) -> Invocation {
        Invocation::again(over, &self.binding, self.event.clone(), Position::new(0, 7, 0), 1, None)
    }

    fn invocation(&self) -> Invocation {
        Invocation::new(Arc::clone(&self.binding), self.event.clone(), Position::new(0, 7, 0), 1, None)
    }
}

/// Runs a call to its end, as the dispatcher does when the handler does not wait.
#[inline]
fn finish(call: Call) {
    let acked = match call {
        Call::Done(outcome) => matches!(outcome, Outcome::Ack),
        Call::Future(mut future) => {
            let polled = future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
            matches!(polled, Poll::Ready(Outcome::Ack))
        }
        Call::Blocking(_) => false,
    };
    assert!(acked, "the handler of a benchmark acknowledges at once");
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

fn inline(plan: &Plan, parts: &Parts, new_invocation: bool) -> Result<Row> {
    let handler = black_box(handle.named("bench").types([events::TYPE]).inline().handler);
    let direct: Box<dyn Fn(&Envelope) + Send + Sync> = black_box(Box::new(handle));
    let invocation = parts.invocation();
    let seconds = plan.seconds / 4.0;
    let rounds = plan.rounds("1a", || {
        let ours = if new_invocation {
            let mut over = None;
            nanos_per_call(seconds, || {
                let invocation = parts.invocation_in(over.take());
                finish(handler.call(black_box(&invocation)));
                over = Some(invocation);
            })
        } else {
            nanos_per_call(seconds, || finish(handler.call(black_box(&invocation))))
        };
        let against = nanos_per_call(seconds, || direct(black_box(&parts.event)));
        Ok(Sample::of(ours, against))
    })?;
    let what = "Dispatch of a built event to one inline handler";
    let (case, target) = if new_invocation {
        ("a new invocation each", Target::default())
    } else {
        ("", Target::at_most(4.0).absolute(12.0))
    };
    let against = "`Box<dyn Fn(&Envelope)>` call, same body";
    let settings = format!("{}, one thread, nothing synced; through `ErasedHandler::call`.", events::PAYLOAD);
    Ok(Row { id: "1a", case, what, against, unit: "ns", target, settings, rounds })
}

/// 1a, and what making an invocation adds.
pub(crate) fn plain(plan: &Plan) -> Result<Vec<Row>> {
    let parts = Parts::new()?;
    Ok(vec![inline(plan, &parts, false)?, inline(plan, &parts, true)?])
}

/// 1b: with a context, and without.
pub(crate) fn asynchronous(plan: &Plan) -> Result<Vec<Row>> {
    let parts = Parts::new()?;
    let with_context = handle_with_context.named("bench").types([events::TYPE]).handler;
    let without = handle_later.named("bench").types([events::TYPE]).handler;
    let mut rows = Vec::new();
    for (case, handler, target) in [
        ("with context", black_box(with_context), Target::at_most(1.5)),
        ("without context", black_box(without), Target::default()),
    ] {
        let direct: Box<dyn Fn(Envelope) -> Boxed + Send + Sync> =
            black_box(Box::new(|event| Box::pin(handle_later(event))));
        let seconds = plan.seconds / 4.0;
        let rounds = plan.rounds("1b", || {
            let (mut over, mut memory) = (None, Memory::default());
            let ours = nanos_per_call(seconds, || {
                let invocation = black_box(parts.invocation_in(over.take()));
                finish(handler.call_in(&mut memory, &invocation));
                black_box(invocation.take_effects());
                over = Some(invocation);
            });
            let against = nanos_per_call(seconds, || {
                let mut future = direct(black_box(&parts.event).clone());
                assert!(future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_ready());
            });
            Ok(Sample::of(ours, against))
        })?;
        let settings = format!(
            "{}, one thread, no runtime, nothing synced; ours includes a new `Invocation` for each call and \
             `take_effects` after it, both sides a clone of the event.",
            events::PAYLOAD
        );
        let what = "Dispatch of a built event to one async handler";
        let against = "awaiting a boxed future of the same body";
        rows.push(Row { id: "1b", case, what, against, unit: "ns", target, settings, rounds });
    }
    Ok(rows)
}

/// Calls an inline handler with the same invocation: what 1a times.
pub(crate) fn walk_inline(calls: u64) -> Result<Walked> {
    let parts = Parts::new()?;
    let handler = black_box(handle.named("bench").types([events::TYPE]).inline().handler);
    let invocation = parts.invocation();
    let watch = Stopwatch::start();
    (0..calls).for_each(|_| finish(handler.call(black_box(&invocation))));
    Ok(Walked::new(watch, ()))
}

/// Calls an async handler, with a new invocation each: what 1b times.
pub(crate) fn walk_async(calls: u64) -> Result<Walked> {
    let parts = Parts::new()?;
    let handler = black_box(handle_later.named("bench").types([events::TYPE]).handler);
    let (mut over, mut memory, watch) = (None, Memory::default(), Stopwatch::start());
    for _ in 0..calls {
        let invocation = black_box(parts.invocation_in(over.take()));
        finish(handler.call_in(&mut memory, &invocation));
        black_box(invocation.take_effects());
        over = Some(invocation);
    }
    Ok(Walked::new(watch, ()))
}
