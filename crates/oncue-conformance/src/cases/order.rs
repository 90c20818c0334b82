//! Order within a key, and nothing between keys.

use std::{
    ops::Range,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use oncue::{
    Bus, Envelope,
    event::DEFAULT_TOPIC,
    handler::{HandlerError, HandlerExt as _},
    policy,
    transport::{EventRef, Ordered, Position, Transport},
};
use parking_lot::Mutex;

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    noting,
    seen::{accepting, keys},
};

/// Case 9. When the next event of a key starts, the one before is settled: whoever asks is told its outcome.
///
/// # Errors
/// It is not.
pub async fn settled_first(bench: &Bench) -> Result<(), Failure> {
    let transport = bench.transport().await?;
    let asked: Arc<Weak<dyn Transport>> = Arc::new(Arc::downgrade(&transport));
    let before: Arc<OnceLock<Mutex<std::collections::HashMap<String, EventRef>>>> = Arc::default();
    let seen = Seen::new(bench);
    let handle = {
        let (seen, before) = (seen.clone(), Arc::clone(&before));
        move |step: Step, position: Position, envelope: Envelope| {
            let running = seen.begin("careful", &step, 1);
            let event = EventRef { topic: DEFAULT_TOPIC.into(), position, envelope };
            let before = before.get_or_init(Mutex::default).lock().insert(step.key.clone(), event);
            let transport = asked.upgrade();
            async move {
                if let (Some(before), Some(transport)) = (before, transport) {
                    // One that is not settled is waited for until the case is over.
                    transport.outcome(&before, "careful").await.map_err(HandlerError::reject)?;
                }
                drop(running);
                Ok::<_, HandlerError>(())
            }
        }
    };
    let bus = oncue::App::with_transport(transport, bench.clock().clone()).on(handle.named("careful")).start().await?;
    let (keys, numbers) = (keys(8), bench.size(20, 200));
    for key in &keys {
        bench.publish(&bus, key, 0..numbers).await?;
    }
    bench.idle(&bus).await?;
    let dead = bus.inspect().dead_letters("careful")?;
    let errors = dead.iter().flat_map(|dead| &dead.history).map(|attempt| attempt.error.as_str()).next();
    ensure!(dead.is_empty(), "{} outcomes are not known: {}", dead.len(), errors.unwrap_or_default());
    seen.complete("careful", &keys, numbers, true)?;
    seen.in_order()?;
    bench.shutdown(bus).await
}

/// Case 13. Events of 16 keys, published turn by turn, are handled in order within each key, and each once: by one
/// instance, and by ten that share the subscription; also where the next event of a key need not wait until the last one is
/// settled.
///
/// # Errors
/// They are not.
pub async fn per_key(bench: &Bench) -> Result<(), Failure> {
    let one = ("one instance", per_key_with(bench, 1, false).await);
    let pipelined = ("one instance, pipelined", per_key_with(bench, 1, true).await);
    if !bench.instances() {
        bench.note("one instance: only one can serve a subscription at a time");
        return Failure::of_parts([one, pipelined]);
    }
    let ten = ("ten instances", per_key_with(bench, 10, false).await);
    Failure::of_parts([one, pipelined, ten, ("ten instances, pipelined", per_key_with(bench, 10, true).await)])
}

async fn per_key_with(bench: &Bench, instances: usize, pipelined: bool) -> Result<(), Failure> {
    let (keys, numbers) = (keys(16), bench.size(50, 1_000));
    let seen = Seen::new(bench);
    let place = format!("-{instances}{}", if pipelined { "-pipelined" } else { "" });
    let transport = bench.transport_at(&place).await?;
    let mut buses = Vec::with_capacity(instances);
    for _ in 0..instances {
        let handler = accepting("ordered", &seen);
        let handler = if pipelined { handler.pipelined() } else { handler };
        buses.push(bench.app_beside(&transport).on(handler).start().await?);
    }
    publish_in_turn(bench, &buses[0], &keys, 0..numbers).await?;
    bench.idle(&buses[0]).await?;
    seen.complete("ordered", &keys, numbers, true)?;
    seen.in_order()?;
    for bus in buses {
        bench.shutdown(bus).await?;
    }
    Ok(transport.close().await?)
}

