//! Handlers that ask for more time.

use std::{thread, time::Duration};

use oncue::{
    Timestamp,
    handler::{HandlerExt as _, Registration, extract::Context},
    policy::{self, ErrorClass},
};
use tokio::{runtime::Handle, sync::watch};

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
};

/// How long an attempt may take.
const TIMEOUT: Duration = Duration::from_millis(30);

/// What those ask for who need more.
const ENOUGH: Duration = Duration::from_secs(600);

/// What those ask for who need still more.
const TOO_LITTLE: Duration = Duration::from_millis(120);

/// What two clocks may differ by within a case.
const SKEW: Duration = Duration::from_millis(5);

/// Ends once the gate is open.
async fn pass(mut opened: watch::Receiver<bool>) {
    // An error means that the case is over.
    let _ = opened.wait_for(|open| *open).await;
}

/// Asks for enough, and is through when the gate is open.
fn patient(seen: &Seen, opened: &watch::Receiver<bool>) -> [Registration; 2] {
    let (noted, gate) = (seen.clone(), opened.clone());
    let future = move |step: Step, context: Context| {
        let (running, opened) = (noted.begin("future", &step, context.attempt()), gate.clone());
        async move {
            context.extend(ENOUGH);
            pass(opened).await;
            drop(running);
        }
    };
    let (noted, gate) = (seen.clone(), opened.clone());
    let blocking = move |step: Step, context: Context| {
        let running = noted.begin("blocking", &step, context.attempt());
        context.extend(ENOUGH);
        Handle::current().block_on(pass(gate.clone()));
        drop(running);
    };
    [future.named("future").timeout(TIMEOUT), blocking.named("blocking").timeout(TIMEOUT)]
}

/// Asks for too little: one would go on for ever, the other returns when its time is over.
fn late(seen: &Seen) -> [Registration; 2] {
    let noted = seen.clone();
    let future = move |step: Step, context: Context| {
        let running = noted.begin("late-future", &step, context.attempt());
        async move {
            context.extend(TOO_LITTLE);
            std::future::pending::<()>().await;
            drop(running);
        }
    };
    let noted = seen.clone();
    let blocking = move |step: Step, context: Context| {
        let running = noted.begin("late-blocking", &step, context.attempt());
        context.extend(TOO_LITTLE);
        while let Some(left) = context.time_left().filter(|left| !left.is_zero()) {
            thread::park_timeout(left);
        }
        drop(running);
    };
    let limited = |registration: Registration| registration.timeout(TIMEOUT).retry(policy::never());
    [limited(future.named("late-future")), limited(blocking.named("late-blocking"))]
}

/// Case 12. A handler that asks for more time has it, whether it can be cancelled or not: it is settled once, as its first
/// attempt, and its key waits for it. It has no more than it asked for.
///
/// # Errors
/// It does not.
pub async fn extended(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let (gate, opened) = watch::channel(false);
    let app = patient(&seen, &opened).into_iter().chain(late(&seen)).fold(bench.app().await?, oncue::App::on);
    let bus = app.start().await?;
    bench.publish(&bus, "key", 0..1).await?;
    seen.began(bench, 4).await;
    bench.publish(&bus, "key", 1..2).await?;
    // Four times the timeout of those that wait, and more than the others asked for.
    bench.wait("the timeout to pass", bench.clock().sleep(4 * TIMEOUT)).await;
    for handler in ["late-future", "late-blocking"] {
        bench.until(&bus, handler, "two dead letters", |known| known.dead >= 2).await?;
    }
    for handler in ["future", "blocking"] {
        ensure_eq!(seen.of(handler, "key"), [(0, 1)], "calls of `{handler}`, which has time");
    }
    gate.send_replace(true);
    bench.idle(&bus).await?;
    for handler in ["future", "blocking"] {
        ensure_eq!(seen.of(handler, "key"), [(0, 1), (1, 1)], "calls of `{handler}`");
        let known = bus.inspect().subscriptions();
        let stats = known.iter().find(|known| known.id == handler).map(|known| &known.stats);
        let counts = stats.map(|stats| (stats.acked, stats.retried, stats.dead));
        ensure_eq!(counts, Some((2, 0, 0)), "acked, retried and dead of `{handler}`");
    }
    for handler in ["late-future", "late-blocking"] {
        ensure_eq!(seen.of(handler, "key"), [(0, 1), (1, 1)], "calls of `{handler}`");
        let lasted = |(began, ended): (Timestamp, Timestamp)| ended.since(began);
        let notes = seen.notes().into_iter().filter(|note| note.handler == handler);
        for lasted in notes.filter_map(|note| Some(lasted((note.began, note.ended?)))) {
            ensure!(lasted + SKEW >= TOO_LITTLE, "`{handler}` had {lasted:?}, it asked for {TOO_LITTLE:?}");
        }
        let dead = bus.inspect().dead_letters(handler)?;
        let classes: Vec<_> = dead.iter().flat_map(|dead| &dead.history).map(|attempt| attempt.class).collect();
        ensure_eq!(classes, [ErrorClass::Timeout; 2], "how the attempts of `{handler}` ended");
    }
    seen.in_order()?;
    bench.shutdown(bus).await
}
