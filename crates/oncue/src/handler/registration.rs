//! A handler with all that its subscription needs to know.

use std::{any::type_name, collections::BTreeSet, fmt, sync::Arc, time::Duration};

use super::{
    BatchLimits, Binding, Classify, Draining, ErasedHandler, Filtering, Handle, Handler, HandlerOptions, Input,
    IntoOutcome, Layer, Location, OnDeadLetter, Order, Ordered, Retry, Start, StateMap, route,
};
use crate::{
    clock::Clock,
    event::{DEFAULT_TOPIC, Event},
    filter::LearnedFilter,
    policy::{Admission, ErrorClass, LearnedPriority},
};

type Check = fn(&StateMap) -> Result<(), String>;

/// A handler, ready to be served: what the app, the graph and the dispatcher take.
#[derive(Clone)]
pub struct Registration {
    /// What its position and its state are kept under. Unique in the app.
    pub id: String,
    /// The topic it reads.
    pub topic: String,
    /// The event types it takes.
    pub types: Vec<String>,
    /// The event types it may emit: those it returns, and those it declares.
    pub emits: Vec<String>,
    /// How it is served.
    pub options: HandlerOptions,
    /// Ids of the handlers that handle the same event before this one.
    pub after: Vec<String>,
    /// The handler itself.
    pub handler: Arc<dyn ErasedHandler>,
    /// Where it was registered.
    pub location: Location,
    /// Whether no `types` mean every type, not that they were forgotten.
    every_type: bool,
    /// Whether it keeps state by key.
    pub keyed: bool,
    classify: Classify,
    check: Check,
    /// The group it belongs to.
    pub group: Option<String>,
    /// The layers around its calls, outermost first.
    pub layers: Vec<Arc<dyn Layer>>,
    nameless_predecessor: bool,
    /// Problems that its form has.
    refused: Vec<&'static str>,
    /// Types that `emits` declares, as often as it does.
    declared: Vec<&'static str>,
    /// The handlers of a [route](super::route), of which one is given an event.
    pub(crate) arms: Vec<Registration>,
}

impl Registration {
    /// A handler that takes no events yet: for forms of handlers that this crate does not know.
    #[must_use]
    pub fn new(id: impl Into<String>, handler: Arc<dyn ErasedHandler>, location: Location) -> Self {
        Self {
            id: id.into(),
            topic: DEFAULT_TOPIC.to_owned(),
            types: Vec::new(),
            emits: Vec::new(),
            options: HandlerOptions::default(),
            after: Vec::new(),
            handler,
            location,
            every_type: false,
            keyed: false,
            classify: Classify::default(),
            check: |_| Ok(()),
            group: None,
            layers: Vec::new(),
            nameless_predecessor: false,
            refused: Vec::new(),
            declared: Vec::new(),
            arms: Vec::new(),
        }
    }

