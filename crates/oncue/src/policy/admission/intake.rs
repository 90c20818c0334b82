//! What one subscription measured of its queue, what it follows of that, and what it decided.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};

use super::{
    Admission,
    model::{Prices, Queue},
};

/// Nothing is decided by price before so many events were handled.
const FIRST: f64 = 20.0;
/// What is counted is halved when it is of so many events: what was before fades.
const MEMORY: f64 = 512.0;
/// Offsets that the share of events that are taken is counted over.
const OFFSETS: u64 = 8_192;
/// Prices are computed no more often than that.
const BREATH: Duration = Duration::from_secs(1);

/// An event that is about to be handled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<'a> {
    pub(crate) event_type: &'a str,
    /// Where it stands in its topic.
    pub(crate) offset: u64,
    /// Since it was published.
    pub(crate) age: Duration,
    /// The offset that the next event of its topic gets.
    pub(crate) end: u64,
    pub(crate) now: Duration,
}

/// What an admission policy knows and has decided; see [`Bus::admissions`](crate::Bus::admissions).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AdmissionState {
    /// The subscription.
    pub subscription: String,
    /// Events that were let through to be handled.
    pub admitted: u64,
    /// Events that were shed because they were worth less than what keeping them costs.
    pub shed_by_price: u64,
    /// Events that were shed because they were older than the deadline.
    pub shed_by_deadline: u64,
    /// λ: events that come per second, as measured.
    pub arrivals_per_s: f64,
    /// 1/µ: seconds that handling takes, as measured.
    pub service_s: f64,
    /// c: how many are handled at once while others wait.
    pub servers: f64,
    /// n: how many there are, handled or waiting, when it was looked last.
    pub there: f64,
    /// What it cost then to keep one of them; nothing before prices are known.
    pub price: Option<f64>,
    /// How many there may be before an event of the ordinary value is shed; nothing before prices are known.
    pub threshold: Option<f64>,
}

/// Which part of a topic's events is taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    from: u64,
    to: u64,
    events: f64,
}

/// What is measured.
#[derive(Debug, Default)]
struct Measured {
    /// Events that came, and in how many seconds.
    came: (f64, f64),
    /// Events that were looked at, by class.
    by_class: Vec<f64>,
    /// Calls that ended, and the seconds that they took.
    served: (f64, f64),
    /// Looks while others waited, and calls that ran then.
    busy: (f64, f64),
    running: usize,
    taken: Option<Taken>,
    /// The last look: when, and the topic's end.
    last: Option<(Duration, u64)>,
    solved: Option<Duration>,
    there: f64,
    price: Option<f64>,
    admitted: u64,
    shed: [u64; 2],
}

/// Why an event is not handled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shed {
    /// It is older than the deadline.
    Late(Duration),
    /// It is worth less than what keeping it costs.
    Price {
        /// What it is worth, if it is handled in time.
        worth: f64,
        /// What one more costs.
        price: f64,
        /// How many are there.
        there: f64,
    },
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(age) => {
                write!(f, "shed: it was {age:?} old, and its deadline over; if it is redriven it is handled")
            }
            Self::Price { worth, price, there } => write!(
                f,
                "shed: it was worth {worth:.4}, and to keep it among the {there:.0} that were there cost {price:.4}; if it is redriven it is handled"
            ),
        }
    }
}

/// The admission policy of one subscription.
#[derive(Debug)]
pub(crate) struct Intake {
    subscription: String,
    rules: Admission,
    concurrency: usize,
    measured: Mutex<Measured>,
    prices: RwLock<Option<Arc<Prices>>>,
    solving: AtomicBool,
    failed: AtomicBool,
}

/// One side of a fraction over the other; nothing while there is none.
fn ratio((over, under): (f64, f64)) -> Option<f64> {
    (under > 0.0).then(|| over / under)
}

/// Half of both sides of a fraction.
fn halve(fraction: &mut (f64, f64)) {
    *fraction = (fraction.0 / 2.0, fraction.1 / 2.0);
}

impl Measured {
    /// Which part of its topic's events a subscription takes, by how far apart they stand.
    fn share(&mut self, offset: u64) -> f64 {
        let taken = self.taken.get_or_insert(Taken { from: offset, to: offset, events: 0.0 });
        (taken.from, taken.to) = (taken.from.min(offset), taken.to.max(offset));
        taken.events += 1.0;
        if taken.to - taken.from > OFFSETS {
            (taken.from, taken.events) = (taken.from + (taken.to - taken.from) / 2, taken.events / 2.0);
        }
        (taken.events / (taken.to - taken.from + 1) as f64).min(1.0)
    }

    /// An event is looked at. There are itself, those that run, and of those behind it the part that is taken.
    fn look(&mut self, arrived: &Arrived<'_>, class: usize, classes: usize) {
        let share = self.share(arrived.offset);
        let behind = arrived.end.saturating_sub(arrived.offset + 1);
        self.there = behind as f64 * share + self.running as f64 + 1.0;
        if let Some((when, end)) = self.last {
            self.came.0 += arrived.end.saturating_sub(end) as f64 * share;
            self.came.1 += arrived.now.saturating_sub(when).as_secs_f64();
        }
        self.last = Some((arrived.now, arrived.end));
        self.by_class.resize(classes, 0.0);
        self.by_class[class] += 1.0;
        if self.by_class.iter().sum::<f64>() > MEMORY {
            self.by_class.iter_mut().for_each(|seen| *seen /= 2.0);
            halve(&mut self.came);
        }
        if self.there > self.running as f64 + 1.5 {
            self.busy = (self.busy.0 + self.running as f64 + 1.0, self.busy.1 + 1.0);
            if self.busy.1 > MEMORY {
                halve(&mut self.busy);
            }
        }
    }

