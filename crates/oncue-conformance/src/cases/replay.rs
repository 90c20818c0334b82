//! Reading again from a place in the past.

use std::time::Duration;

use oncue::{
    Bus, Timestamp,
    event::DEFAULT_TOPIC,
    transport::{Position, Start},
};

use crate::{
    Bench, Failure, Seen,
    failure::{ensure, ensure_eq},
    seen::accepting,
};

/// The smallest difference between two times.
const TICK: Duration = Duration::from_micros(1);

/// Case 34. A new subscription begins with the first event of a time or a position, exactly: not one event too many, not
/// one too few. An existing one that is reset does the same, and no other notices.
///
/// # Errors
/// It does not.
pub async fn replay(bench: &Bench) -> Result<(), Failure> {
    let numbers = bench.size(6, 200);
    let seen = Seen::new(bench);
    let bus = bench.app().await?.on(accepting("old", &seen)).on(accepting("beside", &seen)).start().await?;
    for number in 0..numbers {
        bench.publish(&bus, "key", number..number + 1).await?;
        // Each at a time of its own.
        let published = bench.clock().now();
        while bench.clock().now() <= published {
            tokio::task::yield_now().await;
        }
    }
    bench.idle(&bus).await?;
    let stood = bus.inspect().browse(DEFAULT_TOPIC, 0, usize::MAX)?;
    let stood: Vec<(Position, Timestamp)> =
        stood.iter().map(|(position, event)| (*position, event.published())).collect();
    ensure_eq!(stood.len(), numbers as usize, "events that stand in the topic");
    ensure!(stood.windows(2).all(|pair| pair[0].1 < pair[1].1), "two events were published at the same time");
    let starts = starts(&stood, bench.clock().now());
    for (index, (start, first)) in starts.iter().enumerate() {
        let id = format!("new-{index}");
        bus.subscribe(accepting(&id, &seen).start(*start)).await?;
        bench.idle(&bus).await?;
        ensure_eq!(given(&seen, &id, 0), (*first..numbers).collect::<Vec<_>>(), "a new subscription, from {start:?}");
        bus.unsubscribe(&id).await?;
    }
    // In the fast tier those around one event only.
    let resets = if bench.is_full() { &starts[..] } else { &starts[starts.len() - 4..] };
    for (start, first) in resets {
        let calls = seen.count("old");
        bus.reset("old", *start).await?;
        bench.idle(&bus).await?;
        ensure_eq!(given(&seen, "old", calls), (*first..numbers).collect::<Vec<_>>(), "reset to {start:?}");
    }
    ensure_eq!(given(&seen, "beside", 0), (0..numbers).collect::<Vec<_>>(), "a subscription that was not reset");
    ensure!(bus.reset("nobody", Start::Earliest).await.is_err(), "a subscription was reset that does not exist");
    survives(bench, bus, &seen, &stood).await
}

/// Where to start, and the first event from there.
fn starts(stood: &[(Position, Timestamp)], now: Timestamp) -> Vec<(Start, u32)> {
    let numbers = stood.len() as u32;
    let mut starts = vec![(Start::Earliest, 0), (Start::Latest, numbers), (Start::Since(now), numbers)];
    for number in [0, numbers - 1, numbers / 2] {
        let (position, published) = stood[number as usize];
        starts.push((Start::At(position), number));
        starts.push((Start::Since(published), number));
        starts.push((Start::Since(published.after(TICK)), number + 1));
        starts.push((Start::Since(Timestamp::from_micros(published.as_micros() - 1)), number));
    }
    starts
}

/// Numbers that a handler was given, from a call on.
fn given(seen: &Seen, handler: &str, from: usize) -> Vec<u32> {
    seen.of(handler, "key").iter().skip(from).map(|(number, _)| *number).collect()
}

/// A subscription that was reset just before a crash begins there after it, and goes on with what comes.
async fn survives(bench: &Bench, bus: Bus, seen: &Seen, stood: &[(Position, Timestamp)]) -> Result<(), Failure> {
    if !bench.capabilities().durable {
        return bench.shutdown(bus).await;
    }
    let (numbers, calls) = (stood.len() as u32, seen.count("old"));
    bus.pause("old").await?;
    bus.reset("old", Start::At(stood[2].0)).await?;
    bench.crash(bus);
    let bus = bench.app().await?.on(accepting("old", seen)).start().await?;
    bench.publish(&bus, "key", numbers..numbers + 1).await?;
    bench.wait("the handler to be resumed", bus.resume("old")).await?;
    bench.idle(&bus).await?;
    ensure_eq!(given(seen, "old", calls), (2..=numbers).collect::<Vec<_>>(), "reset to the third, and restarted");
    bench.shutdown(bus).await
}
