//! Putting an app together: a transport, values, handlers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    alert::Alerts,
    bridge::{self, Bridge},
    bus::{Bus, Handler, OpenBridge, Provided, Serving},
    clock::Clock,
    config::{self, Config, ConfigError, Known, Problem, Severity},
    error::{Result, StartError},
    handler::{IntoRegistration, Layer, Registration, StateMap},
    policy::{Policy, exponential},
    source::{self, Source},
    transport::{self, OpenError, Retention, Transport},
};

mod group;

pub use group::Group;

/// How often a configuration file is looked at.
const CONFIG_EVERY: Duration = Duration::from_secs(1);

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
    layers: Vec<Arc<dyn Layer>>,
    config: Option<PathBuf>,
    bridges: Arc<OpenBridge>,
    alerts: Option<Alerts>,
    topics: BTreeMap<String, Retention>,
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

    /// An app on a transport that is open already. Handlers take its clock as `State<Clock>`.
    pub fn with_transport(transport: Arc<dyn Transport>, clock: Clock) -> Self {
        let mut states = StateMap::default();
        states.insert(clock.clone());
        Self {
            transport,
            clock,
            states,
            handlers: Vec::new(),
            layers: Vec::new(),
            config: None,
            bridges: Arc::new(bridge::to_url),
            alerts: None,
            topics: BTreeMap::new(),
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

    /// Adds the handlers of a group.
    pub fn group(mut self, group: Group) -> Self {
        self.handlers.extend(group.into_registrations());
        self
    }

    /// Puts a layer around the calls of every handler, outside of the layers of groups and handlers, and inside of those
    /// that the app has already.
    pub fn layer(mut self, layer: impl Layer) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// Reads options of the handlers from a file ([`config`](crate::config)), now and whenever it changes. A file that
    /// cannot be used leaves all as it is, and says so in the log; at the start it is an error.
    pub fn config(mut self, file: impl AsRef<Path>) -> Self {
        self.config = Some(file.as_ref().to_owned());
        self
    }

    /// How a [bridge](crate::bridge) of the configuration file is made, of its URL; `oncue_transports::bridge_to` knows all
    /// transports. Without this, it is one to `file:` or `memory:`. An error refuses the file.
    pub fn bridges(mut self, open: impl Fn(&str, Clock) -> Result<Bridge, OpenError> + Send + Sync + 'static) -> Self {
        self.bridges = Arc::new(open);
        self
    }

    /// Looks after the app, and tells what somebody should know of: see [`alert`](crate::alert). Without this nobody is
    /// alerted.
    pub fn alerts(mut self, alerts: Alerts) -> Self {
        self.alerts = Some(alerts);
        self
    }

    /// What a topic keeps of its events. The configuration file wins over it, and
    /// [`Bus::set_retention`](crate::Bus::set_retention) over both; of a topic that nothing is said of, the URL counts.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use oncue::{prelude::*, transport::Retention};
    /// # #[tokio::main]
    /// # async fn main() -> oncue::Result<()> {
    /// let week = Retention::forever().age(Duration::from_secs(7 * 86_400));
    /// let app = App::open("memory:").await?.retention("events", week).start().await?;
    /// # app.publish_to("events", Envelope::builder("a").build().unwrap()).await?;
    /// assert_eq!(app.inspect().topics()[0].retention, week);
    /// # app.shutdown().await
    /// # }
    /// ```
    pub fn retention(mut self, topic: impl Into<String>, retention: Retention) -> Self {
        self.topics.insert(topic.into(), retention);
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

    /// Changes every handler that it has.
    pub(crate) fn each_handler(mut self, change: impl FnMut(&mut Registration)) -> Self {
        self.handlers.iter_mut().for_each(change);
        self
    }

    /// Attaches every handler to its subscription and starts to deliver.
    ///
    /// # Errors
    /// A handler cannot be served: every problem at once, each with its handler, its place and the fix.
    pub async fn start(self) -> Result<Bus> {
        let known = self.known();
        let Self { transport, clock, states, mut handlers, sources, layers, config, alerts, topics, bridges, .. } =
            self;
        let (policies, default_policy) = (self.policies, self.default_policy);
        let problems = source::problems(&sources);
        if !problems.is_empty() {
            return Err(StartError::Handlers { problems }.into());
        }
        for handler in &mut handlers {
            handler.layers.splice(0..0, layers.iter().cloned());
        }
        let first = match &config {
            Some(file) => Some(usable(read(file.clone()).await?, &known).map_err(StartError::Config)?),
            None => None,
        };
        let provided =
            Provided { transport, clock, states: Arc::new(states), policies, default_policy, topics, bridges };
        let serving = Arc::new(Serving::new(provided));
        let mut handlers: Vec<Handler> = handlers.into_iter().map(Handler::new).collect();
        handlers.iter_mut().for_each(|handler| handler.recall(&serving));
        serving
            .change(|served, config| {
                *served = handlers;
                *config = first.clone().unwrap_or_default();
            })
            .await?;
        let bus = Bus::new(serving, sources);
        if let Some(alerts) = alerts {
            bus.alert(alerts);
        }
        if let (Some(file), Some(first)) = (config, first) {
            let watch = config::watch(file, bus.clock().clone(), CONFIG_EVERY);
            bus.follow(watch, first, move |config| usable(config, &known));
        }
        Ok(bus)
    }

    fn known(&self) -> Provides {
        Provides {
            policies: self.policies.keys().cloned().collect(),
            handlers: self.handlers.iter().map(|handler| handler.id.clone()).collect(),
            groups: self.handlers.iter().filter_map(|handler| handler.group.clone()).collect(),
        }
    }
}

/// What a configuration file may speak of.
struct Provides {
    policies: BTreeSet<String>,
    handlers: BTreeSet<String>,
    groups: BTreeSet<String>,
}

async fn read(file: PathBuf) -> Result<Config, StartError> {
    let read = tokio::task::spawn_blocking(move || Config::read(file)).await;
    Ok(read.unwrap_or(Ok(Config::default()))?)
}

/// A configuration, if nothing is wrong with it for these handlers; warnings are logged.
fn usable(config: Config, provides: &Provides) -> Result<Config, ConfigError> {
    let known = Known {
        policies: provides.policies.iter().map(String::as_str).collect(),
        handlers: provides.handlers.iter().map(String::as_str).collect(),
        groups: provides.groups.iter().map(String::as_str).collect(),
    };
    let (errors, warnings): (Vec<Problem>, Vec<Problem>) =
        config.check(&known).into_iter().partition(|problem| problem.severity == Severity::Error);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if errors.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { problems: errors }) }
}
