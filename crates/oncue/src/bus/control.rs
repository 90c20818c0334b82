//! Changing handlers while events flow. Nothing is lost by it: what runs is finished first, what waits keeps its place.
//!
//! What runs has [`DEFAULT_GRACE`](super::DEFAULT_GRACE) for that; then it is cancelled, and delivered again when its
//! handler is served again. A plain function cannot be cancelled: it is waited for, and the log says so.

use std::sync::Arc;

use bytes::Bytes;

use super::{Bus, DeadLetters, Handler, Serving};
use crate::{
    config::{Config, HandlerConfig},
    error::{Error, Result, StartError},
    handler::IntoRegistration,
    transport::{Control, ControlError, Retention, Start, SubscriptionInfo, TopicControl},
};

impl Bus {
    /// Serves another handler from now on.
    ///
    /// # Errors
    /// It cannot be served: its id is taken, a value is missing, …; then nothing has changed.
    #[track_caller]
    pub fn subscribe<M>(&self, handler: impl IntoRegistration<M>) -> impl Future<Output = Result<()>> + Send {
        let (serving, handler) = (self.0.serving.clone(), handler.into_registration());
        async move {
            let mut handler = Handler::new(handler);
            handler.recall(&serving);
            to_its_end(async move { Ok(serving.change(|handlers, _| handlers.push(handler)).await?) }).await
        }
    }

    /// Serves a handler no more. Its subscription stays, detached: a handler with its id goes on where this one stopped.
    /// Completes when what runs is finished, or cancelled after [`DEFAULT_GRACE`](crate::DEFAULT_GRACE).
    ///
    /// # Errors
    /// There is no such handler, or another one comes `after` it.
    pub async fn unsubscribe(&self, handler: &str) -> Result<()> {
        self.has(handler).await?;
        let (serving, id) = (Arc::clone(&self.0.serving), handler.to_owned());
        to_its_end(async move { Ok(serving.change(|handlers, _| handlers.retain(|known| known.code.id != id)).await?) })
            .await
    }

    /// Delivers nothing to a handler, and to those joined with it by `after`, until it is resumed. Completes when what
    /// runs is finished; what still runs after [`DEFAULT_GRACE`](crate::DEFAULT_GRACE) is cancelled, and delivered again
    /// when it is resumed, but for plain functions, which are waited for. Remembered: it is paused after a restart, too.
    ///
    /// # Errors
    /// There is no such handler, or it could not be recorded.
    pub async fn pause(&self, handler: &str) -> Result<()> {
        self.configure(handler, HandlerConfig { paused: Some(true), ..HandlerConfig::default() }).await
    }

    /// Delivers to a paused handler again, from where it stopped.
    ///
    /// # Errors
    /// There is no such handler, or it could not be recorded.
    pub async fn resume(&self, handler: &str) -> Result<()> {
        self.configure(handler, HandlerConfig { paused: Some(false), ..HandlerConfig::default() }).await
    }

    /// Changes options of a handler. What is given here wins over the configuration file and the code; what is not given
    /// stays. Remembered with the subscription. Completes when the handler is served with the new options, after what
    /// runs is finished or cancelled, as in [`pause`](Self::pause).
    ///
    /// # Errors
    /// There is no such handler, the options cannot be served (then nothing has changed), or they could not be recorded.
    pub async fn configure(&self, handler: &str, options: HandlerConfig) -> Result<()> {
        let overrides = self.overrides(handler).await?;
        self.set(handler, options.or(overrides)).await
    }

    /// Forgets what was said about a handler at run time: the configuration file and the code count again.
    ///
    /// # Errors
    /// There is no such handler, or it could not be recorded.
    pub async fn forget_configuration(&self, handler: &str) -> Result<()> {
        self.has(handler).await?;
        self.set(handler, HandlerConfig::default()).await
    }

    /// Takes over a configuration; run-time options still win. A file that is watched replaces it at its next change.
    ///
    /// # Errors
    /// It cannot be served; then nothing has changed.
    pub async fn reload(&self, config: Config) -> Result<()> {
        let serving = Arc::clone(&self.0.serving);
        to_its_end(async move { Ok(serving.change(|_, known| *known = config).await?) }).await
    }

