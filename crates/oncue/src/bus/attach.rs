//! From handlers to what a transport and a dispatcher are given.

use std::{collections::HashMap, sync::Arc};

use super::{
    learn::Learning,
    serve::{Handler, Provided},
};
use crate::{
    config::HandlerConfig,
    dispatch::{Before, Door, Fork, Gate, Member, Sieve},
    error::StartError,
    filter::LearnedFilter,
    graph::{After, Component, Graph, Vertex},
    handler::{HandlerOptions, Registration, Retry, StateMap},
    policy::{LearnedRoute, Policy},
    transport::{MemberSpec, Members, Order, Ordered, SubscriptionSpec},
};

/// A handler with what the configuration and the run time say about it; `defaults` is for what neither they nor the code
/// say.
pub(super) fn effective(handler: &Handler, settings: &HandlerConfig, defaults: &HandlerConfig) -> Registration {
    let mut registration = handler.code.clone();
    let (options, unsaid) = (&mut registration.options, HandlerOptions::default());
    let settings = settings.clone().or(HandlerConfig {
        retry: defaults.retry.clone().filter(|_| options.retry.is_none()),
        timeout: defaults.timeout.filter(|_| options.timeout.is_none()),
        concurrency: defaults.concurrency.filter(|_| options.concurrency == unsaid.concurrency),
        ordered: defaults.ordered.filter(|_| options.ordered == unsaid.ordered),
        pipelined: defaults.pipelined.filter(|_| !options.pipelined),
        order: defaults.order.filter(|_| options.order == unsaid.order),
        on_dead_letter: defaults.on_dead_letter.filter(|_| options.on_dead_letter == unsaid.on_dead_letter),
        paused: defaults.paused.filter(|_| !options.paused),
        filter: defaults.filter.clone().filter(|_| options.filter.is_none()),
        learned_filter: defaults.learned_filter.clone().filter(|_| options.learned.is_none()),
        priority: defaults.priority.clone().filter(|_| options.priority.is_none()),
        // Code says it of each route, and of no other handler.
        route: None,
    });
    if let Some(retry) = &settings.retry {
        options.retry = Some(retry.retry());
    }
    options.timeout = settings.timeout.or(options.timeout);
    options.concurrency = settings.concurrency.unwrap_or(options.concurrency);
    options.ordered = settings.ordered.unwrap_or(options.ordered);
    options.pipelined = settings.pipelined.unwrap_or(options.pipelined);
    options.order = settings.order.unwrap_or(options.order);
    options.on_dead_letter = settings.on_dead_letter.unwrap_or(options.on_dead_letter);
    options.paused = settings.paused.unwrap_or(options.paused);
    if settings.filter.is_some() {
        options.filter.clone_from(&settings.filter);
    }
    if settings.learned_filter.is_some() {
        options.learned.clone_from(&settings.learned_filter);
    }
    if settings.priority.is_some() {
        options.priority.clone_from(&settings.priority);
    }
    if let Some(route) = &settings.route {
        options.route = Some(route.route(options.route.take()));
    }
    registration
}

/// Everything that is wrong, at once; else the graph of the handlers.
pub(super) fn check(
    handlers: &[Registration],
    states: &StateMap,
    policies: &HashMap<String, Arc<dyn Policy>>,
    default_policy: &Arc<dyn Policy>,
) -> Result<Graph, StartError> {
    let mut problems: Vec<String> = handlers.iter().flat_map(Registration::problems).collect();
    for handler in handlers {
        problems.extend(handler.check(states).err());
        let policy = match &handler.options.retry {
            Some(Retry::Policy(policy)) => Some(policy),
            Some(Retry::Named(name)) => policies.get(name),
            None => Some(default_policy),
        };
        let wrong = policy.map(|policy| policy.problems()).unwrap_or_default();
        problems.extend(wrong.into_iter().map(|wrong| format!("{handler}: its retry policy: {wrong}")));
        if let Some(Retry::Named(name)) = &handler.options.retry
            && !policies.contains_key(name)
        {
            let mut known: Vec<String> = policies.keys().map(|known| format!("`{known}`")).collect();
            known.sort_unstable();
            let known =
                if known.is_empty() { "there is none".to_owned() } else { format!("there is {}", known.join(", ")) };
            problems.push(format!(
                "{handler}: there is no retry policy `{name}`, {known}: add it with `.policy(\"{name}\", …)`, or to the \
                 configuration file as `[policies.{name}]`"
            ));
        }
        for before in handler.after.iter().filter_map(|id| handlers.iter().find(|other| other.id == *id)) {
            if before.topic != handler.topic {
                problems.push(format!(
                    "{handler}: it comes after `{}`, which reads topic `{}`, not `{}`: `after` joins handlers of one topic",
                    before.id, before.topic, handler.topic
                ));
            }
            if before.options.order != Order::Fifo || before.options.batch.is_some() {
                problems.push(format!(
                    "{handler}: it comes after `{}`, which takes batches or has an order of its own: `after` joins \
                     handlers that take one event at a time, first in first out",
                    before.id
                ));
            }
        }
    }
    if !problems.is_empty() {
        return Err(StartError::Handlers { problems });
    }
    let vertices = handlers.iter().map(|handler| Vertex {
        id: handler.id.clone(),
        consumes: handler.types.clone(),
        emits: handler.emits.clone(),
    });
    let after = handlers.iter().flat_map(|handler| {
        handler.after.iter().map(|first| After { handler: handler.id.clone(), first: first.clone() })
    });
    Ok(Graph::new(vertices, after)?)
}

