//! A route that is learned, in the app: which of its handlers is given an event, and what is known after a restart.

use std::{
    str::FromStr as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use oncue::{
    App, Bus, Clock, PausedClock,
    config::HandlerConfig,
    filter::{self, Verdict},
    handler::Registration,
    policy::{RouteArm, Router},
    prelude::*,
    route::{self, Route},
    testing::{self, TIME_OF_START, TestApp},
    transport::{LogTransport, LogUrl, Transport as _},
};
use oncue_log::{Options, Writer, storage::MemoryStorage};

/// Which gateway was called for which event, in that order.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<(&'static str, String)>>>);

impl Calls {
    fn take(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(type = "charged.back", key = order_id)]
struct ChargedBack {
    order_id: String,
}

fn bank(event: &Envelope) -> String {
    let data: serde_json::Value = serde_json::from_slice(event.data()).unwrap();
    data["bank"].as_str().unwrap().to_owned()
}

/// A gateway knows the banks of its side, and no others.
fn gateway(name: &'static str) -> Registration {
    let call = move |event: Envelope, State(calls): State<Calls>| async move {
        calls.0.lock().unwrap().push((name, event.id().to_owned()));
        if bank(&event) == name { Ok(()) } else { Err(HandlerError::transient("unknown bank")) }
    };
    call.named(name).types(["order.created"])
}

fn order(number: usize) -> Envelope {
    let data = format!(r#"{{"bank": "{}", "cents": {}}}"#, ["north", "south"][number / 3 % 2], number % 17);
    let event = Envelope::builder("order.created").id(format!("e-{number}")).subject(format!("o-{number}"));
    event.data(data).build().unwrap()
}

fn charge() -> Route {
    route::learned("charge").arm(gateway("north")).arm(gateway("south")).features(["bank"])
}

fn shop(app: App, calls: &Calls, route: impl Into<Option<Route>>) -> App {
    let route = route.into().unwrap_or_else(charge).concurrency(1);
    app.state(calls.clone()).on(route.retry(policy::fixed(Duration::from_secs(1)).max_attempts(3)))
}

async fn publish(bus: &Bus, orders: std::ops::Range<usize>) -> oncue::Result<()> {
    for number in orders {
        bus.publish(order(number)).await?;
    }
    bus.idle().await
}

fn router(bus: &Bus) -> Router {
    bus.inspect().router("charge").unwrap()
}

/// Of what was handled, how much at the first call.
fn at_once(calls: &[(&str, String)], orders: std::ops::Range<usize>) -> usize {
    orders.filter(|number| calls.iter().filter(|(_, id)| *id == format!("e-{number}")).count() == 1).count()
}

#[tokio::test(start_paused = true)]
async fn each_event_goes_to_the_handler_that_suits_it_and_a_retry_to_the_other() -> testing::Result {
    let calls = Calls::default();
    let test = TestApp::start(|app| shop(app, &calls, None)).await?;
    publish(test.bus(), 0..600).await?;
    calls.take();
    publish(test.bus(), 600..1_200).await?;
    let seen = calls.take();
    // A twentieth explores, and half of that finds the wrong one.
    let first = at_once(&seen, 600..1_200);
    assert!((565..600).contains(&first), "{first} of 600");
    assert_eq!(seen.len(), 1_200 - first, "one retry is enough: it goes to the other one");
    test.assert_acked("charge", 1_200);
    test.assert_dead("charge", 0);

    let router = router(test.bus());
    let tried: f64 = router.arms().map(|(_, arm)| arm.rewards.count()).sum();
    assert_eq!(tried, 1_200.0, "first attempts alone teach");
    let told = router.comparison();
    assert_eq!((told.choices, told.verdict), (1_200.0, Verdict::Better));
    assert!(told.reward.0 > 0.9 && (told.alone[told.best].0 - 0.5).abs() < 0.2, "{told:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn where_both_do_the_same_it_says_so() -> testing::Result {
    let both = |name: &'static str| {
        let call = move |_: Envelope, State(_): State<Calls>| async {};
        call.named(name).types(["order.created"])
    };
    let route = route::learned("charge").arm(both("north")).arm(both("south")).explore(0.2);
    let test = TestApp::start(|app| shop(app, &Calls::default(), route)).await?;
    publish(test.bus(), 0..400).await?;
    let told = router(test.bus()).comparison();
    assert_ne!(told.verdict, Verdict::Better);
    assert_eq!(told.reward, (1.0, 0.0));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn time_costs_so_the_faster_one_is_chosen() -> oncue::Result<()> {
    let takes = |name: &'static str, seconds: u64| {
        let call = move |_: Envelope, State(clock): State<Clock>| async move {
            clock.sleep(Duration::from_secs(seconds)).await;
        };
        call.named(name).types(["order.created"])
    };
    let kept = Kept::new();
    let app = App::with_transport(kept.open()?, kept.time.clock()).state(kept.time.clock());
    let route = route::learned("charge").arm(takes("slow", 4)).arm(takes("fast", 1)).delay_per_s(0.2);
    let bus = shop(app, &kept.calls, route).start().await?;
    publish(&bus, 0..300).await?;
    let router = router(&bus);
    let arms: Vec<&RouteArm> = router.arms().map(|(_, arm)| arm).collect();
    assert!((arms[0].rewards.mean() - 0.2).abs() < 1e-3 && (arms[1].rewards.mean() - 0.8).abs() < 1e-3);
    assert!(arms[1].rewards.count() > 250.0, "{}", arms[1].rewards.count());
    bus.shutdown().await
}

/// A log in memory that stays when an app ends.
struct Kept {
    time: PausedClock,
    storage: MemoryStorage,
    calls: Calls,
}

impl Kept {
    fn new() -> Self {
        let time = PausedClock::new(TIME_OF_START).unwrap();
        Self { time, storage: MemoryStorage::new(), calls: Calls::default() }
    }

    fn open(&self) -> oncue::Result<Arc<LogTransport>> {
        let options = Options { writer: Writer::Inline, ..Options::default() };
        let (url, storage) = (LogUrl::from_str("memory:")?, Box::new(self.storage.clone()));
        Ok(Arc::new(LogTransport::on_storage(url, storage, options, self.time.clock())?))
    }

    async fn start(&self, transport: &Arc<LogTransport>, route: Route) -> oncue::Result<Bus> {
        let app = App::with_transport(Arc::clone(transport) as _, self.time.clock());
        shop(app, &self.calls, route).start().await
    }
}

/// Orders in waves, with an end of the process before some of them, in good order or not: all calls, and what is known then.
async fn after(restarts: &[usize], kills: &[usize]) -> oncue::Result<(Vec<(&'static str, String)>, Router)> {
    let mut kept = Kept::new();
    let mut transport = kept.open()?;
    let mut bus = kept.start(&transport, charge()).await?;
    for wave in 0..10 {
        if restarts.contains(&wave) || kills.contains(&wave) {
            if kills.contains(&wave) {
                kept.storage = kept.storage.copy();
            }
            bus.shutdown().await?;
            drop((bus, transport));
            transport = kept.open()?;
            bus = kept.start(&transport, charge()).await?;
        }
        publish(&bus, wave * 30..(wave + 1) * 30).await?;
    }
    let known = router(&bus);
    bus.shutdown().await?;
    Ok((kept.calls.take(), known))
}

#[tokio::test(start_paused = true)]
async fn a_restart_changes_no_choice_and_nothing_of_what_is_known() -> oncue::Result<()> {
    let undisturbed = after(&[], &[]).await?;
    assert!(undisturbed.0.len() > 300);
    assert_eq!(after(&[1, 4, 5, 9], &[]).await?, undisturbed, "in good order");
    assert_eq!(after(&[4], &[1, 2, 7]).await?, undisturbed, "killed");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn whenever_it_is_killed_each_event_is_learned_from_once() -> oncue::Result<()> {
    for steps in [0, 1, 7, 20, 60, 200] {
        let mut kept = Kept::new();
        let transport = kept.open()?;
        let bus = kept.start(&transport, charge()).await?;
        publish(&bus, 0..30).await?;
        for number in 30..60 {
            bus.publish(order(number)).await?;
        }
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        // What stands there now is what a kill leaves.
        kept.storage = kept.storage.copy();
        let known = bus.inspect().router("charge");
        bus.shutdown().await?;
        drop((bus, transport));
        let transport = kept.open()?;
        assert_eq!(transport.inspect().router("charge"), known);
        let bus = kept.start(&transport, charge()).await?;
        bus.idle().await?;
        let tried: f64 = router(&bus).arms().map(|(_, arm)| arm.rewards.count()).sum();
        assert_eq!((tried, bus.inspect().subscriptions()[0].stats.acked), (60.0, 60), "after {steps} steps");
        bus.shutdown().await?;
    }
    Ok(())
}

#[tokio::test]
async fn beside_the_process_the_records_alone_say_the_same() -> oncue::Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let bus = App::open(&url).await?.state(Calls::default());
    let bus = bus.on(charge().concurrency(1).retry(policy::fixed(Duration::from_micros(1)))).start().await?;
    publish(&bus, 0..100).await?;
    // Nothing was checkpointed yet: this replays every trial.
    let beside = LogTransport::snapshot(&LogUrl::file(directory.path()), &Clock::system()).unwrap();
    assert_eq!(beside.router("charge"), Some(router(&bus)));
    assert_eq!(router(&bus).comparison().choices, 100.0);
    bus.shutdown().await
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_goes_is_forgotten_and_those_that_stay_are_not() -> oncue::Result<()> {
    let kept = Kept::new();
    let transport = kept.open()?;
    let bus = kept.start(&transport, charge()).await?;
    publish(&bus, 0..200).await?;
    let before = router(&bus);
    bus.shutdown().await?;
    drop((bus, transport));
    let transport = kept.open()?;
    let other = route::learned("charge").arm(gateway("west")).arm(gateway("north")).features(["bank"]);
    let bus = kept.start(&transport, other.explore(0.5)).await?;
    let after = router(&bus);
    let names: Vec<&str> = after.arms().map(|(name, _)| name).collect();
    assert_eq!((names, after.explored()), (vec!["west", "north"], 0.5));
    assert_eq!(after.arms().nth(1).unwrap().1, before.arms().next().unwrap().1);
    assert_eq!((after.arms().next().unwrap().1.rewards.count(), after.comparison().choices), (0.0, 0.0));
    publish(&bus, 200..220).await?;
    let after = router(&bus);
    bus.shutdown().await?;
    drop((bus, transport));
    // What is known of the handlers of now is what is replayed.
    let transport = kept.open()?;
    assert_eq!(transport.inspect().router("charge"), Some(after));
    // Another question: what was learned says nothing of it.
    let bus = kept.start(&transport, charge().features(["cents"])).await?;
    assert_eq!(bus.inspect().router("charge"), None);
    bus.shutdown().await
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_breaker_is_open_is_not_chosen() -> testing::Result {
    let calls = Calls::default();
    let breaker = middleware::circuit_breaker("north").minimum(3).open_for(Duration::from_secs(3_600));
    let handle = breaker.clone().handle();
    let down = move |event: Envelope, State(calls): State<Calls>| async move {
        calls.0.lock().unwrap().push(("north", event.id().to_owned()));
        Err::<(), _>(HandlerError::transient("down"))
    };
    let down = down.named("north").types(["order.created"]).layer(breaker);
    let up = |_: Envelope, State(_): State<Calls>| async {};
    let route = route::learned("charge").arm(down).arm(up.named("south").types(["order.created"])).explore(1.0);
    let test = TestApp::start(|app| shop(app, &calls, route)).await?;
    assert!(test.bus().breakers()[0].is_same(&handle), "health and alerts know of it");
    publish(test.bus(), 0..200).await?;
    assert_eq!(calls.take().len(), 3, "then it is open");
    test.assert_acked("charge", 200);
    let told = router(test.bus()).comparison();
    assert!(told.choices < 20.0, "what was chosen of fewer is not compared: {}", told.choices);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_later_event_tells_of_a_success() -> testing::Result {
    // Both gateways take every order; what the wrong one took is charged back.
    let takes = |name: &'static str| {
        let call = move |event: Envelope| async move {
            let order_id = event.key().unwrap().to_owned();
            (bank(&event) != name).then_some(ChargedBack { order_id })
        };
        call.named(name).types(["order.created"])
    };
    let back = filter::feedback(["charged.back"], Duration::from_secs(60));
    let route = route::learned("charge").arm(takes("north")).arm(takes("south")).features(["bank"]).feedback(back);
    let test = TestApp::start(|app| shop(app, &Calls::default(), route)).await?;
    for number in 0..600 {
        test.publish(order(number)).await?;
        test.run_until_idle().await?;
        test.advance(Duration::from_secs(61)).await?;
    }
    let told = router(test.bus()).comparison();
    assert_eq!((told.choices, told.verdict), (599.0, Verdict::Better), "the last one waits");
    assert!(told.reward.0 > 0.85, "{told:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_report_that_says_no_is_followed_by_fixing_it_and_what_was_learned_stays() -> oncue::Result<()> {
    let kept = Kept::new();
    let transport = kept.open()?;
    let bus = kept.start(&transport, charge()).await?;
    publish(&bus, 0..60).await?;
    let known = router(&bus);
    kept.calls.take();
    let config: HandlerConfig = serde_json::from_str(r#"{"route": "south"}"#).unwrap();
    bus.configure("charge", config).await?;
    publish(&bus, 63..66).await?;
    assert!(kept.calls.take().iter().all(|(name, _)| *name == "south"));
    assert_eq!(router(&bus), known);
    let config: HandlerConfig = serde_json::from_str(r#"{"route": {"features": ["bank"], "explore": 0.3}}"#).unwrap();
    bus.configure("charge", config).await?;
    publish(&bus, 66..70).await?;
    assert_eq!((router(&bus).explored(), router(&bus).comparison().choices), (0.3, 64.0));
    bus.shutdown().await
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_route_is_told_at_the_start() -> testing::Result {
    async fn refused(route: Route) -> String {
        TestApp::start(|app| app.state(Calls::default()).on(route)).await.map(|_| ()).unwrap_err().to_string()
    }
    let north = || gateway("north");
    let other = || gateway("south").types(["order.paid"]);
    for (route, expected) in [
        (route::learned("charge"), "a route needs handlers: make one by `route::learned(\"…\").arm(…).arm(…)`"),
        (route::learned("charge").arm(north()), "its route has 1 handlers: there are from 2 to 16; add `.arm(…)`"),
        (charge().arm(north()), "its route has two handlers `north`: name one of them, `.named(\"…\")`"),
        (charge().arm(gateway("").named("")), "add `.named(\"…\")`, which what is learned of it is kept under"),
        (
            route::learned("charge").arm(north()).arm(other()),
            "it takes other events than `north`, and any of them may get",
        ),
        (
            charge().arm(gateway("west").concurrency(2).batch(5)),
            "say `concurrency`, `batch` of the route, not of one of its",
        ),
        (charge().explore(0.0), "its route: explore = 0 is no share: give one such as 0.05"),
        (charge().fixed("east"), "its route is fixed to `east`, which is none of its handlers: `north`, `south`"),
    ] {
        let text = refused(route).await;
        assert!(text.contains(expected), "{text}\nand not: {expected}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("oncue.toml");
    std::fs::write(&file, "[handlers.alone]\nroute = \"north\"").unwrap();
    let started = TestApp::start(|app| app.state(Calls::default()).config(&file).on(gateway("alone"))).await;
    let text = started.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("a route needs handlers"), "{text}");
    Ok(())
}
