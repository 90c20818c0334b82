//! Putting an app together: a transport, values, handlers.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

use crate::{
    bus::{Bus, Running},
    clock::Clock,
    dispatch::{Dispatcher, Member, Phase},
    error::{Result, StartError},
    graph::{After, Graph, Vertex},
    handler::{IntoRegistration, Registration, Retry, StateMap},
    policy::{Policy, exponential},
    source::{self, Source},
    transport::{self, MemberSpec, Members, Ordered, SubscriptionSpec, Transport},
};

/// An app before it starts.
///
/// ```
/// use oncue::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(type = "user.greeted")]
/// struct Greeted { name: String }
///
/// #[handler]
/// async fn greet(event: Greeted) {
///     println!("hello, {}", event.name);
/// }
///
/// # #[tokio::main]
/// # async fn main() -> oncue::Result<()> {
/// let app = App::open("memory:").await?.on(greet).start().await?;
/// let receipt = app.publish(Greeted { name: "Ada".into() }).await?;
/// receipt.outcome_of("greet", std::time::Duration::from_secs(5)).await?;
/// app.shutdown().await
/// # }
/// ```
#[must_use = "an app does nothing until it is started"]
pub struct App {
    transport: Arc<dyn Transport>,
    clock: Clock,
    states: StateMap,
    handlers: Vec<Registration>,
    sources: Vec<Box<dyn Source>>,
    policies: HashMap<String, Arc<dyn Policy>>,
    default_policy: Arc<dyn Policy>,
}

impl App {
    /// Opens the transport of a URL: `file:PATH` or `memory:`.
    ///
    /// # Errors
    /// The URL is wrong, or the transport cannot be opened.
    pub async fn open(url: &str) -> Result<Self> {
        let (url, clock) = (url.to_owned(), Clock::system());
        let opening = clock.clone();
        // Opening reads what the log says: off the runtime's threads.
        let opened = tokio::task::spawn_blocking(move || transport::open(&url, opening)).await;
        let transport = opened.map_err(|_| transport::OpenError::Url {
            url: "(any)".to_owned(),
            reason: "the runtime shuts down".to_owned(),
        })??;
        Ok(Self::with_transport(transport, clock))
    }

    /// An app on a transport that is open already.
    pub fn with_transport(transport: Arc<dyn Transport>, clock: Clock) -> Self {
        Self {
            transport,
            clock,
            states: StateMap::default(),
            handlers: Vec::new(),
            sources: Vec::new(),
            policies: HashMap::new(),
            default_policy: Arc::new(exponential()),
        }
    }

    /// Adds a value that handlers take as `State<T>`; one per type.
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// Adds a handler: an annotated function, a plain one, an object, or a closure with a name.
    #[track_caller]
    pub fn on<M>(mut self, handler: impl IntoRegistration<M>) -> Self {
        self.handlers.push(handler.into_registration());
        self
    }

    /// Adds a source: it is started after every handler, and stopped before them.
    pub fn source(mut self, source: impl Source) -> Self {
        self.sources.push(Box::new(source));
        self
    }

    /// Names a retry policy, for handlers that say `retry = "name"`.
    pub fn policy(mut self, name: impl Into<String>, policy: impl Policy) -> Self {
        self.policies.insert(name.into(), Arc::new(policy));
        self
    }

    /// The retry policy of handlers that name none; without this, [`exponential`].
    pub fn default_policy(mut self, policy: impl Policy) -> Self {
        self.default_policy = Arc::new(policy);
        self
    }

