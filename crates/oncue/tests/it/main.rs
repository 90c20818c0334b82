//! The integration tests of `oncue`.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test is to panic")]

mod alerts;
mod bridges;
mod crash;
mod delivery;
mod feedback;
mod filtering;
mod flow;
mod handlers;
mod health;
mod instances;
mod learned;
mod looking;
mod maintenance;
mod metrics;
mod middleware;
mod model;
mod observing;
mod optimal;
mod passing;
mod pull;
mod request;
mod retention;
mod routing;
mod sources;
mod steps;
mod stuck;
mod testing;
mod timeouts;
mod urgency;
mod waiting;
