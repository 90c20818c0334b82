//! What drives a source: asks it, publishes what it generates, tells it what became of that, and waits after errors.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::future::FutureExt as _;
use tokio::sync::watch;

use super::{Activity, Batch, Confirmed, Source, SourceError, SourceInfo, unconfirmed::Unconfirmed};
use crate::{
    clock::Clock,
    event::Envelope,
    policy::{Decision, ErrorClass, Exponential, Failure, Policy as _, exponential},
    transport::{Publish, PublishError, SourceMark, Transport},
};

/// The longest wait after an error.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// What sources run on: the app, as far as they need it.
#[derive(Clone)]
pub(crate) struct Outlet {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Clock,
    /// Ids of the handlers that take this event from this topic.
    pub(crate) takers: Takers,
}

/// See [`Outlet`].
pub(crate) type Takers = Arc<dyn Fn(&str, &Envelope) -> Vec<String> + Send + Sync>;

/// Drives one source.
pub(super) struct Runner {
    source: Box<dyn Source>,
    outlet: Outlet,
    info: watch::Sender<SourceInfo>,
    stop: watch::Receiver<bool>,
    place: Option<String>,
    unconfirmed: Unconfirmed,
    policy: Exponential,
}

/// What comes next.
enum Step {
    Publish(Batch),
    Confirm(Vec<Confirmed>),
    Exhausted,
}

impl Runner {
    pub(super) fn new(
        source: Box<dyn Source>,
        outlet: Outlet,
        info: watch::Sender<SourceInfo>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let place = outlet.transport.inspect().source(source.id()).place;
        let place = Some(place).filter(|place| !place.is_empty());
        let unconfirmed = Unconfirmed::new(source.confirms());
        let policy = exponential().max_delay(MAX_DELAY).max_attempts(u32::MAX);
        Self { source, outlet, info, stop, place, unconfirmed, policy }
    }

    /// Runs until the source is exhausted, fails for good, or is stopped.
    pub(super) async fn run(mut self) {
        tracing::debug!(place = self.place, "starts");
        let last = self.drive().await.unwrap_or_else(|last| last);
        match &last {
            Activity::Failed { error } => {
                tracing::error!(place = self.place, error, "the source stopped; the app goes on without it");
            }
            last => tracing::debug!(place = self.place, "{last:?}"),
        }
        self.is(last);
    }

    fn is(&self, activity: Activity) {
        self.info.send_if_modified(|info| {
            info.activity != activity && {
                info.activity = activity;
                true
            }
        });
    }

    /// Ends with what the source came to, either way.
    async fn drive(&mut self) -> Result<Activity, Activity> {
        let mut exhausted = false;
        let mut failures = 0;
        loop {
            if exhausted && self.unconfirmed.is_empty() {
                return Ok(Activity::Exhausted);
            }
            let step = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stopped| *stopped) => return Ok(Activity::Stopped),
                confirmed = self.unconfirmed.next() => Ok(Step::Confirm(confirmed)),
                generated = generate(&mut *self.source, self.place.as_deref(), &self.outlet.clock),
                    if !exhausted && self.unconfirmed.has_room() => generated,
            };
            match step {
                Ok(Step::Confirm(confirmed)) => self.confirm(&confirmed).await?,
                Ok(Step::Publish(batch)) => {
                    failures = 0;
                    self.publish(batch).await?;
                }
                Ok(Step::Exhausted) => exhausted = true,
                Err(error) => {
                    self.back_off(&mut failures, &error).await?;
                    // It is known to run again when something came of it.
                    continue;
                }
            }
            self.is(Activity::Running);
        }
    }

    /// Publishes a batch and remembers its place. It is not given up at a stop: a source without state could not
    /// generate it again.
    async fn publish(&mut self, batch: Batch) -> Result<(), Activity> {
        let Batch { topic, events, place } = batch;
        let place = place.filter(|place| !place.is_empty());
        if events.is_empty() && place.is_none() {
            // A source that says nothing all the time must not keep others from running.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let source = place.clone().map(|place| SourceMark { id: self.source.id().to_owned(), place });
        let mut failures = 0;
        let batch = Publish { topic: topic.as_str().into(), events, source };
        let published = loop {
            match self.outlet.transport.publish(&batch).await {
                Ok(published) => break published,
                Err(error) => self.back_off(&mut failures, &refused(error)).await?,
            }
        };
        if place.is_some() {
            self.place = place;
        }
        self.info.send_modify(|info| {
            info.published += published.len() as u64;
            info.duplicates += published.iter().filter(|published| published.duplicate).count() as u64;
        });
        self.unconfirmed.add(&self.outlet, &topic, batch.events, &published);
        Ok(())
    }

    async fn confirm(&mut self, confirmed: &[Confirmed]) -> Result<(), Activity> {
        let mut failures = 0;
        loop {
            let told = AssertUnwindSafe(async { self.source.confirm(confirmed).await }).catch_unwind().await;
            match told.unwrap_or_else(|panic| Err(SourceError::panicked(&*panic))) {
                Ok(()) => return Ok(()),
                Err(error) => self.back_off(&mut failures, &error).await?,
            }
        }
    }

    /// Waits as long as the policy says, or ends the source.
    async fn back_off(&mut self, failures: &mut u32, error: &SourceError) -> Result<(), Activity> {
        *failures = failures.saturating_add(1);
        let text = error.to_string();
        let failure = Failure {
            attempt: *failures,
            class: error.class(),
            error: &text,
            age: Duration::ZERO,
            failing_for: Duration::ZERO,
            random: fastrand::f64(),
        };
        let Decision::Retry(delay) = self.policy.decide(&failure) else {
            return Err(Activity::Failed { error: text });
        };
        tracing::warn!(error = text, failures = *failures, "the source failed; it is tried again in {delay:.1?}");
        self.is(Activity::Retrying { error: text, failures: *failures });
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stopped| *stopped) => Err(Activity::Stopped),
            () = self.outlet.clock.sleep(delay) => Ok(()),
        }
    }
}

/// What a source generates next; a panic is an error. Nothing of it runs before the first poll.
async fn generate(source: &mut dyn Source, place: Option<&str>, clock: &Clock) -> Result<Step, SourceError> {
    match AssertUnwindSafe(async { source.generate(place, clock).await }).catch_unwind().await {
        Ok(Ok(Some(batch))) => Ok(Step::Publish(batch)),
        Ok(Ok(None)) => Ok(Step::Exhausted),
        Ok(Err(error)) => Err(error),
        Err(panic) => Err(SourceError::panicked(&*panic)),
    }
}

/// What follows when a batch is refused: a full log has room again when handlers are through, and what
/// cannot be reached may be again; nothing else mends itself.
fn refused(error: PublishError) -> SourceError {
    let class = match error {
        PublishError::Full { .. } | PublishError::Unreachable(_) => ErrorClass::Transient,
        PublishError::Invalid { .. }
        | PublishError::TopicName(_)
        | PublishError::TooLarge { .. }
        | PublishError::Fenced(_)
        | PublishError::Refused(_)
        | PublishError::Closed => ErrorClass::Permanent,
    };
    SourceError::new(class, error)
}
