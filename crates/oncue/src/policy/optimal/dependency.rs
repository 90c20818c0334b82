//! Something that handlers call and that may be down, shared by those that name it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turns, MutexGuard as Turn, Notify, futures::Notified};

use super::{
    health::{Entry, Health, Pass, Verdict},
    learned::Probes,
    odds::Odds,
};

/// What subscriptions that name the same dependency share: whether it is up. While it is down their events are parked, and one
/// call at a time tries; while it turns calls away, they are paced.
#[derive(Debug)]
pub(crate) struct Dependency {
    name: String,
    health: Mutex<Health>,
    /// Wakes the calls that wait.
    changed: Notify,
    /// Held by the first of those that wait; the others stand behind it as they came.
    turns: Turns<()>,
}

impl Dependency {
    pub(crate) fn new(name: String) -> Self {
        Self { name, health: Mutex::default(), changed: Notify::new(), turns: Turns::new(()) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn begin(&self, odds: Odds, down_for: Option<Duration>, now: Duration) {
        self.change(|health| health.begin(odds, down_for, now));
    }

    pub(crate) fn set_probes(&self, probes: Arc<Probes>) {
        self.health.lock().probes = Some(probes);
    }

    /// A call that comes: it may go at once, or it has to wait for its turn.
    pub(crate) fn come(&self, now: Duration) -> Entry {
        self.health.lock().come(now)
    }

    /// Completes when all who came before have gone.
    pub(crate) async fn turn(&self) -> Turn<'_, ()> {
        self.turns.lock().await
    }

    /// For the call whose turn it is.
    pub(crate) fn enter(&self, now: Duration) -> Entry {
        self.health.lock().enter(now, true)
    }

    pub(crate) fn leave(&self, pass: Pass, verdict: Verdict, first: bool, now: Duration) {
        self.change(|health| health.leave(pass, verdict, first, now));
        if pass.probes {
            self.changed.notify_waiters();
        }
    }

    /// Completes when it may be worth entering again before it was said. To be taken before entering.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// A call waits, until what is returned is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.health.lock().waiting += 1;
        Waiting(self)
    }

    /// How long it is until the next try, as of the last call that ended; none while it is up.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.health.lock().rest
    }

    fn change(&self, change: impl FnOnce(&mut Health)) {
        let mut health = self.health.lock();
        let before = health.is_down();
        change(&mut health);
        let after = health.is_down();
        drop(health);
        match (before, after) {
            (false, true) => tracing::warn!(dependency = %self.name,
                "what these handlers call seems to be down: their events are parked, and one at a time tries"),
            (true, false) => tracing::info!(dependency = %self.name, "works again: parked events go on"),
            _ => return,
        }
        self.changed.notify_waiters();
    }
}

/// A call that waits.
pub(crate) struct Waiting<'a>(&'a Dependency);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.health.lock().waiting -= 1;
    }
}
