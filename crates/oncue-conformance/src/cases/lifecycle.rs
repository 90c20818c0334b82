//! Opening, closing, and what is left of the work when it closes.

use std::time::Duration;

use futures_util::future::select_all;
use oncue::{
    Bus, Error,
    event::DEFAULT_TOPIC,
    handler::HandlerExt as _,
    transport::{Publish, PublishError},
};
use tokio::sync::watch;

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    seen::{accepting, keys},
};

/// Case 1. A transport opens, takes an event and shows it; it closes though nothing was ever started, and again; closed,
/// it says so instead of taking events.
///
/// # Errors
/// It does not.
pub async fn connect(bench: &Bench) -> Result<(), Failure> {
    let idle = bench.transport_at("-idle").await?;
    bench.wait("a transport to close that did nothing", idle.close()).await?;
    bench.app_at("-no-handlers").await?.start().await?.shutdown().await?;

    let transport = bench.transport().await?;
    ensure!(transport.capabilities().max_event_bytes > 0, "events of no size at all");
    let ping = Step::new("ping", 1).envelope()?;
    let batch = Publish { topic: DEFAULT_TOPIC.into(), events: vec![ping.clone()], source: None };
    let published = transport.publish(&batch).await?;
    ensure_eq!(published.len(), 1, "one event gives one position");
    let shown = transport.inspect().browse(DEFAULT_TOPIC, 0, 10)?;
    ensure_eq!(shown.iter().map(|(_, event)| event.id()).collect::<Vec<_>>(), [ping.id()], "the events of the topic");
    transport.close().await?;
    bench.wait("the second close", transport.close()).await?;
    let refused = transport.publish(&batch).await;
    ensure!(matches!(refused, Err(PublishError::Closed)), "published to a closed transport: {refused:?}");
    Ok(())
}

/// Case 5. Closing is safe at any moment and any number of times: after closing, with a handler blocked, with a backlog
/// unread, from several sides at once. Whoever closes first or last, work under way is finished and counted.
///
/// # Errors
/// It is not.
pub async fn close(bench: &Bench) -> Result<(), Failure> {
    for (place, backlog, closers) in [("-once", 1, 1), ("-unread", 500, 1), ("-together", 20, 4)] {
        close_blocked(bench, place, backlog, closers).await.map_err(|failure| failure.at(place))?;
    }
    Ok(())
}

async fn close_blocked(bench: &Bench, place: &str, backlog: u32, closers: usize) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let (gate, opened) = watch::channel(false);
    let handle = {
        let seen = seen.clone();
        move |step: Step| {
            let (running, mut opened) = (seen.begin("blocked", &step, 1), opened.clone());
            async move {
                // An error means that the case is over.
                let _ = opened.wait_for(|open| *open).await;
                drop(running);
            }
        }
    };
    let bus = bench.app_at(place).await?.on(handle.named("blocked")).start().await?;
    bench.publish(&bus, "key", 0..backlog).await?;
    seen.began(bench, 1).await;
    let closing: Vec<_> = (0..closers).map(|_| spawn_shutdown(&bus)).collect();
    let mut closing = select_all(closing);
    // Each of them waits for the work under way, the later ones too.
    let early = bench.within(Duration::from_millis(30), &mut closing).await;
    ensure!(early.is_none(), "a shutdown ended while a handler was running, within its grace time");
    gate.send_replace(true);
    let (first, _, others) = bench.wait("the first shutdown to end", closing).await;
    first??;
    for other in others {
        bench.wait("the other shutdowns", other).await??;
    }
    bench.wait("the shutdown after that", bus.shutdown()).await?;
    ensure_eq!(seen.count("blocked"), 1, "events of the key that were started");
    let acked = bus.inspect().subscriptions().iter().map(|known| known.stats.acked).sum::<u64>();
    ensure_eq!(acked, 1, "handlers that finished while it closed, and were counted");
    Ok(())
}

fn spawn_shutdown(bus: &Bus) -> tokio::task::JoinHandle<oncue::Result<()>> {
    let bus = bus.clone();
    tokio::spawn(async move { bus.shutdown().await })
}

