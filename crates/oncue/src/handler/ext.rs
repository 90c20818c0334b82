//! Options given where a handler is registered.

use std::time::Duration;

use super::{Filtering, IntoRegistration, Layer, OnDeadLetter, Order, Ordered, Registration, Retry, Start};
use crate::{
    event::Event,
    policy::{Admission, ErrorClass, LearnedPriority},
};

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident $([$($generics:tt)*])? ($($argument:ident: $type:ty),*);)*) => {
        /// Options given where a handler is registered; each gives a [`Registration`]. They win over the annotation's.
        ///
        /// ```
        /// use oncue::prelude::*;
        ///
        /// let audit = (|event: &Envelope| println!("{event:?}")).named("audit").types(["order.created"]).concurrency(4);
        /// assert!(audit.problems().is_empty());
        /// ```
        pub trait HandlerExt<Marker>: IntoRegistration<Marker> {
            $($(#[$doc])*
            #[must_use]
            #[track_caller]
            fn $name $(<$($generics)*>)? (self, $($argument: $type),*) -> Registration {
                self.into_registration().$name($($argument),*)
            })*

            /// Declares that the handler emits `E` through its [`Context`](super::extract::Context).
            #[must_use]
            #[track_caller]
            fn emits<E: Event>(self) -> Registration {
                self.into_registration().emits::<E>()
            }
        }
    };
}

setters! {
    /// The id that the handler's position and state are kept under.
    named(id: impl Into<String>);
    /// Handles each event after `other` has acknowledged it.
    after[M](other: impl IntoRegistration<M>);
    /// As [`after`](Self::after), by id.
    after_id(id: impl Into<String>);
    /// What follows a failure: a policy, or the name of one in the configuration.
    retry(retry: impl Into<Retry>);
    /// Most events in flight at once, of different keys; 1 or more.
    concurrency(concurrency: usize);
    /// Longest that one attempt may take.
    timeout(timeout: Duration);
    /// Runs a plain function where it is called, instead of on the blocking pool: for those that never block.
    inline();
    /// The event types to take, instead of those of the function's first argument.
    types[S: Into<String>](types: impl IntoIterator<Item = S>);
    /// The topic to read, instead of the one of the function's first argument.
    topic(topic: impl Into<String>);
    /// Tells the class of the handler's errors; `E` is the error type of its `Result`.
    classify[E: 'static](class_of: impl Fn(&E) -> ErrorClass + Send + Sync + 'static);
    /// What a dead letter does to later events of its key.
    on_dead_letter(on_dead_letter: OnDeadLetter);
    /// Where a new subscription begins.
    start(start: Start);
    /// How strictly order is kept within a key.
    ordered(ordered: Ordered);
    /// Starts the next event of a key once the handler has acknowledged the last one, while that is made durable: a crash may
    /// repeat several events of a key, in their order, and not only the last one.
    pipelined();
    /// What to take of the event types: by attributes, such as `Filter::prefix("subject", "eu/")`; and, if it is
    /// [learned](crate::filter::learned()), by what became of events before.
    filter(filter: impl Into<Filtering>);
    /// Whether its events are handled when more come than can be: by what each is worth. What is shed is a dead letter.
    admission(admission: Admission);
    /// Begins paused: its events wait until it is resumed.
    paused();
    /// Which of the waiting events is next.
    order(order: Order);
    /// Learns which events come first, where the order is by priority.
    priority(priority: LearnedPriority);
    /// How many events a batch handler takes at once, at most.
    batch(size: usize);
    /// How long a batch waits for more events.
    batch_wait(wait: Duration);
    /// Puts a layer around the handler's calls, inside of those it has already.
    layer(layer: impl Layer);
}

impl<M, H: IntoRegistration<M>> HandlerExt<M> for H {}
