//! Response times and throughput are what anyone can compute again from the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use oncue::{
    App, Bus, Envelope, ManualClock, Timestamp,
    handler::{
        HandlerExt,
        extract::{Context, State},
    },
    metrics::{HandlerStats, MAX_RELATIVE_ERROR},
    policy::{self, ErrorClass},
    prelude::*,
    transport::{Inspect, LogTransport, LogUrl, SubscriptionInfo, Transport},
};
use oncue_log::{Options, Writer, storage::MemoryStorage};
use serde::Deserialize;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Reads varints and what is made of them: written anew from the description of the settle record.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn varint(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.0[0];
            self.0 = &self.0[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn signed(&mut self) -> i64 {
        let value = self.varint();
        if value.is_multiple_of(2) { (value / 2) as i64 } else { -((value / 2) as i64) - 1 }
    }

    fn json<T: Deserialize<'a>>(&mut self) -> T {
        let (json, rest) = {
            let length = self.varint() as usize;
            self.0.split_at(length)
        };
        self.0 = rest;
        serde_json::from_slice(json).unwrap()
    }
}

/// The times of an attempt, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Times {
    generated: Option<i64>,
    published: i64,
    read: i64,
    ended: i64,
}

#[derive(Deserialize)]
struct Failure {
    subscription: u64,
    offset: u64,
    event_type: u64,
    times: Times,
    /// Of a retry: how the attempt failed; nothing if the handler deferred the event.
    failed: Option<serde_json::Value>,
}

/// That a dead letter is handled again.
#[derive(Deserialize)]
struct Redrive {
    subscription: u64,
    offset: u64,
}

#[derive(Deserialize)]
struct Numbered {
    number: u64,
    #[serde(alias = "id")]
    name: String,
}

/// What the records of the log say of one handler, or of one of its event types.
#[derive(Clone, Default, Debug)]
struct Recomputed {
    acked: Vec<Times>,
    dead: Vec<Times>,
    retried: Vec<Times>,
    deferred: Vec<Times>,
    /// Of dead letters that were handled again.
    acked_again: Vec<Times>,
    dead_again: Vec<Times>,
}

/// By the names of the handler and of the event type.
type Found = BTreeMap<(String, String), Recomputed>;

/// The numbers that handlers and event types have in the log, and what is found under these.
#[derive(Default)]
struct Reading {
    handlers: BTreeMap<u64, String>,
    types: BTreeMap<u64, String>,
    /// Dead letters that are being handled again, by handler and offset.
    again: BTreeSet<(u64, u64)>,
    found: Found,
}

impl Reading {
    fn of(&mut self, subscription: u64, event_type: u64) -> &mut Recomputed {
        let names = (self.handlers[&subscription].clone(), self.types[&event_type].clone());
        self.found.entry(names).or_default()
    }

    fn record(&mut self, kind: u8, data: &[u8]) {
        let mut bytes = Bytes(data);
        match kind {
            17 => self.settled(&mut bytes),
            18 => {
                let retry: Failure = bytes.json();
                let of = self.of(retry.subscription, retry.event_type);
                if retry.failed.is_some() { of.retried.push(retry.times) } else { of.deferred.push(retry.times) }
            }
            19 => {
                let dead: Failure = bytes.json();
                let again = self.again.remove(&(dead.subscription, dead.offset));
                let of = self.of(dead.subscription, dead.event_type);
                if again { of.dead_again.push(dead.times) } else { of.dead.push(dead.times) }
            }
            24 => {
                let redrive: Redrive = bytes.json();
                self.again.insert((redrive.subscription, redrive.offset));
            }
            21 | 22 => {
                let Numbered { number, name } = bytes.json();
                if kind == 21 {
                    self.types.insert(number, name)
                } else {
                    self.handlers.insert(number, name)
                };
            }
            _ => {}
        }
    }

