//! Rows 7a: one event for many handlers.

use std::{
    hint::black_box,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context as TaskContext, Waker},
};

use oncue::{
    App, Envelope,
    filter::Filter,
    handler::{Binding, Call, ErasedHandler, HandlerExt as _, Invocation, Memory, Outcome},
    transport::Position,
};
use tokio::runtime::Runtime;

use crate::{
    events,
    measure::{Plan, Result, Sample, Stopwatch, nanos_per_call},
    report::{Row, Target},
};

/// Handlers of the event.
const HANDLERS: usize = 1_000;
/// Subscriptions of which one wants the event.
const SUBSCRIPTIONS: usize = 10_000;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn handle(event: Envelope) {
    black_box(event.data().len());
}

fn finish(call: &Call) -> Result<()> {
    match call {
        Call::Done(Outcome::Ack) => Ok(()),
        _ => Err("the handler of a benchmark acknowledges at its first poll".into()),
    }
}

type Direct = Vec<Box<dyn Fn(Envelope) -> Boxed + Send + Sync>>;

/// The other side: as many boxed async closures.
fn direct() -> Direct {
    (0..HANDLERS).map(|_| Box::new(|event| Box::pin(handle(event)) as Boxed) as _).collect()
}

/// Nanoseconds per call of a loop over them.
fn nanos_of(direct: &Direct, event: &Envelope, seconds: f64) -> f64 {
    let mut nth = 0;
    nanos_per_call(seconds, || {
        let mut future = direct[nth % HANDLERS](black_box(event).clone());
        nth += 1;
        assert!(future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_ready());
    })
}

const LOOP: &str = "a loop over 1,000 boxed async closures";

/// Calling every handler with an event that is there.
fn called(plan: &Plan) -> Result<Row> {
    let event = events::one()?;
    let handlers: Vec<(Arc<dyn ErasedHandler>, Arc<Binding>)> = (0..HANDLERS)
        .map(|number| {
            let id = format!("bench-{number}");
            (handle.named(&id).types([events::TYPE]).handler, Arc::new(Binding::alone(&id)))
        })
        .collect();
    let direct = direct();
    let seconds = plan.seconds / 4.0;
    let rounds = plan.rounds("7a", || {
        let mut failed = None;
        // As each dispatcher does: a call takes over the memory of the one before, of the same handler.
        let (mut nth, mut kept) = (0, Vec::new());
        kept.resize_with(HANDLERS, <(Option<Invocation>, Memory)>::default);
        let ours = nanos_per_call(seconds, || {
            let ((handler, binding), (over, memory)) = (&handlers[nth % HANDLERS], &mut kept[nth % HANDLERS]);
            nth += 1;
            let invocation = Invocation::again(over.take(), binding, event.clone(), Position::new(0, 7, 0), 1, None);
            if let Err(error) = finish(&handler.call_in(memory, black_box(&invocation))) {
                failed = Some(error);
            }
            black_box(invocation.take_effects());
            *over = Some(invocation);
        });
        failed.map_or(Ok(Sample::of(ours, nanos_of(&direct, &event, seconds))), Err)
    })?;
    Ok(Row {
        id: "7a",
        case: "calls",
        what: "One event to 1,000 async handlers, per delivery: through the handlers' door",
        against: LOOP,
        unit: "ns",
        target: Target::at_most(1.5),
        settings: format!("{}, one thread, nothing synced; each call with a new `Invocation`.", events::PAYLOAD),
        rounds,
    })
}

/// Publishes one after the other, each once the one before is settled by all; nanoseconds per event.
async fn published(handlers: usize, matching: usize, seconds: f64) -> Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let mut app = App::open("memory:").await?;
    for number in 0..handlers {
        let done = Arc::clone(&done);
        let handler = move |event: &Envelope| {
            black_box(event.data().len());
            done.fetch_add(1, Ordering::Relaxed);
        };
        let handler = handler.named(format!("bench-{number}")).types([events::TYPE]).topic(events::TOPIC).inline();
        let subject =
            Filter::exact("subject", if number < matching { "wanted".to_owned() } else { number.to_string() });
        app = app.on(handler.filter(subject));
    }
    let bus = app.start().await?;
    bus.idle().await?;
    let (mut count, watch) = (0_u64, Stopwatch::start());
    while watch.seconds() < seconds || count < 3 {
        let batch: Result<Vec<Envelope>> = (0..64)
            .map(|_| Ok(Envelope::builder(events::TYPE).subject("wanted").data(vec![7; events::DATA_BYTES]).build()?))
            .collect();
        bus.publish_all(events::TOPIC, batch?, None).await?;
        count += 64;
        while done.load(Ordering::Relaxed) < count * matching as u64 {
            tokio::task::yield_now().await;
        }
    }
    let nanos = watch.seconds() * 1e9 / count as f64;
    bus.shutdown().await?;
    Ok(nanos)
}

/// Publishing an event until all who want it have handled it.
fn through_bus(plan: &Plan, runtime: &Runtime) -> Result<Vec<Row>> {
    let settings = |handlers| {
        format!(
            "{}, batches of 64 on `memory:`, two worker threads, nothing synced; {handlers}; each event is settled and \
             measured by each handler.",
            events::PAYLOAD
        )
    };
    let event = events::one()?;
    let direct = direct();
    let all = plan.rounds("7a", || {
        let nanos = runtime.block_on(published(HANDLERS, HANDLERS, plan.seconds))?;
        Ok(Sample::of(nanos / HANDLERS as f64, nanos_of(&direct, &event, plan.seconds / 4.0)))
    })?;
    let few = plan.rounds("7a", || {
        let nanos = runtime.block_on(published(SUBSCRIPTIONS, 1, plan.seconds))?;
        Ok(Sample { ours: nanos, ..Sample::default() })
    })?;
    Ok(vec![
        Row {
            id: "7a",
            case: "bus",
            what: "One event to 1,000 handlers, per delivery: published, handled, settled",
            against: LOOP,
            unit: "ns",
            target: Target::default(),
            settings: settings("1,000 inline handlers, all of which want each event"),
            rounds: all,
        },
        Row {
            id: "7a",
            case: "one of 10,000",
            what: "One event that one of 10,000 subscriptions wants: published, handled",
            against: "",
            unit: "ns",
            target: Target::default(),
            settings: settings("10,000 inline handlers with filters, one of which wants each event"),
            rounds: few,
        },
    ])
}

/// 7a: the calls, and the whole way.
pub(crate) fn many(plan: &Plan, runtime: &Runtime) -> Result<Vec<Row>> {
    let mut rows = vec![called(plan)?];
    rows.extend(through_bus(plan, runtime)?);
    Ok(rows)
}
