//! Oncue beyond one process: on brokers, and over a wire to a node; one module and one cargo feature each.
//!
//! A broker gives partitions that are appended to and read; what the delivery contract needs beside them is written once,
//! in [`oncue::transport::broker`]. A node owns a log and does there what its clients ask; what they say to each other is [`wire`].
//!
//! ```no_run
//! # fn main() -> Result<(), oncue::transport::OpenError> {
//! let clock = oncue::Clock::system();
//! let transport = oncue_transports::open("nats://127.0.0.1:4222", clock.clone())?;
//! let app = oncue::App::with_transport(transport, clock);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "nats")]
mod nats;
#[cfg(any(feature = "amqp", feature = "nats"))]
mod options;
#[cfg(any(feature = "amqp", feature = "nats"))]
mod reconnect;
#[cfg(feature = "http")]
pub mod wire;

use std::sync::Arc;

use oncue::{
    Clock,
    transport::{self, Inspect, OpenError, Transport},
};

/// Opens the transport of a URL: `memory:` and `file:PATH` of the library, `http://HOST:PORT`, `amqp://HOST:PORT`
/// (`amqps://` with encryption) and `nats://HOST:PORT` of this crate. Stands still until it is reached: not to be called on a thread of a runtime.
///
/// # Errors
/// An unknown scheme, or one that this build leaves out; a broker that cannot be reached; what opening a log met.
pub fn open(url: &str, clock: Clock) -> Result<Arc<dyn Transport>, OpenError> {
    match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        #[cfg(feature = "http")]
        "http" => Ok(Arc::new(wire::Remote::open(&http::link(url)?)?)),
        #[cfg(not(feature = "http"))]
        "http" => Err(OpenError::NotBuilt { url: without_secrets(url), scheme: "http".to_owned(), feature: "http" }),
        #[cfg(feature = "amqp")]
        "amqp" | "amqps" => amqp::open(url, clock),
        #[cfg(not(feature = "amqp"))]
        scheme @ ("amqp" | "amqps") => {
            Err(OpenError::NotBuilt { url: without_secrets(url), scheme: scheme.to_owned(), feature: "amqp" })
        }
        #[cfg(feature = "nats")]
        "nats" => nats::open(url, clock),
        #[cfg(not(feature = "nats"))]
        "nats" => Err(OpenError::NotBuilt { url: without_secrets(url), scheme: "nats".to_owned(), feature: "nats" }),
        _ => transport::open(url, clock),
    }
}

/// Looks at the topics of a URL without taking part: `file:PATH` of the library, `http://HOST:PORT` of this crate.
///
/// # Errors
/// An unknown scheme, or one that cannot be looked at so; a node that cannot be reached; what the log says.
pub fn inspect(url: &str, clock: &Clock) -> Result<Arc<dyn Inspect>, OpenError> {
    match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        #[cfg(feature = "http")]
        "http" => Ok(wire::Remote::open(&http::link(url)?)?.looking()),
        _ => transport::inspect(url, clock),
    }
}

/// Whether a URL is one of those that this crate adds, built or not.
#[must_use]
pub fn is_broker(url: &str) -> bool {
    ["amqp://", "amqps://", "nats://"].iter().any(|scheme| url.starts_with(scheme))
}

/// The URL as it may be shown: what stands before an `@` is left out.
#[must_use]
pub fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(without_secrets("nats://user:p@ss@host:4222?prefix=a"), "nats://host:4222?prefix=a");
        assert_eq!(without_secrets("nats://host"), "nats://host");
        assert_eq!(without_secrets("memory:"), "memory:");
    }
}