    /// An object that handles events of several types, for one of them: `Registration::object::<OrderCreated, _>(mailer)`.
    #[must_use]
    #[track_caller]
    pub fn object<E: Input, R: IntoOutcome + 'static>(object: impl Handle<E, R>) -> Self {
        object.register(Location::caller())
    }

    /// Events of every type of its topic are taken, unless types are named.
    pub(crate) fn every_type(mut self) -> Self {
        self.every_type = true;
        self
    }

    pub(super) fn with_arguments(mut self, keyed: bool, check: Check) -> Self {
        self.keyed = keyed;
        self.check = check;
        self
    }

    /// A problem that its form has; see [`problems`](Self::problems).
    pub(crate) fn refuse(&mut self, problem: &'static str) {
        self.refused.push(problem);
    }

    pub(super) fn returning(mut self, emits: Vec<&'static str>) -> Self {
        for event_type in emits {
            if !self.emits.iter().any(|known| known == event_type) {
                self.emits.push(event_type.to_owned());
            }
        }
        self
    }

    /// What all calls of the handler share, in an app with these values.
    #[must_use]
    pub fn binding(&self, states: &Arc<StateMap>, clock: &Clock) -> Binding {
        Binding {
            subscription: self.id.as_str().into(),
            topic: self.topic.as_str().into(),
            states: Arc::clone(states),
            inline: self.options.inline,
            classify: self.classify.clone(),
            emits: Some(self.emits.as_slice().into()),
            clock: clock.clone(),
            timeout: self.options.timeout,
            draining: Draining::pair().1,
        }
    }

    /// Whether the app has the values that the handler takes; asked once, at start.
    ///
    /// # Errors
    /// The handler, where it is, and the missing types.
    pub fn check(&self, states: &StateMap) -> Result<(), String> {
        (self.check)(states).map_err(|missing| format!("{self}: {missing}"))?;
        let wrong: Vec<String> = self.arms.iter().filter_map(|arm| arm.check(states).err()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{self}: {}", wrong.join("; "))) }
    }

    /// All layers around its calls, those around the handlers of a route included.
    pub(crate) fn all_layers(&self) -> impl Iterator<Item = &Arc<dyn Layer>> {
        self.layers.iter().chain(self.arms.iter().flat_map(|arm| &arm.layers))
    }

    /// What is wrong with this registration: each names the handler, where it is, and the fix. The app asks at start.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut problem = |text: &str| problems.push(format!("{self}: {text}"));
        if self.id.is_empty() {
            problem("it has no name of its own (a closure): add `.named(\"…\")`, which its position is kept under");
        } else if let Some(wrong) = self.id.chars().find(|c| c.is_control() || c.is_whitespace()) {
            problem(&format!("its id contains {wrong:?}: use letters, digits, `-`, `_` or `.`"));
        }
        for invalid in self.options.filter.iter().filter_map(|filter| filter.validate().err()) {
            problem(&format!("its filter cannot be used: {invalid}"));
        }
        self.options.learned.iter().flat_map(LearnedFilter::problems).for_each(|wrong| {
            problem(&format!("its learned filter: {wrong}"));
        });
        if self.options.batch.is_some() && self.options.learned.as_ref().is_some_and(LearnedFilter::holds_back) {
            problem(
                "its learned filter holds single events back, and it takes batches: remove `batch`, or the threshold",
            );
        }
        self.priority_problems().iter().for_each(|wrong| problem(&format!("its learned priority{wrong}")));
        self.admission_problems().iter().chain(&route::problems(self)).for_each(|wrong| problem(wrong));
        if self.types.is_empty() && !self.every_type {
            problem(
                "no event types: it takes the raw event, so add `on = \"…\"` to its annotation, or `.types([\"…\"])`",
            );
        }
        let types: Vec<&str> = self.types.iter().map(String::as_str).collect();
        for (names, what) in [(&types, "takes"), (&self.declared, "emits")] {
            if let Some(twice) = duplicate(names) {
                problem(&format!("`{twice}` stands twice in what it {what}: name it once"));
            }
        }
        if self.topic.is_empty() {
            problem("its topic has no name: remove `.topic(\"\")`, or name one");
        }
        if self.options.concurrency == 0 {
            problem("concurrency = 0 would never handle anything: give 1 or more");
        }
        if self.options.timeout.is_some_and(|timeout| timeout.is_zero()) {
            problem("timeout = 0 would fail every attempt: give a longer one, or none");
        }
        self.order_problems().iter().for_each(|wrong| problem(wrong));
        if let Some(batch) = self.options.batch {
            if batch.size == 0 {
                problem("batch = 0 would never handle anything: give 1 or more");
            }
            if !self.after.is_empty() {
                problem("it takes batches, and `after` joins handlers of one event: remove `batch`, or `after`");
            }
        }
        self.refused.iter().for_each(|refused| problem(refused));
        self.layers.iter().flat_map(|layer| layer.problems()).for_each(|wrong| problem(&wrong));
        if self.nameless_predecessor {
            problem("it comes after a handler without a name: name that one first, `.named(\"…\")`");
        }
        if self.after.contains(&self.id) {
            problem("it comes after itself: remove that `.after(…)`");
        }
        problems
    }

    /// What is wrong with the order of its events.
    fn order_problems(&self) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        if self.options.ordered == Ordered::Relaxed && self.options.on_dead_letter == OnDeadLetter::Hold {
            wrong.push(
                "on_dead_letter = \"hold\" makes later events of a key wait, and ordered = \"relaxed\" lets them pass: choose one",
            );
        }
        if self.options.order == Order::Lifo && self.options.ordered == Ordered::Strict {
            wrong.push(
                "order = \"lifo\" hands out the newest event first, and ordered = \"strict\" keeps the oldest of a key first: choose `ordered = \"relaxed\"`, or another order",
            );
        }
        if self.options.pipelined && self.keyed {
            wrong.push(
                "`Keyed` state is as of the last settled event of a key, and `pipelined` does not wait for that: remove `pipelined`",
            );
        }
        if self.options.pipelined && self.options.batch.is_some() {
            wrong.push(
                "a batch takes what waits of a key at once, and `pipelined` one after the other: remove one of them",
            );
        }
        if self.options.order != Order::Fifo && !self.after.is_empty() {
            wrong.push("`after` joins handlers that read in one order, first in first out: remove `order`, or `after`");
        }
        wrong
    }

    /// What is wrong with its learned priority, and what that does not go with.
    fn priority_problems(&self) -> Vec<String> {
        let Some(rules) = &self.options.priority else { return Vec::new() };
        let mut wrong: Vec<String> = rules.problems().into_iter().map(|wrong| format!(": {wrong}")).collect();
        if self.options.order != Order::Priority {
            wrong.push(" would change nothing: say order = \"priority\"".to_owned());
        }
        if self.options.batch.is_some() {
            wrong.push(
                " learns how long single events take, and it takes batches: remove `batch`, or `priority`".to_owned(),
            );
        }
        wrong
    }

    /// What is wrong with it as one of the handlers of a route, the first of which is `first`.
    pub(super) fn problems_as_arm(&self, first: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.id.is_empty() {
            wrong.push(format!("{self}: add `.named(\"…\")`, which what is learned of it is kept under"));
        }
        if self.topic != first.topic || (self.types != first.types && !self.types.is_empty() && !first.types.is_empty())
        {
            wrong.push(format!("{self}: it takes other events than `{}`, and any of them may get each", first.id));
        }
        let mut said = route::said_of_an_arm(&self.options);
        said.extend((!self.after.is_empty()).then_some("after"));
        said.extend(self.classify.is_said().then_some("classify"));
        if !said.is_empty() {
            wrong.push(format!("{self}: say `{}` of the route, not of one of its handlers", said.join("`, `")));
        }
        wrong.extend(self.refused.iter().map(|refused| format!("{self}: {refused}")));
        wrong.extend(self.layers.iter().flat_map(|layer| layer.problems()).map(|wrong| format!("{self}: {wrong}")));
        wrong
    }

    /// What is wrong with its admission policy, and what that does not go with.
    fn admission_problems(&self) -> Vec<String> {
        let Some(rules) = &self.options.admission else { return Vec::new() };
        let mut wrong: Vec<String> = rules.problems().into_iter().map(|wrong| format!("is wrong: {wrong}")).collect();
        if self.options.batch.is_some() {
            wrong.push("sheds single events, and it takes batches: remove `batch`, or `admission`".to_owned());
        }
        if self.options.order != Order::Fifo {
            wrong.push("counts those behind an event, first in first out: remove `order`, or `admission`".to_owned());
        }
        wrong.into_iter().map(|wrong| format!("its admission policy {wrong}")).collect()
    }

    /// The id that the handler's position and state are kept under.
    #[must_use]
    pub fn named(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Handles each event after `other` has acknowledged it.
    #[must_use]
    #[track_caller]
    pub fn after<M>(self, other: impl IntoRegistration<M>) -> Self {
        self.after_id(other.into_registration().id)
    }

    /// As [`after`](Self::after), by id.
    #[must_use]
    pub fn after_id(mut self, id: impl Into<String>) -> Self {
        let id = id.into();
        if id.is_empty() {
            self.nameless_predecessor = true;
        } else if !self.after.contains(&id) {
            self.after.push(id);
        }
        self
    }

    /// What follows a failure: a policy, or the name of one in the configuration.
    #[must_use]
    pub fn retry(mut self, retry: impl Into<Retry>) -> Self {
        self.options.retry = Some(retry.into());
        self
    }

    /// What to take of the event types: by attributes, such as `Filter::prefix("subject", "eu/")`; and, if it is
    /// [learned](crate::filter::learned()), by what became of events before.
    #[must_use]
    pub fn filter(mut self, filter: impl Into<Filtering>) -> Self {
        match filter.into() {
            Filtering::Said(filter) => self.options.filter = Some(filter),
            Filtering::Learned(filter) => self.options.learned = Some(filter),
        }
        self
    }

    /// Whether its events are handled when more come than can be: by what each is worth.
    #[must_use]
    pub fn admission(mut self, admission: Admission) -> Self {
        self.options.admission = Some(admission);
        self
    }

    /// Begins paused: its events wait until it is resumed.
    #[must_use]
    pub fn paused(mut self) -> Self {
        self.options.paused = true;
        self
    }

    /// Which of the waiting events is next.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.options.order = order;
        self
    }

    /// How many events a batch handler takes at once, at most.
    #[must_use]
    pub fn batch(mut self, size: usize) -> Self {
        let limits = self.options.batch.unwrap_or_default();
        self.options.batch = Some(BatchLimits { size, ..limits });
        self
    }

    /// How long a batch waits for more events.
    #[must_use]
    pub fn batch_wait(mut self, wait: Duration) -> Self {
        let limits = self.options.batch.unwrap_or_default();
        self.options.batch = Some(BatchLimits { wait, ..limits });
        self
    }

    /// Puts a layer around the handler's calls, inside of those it has already.
    #[must_use]
    pub fn layer(mut self, layer: impl Layer) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// Most events in flight at once, of different keys; 1 or more.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.options.concurrency = concurrency;
        self
    }

    /// Longest that one attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Runs a plain function where it is called, instead of on the blocking pool: for those that never block.
    #[must_use]
    pub fn inline(mut self) -> Self {
        self.options.inline = true;
        self
    }

    /// The event types to take, instead of those of the function's first argument.
    #[must_use]
    pub fn types<S: Into<String>>(mut self, types: impl IntoIterator<Item = S>) -> Self {
        self.types = types.into_iter().map(Into::into).collect();
        self
    }

    /// The topic to read, instead of the one of the function's first argument.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Declares that the handler emits `E` through its [`Context`](super::extract::Context).
    #[must_use]
    pub fn emits<E: Event>(mut self) -> Self {
        self.declared.extend(E::TYPES);
        self.returning(E::TYPES.to_vec())
    }

    /// Tells the class of the handler's errors; `E` is the error type of its `Result`.
    #[must_use]
    pub fn classify<E: 'static>(mut self, class_of: impl Fn(&E) -> ErrorClass + Send + Sync + 'static) -> Self {
        self.classify = Classify::by(class_of);
        self
    }

    /// What a dead letter does to later events of its key.
    #[must_use]
    pub fn on_dead_letter(mut self, on_dead_letter: OnDeadLetter) -> Self {
        self.options.on_dead_letter = on_dead_letter;
        self
    }

    /// Where a new subscription begins.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.options.start = start;
        self
    }

    /// Learns which events come first, where the order is by priority: see [`learned_priority`](crate::policy::learned_priority).
    #[must_use]
    pub fn priority(mut self, priority: LearnedPriority) -> Self {
        self.options.priority = Some(priority);
        self
    }

    /// How strictly order is kept within a key.
    #[must_use]
    pub fn ordered(mut self, ordered: Ordered) -> Self {
        self.options.ordered = ordered;
        self
    }

    /// Starts the next event of a key once the handler has acknowledged the last one, while that is made durable. A crash
    /// may repeat several events of a key, in their order, and not only the last one. Events that fail hold their key as
    /// without it.
    #[must_use]
    pub fn pipelined(mut self) -> Self {
        self.options.pipelined = true;
        self
    }
}

