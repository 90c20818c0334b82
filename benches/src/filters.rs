//! Rows 7b and 7c: which of many subscriptions want an event.

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

    fn order(&mut self) -> usize {
        self.random.usize(..self.subscriptions)
    }

    fn subject_of(order: usize) -> String {
        format!("{}order-{order}", Self::customer_of(order))
    }

    fn customer_of(order: usize) -> String {
        format!("region-{}/customer-{}/", order / 5 % 16, order / 5)
    }

    fn type_of(&self, order: usize) -> String {
        let kind = order % (self.subscriptions / 50);
        format!("com.example.{}.{}", kind / 4, ["created", "changed", "paid", "closed"][kind % 4])
    }

    fn tenant(&mut self) -> String {
        format!("tenant-{}", self.random.usize(..self.subscriptions / 10))
    }

    fn source(&mut self) -> String {
        let shop = self.random.usize(..200);
        format!("/{}/shop-{shop}", ["eu", "us", "asia"][shop % 3])
    }

    /// The subscription with this number: of twenty, so many of each kind.
    fn subscription(&mut self, number: usize) -> Wanted {
        let order = self.order();
        let (subject, types) = (Self::subject_of(order), vec![self.type_of(order)]);
        match number % 20 {
            0..8 => (types, Some(Filter::exact("subject", subject))),
            8..11 => (types, Some(Filter::exact("tenant", self.tenant()))),
            11..14 => (vec![], Some(Filter::prefix("subject", Self::customer_of(order)))),
            14 => (vec![], Some(Filter::suffix("subject", format!("/order-{order}")))),
            15 | 16 => {
                let other = Self::subject_of(self.subscriptions - 1 - order);
                (vec![], Some(Filter::any([subject, other].map(|subject| Filter::exact("subject", subject)))))
            }
            17 | 18 => {
                (types, Some(Filter::exact("source", self.source()).and(!Filter::prefix("subject", "region-3/"))))
            }
            _ => (types, None),
        }
    }

    fn event(&mut self) -> Result<Envelope> {
        let order = self.order();
        Ok(Envelope::builder(self.type_of(order))
            .source(self.source())
            .subject(Self::subject_of(order))
            .content_type("application/json")
            .extension("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .extension("tenant", self.tenant())
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
        "{count} subscriptions (40 % exact subject and type, 15 % exact extension and type, 15 % prefix, 5 % suffix, 10 % any of two, 10 % type, source and not prefix, 5 % type), {EVENTS} \
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

/// An index of so many rules, and a round of its events in turn: nanoseconds per event.
struct Rules {
    index: FilterIndex<u32>,
    events: Vec<Envelope>,
    /// Rules that an event matches, on average.
    matches: f64,
}

impl Rules {
    /// Each rule asks for other content: a subject, the beginning of one, a tenant, a source together with a subject.
    fn of(count: usize) -> Result<Self> {
        let order = |number: usize| format!("customer-{}/order-{number}", number / 4);
        let tenant = |number: usize| format!("tenant-{number}");
        let mut index = FilterIndex::new();
        for (id, number) in (0_u32..).zip(0..count) {
            let filter = match number % 4 {
                0 => Filter::exact("subject", order(number)),
                1 => Filter::prefix("subject", format!("customer-{}/", number / 4)),
                2 => Filter::exact("tenant", tenant(number)),
                _ => Filter::exact("source", "/shop").and(Filter::exact("subject", order(number))),
            };
            index.insert(id, &[], Some(&filter));
        }
        let mut random = fastrand::Rng::with_seed(7);
        let mut event = || -> Result<Envelope> {
            let number = random.usize(..count);
            let event = Envelope::builder("order.changed").source("/shop").subject(order(number));
            Ok(event.extension("tenant", tenant(number)).build()?)
        };
        let events = (0..EVENTS).map(|_| event()).collect::<Result<Vec<_>>>()?;
        let (mut found, mut matches) = (Vec::new(), 0);
        for event in &events {
            index.matches(event, &mut found);
            matches += found.len();
        }
        Ok(Self { index, matches: matches as f64 / events.len() as f64, events })
    }

    fn nanos(&self, seconds: f64) -> f64 {
        let (mut next, mut found) = (self.events.iter().cycle(), Vec::new());
        nanos_per_call(seconds, || {
            if let Some(event) = next.next() {
                self.index.matches(event, &mut found);
                black_box(&found);
            }
        })
    }
}

/// 7c: what a thousand times the rules cost.
pub(crate) fn rules(plan: &Plan) -> Result<Vec<Row>> {
    let (many, few) = (Rules::of(100_000)?, Rules::of(100)?);
    let seconds = plan.seconds / 2.0;
    let rounds = plan.rounds("7c", || Ok(Sample::of(many.nanos(seconds), few.nanos(seconds))))?;
    let settings = format!(
        "No types, content alone: a quarter each exact subject, prefix of a subject, exact extension, source and subject; \
         {EVENTS} different events in turn, {:.1} and {:.1} matches each; one thread, nothing synced.",
        many.matches, few.matches
    );
    Ok(vec![Row {
        id: "7c",
        case: "",
        what: "Finding which of 100,000 rules match an event",
        against: "which of 100",
        unit: "ns",
        target: Target::at_most(1.3),
        settings,
        rounds,
    }])
}
