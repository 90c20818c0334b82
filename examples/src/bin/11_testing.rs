//! Testing: the app that `main` would start runs inside a test. Attempts fail on request, and hours take no time.

use std::time::Duration;

use oncue::{
    prelude::*,
    testing::{self, TestApp},
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "order.paid", key = order_id)]
struct OrderPaid {
    order_id: String,
}

#[handler(retry = policy::fixed(Duration::from_secs(3600)).max_attempts(3))]
async fn charge(OrderCreated { order_id }: OrderCreated) -> OrderPaid {
    OrderPaid { order_id }
}

/// What the app is made of: `main` calls this too, with `App::open("file:./data").await?`.
fn shop(app: App) -> App {
    app.on(charge)
}

/// In a project of yours this stands in `#[cfg(test)] mod tests`, with `#[tokio::test(start_paused = true)]` on it.
async fn a_busy_bank_is_asked_again_and_a_stolen_card_is_not() -> testing::Result {
    let test = TestApp::start(shop).await?;
    test.fail("charge", 2, HandlerError::transient("the bank is busy"));
    test.fail_with("charge", |call| {
        (call.envelope().key() == Some("o-2")).then(|| HandlerError::reject("the card is stolen"))
    });
    for order_id in ["o-1", "o-2"] {
        test.publish(OrderCreated { order_id: order_id.into() }).await?;
    }
    test.advance(Duration::from_secs(3599)).await?;
    test.assert_attempts("charge", 2);
    test.run_until_idle().await?;
    test.assert_attempts("charge", 4);
    test.assert_dead("charge", 1);
    test.assert_published(&[OrderPaid { order_id: "o-1".into() }]);
    println!("{}", test.seen());
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> testing::Result {
    a_busy_bank_is_asked_again_and_a_stolen_card_is_not().await
}
