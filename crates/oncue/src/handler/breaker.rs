//! What a circuit breaker tells of itself: to health, to alerts, to people.

use std::fmt;

use super::Watched;
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
pub type BreakerHandle = Watched<BreakerState>;

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

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
