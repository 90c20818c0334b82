//! Restarts, cuts and changes of who serves, while events flow.

use std::{sync::Arc, time::Duration};

use oncue::{
    App, Bus, Envelope,
    event::DEFAULT_TOPIC,
    handler::{HandlerExt as _, Registration, extract::Context},
    transport::Transport,
};
use tokio::sync::watch;

use crate::{
    Bench, Disturbance, Failure, Seen, Step,
    failure::ensure_eq,
    seen::{accepting, keys},
};

/// Publishers, each with a key of its own.
const PUBLISHERS: u32 = 10;
/// How long the handler is at an event.
const WORK: Duration = Duration::from_millis(1);

/// Case 17. The transport goes away at a third and at the half of the events and comes back, and instances come and go,
/// while publishers try again until they are told that it worked: nothing is lost, each key stays in order, each event is
/// settled once, and what was handled twice is counted.
///
/// # Errors
/// Something is.
pub async fn disturbed(bench: &Bench) -> Result<(), Failure> {
    let mut parts = Vec::new();
    let mut asked = Vec::new();
    if bench.capabilities().durable {
        asked.push("opened again, after a crash and after closing".to_owned());
        parts.push(("opened again", flow(bench, "-opened", [Interruption::Crash, Interruption::Close]).await));
    }
    for (disturbance, name, place) in
        [(Disturbance::Restart, "broker restart", "-restart"), (Disturbance::Cut, "connection cut", "-cut")]
    {
        // Only asked here: nothing happens before it is awaited.
        match bench.disturb(disturbance, place) {
            Ok(_) => {
                asked.push(name.to_owned());
                parts.push((name, flow(bench, place, [Interruption::Outside(disturbance); 2]).await));
            }
            Err(reason) => bench.note(format!("no {name}: {reason}")),
        }
    }
    if bench.instances() {
        asked.push("instances that come and go".to_owned());
        parts.push(("instances", instances(bench).await));
    }
    if asked.is_empty() {
        return bench.skip("nothing of it can be taken away and given back");
    }
    bench.note(format!("asked: {}", asked.join(", ")));
    Failure::of_parts(parts)
}

/// How the transport goes away.
#[derive(Clone, Copy)]
enum Interruption {
    /// Whoever has it open is gone.
    Crash,
    /// It is closed.
    Close,
    /// Something happens to its other end.
    Outside(Disturbance),
}

async fn flow(bench: &Bench, place: &str, interruptions: [Interruption; 2]) -> Result<(), Failure> {
    let (keys, numbers) = (keys(PUBLISHERS), bench.size(60, 1_000));
    let total = numbers * PUBLISHERS;
    let seen = Seen::new(bench);
    let open = || async {
        let app = bench.app_at(place).await?;
        // Whoever had it open begins nothing any more.
        seen.crashed();
        Ok::<_, Failure>(app.on(working(bench, &seen)).start().await?)
    };
    let connection = watch::Sender::new(Some(open().await?));
    let published = watch::Sender::new(0_u32);
    let publishing: Vec<_> = keys
        .iter()
        .map(|key| {
            let (connection, published) = (connection.subscribe(), published.clone());
            tokio::spawn(publish_until_told(bench.clock().clone(), connection, key.clone(), numbers, published))
        })
        .collect();
    for (interruption, at) in interruptions.into_iter().zip([total / 3, total / 2]) {
        let mut counted = published.subscribe();
        // The sender lives as long as this.
        let _ = bench.wait(format!("{at} events to be published"), counted.wait_for(|count| *count >= at)).await;
        match interruption {
            Interruption::Outside(disturbance) => {
                let disturbed = bench.disturb(disturbance, place).map_err(Failure::new)?;
                bench.wait(format!("{disturbance:?}"), disturbed).await;
                continue;
            }
            Interruption::Crash => {
                let bus = connection.send_replace(None);
                bus.into_iter().for_each(|bus| bench.crash(bus));
            }
            Interruption::Close => {
                // Publishers are told that it is closed, and try until it is there again.
                let bus = connection.borrow().clone();
                if let Some(bus) = bus {
                    bench.shutdown(bus).await?;
                }
                connection.send_replace(None);
            }
        }
        connection.send_replace(Some(open().await?));
    }
    for publisher in publishing {
        bench.wait("a publisher", publisher).await??;
    }
    let Some(bus) = connection.send_replace(None) else { return Ok(()) };
    bench.idle(&bus).await?;
    seen.complete("steady", &keys, numbers, false)?;
    seen.in_order()?;
    let known = bus.inspect().subscriptions();
    if bench.capabilities().deduplicates {
        let kept = bus.inspect().browse(DEFAULT_TOPIC, 0, usize::MAX)?.len();
        ensure_eq!(kept, total as usize, "events that stand in the topic");
        ensure_eq!(known.first().map(|known| known.stats.acked), Some(u64::from(total)), "events settled");
    }
    bench.note(format!("{} of {total} events were handled again", seen.count("steady") - total as usize));
    bench.shutdown(bus).await
}

