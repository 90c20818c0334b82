//! What a case works with: transports at places of its own, ways to wait, and remarks for the report.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    ops::Range,
    process::Command,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{BoxFuture, Either, select};
use oncue::{
    App, Bus, Clock, Envelope, Observer, Receipt,
    event::DEFAULT_TOPIC,
    transport::{Capabilities, SubscriptionInfo, Transport},
};
use parking_lot::Mutex;

use crate::{Disturbance, Factory, Failure, Intruder, Opened, Step, Tier, remarks::Remarks, tap, worker::Task};

/// How often a wait looks whether a handler stopped: that ends it with the cause instead of the deadline.
const LOOK: Duration = Duration::from_millis(50);
/// A transport tells within this time that there is no outcome to wait for; one that waits for it takes longer.
pub(crate) const TELLS_WITHIN: Duration = Duration::from_secs(5);

/// What all cases of a run share.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) factory: Arc<dyn Factory>,
    pub(crate) clock: Clock,
    pub(crate) capabilities: Capabilities,
    pub(crate) tier: Tier,
    pub(crate) instances: bool,
    pub(crate) worker: Option<Worker>,
    pub(crate) seed: u64,
}

/// Starts another process on a place.
pub(crate) type Worker = Arc<dyn Fn(&str) -> Command + Send + Sync>;

/// What a case works with.
pub struct Bench {
    setup: Setup,
    place: String,
    opened: Mutex<BTreeSet<String>>,
    transports: Mutex<Vec<Weak<dyn Transport>>>,
    /// Benches of cases that this one runs.
    inner: Mutex<Vec<Arc<Bench>>>,
    waiting: Mutex<BTreeMap<u64, String>>,
    remarks: Remarks,
}

impl Bench {
    pub(crate) fn new(setup: Setup, place: String) -> Self {
        Self {
            setup,
            place,
            opened: Mutex::default(),
            transports: Mutex::default(),
            inner: Mutex::default(),
            waiting: Mutex::default(),
            remarks: Remarks::default(),
        }
    }

    /// What the transport says that it can do.
    pub fn capabilities(&self) -> Capabilities {
        self.setup.capabilities
    }

    /// The clock that everything goes by.
    pub fn clock(&self) -> &Clock {
        &self.setup.clock
    }

    /// Whether several instances can serve one subscription.
    pub fn instances(&self) -> bool {
        self.setup.instances
    }

    /// A size: the first in the fast tier, the second in the full one.
    pub fn size(&self, fast: u32, full: u32) -> u32 {
        if self.is_full() { full } else { fast }
    }

    /// Whether everything is done, in the sizes of the catalogue.
    pub fn is_full(&self) -> bool {
        self.setup.tier == Tier::Full
    }

    /// The case's transport: empty the first time, later with what it kept.
    ///
    /// # Errors
    /// It does not open.
    pub async fn transport(&self) -> Result<Arc<dyn Transport>, Failure> {
        self.transport_at("").await
    }

    /// As [`transport`](Self::transport), at another place of this case.
    ///
    /// # Errors
    /// It does not open.
    pub async fn transport_at(&self, name: &str) -> Result<Arc<dyn Transport>, Failure> {
        let place = format!("{}{name}", self.place);
        let first = self.opened.lock().insert(place.clone());
        loop {
            match self.setup.factory.open(&place, self.setup.clock.clone()).await {
                Ok(transport) => {
                    self.transports.lock().push(Arc::downgrade(&transport));
                    return Ok(transport);
                }
                Err(error) if first => return Err(Failure::new(format!("the transport does not open: {error}"))),
                // Who had it open is still going, or it does not open again: the deadline tells which.
                Err(error) => {
                    let what = format!("the transport to open again: {error}");
                    self.wait(what, self.setup.clock.sleep(Duration::from_millis(1))).await;
                }
            }
        }
    }

    /// An app on the case's transport.
    ///
    /// # Errors
    /// The transport does not open.
    pub async fn app(&self) -> Result<App, Failure> {
        self.app_at("").await
    }

    /// As [`app`](Self::app), at another place of this case.
    ///
    /// # Errors
    /// The transport does not open.
    pub async fn app_at(&self, name: &str) -> Result<App, Failure> {
        Ok(App::with_transport(self.transport_at(name).await?, self.setup.clock.clone()))
    }

    /// Drops an app without closing anything, as a crash of its process would. Nothing else may hold it: receipts do.
    pub fn crash(&self, bus: Bus) {
        drop(bus);
    }

    /// Awaits something; if the case gets stuck there, the report says what it waited for.
    pub async fn wait<T>(&self, what: impl Into<String>, done: impl Future<Output = T>) -> T {
        let _waiting = self.waiting_for(what.into());
        done.await
    }