    fn arrivals_per_s(&self) -> f64 {
        ratio(self.came).unwrap_or(0.0)
    }

    fn service_s(&self) -> Option<f64> {
        ratio((self.served.1, self.served.0)).filter(|_| self.served.0 >= FIRST / 2.0)
    }
}

impl Intake {
    pub(crate) fn new(subscription: &str, rules: Admission, concurrency: usize) -> Self {
        Self {
            subscription: subscription.to_owned(),
            rules,
            concurrency,
            measured: Mutex::default(),
            prices: RwLock::default(),
            solving: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Whether it was made for the same.
    pub(crate) fn is_for(&self, rules: &Admission, concurrency: usize) -> bool {
        self.rules == *rules && self.concurrency == concurrency
    }

    /// Whether an event is handled. Once it is tried it is tried to the end: who asks, asks before the first attempt.
    pub(crate) fn decide(&self, arrived: &Arrived<'_>) -> Result<(), Shed> {
        let prices = self.prices.read().clone();
        let class = self.rules.class_of(arrived.event_type);
        let value = self.rules.classes().nth(class).unwrap_or(self.rules.value);
        let mut measured = self.measured.lock();
        measured.look(arrived, class, self.rules.values.len() + 1);
        let there = measured.there;
        measured.price = prices.as_ref().map(|prices| prices.of(there - 1.0));
        let left = self.rules.deadline.map(|deadline| deadline.saturating_sub(arrived.age));
        let in_time = match (left, measured.service_s()) {
            (Some(left), _) if left.is_zero() => {
                measured.shed[0] += 1;
                return Err(Shed::Late(arrived.age));
            }
            // Service times are taken for exponential, as in the model.
            (Some(left), Some(mean)) if mean > 0.0 => -(-left.as_secs_f64() / mean).exp_m1(),
            _ => 1.0,
        };
        let worth = value * in_time;
        match measured.price {
            Some(price) if price > worth => {
                measured.shed[1] += 1;
                Err(Shed::Price { worth, price, there })
            }
            _ => {
                measured.admitted += 1;
                measured.running += 1;
                Ok(())
            }
        }
    }

    /// An event that is not asked about is handled: it was tried before.
    pub(crate) fn pass(&self) {
        self.measured.lock().running += 1;
    }

    /// A call has ended: after how long. Nothing if it was given up before.
    pub(crate) fn ended(&self, took: Option<Duration>) {
        let mut measured = self.measured.lock();
        measured.running = measured.running.saturating_sub(1);
        let Some(took) = took else { return };
        measured.served = (measured.served.0 + 1.0, measured.served.1 + took.as_secs_f64());
        if measured.served.0 > MEMORY {
            halve(&mut measured.served);
        }
    }

    /// Whether prices are to be computed now; who is told so does it.
    pub(crate) fn is_stale(&self, now: Duration) -> bool {
        let mut measured = self.measured.lock();
        let rested = measured.solved.is_none_or(|solved| now.saturating_sub(solved) >= BREATH);
        let known = measured.served.0 >= FIRST || measured.solved.is_some();
        if !rested || !known || self.solving.swap(true, Ordering::AcqRel) {
            return false;
        }
        measured.solved = Some(now);
        true
    }

    /// The queue as it is measured.
    fn queue(&self) -> Option<Queue> {
        let measured = self.measured.lock();
        let service_s = measured.service_s()?;
        let (seen, arrivals) = (measured.by_class.iter().sum::<f64>(), measured.arrivals_per_s());
        let share = |of_class: f64| (arrivals * of_class / seen).max(1e-9);
        let mut classes: Vec<(f64, f64)> =
            measured.by_class.iter().map(|of_class| share(*of_class)).zip(self.rules.classes()).collect();
        classes.sort_by(|one, other| other.1.total_cmp(&one.1));
        let servers = ratio(measured.busy).unwrap_or(self.concurrency as f64).clamp(1.0, self.concurrency as f64);
        (service_s > 0.0).then(|| Queue {
            classes,
            service: 1.0 / service_s,
            servers,
            waiting: self.rules.waiting_per_s,
        })
    }

    /// Computes prices; for a thread that has the time. What cannot be computed sheds nothing.
    pub(crate) fn compute(&self) {
        let prices = self.queue().map(|queue| queue.prices());
        let prices = match prices {
            Some(Ok(prices)) => Some(Arc::new(prices)),
            Some(Err(error)) => {
                if !self.failed.swap(true, Ordering::AcqRel) {
                    tracing::error!(subscription = %self.subscription, %error,
                        "what its events cost could not be computed: none is shed but for its deadline");
                }
                None
            }
            None => None,
        };
        *self.prices.write() = prices;
        self.solving.store(false, Ordering::Release);
    }

    pub(crate) fn state(&self) -> AdmissionState {
        let threshold = self.prices.read().as_ref().map(|prices| prices.threshold(self.rules.value));
        let measured = self.measured.lock();
        AdmissionState {
            subscription: self.subscription.clone(),
            admitted: measured.admitted,
            shed_by_price: measured.shed[1],
            shed_by_deadline: measured.shed[0],
            arrivals_per_s: measured.arrivals_per_s(),
            service_s: measured.service_s().unwrap_or(0.0),
            servers: ratio(measured.busy).unwrap_or(self.concurrency as f64),
            there: measured.there,
            price: measured.price,
            threshold,
        }
    }
}
