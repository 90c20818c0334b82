//! Oncue: an event-driven backend. You write handlers as plain functions; Oncue delivers events to them, durably, in
//! order per key, in parallel across keys, with failures handled by a policy.
//!
//! ```
//! use oncue::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize)]
//! #[event(type = "user.greeted")]
//! struct Greeted { name: String }
//!
//! #[handler]
//! async fn greet(event: Greeted) {
//!     println!("hello, {}", event.name);
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> oncue::Result<()> {
//! let app = App::open("memory:").await?.on(greet).start().await?;
//! app.publish(Greeted { name: "Ada".into() }).await?;
//! # app.idle().await?;
//! # app.shutdown().await
//! # }
//! ```
//!
//! The map of the crate, from what knows nothing to what knows all: [`clock`], [`event`], [`filter`], [`policy`],
//! [`metrics`], [`transport`], [`alert`], [`mod@handler`], [`bridge`], [`config`], [`graph`], [`middleware`], [`source`], `dispatch`, and the
//! facade ([`App`] before it starts, [`Bus`] while it runs), and [`testing`] for those who write handlers.

// Lets the macros name `::oncue` inside this crate too.
#[allow(unused_extern_crates, reason = "used by what the macros make, in tests and in examples of the documentation")]
extern crate self as oncue;

pub mod alert;
pub mod bridge;
pub mod clock;
pub mod config;
pub mod event;
pub mod filter;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod graph;
pub mod handler;
pub mod metrics;
pub mod middleware;
pub mod policy;
pub mod source;
pub mod testing;
pub mod transport;

mod app;
mod bus;
mod codec;
mod dispatch;
mod error;
mod number_map;
mod observer;
mod receipt;

pub use app::{App, Group};
pub use bus::{
    Bus, DEFAULT_GRACE, DEFAULT_LEASE, DEFAULT_UNSETTLED, DeadLetters, Health, HealthCause, HealthReason, HealthStatus,
    MAX_PENDING_REQUESTS, Pull, Pulled, Puller,
};
pub use clock::{Clock, ManualClock, PausedClock, Timestamp};
pub use dispatch::DispatchError;
pub use error::{Error, LeaseError, RequestError, Result, StartError};
pub use event::{Envelope, Event, IntoEvent};
pub use handler::route;
pub use observer::Observer;
pub use oncue_macros::{Event, handler};
pub use receipt::{EventOutcome, Receipt};

/// The program of the README is compiled with the documentation's other examples.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// So are those of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
struct Guide;

/// What the macros name; not for you.
#[doc(hidden)]
pub use handler::private as __private;

/// What a program of handlers needs: `use oncue::prelude::*;`.
pub mod prelude {
    pub use crate::{
        App, Bus, Envelope, Event, EventOutcome, Receipt,
        handler::{
            Batch, Delivery, Handle, HandlerError, HandlerExt as _, IntoRegistration as _, Outcome,
            extract::{Context, Headers, Keyed, State},
        },
        middleware, policy,
    };
    pub use oncue_macros::handler;
}
