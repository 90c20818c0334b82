//! Flow in the app, in virtual time against simulated dependencies whose laws are known: an adaptive limit finds the knee, and an
//! admission policy earns what the best one does.

use std::{sync::Arc, time::Duration};

use oncue::{
    App, Bus, Clock, PausedClock,
    policy::{Admission, ErrorClass},
    prelude::*,
    testing::{self, TIME_OF_START, TestApp},
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// A service that works on so many calls at once, each for an exponential time; others wait in it.
#[derive(Clone)]
struct Service {
    places: Arc<Semaphore>,
    mean: Duration,
    random: Arc<Mutex<fastrand::Rng>>,
    clock: Clock,
}

impl Service {
    fn new(places: usize, mean: Duration, clock: Clock) -> Self {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(places as u64)));
        Self { places: Arc::new(Semaphore::new(places)), mean, random, clock }
    }

    async fn call(&self) {
        let _place = self.places.acquire().await.unwrap();
        let takes = exponential(&mut self.random.lock(), self.mean);
        self.clock.sleep(takes).await;
    }
}

fn exponential(random: &mut fastrand::Rng, mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - random.f64()).ln())
}

async fn call(_event: Envelope, State(service): State<Service>) {
    service.call().await;
}

fn event(number: usize, event_type: &str) -> Envelope {
    Envelope::builder(event_type).id(format!("e-{number}")).subject(format!("k-{number}")).build().unwrap()
}

fn time() -> PausedClock {
    PausedClock::new(TIME_OF_START).unwrap()
}

async fn start(time: &PausedClock, service: &Service, of: impl FnOnce(App) -> App) -> oncue::Result<Bus> {
    let transport = oncue::transport::LogTransport::open(&oncue::transport::LogUrl::memory(), time.clock())?;
    of(App::with_transport(Arc::new(transport), time.clock()).state(service.clone())).start().await
}

async fn publish(bus: &Bus, events: std::ops::Range<usize>) -> oncue::Result<()> {
    let events = events.map(|number| event(number, "asked")).collect();
    bus.publish_all("events", events, None).await?;
    Ok(())
}