    /// Attaches every handler to its subscription and starts to deliver.
    ///
    /// # Errors
    /// A handler cannot be served: every problem at once, each with its handler, its place and the fix.
    pub async fn start(self) -> Result<Bus> {
        let graph = self.check()?;
        let Self { transport, clock, states, mut handlers, sources, policies, default_policy } = self;
        let states = Arc::new(states);
        let (phase, watched) = watch::channel(Phase::Run);
        let info = handlers.iter().map(|handler| (handler.id.clone(), handler.topic.clone(), handler.types.clone()));
        let mut running = Running::new(info.collect());
        let components: Vec<_> = graph.components().to_vec();
        let mut by_vertex: Vec<Option<Registration>> = handlers.drain(..).map(Some).collect();
        for component in components {
            let mut members: Vec<Member> = Vec::new();
            let mut specs = Vec::new();
            let (mut topic, mut ordered) = (String::new(), Ordered::Relaxed);
            for place in component.members() {
                let Some(handler) = by_vertex.get_mut(place.vertex).and_then(Option::take) else { continue };
                let policy = match &handler.options.retry {
                    Some(Retry::Policy(policy)) => Arc::clone(policy),
                    Some(Retry::Named(name)) => {
                        policies.get(name).map_or_else(|| Arc::clone(&default_policy), Arc::clone)
                    }
                    None => Arc::clone(&default_policy),
                };
                topic.clone_from(&handler.topic);
                // Handlers that share what they read share the strictest order among them.
                if handler.options.ordered == Ordered::Strict {
                    ordered = Ordered::Strict;
                }
                specs.push(MemberSpec {
                    id: handler.id.clone(),
                    types: handler.types.clone(),
                    start: handler.options.start,
                    on_dead_letter: handler.options.on_dead_letter,
                });
                // All that come before, not only the direct ones: one of those may not take the event at all.
                let after = place.predecessors.iter().fold(place.predecessors, |all, before| {
                    all.union(members.get(before).map_or(Members::NONE, |member| member.after))
                });
                members.push(member(handler, policy, after));
            }
            let names = specs.iter().map(|spec| spec.id.clone()).collect::<Vec<_>>();
            let spec = SubscriptionSpec { topic, members: specs, ordered };
            let subscribed = transport.subscribe(spec).await;
            let subscribed = subscribed.map_err(|error| StartError::Subscribe { handler: names.join("+"), error })?;
            for (name, earlier) in names.iter().zip(&subscribed.created) {
                match earlier {
                    Some(0) => tracing::info!(handler = %name, "new subscription"),
                    Some(earlier) => {
                        tracing::info!(handler = %name, "new subscription: {earlier} earlier events will be delivered");
                    }
                    None => {}
                }
            }
            let dispatcher = Dispatcher::new(
                members,
                subscribed.consumer,
                ordered,
                clock.clone(),
                Arc::clone(&states),
                watched.clone(),
            );
            running.spawn(dispatcher);
        }
        for detached in transport.inspect().subscriptions().iter().filter(|known| !known.attached) {
            tracing::warn!(subscription = %detached.id, lag = detached.lag,
                "detached: no handler of this app serves it, and its events wait; a renamed function keeps its place with `id = \"…\"`");
        }
        Ok(Bus::new(transport, clock, graph, phase, running, sources))
    }

    /// Everything that is wrong, at once; else the graph of the handlers.
    fn check(&self) -> Result<Graph, StartError> {
        let mut problems: Vec<String> = self.handlers.iter().flat_map(Registration::problems).collect();
        problems.extend(source::problems(&self.sources));
        for handler in &self.handlers {
            problems.extend(handler.check(&self.states).err());
            if let Some(Retry::Named(name)) = &handler.options.retry
                && !self.policies.contains_key(name)
            {
                let mut known: Vec<&str> = self.policies.keys().map(String::as_str).collect();
                known.sort_unstable();
                problems.push(format!(
                    "{handler}: there is no retry policy `{name}`; known are: {}. Add one with `.policy(\"{name}\", …)`",
                    known.join(", ")
                ));
            }
            for before in handler.after.iter().filter_map(|id| self.handlers.iter().find(|other| other.id == *id)) {
                if before.topic != handler.topic {
                    problems.push(format!(
                        "{handler}: it comes after `{}`, which reads topic `{}`, not `{}`: `after` joins handlers of one topic",
                        before.id, before.topic, handler.topic
                    ));
                }
            }
        }
        if !problems.is_empty() {
            return Err(StartError::Handlers { problems });
        }
        let vertices = self.handlers.iter().map(|handler| Vertex {
            id: handler.id.clone(),
            consumes: handler.types.clone(),
            emits: handler.emits.clone(),
        });
        let after = self.handlers.iter().flat_map(|handler| {
            handler.after.iter().map(|first| After { handler: handler.id.clone(), first: first.clone() })
        });
        Ok(Graph::new(vertices, after)?)
    }
}

fn member(handler: Registration, policy: Arc<dyn Policy>, after: Members) -> Member {
    Member {
        id: handler.id.into(),
        policy,
        concurrency: handler.options.concurrency,
        timeout: handler.options.timeout,
        keyed: handler.keyed,
        on_dead_letter: handler.options.on_dead_letter,
        handler: Arc::from(handler.handler),
        after,
        running: 0,
        queue: std::collections::VecDeque::new(),
    }
}
