//! `zmq://HOST:PORT`: the wire over `ZeroMQ`. A client is a DEALER, the node a ROUTER; a question is the last two parts of a
//! message, where it goes ([`PATH`], and the log's name) and what is asked, and what stands before them comes back before the
//! answer.

mod client;
mod server;
mod url;
mod zmtp;

use std::sync::Arc;

use oncue::transport::OpenError;

use crate::wire::Link;

pub use server::ZmqServer;

/// What carries messages to the node of a URL.
pub(crate) fn link(url: &str) -> Result<Arc<dyn Link>, OpenError> {
    Ok(Arc::new(client::ZmqLink::new(url)?))
}

/// The part before a message of version 1: this, or this with `/LOG` behind it.
pub const PATH: &str = "wire/v1";

/// Most parts of a message: what comes back before the answer, the path, what is asked.
const MAX_PARTS: usize = 16;
/// What the other parts may take beside the message.
const ENVELOPE_BYTES: usize = 4 << 10;
