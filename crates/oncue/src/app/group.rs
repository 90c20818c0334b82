//! Handlers that belong together.

use std::{sync::Arc, time::Duration};

use crate::handler::{IntoRegistration, Layer, Registration, Retry};

/// Handlers that belong together: their ids begin with the group's name, and they share its layers. So a module gives all
/// it has, and `main` names only modules.
///
/// ```
/// use oncue::{Group, prelude::*};
/// use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "order.created", key = order_id)]
/// # struct OrderCreated { order_id: String }
///
/// mod billing {
///     # use super::*;
///     #[handler]
///     async fn charge(order: OrderCreated) {}
///
///     #[handler]
///     async fn invoice(order: OrderCreated) {}
///
///     pub fn handlers() -> Group {
///         Group::new("billing").on(charge).on(invoice.after(charge))
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> oncue::Result<()> {
/// let app = App::open("memory:").await?.group(billing::handlers()).start().await?;
/// let ids: Vec<_> = app.handlers().into_iter().map(|handler| handler.id).collect();
/// assert_eq!(ids, ["billing.charge", "billing.invoice"]);
/// # app.shutdown().await
/// # }
/// ```
#[must_use = "a group does nothing until an app has it"]
pub struct Group {
    name: String,
    handlers: Vec<Registration>,
    layers: Vec<Arc<dyn Layer>>,
    retry: Option<Retry>,
    timeout: Option<Duration>,
}

impl Group {
    /// A group; the ids of its handlers begin with `name` and a dot.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), handlers: Vec::new(), layers: Vec::new(), retry: None, timeout: None }
    }

    /// Adds a handler.
    #[track_caller]
    pub fn on<M>(mut self, handler: impl IntoRegistration<M>) -> Self {
        self.handlers.push(handler.into_registration());
        self
    }

    /// Puts a layer around the calls of all its handlers, outside of their own, and inside of those that it has already.
    pub fn layer(mut self, layer: impl Layer) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// What follows a failure, for its handlers that say nothing themselves.
    pub fn retry(mut self, retry: impl Into<Retry>) -> Self {
        self.retry = Some(retry.into());
        self
    }

    /// Longest that one attempt may take, for its handlers that say nothing themselves.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The handlers, with all that the group gives them.
    pub(crate) fn into_registrations(self) -> Vec<Registration> {
        let Self { name, mut handlers, layers, retry, timeout } = self;
        let own: Vec<String> = handlers.iter().map(|handler| handler.id.clone()).collect();
        let prefixed = |id: &str| format!("{name}.{id}");
        for handler in &mut handlers {
            // One without a name keeps none: that is reported at the start.
            if !handler.id.is_empty() {
                handler.id = prefixed(&handler.id);
            }
            for before in handler.after.iter_mut().filter(|before| own.contains(before)) {
                *before = prefixed(before);
            }
            handler.group = Some(name.clone());
            handler.layers.splice(0..0, layers.iter().cloned());
            let options = &mut handler.options;
            options.retry = options.retry.take().or_else(|| retry.clone());
            options.timeout = options.timeout.or(timeout);
        }
        handlers
    }
}
