//! What is told to somebody who asks how it is going.

use std::time::Duration;

use oncue::{
    Bus,
    event::DEFAULT_TOPIC,
    handler::{HandlerError, HandlerExt as _},
    policy,
    transport::{Ordered, Publish, PublishError, SubscriptionInfo},
};
use tokio::sync::watch;

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    noting,
    seen::accepting,
};

/// Longer than any case may take.
const LONG: Duration = Duration::from_secs(3_600);

/// Case 29. Who asks is told what is served, how far it is behind and since when, what is in hand and what waits; that it
/// goes on, when it does; and when the transport is closed underneath, that it is, by everything that would need it.
///
/// # Errors
/// It is not told, or waits.
pub async fn health(bench: &Bench) -> Result<(), Failure> {
    Failure::of_parts([("well", Box::pin(well(bench)).await), ("closed", Box::pin(closed(bench)).await)])
}

fn info(bus: &Bus, subscription: &str) -> Result<SubscriptionInfo, Failure> {
    let found = bus.inspect().subscriptions().into_iter().find(|known| known.id == subscription);
    found.ok_or_else(|| Failure::new(format!("there is no subscription `{subscription}`")))
}

async fn well(bench: &Bench) -> Result<(), Failure> {
    let (gate, opened) = watch::channel(false);
    let gated = move |_: Step| {
        let mut opened = opened.clone();
        async move {
            // An error means that the case is over.
            let _ = opened.wait_for(|open| *open).await;
        }
    };
    let seen = Seen::new(bench);
    let fails = noting("fails", &seen, |step, _| match step.number {
        0 => Err(HandlerError::transient("not yet")),
        1 => Err(HandlerError::reject("never")),
        _ => Ok(()),
    });
    let app = bench.app_at("-well").await?.on(gated.named("gated"));
    let bus = app.on(fails.ordered(Ordered::Relaxed).retry(policy::fixed(LONG))).start().await?;
    bus.check()?;
    let idle = info(&bus, "gated")?;
    ensure_eq!((idle.attached, idle.lag, idle.oldest, idle.in_flight), (true, 0, None, 0), "with nothing to do");
    bench.publish(&bus, "key", 0..3).await?;
    let published = bus.inspect().browse(DEFAULT_TOPIC, 0, 1)?[0].1.published();
    bench.until(&bus, "gated", "an event in hand", |known| known.in_flight > 0).await?;
    let busy = info(&bus, "gated")?;
    ensure_eq!((busy.lag, busy.oldest), (3, Some(published)), "events behind, and since when");
    bench.until(&bus, "fails", "one of each", |known| known.stats.acked == 1 && known.dead == 1).await?;
    let failing = info(&bus, "fails")?;
    ensure_eq!((failing.retrying, failing.dead, failing.lag), (1, 1, 1), "waiting for a retry, dead, and behind");
    let progress = bus.transport().progress();
    gate.send_replace(true);
    bench.wait("the next progress to be told", progress).await;
    bench.acked(&bus, "gated", 3).await?;
    bench.until(&bus, "gated", "nothing in hand", |known| known.in_flight == 0).await?;
    let idle = info(&bus, "gated")?;
    ensure_eq!((idle.lag, idle.oldest), (0, None), "when all is done");
    bus.unsubscribe("gated").await?;
    ensure_eq!(info(&bus, "gated")?.attached, false, "whether somebody serves it, when nobody does");
    bus.check()?;
    bench.shutdown(bus).await
}

async fn closed(bench: &Bench) -> Result<(), Failure> {
    let (gate, opened) = watch::channel(false);
    let gated = move |_: Step| {
        let mut opened = opened.clone();
        async move {
            let _ = opened.wait_for(|open| *open).await;
        }
    };
    let bus = bench.app_at("-closed").await?.on(gated.named("gated")).start().await?;
    bench.publish(&bus, "key", 0..2).await?;
    bench.until(&bus, "gated", "an event in hand", |known| known.in_flight > 0).await?;
    bench.wait("the transport to close", bus.transport().close()).await?;
    let events = vec![Step::new("key", 2).envelope()?];
    let refused = bus.transport().publish(&Publish { topic: DEFAULT_TOPIC.into(), events, source: None }).await;
    ensure!(matches!(refused, Err(PublishError::Closed)), "published to a closed transport: {refused:?}");
    let seen = Seen::new(bench);
    let late = bench.wait("a handler to be refused", bus.subscribe(accepting("late", &seen))).await;
    ensure!(late.is_err(), "a handler was subscribed to a closed transport");
    // The handler ends, and what became of its event cannot be kept.
    gate.send_replace(true);
    let idle = bench.wait("to be told that a handler stopped", bus.idle()).await;
    ensure!(idle.is_err() && bus.check().is_err(), "all is well, though nothing can be settled");
    let acked = info(&bus, "gated")?.stats.acked;
    ensure_eq!(acked, 0, "events settled on a closed transport");
    let ended = bench.wait("the shutdown", bus.shutdown()).await;
    ensure!(ended.is_err(), "a shutdown in good order, though a handler stopped");
    Ok(())
}
