//! The integration tests of `oncue`.

mod delivery;
mod handlers;
