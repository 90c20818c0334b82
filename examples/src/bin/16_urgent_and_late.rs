//! Which event is next, and when: urgent ones first, some not before their time, some of no use after it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use oncue::{event::EnvelopeBuilder, prelude::*};

type Seen = Arc<Mutex<Vec<String>>>;

/// Takes any ticket as it travelled, one at a time, the most urgent first.
#[handler(on = "ticket.opened", order = "priority", concurrency = 1)]
async fn answer(ticket: Envelope, State(seen): State<Seen>) {
    println!("{}", ticket.id());
    seen.lock().expect("no panic").push(ticket.id().to_owned());
}

fn ticket(id: &str) -> EnvelopeBuilder {
    Envelope::builder("ticket.opened").id(id)
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let seen = Seen::default();
    // Paused: so all of them wait when the first is chosen.
    let app = App::open("memory:").await?.state(seen.clone()).on(answer.paused()).start().await?;
    for ticket in [
        ticket("printer").priority(1),
        ticket("fire").priority(9),
        ticket("question"),
        ticket("reminder").priority(9).delay(Duration::from_millis(300)),
        ticket("offer of yesterday").expires(app.clock().now()),
    ] {
        app.publish(ticket.build()?).await?;
    }
    app.resume("answer").await?;
    app.idle().await?;
    // A question says nothing of its priority, which is 4 then.
    assert_eq!(*seen.lock().expect("no panic"), ["fire", "question", "printer", "reminder"]);
    assert_eq!(app.inspect().subscriptions()[0].stats.expired, 1);
    app.shutdown().await
}
