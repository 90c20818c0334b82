//! The log from outside: what it promises, on disks that fail, lose power and rot.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod backup;
mod basics;
mod checkpoints;
mod concurrency;
mod corruption;
mod crash;
mod directory;
mod faults;
mod interleaved;
#[cfg(shuttle)]
mod interleavings;
mod model;
mod rewriting;
mod sim;
mod snapshot;
mod support;
mod verify;
