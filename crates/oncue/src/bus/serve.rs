//! The handlers of a running app: what is wanted is compared with what runs, and what differs is stopped and started.
//!
//! Every change (a handler more or less, another option, a pause) goes this one way: [`Serving::change`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::join_all;
use parking_lot::RwLock;
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};

use super::{
    DEFAULT_GRACE,
    attach::{self, Joined},
    bridges::{Bridges, OpenBridge},
    learn::Learning,
};
use crate::{
    clock::Clock,
    config::{BridgeConfig, Config, HandlerConfig, PolicyConfig},
    dispatch::{DispatchError, Dispatcher, Lanes, Member, Phase},
    error::StartError,
    event::{Envelope, takes},
    graph::Graph,
    handler::{Blocked, BreakerHandle, Layer, LimitHandle, Registration, Retry, StateMap},
    policy::{AdmissionState, OPTIMAL, Policy, optimal},
    transport::{Retention, RetentionFrom, SubscriptionInfo, TopicControl, Transport},
};

/// What an app gives to its handlers.
pub(crate) struct Provided {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Clock,
    pub(crate) states: Arc<StateMap>,
    pub(crate) policies: HashMap<String, Arc<dyn Policy>>,
    pub(crate) default_policy: Arc<dyn Policy>,
    /// What topics keep.
    pub(crate) topics: BTreeMap<String, Retention>,
    pub(crate) bridges: Arc<OpenBridge>,
}

/// The handlers of a running app.
pub(crate) struct Serving {
    pub(crate) provided: Provided,
    /// Held while handlers are stopped and started: one change at a time.
    served: Mutex<Served>,
    /// What is served, for those who only look.
    shown: RwLock<Arc<Shown>>,
    failed: watch::Sender<Option<DispatchError>>,
    /// Tasks beside the dispatchers, which end with them.
    owned: parking_lot::Mutex<Vec<AbortOnDrop>>,
    /// What every dispatcher is told by, also one that a change waits for.
    phases: parking_lot::Mutex<Vec<watch::Sender<Phase>>>,
    /// The app is shut down.
    closed: AtomicBool,
    /// Policies that are computed.
    learning: Arc<Learning>,
    pub(super) bridges: parking_lot::Mutex<Bridges>,
    learning_begun: Once,
}

/// What is served, as it is shown.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) graph: Graph,
    pub(crate) handlers: Vec<Registration>,
}

impl Shown {
    /// The adaptive limits around the handlers, each once.
    pub(crate) fn limits(&self) -> Vec<LimitHandle> {
        LimitHandle::distinct(self.layers().flat_map(|layer| layer.limits()))
    }

    /// The circuit breakers around the handlers, each once.
    pub(crate) fn breakers(&self) -> Vec<BreakerHandle> {
        BreakerHandle::distinct(self.layers().flat_map(|layer| layer.breakers()))
    }

    /// The handlers that wait for what they write to, and why.
    pub(crate) fn blocked(&self) -> Vec<(&Registration, Blocked)> {
        let blocked = |handler: &Registration| handler.handler.blocked()?.borrow().clone();
        self.handlers.iter().filter_map(|handler| Some((handler, blocked(handler)?))).collect()
    }

    fn layers(&self) -> impl Iterator<Item = &Arc<dyn Layer>> {
        self.handlers.iter().flat_map(Registration::all_layers)
    }
}

/// What is wanted, and what runs.
#[derive(Default)]
pub(crate) struct Served {
    pub(crate) handlers: Vec<Handler>,
    pub(crate) config: Config,
    running: Vec<Running>,
}

/// A handler that the program provides.
pub(crate) struct Handler {
    pub(crate) code: Registration,
    /// What was said at run time; remembered with the subscription.
    pub(crate) overrides: HandlerConfig,
    /// It is a bridge that the configuration says.
    pub(super) bridge: Option<BridgeConfig>,
}

impl Served {
    fn effective(&self, handler: &Handler) -> Registration {
        attach::effective(handler, &handler.settings(&self.config), &self.config.defaults)
    }
}

impl Handler {
    pub(crate) fn new(code: Registration) -> Self {
        Self { code, overrides: HandlerConfig::default(), bridge: None }
    }

