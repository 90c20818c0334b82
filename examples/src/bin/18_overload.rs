//! More comes than can be handled. A limit learns how many calls the service bears; events that are worth less than what keeping
//! them costs the others are shed, which is a dead letter that says why.

use std::{sync::Arc, time::Duration};

use oncue::{policy::ErrorClass, prelude::*};
use tokio::sync::Semaphore;

/// Answers two at a time, 2 ms each; others wait in it.
#[derive(Clone)]
struct Prices(Arc<Semaphore>);

#[handler(on = ["price.asked", "price.guessed"], concurrency = 4)]
async fn quote(_event: Envelope, State(prices): State<Prices>) {
    let _place = prices.0.acquire().await;
    tokio::time::sleep(Duration::from_millis(2)).await;
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    // An answer is worth 100, a guess 1; that one of them waits for a second costs 50.
    let rules = policy::admission(100.0, 50.0).value_of("price.guessed", 1.0);
    let limit = middleware::adaptive_limit("prices").initial(2);
    let prices = Prices(Arc::new(Semaphore::new(2)));
    let app = App::open("memory:").await?.state(prices).on(quote.admission(rules).layer(limit)).start().await?;
    for number in 0..600 {
        let event_type = if number % 2 == 0 { "price.asked" } else { "price.guessed" };
        app.publish(Envelope::builder(event_type).subject(format!("p-{number}")).build()?).await?;
    }
    app.idle().await?;

    println!("{:?}", app.limits()[0].state());
    let state = &app.admissions()[0];
    println!("{state:?}");
    let shed = app.dead_letters("quote").list()?;
    assert!(shed.iter().all(|letter| letter.history[0].class == ErrorClass::Shed));
    assert_eq!(state.admitted + shed.len() as u64, 600, "nothing is lost");
    app.shutdown().await
}
