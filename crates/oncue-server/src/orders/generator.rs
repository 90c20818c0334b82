//! Simulated orders: arrivals, payments and parcels that take their time, and now and then a step out of order.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, Read},
};

use fastrand::Rng;
use oncue::{Envelope, Event, Timestamp, event::InvalidEvent};

use super::event::{
    OrderCanceled, OrderCompleted, OrderCreated, OrderEvent, OrderPaid, OrderShipped, OrderState, OrderUnavailable,
    Payment,
};

/// What an order may come to, and how many of 10,000 do. The last five break the rule.
const LIVES: &[(u32, &[OrderState])] = {
    use OrderState::{Canceled, Completed, Created, Paid, Shipped, Unavailable};
    &[
        (6_900, &[Created, Paid, Shipped, Completed]),
        (1_300, &[Created, Paid, Shipped]),
        (700, &[Created, Paid]),
        (20, &[Created]),
        (350, &[Created, Paid, Unavailable]),
        (200, &[Created, Unavailable]),
        (280, &[Created, Paid, Canceled]),
        (100, &[Created, Canceled]),
        (70, &[Created, Shipped, Paid, Completed]),
        (60, &[Created, Paid, Canceled, Shipped]),
        (10, &[Created, Paid, Completed, Shipped]),
        (7, &[Created, Paid, Shipped, Created, Completed]),
        (3, &[Shipped, Completed]),
    ]
};

/// 2024-01-01T00:00:00Z, when the simulation begins.
const BEGIN_MICROS: i64 = 1_704_067_200_000_000;
const SECOND_MICROS: f64 = 1e6;
/// Mean time between two orders.
const ARRIVAL_SECONDS: f64 = 1_800.0;

/// Orders as a stream of text: one `CloudEvents` JSON object a line, in order of time. The same seed gives the same text.
pub(super) struct Simulation {
    rng: Rng,
    left: u64,
    orders: u64,
    arrival: f64,
    steps: BinaryHeap<Reverse<Step>>,
    text: Vec<u8>,
    read: usize,
}

/// Something that will happen. Ordered by time; the serial number keeps steps at the same time apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    micros: i64,
    serial: (u64, usize),
    state: OrderState,
    order_id: String,
    cents: u64,
}

impl Simulation {
    pub(super) fn new(seed: u64, events: u64) -> Self {
        let (rng, steps) = (Rng::with_seed(seed), BinaryHeap::new());
        Self { rng, left: events, orders: 0, arrival: 0.0, steps, text: Vec::new(), read: 0 }
    }

    /// An exponentially distributed time, in seconds.
    fn delay(&mut self, mean_seconds: f64) -> f64 {
        -mean_seconds * (1.0 - self.rng.f64()).ln()
    }

    fn arrive(&mut self) {
        self.arrival += self.delay(ARRIVAL_SECONDS);
        self.orders += 1;
        let order_id = format!("{:032x}", self.rng.u128(..));
        // Most orders are small and a few are large.
        let cents = 500 + self.rng.u64(0..4_000) * (1 + self.rng.u64(0..6) * self.rng.u64(0..3));
        let mut seconds = self.arrival;
        for (index, state) in self.life().iter().copied().enumerate() {
            seconds += self.delay(match state {
                OrderState::Paid => 6.0 * 3_600.0,
                OrderState::Shipped => 2.0 * 86_400.0,
                OrderState::Completed => 8.0 * 86_400.0,
                OrderState::Canceled | OrderState::Unavailable => 86_400.0,
                OrderState::Created | OrderState::None => 0.0,
            });
            #[expect(clippy::cast_possible_truncation, reason = "far from the end of time")]
            let micros = BEGIN_MICROS + seconds as i64 * SECOND_MICROS as i64;
            let serial = (self.orders, index);
            self.steps.push(Reverse(Step { micros, serial, state, order_id: order_id.clone(), cents }));
        }
    }