    /// What counts: said at run time, else in the configuration, else in the code.
    fn settings(&self, config: &Config) -> HandlerConfig {
        self.overrides.clone().or(config.handler(&self.code.id, self.code.group.as_deref()))
    }
}

/// Handlers joined by `after`, being served.
struct Running {
    /// Which handlers, with which options: another one is another component.
    identity: Vec<Identity>,
    phase: watch::Sender<Phase>,
    task: AbortOnDrop,
}

/// What attaching handlers gave.
struct Started {
    /// Those whose subscriptions are new.
    new: Vec<String>,
    /// Nothing if they are paused.
    running: Option<Running>,
}

/// A handler as it is served.
#[derive(Clone, PartialEq)]
struct Identity {
    id: String,
    settings: HandlerConfig,
    /// The policy that its name stands for in the configuration.
    policy: Option<PolicyConfig>,
    after: Vec<String>,
    bridge: Option<BridgeConfig>,
}

impl Serving {
    pub(crate) fn new(provided: Provided) -> Self {
        Self {
            provided,
            served: Mutex::default(),
            shown: RwLock::default(),
            failed: watch::Sender::new(None),
            owned: parking_lot::Mutex::default(),
            phases: parking_lot::Mutex::default(),
            closed: AtomicBool::new(false),
            learning: Arc::default(),
            bridges: parking_lot::Mutex::default(),
            learning_begun: Once::new(),
        }
    }

