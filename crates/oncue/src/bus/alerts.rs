//! The task that looks after an app: it looks when something happened, and tells what follows.

use std::{
    iter,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::select_all;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Bus, Serving};
use crate::{
    alert::{Alert, AlertKind, AlertStatus, Alerts, Condition, Notice, Observation, Served, State, Waiting, evaluate},
    clock::{Clock, Sleep, Timestamp},
    dispatch::DispatchError,
    handler::{Blocked, BlockedHandle, BreakerHandle, BreakerState, Registration},
    transport::{BoxFuture, Inspect, Publish, SubscriptionInfo, Transport},
};

/// Looks because of dead letters follow one another no faster.
const BREATH: Duration = Duration::from_millis(100);
/// Alerts of earlier runs that are read at once.
const READ: usize = 1_000;

/// The bus's end of the task.
pub(super) struct Alerting {
    active: Arc<RwLock<Vec<Alert>>>,
    look: mpsc::Sender<oneshot::Sender<()>>,
}

impl Bus {
    /// The alerts that are active: told, and not over yet. None without [`App::alerts`](crate::App::alerts).
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        self.0.alerting.get().map_or_else(Vec::new, |alerting| alerting.active.read().clone())
    }

    /// Looks now, instead of when something happens, and gives the alerts that are active then. What is new has been
    /// published when this returns.
    pub async fn check_alerts(&self) -> Vec<Alert> {
        if let Some(alerting) = self.0.alerting.get() {
            let (done, looked) = oneshot::channel();
            if alerting.look.send(done).await.is_ok() {
                // Without an answer the app was shut down meanwhile: what was known last counts.
                let _ = looked.await;
            }
        }
        self.alerts()
    }

    /// Begins to look after the app.
    pub(crate) fn alert(&self, settings: Alerts) {
        let (look, asked) = mpsc::channel(1);
        let active = Arc::new(RwLock::new(Vec::new()));
        if self.0.alerting.set(Alerting { active: Arc::clone(&active), look }).is_err() {
            return;
        }
        let serving = &self.0.serving;
        let watch = Watch {
            transport: Arc::clone(&serving.provided.transport),
            clock: serving.provided.clock.clone(),
            failed: serving.failed(),
            serving: Arc::downgrade(serving),
            settings,
            active,
            asked,
            blocked: Vec::new(),
            rested: Timestamp::from_micros(i64::MIN),
        };
        serving.owns(tokio::spawn(watch.run()));
    }
}

/// The task, and what it needs.
struct Watch {
    transport: Arc<dyn Transport>,
    clock: Clock,
    failed: watch::Receiver<Option<DispatchError>>,
    serving: Weak<Serving>,
    settings: Alerts,
    active: Arc<RwLock<Vec<Alert>>>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    /// Of the handlers that may wait for what they write to, as they were seen last.
    blocked: Vec<BlockedHandle>,
    /// From when on a dead letter is looked at at once.
    rested: Timestamp,
}

/// Why the task looks.
enum Woken {
    Look,
    Asked(oneshot::Sender<()>),
    /// The app is gone.
    Over,
}

impl Watch {
    async fn run(mut self) {
        let transport = Arc::clone(&self.transport);
        let (earlier, topic) = (Arc::clone(&transport), self.settings.topic.clone());
        // Reading may wait for the disk. It fails only when the runtime shuts down.
        let restored = tokio::task::spawn_blocking(move || State::restored(told(earlier.inspect(), &topic))).await;
        let mut state = restored.unwrap_or_default();
        let mut asked: Option<oneshot::Sender<()>> = None;
        loop {
            // Taken before looking: what happens meanwhile is looked at again.
            let progress = transport.progress();
            let given_up = transport.inspect().given_up();
            let Some(seen) = self.observe() else { return };
            let evaluated = evaluate(state, &seen, self.clock.now(), &self.settings);
            state = evaluated.state;
            *self.active.write() = state.active();
            self.tell(evaluated.notices).await;
            if let Some(asked) = asked.take() {
                // Whoever asked may have gone.
                let _ = asked.send(());
            }
            match self.wait(&*transport, progress, given_up, evaluated.next).await {
                Woken::Look => {}
                Woken::Asked(by) => asked = Some(by),
                Woken::Over => return,
            }
        }
    }

