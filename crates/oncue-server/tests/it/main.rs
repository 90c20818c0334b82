//! The binary `oncue` from the outside.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod directories;
mod drawing;
mod explaining;
mod gateway;
mod inputs;
mod interrupts;
mod judging;
mod killer;
mod kills;
mod letters;
mod logs;
mod looking;
mod mirroring;
mod numbers;
mod program;
mod routed;
#[cfg(all(feature = "http", feature = "zmq"))]
mod serving;
mod solving;