    fn life(&mut self) -> &'static [OrderState] {
        let mut at = self.rng.u32(0..LIVES.iter().map(|(share, _)| share).sum());
        for (share, life) in LIVES {
            match at.checked_sub(*share) {
                Some(rest) => at = rest,
                None => return life,
            }
        }
        &[OrderState::Created]
    }

    /// The step that comes next: all orders that arrive before it have arrived.
    fn step(&mut self) -> Step {
        loop {
            if let Some(Reverse(next)) = self.steps.peek() {
                #[expect(clippy::cast_precision_loss, reason = "seconds")]
                let seconds = (next.micros - BEGIN_MICROS) as f64 / SECOND_MICROS;
                if seconds < self.arrival
                    && let Some(Reverse(step)) = self.steps.pop()
                {
                    return step;
                }
            }
            self.arrive();
        }
    }

    fn line(&mut self) -> Result<(), InvalidEvent> {
        let step = self.step();
        let id = format!("{}-{}-{}", step.order_id, step.serial.1, step.state);
        let event = event(&step, self.rng.u64(..));
        let envelope = Envelope::builder(event.event_type())
            .id(id)
            .source("/oncue/simulation")
            .subject(step.order_id)
            .time(Timestamp::from_micros(step.micros))
            .content_type(OrderEvent::CONTENT_TYPE)
            .data(event.encode()?)
            .build()?;
        self.text.clear();
        self.text.extend_from_slice(envelope.to_json().as_bytes());
        self.text.push(b'\n');
        self.read = 0;
        Ok(())
    }
}

fn event(step: &Step, random: u64) -> OrderEvent {
    let order_id = step.order_id.clone();
    match step.state {
        OrderState::Created | OrderState::None => {
            let customer_id = format!("{random:016x}");
            OrderEvent::Created(OrderCreated { order_id, customer_id, total_cents: step.cents })
        }
        OrderState::Paid => {
            let methods = ["credit_card", "credit_card", "credit_card", "transfer", "voucher"];
            let method = methods[random as usize % methods.len()].to_owned();
            let payment = Payment { method, installments: 1, cents: step.cents };
            OrderEvent::Paid(OrderPaid { order_id, payments: vec![payment] })
        }
        OrderState::Shipped => OrderEvent::Shipped(OrderShipped { order_id }),
        OrderState::Completed => OrderEvent::Completed(OrderCompleted { order_id }),
        OrderState::Canceled => OrderEvent::Canceled(OrderCanceled { order_id }),
        OrderState::Unavailable => OrderEvent::Unavailable(OrderUnavailable { order_id }),
    }
}

impl Read for Simulation {
    /// Fills all of `out`, as a file does.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            if self.read == self.text.len() {
                if self.left == 0 {
                    break;
                }
                self.left -= 1;
                self.line().map_err(io::Error::other)?;
            }
            let rest = &self.text[self.read..];
            let length = rest.len().min(out.len() - filled);
            out[filled..filled + length].copy_from_slice(&rest[..length]);
            self.read += length;
            filled += length;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn text(seed: u64, events: u64) -> String {
        let mut text = String::new();
        Simulation::new(seed, events).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_seed_gives_one_stream() {
        assert_eq!(text(1, 500), text(1, 500));
        assert_ne!(text(1, 500), text(2, 500));
        assert!(text(1, 600).starts_with(&text(1, 500)), "more events are a continuation");
        assert_eq!(text(1, 0), "");
    }

    #[test]
    fn orders_live_as_orders_do() {
        let (mut states, mut ids) = (HashMap::<String, OrderState>::new(), std::collections::HashSet::new());
        let (mut last, mut anomalies, mut completed) = (Timestamp::default(), 0, 0);
        for line in text(1, 20_000).lines() {
            let envelope = Envelope::from_json(line.as_bytes()).unwrap();
            let event: OrderEvent = envelope.decode().unwrap();
            assert_eq!(envelope.key(), Some(event.order_id()));
            assert!(envelope.time().unwrap() >= last && ids.insert(envelope.id().to_owned()));
            last = envelope.time().unwrap();
            let state = states.entry(event.order_id().to_owned()).or_default();
            anomalies += usize::from(!state.may_become(event.state()));
            completed += usize::from(event.state() == OrderState::Completed);
            *state = event.state();
        }
        assert_eq!(ids.len(), 20_000);
        assert!((50..1_000).contains(&anomalies), "{anomalies} anomalies");
        assert!(states.len() > 4_000 && completed > 2_000, "{} orders, {completed} completed", states.len());
    }
}
