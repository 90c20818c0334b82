//! Handlers that change while events flow.

use std::time::Duration;

use oncue::{
    Bus, DEFAULT_GRACE,
    handler::{HandlerError, HandlerExt as _, Registration},
    policy,
    transport::Start,
};
use tokio::{sync::watch, task::JoinHandle};

use super::order::publish_in_turn;
use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    noting,
    seen::{accepting, keys},
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A handler whose calls with number 0 wait for the gate.
fn waiting(id: &str, seen: &Seen, opened: &watch::Receiver<bool>) -> Registration {
    let (seen, opened, name) = (seen.clone(), opened.clone(), id.to_owned());
    let handle = move |step: Step| {
        let (running, mut opened) = (seen.begin(&name, &step, 1), opened.clone());
        async move {
            if step.number == 0 {
                // An error means that the case is over.
                let _ = opened.wait_for(|open| *open).await;
            }
            drop(running);
        }
    };
    handle.named(id)
}

/// Lets whatever would run now run. Fails if a change ended that is to wait for the gate, and says how it ended.
async fn still_waits(
    bench: &Bench,
    change: JoinHandle<oncue::Result<()>>,
    what: &str,
) -> Result<JoinHandle<oncue::Result<()>>, Failure> {
    let begun = bench.clock().monotonic();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    if !change.is_finished() {
        return Ok(change);
    }
    let (ended, after) = (change.await?, bench.clock().monotonic().saturating_sub(begun));
    // What takes longer than the grace time may be cancelled: then the machine is too slow for this case.
    Err(Failure::new(format!("{what}: {ended:?} after {after:?} (grace {DEFAULT_GRACE:?})")))
}

/// Case 20. A handler that is paused is given nothing: what runs is finished and settled first, what comes waits, other
/// handlers go on, and a restart changes nothing of it. Resumed, it goes on where it stopped, in order.
///
/// # Errors
/// It does not.
pub async fn pause(bench: &Bench) -> Result<(), Failure> {
    let (keys, numbers) = (keys(4), bench.size(10, 500));
    let total = |rounds: u32| u64::from(rounds * numbers) * keys.len() as u64;
    let seen = Seen::new(bench);
    let (gate, opened) = watch::channel(false);
    let handlers = |app: oncue::App| app.on(waiting("paused", &seen, &opened)).on(accepting("other", &seen));
    let mut bus = handlers(bench.app().await?).start().await?;
    publish_in_turn(bench, &bus, &keys, 0..numbers).await?;
    seen_by(bench, &seen, "paused", keys.len()).await;
    let pausing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pause("paused").await }
    });
    let pausing = still_waits(bench, pausing, "it was paused while its handler was at an event of each key").await?;
    gate.send_replace(true);
    bench.wait("the pause, when what runs is finished", pausing).await??;
    let (calls, known) = (seen.count("paused"), acked(&bus, "paused"));
    ensure_eq!(known, calls as u64, "events settled when it is paused, of {calls} calls");
    publish_in_turn(bench, &bus, &keys, numbers..2 * numbers).await?;
    bench.acked(&bus, "other", total(2)).await?;
    // It is through with everything but for what is paused.
    bench.idle(&bus).await?;
    ensure_eq!(seen.count("paused"), calls, "calls after it was paused");
    if bench.capabilities().durable {
        bench.crash(bus);
        bus = handlers(bench.app().await?).start().await?;
        publish_in_turn(bench, &bus, &keys, 2 * numbers..3 * numbers).await?;
        bench.acked(&bus, "other", total(3)).await?;
        ensure_eq!(seen.count("paused"), calls, "calls while it is paused, after a restart");
    } else {
        publish_in_turn(bench, &bus, &keys, 2 * numbers..3 * numbers).await?;
    }
    bench.wait("the handler to be resumed", bus.resume("paused")).await?;
    bench.idle(&bus).await?;
    seen.complete("paused", &keys, 3 * numbers, true)?;
    seen.in_order()?;
    ensure_eq!(acked(&bus, "paused"), total(3), "events settled in all");
    ensure!(bus.pause("nobody").await.is_err(), "a handler was paused that does not exist");
    bench.shutdown(bus).await
}

async fn seen_by(bench: &Bench, seen: &Seen, handler: &str, count: usize) {
    let mut began = 0;
    while seen.count(handler) < count {
        began = seen.notes().len().max(began) + 1;
        seen.began(bench, began).await;
    }
}

fn acked(bus: &Bus, subscription: &str) -> u64 {
    let known = bus.inspect().subscriptions();
    known.iter().find(|known| known.id == subscription).map_or(0, |known| known.stats.acked)
}

