//! What a circuit breaker tells of itself: to health, to alerts, to people.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use crate::clock::Timestamp;

/// Whether a circuit breaker lets calls pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls wait.
    Open {
        /// When a call may try next. The first one after that makes the breaker half-open.
        until: Timestamp,
    },
    /// A few calls try; the others wait for what becomes of these.
    HalfOpen,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Open { until } => write!(f, "open until {until}"),
            Self::HalfOpen => f.write_str("half-open"),
        }
    }
}

/// A circuit breaker, to look at. A layer that is one hands it out ([`Layer::breakers`](super::Layer::breakers)).
#[derive(Clone, Debug)]
pub struct BreakerHandle {
    name: Arc<str>,
    state: watch::Receiver<BreakerState>,
}

impl BreakerHandle {
    /// A breaker of this name; `state` tells whenever it opens or closes.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, state: watch::Receiver<BreakerState>) -> Self {
        Self { name: name.into(), state }
    }

    /// What it is called: by convention, what it protects.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        *self.state.borrow()
    }

    /// Tells each change from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BreakerState> {
        let mut watch = self.state.clone();
        watch.mark_unchanged();
        watch
    }

    /// Whether both are the same breaker, which stands around several handlers.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.state.same_channel(&other.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_shows_and_tells_each_change() {
        let (state, watched) = watch::channel(BreakerState::Closed);
        let handle = BreakerHandle::new("bank", watched);
        state.send_replace(BreakerState::HalfOpen);
        assert_eq!((handle.name(), handle.state()), ("bank", BreakerState::HalfOpen));
        let watch = handle.watch();
        assert!(!watch.has_changed().unwrap(), "what it is already is no change");
        state.send_replace(BreakerState::Open { until: Timestamp::from_micros(0) });
        assert!(watch.has_changed().unwrap());
        assert_eq!(handle.state().to_string(), "open until 1970-01-01T00:00:00Z");
    }

    #[test]
    fn handles_of_one_breaker_are_the_same_and_those_of_two_are_not() {
        let (_one, of_one) = watch::channel(BreakerState::Closed);
        let (_other, of_other) = watch::channel(BreakerState::Closed);
        let handle = BreakerHandle::new("bank", of_one);
        assert!(handle.is_same(&handle.clone()));
        assert!(!handle.is_same(&BreakerHandle::new("bank", of_other)));
    }
}