/// Publishes events of these keys as one batch, number by number.
pub(super) async fn publish_in_turn(
    bench: &Bench,
    bus: &Bus,
    keys: &[String],
    numbers: Range<u32>,
) -> Result<(), Failure> {
    let mut steps = Vec::new();
    for number in numbers {
        for key in keys {
            steps.push(Step::new(key, number).envelope()?);
        }
    }
    bench.publish_all(bus, steps).await.map(drop)
}

/// Case 37. Nine of ten events are of one key, and that key stands still: all others are handled all the same. Counted,
/// not timed: what the hot key takes from them is room, and room shows on any machine.
///
/// # Errors
/// They wait for the hot key.
pub async fn hot_key(bench: &Bench) -> Result<(), Failure> {
    // More of the hot key than any window holds.
    let others = bench.size(1_000, 4_000);
    Failure::of_parts([
        ("strict order", hot_beside(bench, others, Ordered::Strict, "strict").await),
        ("relaxed order", hot_beside(bench, others, Ordered::Relaxed, "relaxed").await),
    ])
}

async fn hot_beside(bench: &Bench, others: u32, ordered: Ordered, name: &str) -> Result<(), Failure> {
    const HOT: u32 = 9;
    let (done, gate) = (tokio::sync::watch::Sender::new((0, 0)), tokio::sync::watch::Sender::new(false));
    let handle = {
        let (done, gate) = (done.clone(), gate.clone());
        move |step: Step| {
            let (done, mut gate) = (done.clone(), gate.subscribe());
            async move {
                if step.key == "hot" {
                    // The sender lives as long as the case.
                    let _ = gate.wait_for(|open| *open).await;
                    done.send_modify(|(_, hot)| *hot += 1);
                } else {
                    done.send_modify(|(others, _)| *others += 1);
                }
            }
        }
    };
    let app = bench.app_at(&format!("-{name}")).await?;
    let bus = app.on(handle.named("busy").ordered(ordered)).start().await?;
    for number in 0..others / 100 {
        let mut steps = Vec::new();
        for other in number * 100..(number + 1) * 100 {
            for repeat in 0..HOT {
                steps.push(Step::new("hot", other * HOT + repeat).envelope()?);
            }
            steps.push(Step::new(&format!("key-{}", other % 97), other).envelope()?);
        }
        bench.publish_all(&bus, steps).await?;
    }
    let mut counted = done.subscribe();
    let waited = format!("{others} events in {name} order beside {HOT} times as many of a key that stands still");
    bench.wait(waited, counted.wait_for(|(count, _)| *count >= others)).await?;
    let hot = counted.borrow().1;
    ensure!(hot == 0, "{hot} events of the hot key were handled although its handler stands still");
    gate.send_replace(true);
    bench.wait("the shutdown", bus.shutdown()).await?;
    Ok(())
}

/// Events of each key in case 44.
const NUMBERS: u32 = 10;

/// Case 44. The first event of each key fails once: with strict order each key waits for it; with relaxed order the
/// later events pass it, and it still gets its second attempt.
///
/// # Errors
/// It is not.
pub async fn first_fails(bench: &Bench) -> Result<(), Failure> {
    Failure::of_parts([
        ("strict order", waits(bench, false).await),
        ("strict order, pipelined", waits(bench, true).await),
        ("relaxed order", passes(bench).await),
        ("relaxed order, tried again", tried_again(bench).await),
    ])
}

