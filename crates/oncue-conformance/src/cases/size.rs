//! Events of the largest size.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use oncue::{
    App, Envelope,
    handler::{HandlerError, HandlerExt as _, extract::Context},
    policy,
};

use crate::{
    Bench, Failure,
    failure::{ensure, ensure_eq},
};

/// How many large events end at once: together they are more than a transport writes as one.
const TOGETHER: usize = 4;
/// Attributes and what a transport adds.
const ROOM: usize = 64 * 1024;

/// Case 28. The largest event that the transport allows is delivered and retried as any other, and one byte more is
/// refused before anything is written; large events that fail together become dead letters, and large events that
/// handlers emit together are published.
///
/// # Errors
/// One is not.
pub async fn large(bench: &Bench) -> Result<(), Failure> {
    Failure::of_parts([
        ("the largest", largest(bench).await),
        ("its dead letter", largest_dead_letter(bench).await),
        ("dead letters together", dead_letters_together(bench).await),
        ("emitted together", emitted_together(bench).await),
    ])
}

fn event(key: &str, bytes: usize) -> Result<Envelope, Failure> {
    Ok(Envelope::builder("large").key(key).data(vec![b'x'; bytes]).build()?)
}

async fn largest(bench: &Bench) -> Result<(), Failure> {
    let most = bench.capabilities().max_event_bytes;
    let whole = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&whole);
    let handle = move |event: Envelope, context: Context| {
        let count = Arc::clone(&count);
        async move {
            if context.attempt() == 1 {
                return Err(HandlerError::transient("not yet"));
            }
            count.fetch_add(usize::from(event.data().len() == most), Ordering::SeqCst);
            Ok(())
        }
    };
    let handle = handle.named("large").types(["large"]).retry(policy::fixed(Duration::from_millis(5)));
    let bus = bench.app_at("-largest").await?.on(handle).start().await?;
    if let Ok(too_large) = event("key", most + 1) {
        let refused = bus.publish(too_large).await;
        ensure!(refused.is_err(), "{} bytes were taken, {most} are allowed", most + 1);
    }
    bench.wait("the largest event to be published", bus.publish(event("key", most)?)).await?;
    bench.idle(&bus).await?;
    ensure_eq!(whole.load(Ordering::SeqCst), 1, "events of {most} bytes that arrived whole");
    bench.shutdown(bus).await
}

/// The largest event that is accepted, with a history of errors beside it, still can become a dead letter.
async fn largest_dead_letter(bench: &Bench) -> Result<(), Failure> {
    let most = bench.capabilities().max_event_bytes;
    let fails = |_: &Envelope| Err::<(), _>(HandlerError::transient("a long explanation ".repeat(200)));
    let fails = fails.named("fails").types(["large"]).inline().retry(policy::fixed(Duration::ZERO).max_attempts(5));
    let bus = bench.app_at("-largest-dead").await?.on(fails).start().await?;
    let mut bytes = most;
    // What is not accepted is the part before this one's business.
    while bus.publish(event("key", bytes)?).await.is_err() {
        bytes -= 16;
        ensure!(most - bytes < ROOM, "nothing of about {most} bytes is accepted");
    }
    bench.idle(&bus).await?;
    let dead = bus.inspect().dead_letters("fails")?;
    ensure_eq!(
        dead.iter().map(|dead| dead.envelope.data().len()).collect::<Vec<_>>(),
        [bytes],
        "bytes of dead letters"
    );
    ensure_eq!(dead[0].history.len(), 5, "attempts of it");
    bench.shutdown(bus).await
}

async fn dead_letters_together(bench: &Bench) -> Result<(), Failure> {
    let bytes = bench.capabilities().max_event_bytes.saturating_sub(ROOM);
    let rejecting = |_: &Envelope| Err::<(), _>(HandlerError::reject("too much for me"));
    let transport = bench.transport_at("-dead").await?;
    let app = || App::with_transport(Arc::clone(&transport), bench.clock().clone());
    // Published before the handler starts, so that it is given them together.
    let publisher = app().start().await?;
    for key in 0..TOGETHER {
        let event = event(&format!("key-{key}"), bytes)?;
        bench.wait("a large event to be published", publisher.publish(event)).await?;
    }
    let bus = app().on(rejecting.named("rejects").types(["large"]).inline()).start().await?;
    bench.idle(&bus).await?;
    let dead = bus.inspect().dead_letters("rejects")?;
    ensure_eq!(dead.len(), TOGETHER, "dead letters");
    ensure!(dead.iter().all(|dead| dead.envelope.data().len() == bytes), "a dead letter lost bytes");
    bench.shutdown(bus).await
}

async fn emitted_together(bench: &Bench) -> Result<(), Failure> {
    let bytes = bench.capabilities().max_event_bytes.saturating_sub(ROOM);
    let emitting = move |_: &Envelope, context: Context| {
        let large = Envelope::builder("large").data(vec![b'y'; bytes]).build();
        large.map_err(HandlerError::reject).and_then(|event| context.emit_envelope(event).map_err(HandlerError::reject))
    };
    let mut emitting = emitting.named("emits").types(["small"]).inline();
    emitting.emits.push("large".to_owned());
    let whole = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&whole);
    let takes = move |event: &Envelope| {
        count.fetch_add(usize::from(event.data().len() == bytes), Ordering::SeqCst);
    };
    let app = bench.app_at("-emitted").await?.on(emitting).on(takes.named("takes").types(["large"]).inline());
    let bus = app.start().await?;
    let small = (0..TOGETHER).map(|key| Envelope::builder("small").key(format!("key-{key}")).build());
    bench.publish_all(&bus, small.collect::<Result<_, _>>()?).await?;
    bench.idle(&bus).await?;
    ensure_eq!(whole.load(Ordering::SeqCst), TOGETHER, "emitted events of {bytes} bytes that arrived");
    bench.shutdown(bus).await
}
