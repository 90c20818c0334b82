//! Which of those that wait comes first: the one whose waiting costs most for the time that handling it takes. What it
//! costs is said; how long it takes is learned.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use oncue::{policy, prelude::*};

type Seen = Arc<Mutex<Vec<u64>>>;

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(type = "report.asked")]
struct ReportAsked {
    pages: u64,
    /// What a second of waiting costs.
    weight: u64,
}

/// Takes a millisecond for a page.
#[handler(
    order = "priority",
    priority = policy::learned_priority().cost("weight").features(["pages"]),
    concurrency = 1
)]
async fn render(asked: ReportAsked, State(seen): State<Seen>) {
    tokio::time::sleep(Duration::from_millis(asked.pages)).await;
    seen.lock().expect("no panic").push(asked.weight);
}

/// Asks for all while the handler rests, then lets it work.
async fn wave(app: &Bus, numbers: std::ops::Range<usize>) -> oncue::Result<()> {
    app.pause("render").await?;
    for number in numbers {
        app.publish(ReportAsked { pages: [1, 8][number / 2 % 2], weight: [1, 1_000_000][number % 2] }).await?;
    }
    app.resume("render").await?;
    app.idle().await
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let seen = Seen::default();
    let app = App::open("memory:").await?.state(seen.clone()).on(render).start().await?;
    wave(&app, 0..200).await?;
    seen.lock().expect("no panic").clear();
    wave(&app, 200..240).await?;
    // Twenty of each: a million to one is more than any difference between the times that they take.
    assert!(seen.lock().expect("no panic")[..20].iter().all(|weight| *weight == 1_000_000));
    let ranker = app.inspect().ranker("render").expect("it learned");
    println!("a call takes {:.1} ms; by priority, 0 to 9: {:?}", 1_000.0 * ranker.service().simple(), ranker.given());
    assert_eq!(ranker.given().iter().sum::<u64>(), 240);
    app.shutdown().await
}
