//! The textbook event centre: a publisher, a subscriber, a callback. Here it remembers: what was published before anybody
//! subscribed is delivered still, even to a later process.

use std::sync::{Arc, Mutex};

use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "news.published")]
struct News {
    headline: String,
}

/// The publisher: it knows the centre, and nobody who listens.
struct Publisher {
    centre: Bus,
}

impl Publisher {
    async fn announce(&self, headline: &str) -> oncue::Result<()> {
        self.centre.publish(News { headline: headline.into() }).await?;
        Ok(())
    }
}

/// The subscriber: what it does with an event is its callback.
#[derive(Clone, Default)]
struct Reader {
    read: Arc<Mutex<Vec<String>>>,
}

impl Handle<News> for Reader {
    async fn handle(&self, news: News, _: Context) {
        println!("read: {}", news.headline);
        self.read.lock().expect("no panic").push(news.headline);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let url = format!("file:{}", directory.path().display());

    let publisher = Publisher { centre: App::open(&url).await?.start().await? };
    publisher.announce("nobody listens yet").await?;
    publisher.centre.shutdown().await?;
    drop(publisher);

    let reader = Reader::default();
    let centre = App::open(&url).await?.on(reader.clone().named("reader")).start().await?;
    Publisher { centre: centre.clone() }.announce("somebody does").await?;
    centre.idle().await?;
    assert_eq!(*reader.read.lock().expect("no panic"), ["nobody listens yet", "somebody does"]);
    Ok(centre.shutdown().await?)
}
