//! One call of a handler: what it is given, and what it leaves behind besides its outcome.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::Mutex;

pub use crate::transport::StateChange;
use crate::{event::Envelope, transport::Position};

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
    pub topic: &'static str,
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
}

/// One call of a handler.
pub struct Invocation {
    /// The event.
    pub envelope: Envelope,
    /// Where it stands.
    pub position: Position,
    /// Which attempt this is: 1 is the first.
    pub attempt: u32,
    /// The id of the handler's subscription.
    pub subscription: Arc<str>,
    /// The app's values.
    pub states: Arc<StateMap>,
    /// The keyed state of the event's key as of its last settled event, for handlers that take `Keyed`.
    pub keyed: Option<Bytes>,
    effects: OnceLock<Arc<Mutex<Effects>>>,
    declared: OnceLock<Arc<[String]>>,
}

impl Invocation {
    /// An invocation without effects yet.
    #[must_use]
    pub fn new(
        envelope: Envelope,
        position: Position,
        attempt: u32,
        subscription: Arc<str>,
        states: Arc<StateMap>,
        keyed: Option<Bytes>,
    ) -> Self {
        Self {
            envelope,
            position,
            attempt,
            subscription,
            states,
            keyed,
            effects: OnceLock::new(),
            declared: OnceLock::new(),
        }
    }

    /// Where the handler leaves its effects; made on first use, as most handlers leave none.
    #[must_use]
    pub fn effects(&self) -> &Arc<Mutex<Effects>> {
        self.effects.get_or_init(Arc::default)
    }

    /// The effects left so far, taken.
    #[must_use]
    pub fn take_effects(&self) -> Effects {
        self.effects.get().map(|effects| std::mem::take(&mut *effects.lock())).unwrap_or_default()
    }

    /// Says which event types the handler declares that it emits; without this, it may emit any.
    pub fn declare(&self, emits: &Arc<[String]>) {
        // Said twice, it is the same handler that says it.
        let _ = self.declared.set(emits.clone());
    }

    #[cfg(test)]
    pub(crate) fn is_untouched(&self) -> bool {
        self.effects.get().is_none() && self.declared.get().is_none()
    }

    /// The event types that the handler declares that it emits; nothing if nobody said.
    #[must_use]
    pub fn declared(&self) -> Option<Arc<[String]>> {
        self.declared.get().cloned()
    }
}
