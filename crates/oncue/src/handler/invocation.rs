//! One call of a handler: what it is given, and what it leaves behind besides its outcome.

use std::{
    any::{Any, TypeId},
    borrow::Cow,
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::Classify;
pub use crate::transport::StateChange;
use crate::{
    clock::{Clock, Timestamp},
    event::{DEFAULT_TOPIC, Envelope},
    transport::{Action, Position, RouteChoice},
};

/// Values of the app that handlers take as `State<T>`, one per type.
#[derive(Clone, Default)]
pub struct StateMap(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl StateMap {
    /// Adds a value; one of the same type is replaced.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// The value of a type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

/// An event that a handler emits.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// The topic it goes to.
    pub topic: Cow<'static, str>,
    /// The event, its id not derived yet.
    pub envelope: Envelope,
}

/// What a handler leaves behind besides its outcome. Kept only if the outcome is an ack.
#[derive(Debug, Default)]
pub struct Effects {
    /// Events to publish with the ack, in order (ids not yet derived).
    pub emits: Vec<Emitted>,
    /// The keyed state to write with the ack.
    pub state: Option<StateChange>,
    /// Why an effect could not be recorded (a value that does not encode): fails the attempt.
    pub error: Option<String>,
    /// Told what follows from the outcome, whatever that is, once it is durable.
    pub(crate) told: Option<oneshot::Sender<Action>>,
}

/// A handler bound to an app: what all its calls share.
#[derive(Clone)]
pub struct Binding {
    /// The id of the handler's subscription.
    pub subscription: Arc<str>,
    /// The topic that it reads.
    pub topic: Arc<str>,
    /// The app's values.
    pub states: Arc<StateMap>,
    /// Whether a plain function is called where it is, instead of on the blocking pool.
    pub inline: bool,
    /// How errors are classed.
    pub classify: Classify,
    /// The event types that [`Context::emit`](super::extract::Context::emit) accepts; none: every type.
    pub emits: Option<Arc<[String]>>,
    /// What the app's time goes by.
    pub clock: Clock,
    /// Longest that one attempt may take.
    pub timeout: Option<Duration>,
    /// Tells that the handler is being stopped.
    pub draining: Draining,
}

/// Tells calls that their handler is being stopped, for those that wait for somebody else meanwhile; and knows of those
/// that cannot be stopped.
#[derive(Clone)]
pub struct Draining {
    begun: watch::Receiver<bool>,
    /// Each plain function on the blocking pool has one of its places.
    blocking: Arc<Semaphore>,
}

/// More than one handler ever has of calls on the blocking pool.
const MOST_BLOCKING: u32 = 1 << 28;

impl Draining {
    /// Who stops the handler, and what tells its calls. Without the first nobody ever does.
    pub(crate) fn pair() -> (watch::Sender<bool>, Self) {
        let (told, begun) = watch::channel(false);
        (told, Self { begun, blocking: Arc::new(Semaphore::new(MOST_BLOCKING as usize)) })
    }

    /// Completes when the handler is being stopped.
    pub(crate) fn begun(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut told = self.begun.clone();
        async move {
            if told.wait_for(|begun| *begun).await.is_err() {
                // Nobody is left who could stop it.
                std::future::pending::<()>().await;
            }
        }
    }

    /// A place on the blocking pool, for a plain function.
    pub(crate) fn block(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.blocking).try_acquire_owned().ok()
    }

    /// Whether plain functions run on the blocking pool.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocking.available_permits() < MOST_BLOCKING as usize
    }

    /// Completes when no plain function runs on the blocking pool.
    pub(crate) async fn unblocked(&self) {
        // An error is a closed semaphore, and nobody closes this one.
        let _all = self.blocking.acquire_many(MOST_BLOCKING).await;
    }
}

impl Binding {
    /// A handler bound to nothing else than an id: for tests and benchmarks that call it directly.
    #[must_use]
    pub fn alone(subscription: &str) -> Self {
        Self {
            subscription: subscription.into(),
            topic: DEFAULT_TOPIC.into(),
            states: Arc::default(),
            inline: false,
            classify: Classify::default(),
            emits: None,
            clock: Clock::system(),
            timeout: None,
            draining: Draining::pair().1,
        }
    }
}

