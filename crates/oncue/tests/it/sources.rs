//! Sources: resumed exactly, retried, confirmed, stopped.

mod files;
mod own;
mod schedules;

use std::{sync::Arc, time::Duration};

use oncue::{
    App, Bus, Clock, Envelope, ManualClock, Timestamp,
    source::{Activity, SourceInfo},
    transport::{LogTransport, LogUrl, OpenError},
};

/// How long a test waits for what is to happen at once: real time, reached only by a failure.
const WAIT: Duration = Duration::from_secs(30);

/// The same by the clock of the app.
const A_DAY: Duration = Duration::from_secs(24 * 3_600);

/// 2026-01-01, a Thursday.
fn new_year() -> Timestamp {
    Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn in_memory(clock: &Clock) -> App {
    App::with_transport(Arc::new(LogTransport::open(&LogUrl::memory(), clock.clone()).unwrap()), clock.clone())
}

/// An app on a directory, which a bus that was dropped may still be about to leave.
async fn on(directory: &tempfile::TempDir, clock: &Clock) -> App {
    let open = async {
        loop {
            match LogTransport::open(&LogUrl::file(directory.path()), clock.clone()) {
                Ok(transport) => return App::with_transport(Arc::new(transport), clock.clone()),
                Err(OpenError::Directory(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(WAIT, open).await.expect("the directory stays busy")
}

/// Waits for something that happens without the clock.
async fn until(what: &str, happened: impl Fn() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(WAIT, waiting).await.is_ok(), "never: {what}");
}

/// Moves the clock on, a second at a time and only while something waits by it, until something happens; gives how long
/// that took.
async fn advance_until(manual: &ManualClock, what: &str, happened: impl Fn() -> bool) -> Duration {
    let begin = manual.clock().monotonic();
    loop {
        until(what, || happened() || manual.until_next().is_some()).await;
        let passed = manual.clock().monotonic() - begin;
        if happened() {
            return passed;
        }
        assert!(passed < A_DAY, "not within a day: {what}");
        manual.advance(Duration::from_secs(1));
    }
}

/// Waits until something waits by the clock.
async fn asleep(manual: &ManualClock) {
    until("something waits by the clock", || manual.until_next().is_some()).await;
}

fn info(bus: &Bus) -> SourceInfo {
    bus.sources().remove(0)
}

fn is_retrying(bus: &Bus, times: u32) -> bool {
    matches!(info(bus).activity, Activity::Retrying { failures, .. } if failures == times)
}

/// The events of a topic, in order.
fn events(bus: &Bus, topic: &str) -> Vec<Envelope> {
    let events = bus.inspect().browse(topic, 0, usize::MAX).unwrap_or_default();
    events.into_iter().map(|(_, event)| event).collect()
}

/// Their payloads.
fn payloads(bus: &Bus, topic: &str) -> Vec<String> {
    events(bus, topic).iter().map(|event| String::from_utf8(event.data().to_vec()).unwrap()).collect()
}