fn duplicate<'a>(names: &[&'a str]) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    names.iter().copied().find(|name| !seen.insert(*name))
}

/// The handler as messages name it.
impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id.as_str() {
            "" => write!(f, "handler without a name ({})", self.location),
            id => write!(f, "handler `{id}` ({})", self.location),
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("id", &self.id)
            .field("topic", &self.topic)
            .field("types", &self.types)
            .field("emits", &self.emits)
            .field("after", &self.after)
            .field("options", &self.options)
            .field("keyed", &self.keyed)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// The last segment of a type's name; empty if it has none of its own, as closures.
pub(super) fn name_of<T>() -> String {
    let name = type_name::<T>();
    let plain = name.split('<').next().unwrap_or_default();
    let last = plain.rsplit("::").next().unwrap_or_default();
    let is_name = !last.is_empty() && last.chars().all(|c| c.is_alphanumeric() || c == '_');
    if is_name { last.to_owned() } else { String::new() }
}

/// What can be registered: any [`Handler`], or a [`Registration`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler takes an event, then extractors, and returns `()`, events, or a `Result` of these; with `#[handler]` on the function, the compiler says what of it is wrong; what a closure captures has to be `Clone`, `Send` and `Sync`"
)]
pub trait IntoRegistration<Marker>: Sized {
    /// The registration; what is wrong with it points at the caller, unless the handler is annotated.
    #[track_caller]
    fn into_registration(self) -> Registration;
}

/// Marks handlers; see [`IntoRegistration`].
#[doc(hidden)]
pub struct ByHandler<M>(std::marker::PhantomData<M>);

#[diagnostic::do_not_recommend]
impl<M, H: Handler<M>> IntoRegistration<ByHandler<M>> for H {
    #[track_caller]
    fn into_registration(self) -> Registration {
        self.register(Location::caller())
    }
}

#[diagnostic::do_not_recommend]
impl IntoRegistration<()> for Registration {
    fn into_registration(self) -> Registration {
        self
    }
}