/// One call of a handler: the event, and where the handler leaves its effects. Cheap to clone: clones are the same call.
#[derive(Clone)]
pub struct Invocation(Arc<Call>);

struct Call {
    binding: Arc<Binding>,
    envelope: Envelope,
    position: Position,
    attempt: u32,
    keyed: Option<Bytes>,
    /// Whether somebody may have left effects.
    touched: AtomicBool,
    effects: Mutex<Effects>,
    /// When the attempt has taken too long, in microseconds of monotonic time; the largest number: never.
    deadline: AtomicU64,
    /// Its handler is a plain function, and was handed to the blocking pool.
    blocking: AtomicBool,
    /// Completes when that function returns, where layers may give up on it.
    running: Mutex<Option<oneshot::Receiver<()>>>,
    /// When it came through the layers and the handler was called, in microseconds since 1970; the smallest number: it has
    /// not, or there are none.
    through: AtomicI64,
    /// Which of the handlers of a route is called, and how it was chosen, a byte each: see `route_to`. No part of the effects,
    /// which handlers replace.
    route: AtomicU32,
}

impl Invocation {
    /// A call without effects yet. `keyed` is the state of the event's key, for handlers that take `Keyed`.
    #[must_use]
    pub fn new(
        binding: Arc<Binding>,
        envelope: Envelope,
        position: Position,
        attempt: u32,
        keyed: Option<Bytes>,
    ) -> Self {
        Self(Arc::new(Call {
            binding,
            envelope,
            position,
            attempt,
            keyed,
            touched: AtomicBool::new(false),
            effects: Mutex::default(),
            deadline: AtomicU64::new(u64::MAX),
            blocking: AtomicBool::new(false),
            running: Mutex::default(),
            through: AtomicI64::new(i64::MIN),
            route: AtomicU32::new(0),
        }))
    }

    /// As [`new`](Self::new), in the memory of a call of the same handler that is over, if nobody else holds that.
    #[inline]
    #[must_use]
    pub fn again(
        over: Option<Self>,
        binding: &Arc<Binding>,
        envelope: Envelope,
        position: Position,
        attempt: u32,
        keyed: Option<Bytes>,
    ) -> Self {
        if let Some(mut over) = over
            && let Some(call) = Arc::get_mut(&mut over.0)
            && Arc::ptr_eq(&call.binding, binding)
        {
            (call.envelope, call.position, call.attempt, call.keyed) = (envelope, position, attempt, keyed);
            if std::mem::take(call.touched.get_mut()) {
                *call.effects.get_mut() = Effects::default();
            }
            (*call.deadline.get_mut(), *call.blocking.get_mut()) = (u64::MAX, false);
            if std::mem::replace(call.through.get_mut(), i64::MIN) != i64::MIN {
                *call.running.get_mut() = None;
            }
            *call.route.get_mut() = 0;
            return over;
        }
        Self::new(Arc::clone(binding), envelope, position, attempt, keyed)
    }

    /// A first call of a handler that no bus made: for tests.
    #[must_use]
    pub fn for_test(envelope: Envelope) -> Self {
        Self::new(Arc::new(Binding::alone("test")), envelope, Position::new(0, 0, 0), 1, None)
    }

