//! Retries and dead letters: a policy decides what follows a failure; what is given up on is kept, with its history.

use std::time::Duration;

use oncue::{handler::extract::Attempt, policy::ErrorClass, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Debug, PartialEq)]
enum BankError {
    Busy,
    NoSuchCard,
}

impl BankError {
    fn class(&self) -> ErrorClass {
        if *self == Self::Busy { ErrorClass::Transient } else { ErrorClass::Permanent }
    }
}

impl std::error::Error for BankError {}
impl std::fmt::Display for BankError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Busy { "the bank is busy" } else { "there is no such card" })
    }
}

#[handler(retry = policy::exponential().initial(Duration::from_millis(1)).max_attempts(3), classify = BankError::class)]
async fn charge(order: OrderCreated, Attempt(attempt): Attempt) -> Result<(), BankError> {
    match order.order_id.as_str() {
        "lucky" if attempt == 1 => Err(BankError::Busy),
        "unlucky" => Err(BankError::Busy),
        "stolen" => Err(BankError::NoSuchCard),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let app = App::open("memory:").await?.on(charge).start().await?;
    for order_id in ["lucky", "unlucky", "stolen", "plain"] {
        app.publish(OrderCreated { order_id: order_id.into() }).await?;
    }
    app.idle().await?;
    let stats = &app.inspect().subscriptions()[0].stats;
    assert_eq!((stats.acked, stats.retried, stats.dead), (2, 3, 2));
    let mut dead = app.inspect().dead_letters("charge")?;
    dead.sort_by_key(|letter| letter.history.len());
    for letter in &dead {
        let errors: Vec<_> = letter.history.iter().map(|attempt| &attempt.error).collect();
        println!("{}: {errors:?}", letter.envelope.key().unwrap_or_default());
    }
    assert_eq!(dead.iter().map(|letter| letter.history.len()).collect::<Vec<_>>(), [1, 3]);
    app.shutdown().await
}