/// Serves events of many keys whose first ones fail once.
async fn first_fails_in(
    bench: &Bench,
    (ordered, pipelined, place): (Ordered, bool, &str),
    delay: Duration,
    seen: &Seen,
) -> Result<(Bus, Vec<String>), Failure> {
    let keys = keys(bench.size(20, 200));
    let answer = |step: &Step, attempt| match (step.number, attempt) {
        (0, 1) => Err(HandlerError::transient("the first one")),
        _ => Ok(()),
    };
    let flaky = noting("flaky", seen, answer).retry(policy::fixed(delay)).ordered(ordered);
    let flaky = if pipelined { flaky.pipelined() } else { flaky };
    let bus = bench.app_at(place).await?.on(flaky).start().await?;
    publish_in_turn(bench, &bus, &keys, 0..NUMBERS).await?;
    Ok((bus, keys))
}

async fn waits(bench: &Bench, pipelined: bool) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let (delay, place) = (Duration::from_millis(100), if pipelined { "-pipelined" } else { "-strict" });
    let (bus, keys) = first_fails_in(bench, (Ordered::Strict, pipelined, place), delay, &seen).await?;
    bench.idle(&bus).await?;
    let promised: Vec<_> = [(0, 1), (0, 2)].into_iter().chain((1..NUMBERS).map(|number| (number, 1))).collect();
    for key in &keys {
        ensure_eq!(seen.of("flaky", key), promised, "calls with key {key}");
    }
    bench.shutdown(bus).await
}

/// The second attempt is far away: whatever is handled has passed the first event.
async fn passes(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let delay = Duration::from_secs(3_600);
    let (bus, keys) = first_fails_in(bench, (Ordered::Relaxed, false, "-relaxed"), delay, &seen).await?;
    bench.acked(&bus, "flaky", u64::from(NUMBERS - 1) * keys.len() as u64).await?;
    let promised: Vec<_> = (0..NUMBERS).map(|number| (number, 1)).collect();
    for key in &keys {
        ensure_eq!(seen.of("flaky", key), promised, "calls with key {key}");
    }
    bench.shutdown(bus).await
}

async fn tried_again(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let delay = Duration::from_millis(20);
    let (bus, keys) = first_fails_in(bench, (Ordered::Relaxed, false, "-again"), delay, &seen).await?;
    bench.idle(&bus).await?;
    let promised: Vec<_> = [(0, 1), (0, 2)].into_iter().chain((1..NUMBERS).map(|number| (number, 1))).collect();
    for key in &keys {
        let mut calls = seen.of("flaky", key);
        calls.sort_unstable();
        ensure_eq!(calls, promised, "calls with key {key}, sorted");
    }
    bench.shutdown(bus).await
}

/// Case 45. While the handler is at one key for long, the others are handled: none waits for the slow one to end.
///
/// # Errors
/// One does.
pub async fn slow_key(bench: &Bench) -> Result<(), Failure> {
    let (keys, numbers) = (keys(bench.size(50, 500)), 20);
    let seen = Seen::new(bench);
    let (gate, opened) = tokio::sync::watch::channel(false);
    let handle = {
        let seen = seen.clone();
        move |step: Step| {
            let (running, mut opened) = (seen.begin("slow", &step, 1), opened.clone());
            async move {
                if step.key == "slow" {
                    // An error means that the case is over.
                    let _ = opened.wait_for(|open| *open).await;
                }
                drop(running);
            }
        }
    };
    let bus = bench.app().await?.on(handle.named("slow").concurrency(4)).start().await?;
    bench.publish(&bus, "slow", 0..numbers).await?;
    publish_in_turn(bench, &bus, &keys, 0..numbers).await?;
    let others = u64::from(numbers) * keys.len() as u64;
    bench.acked(&bus, "slow", others).await?;
    ensure_eq!(seen.of("slow", "slow"), [(0, 1)], "calls with the slow key");
    gate.send_replace(true);
    bench.idle(&bus).await?;
    seen.in_order()?;
    bench.shutdown(bus).await
}
