//! The handlers of the order system. Each is a function: this is all there is to them.

use std::time::Duration;

use oncue::{handler::extract::Attempt, prelude::*};
use serde::{Deserialize, Serialize};

use super::{
    event::{OrderAnomaly, OrderCreated, OrderEvent, OrderState},
    gateway::{Gateway, GatewayError},
};

/// Keeps the state of each order. The state follows the fact, whatever the rule says.
#[handler(inline)]
pub fn track_order(event: OrderEvent, mut order: Keyed<OrderState>) {
    order.set(event.state());
}

/// Publishes each step that the rule does not know, atomically with the acknowledgement: none is lost, none comes twice.
#[handler(inline)]
pub fn detect_anomaly(event: OrderEvent, mut last: Keyed<OrderState>) -> Option<OrderAnomaly> {
    let (before, now) = (*last, event.state());
    last.set(now);
    let anomaly = || OrderAnomaly { order_id: event.order_id().to_owned(), step: format!("{before}→{now}") };
    (!before.may_become(now)).then(anomaly)
}

/// How long after a failed call the gateway is called again, the first time; then twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// Calls for one payment, at most.
const MAX_CALLS: u32 = 5;

/// Takes the payment: a failure for a moment is tried again, one for good becomes a dead letter.
#[handler(retry = policy::exponential().initial(FIRST_RETRY).max_attempts(MAX_CALLS), classify = GatewayError::class)]
pub async fn charge(
    order: OrderCreated,
    State(gateway): State<Gateway>,
    Attempt(attempt): Attempt,
) -> Result<(), GatewayError> {
    gateway.charge(&order.order_id, order.total_cents, attempt)
}

/// Tells the customer; comes after [`track_order`] and [`detect_anomaly`], so what they wrote is there.
#[handler]
pub async fn notify_customer(event: OrderEvent) {
    tracing::debug!(order = event.order_id(), "the customer is told: {}", event.event_type());
}

/// What one order adds to the sales of its day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// The day that it was ordered on, in UTC: `2017-11-24`.
    pub day: String,
    /// What it costs, in cents.
    pub cents: u64,
}

/// Notes the sale of each order under the order's key, so an order that is created again counts once.
#[handler(inline)]
pub fn daily_sales(order: OrderCreated, envelope: Envelope, mut sale: Keyed<Sale>) {
    let ordered = envelope.time().unwrap_or(envelope.published()).to_rfc3339();
    let day = ordered.split('T').next().unwrap_or_default().to_owned();
    sale.set(Sale { day, cents: order.total_cents });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::event::OrderShipped;

    fn shipped() -> OrderEvent {
        OrderEvent::Shipped(OrderShipped { order_id: "o-1".into() })
    }

    #[test]
    fn a_step_against_the_rule_is_an_anomaly_and_the_state_follows_it() {
        let last = Keyed::for_test(OrderState::Canceled);
        let after = last.probe();
        let anomaly = detect_anomaly(shipped(), last).into_inner().unwrap();
        assert_eq!((anomaly.order_id.as_str(), anomaly.step.as_str()), ("o-1", "canceled→shipped"));
        assert_eq!(after.value(), Some(OrderState::Shipped));
    }

    #[test]
    fn a_step_of_the_rule_is_none() {
        assert_eq!(detect_anomaly(shipped(), Keyed::for_test(OrderState::Paid)).into_inner(), None);
    }

    #[tokio::test]
    async fn a_sale_counts_for_the_day_of_the_order() {
        let order = OrderCreated { order_id: "o-1".into(), customer_id: String::new(), total_cents: 4_200 };
        let time = oncue::Timestamp::parse_rfc3339("2017-11-24T23:59:59Z").unwrap();
        let envelope = Envelope::builder_of(&order).unwrap().time(time).build().unwrap();
        let sale = Keyed::for_test(Sale::default());
        let after = sale.probe();
        daily_sales(order, envelope, sale).await;
        assert_eq!(after.value(), Some(Sale { day: "2017-11-24".into(), cents: 4_200 }));
    }
}