    pub(crate) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.read())
    }

    pub(crate) fn failed(&self) -> watch::Receiver<Option<DispatchError>> {
        self.failed.subscribe()
    }

    pub(crate) fn admissions(&self) -> Vec<AdmissionState> {
        self.learning.admissions()
    }

    /// Ids of the handlers that take an event of this topic.
    pub(crate) fn takers(&self, topic: &str, envelope: &Envelope) -> Vec<String> {
        let wants = |handler: &&Registration| {
            let filter = handler.options.filter.as_ref();
            handler.topic == topic
                && takes(&handler.types, envelope.event_type())
                && filter.is_none_or(|filter| filter.matches(envelope))
        };
        self.shown().handlers.iter().filter(wants).map(|handler| handler.id.clone()).collect()
    }

    /// Changes what is wanted, and serves that. If it cannot be served, all is as it was.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut Vec<Handler>, &mut Config)) -> Result<(), StartError> {
        let mut served = self.served.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(StartError::Closed);
        }
        let Served { handlers, config, .. } = &mut *served;
        let before: Vec<Handler> = handlers.iter().map(Handler::copy).collect();
        let config_before = config.clone();
        change(handlers, config);
        let bridged = self.bridge(handlers, config);
        let changed = match bridged {
            Ok(bridges) => self.serve(&mut served).await.map(|()| *self.bridges.lock() = bridges),
            Err(error) => Err(error),
        };
        if let Err(error) = changed {
            (served.handlers, served.config) = (before, config_before);
            if let Err(again) = self.serve(&mut served).await {
                tracing::error!(error = %again, "a change could not be taken back");
            }
            return Err(error);
        }
        Ok(())
    }

    /// Looks at what is wanted.
    pub(crate) async fn look<T>(&self, look: impl FnOnce(&Served) -> T) -> T {
        look(&*self.served.lock().await)
    }

    /// Stops a handler and those it is joined with, does something, and serves them again.
    pub(crate) async fn without<T, E: From<StartError>>(
        &self,
        id: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut served = self.served.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(StartError::Closed.into());
        }
        let is_of = |running: &Running| running.identity.iter().any(|member| member.id == id);
        let (stop, keep): (Vec<_>, Vec<_>) = std::mem::take(&mut served.running).into_iter().partition(is_of);
        served.running = keep;
        stop_all(stop).await;
        let done = work.await;
        self.serve(&mut served).await?;
        done
    }

    async fn serve(&self, served: &mut Served) -> Result<(), StartError> {
        let effective: Vec<Registration> = served.handlers.iter().map(|handler| served.effective(handler)).collect();
        let policies = self.policies(&served.config);
        let graph = attach::check(&effective, &self.provided.states, &policies, &self.provided.default_policy)?;
        self.declare_topics(&served.config).await;
        let wanted: Vec<(Vec<Identity>, Joined)> = graph
            .components()
            .iter()
            .map(|component| {
                let identity = |vertex: usize| {
                    let handler = &served.handlers[vertex];
                    Identity {
                        id: handler.code.id.clone(),
                        settings: handler.settings(&served.config).or(served.config.defaults.clone()),
                        policy: match &effective[vertex].options.retry {
                            Some(Retry::Named(name)) => served.config.policies.get(name).cloned(),
                            _ => None,
                        },
                        after: effective[vertex].after.clone(),
                        bridge: handler.bridge.clone(),
                    }
                };
                let identity = component.members().iter().map(|member| identity(member.vertex)).collect();
                (identity, Joined::new(component, &effective))
            })
            .collect();
        // By their first handler: components share none.
        let by_first: HashMap<&str, &(Vec<Identity>, Joined)> =
            wanted.iter().filter_map(|component| Some((component.0.first()?.id.as_str(), component))).collect();
        let runs = |running: &Running| {
            let component = running.identity.first().and_then(|first| by_first.get(first.id.as_str()));
            component.is_some_and(|(identity, joined)| *identity == running.identity && !joined.is_paused())
        };
        let (keep, stop): (Vec<_>, Vec<_>) = std::mem::take(&mut served.running).into_iter().partition(runs);
        let kept: HashSet<&str> =
            keep.iter().filter_map(|running| Some(running.identity.first()?.id.as_str())).collect();
        let new: Vec<(Vec<Identity>, Joined)> = wanted
            .iter()
            .filter(|(identity, _)| identity.first().is_some_and(|first| !kept.contains(first.id.as_str())))
            .cloned()
            .collect();
        served.running = keep;
        *self.shown.write() = Arc::new(Shown { graph, handlers: effective });
        stop_all(stop).await;
        // Together: what is written for them is synced together.
        let starting = new.into_iter().map(|(identity, joined)| self.start(identity, joined, &policies));
        let mut created = Vec::new();
        let mut failed = None;
        for started in join_all(starting).await {
            match started {
                Ok(Started { new, running }) => {
                    created.extend(new);
                    served.running.extend(running);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.warn_of_detached(&created);
        Ok(())
    }

    /// Tells the transport what topics keep, before one is made.
    async fn declare_topics(&self, config: &Config) {
        let in_code = self.provided.topics.iter();
        let in_code = in_code.map(|(name, retention)| (name.clone(), (*retention, RetentionFrom::Code)));
        let mut topics: BTreeMap<_, _> = in_code.collect();
        topics.extend(
            config
                .topics
                .iter()
                .filter_map(|(name, topic)| Some((name.clone(), (topic.retention?, RetentionFrom::Config)))),
        );
        if let Err(error) = self.provided.transport.topics(TopicControl::Declare(topics)).await {
            tracing::error!(%error, "what topics keep could not be recorded: they keep what they did");
        }
    }

    fn policies(&self, config: &Config) -> HashMap<String, Arc<dyn Policy>> {
        let mut policies = self.provided.policies.clone();
        policies.extend(config.policies.iter().map(|(name, policy)| (name.clone(), policy.policy())));
        policies.entry(OPTIMAL.to_owned()).or_insert_with(|| Arc::new(optimal()));
        policies
    }

    /// Attaches handlers to their subscriptions; what is paused keeps its subscription, and nobody reads it.
    async fn start(
        &self,
        identity: Vec<Identity>,
        joined: Joined,
        policies: &HashMap<String, Arc<dyn Policy>>,
    ) -> Result<Started, StartError> {
        let provided = &self.provided;
        let subscribed = provided.transport.subscribe(joined.spec()).await;
        let subscribed = subscribed.map_err(|error| StartError::Subscribe { handler: joined.name(), error })?;
        let mut new = Vec::new();
        for (member, earlier) in identity.iter().zip(&subscribed.created) {
            match earlier {
                Some(0) => tracing::info!(handler = %member.id, "new subscription"),
                Some(earlier) => {
                    tracing::info!(handler = %member.id, "new subscription: {earlier} earlier events will be delivered");
                }
                None => continue,
            }
            new.push(member.id.clone());
        }
        if joined.is_paused() {
            tracing::warn!(handler = %joined.name(), "paused: its events wait until it is resumed");
            return Ok(Started { new, running: None });
        }
        let (phase, watched) = watch::channel(Phase::Run);
        {
            let mut phases = self.phases.lock();
            phases.retain(|known| !known.is_closed());
            phases.push(phase.clone());
        }
        let members = joined.members(provided, policies, &self.learning).await;
        if members.iter().any(Member::learns) {
            self.learning_begun.call_once(|| {
                let learning = Arc::clone(&self.learning);
                self.owns(tokio::spawn(learning.run(Arc::clone(&provided.transport), provided.clock.clone())));
            });
        }
        let (order, ordered) = joined.orders();
        let keys = Lanes::new(ordered, joined.is_pipelined());
        let clock = provided.clock.clone();
        let mut dispatcher = Dispatcher::new(members, subscribed.consumer, (order, keys), clock, watched);
        let failed = self.failed.clone();
        let task = tokio::spawn(async move {
            // It is told before the dispatcher goes, and with it its subscriptions: else all would seem settled.
            if let Err(error) = dispatcher.run().await {
                tracing::error!(%error, "a subscription stopped");
                // The first failure is the cause; those after it follow from it.
                failed.send_if_modified(|known| known.is_none() && known.replace(error).is_none());
            }
        });
        Ok(Started { new, running: Some(Running { identity, phase, task: AbortOnDrop(task) }) })
    }

    /// Subscriptions of the transport that no handler of this app serves.
    pub(crate) fn detached(&self) -> Vec<SubscriptionInfo> {
        let shown = self.shown();
        let known = self.provided.transport.inspect().subscriptions();
        let provided = |info: &SubscriptionInfo| shown.handlers.iter().any(|handler| handler.id == info.id);
        known.into_iter().filter(|info| !info.attached && !provided(info)).collect()
    }

    fn warn_of_detached(&self, created: &[String]) {
        let shown = self.shown();
        for detached in self.detached() {
            let renamed = shown.handlers.iter().find(|handler| {
                created.contains(&handler.id)
                    && handler.topic == detached.topic
                    && handler.types.iter().any(|event_type| takes(&detached.types, event_type))
            });
            match renamed {
                Some(new) => tracing::warn!(
                    "new `{}`, detached `{}`, which takes the same events: if the function was renamed, `id = \"{}\"` keeps its place",
                    new.id,
                    detached.id,
                    detached.id
                ),
                None => tracing::warn!(subscription = %detached.id, lag = detached.lag,
                    "detached: no handler of this app serves it, and its events wait; remove it if it is not needed"),
            }
        }
    }

    /// Ends a task when the app is shut down.
    pub(crate) fn owns(&self, task: JoinHandle<()>) {
        self.owned.lock().push(AbortOnDrop(task));
    }

    /// Stops at once, also what is being stopped slowly.
    pub(crate) fn interrupt(&self) {
        self.tell(Phase::Stop);
    }

    fn tell(&self, phase: Phase) {
        for told in self.phases.lock().iter() {
            told.send_replace(phase);
        }
    }

    /// Tells all dispatchers, also those that a change waits for; nothing is served from now on.
    pub(crate) async fn stop(&self, phase: Phase) {
        self.closed.store(true, Ordering::Release);
        self.tell(phase);
        let mut served = self.served.lock().await;
        let owned = std::mem::take(&mut *self.owned.lock());
        owned.iter().for_each(|task| task.0.abort());
        // They hold on to the transport, which is closed when this is over.
        join_all(owned.into_iter().map(AbortOnDrop::join)).await;
        // What a change started meanwhile.
        self.tell(phase);
        join_all(served.running.drain(..).map(|running| running.task.join())).await;
    }
}

impl Handler {
    fn copy(&self) -> Self {
        Self { code: self.code.clone(), overrides: self.overrides.clone(), bridge: self.bridge.clone() }
    }
}

/// A task that ends with the app.
struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    async fn join(mut self) {
        if let Err(error) = (&mut self.0).await
            && error.is_panic()
        {
            tracing::error!(%error, "a dispatcher broke: this is a defect of Oncue");
        }
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lets what runs finish within the grace time, and settles it.
async fn stop_all(stop: Vec<Running>) {
    let stop = stop.into_iter().map(|Running { phase, task, .. }| async move {
        phase.send_replace(Phase::Change(DEFAULT_GRACE));
        task.join().await;
        // Kept until here: without it, the dispatcher would stop at once.
        drop(phase);
    });
    join_all(stop).await;
}
