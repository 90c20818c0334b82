//! What happens to an order: the events, the states they lead to, and the rule.

use std::fmt;

use oncue::Event;
use serde::{Deserialize, Serialize};

/// Everything that happens to an order.
#[derive(Event, Clone, Debug, PartialEq, Eq)]
pub enum OrderEvent {
    /// A customer ordered.
    Created(OrderCreated),
    /// The payment was approved.
    Paid(OrderPaid),
    /// The goods are on their way.
    Shipped(OrderShipped),
    /// The customer has the goods.
    Completed(OrderCompleted),
    /// Somebody called it off.
    Canceled(OrderCanceled),
    /// The goods cannot be had.
    Unavailable(OrderUnavailable),
}

/// A customer ordered.
#[derive(Event, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
pub struct OrderCreated {
    /// The order.
    pub order_id: String,
    /// Who ordered.
    #[serde(default)]
    pub customer_id: String,
    /// What the whole costs, in cents.
    pub total_cents: u64,
}

/// The payment of an order was approved.
#[derive(Event, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[event(type = "order.paid", key = order_id)]
pub struct OrderPaid {
    /// The order.
    pub order_id: String,
    /// How it was paid; often in several ways.
    #[serde(default)]
    pub payments: Vec<Payment>,
}

/// A part of what was paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Such as `credit_card`.
    pub method: String,
    /// In how many parts it is paid.
    #[serde(default)]
    pub installments: u32,
    /// How much, in cents.
    pub cents: u64,
}

/// The goods of an order are on their way.
#[derive(Event, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[event(type = "order.shipped", key = order_id)]
pub struct OrderShipped {
    /// The order.
    pub order_id: String,
}

/// The customer has the goods.
#[derive(Event, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[event(type = "order.completed", key = order_id)]
pub struct OrderCompleted {
    /// The order.
    pub order_id: String,
}

/// An order was called off.
#[derive(Event, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[event(type = "order.canceled", key = order_id)]
pub struct OrderCanceled {
    /// The order.
    pub order_id: String,
}

/// The goods of an order cannot be had.
#[derive(Event, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[event(type = "order.unavailable", key = order_id)]
pub struct OrderUnavailable {
    /// The order.
    pub order_id: String,
}

/// An order took a step that the rule does not know. On a topic of its own: it is about the orders' events, not one of
/// them.
#[derive(Event, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[event(type = "order.anomaly", key = order_id, topic = "anomalies")]
pub struct OrderAnomaly {
    /// The order.
    pub order_id: String,
    /// The step, such as `canceled→shipped`.
    pub step: String,
}

impl OrderEvent {
    /// The order that it is about.
    #[must_use]
    pub fn order_id(&self) -> &str {
        match self {
            Self::Created(event) => &event.order_id,
            Self::Paid(event) => &event.order_id,
            Self::Shipped(event) => &event.order_id,
            Self::Completed(event) => &event.order_id,
            Self::Canceled(event) => &event.order_id,
            Self::Unavailable(event) => &event.order_id,
        }
    }

    /// The state that the order is in from now on.
    #[must_use]
    pub fn state(&self) -> OrderState {
        match self {
            Self::Created(_) => OrderState::Created,
            Self::Paid(_) => OrderState::Paid,
            Self::Shipped(_) => OrderState::Shipped,
            Self::Completed(_) => OrderState::Completed,
            Self::Canceled(_) => OrderState::Canceled,
            Self::Unavailable(_) => OrderState::Unavailable,
        }
    }
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// Nothing is known of it.
    #[default]
    None,
    /// Ordered.
    Created,
    /// Paid for.
    Paid,
    /// On its way.
    Shipped,
    /// Delivered.
    Completed,
    /// Called off.
    Canceled,
    /// Not to be had.
    Unavailable,
}

impl OrderState {
    /// The rule: whether an order may go from this state to `next`.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::None, Self::Created)
                | (Self::Created, Self::Paid)
                | (Self::Paid, Self::Shipped)
                | (Self::Shipped, Self::Completed)
                | (Self::Created | Self::Paid, Self::Canceled | Self::Unavailable)
        )
    }

    /// Its name, as reports and the log write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Created => "created",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Completed => "completed",
            Self::Canceled => "canceled",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for OrderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::OrderState::*;

    #[test]
    fn the_rule_allows_what_it_says_and_nothing_else() {
        let states = [None, Created, Paid, Shipped, Completed, Canceled, Unavailable];
        let pairs = states.into_iter().flat_map(|from| states.map(|to| (from, to)));
        let allowed: Vec<_> = pairs.filter(|(from, to)| from.may_become(*to)).collect();
        let expected = [
            (None, Created),
            (Created, Paid),
            (Created, Canceled),
            (Created, Unavailable),
            (Paid, Shipped),
            (Paid, Canceled),
            (Paid, Unavailable),
            (Shipped, Completed),
        ];
        assert_eq!(allowed, expected);
    }

    #[test]
    fn a_state_is_stored_under_its_name() {
        for state in [None, Created, Unavailable] {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
    }
}
