//! Handlers: what processes events.
//!
//! A handler is a function. Its first argument is the event, the others are [extractors](extract), and what it returns
//! is published, atomically with the acknowledgement:
//!
//! ```
//! use oncue::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize)]
//! #[event(type = "order.created", key = order_id)]
//! struct OrderCreated { order_id: String }
//!
//! #[derive(Event, Serialize, Deserialize)]
//! #[event(type = "order.paid", key = order_id)]
//! struct OrderPaid { order_id: String }
//!
//! #[handler(concurrency = 8)]
//! async fn charge(order: OrderCreated) -> OrderPaid {
//!     OrderPaid { order_id: order.order_id }
//! }
//!
//! let registration = charge.into_registration();
//! assert_eq!(registration.id, "charge");
//! assert_eq!(registration.types, ["order.created"]);
//! assert_eq!(registration.emits, ["order.paid"]);
//! ```
//!
//! Generic at the door ([`Handler`], [`IntoRegistration`]), erased behind it ([`ErasedHandler`]).

mod annotated;
mod batch;
mod blocked;
mod breaker;
mod erased;
mod error;
mod ext;
pub mod extract;
mod function;
mod input;
mod invocation;
mod layer;
mod limit;
mod object;
mod options;
#[doc(hidden)]
pub mod private;
mod registration;
mod returns;
pub mod route;
mod started;
mod watched;

use std::{pin::Pin, time::Duration};

pub use annotated::{Annotated, AnnotatedValue, Meta};
pub use batch::{Batch, BatchLimits, DEFAULT_BATCH_SIZE, DEFAULT_BATCH_WAIT, IntoOutcomes};
pub use blocked::{Blocked, BlockedHandle};
pub use breaker::{BreakerHandle, BreakerState};
pub use error::HandlerError;
pub use ext::HandlerExt;
pub use extract::Extract;
pub use function::{Function, Handler, RefFunction};
pub use input::{Delivery, Input};
pub use invocation::{Binding, Draining, Effects, Emitted, Invocation, StateChange, StateMap};
pub use layer::{Layer, Layers, Next};
pub use limit::{LimitHandle, LimitReason, LimitState};
pub use object::Handle;
pub use options::{DEFAULT_CONCURRENCY, Filtering, HandlerOptions, Location, Retry};
pub use registration::{IntoRegistration, Registration};
pub use returns::{Classify, IntoOutcome};
pub use started::Memory;
pub use watched::Watched;

use crate::policy::ErrorClass;
pub use crate::transport::{OnDeadLetter, Order, Ordered, Start};

/// What a handler made of an event. What it emitted and what it wrote to its state is in the invocation's [`Effects`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ack,
    /// Failed; the retry policy decides what follows.
    Fail {
        /// What kind of failure.
        class: ErrorClass,
        /// The error's text, with its causes.
        error: String,
    },
    /// Failed for good: a dead letter at once, whatever the policy.
    Reject {
        /// What kind of failure: malformed if the payload does not fit, else permanent.
        class: ErrorClass,
        /// Why.
        error: String,
    },
    /// Not yet: deliver it again after this delay; counts as no attempt.
    Defer(Duration),
}

/// What calling a handler gives.
pub enum Call {
    /// It ran to its end.
    Done(Outcome),
    /// To be polled, also if it was polled before.
    Future(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    /// Blocks: to be run on the blocking pool.
    Blocking(Box<dyn FnOnce() -> Outcome + Send>),
}

/// A handler behind the door: every form of handler becomes this.
pub trait ErasedHandler: Send + Sync + 'static {
    /// Decodes the event, extracts the arguments and calls.
    fn call(&self, invocation: &Invocation) -> Call;

    /// As [`call`](Self::call), where the call before may have left memory for this one: then nothing is allocated.
    fn call_in(&self, memory: &mut Memory, invocation: &Invocation) -> Call {
        let _ = memory;
        self.call(invocation)
    }

    /// Handles several events in one call, one outcome per event; nothing if it handles one at a time.
    fn call_batch(&self, batch: Vec<Invocation>) -> Option<Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>>> {
        let _ = batch;
        None
    }

    /// Tells whether it waits in the middle of a call, for no fault of the event ([`Blocked`]); nothing if it never does.
    fn blocked(&self) -> Option<BlockedHandle> {
        None
    }
}
