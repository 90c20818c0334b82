//! Layers around handlers: limits, a circuit breaker, a timeout, a log. Each is a [`Layer`]; so is a closure of yours.
//!
//! A layer is put around a handler (`charge.layer(…)`, `#[handler(layer = …)]`), around a group
//! ([`Group::layer`](crate::Group::layer)) or around all handlers of an app ([`App::layer`](crate::App::layer)). Clones of
//! one are the same: what has them shares the limit, or the breaker.
//!
//! ```
//! use std::time::Duration;
//! use oncue::{Group, prelude::*};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize)]
//! #[event(type = "order.created", key = order_id)]
//! struct OrderCreated { order_id: String }
//!
//! #[handler(timeout = "5s", layer = middleware::rate_limit(100, Duration::from_secs(1)))]
//! async fn charge(order: OrderCreated) {}
//!
//! #[handler]
//! async fn invoice(order: OrderCreated) {}
//!
//! # #[tokio::main]
//! # async fn main() -> oncue::Result<()> {
//! let bank = middleware::circuit_breaker("bank");
//! let billing = Group::new("billing").on(charge).on(invoice).layer(bank.clone());
//! let app = App::open("memory:").await?.group(billing).layer(middleware::trace()).start().await?;
//! app.publish(OrderCreated { order_id: "o-1".into() }).await?;
//! # app.idle().await?;
//! assert_eq!(app.breakers()[0].name(), "bank");
//! # app.shutdown().await
//! # }
//! ```
//!
//! **From the outside in**: the app's layers, the group's, the handler's, each in the order in which they were added; then
//! the handler's own `timeout` and the catching of panics; then the handler. So waiting in a layer is no part of an
//! attempt, and a layer sees a timeout or a panic as an outcome. A good order is [`trace()`], [`circuit_breaker`],
//! [`rate_limit`], [`concurrency_limit`], [`adaptive_limit`]: who waits for the one has taken nothing of those behind it.
//!
//! **A call that waits in a layer** holds its handler's place and its key, so the log keeps what comes behind it. It has not
//! begun: when its handler is paused, unsubscribed, configured or shut down, the call is dropped and its event delivered
//! again later, with no attempt used up. Whether an event has expired is looked at before its layers.

mod adaptive_limit;
mod circuit_breaker;
mod concurrency_limit;
mod rate_limit;
mod timeout;
mod trace;

pub use adaptive_limit::{AdaptiveLimit, DEFAULT_INITIAL_LIMIT, DEFAULT_MAX_LIMIT, DEFAULT_TOLERANCE, adaptive_limit};
pub use circuit_breaker::{
    CircuitBreaker, DEFAULT_FAILURE_SHARE, DEFAULT_MINIMUM, DEFAULT_OPEN_FOR, DEFAULT_WINDOW, MAX_WINDOW,
    circuit_breaker,
};
pub use concurrency_limit::{ConcurrencyLimit, concurrency_limit};
pub use rate_limit::{MAX_KEYS, RateLimit, rate_limit};
pub use timeout::{Timeout, timeout};
pub use trace::{Trace, trace};

pub use crate::handler::{BreakerHandle, BreakerState, Layer, LimitHandle, LimitReason, LimitState, Next};

#[cfg(test)]
mod tests;