    fn settled(&mut self, bytes: &mut Bytes<'_>) {
        let (subscription, base) = (bytes.varint(), bytes.signed());
        for _ in 0..bytes.varint() {
            let (offset, flags, event_type) = (bytes.varint(), bytes.varint(), bytes.varint());
            let ended = base + bytes.signed();
            let read = ended - bytes.signed();
            let published = read - bytes.signed();
            let generated = (flags % 2 == 1).then(|| published - bytes.signed());
            let is_ack = flags / 2 % 4 == 0;
            if is_ack {
                let times = Times { generated, published, read, ended };
                let again = self.again.remove(&(subscription, offset));
                let of = self.of(subscription, event_type);
                if again { of.acked_again.push(times) } else { of.acked.push(times) }
            }
        }
    }
}

fn recompute(transport: &LogTransport) -> Found {
    let mut reading = Reading::default();
    for record in transport.log().scan(0) {
        let record = record.unwrap();
        reading.record(record.kind, &record.data);
    }
    reading.found
}

impl Recomputed {
    fn add(&mut self, other: &Self) {
        self.acked.extend(&other.acked);
        self.dead.extend(&other.dead);
        self.retried.extend(&other.retried);
        self.deferred.extend(&other.deferred);
        self.acked_again.extend(&other.acked_again);
        self.dead_again.extend(&other.dead_again);
    }

    /// Every formula of the model, from the times alone.
    fn compare(&self, stats: &HandlerStats, what: &str) {
        let again = self.acked_again.len() + self.dead_again.len();
        let (acked, dead) = (self.acked.len() + self.acked_again.len(), self.dead.len() + self.dead_again.len());
        assert_eq!(
            [stats.acked, stats.dead, stats.again, stats.retried, stats.deferred],
            [acked, dead, again, self.retried.len(), self.deferred.len()].map(|count| count as u64),
            "{what}"
        );
        let finished: Vec<Times> = self.acked.iter().chain(&self.dead).copied().collect();
        let sum = |time: fn(&Times) -> i64| finished.iter().map(time).sum::<i64>();
        let since_generated = sum(|times| (times.ended - times.generated.unwrap_or(times.published)).max(0));
        let since_published = sum(|times| times.ended - times.published);
        let waiting = sum(|times| times.read - times.published);
        let handling = sum(|times| times.ended - times.read);
        let unfinished = [&self.retried, &self.deferred, &self.acked_again, &self.dead_again];
        let unfinished: i64 = unfinished.into_iter().flatten().map(|times| times.ended - times.read).sum();
        assert_eq!(stats.total_us, since_generated as u128, "{what}: Σ Tᵢ");
        assert_eq!(stats.system_us, since_published as u128, "{what}");
        assert_eq!((stats.waiting_us(), stats.handling_us), (waiting as u128, handling as u128), "{what}");
        assert_eq!(stats.unfinished_us, unfinished as u128, "{what}");

        let n = finished.len() as i64;
        assert_eq!(stats.finished(), n as u64, "{what}: n");
        if n == 0 {
            assert_eq!((stats.art(), stats.throughput(), stats.percentile(0.5)), (None, None, None), "{what}");
            return;
        }
        let average = |sum: i64| Some(Duration::from_nanos((sum * 1_000 / n) as u64));
        assert_eq!(stats.art(), average(since_generated), "{what}: ART = Σ Tᵢ / n");
        assert_eq!(stats.art_since_published(), average(since_published), "{what}");
        assert_eq!(
            (stats.average_waiting(), stats.average_handling()),
            (average(waiting), average(handling)),
            "{what}"
        );

        let first = finished.iter().map(|times| times.published).min().unwrap();
        let last = finished.iter().map(|times| times.ended).max().unwrap();
        let seconds = (last - first) as f64 / 1e6;
        assert_eq!(stats.span(), Some(Duration::from_micros((last - first) as u64)), "{what}: t");
        let throughput = stats.throughput().unwrap();
        assert!((throughput - n as f64 / seconds).abs() < 1e-9 * throughput, "{what}: n / t is {throughput}");

        let mut sorted: Vec<i64> = finished.iter().map(|times| times.ended - times.published).collect();
        sorted.sort_unstable();
        for q in [0.01, 0.25, 0.5, 0.9, 0.99, 1.0] {
            let exact = sorted[((n as f64 * q).ceil() as usize).clamp(1, sorted.len()) - 1] as f64;
            let given = stats.percentile(q).unwrap().as_micros() as f64;
            assert!(
                (given - exact).abs() <= exact * MAX_RELATIVE_ERROR,
                "{what}: percentile {q} is {given}, not {exact}"
            );
        }
        let longest = *sorted.last().unwrap();
        assert_eq!(stats.percentile(1.0), Some(Duration::from_micros(longest as u64)), "{what}");
    }
}

