//! Oncue: an event-driven backend.

// Lets the macros name `::oncue` inside this crate's own tests too.
extern crate self as oncue;

pub mod clock;
pub mod event;
pub mod handler;
pub mod policy;
pub mod transport;
