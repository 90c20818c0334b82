//! Several instances of one subscription.

use oncue::{App, handler::HandlerExt as _};
use tokio::sync::watch;

use super::{flow::MOST_EVENTS, order::publish_in_turn};
use crate::{
    Bench, Failure, Seen, Step,
    failure::ensure_eq,
    seen::{accepting, keys},
};

/// Instances of the shared subscription.
const MEMBERS: usize = 3;

/// Case 14. Each group is given every event, and the members of a group share them: none is missing, none comes twice,
/// and all members work where there is enough for all. A member that leaves, in good order or not, leaves what it holds
/// to the others.
///
/// # Errors
/// They do not.
pub async fn groups(bench: &Bench) -> Result<(), Failure> {
    if !bench.instances() {
        return bench.skip("only one instance can serve a subscription at a time");
    }
    Failure::of_parts([
        ("sharing", sharing(bench).await),
        ("a member is dropped", leaving(bench, Leaves::Dropped).await),
        ("a member is shut down", leaving(bench, Leaves::ShutDown).await),
    ])
}

async fn sharing(bench: &Bench) -> Result<(), Failure> {
    // What one member may hold unhandled, for all but the last of them, and some more.
    let keys = keys(bench.size((MEMBERS as u32 - 1) * MOST_EVENTS as u32 + 200, 50_000));
    let seen = Seen::new(bench);
    let (gate, opened) = watch::channel(false);
    let calls = watch::Sender::new([0_usize; MEMBERS]);
    let transport = bench.transport_at("-sharing").await?;
    let mut members = Vec::new();
    for member in 0..MEMBERS {
        let (seen, calls, opened) = (seen.clone(), calls.clone(), opened.clone());
        let handle = move |step: Step| {
            let (running, mut opened) = (seen.begin("shared", &step, 1), opened.clone());
            calls.send_modify(|calls| calls[member] += 1);
            async move {
                // An error means that the case is over.
                let _ = opened.wait_for(|open| *open).await;
                drop(running);
            }
        };
        members.push(bench.app_beside(&transport).on(handle.named("shared")).start().await?);
    }
    let other = bench.app_beside(&transport).on(accepting("other", &seen)).start().await?;
    for some in keys.chunks(1_000) {
        publish_in_turn(bench, &other, some, 0..1).await?;
    }
    let mut counted = calls.subscribe();
    let all_work = counted.wait_for(|calls| calls.iter().all(|calls| *calls > 0));
    // The sender lives as long as this.
    let _ = bench.wait("every member of the group to be given an event", all_work).await;
    gate.send_replace(true);
    bench.idle(&other).await?;
    for group in ["shared", "other"] {
        seen.complete(group, &keys, 1, true)?;
    }
    seen.in_order()?;
    bench.note(format!("events by member: {:?}", *calls.borrow()));
    for member in members.into_iter().chain([other]) {
        bench.shutdown(member).await?;
    }
    Ok(transport.close().await?)
}

/// How a member of a group goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Dropped,
    ShutDown,
}

async fn leaving(bench: &Bench, how: Leaves) -> Result<(), Failure> {
    let (keys, numbers) = (keys(16), bench.size(20, 500));
    let seen = Seen::new(bench);
    let (gate, opened) = watch::channel(false);
    let place = if how == Leaves::Dropped { "-dropped" } else { "-shut-down" };
    let transport = bench.transport_at(place).await?;
    let app = || bench.app_beside(&transport);
    // What the one that is dropped began is begun again while it may still be going: it has a name of its own.
    let name = if how == Leaves::Dropped { "dropped" } else { "shared" };
    let leaver = waiting(app(), &seen, name, opened).start().await?;
    publish_in_turn(bench, &leaver, &keys, 0..numbers).await?;
    seen.began(bench, keys.len()).await;
    // It is at an event of each key when others come, and holds all that there is.
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(app().on(accepting("shared", &seen)).start().await?);
    }
    ensure_eq!(seen.notes().len(), keys.len(), "calls while the first member is at an event of each key");
    match how {
        Leaves::Dropped => bench.crash(leaver),
        Leaves::ShutDown => {
            let leaving = tokio::spawn({
                let leaver = leaver.clone();
                async move { leaver.shutdown().await }
            });
            gate.send_replace(true);
            bench.wait("the member to leave", leaving).await??;
            let acked: u64 = others[0].inspect().subscriptions().iter().map(|known| known.stats.acked).sum();
            ensure_eq!(acked >= keys.len() as u64, true, "what the member was at is settled");
        }
    }
    bench.idle(&others[0]).await?;
    seen.complete("shared", &keys, numbers, true)?;
    seen.in_order()?;
    for other in others {
        bench.shutdown(other).await?;
    }
    Ok(transport.close().await?)
}

/// An instance whose calls wait for the gate.
fn waiting(app: App, seen: &Seen, name: &'static str, opened: watch::Receiver<bool>) -> App {
    let seen = seen.clone();
    let handle = move |step: Step| {
        let (running, mut opened) = (seen.begin(name, &step, 1), opened.clone());
        async move {
            let _ = opened.wait_for(|open| *open).await;
            drop(running);
        }
    };
    app.on(handle.named("shared").concurrency(16))
}
