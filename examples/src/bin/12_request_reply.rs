//! Requests: a handler replies, with its acknowledgement, and who asked waits for that. A refusal is told at once, and in
//! the time that nobody replies in, the error says how it stands.

use std::time::Duration;

use oncue::{RequestError, prelude::*};
use serde::{Deserialize, Serialize};

const WAIT: Duration = Duration::from_secs(5);

#[derive(Event, Serialize, Deserialize)]
#[event(type = "price.asked", key = article)]
struct PriceAsked {
    article: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "price.quoted", key = article)]
struct PriceQuoted {
    article: String,
    cents: u64,
}

#[handler]
async fn quote(asked: PriceAsked, context: Context) -> Result<(), HandlerError> {
    let cents = match asked.article.as_str() {
        "pear" => 40,
        "melon" => 320,
        unknown => return Err(HandlerError::reject(format!("there is no {unknown}"))),
    };
    Ok(context.reply(PriceQuoted { article: asked.article, cents })?)
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let app = App::open("memory:").await?.on(quote).start().await?;
    let ask = |article: &str| app.request::<PriceQuoted>(PriceAsked { article: article.into() }, WAIT);
    let (pear, melon) = tokio::try_join!(ask("pear"), ask("melon"))?;
    println!("a {} is {} cents, a {} is {}", pear.article, pear.cents, melon.article, melon.cents);
    assert_eq!((pear.cents, melon.cents), (40, 320));

    // Nobody waits five seconds for this one.
    let refused = ask("unicorn").await.map(|quoted| quoted.cents);
    assert!(matches!(&refused, Err(RequestError::Failed { handler, .. }) if handler == "quote"));
    println!("{}", refused.expect_err("there are none"));
    app.shutdown().await
}
