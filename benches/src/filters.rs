//! Row 7b: which of many subscriptions want an event.

use std::hint::black_box;

use oncue::{
    Envelope,
    filter::{Filter, FilterIndex},
};

use crate::{
    measure::{Plan, Result, Sample, Stopwatch, nanos_per_call},
    report::{Row, Target},
};

/// Different events, in turn: so many that what an event needs of the index is not in the fastest caches.
const EVENTS: usize = 8192;
/// The naive side looks at so many subscriptions a round.
const NAIVE_CHECKS: usize = 20_000_000;

/// How many different values attributes have, for so many subscriptions: such that an event matches a few.
struct World {
    subscriptions: usize,
    random: fastrand::Rng,
}

/// What one subscription asks for.
type Wanted = (Vec<String>, Option<Filter>);

impl World {
    fn of(subscriptions: usize) -> Self {
        Self { subscriptions, random: fastrand::Rng::with_seed(7) }
    }

    /// One of `subscriptions / share` numbers.
    fn one_in(&mut self, share: usize) -> usize {
        self.random.usize(..self.subscriptions / share)
    }

    fn order(&mut self) -> usize {
        self.one_in(1)
    }

    fn subject_of(&self, order: usize) -> String {
        format!("{}order-{order}", self.customer_of(order / 10))
    }

    fn customer_of(&self, customer: usize) -> String {
        format!("region-{}/customer-{customer}/", customer % 16)
    }

    fn type_of(&self, number: usize) -> String {
        let kind = number % (self.subscriptions / 50);
        format!("com.example.{}.{}", kind / 4, ["created", "changed", "paid", "closed"][kind % 4])
    }

    fn source_of(shop: usize) -> String {
        format!("/{}/shop-{shop}", ["eu", "us", "asia"][shop % 3])
    }

    /// The subscription with this number: twenty kinds, in turn.
    fn subscription(&mut self, number: usize) -> Wanted {
        let (order, other) = (self.order(), self.order());
        let (subject, types) = (self.subject_of(order), vec![self.type_of(order)]);
        match number % 20 {
            0..7 => (types, Some(Filter::exact("subject", subject))),
            7..10 => (types, Some(Filter::exact("tenant", format!("tenant-{}", self.one_in(10))))),
            10..13 => (vec![], Some(Filter::prefix("subject", self.customer_of(order / 10)))),
            13 => (types, Some(Filter::prefix("source", Self::source_of(self.random.usize(..100))))),
            14 | 15 => (vec![], Some(Filter::suffix("subject", format!("/order-{order}")))),
            16 | 17 => {
                (vec![], Some(Filter::exact("subject", subject).or(Filter::exact("subject", self.subject_of(other)))))
            }
            18 => (types, Some(!Filter::prefix("subject", "region-3/"))),
            _ => {
                let source = Filter::exact("source", Self::source_of(self.one_in(100)));
                (vec![], Some(source.and(Filter::suffix("type", ".paid"))))
            }
        }
    }

    fn event(&mut self) -> Result<Envelope> {
        let order = self.order();
        Ok(Envelope::builder(self.type_of(order))
            .source(Self::source_of(self.one_in(100)))
            .subject(self.subject_of(order))
            .content_type("application/json")
            .extension("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .extension("tenant", format!("tenant-{}", self.one_in(10)))
            .build()?)
    }
}

/// The ids that the event matches, each subscription tried.
fn naive(subscriptions: &[Wanted], event: &Envelope, out: &mut Vec<u32>) {
    out.clear();
    for (id, (types, filter)) in (0..).zip(subscriptions) {
        let type_taken = types.is_empty() || types.iter().any(|known| known == event.event_type());
        if type_taken && filter.as_ref().is_none_or(|filter| filter.matches(event)) {
            out.push(id);
        }
    }
}

fn row(plan: &Plan, case: &'static str, count: usize, most: f64) -> Result<Row> {
    let mut world = World::of(count);
    let subscriptions: Vec<Wanted> = (0..count).map(|number| world.subscription(number)).collect();
    let events = (0..EVENTS).map(|_| world.event()).collect::<Result<Vec<_>>>()?;
    let mut index = FilterIndex::new();
    for (id, (types, filter)) in (0_u32..).zip(&subscriptions) {
        index.insert(id, types, filter.as_ref());
    }
    let (mut found, mut expected, mut matches) = (Vec::new(), Vec::new(), 0);
    let sample = &events[..NAIVE_CHECKS / count];
    for event in sample {
        index.matches(event, &mut found);
        naive(&subscriptions, event, &mut expected);
        if found != expected {
            return Err(format!("the index finds {found:?}, not {expected:?}").into());
        }
        matches += found.len();
    }
    let rounds = plan.rounds("7b", || {
        let mut next = events.iter().cycle();
        let ours = nanos_per_call(plan.seconds / 2.0, || {
            if let Some(event) = next.next() {
                index.matches(event, &mut found);
                black_box(&found);
            }
        });
        let watch = Stopwatch::start();
        for event in sample {
            naive(&subscriptions, event, &mut expected);
            black_box(&expected);
        }
        Ok(Sample::of(ours, watch.micros() * 1e3 / sample.len() as f64))
    })?;
    let settings = format!(
        "{count} subscriptions of twenty kinds (exact, prefix, suffix, any, not, with and without types), {EVENTS} \
         different events in turn, {:.1} matches each; one thread, nothing synced. The other side: {} of the events.",
        matches as f64 / sample.len() as f64,
        sample.len(),
    );
    let what = "Finding the subscriptions that want an event";
    let target = Target { less: true, ..Target::default() }.absolute(most);
    Ok(Row { id: "7b", case, what, against: "trying each filter", unit: "ns", target, settings, rounds })
}

/// 7b: with 10,000 subscriptions, and with 100,000.
pub(crate) fn matching(plan: &Plan) -> Result<Vec<Row>> {
    Ok(vec![row(plan, "10 k", 10_000, 250.0)?, row(plan, "100 k", 100_000, 700.0)?])
}