    /// Delivers events to a handler anew, from another place on. Its retries and dead letters are forgotten, its keyed
    /// states stay. No other handler notices, but those joined with it by `after` wait meanwhile.
    ///
    /// # Errors
    /// There is no such subscription, or it could not be recorded.
    pub async fn reset(&self, handler: &str, start: Start) -> Result<()> {
        let (serving, id) = (Arc::clone(&self.0.serving), handler.to_owned());
        to_its_end(async move {
            let transport = Arc::clone(&serving.provided.transport);
            let reset = async { transport.control(&id, Control::Reset(start)).await.map_err(Error::from) };
            serving.without(&id, reset).await
        })
        .await
    }

    /// Forgets a subscription that no handler of this app serves: its position, dead letters and keyed states.
    ///
    /// # Errors
    /// There is no such subscription, it is served, or it could not be recorded.
    pub async fn remove(&self, subscription: &str) -> Result<()> {
        Ok(self.transport().control(subscription, Control::Remove).await?)
    }

    /// What a topic keeps from now on, whatever the configuration file and the code say. Remembered with the topic; nothing:
    /// they count again. The topic is made if it does not exist.
    ///
    /// # Errors
    /// The name is no topic's, or it could not be recorded.
    pub async fn set_retention(&self, topic: &str, retention: impl Into<Option<Retention>> + Send) -> Result<()> {
        let control = TopicControl::Set(topic.to_owned(), retention.into());
        Ok(self.transport().topics(control).await?)
    }

    /// Drops now what topics need not keep, and frees its space; by itself that happens after a while.
    ///
    /// # Errors
    /// The log cannot be read or written.
    pub async fn retain(&self) -> Result<()> {
        Ok(self.transport().topics(TopicControl::Retain).await?)
    }

    /// Subscriptions that no handler of this app serves.
    #[must_use]
    pub fn detached(&self) -> Vec<SubscriptionInfo> {
        self.0.serving.detached()
    }

    /// The dead letters of a handler.
    #[must_use]
    pub fn dead_letters(&self, handler: &str) -> DeadLetters {
        DeadLetters::of(self, handler)
    }

    async fn has(&self, handler: &str) -> Result<()> {
        self.overrides(handler).await.map(drop)
    }

    /// What was said about a handler at run time.
    async fn overrides(&self, handler: &str) -> Result<HandlerConfig> {
        let find = |handlers: &[Handler]| {
            handlers.iter().find(|known| known.code.id == handler).map(|known| known.overrides.clone())
        };
        let known = self.0.serving.look(|served| find(&served.handlers)).await;
        Ok(known.ok_or_else(|| ControlError::UnknownSubscription(handler.to_owned()))?)
    }

    /// Serves a handler with these options first, so that only what can be served is remembered.
    async fn set(&self, handler: &str, overrides: HandlerConfig) -> Result<()> {
        let remembered = serde_json::to_vec(&overrides).map(Bytes::from).unwrap_or_default();
        let (serving, id) = (Arc::clone(&self.0.serving), handler.to_owned());
        to_its_end(async move {
            let set = |handlers: &mut Vec<Handler>, _: &mut Config| {
                for known in handlers.iter_mut().filter(|known| known.code.id == id) {
                    known.overrides.clone_from(&overrides);
                }
            };
            serving.change(set).await?;
            Ok(serving.provided.transport.control(&id, Control::Remember(remembered)).await?)
        })
        .await
    }
}

/// Goes on also if the caller gives up waiting: a change that stopped half way would leave handlers unserved.
async fn to_its_end(change: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    // Only a runtime that shuts down does not run it.
    tokio::spawn(change).await.unwrap_or_else(|_| Err(StartError::Closed.into()))
}

impl Handler {
    /// Takes over what was said about it at run time, in this run or an earlier one.
    pub(crate) fn recall(&mut self, serving: &Serving) {
        let Some(remembered) = serving.provided.transport.inspect().remembered(&self.code.id) else { return };
        match serde_json::from_slice(&remembered) {
            Ok(overrides) => self.overrides = overrides,
            Err(error) => {
                tracing::warn!(handler = %self.code.id, %error, "its run-time options cannot be read: they do not count");
            }
        }
    }
}
