//! Row 5s: one subscription, served by one process, by two and by four.

use std::{
    hint::black_box,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use oncue::{
    Envelope,
    handler::{HandlerExt as _, Registration, Start},
};
use tokio::runtime::Runtime;

use super::{BATCH, KEYS, Keys, Place, is_asked, message, ours};
use crate::{
    events,
    measure::{Plan, Result, Rounds, Sample, Stopwatch},
    report::{Row, Target},
    running,
};

/// What waits in the topic: more than is handled while it is measured.
const BACKLOG: u64 = 200_000;
/// Of the topic: several for each process.
const PARTITIONS: u16 = 8;
/// What a handler that waits for something waits, and how many calls of a process do at a time.
const WAIT: Duration = Duration::from_millis(1);
const CONCURRENCY: usize = 4;
/// How often a process tells how much it has handled.
const TELL: Duration = Duration::from_millis(20);
/// Until processes have divided partitions, after each has its first event.
const DIVIDED: f64 = 1.0;
const STARTED_WITHIN: f64 = 30.0;

/// One process of a subscription.
#[derive(Args, Clone)]
pub(crate) struct Worker {
    /// Serves a subscription on the broker at this URL until its input ends.
    #[arg(long, hide = true, requires = "subscription")]
    serve: Option<String>,
    #[arg(long, hide = true)]
    subscription: Option<String>,
    /// The handler waits for something.
    #[arg(long, hide = true)]
    waits: bool,
}

impl Worker {
    /// Works, if it is to; whether it was.
    pub(crate) fn work(&self, runtime: &Runtime) -> Result<bool> {
        let (Some(url), Some(subscription)) = (&self.serve, &self.subscription) else { return Ok(false) };
        let handled = Arc::new(AtomicU64::new(0));
        let handler = if self.waits { waiting(&handled) } else { inline(&handled) };
        let handler = handler.topic(events::TOPIC).start(Start::Earliest);
        let bus = runtime.block_on(async {
            Result::Ok(ours::app(url.clone()).await?.on(handler.named(subscription.clone())).start().await?)
        })?;
        runtime.spawn(async move {
            loop {
                println!("{}", handled.load(Ordering::Relaxed));
                tokio::time::sleep(TELL).await;
            }
        });
        std::io::stdin().read_to_end(&mut Vec::new())?;
        runtime.block_on(bus.shutdown())?;
        Ok(true)
    }
}

fn inline(handled: &Arc<AtomicU64>) -> Registration {
    let handled = Arc::clone(handled);
    let handler = move |event: &Envelope| {
        black_box(event.data().len());
        handled.fetch_add(1, Ordering::Relaxed);
    };
    handler.named("bench").types([events::TYPE]).inline()
}

fn waiting(handled: &Arc<AtomicU64>) -> Registration {
    let handled = Arc::clone(handled);
    let handler = move |event: Envelope| {
        let handled = Arc::clone(&handled);
        async move {
            black_box(event.data().len());
            tokio::time::sleep(WAIT).await;
            handled.fetch_add(1, Ordering::Relaxed);
        }
    };
    handler.named("bench").types([events::TYPE]).concurrency(CONCURRENCY)
}

/// A process that was started, and how much it says that it has handled.
struct Started {
    child: Child,
    handled: Arc<AtomicU64>,
}

impl Started {
    fn start(url: &str, subscription: &str, waits: bool) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", url, "--subscription", subscription]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if waits {
            command.arg("--waits");
        }
        let mut child = command.spawn()?;
        let told = child.stdout.take().ok_or("a process has no output")?;
        let handled = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&handled);
        std::thread::spawn(move || {
            for count in BufReader::new(told).lines().map_while(|line| line.ok()?.parse().ok()) {
                heard.store(count, Ordering::Relaxed);
            }
        });
        Ok(Self { child, handled })
    }

    fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Its input ends, and so does it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Events per second of so many processes together, once each has its share.
