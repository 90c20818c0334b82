//! Receipts: a publisher learns where its event stands, whether it came twice, and what each handler made of it.

use std::time::Duration;

use oncue::prelude::*;
use serde::{Deserialize, Serialize};

const WAIT: Duration = Duration::from_secs(1);

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
    cents: u64,
}

#[handler]
async fn record(order: OrderCreated) {
    println!("recorded {}", order.order_id);
}

#[handler]
async fn charge(order: OrderCreated) -> Result<(), HandlerError> {
    if order.cents == 0 {
        return Err(HandlerError::permanent("nothing to charge"));
    }
    Ok(())
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let app = App::open("memory:").await?.on(record).on(charge).start().await?;
    let receipt = app.publish(OrderCreated { order_id: "o-1".into(), cents: 0 }).await?;
    let outcomes = receipt.outcomes(WAIT).await?;
    println!("at {}: {outcomes:?}", receipt.position());
    let error = "nothing to charge".to_owned();
    assert_eq!(
        outcomes,
        [("record".to_owned(), EventOutcome::Acked), ("charge".to_owned(), EventOutcome::DeadLettered { error })]
    );

    // With an id of the publisher's own, publishing again is safe.
    let order = OrderCreated { order_id: "o-2".into(), cents: 100 };
    let envelope = Envelope::builder_of(&order)?.id("o-2-created").source("/shop").build().expect("a valid event");
    let (first, again) = (app.publish(envelope.clone()).await?, app.publish(envelope).await?);
    assert!(!first.is_duplicate() && again.is_duplicate());
    assert_eq!(first.position(), again.position());
    assert_eq!(again.outcome_of("charge", WAIT).await?, EventOutcome::Acked);
    app.shutdown().await
}
