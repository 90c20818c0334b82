//! Pulling: a client asks for events when it has time, says what became of each, and what it holds too long comes again.

use std::time::Duration;

use oncue::{policy::ErrorClass, prelude::*};
use serde::{Deserialize, Serialize};

const WAIT: Duration = Duration::from_secs(5);

#[derive(Event, Serialize, Deserialize)]
#[event(type = "mail.wanted", key = to)]
struct MailWanted {
    to: String,
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let app = App::open("memory:").await?.start().await?;
    let again = policy::fixed(Duration::from_millis(1));
    let lease = Duration::from_secs(1);
    let mailer = app.pull("mailer").types(["mail.wanted"]).lease(lease).retry(again).open().await?;
    for to in ["ada", "bob", "cyd"] {
        app.publish(MailWanted { to: to.into() }).await?;
    }

    let (mut sent, mut forgotten) = (0, false);
    while sent < 3 {
        for pulled in mailer.next(10, WAIT).await {
            let to = pulled.envelope.key().unwrap_or_default();
            match (to, pulled.attempt) {
                ("bob", 1) => {
                    let busy = Outcome::Fail { class: ErrorClass::Transient, error: "the server is busy".into() };
                    mailer.settle(&pulled.token, busy).await?;
                }
                // Its lease will be over, and that is a failed attempt too.
                ("cyd", 1) => forgotten = true,
                _ => {
                    mailer.extend(&pulled.token, Duration::from_secs(30))?;
                    println!("to {to}, attempt {}", pulled.attempt);
                    mailer.settle(&pulled.token, Outcome::Ack).await?;
                    sent += 1;
                }
            }
        }
    }
    let stats = &app.inspect().subscriptions()[0].stats;
    assert!(forgotten);
    assert_eq!((stats.acked, stats.retried, stats.dead), (3, 2, 0));
    mailer.close().await?;
    app.shutdown().await
}
