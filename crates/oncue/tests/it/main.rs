//! The integration tests of `oncue`.

mod crash;
mod delivery;
mod handlers;
mod retention;
