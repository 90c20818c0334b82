//! `http://HOST:PORT`, and `https://` with encryption: the wire over HTTP. Each message is the body of a `POST` to [`PATH`], its answer that of the response.

mod access;
mod binding;
mod client;
mod server;

use std::sync::Arc;

use oncue::transport::OpenError;

use crate::wire::Link;

pub use access::{Access, AccessError};
pub use server::HttpServer;

/// What carries messages to the node of a URL.
pub(crate) fn link(url: &str) -> Result<Arc<dyn Link>, OpenError> {
    Ok(Arc::new(client::HttpLink::new(url)?))
}

/// Where a node takes messages of version 1.
pub const PATH: &str = "/wire/v1";
/// The media type of messages and answers.
pub const MEDIA_TYPE: &str = "application/msgpack";
