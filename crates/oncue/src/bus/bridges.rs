//! Bridges that the configuration says: handlers that no code has.

use std::collections::BTreeMap;

use super::{Handler, Serving};
use crate::{
    bridge::Bridge,
    clock::Clock,
    config::{BridgeConfig, Config, ConfigError, FarUrl},
    error::StartError,
    handler::{Handler as _, Location, Registration},
    transport::OpenError,
};

/// Makes a bridge to a URL.
pub(crate) type OpenBridge = dyn Fn(&str, Clock) -> Result<Bridge, OpenError> + Send + Sync;

/// A bridge to each URL that the configuration says: those to the same one share its transport, which may be a directory
/// that one alone can have.
pub(super) type Bridges = BTreeMap<String, Bridge>;

impl Serving {
    /// Has the bridges that a configuration says among the handlers, and no others that one said. Gives what is to be kept once
    /// they are served.
    ///
    /// # Errors
    /// A URL that no transport can be of; then the handlers are as they were.
    pub(super) fn bridge(&self, handlers: &mut Vec<Handler>, config: &Config) -> Result<Bridges, StartError> {
        let bridges = self.bridges_to(config)?;
        let is_said = |id: &str, bridge: &BridgeConfig| config.bridges.get(id) == Some(bridge);
        handlers.retain(|handler| handler.bridge.as_ref().is_none_or(|bridge| is_said(&handler.code.id, bridge)));
        for (name, bridge) in &config.bridges {
            if handlers.iter().any(|handler| handler.bridge.is_some() && handler.code.id == *name) {
                continue;
            }
            let Some(to) = bridges.get(bridge.to.secret()) else { continue };
            let code = registration(to.beside(), name, bridge, config.place_of_bridge(name));
            let mut handler = Handler { bridge: Some(bridge.clone()), ..Handler::new(code) };
            handler.recall(self);
            handlers.push(handler);
        }
        Ok(bridges)
    }

    /// A bridge to each URL: one that there is, or another.
    fn bridges_to(&self, config: &Config) -> Result<Bridges, StartError> {
        let known = self.bridges.lock();
        let (mut bridges, mut wrong) = (Bridges::new(), BTreeMap::new());
        for to in config.bridges.values().map(|bridge| &bridge.to) {
            let made = match known.get(to.secret()) {
                Some(known) => Ok(known.beside()),
                None => (self.provided.bridges)(to.secret(), self.provided.clock.clone()),
            };
            match made {
                Ok(bridge) => drop(bridges.entry(to.secret().to_owned()).or_insert(bridge)),
                Err(error) => drop(wrong.insert(to.secret(), error.to_string())),
            }
        }
        if wrong.is_empty() {
            return Ok(bridges);
        }
        let problems = config.check_bridges(|to: &FarUrl| wrong.get(to.secret()).cloned());
        Err(StartError::Config(ConfigError::Invalid { problems }))
    }
}

fn registration(to: Bridge, name: &str, config: &BridgeConfig, location: Location) -> Registration {
    let to = match &config.into_topic {
        Some(topic) => to.into_topic(topic),
        None => to,
    };
    let registration = to.register(location).named(name).topic(&config.from).types(&config.types);
    match &config.filter {
        Some(filter) => registration.filter(filter.clone()),
        None => registration,
    }
}