/// Handlers that are served as one, with the members that each comes after.
#[derive(Clone)]
pub(super) struct Joined {
    handlers: Vec<(Registration, Members)>,
}

impl Joined {
    pub(super) fn new(component: &Component, handlers: &[Registration]) -> Self {
        let mut joined: Vec<(Registration, Members)> = Vec::with_capacity(component.members().len());
        for place in component.members() {
            // All that come before, not only the direct ones: one of those may not take the event at all.
            let after = place.predecessors.iter().fold(place.predecessors, |all, before| {
                all.union(joined.get(before).map_or(Members::NONE, |(_, after)| *after))
            });
            joined.push((handlers[place.vertex].clone(), after));
        }
        Self { handlers: joined }
    }

    pub(super) fn name(&self) -> String {
        self.handlers.iter().map(|(handler, _)| handler.id.as_str()).collect::<Vec<_>>().join("+")
    }

    /// What is joined is paused together.
    pub(super) fn is_paused(&self) -> bool {
        self.handlers.iter().any(|(handler, _)| handler.options.paused)
    }

    /// The order of the whole: that of a handler that stands alone, and the strictest within keys.
    pub(super) fn orders(&self) -> (Order, Ordered) {
        let order = self.handlers.first().map_or(Order::Fifo, |(handler, _)| handler.options.order);
        let strict = self.handlers.iter().any(|(handler, _)| handler.options.ordered == Ordered::Strict);
        (order, if strict { Ordered::Strict } else { Ordered::Relaxed })
    }

    /// Whether the next event of a key starts before the last one is settled: if that does for each of them.
    pub(super) fn is_pipelined(&self) -> bool {
        self.handlers.iter().all(|(handler, _)| handler.options.pipelined)
    }

    pub(super) fn spec(&self) -> SubscriptionSpec {
        let member = |(handler, _): &(Registration, Members)| MemberSpec {
            id: handler.id.clone(),
            types: handler.types.clone(),
            filter: handler.options.filter.clone(),
            emits: handler.emits.clone(),
            after: handler.after.clone(),
            start: handler.options.start,
            on_dead_letter: handler.options.on_dead_letter,
            learns: handler.options.learned.as_ref().map(|filter| filter.lessons().clone()),
            ranks: handler.options.priority.clone(),
            routes: handler.options.route.as_ref().map(LearnedRoute::as_learned),
        };
        let (order, ordered) = self.orders();
        let topic = self.handlers.first().map_or_else(String::new, |(handler, _)| handler.topic.clone());
        SubscriptionSpec { topic, members: self.handlers.iter().map(member).collect(), order, ordered }
    }

    pub(super) async fn members(
        &self,
        provided: &Provided,
        policies: &HashMap<String, Arc<dyn Policy>>,
        learning: &Arc<Learning>,
    ) -> Vec<Member> {
        let mut members = Vec::with_capacity(self.handlers.len());
        for (handler, after) in &self.handlers {
            let policy = match &handler.options.retry {
                Some(Retry::Policy(policy)) => Arc::clone(policy),
                Some(Retry::Named(name)) => {
                    policies.get(name).map_or_else(|| Arc::clone(&provided.default_policy), Arc::clone)
                }
                None => Arc::clone(&provided.default_policy),
            };
            let (policy, gate) = match policy.computed() {
                Some(rules) => {
                    let learned = learning.bind(rules, &handler.id, provided).await;
                    let gate = Gate { dependency: Arc::clone(&learned.dependency), deadline: rules.max_age() };
                    (learned as Arc<dyn Policy>, Some(gate))
                }
                None => (policy, None),
            };
            let holds_back = handler.options.learned.clone().filter(LearnedFilter::holds_back);
            let sieve = holds_back.map(|filter| Sieve { filter, transport: Arc::clone(&provided.transport) });
            let intake = handler.options.admission.as_ref().map(|rules| learning.admit(rules, handler));
            let door = intake.map(|intake| Door::new(intake, Arc::clone(&provided.transport)));
            let fork = Fork::of(handler, &provided.transport);
            let before = Before { policy, sieve, door, gate, fork };
            members.push(Member::new(handler, before, *after, &provided.states, &provided.clock));
        }
        members
    }
}
