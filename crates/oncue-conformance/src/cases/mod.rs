//! The cases, grouped by what they are about.

pub mod batches;
pub mod envelope;
pub mod failure;
pub mod filter;
pub mod flow;
pub mod graph;
pub mod groups;
pub mod lifecycle;
pub mod order;
pub mod outcome;
pub mod publish;
pub mod redrive;
pub mod replay;
pub mod restart;
pub mod run_time;
pub mod schedule;
pub mod size;
pub mod state;