    /// What all calls of this handler share.
    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.0.binding
    }

    /// The id of the handler's subscription.
    #[must_use]
    pub fn subscription(&self) -> &str {
        &self.0.binding.subscription
    }

    /// The event.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.0.envelope
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.0.position
    }

    /// Which attempt this is: 1 is the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// The keyed state of the event's key as of its last settled event, for handlers that take `Keyed`.
    #[must_use]
    pub fn keyed(&self) -> Option<&Bytes> {
        self.0.keyed.as_ref()
    }

    /// Where the handler leaves its effects.
    pub fn effects(&self) -> MutexGuard<'_, Effects> {
        self.0.touched.store(true, Ordering::Release);
        self.0.effects.lock()
    }

    /// The effects left so far, taken.
    #[must_use]
    pub fn take_effects(&self) -> Effects {
        if self.is_untouched() { Effects::default() } else { std::mem::take(&mut self.0.effects.lock()) }
    }

    /// Whether nobody can have left effects.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.0.touched.load(Ordering::Acquire)
    }

    /// The same call, with effects of its own.
    pub(crate) fn apart(&self) -> Self {
        let Call { binding, envelope, position, attempt, keyed, .. } = &*self.0;
        Self::new(Arc::clone(binding), envelope.clone(), *position, *attempt, keyed.clone())
    }

    /// The call goes to this one of the handlers of a route; how it was chosen is learned from, unless it was chosen of none.
    pub(crate) fn route_to(&self, choice: RouteChoice) {
        let RouteChoice { arm, best, explores, among } = choice;
        self.0.route.store(u32::from_le_bytes([arm, best, u8::from(explores), among]), Ordering::Release);
    }

    /// Which of the handlers of a route it goes to.
    pub(crate) fn arm(&self) -> usize {
        usize::from(self.0.route.load(Ordering::Acquire).to_le_bytes()[0])
    }

    /// How that was chosen, where it is learned from.
    pub(crate) fn routed(&self) -> Option<RouteChoice> {
        let [arm, best, explores, among] = self.0.route.load(Ordering::Acquire).to_le_bytes();
        (among > 0).then_some(RouteChoice { arm, best, explores: explores == 1, among })
    }

    /// The attempt begins: if the handler has a timeout, it may take so long from now.
    pub(crate) fn begin_timeout(&self) {
        if let Some(timeout) = self.0.binding.timeout {
            self.set_timeout(timeout);
        }
    }

    /// The attempt may take until `timeout` from now.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        let now = self.0.binding.clock.monotonic();
        self.0.deadline.store(micros(now.saturating_add(timeout)), Ordering::Release);
    }

    /// The attempt may take at least until `time` from now; without a timeout it may anyway.
    pub fn extend(&self, time: Duration) {
        let now = self.0.binding.clock.monotonic();
        self.0.deadline.fetch_max(micros(now.saturating_add(time)), Ordering::AcqRel);
    }

    /// How much time is left to the attempt; none if it has no timeout.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = self.0.deadline.load(Ordering::Acquire);
        let left = Duration::from_micros(deadline).saturating_sub(self.0.binding.clock.monotonic());
        (deadline != u64::MAX).then_some(left)
    }

    /// It has come through the layers, and the handler is called: the first time counts.
    pub(crate) fn comes_through(&self) {
        let now = self.0.binding.clock.now().as_micros();
        // Who calls the handler again has not come through once more.
        let _ = self.0.through.compare_exchange(i64::MIN, now, Ordering::AcqRel, Ordering::Acquire);
    }

    /// When it came through the layers; none before, and without layers.
    pub(crate) fn through_at(&self) -> Option<Timestamp> {
        let through = self.0.through.load(Ordering::Acquire);
        (through != i64::MIN).then(|| Timestamp::from_micros(through))
    }

    /// A plain function runs for it until it drops what is returned, whatever layers say meanwhile.
    pub(crate) fn runs(&self) -> oneshot::Sender<()> {
        let (running, over) = oneshot::channel();
        *self.0.running.lock() = Some(over);
        self.block();
        running
    }

    /// Completes when the plain function that runs for it has returned; none if it is none, or this was asked before.
    pub(crate) fn take_running(&self) -> Option<oneshot::Receiver<()>> {
        if self.is_blocking() { self.0.running.lock().take() } else { None }
    }

    /// The handler is a plain function and goes to the blocking pool.
    pub(crate) fn block(&self) {
        self.0.blocking.store(true, Ordering::Release);
    }

    /// Whether the handler is a plain function that was handed to the blocking pool. It cannot be cancelled: a layer that
    /// gives up on it leaves it running, with its key held until it returns.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.0.blocking.load(Ordering::Acquire)
    }
}

/// Less than the largest number, which says that there is no deadline at all.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(u64::MAX - 1)
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("subscription", &self.0.binding.subscription)
            .field("envelope", &self.0.envelope)
            .field("position", &self.0.position)
            .field("attempt", &self.0.attempt)
            .finish_non_exhaustive()
    }
}