async fn rate(url: &str, processes: usize, waits: bool, seconds: f64) -> Result<f64> {
    static SUBSCRIPTIONS: AtomicU64 = AtomicU64::new(0);
    let subscription = format!("bench-{}", SUBSCRIPTIONS.fetch_add(1, Ordering::Relaxed));
    let started: Vec<Started> =
        (0..processes).map(|_| Started::start(url, &subscription, waits)).collect::<Result<_>>()?;
    let sum = || started.iter().map(Started::handled).sum::<u64>();
    let watch = Stopwatch::start();
    while started.iter().any(|process| process.handled() == 0) {
        if watch.seconds() > STARTED_WITHIN {
            return Err("a process got no share of the subscription".into());
        }
        tokio::time::sleep(TELL).await;
    }
    tokio::time::sleep(Duration::from_secs_f64(DIVIDED)).await;
    let (watch, before) = (Stopwatch::start(), sum());
    // Not to the very end, where some have nothing left.
    while watch.seconds() < seconds && sum() < BACKLOG / 10 * 9 {
        tokio::time::sleep(TELL).await;
    }
    let rate = (sum() - before) as f64 / watch.seconds();
    tokio::task::block_in_place(|| drop(started));
    Ok(rate)
}

/// Fills a topic; its URL.
async fn filled(place: &Place) -> Result<String> {
    let url = format!("{}?prefix={}&partitions={PARTITIONS}", place.url, place.name);
    let bus = ours::app(url.clone()).await?.start().await?;
    for first in (0..BACKLOG).step_by(4 * BATCH) {
        let publishing = (0..4).map(|nth| {
            let events = message::events(first + nth * BATCH as u64, BATCH, true);
            async {
                bus.publish_all(events::TOPIC, events?, None).await?;
                Result::Ok(())
            }
        });
        futures_util::future::try_join_all(publishing).await?;
    }
    bus.shutdown().await?;
    Ok(url)
}

struct Scaled {
    waits: bool,
    cases: [&'static str; 2],
}

/// On each broker: a handler that waits, and one that does not.
const ROWS: [(&str, [Scaled; 2]); 2] = [
    (
        "nats",
        [
            Scaled { waits: true, cases: ["NATS 1 ms 2", "NATS 1 ms 4"] },
            Scaled { waits: false, cases: ["NATS inline 2", "NATS inline 4"] },
        ],
    ),
    (
        "rabbitmq",
        [
            Scaled { waits: true, cases: ["RabbitMQ 1 ms 2", "RabbitMQ 1 ms 4"] },
            Scaled { waits: false, cases: ["RabbitMQ inline 2", "RabbitMQ inline 4"] },
        ],
    ),
];

impl Scaled {
    fn rows(&self, rounds: [Rounds; 2]) -> Vec<Row> {
        let handler = if self.waits {
            format!("An async handler that waits {} ms, {CONCURRENCY} calls of a process at a time", WAIT.as_millis())
        } else {
            "An inline handler that returns at once".to_owned()
        };
        let settings = format!(
            "{}, {KEYS} keys, {PARTITIONS} partitions, {BACKLOG} events wait. {handler}. Measured from {DIVIDED} s after each \
             process had its first event. The broker has the same machine.",
            events::PAYLOAD
        );
        let row = |(case, rounds)| Row {
            id: "5s",
            case,
            what: "One subscription, keyed, served by two or four processes",
            against: "one process",
            unit: "events/s",
            target: Target::default(),
            settings: settings.clone(),
            rounds,
        };
        self.cases.into_iter().zip(rounds).map(row).collect()
    }

    /// Each number of processes is a subscription of its own on the same topic.
    fn measure(&self, plan: &Plan, runtime: &Runtime, url: &str) -> Result<Vec<Row>> {
        let of = |processes| {
            runtime.block_on(async {
                let (url, waits, seconds) = (url.to_owned(), self.waits, plan.seconds);
                tokio::spawn(async move { rate(&url, processes, waits, seconds).await }).await?
            })
        };
        let rounds = plan.rounds_of(self.cases, || {
            let one = of(1)?;
            Ok([Sample::of(of(2)?, one), Sample::of(of(4)?, one)])
        })?;
        Ok(self.rows(rounds))
    }
}

/// 5s: more processes.
pub(crate) fn processes(plan: &Plan, runtime: &Runtime) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (broker, cases) in ROWS.iter().filter(|(broker, _)| is_asked(plan, broker)) {
        match running::url(broker) {
            Ok(url) => {
                let url = runtime.block_on(filled(&Place::fresh(&url, Path::new(""), Keys::Strict)))?;
                for scaled in cases {
                    rows.extend(scaled.measure(plan, runtime, &url)?);
                }
            }
            Err(why) => {
                let skipped = |scaled: &Scaled| scaled.rows([(); 2].map(|()| Rounds::skipped(why.clone())));
                rows.extend(cases.iter().flat_map(skipped));
            }
        }
    }
    Ok(rows)
}
