//! The integration tests of `oncue`.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test is to panic")]

mod crash;
mod delivery;
mod handlers;
mod retention;
mod testing;