fn compare_all(transport: &LogTransport) {
    let recomputed = recompute(transport);
    let subscriptions = transport.inspect().subscriptions();
    for SubscriptionInfo { id, stats, by_type, .. } in &subscriptions {
        let (mut all, mut merged) = (Recomputed::default(), HandlerStats::default());
        for (event_type, stats) in by_type {
            let of_type = &recomputed[&(id.clone(), event_type.clone())];
            of_type.compare(stats, &format!("{id}, {event_type}"));
            all.add(of_type);
            merged.merge(stats);
        }
        assert_eq!(recomputed.keys().filter(|(handler, _)| handler == id).count(), by_type.len(), "{id}: types");
        all.compare(stats, id);
        assert_eq!(merged, *stats, "{id}: the types together are the whole");
    }
    assert_eq!(subscriptions.len(), 3);
}

/// Takes as long as the event says, fails as often as it says, and puts off what comes too early.
async fn work(event: Envelope, context: Context, State(clock): State<ManualClock>) -> Outcome {
    let said = |name: &str| event.extension(name).map_or(0, |text| text.parse::<u32>().unwrap());
    let waited = clock.clock().now().since(event.published());
    clock.advance(said("takes") * MILLISECOND / 2);
    tokio::task::yield_now().await;
    clock.advance(said("takes") * MILLISECOND / 2 + Duration::from_micros(u64::from(context.attempt())));
    if waited < said("notyet") * MILLISECOND {
        return Outcome::Defer(7 * MILLISECOND);
    }
    if context.attempt() <= said("fails") {
        return Outcome::Fail { class: ErrorClass::Transient, error: "not yet".to_owned() };
    }
    Outcome::Ack
}

/// Lets time pass until everything is through.
async fn drive(bus: &Bus, clock: &ManualClock) {
    while bus.inspect().unsettled() > 0 {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if let Some(next) = clock.until_next() {
            clock.advance(next);
        }
    }
}

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000))
}

#[tokio::test]
async fn what_is_shown_is_what_the_log_says() {
    let (storage, clock, mut random) = (MemoryStorage::new(), clock(), fastrand::Rng::with_seed(11));
    let open = |storage: &MemoryStorage| {
        let options = Options { writer: Writer::Inline, ..Options::default() };
        LogTransport::on_storage(LogUrl::memory(), Box::new(storage.clone()), options, clock.clock()).unwrap()
    };
    let transport = Arc::new(open(&storage));
    let retry = || policy::fixed(20 * MILLISECOND).max_attempts(3).jitter(0.0);
    let bus = App::with_transport(transport.clone(), clock.clock())
        .state(clock.clone())
        .on(work.named("every").types(["one", "two", "three"]).concurrency(4).retry(retry()))
        .on(work.named("some").types(["one", "two"]).retry(retry()))
        .on(work.named("later").types(["two"]).after_id("some").retry(retry()))
        .start()
        .await
        .unwrap();
    for number in 0..80 {
        let event = Envelope::builder(["one", "two", "three"][random.usize(0..3)])
            .key(random.u8(0..6).to_string())
            .extension("takes", random.u8(0..9).to_string())
            .extension("fails", [0, 0, 0, 1, 2, 3][random.usize(0..6)].to_string())
            .extension("notyet", [0, 0, 0, 25][random.usize(0..4)].to_string());
        // Some were generated long ago, and one by somebody whose clock is ahead.
        let event = match number % 4 {
            0 if number == 40 => event.time(clock.clock().now().after(Duration::from_secs(3_600))),
            0 => event.time(Timestamp::from_micros(clock.clock().now().as_micros() - random.i64(0..9_000_000))),
            _ => event,
        };
        bus.publish(event.build().unwrap()).await.unwrap();
        clock.advance(random.u32(0..3) * MILLISECOND);
        tokio::task::yield_now().await;
    }
    drive(&bus, &clock).await;
    compare_all(&transport);
    let stats: Vec<_> = bus.inspect().subscriptions().into_iter().map(|info| info.stats).collect();
    for (stats, after_another) in stats.iter().zip([false, false, true]) {
        assert!(stats.acked > 5 && stats.retried > 5, "there is something to compare");
        assert!(after_another || (stats.dead > 5 && stats.deferred > 5), "there is something to compare");
    }

    // What is handled again was finished before, and does not count in n again.
    let again = bus.dead_letters("every").redrive_all().await.unwrap() as u64;
    drive(&bus, &clock).await;
    compare_all(&transport);
    let handled_again = bus.inspect().subscriptions()[0].stats.clone();
    assert!(again > 0 && handled_again.again == again, "there is something to compare");
    assert_eq!(handled_again.finished(), stats[0].finished(), "each event counts once");
    assert_eq!(handled_again.art(), stats[0].art(), "the time as a dead letter is nobody's response time");
    let shown = |inspect: &dyn Inspect| -> Vec<_> {
        inspect.subscriptions().into_iter().map(|info| (info.stats, info.by_type)).collect()
    };
    let (before, killed) = (shown(bus.inspect()), storage.copy());
    bus.shutdown().await.unwrap();
    drop((bus, transport));
    // One begins with a checkpoint, the other one replays every record.
    for storage in [storage, killed] {
        let transport = open(&storage);
        assert!(shown(transport.inspect()) == before, "a restart changes no number");
        compare_all(&transport);
    }
}