/// Case 6. What `publish` acknowledged just before closing is there afterwards, and after a restart where the transport
/// is durable.
///
/// # Errors
/// It is not.
pub async fn publish_then_close(bench: &Bench) -> Result<(), Failure> {
    let count = bench.size(100, 2_000);
    let bus = bench.app().await?.start().await?;
    for number in 0..count {
        bus.publish(Step::new("key", number)).await?;
    }
    bench.wait("the shutdown", bus.shutdown()).await?;
    let kept = bus.inspect().browse(DEFAULT_TOPIC, 0, usize::MAX)?.len();
    ensure_eq!(kept, count as usize, "events after closing");
    drop(bus);
    if !bench.capabilities().durable {
        return Ok(());
    }
    let seen = Seen::new(bench);
    let bus = bench.app().await?.on(accepting("late", &seen)).start().await?;
    bench.idle(&bus).await?;
    seen.complete("late", &["key".to_owned()], count, true)?;
    seen.in_order()?;
    bench.shutdown(bus).await
}

/// Case 31. A shutdown amid publishing and handling: each publish is acknowledged or refused, what was acknowledged is
/// kept, a handled event is not handled again, and what was not handled is handled after the restart.
///
/// # Errors
/// It is not.
pub async fn shutdown_under_load(bench: &Bench) -> Result<(), Failure> {
    let most = bench.size(2_000, 50_000);
    let seen = Seen::new(bench);
    let bus = bench.app().await?.on(accepting("busy", &seen)).start().await?;
    let publishers: Vec<_> =
        keys(4).into_iter().map(|key| tokio::spawn(publish_until_closed(bus.clone(), key, most))).collect();
    seen.ended(bench, 50).await;
    bench.wait("the shutdown under load", bus.shutdown_within(Duration::from_secs(5))).await?;
    let mut accepted = Vec::new();
    for publisher in publishers {
        accepted.push(bench.wait("a publisher to be refused", publisher).await??);
    }
    let kept = bus.inspect().browse(DEFAULT_TOPIC, 0, usize::MAX)?.len() as u64;
    let topics = bus.inspect().topics();
    let drops = topics.iter().find(|topic| topic.name == DEFAULT_TOPIC && topic.retention.drops_settled());
    let dropped = drops.map_or(0, |topic| topic.first_offset);
    let total: u32 = accepted.iter().map(|(_, count)| count).sum();
    ensure!(
        kept + dropped >= u64::from(total),
        "{total} events were acknowledged, {kept} are there, {dropped} were handled and dropped"
    );
    ensure!(dropped <= seen.count("busy") as u64, "{dropped} events were dropped, more than were handled");
    seen.in_order()?;
    ensure_eq!(seen.running(), 0, "handlers that still run");
    let acked = bus.inspect().subscriptions().iter().map(|known| known.stats.acked).sum::<u64>();
    ensure_eq!(acked, seen.count("busy") as u64, "handlers that ended, and were counted");
    drop(bus);
    if !bench.capabilities().durable {
        return Ok(());
    }
    let bus = bench.app().await?.on(accepting("busy", &seen)).start().await?;
    bench.idle(&bus).await?;
    seen.in_order()?;
    for (key, count) in &accepted {
        let given = seen.of("busy", key);
        let promised: Vec<_> = (0..*count).map(|number| (number, 1)).collect();
        ensure!(given.starts_with(&promised), "key {key}: {count} acknowledged, given {} times", given.len());
    }
    bench.shutdown(bus).await
}

async fn publish_until_closed(bus: Bus, key: String, most: u32) -> Result<(String, u32), Failure> {
    for number in 0..most {
        match bus.publish(Step::new(&key, number)).await {
            Ok(_) => {}
            Err(Error::Publish(PublishError::Closed)) => return Ok((key, number)),
            Err(other) => return Err(Failure::from(other).at("refused, but not because it is closed")),
        }
    }
    Ok((key, most))
}