    /// Waits until it is worth looking again: something happened, or `next` has come.
    async fn wait<'t>(
        &mut self,
        transport: &'t dyn Transport,
        mut progress: BoxFuture<'t, ()>,
        given_up: u64,
        mut next: Option<Timestamp>,
    ) -> Woken {
        let looked = self.clock.now();
        let mut sleep = self.until(next);
        let mut blocked = Box::pin(changed(self.blocked.clone()));
        loop {
            tokio::select! {
                () = &mut sleep => return Woken::Look,
                () = &mut progress => {
                    progress = transport.progress();
                    let mut soon = looked.after(self.settings.every);
                    if self.settings.dead_letters && transport.inspect().given_up() != given_up {
                        let now = self.clock.now();
                        if self.rested <= now {
                            self.rested = now.after(BREATH);
                            return Woken::Look;
                        }
                        soon = soon.min(self.rested);
                    }
                    if next.is_none_or(|next| soon < next) {
                        next = Some(soon);
                        sleep = self.until(next);
                    }
                }
                () = &mut blocked => return Woken::Look,
                changed = self.failed.changed() => return if changed.is_ok() { Woken::Look } else { Woken::Over },
                asked = self.asked.recv() => return asked.map_or(Woken::Over, Woken::Asked),
            }
        }
    }

    fn until(&self, next: Option<Timestamp>) -> Sleep {
        next.map_or_else(
            || -> Sleep { Box::pin(std::future::pending()) },
            |next| self.clock.sleep(next.since(self.clock.now())),
        )
    }

    /// What there is to see; nothing once the app is gone.
    fn observe(&mut self) -> Option<Observation> {
        let shown = self.serving.upgrade()?.shown();
        self.blocked = shown.handlers.iter().filter_map(|handler| handler.handler.blocked()).collect();
        let served = |info: &SubscriptionInfo| {
            if info.attached {
                Served::Running
            } else if shown.handlers.iter().any(|handler| handler.id == info.id) {
                Served::Paused
            } else {
                Served::Detached
            }
        };
        let inspect = self.transport.inspect();
        let subscriptions = inspect.subscriptions().into_iter().map(|info| {
            let served = served(&info);
            (info, served)
        });
        let watched = self.settings.watched.iter().flat_map(|watched| watched.look());
        Some(Observation {
            subscriptions: subscriptions.collect(),
            storage: inspect.storage(),
            url: self.transport.url(),
            stopped: self.failed.borrow().as_ref().map(|error| (error.handler().to_owned(), error.to_string())),
            blocked: shown.blocked().iter().map(|(handler, blocked)| waiting(handler, blocked)).collect(),
            watched: shown.breakers().iter().filter_map(open).chain(watched).collect(),
        })
    }

    /// Logs alerts, and publishes them.
    async fn tell(&self, notices: Vec<Notice>) {
        let now = self.clock.now();
        let mut events = Vec::with_capacity(notices.len());
        for Notice { alert, id, quiet } in notices {
            log(&alert);
            if quiet {
                continue;
            }
            match alert.envelope(&id, now) {
                Ok(event) => events.push(event),
                Err(error) => {
                    tracing::error!(%error, subject = alert.subject, "an alert is no event: it is in this log only");
                }
            }
        }
        if events.is_empty() {
            return;
        }
        let batch = Publish { topic: self.settings.topic.as_str().into(), events, source: None };
        if let Err(error) = self.transport.publish(&batch).await {
            tracing::error!(%error, topic = self.settings.topic, "alerts were not published: they are in this log only");
        }
    }
}

/// One of them begins to wait, or waits no more.
async fn changed(handles: Vec<BlockedHandle>) {
    let changes = handles.into_iter().map(|mut handle| {
        Box::pin(async move {
            if handle.changed().await.is_err() {
                // Its handler is gone.
                std::future::pending::<()>().await;
            }
        })
    });
    let changes: Vec<_> = changes.collect();
    if changes.is_empty() {
        return std::future::pending().await;
    }
    select_all(changes).await;
}

fn log(alert: &Alert) {
    let Alert { kind, status, subject, value, threshold, text, .. } = alert;
    if *status == AlertStatus::Recovered {
        tracing::info!(%kind, %status, subject, value, threshold, "{text}");
    } else {
        tracing::warn!(%kind, %status, subject, value, threshold, "{text}");
    }
}

fn waiting(handler: &Registration, blocked: &Blocked) -> Waiting {
    Waiting {
        subscription: handler.id.clone(),
        topic: handler.topic.clone(),
        since: blocked.since,
        refused: blocked.refused,
        text: waits(handler, blocked),
    }
}

/// What is to be said of a handler that waits for what it writes to.
pub(super) fn waits(handler: &Registration, Blocked { since, refused, reason }: &Blocked) -> String {
    let what = if *refused { "is refused" } else { "cannot write" };
    format!("`{}` {what}, and its events wait since {since}: {reason}", handler.id)
}

/// What is to be said of a circuit breaker: it holds calls back until it is closed again.
pub(super) fn open(breaker: &BreakerHandle) -> Option<Condition> {
    if breaker.state() == BreakerState::Closed {
        return None;
    }
    let subject = breaker.name().to_owned();
    let text = format!("circuit breaker `{subject}` holds calls back: too many of them failed");
    Some(Condition { kind: AlertKind::BreakerOpen, subject, value: 1, threshold: 1, text })
}

/// The alerts that a topic holds, oldest first, with the time when each was told.
fn told(inspect: &dyn Inspect, topic: &str) -> impl Iterator<Item = (Timestamp, Alert)> {
    let mut from = 0;
    // What cannot be read was not told: then it is told again.
    let blocks = iter::from_fn(move || {
        let events = inspect.browse(topic, from, READ).ok()?;
        from = events.last()?.0.offset() + 1;
        Some(events)
    });
    blocks.flatten().filter_map(|(_, event)| Some((event.published(), Alert::told(&event)?)))
}
