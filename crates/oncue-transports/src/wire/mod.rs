//! The wire to an Oncue node: one protocol, whatever carries it. Written down in `docs/wire.md`.

mod answer;
mod caller;
mod consumer;
mod hand;
mod host;
mod listening;
mod local;
mod look;
pub mod message;
mod node;
mod remote;
mod session;

pub(crate) use caller::{Link, LinkError};
pub use host::{MAX_SESSIONS, MAX_WAIT};
pub use listening::ServeError;
pub(crate) use listening::{Listening, encode_answer, version_and_log};
#[cfg(feature = "http")]
pub(crate) use node::MAIN;
pub use node::{LEASE, MAX_LOGS, Node, NodeSettings};
pub use remote::Remote;
