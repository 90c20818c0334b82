//! What a publisher learns of its event.

use std::time::Duration;

use oncue::{
    Envelope, EventOutcome,
    handler::{HandlerError, HandlerExt as _},
    policy,
};

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    noting,
    seen::accepting,
};

/// Longer than any case may take.
const LONG: Duration = Duration::from_secs(600);

/// Case 40. A receipt tells what became of the event, for one handler or all: acknowledged, dead with the reason, or
/// still open when the time is over; asked before or after it happened. Of a handler that does not exist or does not
/// take the event it says so.
///
/// # Errors
/// It does not.
pub async fn receipts(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let flaky = noting("flaky", &seen, |_, attempt| match attempt {
        1 => Err(HandlerError::transient("not yet")),
        _ => Ok(()),
    });
    let doomed = noting("doomed", &seen, |_, _| Err(HandlerError::reject("never")));
    let stuck = (|_: Step| std::future::pending::<()>()).named("stuck");
    let other = (|_: Envelope| async {}).named("other").types(["something.else"]);
    let app = bench.app().await?.on(accepting("good", &seen)).on(flaky.retry(policy::fixed(Duration::from_millis(5))));
    let bus = app.on(doomed).on(stuck).on(other).start().await?;

    let receipt = bus.publish(Step::new("key", 1)).await?;
    let dead = EventOutcome::DeadLettered { error: "never".into() };
    for when in ["before it happened", "afterwards"] {
        for (handler, promised) in [("good", &EventOutcome::Acked), ("flaky", &EventOutcome::Acked), ("doomed", &dead)]
        {
            let outcome = bench.wait(format!("the outcome of `{handler}`"), receipt.outcome_of(handler, LONG)).await?;
            ensure_eq!(&outcome, promised, "outcome of `{handler}`, asked {when}");
        }
    }
    let short = Duration::from_millis(5);
    ensure_eq!(receipt.outcome_of("stuck", short).await?, EventOutcome::Pending, "outcome of a handler that hangs");
    let all = bench.wait("all outcomes", receipt.outcomes(Duration::from_millis(50))).await?;
    let all: Vec<_> = all.iter().map(|(handler, outcome)| (handler.as_str(), outcome)).collect();
    let pending = EventOutcome::Pending;
    let promised =
        [("good", &EventOutcome::Acked), ("flaky", &EventOutcome::Acked), ("doomed", &dead), ("stuck", &pending)];
    ensure_eq!(all, promised, "outcomes of all handlers that take it");
    let nobody = receipt.outcome_of("nobody", short).await;
    ensure!(nobody.is_err(), "outcome of a handler that does not exist: {nobody:?}");
    let other = bench.wait("the outcome of a handler that does not take it", receipt.outcome_of("other", short)).await;
    ensure!(other.is_err(), "outcome of a handler that does not take the event: {other:?}");
    drop(receipt);
    bench.untested("a handler in another process: not in the suite yet");
    bench.wait("the shutdown", bus.shutdown_within(short)).await?;
    Ok(())
}
