//! The order system: what `oncue demo orders` runs. Five [handlers] on the events of orders.
//!
//! ```text
//! input ── batches, each with the place it ends at ──► topic `events` ─┬─► track_order ────┐
//!                                                                     ├─► detect_anomaly ─┼─► notify_customer (after both)
//!                                                                     ├─► charge          └─► topic `anomalies`
//!                                                                     └─► daily_sales
//! ```
//!
//! A run ends when everything is handled. What it tells then is read from the log alone, so that it does not matter how
//! often the run was interrupted, and how.

mod batch;
mod event;
mod gateway;
mod generator;
pub mod handlers;
mod input;
mod lines;
mod place;
mod progress;
mod report;
mod run;
mod table;
mod workers;

pub use event::{
    OrderAnomaly, OrderCanceled, OrderCompleted, OrderCreated, OrderEvent, OrderPaid, OrderShipped, OrderState,
    OrderUnavailable, Payment,
};
pub use gateway::{Gateway, GatewayError};
pub use input::{Input, InputError};
pub use report::{Anomalies, ArtMillis, Counts, HandlerCounts, Report};
pub use run::{OrdersError, Settings, run};
pub use workers::work;

/// The handlers' ids, in the order that reports name them.
pub const HANDLERS: [&str; 5] = ["track_order", "detect_anomaly", "charge", "notify_customer", "daily_sales"];
/// How many events are simulated, unless it is said.
pub const DEFAULT_EVENTS: u64 = 20_000;
/// What randomness is drawn from, unless it is said.
pub const DEFAULT_SEED: u64 = 1;
