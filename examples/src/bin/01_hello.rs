//! Hello: an event, a handler, an app. The receipt of publishing tells what became of the event.

use oncue::prelude::*;

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(type = "user.greeted")]
struct Greeted(String);

#[handler]
async fn greet(Greeted(name): Greeted) {
    println!("hello, {name}");
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let app = App::open("memory:").await?.on(greet).start().await?;
    let receipt = app.publish(Greeted("Ada".into())).await?;
    assert_eq!(receipt.outcome_of("greet", std::time::Duration::from_secs(1)).await?, EventOutcome::Acked);
    app.shutdown().await
}
