//! A filter that is learned from later events, in the app: what they tell, how long it is waited for, and what is known
//! after a restart.

use std::{str::FromStr as _, sync::Arc, time::Duration};

use oncue::{
    App, Bus, Clock, PausedClock,
    filter::{self, Feedback, FeedbackCounts, LearnedFilter, Verdict},
    policy::ErrorClass,
    prelude::*,
    testing::{self, TIME_OF_START, TestApp},
    transport::{Inspect, LogTransport, LogUrl, Transport as _},
};
use oncue_log::{Options, Writer, storage::MemoryStorage};

const DAY: Duration = Duration::from_secs(86_400);

/// Every order can be shipped: what comes of it is told later.
async fn ship(_: Envelope) {}

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(type = "order.canceled", key = order)]
struct Canceled {
    order: String,
}

/// Tells what becomes of an order with its acknowledgement.
async fn judge(event: Envelope) -> Option<Canceled> {
    is_of_north(&event).then(|| Canceled { order: event.key().unwrap_or_default().to_owned() })
}

fn is_of_north(event: &Envelope) -> bool {
    event.data().windows(5).any(|part| part == b"north")
}

fn order(number: usize) -> Envelope {
    let data = format!(r#"{{"region": "{}"}}"#, ["north", "south", "west"][number % 3]);
    let event = Envelope::builder("order.created").id(format!("e-{number}")).subject(format!("o-{number}"));
    event.data(data).build().unwrap()
}

fn canceled(key: &str) -> Envelope {
    Envelope::builder("order.canceled").subject(key).build().unwrap()
}

fn by_feedback() -> Feedback {
    filter::feedback(["order.canceled"], DAY)
}

fn shop(app: App, filter: LearnedFilter) -> App {
    app.on(ship.named("ship").types(["order.created"]).concurrency(1).filter(filter))
}

/// Orders, and the cancellation of those from the north.
async fn orders(bus: &Bus, numbers: std::ops::Range<usize>) -> oncue::Result<()> {
    for number in numbers {
        bus.publish(order(number)).await?;
        bus.idle().await?;
        if number % 3 == 0 {
            bus.publish(canceled(&format!("o-{number}"))).await?;
        }
    }
    bus.idle().await
}

fn counts(inspect: &dyn Inspect) -> FeedbackCounts {
    inspect.feedback("ship").unwrap()
}

fn held_back(bus: &Bus) -> usize {
    let letters = bus.dead_letters("ship").list().unwrap();
    letters.iter().filter(|letter| letter.history.last().is_some_and(|last| last.class == ErrorClass::Filtered)).count()
}

#[tokio::test(start_paused = true)]
async fn what_later_events_tell_is_learned_and_held_back() -> testing::Result {
    let filter = filter::learned().label(by_feedback()).threshold(0.6);
    let test = TestApp::start(|app| shop(app, filter)).await?;
    let bus = test.bus();
    orders(bus, 0..600).await?;
    assert_eq!(held_back(bus), 0, "two thirds still wait: nothing proves that they are not canceled");
    let waiting = FeedbackCounts { waiting: 400, came: 200, stayed_out: 0, unknown: 0 };
    assert_eq!(counts(bus.inspect()), waiting);
    test.advance(DAY + Duration::from_secs(1)).await?;
    // The next cancellation is what tells that a day is over.
    orders(bus, 600..601).await?;
    assert_eq!(counts(bus.inspect()), FeedbackCounts { waiting: 0, came: 201, stayed_out: 400, unknown: 0 });
    let learned = bus.inspect().learned("ship").unwrap();
    assert_eq!((learned.progress().examples, learned.progress().positives), (601.0, 201.0));
    orders(bus, 601..1201).await?;
    test.advance(DAY + Duration::from_secs(1)).await?;
    orders(bus, 1201..1501).await?;
    let letters = bus.dead_letters("ship").list().unwrap();
    // 300 of the later ones are from the north; about a twentieth of these is handled all the same.
    assert!((150..300).contains(&letters.len()), "{} of 300", letters.len());
    assert!(letters.iter().all(|letter| is_of_north(&letter.envelope)));
    let why = &letters[0].history[0].error;
    assert!(
        why.starts_with("held back by a learned filter: the probability of the feedback that it was lost is"),
        "{why}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_and_does_not_come_is_lost() -> testing::Result {
    let filter = filter::learned().label(filter::feedback(["order.canceled"], DAY).expected());
    let test = TestApp::start(|app| shop(app, filter)).await?;
    orders(test.bus(), 0..300).await?;
    test.advance(2 * DAY).await?;
    orders(test.bus(), 300..301).await?;
    let learned = test.bus().inspect().learned("ship").unwrap();
    assert_eq!((learned.progress().examples, learned.progress().positives), (301.0, 200.0));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn feedback_that_comes_before_the_handler_is_through_counts() -> testing::Result {
    // `judge` tells with its acknowledgement, or before `ship` has begun: they have no order between them.
    let test = TestApp::start(|app| {
        let judge = judge.named("judge").types(["order.created"]);
        shop(app, filter::learned().label(by_feedback())).on(judge)
    })
    .await?;
    for number in 0..300 {
        test.publish(order(number)).await?;
    }
    test.run_until_idle().await?;
    test.advance(2 * DAY).await?;
    orders(test.bus(), 300..301).await?;
    // Of the last one feedback comes twice.
    assert_eq!(counts(test.bus().inspect()), FeedbackCounts { waiting: 0, came: 101, stayed_out: 200, unknown: 0 });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_handler_learns_from_the_feedback_that_it_emits_itself() -> testing::Result {
    let itself = || {
        let judge = judge.named("ship").types(["order.created"]);
        judge.filter(filter::learned().label(by_feedback()))
    };
    let test = TestApp::start(|app| app.on(itself())).await?;
    for number in 0..30 {
        test.publish(order(number)).await?;
    }
    test.run_until_idle().await?;
    assert_eq!(counts(test.bus().inspect()), FeedbackCounts { waiting: 20, came: 10, stayed_out: 0, unknown: 0 });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn events_from_before_it_was_to_learn_teach_nothing() -> oncue::Result<()> {
    let time = PausedClock::new(TIME_OF_START).unwrap();
    let transport = Arc::new(LogTransport::open(&LogUrl::from_str("memory:")?, time.clock())?);
    let app = || App::with_transport(Arc::clone(&transport) as _, time.clock());
    // Nobody waits for the cancellations of these.
    let bus = app().on(ship.named("other").types(["order.created"])).start().await?;
    orders(&bus, 0..30).await?;
    let bus_of_ship = shop(app(), filter::learned().label(by_feedback())).start().await?;
    bus_of_ship.idle().await?;
    assert_eq!(counts(transport.inspect()), FeedbackCounts::default());
    orders(&bus_of_ship, 30..33).await?;
    assert_eq!(counts(transport.inspect()), FeedbackCounts { waiting: 2, came: 1, stayed_out: 0, unknown: 0 });
    Ok(())
}

/// Orders and cancellations with a restart of the log in the middle, or without one: what is known then.
async fn known_after(restarts: &[usize]) -> oncue::Result<(Vec<u8>, FeedbackCounts, usize)> {
    let time = PausedClock::new(TIME_OF_START).unwrap();
    let (storage, options) = (MemoryStorage::new(), Options { writer: Writer::Inline, ..Options::default() });
    let open = || {
        let (url, storage) = (LogUrl::from_str("memory:")?, Box::new(storage.clone()));
        Ok::<_, oncue::Error>(Arc::new(LogTransport::on_storage(url, storage, options.clone(), time.clock())?))
    };
    let start = async |transport: &Arc<LogTransport>| {
        let app = App::with_transport(Arc::clone(transport) as _, time.clock());
        shop(app, filter::learned().label(by_feedback()).threshold(0.6)).start().await
    };
    let mut transport = open()?;
    let mut bus = start(&transport).await?;
    for number in 0..900 {
        if restarts.contains(&number) {
            bus.shutdown().await?;
            drop((bus, transport));
            transport = open()?;
            bus = start(&transport).await?;
        }
        if number % 150 == 0 {
            tokio::time::advance(DAY).await;
        }
        orders(&bus, number..number + 1).await?;
    }
    let learned = transport.inspect().learned("ship").unwrap();
    assert_eq!(learned.progress().verdict(), Verdict::Better);
    let known = (learned.encode(), counts(transport.inspect()), held_back(&bus));
    bus.shutdown().await?;
    Ok(known)
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_changes_no_label_and_no_decision() -> oncue::Result<()> {
    let undisturbed = known_after(&[]).await?;
    assert!(undisturbed.2 > 20, "it decides: {}", undisturbed.2);
    assert!(undisturbed.1.waiting > 0 && undisturbed.1.stayed_out > 0, "{:?}", undisturbed.1);
    assert_eq!(known_after(&[100, 400, 401, 750]).await?, undisturbed);
    Ok(())
}

#[tokio::test]
async fn beside_the_process_the_records_alone_say_the_same() -> oncue::Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let bus = shop(App::open(&url).await?, filter::learned().label(by_feedback())).start().await?;
    orders(&bus, 0..90).await?;
    // Nothing was checkpointed yet: this replays every event and every lesson.
    let beside = LogTransport::snapshot(&LogUrl::file(directory.path()), &Clock::system()).unwrap();
    assert_eq!(counts(&*beside), FeedbackCounts { waiting: 60, came: 30, stayed_out: 0, unknown: 0 });
    assert_eq!(counts(&*beside), counts(bus.inspect()));
    assert_eq!(beside.learned("ship").unwrap().encode(), bus.inspect().learned("ship").unwrap().encode());
    bus.shutdown().await
}

#[tokio::test(start_paused = true)]
async fn settings_that_make_no_sense_are_told_at_the_start() -> testing::Result {
    let silent = filter::learned().label(filter::feedback(Vec::<String>::new(), Duration::ZERO));
    let text = TestApp::start(|app| shop(app, silent)).await.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("its feedback names no type") && text.contains("would have to come at once"), "{text}");
    Ok(())
}
