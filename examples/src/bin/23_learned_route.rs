//! Which of two handlers that do the same is given an event: the one that suits it, as what became of those before teaches.
//! What does not work there goes to the other one.

use std::time::Duration;

use oncue::{prelude::*, route};

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(type = "order.created", key = order)]
struct OrderCreated {
    order: String,
    country: String,
}

/// Each gateway knows the cards of its own country.
async fn gateway(order: OrderCreated, country: &str) -> Result<(), HandlerError> {
    if order.country == country { Ok(()) } else { Err(HandlerError::transient("declined")) }
}

#[handler]
async fn lyra(order: OrderCreated) -> Result<(), HandlerError> {
    gateway(order, "br").await
}

#[handler]
async fn vega(order: OrderCreated) -> Result<(), HandlerError> {
    gateway(order, "pt").await
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    // To everybody else it is one handler, with one order and one retry policy.
    let charge = route::learned("charge").arm(lyra.layer(middleware::circuit_breaker("lyra"))).arm(vega);
    let charge = charge.features(["country"]).retry(policy::fixed(Duration::from_millis(1)).max_attempts(3));
    let app = App::open("memory:").await?.on(charge).start().await?;
    for number in 0..400 {
        let country = ["br", "pt"][number / 2 % 2].to_owned();
        app.publish(OrderCreated { order: format!("o-{number}"), country }).await?;
        app.idle().await?;
    }

    let router = app.inspect().router("charge").expect("it learned");
    for (name, arm) in router.arms() {
        println!("{name}: tried {} times, mean reward {:.2}", arm.rewards.count(), arm.rewards.mean());
    }
    let told = router.comparison();
    println!("learned {:.2}, the best alone {:.2}: {:?}", told.reward.0, told.alone[told.best].0, told.verdict);
    // No event is given up: what is declined goes to the other gateway.
    assert_eq!(app.inspect().subscriptions()[0].stats.acked, 400);
    assert!(told.reward.0 > 0.9 && told.gain.0 > 0.0);
    app.shutdown().await
}
