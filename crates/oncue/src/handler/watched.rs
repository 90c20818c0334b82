//! What stands around handlers and changes by itself, to look at.

use std::sync::Arc;

use tokio::sync::watch;

/// A circuit breaker ([`BreakerHandle`](super::BreakerHandle)) or an adaptive limit ([`LimitHandle`](super::LimitHandle)), to
/// look at. A layer that is one hands it out ([`Layer::breakers`](super::Layer::breakers),
/// [`Layer::limits`](super::Layer::limits)).
#[derive(Clone, Debug)]
pub struct Watched<S> {
    name: Arc<str>,
    state: watch::Receiver<S>,
}

impl<S: Copy> Watched<S> {
    /// One of this name; `state` tells each change.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, state: watch::Receiver<S>) -> Self {
        Self { name: name.into(), state }
    }

    /// What it is called: by convention, what it protects.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is now.
    #[must_use]
    pub fn state(&self) -> S {
        *self.state.borrow()
    }

    /// Tells each change from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<S> {
        let mut watch = self.state.clone();
        watch.mark_unchanged();
        watch
    }

    /// Whether both are the same one, which stands around several handlers.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.state.same_channel(&other.state)
    }

    /// Each once.
    pub(crate) fn distinct(all: impl Iterator<Item = Self>) -> Vec<Self> {
        let mut distinct: Vec<Self> = Vec::new();
        for one in all {
            if !distinct.iter().any(|known| known.is_same(&one)) {
                distinct.push(one);
            }
        }
        distinct
    }
}