    /// As [`wait`](Self::wait), at most `longest`: nothing if it did not happen.
    pub async fn within<T>(&self, longest: Duration, done: impl Future<Output = T>) -> Option<T> {
        match select(std::pin::pin!(done), self.setup.clock.sleep(longest)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    /// Waits until a subscription is as `done` says.
    ///
    /// # Errors
    /// A handler stopped.
    pub async fn until(
        &self,
        bus: &Bus,
        subscription: &str,
        what: &str,
        done: impl Fn(&SubscriptionInfo) -> bool,
    ) -> Result<(), Failure> {
        let _waiting = self.waiting_for(format!("`{subscription}`: {what}"));
        loop {
            let progress = bus.transport().progress();
            if bus.inspect().subscriptions().iter().any(|known| known.id == subscription && done(known)) {
                return Ok(());
            }
            bus.check()?;
            self.within(LOOK, progress).await;
        }
    }

    /// Waits until a subscription has acknowledged this many events.
    ///
    /// # Errors
    /// A handler stopped.
    pub async fn acked(&self, bus: &Bus, subscription: &str, count: u64) -> Result<(), Failure> {
        self.until(bus, subscription, &format!("{count} acks"), |known| known.stats.acked >= count).await
    }

    /// Waits until every handler is through with everything.
    ///
    /// # Errors
    /// A handler stopped.
    pub async fn idle(&self, bus: &Bus) -> Result<(), Failure> {
        Ok(self.wait("every handler to be through with every event", bus.idle()).await?)
    }

    /// Shuts an app down.
    ///
    /// # Errors
    /// Closing failed.
    pub async fn shutdown(&self, bus: Bus) -> Result<(), Failure> {
        Ok(self.wait("the shutdown", bus.shutdown()).await?)
    }

    /// Publishes steps of one key as one batch to the default topic.
    ///
    /// # Errors
    /// They are not published.
    pub async fn publish(&self, bus: &Bus, key: &str, numbers: Range<u32>) -> Result<Vec<Receipt>, Failure> {
        let steps = numbers.map(|number| Step::new(key, number).envelope()).collect::<Result<Vec<_>, _>>()?;
        self.publish_all(bus, steps).await
    }

    /// Publishes a batch to the default topic.
    ///
    /// # Errors
    /// It is not published.
    pub async fn publish_all(&self, bus: &Bus, events: Vec<Envelope>) -> Result<Vec<Receipt>, Failure> {
        let what = format!("{} events to be published", events.len());
        Ok(self.wait(what, bus.publish_all(DEFAULT_TOPIC, events, None)).await?)
    }

    /// An app on a transport that others use too: its shutdown closes nothing for them.
    pub fn app_beside(&self, transport: &Arc<dyn Transport>) -> App {
        App::with_transport(tap::connection(Arc::clone(transport)), self.setup.clock.clone())
    }

    /// Opens the case's transport as somebody who must not get in.
    ///
    /// # Errors
    /// Why that cannot be tried.
    pub fn transport_as(&self, intruder: Intruder) -> Result<BoxFuture<'static, Opened>, &'static str> {
        self.setup.factory.open_as(intruder, &self.place, self.setup.clock.clone())
    }

    /// Does something to what is behind the transport at another place of this case.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub fn disturb(&self, disturbance: Disturbance, name: &str) -> Result<BoxFuture<'static, ()>, &'static str> {
        self.setup.factory.disturb(disturbance, &format!("{}{name}", self.place))
    }

    /// What starts another process on the transport at another place of this case, with something to do; nothing if there
    /// is no such thing.
    pub fn worker(&self, name: &str, task: Task) -> Option<Command> {
        let mut command = self.setup.worker.as_ref()?(&format!("{}{name}", self.place));
        command.arg(task.to_string());
        Some(command)
    }

    /// An observer of the transport at another place of this case.
    ///
    /// # Errors
    /// Why there is none.
    pub fn observer(&self, name: &str) -> Result<Observer, &'static str> {
        self.setup.factory.observer(&format!("{}{name}", self.place), self.setup.clock.clone())
    }

    /// What random choices follow from; noted for the report.
    pub fn random(&self) -> fastrand::Rng {
        self.note(format!("seed {}", self.setup.seed));
        fastrand::Rng::with_seed(self.setup.seed)
    }

    /// For a case that runs in this one: at places of its own, with the sizes of the fast tier.
    pub(crate) fn inner(&self, name: &str) -> Arc<Self> {
        let setup = Setup { tier: Tier::Fast, ..self.setup.clone() };
        let inner = Arc::new(Self::new(setup, format!("{}-{name}", self.place)));
        self.inner.lock().push(Arc::clone(&inner));
        inner
    }

    /// Says that nothing of the case can be asked here, and why: it counts as skipped.
    ///
    /// # Errors
    /// None: so that a case can end with it.
    pub fn skip(&self, why: impl Into<String>) -> Result<(), Failure> {
        self.remarks.skip(why.into());
        Ok(())
    }

    /// Says that a part of the case cannot be asked of any transport yet: the case counts as skipped, if the rest held.
    pub fn untested(&self, what: impl Into<String>) {
        self.remarks.untested(what.into());
    }

    /// Adds a remark to the report of the case.
    pub fn note(&self, what: impl Into<String>) {
        self.remarks.note(what.into());
    }

    pub(crate) fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// What is being waited for, and how the transports stand.
    pub(crate) fn stuck(&self) -> String {
        let waiting: Vec<String> = self.waiting.lock().values().cloned().collect();
        let mut text = if waiting.is_empty() { "something of its own".to_owned() } else { waiting.join(", and ") };
        let transports: Vec<_> = self.transports.lock().iter().filter_map(Weak::upgrade).collect();
        for known in transports.iter().flat_map(|transport| transport.inspect().subscriptions()) {
            let stats = &known.stats;
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "; `{}`: {} acked, {} retried, {} dead, {} waiting for a retry, {} behind",
                known.id, stats.acked, stats.retried, stats.dead, known.retrying, known.lag
            );
        }
        for inner in self.inner.lock().iter().filter(|inner| !inner.waiting.lock().is_empty()) {
            let _ = write!(text, "; {}: {}", inner.place, inner.stuck());
        }
        text
    }

    fn waiting_for(&self, what: String) -> Waiting<'_> {
        let mut waiting = self.waiting.lock();
        let number = waiting.last_key_value().map_or(0, |(number, _)| number + 1);
        waiting.insert(number, what);
        Waiting { bench: self, number }
    }
}

struct Waiting<'bench> {
    bench: &'bench Bench,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.bench.waiting.lock().remove(&self.number);
    }
}
