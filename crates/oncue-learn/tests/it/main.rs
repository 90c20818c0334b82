//! Learners on streams whose law is known.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bandits;
mod learners;
mod states;
