//! Tests of your handlers: the app itself, in the test's process, with time that waits for nobody.
//!
//! ```
//! use oncue::{prelude::*, testing::{self, TestApp}};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
//! #[event(type = "order.created", key = order_id)]
//! struct OrderCreated { order_id: String }
//!
//! #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
//! #[event(type = "order.paid", key = order_id)]
//! struct OrderPaid { order_id: String }
//!
//! #[handler(retry = policy::fixed(std::time::Duration::from_secs(60)).max_attempts(3))]
//! async fn charge(order: OrderCreated) -> OrderPaid {
//!     OrderPaid { order_id: order.order_id }
//! }
//!
//! /// What the app is made of: `main` calls this too, with `App::open("file:./data").await?`.
//! fn shop(app: App) -> App {
//!     app.on(charge)
//! }
//!
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> testing::Result { a_busy_bank_is_asked_again().await }
//! async fn a_busy_bank_is_asked_again() -> testing::Result {
//!     let test = TestApp::start(shop).await?;
//!     test.fail("charge", 2, HandlerError::transient("the bank is busy"));
//!     let order_id = String::from("o-1");
//!     test.publish(OrderCreated { order_id: order_id.clone() }).await?;
//!
//!     // Two minutes of retries, in no time.
//!     test.run_until_idle().await?;
//!     test.assert_attempts("charge", 3);
//!     test.assert_published(&[OrderPaid { order_id }]);
//!     Ok(())
//! }
//! ```
//!
//! - The app is put together by the function that `main` uses too, and runs on `memory:`.
//! - Time is the runtime's own, paused by `start_paused = true` (tokio's feature `test-util`): it jumps to the next timer
//!   as soon as nothing can go on, blocking functions included. So retries, delays, timeouts and whatever a handler waits
//!   for by `tokio::time` or by a [`Clock`](crate::Clock) (every app has one, as `State<Clock>`) take no time, come in
//!   the order of time, and never race. It begins at [`TIME_OF_START`]; jitter is the same in every run.
//! - What a handler waits for outside of the runtime (a socket, a thread of its own) does not hold time up: give it a
//!   fake, as you would give it a clock.

mod assert;
mod attempts;
mod error;
mod memory_broker;
mod seen;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;

use self::attempts::Attempts;
pub use self::{
    attempts::{Attempt, MOST_CALLS},
    error::{Result, TestError},
    memory_broker::{MemoryBroker, MemoryConnection},
    seen::Settled,
};
use crate::{
    app::App,
    bus::Bus,
    clock::{PausedClock, Timestamp},
    error::Error,
    event::{DEFAULT_TOPIC, IntoEvent},
    handler::{HandlerError, Invocation},
    receipt::Receipt,
    transport::{LogTransport, LogUrl},
};

/// When a [`TestApp`] starts: 2026-01-01T00:00:00Z.
pub const TIME_OF_START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// How long [`TestApp::run_until_idle`] lets time go on.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Everything that is published is kept: a test may ask for it.
const URL: &str = "memory:?retention=forever";

/// An app under test; see the [module](self).
pub struct TestApp {
    bus: Bus,
    clock: PausedClock,
    attempts: Arc<Attempts>,
    /// Topics that the test published to.
    topics: Mutex<BTreeSet<String>>,
}

impl TestApp {
    /// Starts the app that `build` makes of an empty one.
    ///
    /// # Errors
    /// Time is not paused, or a handler cannot be served.
    pub async fn start(build: impl FnOnce(App) -> App) -> Result<Self> {
        let clock = PausedClock::new(TIME_OF_START)?;
        // Dispatchers draw their jitter on this thread.
        fastrand::seed(0);
        let url: LogUrl = URL.parse().map_err(Error::from)?;
        let transport = LogTransport::open(&url, clock.clock()).map_err(Error::from)?;
        let attempts = Arc::<Attempts>::default();
        let app = build(App::with_transport(Arc::new(transport), clock.clock()));
        let app = app.each_handler(|handler| attempts.watch(handler, &clock));
        Ok(Self { bus: app.start().await?, clock, attempts, topics: Mutex::new([DEFAULT_TOPIC.to_owned()].into()) })
    }

