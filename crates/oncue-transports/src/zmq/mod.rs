//! `ZeroMQ`: the wire to a node, and sockets to programs that know nothing of one.
//!
//! `zmq://HOST:PORT` is the wire, with the whole delivery contract. A client is a DEALER, the node a ROUTER; a question is the
//! last two parts of a message, where it goes ([`PATH`], and the log's name) and what is asked, and what stands before them
//! comes back before the answer.
//!
//! A [`Source`] takes what other programs send (as SUB or PULL), and a [`Sink`] sends them events (as PUB or PUSH): **at most
//! once**, as nothing of `ZeroMQ` confirms a message. They are told where by [`bind`] and [`connect`].
//!
//! Over TCP, by ZMTP 3.0 with the mechanism NULL: CURVE and PLAIN are not spoken, so there is no encryption and no password.

mod client;
mod endpoint;
mod message;
mod peers;
mod queue;
mod server;
mod sink;
mod source;
mod subscribers;
mod url;
mod zmtp;

use std::sync::Arc;

use oncue::transport::OpenError;

use crate::wire::Link;

pub use endpoint::{Endpoint, EndpointError, bind, connect};
pub use queue::{HIGH_WATER_BYTES, HIGH_WATER_MARK};
pub use server::ZmqServer;
pub use sink::{Sink, SinkCounts, SinkError};
pub use source::{MAX_RECEIVED_BYTES, Source};

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
