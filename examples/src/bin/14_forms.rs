//! The forms of a handler: an annotated function, a plain one that may block, an object, a closure, a group of them; and one
//! that comes and goes while events flow.

use oncue::{Group, handler::Registration, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.registered", key = user_id)]
struct UserRegistered {
    user_id: String,
}

/// Its id is `greet`, its options stand beside it.
#[handler(concurrency = 4, timeout = "5s")]
async fn greet(user: UserRegistered) {
    println!("greet: {}", user.user_id);
}

/// Not annotated, and not async: it runs where it may block. It borrows the event.
fn store(user: &UserRegistered) -> std::io::Result<()> {
    println!("store: {}", user.user_id);
    Ok(())
}

/// It has fields of its own.
struct Mailer {
    from: &'static str,
}

impl Handle<UserRegistered> for Mailer {
    async fn handle(&self, user: UserRegistered, _: Context) {
        println!("{}: welcome, {}", self.from, user.user_id);
    }
}

/// Options are methods where there is no annotation.
fn tap() -> Registration {
    let tap = |event: Envelope| println!("tap: {} {}", event.event_type(), event.id());
    tap.named("tap").types(["user.registered"]).inline()
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let trial = |user: UserRegistered| async move { println!("a trial for {}", user.user_id) };
    let sales = Group::new("sales").on(trial.named("trial"));
    let app = App::open("memory:").await?.on(greet).on(store).on(Mailer { from: "shop" }).group(sales).start().await?;
    app.subscribe(tap()).await?;
    app.publish(UserRegistered { user_id: "ada".into() }).await?;
    app.idle().await?;
    app.unsubscribe("tap").await?;
    let ids: Vec<String> = app.handlers().into_iter().map(|handler| handler.id).collect();
    assert_eq!(ids, ["greet", "store", "Mailer", "sales.trial"]);
    assert!(app.inspect().subscriptions().iter().all(|known| known.stats.acked == 1));
    app.shutdown().await
}
