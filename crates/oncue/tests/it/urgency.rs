//! Priorities that are learned, in the app: which event comes first, what that costs, and what is known after a restart.

use std::{
    str::FromStr as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use oncue::{
    App, Bus, Clock, PausedClock,
    config::HandlerConfig,
    policy::{LearnedPriority, learned_priority},
    prelude::*,
    testing::TIME_OF_START,
    transport::{LogTransport, LogUrl, Order, Transport as _},
};
use oncue_log::{Options, Writer, storage::MemoryStorage};

/// The ids of what was handled, in that order.
type Seen = Arc<Mutex<Vec<String>>>;

/// A page takes a tenth of a second.
async fn render(event: Envelope, State(seen): State<Seen>, State(clock): State<Clock>) {
    let data: serde_json::Value = serde_json::from_slice(event.data()).unwrap();
    clock.sleep(Duration::from_millis(100 * data["pages"].as_u64().unwrap())).await;
    seen.lock().unwrap().push(event.id().to_owned());
}

/// Pages and what a second of waiting costs. A report of an important customer takes long and is worth it.
const KINDS: [(u32, f64); 4] = [(1, 1.0), (20, 1.0), (1, 8.0), (20, 8.0)];

fn report(number: usize) -> Envelope {
    // Every kind as often as the others, in an order that repeats late.
    let (pages, weight) = KINDS[(number * 7 + number / 4) % 4];
    let data = format!(r#"{{"pages": {pages}, "weight": {weight}}}"#);
    Envelope::builder("report.asked").id(format!("{number}:{pages}:{weight}")).data(data).build().unwrap()
}

fn office(app: App, seen: &Seen, clock: Clock, priority: Option<LearnedPriority>) -> App {
    let render = render.named("render").types(["report.asked"]).concurrency(1).order(Order::Priority);
    let render = match priority {
        Some(priority) => render.priority(priority),
        None => render,
    };
    app.state(Arc::clone(seen)).state(clock).on(render)
}

fn rules() -> LearnedPriority {
    learned_priority().cost("weight").features(["pages"])
}

/// Publishes while the handler rests, then lets it work.
async fn wave(bus: &Bus, numbers: std::ops::Range<usize>) -> oncue::Result<()> {
    bus.pause("render").await?;
    for number in numbers {
        bus.publish(report(number)).await?;
    }
    bus.resume("render").await?;
    bus.idle().await
}

/// The sum over a wave of what its waiting cost, if all was there when it began.
fn cost_of(seen: &[String]) -> f64 {
    let (mut now, mut cost) = (0.0, 0.0);
    for id in seen {
        let mut parts = id.split(':').skip(1).map(|part| part.parse::<f64>().unwrap());
        let (pages, weight) = (parts.next().unwrap(), parts.next().unwrap());
        cost += weight * now;
        now += pages / 10.0;
    }
    cost
}

#[tokio::test(start_paused = true)]
async fn what_costs_most_for_the_time_it_takes_comes_first() -> oncue::Result<()> {
    let seen = Seen::default();
    let time = PausedClock::new(TIME_OF_START).unwrap();
    let app =
        App::with_transport(Arc::new(LogTransport::open(&LogUrl::from_str("memory:")?, time.clock())?), time.clock());
    let bus = office(app, &seen, time.clock(), Some(rules())).start().await?;
    wave(&bus, 0..400).await?;
    seen.lock().unwrap().clear();
    wave(&bus, 400..440).await?;
    let handled = std::mem::take(&mut *seen.lock().unwrap());
    // 8 per 0.1 s, then 1 per 0.1 s, then 8 per 2 s, then 1 per 2 s: what is expected decides it.
    let kinds: Vec<&str> = handled.iter().map(|id| id.split_once(':').unwrap().1).collect();
    let mut sorted = kinds.clone();
    let rank = |kind: &&str| ["1:8", "1:1", "20:8", "20:1"].iter().position(|known| known == kind);
    sorted.sort_by_key(rank);
    assert_eq!(kinds, sorted);
    let fifo: Vec<String> = (400..440).map(|number| report(number).id().to_owned()).collect();
    assert!(cost_of(&handled) * 2.0 < cost_of(&fifo), "{} against {}", cost_of(&handled), cost_of(&fifo));
    let ranker = bus.inspect().ranker("render").unwrap();
    assert_eq!(ranker.given().iter().sum::<u64>(), 440);
    assert!((ranker.service().progress().examples - 440.0).abs() < f64::EPSILON);
    bus.shutdown().await
}

#[tokio::test(start_paused = true)]
async fn before_anything_was_learned_and_without_learning_events_say_their_priority() -> oncue::Result<()> {
    for priority in [None, Some(rules())] {
        let seen = Seen::default();
        let learns = priority.is_some();
        let time = PausedClock::new(TIME_OF_START).unwrap();
        let transport = Arc::new(LogTransport::open(&LogUrl::from_str("memory:")?, time.clock())?);
        let bus = office(App::with_transport(transport, time.clock()), &seen, time.clock(), priority).start().await?;
        bus.pause("render").await?;
        for (id, priority) in [("low", 1), ("high", 9), ("middle", 4)] {
            let event = Envelope::builder("report.asked").id(id).priority(priority).data(r#"{"pages": 1}"#);
            bus.publish(event.build().unwrap()).await?;
        }
        bus.resume("render").await?;
        bus.idle().await?;
        assert_eq!(*seen.lock().unwrap(), ["high", "middle", "low"]);
        assert_eq!(bus.inspect().ranker("render").is_some(), learns);
        bus.shutdown().await?;
    }
    Ok(())
}

/// Waves of reports, with a restart of the log before some of them: the order in which all were handled, and what is
/// known then.
async fn after(restarts: &[usize]) -> oncue::Result<(Vec<String>, String)> {
    let time = PausedClock::new(TIME_OF_START).unwrap();
    let (storage, options) = (MemoryStorage::new(), Options { writer: Writer::Inline, ..Options::default() });
    let open = || {
        let (url, storage) = (LogUrl::from_str("memory:")?, Box::new(storage.clone()));
        Ok::<_, oncue::Error>(Arc::new(LogTransport::on_storage(url, storage, options.clone(), time.clock())?))
    };
    let seen = Seen::default();
    let start = async |transport: &Arc<LogTransport>| {
        let app = App::with_transport(Arc::clone(transport) as _, time.clock());
        office(app, &seen, time.clock(), Some(rules())).start().await
    };
    let mut transport = open()?;
    let mut bus = start(&transport).await?;
    for number in 0..12 {
        if restarts.contains(&number) {
            bus.shutdown().await?;
            drop((bus, transport));
            transport = open()?;
            bus = start(&transport).await?;
        }
        wave(&bus, number * 30..(number + 1) * 30).await?;
    }
    let known = format!("{:?}", transport.inspect().ranker("render").unwrap());
    bus.shutdown().await?;
    let seen = seen.lock().unwrap().clone();
    Ok((seen, known))
}

#[tokio::test(start_paused = true)]
async fn a_restart_changes_no_decision_and_nothing_of_what_is_known() -> oncue::Result<()> {
    let undisturbed = after(&[]).await?;
    assert_eq!(undisturbed.0.len(), 360);
    let fifo: Vec<String> = (0..360).map(|number| report(number).id().to_owned()).collect();
    assert_ne!(undisturbed.0, fifo, "it decides");
    assert_eq!(after(&[1, 4, 5, 11]).await?, undisturbed);
    Ok(())
}

#[tokio::test]
async fn beside_the_process_the_records_alone_say_the_same() -> oncue::Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let bus = office(App::open(&url).await?, &Seen::default(), Clock::system(), Some(rules())).start().await?;
    for number in 0..40 {
        let event = Envelope::builder("report.asked").data(format!(r#"{{"pages": 0, "weight": {number}}}"#));
        bus.publish(event.build().unwrap()).await?;
    }
    bus.idle().await?;
    // Nothing was checkpointed yet: this replays every record.
    let beside = LogTransport::snapshot(&LogUrl::file(directory.path()), &Clock::system()).unwrap();
    assert_eq!(beside.ranker("render"), bus.inspect().ranker("render"));
    assert_eq!(beside.ranker("render").unwrap().given().iter().sum::<u64>(), 40);
    bus.shutdown().await
}

#[tokio::test(start_paused = true)]
async fn the_configuration_says_it_and_what_changes_nothing_is_told() -> oncue::Result<()> {
    let seen = Seen::default();
    let fifo = render.named("render").types(["report.asked"]).priority(rules());
    let app = App::open("memory:").await?.state(Arc::clone(&seen)).state(Clock::system()).on(fifo);
    let text = app.start().await.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("its learned priority would change nothing: say order = \"priority\""), "{text}");

    let time = PausedClock::new(TIME_OF_START).unwrap();
    let transport = Arc::new(LogTransport::open(&LogUrl::from_str("memory:")?, time.clock())?);
    let bus = office(App::with_transport(transport, time.clock()), &seen, time.clock(), None).start().await?;
    let config: HandlerConfig =
        serde_json::from_str(r#"{"priority": {"cost": "weight", "features": ["pages"]}}"#).unwrap();
    bus.configure("render", config).await?;
    wave(&bus, 0..60).await?;
    assert_eq!(bus.inspect().ranker("render").unwrap().given().iter().sum::<u64>(), 60);
    bus.shutdown().await
}