/// How long the handling of an event took on average, since this was asked last.
fn handled(bus: &Bus, before: &mut (u64, u128)) -> Duration {
    let subscriptions = bus.inspect().subscriptions();
    let acked = subscriptions.iter().map(|known| known.stats.acked).sum();
    let now: (u64, u128) = (acked, subscriptions.iter().map(|known| known.stats.handling_us).sum());
    let mean = Duration::from_micros((now.1 - before.1) as u64 / (now.0 - before.0).max(1));
    *before = now;
    mean
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_that_two_handlers_share_finds_what_their_service_bears() -> oncue::Result<()> {
    let time = time();
    let service = Service::new(8, Duration::from_millis(100), time.clock());
    let limit = middleware::adaptive_limit("service").max(120);
    let handlers = |app: App, limit: Option<&middleware::AdaptiveLimit>| {
        ["one", "two"].into_iter().fold(app, |app, name| {
            let handler = call.named(name).types(["asked"]).concurrency(60);
            app.on(match limit {
                Some(limit) => handler.layer(limit.clone()),
                None => handler,
            })
        })
    };
    let bus = start(&time, &service, |app| handlers(app, Some(&limit))).await?;
    let (mut before, began) = ((0, 0), time.clock().monotonic());
    publish(&bus, 0..2_000).await?;
    bus.idle().await?;
    handled(&bus, &mut before);
    let warm = time.clock().monotonic() - began;
    publish(&bus, 2_000..4_000).await?;
    bus.idle().await?;
    let (with, rate) = (handled(&bus, &mut before), 4_000.0 / (time.clock().monotonic() - began - warm).as_secs_f64());
    let state = bus.limits()[0].state();
    assert_eq!((bus.limits().len(), bus.limits()[0].name()), (1, "service"), "one limit, though two have it");
    // τ·8 + √L = L: 13.9. While it is probed it is half of that.
    assert!((5..=20).contains(&state.limit), "{state:?}");
    assert!(rate > 0.9 * 80.0, "{rate} per second, of 80 that the service can do");
    assert!(state.decided.iter().sum::<u64>() > 50 && state.no_load.is_some(), "{state:?}");
    bus.shutdown().await?;

    let service = Service::new(8, Duration::from_millis(100), time.clock());
    let bus = start(&time, &service, |app| handlers(app, None)).await?;
    publish(&bus, 0..2_000).await?;
    bus.idle().await?;
    let without = handled(&bus, &mut (0, 0));
    assert!(with < Duration::from_millis(220), "calls take {with:?}, and {without:?} without it");
    assert!(without > 5 * with, "{with:?} against {without:?}");
    bus.shutdown().await
}

/// What a queue came to that was offered more than it can do.
struct Earned {
    per_second: f64,
    admitted: u64,
    shed: u64,
}

const VALUE: f64 = 10.0;
const WAITING: f64 = 1.0;

/// Poisson arrivals, for 600 s; one server. What it earned in the last 400 of them: values of what was handled, less what waiting cost.
async fn earned(arrivals_per_s: f64, service_ms: u64, admission: Option<Admission>) -> oncue::Result<Earned> {
    let (time, mut random) = (time(), fastrand::Rng::with_seed(11));
    let service = Service::new(1, Duration::from_millis(service_ms), time.clock());
    let handler = call.named("call").types(["asked"]).concurrency(1);
    let handler = match admission {
        Some(admission) => handler.admission(admission),
        None => handler,
    };
    let bus = start(&time, &service, |app| app.on(handler)).await?;
    let (clock, mut number, mut first) = (time.clock(), 0, (0, 0));
    let began = clock.monotonic();
    for until in [200, 600] {
        while clock.monotonic() - began < Duration::from_secs(until) {
            clock.sleep(exponential(&mut random, Duration::from_secs_f64(1.0 / arrivals_per_s))).await;
            publish(&bus, number..number + 1).await?;
            number += 1;
        }
        if until == 200 {
            let known = bus.inspect().subscriptions();
            first = (known[0].stats.acked, known[0].stats.system_us);
        }
    }
    bus.idle().await?;
    let known = bus.inspect().subscriptions();
    let stats = &known[0].stats;
    let spent = (clock.monotonic() - began).as_secs_f64() - 200.0;
    let letters = bus.dead_letters("call").list().unwrap();
    assert!(letters.iter().all(|letter| letter.history[0].class == ErrorClass::Shed));
    assert_eq!(stats.acked + letters.len() as u64, number as u64, "none is lost");
    let worth = VALUE * (stats.acked - first.0) as f64 - WAITING * (stats.system_us - first.1) as f64 / 1e6;
    let earned = Earned { per_second: worth / spent, admitted: stats.acked, shed: letters.len() as u64 };
    if let Some(state) = bus.admissions().first() {
        assert_eq!((state.shed_by_price + state.shed_by_deadline, state.admitted), (earned.shed, earned.admitted));
    }
    bus.shutdown().await?;
    Ok(earned)
}

/// What the best threshold earns (M/M/1, in closed form).
fn best(arrivals: f64, service: f64) -> f64 {
    let load = arrivals / service;
    let gain = |most: i32| {
        let weights: Vec<f64> = (0..=most).map(|there| load.powi(there)).collect();
        let all: f64 = weights.iter().sum();
        let there: f64 = (0..).zip(&weights).map(|(there, weight)| f64::from(there) * weight / all).sum();
        arrivals * (1.0 - weights[most as usize] / all) * VALUE - WAITING * there
    };
    (1..200).map(gain).fold(f64::MIN, f64::max)
}

#[tokio::test(start_paused = true)]
async fn under_overload_an_admission_policy_earns_what_the_best_threshold_does() -> oncue::Result<()> {
    // Ten per second come, and five can be handled.
    let rules = || policy::admission(VALUE, WAITING);
    let (with, best_of_all) = (earned(10.0, 200, Some(rules())).await?, best(10.0, 5.0));
    assert!(with.per_second > 0.93 * best_of_all, "{} of {best_of_all}, {} shed", with.per_second, with.shed);
    let without = earned(10.0, 200, None).await?;
    assert!(without.per_second < 0.0, "without it more wait ever longer: {}", without.per_second);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_overload_hardly_any_event_is_shed() -> oncue::Result<()> {
    let with = earned(3.0, 200, Some(policy::admission(VALUE, WAITING))).await?;
    assert!(with.shed < with.admitted / 1_000, "{} of {}", with.shed, with.admitted);
    assert!(with.per_second > 0.95 * best(3.0, 5.0), "{}", with.per_second);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_past_its_deadline_is_shed_and_handled_if_it_is_redriven() -> oncue::Result<()> {
    let time = time();
    let service = Service::new(1, Duration::from_millis(500), time.clock());
    let rules = policy::admission(1e6, 1e-6).deadline(Duration::from_secs(5));
    let handler = call.named("call").types(["asked"]).concurrency(1).admission(rules);
    let bus = start(&time, &service, |app| app.on(handler)).await?;
    publish(&bus, 0..100).await?;
    bus.idle().await?;
    let letters = bus.dead_letters("call").list().unwrap();
    assert!((80..97).contains(&letters.len()), "about ten are handled in five seconds: {}", letters.len());
    let last = &letters.last().unwrap().history[0];
    assert_eq!(last.class, ErrorClass::Shed);
    assert!(
        last.error.starts_with("shed: it was ") && last.error.ends_with("if it is redriven it is handled"),
        "{}",
        last.error
    );
    let state = &bus.admissions()[0];
    assert_eq!((state.shed_by_deadline, state.shed_by_price), (letters.len() as u64, 0), "{state:?}");
    bus.dead_letters("call").redrive(letters[0].position).await?;
    bus.idle().await?;
    assert_eq!(bus.dead_letters("call").list().unwrap().len(), letters.len() - 1);
    bus.shutdown().await
}

#[tokio::test(start_paused = true)]
async fn of_what_is_too_much_the_type_that_is_worth_less_is_shed() -> oncue::Result<()> {
    let (time, mut random) = (time(), fastrand::Rng::with_seed(5));
    let service = Service::new(1, Duration::from_millis(100), time.clock());
    let rules = policy::admission(1.0, 1.0).value_of("asked", 20.0);
    let handler = call.named("call").types(["asked", "guessed"]).concurrency(1).admission(rules);
    let bus = start(&time, &service, |app| app.on(handler)).await?;
    for number in 0..3_000 {
        time.clock().sleep(exponential(&mut random, Duration::from_millis(70))).await;
        let event_type = ["asked", "guessed"][number % 2];
        bus.publish_all("events", vec![event(number, event_type), event(number + 10_000, "other")], None).await?;
    }
    bus.idle().await?;
    let letters = bus.dead_letters("call").list().unwrap();
    let shed = |of: &str| letters.iter().filter(|letter| letter.envelope.event_type() == of).count();
    assert!(shed("asked") < 30, "{}", shed("asked"));
    assert!(shed("guessed") > 400, "{}", shed("guessed"));
    bus.shutdown().await
}

async fn many(_: Batch<Step>) {}

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(type = "step", key = key)]
struct Step {
    key: String,
}

#[tokio::test(start_paused = true)]
async fn settings_that_make_no_sense_are_told_at_the_start() -> testing::Result {
    let told = async |handler: oncue::handler::Registration| {
        TestApp::start(|app| app.on(handler)).await.map(|_| ()).unwrap_err().to_string()
    };
    let batch = many.named("many");
    let text = told(batch.admission(policy::admission(1.0, 1.0))).await;
    assert!(text.contains("it takes batches"), "{text}");
    let handler = || (|_event: &Envelope| {}).named("each").types(["step"]);
    for (rules, says) in [
        (policy::admission(0.0, 1.0), "a value of 0 would shed every event"),
        (policy::admission(1.0, 0.0), "nothing would ever be shed"),
        (policy::admission(1.0, 1.0).value_of("step", f64::NAN), "a value of NaN"),
        (policy::admission(1.0, 1.0).value_of("a", 1.0).value_of("a", 2.0), "`a` is given twice"),
        (policy::admission(1.0, 1.0).deadline(Duration::ZERO), "a deadline of no time"),
    ] {
        let text = told(handler().admission(rules)).await;
        assert!(
            text.contains("each") && text.contains("its admission policy is wrong: ") && text.contains(says),
            "{text}"
        );
    }
    let sorted = handler().order(oncue::transport::Order::Lifo).admission(policy::admission(1.0, 1.0));
    let text = told(sorted.ordered(oncue::transport::Ordered::Relaxed)).await;
    assert!(text.contains("counts those behind an event"), "{text}");
    let text = told(handler().layer(middleware::adaptive_limit("bank").min(0))).await;
    assert!(text.contains("its adaptive limit `bank`: a minimum of 0"), "{text}");
    Ok(())
}