/// A handler that takes its time, so that there always is something in hand.
fn working(bench: &Bench, seen: &Seen) -> Registration {
    let (seen, clock) = (seen.clone(), bench.clock().clone());
    let handle = move |step: Step, context: Context| {
        let (running, working) = (seen.begin("steady", &step, context.attempt()), clock.sleep(WORK));
        async move {
            working.await;
            drop(running);
        }
    };
    handle.named("steady")
}

/// Publishes one event after the other, each until it is told that it is published: always with the same id.
async fn publish_until_told(
    clock: oncue::Clock,
    mut connection: watch::Receiver<Option<Bus>>,
    key: String,
    numbers: u32,
    published: watch::Sender<u32>,
) -> Result<(), Failure> {
    for number in 0..numbers {
        let event = Envelope::builder_of(&Step::new(&key, number))?;
        let event = event.id(format!("{key}-{number}")).source("/disturbed").build()?;
        loop {
            let open = connection.wait_for(Option::is_some).await?.clone();
            if let Some(bus) = open
                && bus.publish(event.clone()).await.is_ok()
            {
                break;
            }
            clock.sleep(Duration::from_millis(1)).await;
        }
        published.send_modify(|count| *count += 1);
    }
    Ok(())
}

/// Instances join and leave, in good order and not, while events flow.
async fn instances(bench: &Bench) -> Result<(), Failure> {
    let (keys, numbers, rounds) = (keys(16), bench.size(40, 400), bench.size(8, 40));
    let total = numbers as usize * keys.len();
    let seen = Seen::new(bench);
    let transport: Arc<dyn Transport> = bench.transport_at("-instances").await?;
    let steady = bench.app_beside(&transport).on(accepting("shared", &seen)).start().await?;
    let publishing = tokio::spawn(publish_rounds(steady.clone(), keys.clone(), numbers));
    let mut members: Vec<(bool, Bus)> = Vec::new();
    for round in 0..rounds {
        let drops = round % 2 == 0;
        let app: App = bench.app_beside(&transport);
        // What a dropped instance had begun would still be going while another one begins it again: it begins nothing
        // that it does not end at once.
        let app = if drops { app.on(at_once(&seen)) } else { app.on(accepting("shared", &seen)) };
        members.push((drops, app.start().await?));
        seen.ended(bench, total * round as usize / rounds as usize).await;
        if members.len() > 3 {
            match members.remove(0) {
                (true, bus) => bench.crash(bus),
                (false, bus) => bench.shutdown(bus).await?,
            }
        }
    }
    bench.wait("the publisher", publishing).await??;
    bench.idle(&steady).await?;
    seen.complete("shared", &keys, numbers, false)?;
    seen.in_order()?;
    let known = steady.inspect().subscriptions();
    ensure_eq!(known.first().map(|known| known.stats.acked), Some(total as u64), "events settled");
    let again = seen.count("shared") - total;
    bench.note(format!("{again} of {total} events were handled again when instances left"));
    for (_, member) in members {
        bench.shutdown(member).await?;
    }
    bench.shutdown(steady).await?;
    Ok(transport.close().await?)
}

fn at_once(seen: &Seen) -> Registration {
    let seen = seen.clone();
    let handle = move |step: &Step, context: Context| {
        drop(seen.begin("shared", step, context.attempt()));
    };
    handle.named("shared").inline()
}

async fn publish_rounds(bus: Bus, keys: Vec<String>, numbers: u32) -> Result<(), Failure> {
    for number in 0..numbers {
        let steps = keys.iter().map(|key| Step::new(key, number).envelope()).collect::<Result<Vec<_>, _>>()?;
        bus.publish_all(DEFAULT_TOPIC, steps, None).await?;
    }
    Ok(())
}
