//! The integration tests of `oncue`.

mod handlers;