/// Case 24. Handlers come and go while events flow: one that comes is given what it asked for, one that goes finishes
/// what it is at, and goes on there when it comes back; no other notices. Who waits for all to be through waits no longer for
/// one that has gone.
///
/// # Errors
/// They do not.
pub async fn subscribe(bench: &Bench) -> Result<(), Failure> {
    let (keys, numbers) = (keys(4), bench.size(10, 500));
    let seen = Seen::new(bench);
    let (gate, opened) = watch::channel(false);
    let app = bench.app().await?.on(accepting("stays", &seen)).on(waiting("goes", &seen, &opened));
    let bus = app.start().await?;
    publish_in_turn(bench, &bus, &keys, 0..numbers).await?;
    seen_by(bench, &seen, "goes", keys.len()).await;
    bus.subscribe(accepting("late", &seen).start(Start::Latest)).await?;
    if bench.capabilities().history {
        bus.subscribe(accepting("new", &seen)).await?;
    }
    let again = bus.subscribe(accepting("stays", &seen)).await;
    ensure!(again.is_err(), "two handlers are called `stays`");
    // The rest of each key is with it, and waits for the first.
    let going = tokio::spawn({
        let bus = bus.clone();
        async move { bus.unsubscribe("goes").await }
    });
    publish_in_turn(bench, &bus, &keys, numbers..2 * numbers).await?;
    let going = still_waits(bench, going, "a handler was gone that was at an event of each key").await?;
    gate.send_replace(true);
    bench.wait("the handler to go", going).await??;
    ensure_eq!(acked(&bus, "goes"), seen.count("goes") as u64, "events settled when it has gone, of its calls");
    let calls = seen.count("goes");
    publish_in_turn(bench, &bus, &keys, 2 * numbers..3 * numbers).await?;
    bench.idle(&bus).await?;
    ensure_eq!(seen.count("goes"), calls, "calls of a handler that has gone");
    ensure_eq!(detached(&bus), ["goes"], "subscriptions that nobody serves");
    ensure!(bus.remove("stays").await.is_err(), "a subscription was removed that is served");
    ensure!(bus.unsubscribe("nobody").await.is_err(), "a handler was gone that never was there");
    bus.subscribe(accepting("goes", &seen)).await?;
    bench.idle(&bus).await?;
    for handler in ["stays", "goes"] {
        seen.complete(handler, &keys, 3 * numbers, true)?;
    }
    seen.in_order()?;
    for key in &keys {
        let late: Vec<u32> = seen.of("late", key).iter().map(|(number, _)| *number).collect();
        ensure_eq!(late, (numbers..3 * numbers).collect::<Vec<_>>(), "from the latest on, key {key}");
    }
    if bench.capabilities().history {
        seen.complete("new", &keys, 3 * numbers, true)?;
        removed(bench, &bus, &keys, 3 * numbers).await?;
    }
    bench.shutdown(bus).await?;
    gone_while_all_is_waited_for(bench).await
}

/// Its event waits for a retry when it goes: nothing is settled by that which would tell whoever waits for all.
async fn gone_while_all_is_waited_for(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let fails = noting("fails", &seen, |_, _| Err(HandlerError::transient("not yet")));
    let bus = bench.app_at("-idle").await?.on(fails.retry(policy::fixed(HOUR))).start().await?;
    bench.publish(&bus, "key", 0..1).await?;
    bench.until(&bus, "fails", "a failed attempt", |known| known.stats.retried == 1).await?;
    let idle = tokio::spawn({
        let bus = bus.clone();
        async move { bus.idle().await }
    });
    let idle = still_waits(bench, idle, "all was through while an event waited for its retry").await?;
    bench.wait("a handler to go whose event waits for its retry", bus.unsubscribe("fails")).await?;
    bench.wait("every handler to be through with every event, as the one that was not has gone", idle).await??;
    bench.shutdown(bus).await
}

/// A subscription that was removed begins anew.
async fn removed(bench: &Bench, bus: &Bus, keys: &[String], numbers: u32) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    bus.unsubscribe("goes").await?;
    bus.remove("goes").await?;
    ensure_eq!(detached(bus), [""; 0], "subscriptions that nobody serves, after one was removed");
    bus.subscribe(accepting("goes", &seen)).await?;
    bench.idle(bus).await?;
    seen.complete("goes", keys, numbers, true)?;
    seen.in_order()
}

fn detached(bus: &Bus) -> Vec<String> {
    bus.detached().into_iter().map(|known| known.id).collect()
}
