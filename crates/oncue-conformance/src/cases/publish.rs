//! What publishing promises.

use oncue::{Bus, Envelope};

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    seen::{accepting, keys},
};

/// Case 3. Topics run side by side, and a subscription sees no event of another topic.
///
/// # Errors
/// It does.
pub async fn topics(bench: &Bench) -> Result<(), Failure> {
    let (count, events) = (bench.size(4, 20), bench.size(50, 500));
    let seen = Seen::new(bench);
    let mut app = bench.app().await?;
    for topic in 0..count {
        app = app.on(accepting(&format!("on-{topic}"), &seen).topic(format!("topic-{topic}")));
    }
    let bus = app.start().await?;
    let publishers: Vec<_> = (0..count).map(|topic| tokio::spawn(publish_to(bus.clone(), topic, events))).collect();
    for publisher in publishers {
        bench.wait("a publisher", publisher).await??;
    }
    bench.idle(&bus).await?;
    for topic in 0..count {
        seen.complete(&format!("on-{topic}"), &[format!("key-{topic}")], events, true)?;
    }
    seen.in_order()?;
    bench.shutdown(bus).await
}

async fn publish_to(bus: Bus, topic: u32, events: u32) -> Result<(), Failure> {
    for number in 0..events {
        bus.publish_to(&format!("topic-{topic}"), Step::new(&format!("key-{topic}"), number).envelope()?).await?;
    }
    Ok(())
}

/// Case 4. Many publish at once and many subscribe: each subscription gets every event once, in the order of its key.
///
/// # Errors
/// One does not.
pub async fn many(bench: &Bench) -> Result<(), Failure> {
    let (publishers, subscribers, events) = (bench.size(8, 50), bench.size(8, 50), bench.size(50, 100));
    let seen = Seen::new(bench);
    let mut app = bench.app().await?;
    for subscriber in 0..subscribers {
        app = app.on(accepting(&format!("subscriber-{subscriber}"), &seen));
    }
    let bus = app.start().await?;
    let keys = keys(publishers);
    let publish = |key: String, bus: Bus| async move {
        for number in 0..events {
            bus.publish(Step::new(&key, number)).await?;
        }
        Ok::<(), oncue::Error>(())
    };
    let publishing: Vec<_> = keys.iter().map(|key| tokio::spawn(publish(key.clone(), bus.clone()))).collect();
    for publisher in publishing {
        bench.wait("a publisher", publisher).await??;
    }
    bench.idle(&bus).await?;
    for subscriber in 0..subscribers {
        seen.complete(&format!("subscriber-{subscriber}"), &keys, events, true)?;
    }
    seen.in_order()?;
    bench.shutdown(bus).await
}

/// Case 39. The same source and id published again, later, in one batch, by several at once or after a restart, is
/// acknowledged as a duplicate with the first one's position, and delivered once. Another source or topic is another
/// event.
///
/// # Errors
/// It is not.
pub async fn twice(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let event = |id: &str, source: &str| {
        Envelope::builder("step").id(id).source(source).key("k").data(r#"{"key":"k","number":0}"#).build()
    };
    let bus = bench.app().await?.on(accepting("once", &seen)).start().await?;
    let mut publishing = Vec::new();
    for _ in 0..8 {
        let (bus, event) = (bus.clone(), event("1", "/a")?);
        publishing.push(tokio::spawn(async move {
            bus.publish(event).await.map(|receipt| (receipt.is_duplicate(), receipt.position()))
        }));
    }
    let mut results = Vec::new();
    for publisher in publishing {
        results.push(bench.wait("a publisher", publisher).await??);
    }
    let first = results[0].1;
    ensure_eq!(results.iter().filter(|(duplicate, _)| !duplicate).count(), 1, "publishers that were first");
    ensure!(results.iter().all(|(_, position)| *position == first), "duplicates at other positions: {results:?}");
    let batch = bench
        .publish_all(&bus, vec![event("1", "/a")?, event("2", "/a")?, event("2", "/a")?, event("1", "/b")?])
        .await?;
    let duplicates: Vec<_> = batch.iter().map(oncue::Receipt::is_duplicate).collect();
    ensure_eq!(duplicates, [true, false, true, false], "duplicates of the batch");
    ensure_eq!((batch[0].position(), batch[2].position()), (first, batch[1].position()), "where the duplicates stand");
    ensure!(!bus.publish_to("other", event("1", "/a")?).await?.is_duplicate(), "another topic is another event");
    bench.idle(&bus).await?;
    ensure_eq!(seen.count("once"), 3, "deliveries of 3 events");
    drop(batch);
    if !bench.capabilities().durable {
        return bench.shutdown(bus).await;
    }
    bench.crash(bus);
    let bus = bench.app().await?.on(accepting("once", &seen)).start().await?;
    let again = bus.publish(event("1", "/a")?).await?;
    ensure_eq!((again.is_duplicate(), again.position()), (true, first), "after a restart: duplicate and position");
    drop(again);
    bench.idle(&bus).await?;
    ensure_eq!(seen.count("once"), 3, "deliveries of 3 events, after a restart");
    bench.shutdown(bus).await
}
