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
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod event;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(any(feature = "amqp", feature = "http", feature = "kafka", feature = "nats"))]
mod options;
#[cfg(any(feature = "amqp", feature = "nats", feature = "zmq"))]
mod reconnect;
#[cfg(any(feature = "amqp", feature = "kafka"))]
mod streams;
#[cfg(feature = "wire")]
pub mod wire;
#[cfg(feature = "zmq")]
pub mod zmq;

use std::sync::Arc;

use oncue::{
    Clock,
    bridge::{self, Bridge},
    transport::{self, Inspect, OpenError, Transport},
};

/// Opens the transport of a URL: `memory:` and `file:PATH` of the library, `http://HOST:PORT`, `zmq://HOST:PORT`,
/// `amqp://HOST:PORT` (`amqps://` with encryption), `kafka://HOST:PORT` and `nats://HOST:PORT` of this crate. Stands still until it is reached: not to be called on a thread of a runtime.
///
/// # Errors
/// An unknown scheme, or one that this build leaves out; a broker that cannot be reached; what opening a log met.
pub fn open(url: &str, clock: Clock) -> Result<Arc<dyn Transport>, OpenError> {
    match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        #[cfg(feature = "http")]
        "http" | "https" => Ok(Arc::new(wire::Remote::open(&http::link(url)?)?)),
        #[cfg(not(feature = "http"))]
        "http" | "https" => Err(not_built(url, "http", "")),
        #[cfg(feature = "amqp")]
        "amqp" | "amqps" => amqp::open(url, clock),
        #[cfg(not(feature = "amqp"))]
        "amqp" | "amqps" => Err(not_built(url, "amqp", "")),
        #[cfg(feature = "kafka")]
        "kafka" => kafka::open(url, clock),
        #[cfg(not(feature = "kafka"))]
        "kafka" => Err(not_built(url, "kafka", KAFKA_NEEDS)),
        #[cfg(feature = "nats")]
        "nats" => nats::open(url, clock),
        #[cfg(not(feature = "nats"))]
        "nats" => Err(not_built(url, "nats", "")),
        #[cfg(feature = "zmq")]
        "zmq" => Ok(Arc::new(wire::Remote::open(&zmq::link(url)?)?)),
        #[cfg(not(feature = "zmq"))]
        "zmq" => Err(not_built(url, "zmq", "")),
        _ => transport::open(url, clock),
    }
}

/// A bridge to the transport of a URL, as [`open`] knows it: reached when there is the first event for it, and tried again
/// until it can be. So an app whose far side is down starts, and its events wait in its own log.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use oncue::{App, Clock, prelude::*};
///
/// let there = oncue_transports::bridge("nats://127.0.0.1:4222", Clock::system());
/// let app = App::open("file:./data").await?.on(there.topic("orders").named("orders-to-nats")).start().await?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn bridge(url: impl Into<String>, clock: Clock) -> Bridge {
    let url = url.into();
    bridge::opening(move || open(&url, clock.clone()))
}

/// What the client library of Kafka is built by.
#[cfg(not(feature = "kafka"))]
const KAFKA_NEEDS: &str = ", which needs `make` and a C++ compiler (Debian: `apt-get install build-essential`)";

/// A transport that this build leaves out.
#[cfg(not(all(feature = "amqp", feature = "http", feature = "kafka", feature = "nats", feature = "zmq")))]
fn not_built(url: &str, feature: &'static str, needs: &'static str) -> OpenError {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_owned();
    OpenError::NotBuilt { url: without_secrets(url), scheme, feature, needs }
}

/// Looks at the topics of a URL without taking part: `file:PATH` of the library, `http://HOST:PORT` and `zmq://HOST:PORT` of this crate.
///
/// # Errors
/// An unknown scheme, or one that cannot be looked at so; a node that cannot be reached; what the log says.
pub fn inspect(url: &str, clock: &Clock) -> Result<Arc<dyn Inspect>, OpenError> {
    match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        #[cfg(feature = "http")]
        "http" | "https" => Ok(wire::Remote::open(&http::link(url)?)?.looking()),
        #[cfg(feature = "zmq")]
        "zmq" => Ok(wire::Remote::open(&zmq::link(url)?)?.looking()),
        _ => transport::inspect(url, clock),
    }
}

/// Whether a URL is one of those that this crate adds, built or not.
#[must_use]
pub fn is_broker(url: &str) -> bool {
    ["amqp://", "amqps://", "kafka://", "nats://"].iter().any(|scheme| url.starts_with(scheme))
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