/// The formulas, on three events whose times were chosen.
#[tokio::test]
async fn response_times_are_from_generation_to_the_end_of_the_last_attempt() {
    let clock = clock();
    let transport = Arc::new(LogTransport::open(&LogUrl::memory(), clock.clock()).unwrap());
    let bus = App::with_transport(transport, clock.clock())
        .state(clock.clone())
        .on(work.named("work").types(["paid"]).retry(policy::fixed(20 * MILLISECOND).max_attempts(2).jitter(0.0)))
        .start()
        .await
        .unwrap();
    let event = |takes: u32, fails: u32| {
        let event = Envelope::builder("paid").extension("takes", takes.to_string());
        event.extension("fails", fails.to_string())
    };
    // 4.001 ms at once; generated 1 s before it was published.
    let generated = Timestamp::from_micros(clock.clock().now().as_micros() - 1_000_000);
    bus.publish(event(4, 0).time(generated).build().unwrap()).await.unwrap();
    drive(&bus, &clock).await;
    // 10.001 ms that fail, 20 ms until the next attempt, 10.002 ms that do not.
    bus.publish(event(10, 1).build().unwrap()).await.unwrap();
    drive(&bus, &clock).await;
    // Half a second of nothing; then 2.001 ms, 20 ms, 2.002 ms, and given up on.
    clock.advance(500 * MILLISECOND);
    bus.publish(event(2, 9).build().unwrap()).await.unwrap();
    drive(&bus, &clock).await;

    let info = bus.inspect().subscriptions().remove(0);
    let stats = info.stats;
    assert_eq!(info.by_type, [("paid".to_owned(), stats.clone())]);
    assert_eq!((stats.acked, stats.retried, stats.dead, stats.finished()), (2, 2, 1, 3));
    assert_eq!((stats.system_us, stats.total_us), (4_001 + 40_003 + 24_003, 68_007 + 1_000_000));
    assert_eq!((stats.handling_us, stats.waiting_us()), (4_001 + 10_002 + 2_002, 30_001 + 22_001));
    assert_eq!(stats.unfinished_us, 10_001 + 2_001);
    assert_eq!(stats.art(), Some(Duration::from_micros(356_002) + Duration::from_nanos(333)), "Σ Tᵢ / n");
    assert_eq!(stats.art_since_published(), Some(Duration::from_micros(22_669)));
    assert_eq!(stats.span(), Some(Duration::from_micros(568_007)), "with the half second of nothing");
    assert!((stats.throughput().unwrap() - 3.0 / 0.568_007).abs() < 1e-9, "n / t");
    assert_eq!(stats.percentile(1.0), Some(Duration::from_micros(40_003)));
    bus.shutdown().await.unwrap();
}
