//! A log that drops what is settled stays small, and loses nothing that is wanted.

use std::sync::Arc;

use oncue::{
    App, Bus, Clock, Envelope,
    handler::{HandlerError, extract::Keyed},
    prelude::*,
    transport::{LogTransport, LogUrl},
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "filled", key = key)]
struct Filled {
    key: String,
    number: u64,
    filler: String,
}

#[handler]
async fn sum(filled: Filled, mut total: Keyed<u64>) -> Result<(), HandlerError> {
    if filled.key == "bad" {
        return Err(HandlerError::reject("bad"));
    }
    *total += filled.number;
    Ok(())
}

fn app(url: &str) -> (Arc<LogTransport>, App) {
    let url: LogUrl = url.parse().unwrap();
    let transport = Arc::new(LogTransport::open(&url, Clock::system()).unwrap());
    (transport.clone(), App::with_transport(transport, Clock::system()))
}

/// Ten keys that begin with `key`, or that key alone if there is one event.
fn batch(key: &str, numbers: std::ops::Range<u64>) -> Vec<Envelope> {
    let name = |number| if numbers.end - numbers.start == 1 { key.to_owned() } else { format!("{key}{}", number % 10) };
    let filled = |number| Filled { key: name(number), number, filler: "x".repeat(4000) };
    numbers.clone().map(|number| Envelope::of(&filled(number)).unwrap()).collect()
}

async fn publish(bus: &Bus, key: &str, numbers: std::ops::Range<u64>) -> oncue::Result<()> {
    bus.publish_all("events", batch(key, numbers), None).await.map(|_| ())
}

#[tokio::test]
async fn what_is_settled_goes_and_what_is_wanted_stays() {
    let (transport, app) = app("memory:");
    let bus = app.on(sum).start().await.unwrap();
    publish(&bus, "early", 6..7).await.unwrap();
    publish(&bus, "bad", 0..1).await.unwrap();
    for round in 0..30 {
        publish(&bus, "busy", round * 500..(round + 1) * 500).await.unwrap();
        bus.idle().await.unwrap();
    }
    let segments = transport.log().stats().segments;
    assert!(segments <= 3, "60 MB passed through, and {segments} segments of 8 MiB are left");
    let states = bus.inspect().states("sum").unwrap();
    let total: u64 = states.iter().map(|(_, value)| std::str::from_utf8(value).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!((states.len(), total), (11, (0..15_000).sum::<u64>() + 6));
    let dead = bus.inspect().dead_letters("sum").unwrap();
    assert_eq!((dead.len(), dead[0].history[0].error.as_str()), (1, "bad"));
    assert_eq!(bus.inspect().subscriptions()[0].stats.dead, 1, "writing it again does not count it again");
    let late = bus.inspect().browse("events", 0, 1);
    assert!(late.is_err() || late.unwrap()[0].0.offset() > 0, "the beginning is gone");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_that_nobody_reads_fills_up_and_says_so_until_somebody_does() {
    let (_, app) = app("memory:?max_bytes=20000000");
    let bus = app.start().await.unwrap();
    let mut published = 0;
    let error = loop {
        match publish(&bus, "a", published..published + 500).await {
            Ok(()) => published += 500,
            Err(error) => break error.to_string(),
        }
        assert!(published < 100_000);
    };
    assert!(error.contains("max_bytes"), "{error}");
    assert!(published >= 2_500, "{published} events of 4 kB fit into 20 MB");
}
