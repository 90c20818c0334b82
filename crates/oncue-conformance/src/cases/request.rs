//! Requests and their replies.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use oncue::{
    Bus, Event, RequestError,
    handler::{
        HandlerError, HandlerExt as _, Registration,
        extract::{Context, EmitError},
    },
    policy,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    Bench, Failure, Step,
    failure::{ensure, ensure_eq},
};

/// How long a requester waits who is to get a reply: longer than a case may take.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// How long a requester waits who is to get none.
const SHORT: Duration = Duration::from_millis(30);

/// What a step is answered with.
#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "answered")]
struct Answered {
    key: String,
    number: u32,
    attempt: u32,
}

/// Asked by nobody.
#[derive(Event, Serialize, Deserialize)]
#[event(type = "unheard")]
struct Unheard;

/// What handlers were told when they replied to what is no request.
type Refused = Arc<Mutex<Vec<Result<(), EmitError>>>>;

/// Answers steps when it is their turn: their numbers count down. The key says what else it does.
fn answering(turn: &watch::Sender<u32>, refused: &Refused) -> Registration {
    let (turn, refused) = (turn.clone(), Arc::clone(refused));
    let handle = move |step: Step, context: Context| {
        let (turn, refused) = (turn.clone(), Arc::clone(&refused));
        async move {
            let Step { key, number } = step;
            let attempt = context.attempt();
            let answer = Answered { key: key.clone(), number, attempt };
            match key.as_str() {
                "silent" => {}
                "gives up" => return Err(HandlerError::reject("no answer")),
                "plain" => refused.lock().push(context.reply(answer)),
                "second attempt" => {
                    context.reply(answer)?;
                    if attempt == 1 {
                        return Err(HandlerError::transient("not yet"));
                    }
                }
                _ => {
                    // An error means that the case is over.
                    let _ = turn.subscribe().wait_for(|turn| *turn == number).await;
                    context.reply(answer)?;
                    turn.send_modify(|turn| *turn = turn.saturating_sub(1));
                }
            }
            Ok(())
        }
    };
    handle.named("answers")
}

/// Case 21. A request gets the reply of its handler and no other one's, however the replies cross; one of a failed attempt
/// counts for nothing. Who gets none learns whether the handler gave up or the time is over. What is no request cannot be
/// replied to.
///
/// # Errors
/// It does not.
pub async fn requests(bench: &Bench) -> Result<(), Failure> {
    let (count, refused) = (20, Refused::default());
    let turn = watch::Sender::new(count - 1);
    let handler = answering(&turn, &refused).concurrency(2 * count as usize);
    let handler = handler.retry(policy::fixed(Duration::from_millis(1)).max_attempts(3));
    let bus = bench.app().await?.on(handler).start().await?;
    let asked = (0..count).map(|number| ask(&bus, format!("key-{number}"), number));
    let replies = bench.wait(format!("{count} replies"), join_all(asked)).await;
    for (reply, number) in replies.into_iter().zip(0..) {
        let promised = Answered { key: format!("key-{number}"), number, attempt: 1 };
        ensure_eq!(reply?, promised, "the reply to request {number}");
    }
    let reply = bench.wait("the reply of a second attempt", ask(&bus, "second attempt".into(), 0)).await?;
    ensure_eq!(reply.attempt, 2, "which attempt replied");
    without_reply(bench, &bus).await?;
    bus.publish(Step::new("plain", 0)).await?;
    bench.idle(&bus).await?;
    let told = std::mem::take(&mut *refused.lock());
    let is_refused = matches!(told[..], [Err(EmitError::NotARequest { .. })]);
    ensure!(is_refused, "a handler that replied to what is no request was told {told:?}");
    bench.shutdown(bus).await
}

async fn ask(bus: &Bus, key: String, number: u32) -> Result<Answered, RequestError> {
    bus.request(Step { key, number }, PATIENCE).await
}

async fn without_reply(bench: &Bench, bus: &Bus) -> Result<(), Failure> {
    let gave_up = bench.wait("a handler to give up on a request", ask(bus, "gives up".into(), 0)).await;
    let Err(RequestError::Failed { handler, error }) = gave_up else {
        return Err(Failure::new(format!("a request that its handler gave up: {gave_up:?}")));
    };
    ensure_eq!(handler, "answers", "who gave up on the request");
    ensure!(error.contains("no answer"), "why the handler gave up: {error}");
    let begun = bench.clock().monotonic();
    let silent: Result<Answered, _> = bus.request(Step::new("silent", 0), SHORT).await;
    ensure!(matches!(silent, Err(RequestError::Timeout { .. })), "a request that is not replied to: {silent:?}");
    let unheard: Result<Answered, _> = bus.request(Unheard, SHORT).await;
    ensure!(matches!(unheard, Err(RequestError::Timeout { .. })), "a request that nobody takes: {unheard:?}");
    let waited = bench.clock().monotonic().saturating_sub(begun);
    ensure!(waited >= 2 * SHORT, "two requesters gave up after {waited:?}, each was to wait {SHORT:?}");
    Ok(())
}