    /// The running app, for everything else: its clock, pausing and configuring handlers, dead letters, shutting down.
    /// Handlers that are subscribed to it later are served, but no attempt of theirs is seen or made to fail.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// What time it is for the app.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.bus.clock().now()
    }

    /// The first `times` attempts of every event fail with `error`; the handler is not called for them. The latest said
    /// about a handler is asked first.
    ///
    /// # Panics
    /// There is no such handler.
    #[track_caller]
    pub fn fail(&self, handler: &str, times: u32, error: HandlerError) {
        self.known(handler);
        self.attempts.fail(handler, times, error);
    }

    /// As [`fail`](Self::fail), for attempts that `error` gives an error of: those of one key, say.
    ///
    /// ```
    /// # use oncue::{prelude::*, testing::{self, TestApp}};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> testing::Result {
    /// # let charge = (|_: &Envelope| ()).named("charge").types(["order.created"]);
    /// # let test = TestApp::start(|app| app.on(charge)).await?;
    /// test.fail_with("charge", |call| {
    ///     (call.envelope().key() == Some("o-1")).then(|| HandlerError::reject("the card is stolen"))
    /// });
    /// # test.publish(Envelope::builder("order.created").subject("o-1").build().unwrap()).await?;
    /// # test.publish(Envelope::builder("order.created").subject("o-2").build().unwrap()).await?;
    /// # test.run_until_idle().await?;
    /// # test.assert_dead("charge", 1);
    /// # test.assert_acked("charge", 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// There is no such handler.
    #[track_caller]
    pub fn fail_with(
        &self,
        handler: &str,
        error: impl Fn(&Invocation) -> Option<HandlerError> + Send + Sync + 'static,
    ) {
        self.known(handler);
        self.attempts.fail_with(handler, error);
    }

    /// Nothing that was said by [`fail`](Self::fail) and [`fail_with`](Self::fail_with) about a handler counts any more.
    ///
    /// # Panics
    /// There is no such handler.
    #[track_caller]
    pub fn recover(&self, handler: &str) {
        self.known(handler);
        self.attempts.recover(handler);
    }

    /// Publishes an event. Handlers see it as soon as the test waits for something.
    ///
    /// # Errors
    /// The event is not acceptable.
    pub async fn publish(&self, event: impl IntoEvent) -> Result<Receipt> {
        let receipt = self.bus.publish(event).await?;
        self.topics.lock().insert(receipt.event.topic.to_string());
        Ok(receipt)
    }

    /// Lets time go on, over retries and delays, until every handler is through with every event and with all that these
    /// caused; at most for [`DEFAULT_LIMIT`]. What a dead letter holds is not waited for, nor is a paused handler.
    ///
    /// # Errors
    /// A handler is never through with an event, and which one; a handler stopped.
    pub async fn run_until_idle(&self) -> Result<()> {
        self.run_until_idle_within(DEFAULT_LIMIT).await
    }

    /// As [`run_until_idle`](Self::run_until_idle), with a limit of the caller's.
    ///
    /// # Errors
    /// As [`run_until_idle`](Self::run_until_idle).
    pub async fn run_until_idle_within(&self, limit: Duration) -> Result<()> {
        let over = self.bus.clock().sleep(limit);
        tokio::select! {
            biased;
            endless = self.endless() => Err(endless),
            idle = self.idle() => idle,
            () = over => Err(TestError::NotIdle { limit, unfinished: self.unfinished(), seen: self.seen() }),
        }
    }

    /// Lets `duration` pass. What becomes due meanwhile runs, in the order of time, up to what is due at its end; with
    /// zero, what can run now.
    ///
    /// # Errors
    /// A handler is called for one event without end, or stopped.
    pub async fn advance(&self, duration: Duration) -> Result<()> {
        tokio::select! {
            biased;
            endless = self.endless() => return Err(endless),
            () = self.clock.advance(duration) => {}
        }
        Ok(self.bus.check()?)
    }

    async fn idle(&self) -> Result<()> {
        loop {
            self.bus.idle().await?;
            // What a handler has spawned may publish more.
            self.clock.settle().await;
            if self.bus.inspect().unsettled() == 0 {
                return Ok(());
            }
        }
    }

    async fn endless(&self) -> TestError {
        let (handler, event) = self.attempts.endless().await;
        TestError::Endless { handler, event, seen: self.seen() }
    }
}

impl std::fmt::Debug for TestApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.seen())
    }
}
