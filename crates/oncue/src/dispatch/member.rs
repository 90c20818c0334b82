//! A handler as the dispatcher runs it.

use std::{collections::VecDeque, fmt, sync::Arc};

use tokio::sync::watch;

use super::{door::Door, fork::Fork, gate::Gate, run::RunId, sieve::Sieve};
use crate::{
    clock::Clock,
    handler::{
        BatchLimits, Binding, Draining, ErasedHandler, Invocation, Layer, Layers, Memory, Registration, StateMap,
    },
    policy::Policy,
    transport::{Members, OnDeadLetter},
};

/// What all calls of a member have in common.
pub(crate) struct Callee {
    pub(crate) handler: Arc<dyn ErasedHandler>,
    pub(crate) layers: Layers,
    pub(crate) binding: Arc<Binding>,
}

/// What stands around a member: its policy, and what its own settings put before it, outermost first.
pub(crate) struct Before {
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) sieve: Option<Sieve>,
    pub(crate) door: Option<Door>,
    pub(crate) gate: Option<Gate>,
    /// Before the handlers of a route: inside of all layers around it.
    pub(crate) fork: Option<Fork>,
}

/// A handler with what the dispatcher needs to know of it.
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    pub(crate) callee: Arc<Callee>,
    /// Tells its calls that it is being stopped.
    pub(crate) draining: watch::Sender<bool>,
    pub(crate) policy: Arc<dyn Policy>,
    /// Its policy is computed of its attempts, and a gate stands before it.
    gated: bool,
    /// Calls at once, at most.
    pub(crate) concurrency: usize,
    /// It takes `Keyed`.
    pub(crate) keyed: bool,
    pub(crate) on_dead_letter: OnDeadLetter,
    /// How its events are gathered, if it handles several at once.
    pub(crate) batch: Option<BatchLimits>,
    /// Members that must have acked an event before this one may handle it.
    pub(crate) after: Members,
    /// Calls under way.
    pub(crate) running: usize,
    /// A call that is over, for its memory.
    pub(crate) over: Option<Invocation>,
    /// What that call left of its future's memory.
    pub(crate) memory: Memory,
    /// Runs that wait for a place.
    pub(crate) queue: VecDeque<RunId>,
}

impl Member {
    pub(crate) fn new(
        handler: &Registration,
        before: Before,
        after: Members,
        states: &Arc<StateMap>,
        clock: &Clock,
    ) -> Self {
        let Before { policy, sieve, door, gate, fork } = before;
        let (told, draining) = Draining::pair();
        let gated = gate.is_some();
        let gate = gate.map(|gate| Arc::new(gate) as Arc<dyn Layer>);
        let sieve = sieve.map(|sieve| Arc::new(sieve) as Arc<dyn Layer>);
        let door = door.map(|door| Arc::new(door) as Arc<dyn Layer>);
        let fork = fork.map(|fork| Arc::new(fork) as Arc<dyn Layer>);
        let outside = sieve.into_iter().chain(door).chain(gate);
        let layers = outside.chain(handler.layers.iter().cloned()).chain(fork).collect();
        let binding = Arc::new(Binding { draining, ..handler.binding(states, clock) });
        Self {
            id: Arc::clone(&binding.subscription),
            callee: Arc::new(Callee { handler: Arc::clone(&handler.handler), layers, binding }),
            draining: told,
            policy,
            gated,
            concurrency: handler.options.concurrency,
            keyed: handler.keyed,
            on_dead_letter: handler.options.on_dead_letter,
            batch: handler.options.batch,
            after,
            running: 0,
            over: None,
            memory: Memory::default(),
            queue: VecDeque::new(),
        }
    }

    /// Whether its policy is computed of its attempts.
    pub(crate) fn learns(&self) -> bool {
        self.gated
    }

    /// What the call before left.
    pub(crate) fn take_memory(&mut self) -> (Option<Invocation>, Memory) {
        (self.over.take(), std::mem::take(&mut self.memory))
    }

    pub(crate) fn has_place(&self) -> bool {
        self.running < self.concurrency
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("id", &self.id).field("running", &self.running).finish_non_exhaustive()
    }
}
