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

#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
use oncue::transport::broker::BrokerError;
pub use oncue::transport::without_secrets;
use oncue::{
    Clock,
    bridge::{self, Bridge},
    transport::{self, Inspect, LogUrl, OpenError, Transport},
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

/// As [`bridge()`], if a transport can be of this URL: for [`App::bridges`](oncue::App::bridges), so that bridges of the
/// configuration file lead to any of them.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use oncue::App;
///
/// let app = App::open("file:./data").await?.config("oncue.toml").bridges(oncue_transports::bridge_to).start().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As those of [`check`].
pub fn bridge_to(url: &str, clock: Clock) -> Result<Bridge, OpenError> {
    check(url)?;
    Ok(bridge(url, clock))
}

/// Whether a transport can be of a URL, without looking whether there is one.
///
/// # Errors
/// An unknown scheme, or one that this build leaves out; an option that is unknown or wrong, a file that is not there.
pub fn check(url: &str) -> Result<(), OpenError> {
    match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        #[cfg(feature = "http")]
        "http" | "https" => http::link(url).map(drop),
        #[cfg(not(feature = "http"))]
        "http" | "https" => Err(not_built(url, "http", "")),
        #[cfg(feature = "amqp")]
        "amqp" | "amqps" => amqp::check(url),
        #[cfg(not(feature = "amqp"))]
        "amqp" | "amqps" => Err(not_built(url, "amqp", "")),
        #[cfg(feature = "kafka")]
        "kafka" => kafka::check(url),
        #[cfg(not(feature = "kafka"))]
        "kafka" => Err(not_built(url, "kafka", KAFKA_NEEDS)),
        #[cfg(feature = "nats")]
        "nats" => nats::check(url),
        #[cfg(not(feature = "nats"))]
        "nats" => Err(not_built(url, "nats", "")),
        #[cfg(feature = "zmq")]
        "zmq" => zmq::link(url).map(drop),
        #[cfg(not(feature = "zmq"))]
        "zmq" => Err(not_built(url, "zmq", "")),
        _ => url.parse::<LogUrl>().map(drop),
    }
}

/// What opening a broker met.
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
fn not_opened(shown: &str, error: BrokerError) -> OpenError {
    let url = shown.to_owned();
    match error {
        BrokerError::Refused(reason) => OpenError::Refused { url, reason },
        error => OpenError::Broker { url, reason: error.to_string() },
    }
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
