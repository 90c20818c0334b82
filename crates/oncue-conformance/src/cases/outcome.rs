//! What a publisher learns of its event.

use std::time::Duration;

use oncue::{
    App, Envelope, EventOutcome, Observer,
    handler::{HandlerError, HandlerExt as _, extract::Context},
    policy,
    transport::EventAddress,
};

use crate::{
    Bench, Failure, Step,
    bench::TELLS_WITHIN,
    failure::{ensure, ensure_eq},
    process::Process,
    worker::{HANDLING, Task},
};

/// Longer than any case may take.
const LONG: Duration = Duration::from_secs(600);
/// Enough to see that nothing is known.
const SHORT: Duration = Duration::from_millis(5);
/// Where other processes publish and handle.
const ELSEWHERE: &str = "-elsewhere";

/// Case 40. A receipt tells what became of the event, for one handler or all: acknowledged, dead with the reason, or
/// still open when the time is over; asked before or after it happened. Of a handler that does not exist or does not
/// take the event it says so. So does an observer where one process published, another handles, and a third asks; and so
/// does the receipt, taken up again where the log is opened after them.
///
/// # Errors
/// It does not.
pub async fn receipts(bench: &Bench) -> Result<(), Failure> {
    here(bench).await?;
    match bench.observer(ELSEWHERE) {
        Ok(observer) => elsewhere(bench, &observer).await.map_err(|failure| failure.at("in another process")),
        Err(why) => {
            bench.untested(format!("a handler in another process: {why}"));
            Ok(())
        }
    }
}

/// Handlers with every outcome that there is, and one that does not take the event.
pub(crate) fn handlers(app: App) -> App {
    let good = |_: Step| async { tokio::task::yield_now().await };
    let flaky = |_: Step, context: Context| async move {
        if context.attempt() == 1 { Err(HandlerError::transient("not yet")) } else { Ok(()) }
    };
    let doomed = |_: Step| async { Err::<(), _>(HandlerError::reject("never")) };
    let stuck = |_: Step| std::future::pending::<()>();
    let other = |_: Envelope| async {};
    let app = app.on(good.named("good")).on(flaky.named("flaky").retry(policy::fixed(SHORT)));
    app.on(doomed.named("doomed")).on(stuck.named("stuck")).on(other.named("other").types(["something.else"]))
}

/// What is to be told of those handlers that come to an end.
fn promised() -> [(&'static str, EventOutcome); 3] {
    let dead = EventOutcome::DeadLettered { error: "never".into() };
    [("good", EventOutcome::Acked), ("flaky", EventOutcome::Acked), ("doomed", dead)]
}

/// The outcomes of all handlers that take the event, as `ask` tells them within a time: longer and longer, as one of them
/// never comes, which each question waits for.
///
/// # Errors
/// They are not those that are promised, within [`TELLS_WITHIN`] either.
async fn all<A, E>(bench: &Bench, ask: impl Fn(Duration) -> A) -> Result<(), Failure>
where
    A: Future<Output = Result<Vec<(String, EventOutcome)>, E>>,
    Failure: From<E>,
{
    let with_stuck = promised().into_iter().chain([("stuck", EventOutcome::Pending)]);
    let promised: Vec<_> = with_stuck.map(|(handler, outcome)| (handler.to_owned(), outcome)).collect();
    let mut wait = SHORT;
    loop {
        let outcomes = bench.wait("all outcomes", ask(wait)).await?;
        if outcomes == promised || wait > TELLS_WITHIN {
            ensure_eq!(outcomes, promised, "outcomes of all handlers that take it");
            return Ok(());
        }
        wait *= 2;
    }
}

async fn here(bench: &Bench) -> Result<(), Failure> {
    let bus = handlers(bench.app().await?).start().await?;
    let receipt = bus.publish(Step::new("key", 1)).await?;
    for when in ["before it happened", "afterwards"] {
        for (handler, promised) in promised() {
            let outcome = bench.wait(format!("the outcome of `{handler}`"), receipt.outcome_of(handler, LONG)).await?;
            ensure_eq!(outcome, promised, "outcome of `{handler}`, asked {when}");
        }
    }
    ensure_eq!(receipt.outcome_of("stuck", SHORT).await?, EventOutcome::Pending, "outcome of a handler that hangs");
    all(bench, |wait| receipt.outcomes(wait)).await?;
    for handler in ["nobody", "other"] {
        let outcome =
            bench.wait(format!("the outcome of `{handler}`"), receipt.outcome_of(handler, TELLS_WITHIN)).await;
        ensure!(outcome.is_err(), "outcome of `{handler}`, which takes no such event: {outcome:?}");
    }
    drop(receipt);
    bench.wait("the shutdown", bus.shutdown_within(SHORT)).await?;
    Ok(())
}

async fn elsewhere(bench: &Bench, observer: &Observer) -> Result<(), Failure> {
    let start = |task| match bench.worker(ELSEWHERE, task) {
        Some(command) => Process::start(command),
        None => Err(Failure::new("nobody said how to start one (`Suite::worker`)")),
    };
    let mut publisher = start(Task::Publish)?;
    let event: EventAddress = serde_json::from_str(&publisher.says(bench).await?)?;
    publisher.ends(bench).await?;
    let mut handling = start(Task::Handle)?;
    ensure_eq!(handling.says(bench).await?, HANDLING, "what a process says when it handles");
    for (handler, promised) in promised() {
        let outcome = observer.outcome_of(&event, handler, LONG);
        let outcome = bench.wait(format!("the outcome of `{handler}` to be seen"), outcome).await?;
        ensure_eq!(outcome, promised, "outcome of `{handler}`");
    }
    let stuck = observer.outcome_of(&event, "stuck", SHORT).await?;
    ensure_eq!(stuck, EventOutcome::Pending, "outcome of a handler that hangs");
    // They are told in the order in which the subscriptions were made: side by side, if they were one app's.
    let place_of = |handler: &str| ["good", "flaky", "doomed", "stuck"].iter().position(|known| *known == handler);
    let in_order = |mut outcomes: Vec<(String, EventOutcome)>| {
        outcomes.sort_by_key(|(handler, _)| place_of(handler));
        outcomes
    };
    let asked = &event;
    all(bench, |wait| async move { observer.outcomes(asked, wait).await.map(in_order) }).await?;
    for handler in ["nobody", "other"] {
        let outcome = observer.outcome_of(&event, handler, TELLS_WITHIN).await;
        ensure!(outcome.is_err(), "outcome of `{handler}`, which takes no such event: {outcome:?}");
    }
    let another = EventAddress { id: "another".into(), ..event.clone() };
    let outcome = observer.outcome_of(&another, "good", TELLS_WITHIN).await;
    ensure!(outcome.is_err(), "outcome of an event that is not there: {outcome:?}");
    handling.kill(bench).await?;

    let bus = handlers(bench.app_at(ELSEWHERE).await?).start().await?;
    let receipt = bus.receipt(&event)?;
    for (handler, promised) in promised() {
        let outcome = bench.wait(format!("the outcome of `{handler}`"), receipt.outcome_of(handler, LONG)).await?;
        ensure_eq!(outcome, promised, "outcome of `{handler}` after all of them");
    }
    all(bench, |wait| receipt.outcomes(wait)).await?;
    ensure!(bus.receipt(&another).is_err(), "a receipt of an event that is not there");
    drop(receipt);
    bench.wait("the shutdown", bus.shutdown_within(SHORT)).await?;
    Ok(())
}
