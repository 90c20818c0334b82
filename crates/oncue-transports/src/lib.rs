//! Oncue on brokers: one module and one cargo feature each.
//!
//! A broker gives partitions that are appended to and read; what the delivery contract needs beside them is written once,
//! in [`oncue::transport::broker`].
//!
//! ```no_run
//! # fn main() -> Result<(), oncue::transport::OpenError> {
//! let clock = oncue::Clock::system();
//! let transport = oncue_transports::open("nats://127.0.0.1:4222", clock.clone())?;
//! let app = oncue::App::with_transport(transport, clock);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "nats")]
mod nats;

use std::sync::Arc;

use oncue::{
    Clock,
    transport::{self, OpenError, Transport},
};

/// Opens the transport of a URL: `memory:` and `file:PATH` of the library, `nats://HOST:PORT` of this crate.
///
/// # Errors
/// An unknown scheme, or one that this build leaves out; a broker that cannot be reached; what opening a log met.
pub fn open(url: &str, clock: Clock) -> Result<Arc<dyn Transport>, OpenError> {
    match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        #[cfg(feature = "nats")]
        "nats" => nats::open(url, clock),
        #[cfg(not(feature = "nats"))]
        "nats" => Err(OpenError::NotBuilt { url: without_secrets(url), scheme: "nats".to_owned(), feature: "nats" }),
        _ => transport::open(url, clock),
    }
}

/// Whether a URL is one of those that this crate adds, built or not.
#[must_use]
pub fn is_broker(url: &str) -> bool {
    url.starts_with("nats://")
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
